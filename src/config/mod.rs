//! URI, SQL arguments and environment become one typed configuration.
//!
//! Every spelling, default value and limit of the product is in the table [`SETTINGS`]; the rooms own
//! the structs that the values go into. Precedence: URI (or the options of a SQL function), then
//! environment, then default. Nothing is read before a call needs it.

mod database_file;
mod given;
mod point;
mod reach;
mod resolve;
mod restore;
mod settings;
mod start;
mod table;
mod value;

use std::fmt;

pub use database_file::database_file;
pub use point::point;
pub use reach::permit_sql;
pub use resolve::{Config, PrimaryConfig, ReplicaConfig, is_asked_for, resolve};
pub use restore::{Age, IntegrityCheck, RestoreConfig, VerifyConfig, restore, target, verify};
pub use settings::{Kind, Scope, Setting};
pub use start::start_logging;
pub use table::{SETTINGS, settings_markdown};
pub use value::{seconds, timeout};

use std::time::Duration;

/// How long `litestream_sync()` waits if it is not told.
pub const SYNC_TIMEOUT: Duration = Duration::from_secs(30);

/// The parameters of a SQLite URI, percent-decoded.
pub trait Params {
    /// Every parameter with its value, in the order of the URI.
    fn pairs(&self) -> Vec<(String, String)>;
}

impl Params for Vec<(String, String)> {
    fn pairs(&self) -> Vec<(String, String)> {
        self.clone()
    }
}

/// Where environment variables come from.
pub trait Env: fmt::Debug {
    /// The value of the variable `name`; an empty one counts as not set.
    fn var(&self, name: &str) -> Option<String>;
}

/// The environment of this process.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessEnv;

impl Env for ProcessEnv {
    fn var(&self, name: &str) -> Option<String> {
        std::env::var(name).ok().filter(|value| !value.is_empty())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An environment with these variables only.
    impl<const N: usize> Env for [(&'static str, &'static str); N] {
        fn var(&self, name: &str) -> Option<String> {
            self.iter().find(|(k, v)| *k == name && !v.is_empty()).map(|(_, v)| (*v).to_owned())
        }
    }

    /// The parameters of `query`, whose values have no escapes.
    pub(crate) fn params(query: &str) -> Vec<(String, String)> {
        let pair =
            |p: &str| p.split_once('=').map_or((p.to_owned(), String::new()), |(k, v)| (k.into(), v.into()));
        query.split('&').filter(|p| !p.is_empty()).map(pair).collect()
    }
}
