//! URI, SQL arguments, configuration file and environment become one typed configuration.
//!
//! Every spelling, default value and limit of the product is in the [`catalog`]; the rooms own the structs that the
//! values go into. Precedence: URI (or the options of a SQL function), then configuration file, then environment, then
//! default, see [`layer`]. Nothing is read before a call needs it.

mod catalog;
mod database_file;
mod databases;
mod layer;
mod origin;
mod point;
mod reach;
mod report;
mod resolve;
mod restore;
mod seal;
mod setting;
mod start;
mod value;

pub use catalog::{SETTINGS, settings_markdown};
pub use database_file::{database_file, uri_parameters};
pub use databases::{ConfiguredDatabase, configuration_file, databases, replica_in_environment};
pub use layer::file::{configure, forget};
pub use layer::{Env, ProcessEnv};
pub use point::point;
pub use reach::permit_sql;
pub use report::{InForce, in_force};
pub use resolve::{
    Config, PrimaryConfig, ReplicaConfig, commit_mode, is_asked_for, resolve, resolve_configured,
};
pub use restore::{
    FollowConfig, RestoreConfig, RetentionConfig, VerifyConfig, follow, restore, restore_from, retention,
    target, verify,
};
pub use setting::{Declared, IntegrityCheck, Kind, Scope};
pub use start::{monitor_options, start_logging, start_logging_with, wants_default_vfs};
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
