//! What the roles are told.

use std::time::Duration;

/// How a replica behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaOptions {
    /// How long an open waits for a replica that is still empty.
    pub open_timeout: Duration,
    /// How often the replica looks for new transactions.
    pub poll_interval: Duration,
    /// Memory for cached pages, in bytes.
    pub cache_size: u64,
}
