//! Failures that SQLite has no words for, kept for those who ask later.
//!
//! Where an open or a read fails, most hosts show only "unable to open database file" or "disk I/O
//! error". The reason is logged, and kept here for `litestream_status`.

use std::collections::VecDeque;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::clock::{Clock, SystemClock, Timestamp};
use crate::{fork, logging};

/// How many failures are kept; the oldest goes first.
pub const KEPT: usize = 16;

/// What failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// To open a database.
    Open,
    /// To read from a database that is open.
    Read,
    /// To write to a database that is open.
    Write,
    /// To use a connection in a process that did not open it.
    Use,
    /// To confirm that a commit is in the replicas.
    Confirm,
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Read => "read",
            Self::Write => "write",
            Self::Use => "use",
            Self::Confirm => "confirm a commit to",
        })
    }
}

/// A failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What failed.
    pub attempt: Attempt,
    /// The database file, if it has a name.
    pub path: Option<PathBuf>,
    /// Why, and what to do about it.
    pub message: String,
    /// When; for one that was repeated, the last time.
    pub at: Timestamp,
}

static FAILURES: Mutex<VecDeque<Failure>> = Mutex::new(VecDeque::new());

/// Logs and keeps that `attempt` on the database `path` failed, and why. The same failure again and
/// again is logged once. The message must carry no secret.
pub fn record(attempt: Attempt, path: Option<&Path>, message: impl Into<String>) {
    record_and_log(attempt, path, message.into(), true);
}

/// The same, for a failure that the host shows itself: it is not logged on a terminal, where it would be read
/// twice.
pub fn record_shown(attempt: Attempt, path: Option<&Path>, message: impl Into<String>) {
    record_and_log(attempt, path, message.into(), !logging::is_on_terminal());
}

fn record_and_log(attempt: Attempt, path: Option<&Path>, message: String, log: bool) {
    let path = path.filter(|p| !p.as_os_str().is_empty()).map(Path::to_owned);
    let failure = Failure { attempt, path, message, at: SystemClock.now() };
    if keep(&FAILURES, failure.clone()) && log {
        let Failure { path, message, .. } = failure;
        let name = path.map_or("a database without a name".to_owned(), |p| p.display().to_string());
        tracing::error!("cannot {attempt} {name}: {message}");
    }
}

/// The latest failures of this process, the oldest first.
pub fn recent() -> Vec<Failure> {
    let _section = fork::section();
    FAILURES.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
}

/// Keeps `failure` as the latest. Whether it is another one than the latest so far.
fn keep(failures: &Mutex<VecDeque<Failure>>, failure: Failure) -> bool {
    let _section = fork::section();
    let mut failures = failures.lock().unwrap_or_else(PoisonError::into_inner);
    let same = |last: &Failure| *last == Failure { at: last.at, ..failure.clone() };
    if let Some(last) = failures.back_mut().filter(|last| same(last)) {
        last.at = failure.at;
        return false;
    }
    if failures.len() == KEPT {
        failures.pop_front();
    }
    failures.push_back(failure);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(message: impl Into<String>, at: i64) -> Failure {
        let at = Timestamp::from_millis(at);
        Failure { attempt: Attempt::Open, path: Some("app.db".into()), message: message.into(), at }
    }

    #[test]
    fn the_latest_failures_are_kept() {
        let failures = Mutex::default();
        for n in 0..KEPT + 3 {
            assert!(keep(&failures, failure(format!("reason {n}"), 0)));
        }
        let kept = failures.into_inner().unwrap();
        assert_eq!(kept.len(), KEPT);
        assert_eq!(kept[0].message, "reason 3");
        assert_eq!(kept[KEPT - 1].message, format!("reason {}", KEPT + 2));
    }

    #[test]
    fn a_failure_that_repeats_is_kept_once_with_its_last_time() {
        let failures = Mutex::default();
        assert!(keep(&failures, failure("a", 1)));
        assert!(!keep(&failures, failure("a", 2)));
        assert!(keep(&failures, Failure { attempt: Attempt::Read, ..failure("a", 3) }));
        assert!(keep(&failures, failure("a", 4)));
        let times: Vec<_> = failures.into_inner().unwrap().iter().map(|f| f.at.as_millis()).collect();
        assert_eq!(times, [2, 3, 4]);
    }

    #[test]
    fn what_is_recorded_can_be_asked_for() {
        record(Attempt::Read, Some(Path::new("seldom.db")), "bits");
        let failure =
            recent().into_iter().find(|f| f.path.as_deref() == Some(Path::new("seldom.db"))).unwrap();
        assert_eq!((failure.attempt, failure.message.as_str()), (Attempt::Read, "bits"));
    }
}
