//! What the whole process is told.

use super::catalog::{
    DEFAULT_VFS, DISK_RESERVE, HEARTBEAT_INTERVAL, HEARTBEAT_URL, LISTEN, LISTEN_TOKEN, LOG_FILE, LOG_FORMAT,
    LOG_LEVEL, MAX_LAG, MCP_ADDR, MCP_TOKEN,
};
use super::layer::{Assigned, Given};
use super::resolve::SCOPES;
use super::setting::{Scope, Setting};
use super::{Env, Params};
use crate::error::{Error, Result};
use crate::logging::{self, LogFormat};
use crate::monitor;

/// Starts logging as the environment says, the first time that it is called; nothing after that.
///
/// A malformed variable does not stop anybody from opening a database: the default is used, and standard error
/// says so.
pub fn start_logging(env: &dyn Env) {
    start_logging_with(&Vec::new(), env);
}

/// The same for an open with these parameters, which may name a configuration file. What the environment says wins over
/// what the file says, as in Litestream.
pub fn start_logging_with(params: &dyn Params, env: &dyn Env) {
    logging::install(|| {
        // What is wrong with them, the open tells.
        let given = Given::uri(params, env, &[Scope::Open]).unwrap_or_else(|_| Given::environment(env));
        let document = given.document().ok().flatten();
        let process = document.map_or_else(Vec::new, |document| document.process.clone());
        let in_environment = |one: &Assigned| one.setting.env.iter().any(|name| env.var(name).is_some());
        let process = process.into_iter().filter(|one| !in_environment(one));
        let given = Given::environment(env).before(process);
        let mut complaints = Vec::new();
        let level = given.get(&LOG_LEVEL).unwrap_or_else(|e| {
            let default = Given::nothing().get(&LOG_LEVEL).expect("BUG: no default log level");
            complaints.push(format!("{e}; '{}' is used", default.to_string().to_ascii_lowercase()));
            default
        });
        // A path that cannot be one is opened, and its refusal told.
        let file = given.env(&LOG_FILE).map(|found| found.text.into());
        let format = given.get(&LOG_FORMAT).unwrap_or_else(|e| {
            complaints.push(format!("{e}; 'text' is used"));
            LogFormat::Text
        });
        logging::Options { level, file, format, complaints }
    });
}

/// What this process is to show, by an open with these parameters.
///
/// # Errors
/// `Config`: a value that a setting cannot have.
pub fn monitor_options(params: &dyn Params, env: &dyn Env) -> Result<monitor::Options> {
    let given = Given::uri(params, env, &SCOPES)?;
    let document = given.document().ok().flatten();
    let webhooks = document.as_ref().map_or_else(Vec::new, |document| document.webhooks.clone());
    let given = given.before(document.map_or_else(Vec::new, |document| document.process.clone()));
    let listen = address(&given, &LISTEN)?;
    let mcp_addr = address(&given, &MCP_ADDR)?;
    let interval = given.get(&HEARTBEAT_INTERVAL)?;
    let heartbeat = given.get(&HEARTBEAT_URL)?.map(|url| monitor::Heartbeat { url: url.0, interval });
    Ok(monitor::Options {
        listen,
        listen_token: given.get(&LISTEN_TOKEN)?,
        mcp_addr,
        // One that is set to nothing was meant to be a token: it lets nobody in.
        mcp_token: given
            .get(&MCP_TOKEN)?
            .or_else(|| given.empty_variable(&[&MCP_TOKEN.declared]).map(|found| found.text)),
        limits: monitor::Limits { max_lag: given.get(&MAX_LAG)?, disk_reserve: given.get(&DISK_RESERVE)? },
        heartbeat,
        webhooks,
    })
}

/// The address of `setting`, which must have a port.
fn address(given: &Given<'_>, setting: &Setting<Option<String>>) -> Result<Option<String>> {
    let Some(address) = given.get(setting)? else { return Ok(None) };
    match address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok()) {
        Some(_) => Ok(Some(address)),
        None => Err(Error::config(format!(
            "{}: '{address}' has no port; write 127.0.0.1:9090, or :9090 for all addresses",
            setting.declared.name
        ))),
    }
}

/// Whether the library is to be the default VFS when it is loaded. What is not understood is `false`, and told.
pub fn wants_default_vfs(env: &dyn Env) -> bool {
    Given::environment(env).get(&DEFAULT_VFS).unwrap_or_else(|e| {
        logging::show(&format!("litestream: {e}; it is not the default VFS\n"));
        false
    })
}
