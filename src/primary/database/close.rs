//! How a connection closes a primary.

#[cfg(test)]
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::Duration;

use tokio::time::Instant;

use super::registry::{self, Now, Silences, Slot};
use super::{LOOK, Primary, Wanted};
use crate::error::{Error, ErrorKind, Result};
use crate::events;
use crate::primary::ownership::Left;
use crate::primary::shipper::{Goal, Shipper, Waiter, timed_out};

/// How much longer the end of a process may take to put what is unsent into files.
const MOMENT: Duration = Duration::from_millis(500);

impl Primary {
    /// A connection closed. The last one waits for the replicas until its `close_timeout` has passed since the close
    /// `began`; what is not there then stays on local disk and goes out later, or at the next open.
    ///
    /// True if it was the last one: then nothing touches the database any more, once what was under way has ended.
    pub fn close(&self, began: Instant, close_timeout: Duration) -> bool {
        let path = self.path();
        let slot = Slot::of(path);
        if !slot.leave(self) {
            return false;
        }
        let synced = self.flush(began + close_timeout);
        let turn = slot.turn();
        // Another thread may have opened it while we waited.
        if let Some(primary) = slot.take_closed(self) {
            // Before what is under way ends.
            let silences = primary.silences();
            let since = Instant::now();
            match primary.leave(&synced, close_timeout) {
                Some(left) => slot.outlives(path, Now::Lingering { primary, left, since }),
                None if !silences.replicas.is_empty() => slot.outlives(path, Now::Silent { silences, since }),
                None => {}
            }
        }
        drop(turn);
        registry::forget(path, &slot);
        true
    }

    /// The process ends normally while connections have databases open: what was committed goes to the replicas, for which
    /// the longest `close_timeout` is waited at most.
    pub fn flush_at_exit() {
        let open = registry::open_at_exit();
        let Some(patience) = open.iter().map(|primary| primary.options().close_timeout).max() else { return };
        let began = Instant::now();
        let (done, flushed) = mpsc::channel();
        for primary in open {
            let done = done.clone();
            // Not in this thread, which may have been interrupted inside the library: it waits no longer than that.
            let flushing = std::thread::Builder::new().spawn(move || {
                let close_timeout = primary.options().close_timeout;
                let synced = primary.flush(began + close_timeout);
                primary.tell_all_unsent(&synced, close_timeout);
                let _ = done.send(());
            });
            if flushing.is_err() {
                return;
            }
        }
        drop(done);
        let deadline = began + patience + MOMENT;
        while flushed.recv_timeout(deadline.saturating_duration_since(Instant::now())).is_ok() {}
    }

    /// Waits until `deadline` for the replicas; what is not there then is put into files.
    fn flush(&self, deadline: Instant) -> Vec<Result<()>> {
        let left = || deadline.saturating_duration_since(Instant::now());
        let synced = self.wait_at_close(left());
        for (shipper, synced) in self.shippers().iter().zip(&synced) {
            if synced.is_ok() {
                // A process that lives for a second must get its history done some time.
                shipper.history.settle(left());
                if left().is_zero() {
                    shipper.waited_in_vain();
                }
            } else if let Err(e) = shipper.capture_into_spool() {
                tracing::debug!("{}: {e}", self.path().display());
            }
        }
        synced
    }

    /// Waits at the last close of the process, at most for `timeout`: for commits that are on their way, while a store
    /// answers. Another process that publishes is told of them instead, and a store that failed last is not waited for.
    fn wait_at_close(&self, timeout: Duration) -> Vec<Result<()>> {
        let mut outcomes: Vec<Option<Result<()>>> =
            self.shippers().iter().map(|shipper| shipper.outcome_at_close()).collect();
        if self.owner.is_standby() {
            // Who only lingers publishes no commits of others.
            let is_told = self.owner.has_told_all()
                || (self.db.others_have_it_open() && self.owner.tell_of_commits().is_ok());
            let goal = Goal::any(self.shippers().len(), self.shippers().len());
            let synced = match is_told {
                true => Ok(()),
                false => self.wait(&Wanted::sync(&goal), timeout, &|| false).map(drop),
            };
            return vec![synced; self.shippers().len()];
        }
        for shipper in self.shippers().iter().filter(|shipper| shipper.has_all_there()) {
            // Who opens it next does not wait either.
            shipper.waited_in_vain();
            outcomes[shipper.number] = Some(Ok(()));
        }
        let deadline = Instant::now() + timeout;
        let unknown = self.shippers().iter().filter(|shipper| outcomes[shipper.number].is_none());
        let mut waiters: Vec<Waiter<'_>> = unknown.map(|shipper| Waiter::new(shipper)).collect();
        loop {
            let before = self.db.bell.rings();
            waiters.retain_mut(|waiter| {
                let outcome = waiter.outcome().map(|outcome| outcome.map(drop));
                let outcome = outcome.or_else(|| waiter.shipper.outcome_at_close());
                outcomes[waiter.shipper.number] = outcome;
                outcomes[waiter.shipper.number].is_none()
            });
            let left = deadline.saturating_duration_since(Instant::now());
            if waiters.is_empty() || left.is_zero() {
                break;
            }
            self.db.bell.wait(before, left.min(LOOK));
        }
        let late = |shipper: &Shipper| {
            shipper.waited_in_vain();
            Err(timed_out(&[shipper.lacks()], timeout))
        };
        let all = outcomes.into_iter().zip(self.shippers());
        all.map(|(outcome, shipper)| outcome.unwrap_or_else(|| late(shipper))).collect()
    }

    /// Whether `other` is this one.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.owner, &other.owner)
    }

    /// The database was opened again, and stays open.
    pub(super) fn stays_open(&self) {
        self.owner.stays_open();
    }

    /// The database was opened again: other processes are heard if that takes longer than a request.
    pub(super) fn opened_again(&self) {
        if self.owner.is_deaf()
            && !self.is_to_be_heard.swap(true, Ordering::SeqCst)
            && let Ok(runtime) = crate::runtime::handle()
        {
            runtime.spawn(registry::be_heard(self.path().to_path_buf()));
        }
    }

    /// The time of a request is over since it was opened again; whether it still is, or once more.
    pub(super) fn request_is_over(&self, is_open: bool) {
        self.is_to_be_heard.store(false, Ordering::SeqCst);
        if is_open {
            self.owner.stays_open();
        }
    }

    /// It still lingers.
    pub(super) fn lingers(&self) {
        self.owner.lingers();
    }

    /// What lingers of the database `path` is gone, as after half a minute.
    #[cfg(test)]
    pub(crate) fn outlive(path: &Path) {
        let slot = Slot::of(path);
        let _turn = slot.turn();
        let before = std::mem::take(&mut *slot.now());
        match before {
            Now::Lingering { primary, .. } => primary.end_lingering(),
            Now::Silent { .. } | Now::Closed => {}
            open @ Now::Open { .. } => *slot.now() = open,
        }
    }

    /// The silences of the replicas' stores, for the primary that comes next.
    pub(super) fn silences(&self) -> Silences {
        let of = |shipper: &Arc<Shipper>| Some((shipper.id.clone(), shipper.silence()?));
        Silences { file: self.db.file(), replicas: self.shippers().iter().filter_map(of).collect() }
    }

    /// Ends as kill -9 would: what is only in memory is gone.
    #[cfg(test)]
    pub(crate) fn kill(&self) {
        let slot = Slot::of(self.path());
        let is_here = match &*slot.now() {
            Now::Open { primary, .. } | Now::Lingering { primary, .. } => primary.is(self),
            Now::Closed | Now::Silent { .. } => false,
        };
        if is_here {
            *slot.now() = Now::Closed;
        }
        self.end_tasks();
        self.owner.abandon();
        self.owner.agreement.leave();
    }

    fn end_tasks(&self) {
        self.owner_task.abort();
        self.tasks.iter().zip(self.shippers()).for_each(|(tasks, shipper)| tasks.end(shipper));
    }

    /// The last connection is closed. `None` if nothing is worth keeping.
    fn leave(&self, synced: &[Result<()>], close_timeout: Duration) -> Option<Left> {
        for shipper in self.shippers() {
            shipper.history.remember(&shipper.folder, &shipper.store.url());
        }
        let copies: Vec<_> = self.shippers().iter().map(|shipper| shipper.gives_copy_up()).collect();
        let left = self.owner.linger().unwrap_or_else(|e| {
            if e.kind() != ErrorKind::Interrupted {
                tracing::warn!(db = %self.path().display(), "{}: {e}", self.path().display());
            }
            None
        });
        if left.is_none() {
            self.end_lingering();
        }
        self.owner.agreement.leave();
        self.tell_all_unsent(synced, close_timeout);
        for (shipper, copy) in self.shippers().iter().zip(copies) {
            if let Some(copy) = copy {
                tracing::warn!("{}: {copy}", shipper.name());
            }
        }
        left
    }

    /// Nothing of it is of use any more.
    pub(super) fn end_lingering(&self) {
        self.end_tasks();
        if let Err(e) = self.owner.finish() {
            tracing::warn!(db = %self.path().display(), "{}: {e}", self.path().display());
        }
        events::closed(self.path());
    }

    /// Tells what the last close leaves unsent.
    fn tell_all_unsent(&self, synced: &[Result<()>], close_timeout: Duration) {
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
                let text = format!("{error}; the rest stays on local disk and is sent after the next open");
                shipper.happened(&events::CLOSED_UNSENT, &text);
            }
            ErrorKind::Conflict if waits => {
                let url = shipper.store.url();
                let text = format!("closed with commits that are not in {url}: replication is stopped");
                shipper.happened(&events::CLOSED_UNSENT, &text);
            }
            _ => {}
        }
    }
}
