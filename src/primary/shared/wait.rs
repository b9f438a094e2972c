//! Waiting for the replica.

use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::{Phase, Progress, Shared};
use crate::error::{Error, ErrorKind, Result};
use crate::ltx::Txid;
use crate::primary::commits::CommitSeq;

impl Shared {
    /// Waits until every commit noted so far is in the replica; returns the last transaction there.
    ///
    /// # Errors
    /// `Timeout` with the cause as far as it is known; `Conflict` if replication stopped; `Busy` in a
    /// process that does not publish; `NotFound` if the database is empty; `Interrupted`.
    pub(in crate::primary) fn wait(&self, timeout: Duration, interrupted: &dyn Fn() -> bool) -> Result<Txid> {
        const LOOK: Duration = Duration::from_millis(100);
        let deadline = Instant::now() + timeout;
        let mut goal = None;
        let asked = self.progress().round;
        let _waiting = Waiting::new(&self.waiting);
        self.signal.hurry();
        let mut progress = self.progress();
        loop {
            if progress.resumed && goal.is_none() {
                // Not before: what an earlier process left in the WAL is noted by the first look.
                goal = Some(self.commits.last().seq);
            }
            if let Some(outcome) = self.outcome(&progress, goal, asked) {
                return outcome;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(self.timed_out(&progress, timeout));
            }
            if interrupted() {
                return Err(Error::new(ErrorKind::Interrupted, "the wait for the replica was interrupted"));
            }
            progress = self
                .progressed
                .wait_timeout(progress, left.min(LOOK))
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Waits at the last close of the process, at most for `timeout`: for commits that are on their way, while the store
    /// answers. Another process that publishes is told of them instead, and a store that failed last is not waited for.
    ///
    /// # Errors
    /// As [`Shared::wait`]; `Timeout` at once if the last attempt failed.
    pub(in crate::primary) fn wait_at_close(&self, timeout: Duration) -> Result<()> {
        let standing = {
            let progress = self.progress();
            let is_idle = progress.phase == Phase::Idle && self.holes.is_settled();
            let is_done = is_idle && progress.acked >= self.commits.last().seq;
            // A database that is locked for a moment is no store that fails.
            let store_fails = progress.error.as_ref().is_some_and(|e| e.kind() != ErrorKind::Busy);
            match progress.phase {
                _ if is_done => Some(Ok(())),
                Phase::Retrying if store_fails => Some(Err(self.timed_out(&progress, Duration::ZERO))),
                Phase::Standby if self.tell_of_commits().is_ok() => Some(Ok(())),
                _ => None,
            }
        };
        standing.unwrap_or_else(|| self.wait(timeout, &|| false).map(drop))
    }

    /// What a wait comes to that was begun in round `asked`, if it is known.
    fn outcome(&self, progress: &Progress, goal: Option<CommitSeq>, asked: u64) -> Option<Result<Txid>> {
        match (progress.phase, progress.txid) {
            (Phase::Stopped, _) => progress.error.clone().map(Err),
            // A round that began before may have found what is not so any more.
            (Phase::Standby | Phase::Empty, _) if progress.nothing_here <= asked => None,
            (Phase::Standby, _) => Some(Err(Error::new(
                ErrorKind::Busy,
                format!("{} is published by another process", self.path.display()),
            ))),
            (Phase::Empty, _) => Some(Err(self.empty())),
            (Phase::Starting | Phase::Copying, _) => None,
            // What cannot be restored is not in the replica.
            _ if !self.holes.is_settled() => None,
            (_, Some(txid)) if goal.is_some_and(|goal| progress.acked >= goal) => Some(Ok(txid)),
            _ => None,
        }
    }

    /// The error of one who waits for a replica of nothing.
    pub(in crate::primary) fn empty(&self) -> Error {
        let message = format!("{} is empty: there is nothing to replicate yet", self.path.display());
        Error::new(ErrorKind::NotFound, message)
    }

    fn timed_out(&self, progress: &Progress, timeout: Duration) -> Error {
        let cause = match &progress.error {
            Some(error) => format!(": {error}"),
            None => format!("; it is still {}", progress.phase.name()),
        };
        // What is left of a time is a fraction that says nothing.
        let tenths = timeout.as_secs_f64().max(0.1) * 10.0;
        let timeout = Duration::from_millis(tenths.round() as u64 * 100);
        Error::new(
            ErrorKind::Timeout,
            format!("not everything is in {} after {timeout:?}{cause}", self.store.url()),
        )
    }
}

/// Somebody waits as long as this lives.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
