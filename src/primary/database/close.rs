//! How a connection closes a primary.

#[cfg(test)]
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::open::place_of;
use super::{LOOK, Primary};
use crate::error::{Error, ErrorKind, Result};
use crate::primary::ownership::Question;
use crate::primary::shipper::{Goal, Shipper, Waiter, timed_out};

impl Primary {
    /// A connection closed. The last one waits for the replicas until its `close_timeout` has passed since the close
    /// `began`; what is not there then stays on local disk and goes out at the next open.
    pub fn close(&self, began: Instant, close_timeout: Duration) {
        let place = place_of(self.path());
        {
            let mut slot = place.entry();
            let Some(entry) = slot.as_mut() else { return };
            entry.connections -= 1;
            if entry.connections > 0 {
                return;
            }
        }
        let deadline = began + close_timeout;
        let left = || deadline.saturating_duration_since(Instant::now());
        let synced = self.wait_at_close(left());
        for (shipper, synced) in self.shippers().iter().zip(&synced) {
            if synced.is_ok() {
                // A process that lives for a second must get its history done some time.
                shipper.history.settle(left());
            }
        }
        let mut slot = place.entry();
        // Another thread may have opened it while we waited.
        if slot.as_ref().is_some_and(|entry| entry.connections == 0) {
            *slot = None;
            self.end(&synced, close_timeout);
        }
    }

    /// Waits at the last close of the process, at most for `timeout`: for commits that are on their way, while a store
    /// answers. Another process that publishes is told of them instead, and a store that failed last is not waited for.
    fn wait_at_close(&self, timeout: Duration) -> Vec<Result<()>> {
        let mut outcomes: Vec<Option<Result<()>>> =
            self.shippers().iter().map(|shipper| shipper.outcome_at_close()).collect();
        if self.owner.is_standby() {
            let told = self.owner.tell_of_commits();
            let goal = Goal::any(self.shippers().len(), self.shippers().len());
            let synced = match told {
                Ok(()) => Ok(()),
                Err(_) => self.wait(Question::Sync, &goal, timeout, &|| false).map(drop),
            };
            return vec![synced; self.shippers().len()];
        }
        let deadline = Instant::now() + timeout;
        let unknown = self.shippers().iter().filter(|shipper| outcomes[shipper.number].is_none());
        let mut waiters: Vec<Waiter<'_>> = unknown.map(|shipper| Waiter::new(shipper)).collect();
        loop {
            let before = self.db.bell.rings();
            waiters.retain_mut(|waiter| {
                let outcome = waiter.outcome().map(|outcome| outcome.map(drop));
                outcomes[waiter.shipper.number] = outcome;
                outcomes[waiter.shipper.number].is_none()
            });
            let left = deadline.saturating_duration_since(Instant::now());
            if waiters.is_empty() || left.is_zero() {
                break;
            }
            self.db.bell.wait(before, left.min(LOOK));
        }
        let late = |shipper: &Shipper| Err(timed_out(&[shipper.lacks()], timeout));
        let all = outcomes.into_iter().zip(self.shippers());
        all.map(|(outcome, shipper)| outcome.unwrap_or_else(|| late(shipper))).collect()
    }

    /// Ends as kill -9 would: what is only in memory is gone.
    #[cfg(test)]
    pub(crate) fn kill(&self) {
        let place = place_of(self.path());
        let mut slot = place.entry();
        if slot.as_ref().is_some_and(|entry| Arc::ptr_eq(&entry.primary.owner, &self.owner)) {
            *slot = None;
        }
        drop(slot);
        self.end_tasks();
        self.owner.abandon();
        self.owner.agreement.leave();
    }

    fn end_tasks(&self) {
        self.owner_task.abort();
        self.tasks.iter().zip(self.shippers()).for_each(|(tasks, shipper)| tasks.end(shipper));
    }

    fn end(&self, synced: &[Result<()>], close_timeout: Duration) {
        self.end_tasks();
        for shipper in self.shippers() {
            shipper.history.remember(&shipper.folder, &shipper.store.url());
        }
        let settled = self.owner.finish();
        self.owner.agreement.leave();
        if let Err(e) = settled {
            tracing::warn!("{}: {e}", self.path().display());
        }
        for (shipper, synced) in self.shippers().iter().zip(synced) {
            if let Err(e) = synced {
                self.tell_unsent(shipper, e, close_timeout);
            }
        }
    }

    /// Tells what the last close leaves unsent to a replica, because of `error`.
    fn tell_unsent(&self, shipper: &Shipper, error: &Error, close_timeout: Duration) {
        let path = self.path().display();
        let waits = !shipper.lag().is_zero();
        match error.kind() {
            // Who gives it no time does not expect it, unless nothing could have been sent.
            ErrorKind::Timeout if close_timeout.is_zero() && !shipper.has_failed() => {
                tracing::info!(
                    "{path}: {error}; the rest stays on local disk and is sent after the next open"
                );
            }
            ErrorKind::Timeout => {
                tracing::warn!(
                    "{path}: {error}; the rest stays on local disk and is sent after the next open"
                );
            }
            ErrorKind::Conflict if waits => {
                let url = shipper.store.url();
                tracing::warn!("{path}: closed with commits that are not in {url}: replication is stopped");
            }
            _ => {}
        }
    }
}
