//! How a primary replicates.

use std::time::Duration;

use crate::primary::history;

/// What becomes of a database that is exactly an earlier state of its replica when it is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rewound {
    /// It is brought forward to the newest state.
    #[default]
    Forward,
    /// It stays, and replication stops.
    Stop,
}

/// How a primary replicates. The defaults and spellings are in `config`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Under load at most one file is written to level 0 in this time.
    pub sync_interval: Duration,
    /// How long the last close waits for what is not yet in the replica.
    pub close_timeout: Duration,
    /// How often the publisher looks whether the database was written without its knowing.
    pub watch_interval: Duration,
    /// What waits on local disk is at most this, in bytes, and the last file.
    pub spool_limit: u64,
    /// How often the replica is verified, if it changed; zero for never.
    pub verify_interval: Duration,
    /// What becomes of a database that is an earlier state of its replica.
    pub rewound: Rewound,
    /// Whether a replica that lost files is healed by a full copy of the database, or replication stops.
    pub auto_recover: bool,
    /// How much history the replica keeps.
    pub history: history::HistoryOptions,
}
