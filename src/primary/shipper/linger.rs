//! What a shipper does while no connection of this process has the database open: it sends what waits in files. Nothing of
//! SQLite is used, and the database is not touched.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Desk, Phase, Shipper};
use crate::clock::Timestamp;
use crate::error::Result;

impl Shipper {
    /// Whether its state is worth keeping after the last close. Its history pauses then.
    pub(in crate::primary) fn may_linger(&self) -> bool {
        if self.proves() || !self.history.pauses() || !self.holes.is_settled() {
            return false;
        }
        let can_be_resumed = match &*self.desk() {
            Desk::Open(capture) => capture.can_be_resumed(),
            Desk::Closed => true,
            Desk::Shelved(_) | Desk::Ended => false,
        };
        let progress = self.progress();
        can_be_resumed
            && match progress.phase {
                Phase::Standby => true,
                Phase::Starting => progress.resumed,
                Phase::Empty | Phase::Idle | Phase::Publishing | Phase::Retrying => progress.is_decided(),
                Phase::Copying | Phase::Stopped => false,
            }
    }

    fn proves(&self) -> bool {
        !self.options.verify_interval.is_zero()
    }

    /// The last connection is closed: puts on disk what is only in memory, and makes no new file from now on. Whether files
    /// wait that can be sent.
    ///
    /// # Errors
    /// `Io`, `NoSpace` on the spool; `Interrupted` if it cannot be resumed later.
    pub(in crate::primary) fn linger(&self) -> Result<bool> {
        match &mut *self.desk() {
            Desk::Open(capture) => {
                capture.settle()?;
                if !capture.can_be_resumed() {
                    return Err(self.db.closed());
                }
                capture.may_make_files(false);
            }
            Desk::Closed => return Ok(false),
            Desk::Shelved(_) | Desk::Ended => return Err(self.db.closed()),
        }
        Ok(self.sends_what_waits())
    }

    /// Whether files wait that can be sent though no connection has the database open.
    pub(in crate::primary) fn sends_what_waits(&self) -> bool {
        self.is_resumed() && matches!(&*self.desk(), Desk::Open(capture) if capture.sends_by_itself())
    }

    /// Sends what waits, now that no connection has the database open.
    pub(in crate::primary) fn begin_lingering(&self) {
        if self.sends_what_waits() {
            self.signal.commit();
        }
    }

    /// Another process may publish from now on.
    pub(in crate::primary) fn shelve(&self) {
        let mut desk = self.desk();
        if let Desk::Open(_) = &*desk
            && let Desk::Open(capture) = std::mem::replace(&mut *desk, Desk::Ended)
        {
            *desk = Desk::Shelved(capture);
        }
    }

    /// Whether the state on disk is what this process left there.
    pub(in crate::primary) fn is_as_left(&self) -> bool {
        match &*self.desk() {
            Desk::Open(capture) | Desk::Shelved(capture) => capture.is_as_saved(),
            Desk::Closed | Desk::Ended => false,
        }
    }

    /// A connection has the database open again, which nobody wrote meanwhile, and this process has the publisher lock:
    /// whether it can continue.
    pub(in crate::primary) fn resumes(&self) -> bool {
        let mut desk = self.desk();
        if let Desk::Shelved(_) = &*desk
            && let Desk::Shelved(capture) = std::mem::replace(&mut *desk, Desk::Ended)
        {
            *desk = Desk::Open(capture);
        }
        let Desk::Open(capture) = &mut *desk else { return false };
        capture.may_make_files(true);
        drop(desk);
        self.publishes.notify_waiters();
        true
    }

    /// It continues as before the last close.
    pub(in crate::primary) fn goes_on(&self, unchanged: bool) {
        self.history.goes_on();
        if !unchanged || self.progress().acked < self.db.commits.last().seq {
            self.signal.commit();
        }
    }

    /// Waits until a connection has the database open, or there is something to send all the same.
    pub(super) async fn until_there_is_work(&self) {
        if !self.db.is_open() && !self.sends_what_waits() {
            self.db.until_open().await;
        }
    }

    /// Trusts the replica to be what `before`, which was the shipper until now, left there, for as long as that `lasts`: it
    /// is not looked at.
    pub(in crate::primary) fn trust_replica(&self, before: &Self, lasts: Duration) {
        let until = self.db.clock.steady().as_millis() + lasts.as_millis() as i64;
        self.trusted_until.store(until, Ordering::Relaxed);
        self.holes.listed_with(&before.holes);
    }

    /// Whether the replica is what this process left.
    pub(super) fn trusts_replica(&self) -> bool {
        self.db.clock.steady() < Timestamp::from_millis(self.trusted_until.load(Ordering::Relaxed))
    }
}
