//! What the whole process is told.

use super::catalog::{DEFAULT_VFS, LOG_FILE, LOG_FORMAT, LOG_LEVEL};
use super::layer::{Assigned, Given};
use super::setting::Scope;
use super::{Env, Params};
use crate::logging::{self, LogFormat};

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

/// Whether the library is to be the default VFS when it is loaded. What is not understood is `false`, and told.
pub fn wants_default_vfs(env: &dyn Env) -> bool {
    Given::environment(env).get(&DEFAULT_VFS).unwrap_or_else(|e| {
        logging::show(&format!("litestream: {e}; it is not the default VFS\n"));
        false
    })
}
