//! What the SQL functions that take a replica URL are told.

use super::Env;
use super::given::{Given, Unknown};
use super::settings::Scope;
use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::ltx::Txid;
use crate::store::Target;

/// What a restore needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoreConfig {
    /// Where the replica is.
    pub target: Target,
    /// Which state is restored.
    pub point: RestorePoint,
    /// Replace the file if it exists.
    pub force: bool,
    /// Downloads at the same time.
    pub parallelism: usize,
}

/// Which state of the database is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestorePoint {
    /// The latest.
    Latest,
    /// After this transaction.
    Txid(Txid),
    /// The last one at or before this time.
    Time(Timestamp),
}

/// Reads the arguments of `litestream_restore`: a replica URL, and options as a JSON object.
///
/// # Errors
/// `Config`: not a JSON object, an unknown option, a value that does not fit, or both `txid` and
/// `timestamp`.
pub fn restore(url: &str, options: Option<&str>, env: &dyn Env) -> Result<RestoreConfig> {
    let scopes = [Scope::Restore, Scope::Store];
    let given = Given::read(&json_params(options)?, env, &scopes, Unknown::Refused)?;
    let point = match (given.parsed("txid")?, given.parsed("timestamp")?) {
        (Some(_), Some(_)) => return Err(Error::config("'txid' and 'timestamp' are both given; keep one")),
        (Some(txid), None) => RestorePoint::Txid(txid),
        (None, Some(time)) => RestorePoint::Time(time),
        (None, None) => RestorePoint::Latest,
    };
    Ok(RestoreConfig {
        target: Target::parse(url, &|name| given.store(name))?,
        point,
        force: given.flag("force")?,
        parallelism: given.count("parallelism")? as usize,
    })
}

/// Reads a replica URL, and options of the store as a JSON object.
///
/// # Errors
/// `Config`: not a JSON object, an unknown option, or a value that does not fit.
pub fn target(url: &str, options: Option<&str>, env: &dyn Env) -> Result<Target> {
    let given = Given::read(&json_params(options)?, env, &[Scope::Store], Unknown::Refused)?;
    Target::parse(url, &|name| given.store(name))
}

/// The members of a JSON object whose values are text, numbers or booleans; `null` is not given.
fn json_params(json: Option<&str>) -> Result<Vec<(String, String)>> {
    use serde_json::Value;

    let Some(json) = json else { return Ok(Vec::new()) };
    // The text may hold a secret: it is not repeated.
    let not_an_object = || Error::config("options are not a JSON object, such as {\"force\": true}");
    let Ok(Value::Object(members)) = serde_json::from_str(json) else { return Err(not_an_object()) };
    let mut params = Vec::with_capacity(members.len());
    for (key, value) in members {
        match value {
            Value::Null => {}
            Value::String(text) => params.push((key, text)),
            Value::Bool(_) | Value::Number(_) => params.push((key, value.to_string())),
            Value::Array(_) | Value::Object(_) => {
                return Err(Error::config(format!("option '{key}' is neither text, number nor boolean")));
            }
        }
    }
    Ok(params)
}
