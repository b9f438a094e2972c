//! How a replica is doing, and how its polls went.

use std::time::Duration;

use super::hydration::HydrationStatus;
use crate::clock::{Clock as _, SystemClock, Timestamp};
use crate::error::Error;
use crate::ltx::Txid;
use crate::page::PageCount;

pub(super) fn now() -> Timestamp {
    SystemClock.now()
}

/// How a replica is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaStatus {
    /// The replica's URL.
    pub url: String,
    /// The last transaction that is seen.
    pub txid: Txid,
    /// When it was committed.
    pub timestamp: Timestamp,
    /// The size of the database in pages.
    pub pages: PageCount,
    /// The size of a page in bytes.
    pub page_size: u32,
    /// The time as of which this state is the database's, as far as is known: of the latest state, when the
    /// replica last answered what is new.
    pub as_of: Timestamp,
    /// What went wrong since then; empty again as soon as a poll succeeds.
    pub last_error: Option<String>,
    /// When a connection last failed to read a page, and why; empty again as soon as one comes from the store.
    pub last_read_error: Option<(Timestamp, String)>,
    /// What was found in the replica that one should know.
    pub notice: Option<String>,
    /// The bytes that the page cache takes.
    pub cache_bytes: usize,
    /// Requests made since the replica was opened.
    pub requests: u64,
    /// The files that make the state.
    pub files: usize,
    /// How many of them are sealed.
    pub sealed_files: usize,
    /// How the download to a local file is doing, if there is one.
    pub hydration: Option<HydrationStatus>,
}

impl ReplicaStatus {
    /// The age of what is read: the time since it was the latest state, as far as is known.
    pub fn age(&self) -> Duration {
        let age = now().as_millis() - self.as_of.as_millis();
        Duration::from_millis(age.try_into().unwrap_or(0))
    }
}

/// How polls went.
#[derive(Debug)]
pub(super) struct Polls {
    pub(super) last_success: Timestamp,
    pub(super) last_error: Option<String>,
    /// The replica shows less than was seen.
    pub(super) older: Option<String>,
    /// What was read is no longer there.
    pub(super) reset: Option<String>,
    /// Why the latest state was never read: the replica was opened for an earlier one.
    pub(super) no_latest: Option<Error>,
}

impl Polls {
    pub(super) fn new(last_success: Timestamp) -> Self {
        Self { last_success, last_error: None, older: None, reset: None, no_latest: None }
    }

    /// A state of `timestamp` is known, and not the latest one, because of `error`.
    pub(super) fn without_latest(timestamp: Timestamp, error: &Error) -> Self {
        let (last_error, no_latest) = (Some(error.to_string()), Some(error.clone()));
        Self { last_error, no_latest, ..Self::new(timestamp) }
    }
}
