//! What becomes of a database that no connection of this process has open any more, until one has it open again or
//! half a minute has passed.
//!
//! Nothing touches the database then, and nothing of SQLite is used: what waits in files is sent to the replicas, under
//! the publisher lock, which goes to the first other process that asks for it. Then only memory is left, and nothing is
//! locked. It is good as long as the database and the state folder are what they were; else it is dropped, and the
//! database is opened as for the first time.

use std::sync::{Arc, MutexGuard};

use super::control_socket;
use super::role::{Former, PublisherLock, Publishing, Role};
use super::{Agreement, Ownership};
use crate::error::Result;
use crate::primary::context::Stamps;

/// What the last close left.
#[derive(Clone, Copy, Debug)]
pub(in crate::primary) struct Left(Stamps);

/// What a database that is opened again is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::primary) enum Again {
    /// What it was, and whoever published it still does or may.
    Same,
    /// Not known to be that: it is opened as for the first time.
    Other,
    /// A program without the library wrote it, so that a Litestream sidecar may have published that: the replicas are not
    /// known to be what they were either.
    Written,
}

impl Ownership {
    /// The last connection is closed. Puts on disk what is only in memory; what then waits in files is sent. `None` if
    /// nothing of this process's state is worth keeping.
    ///
    /// # Errors
    /// Those of the files of a shipper.
    pub(in crate::primary) fn linger(self: &Arc<Self>) -> Result<Option<Left>> {
        // Each of them is asked, as it pauses by that.
        let pausing = self.shippers.iter().filter(|shipper| shipper.may_linger()).count();
        if pausing < self.shippers.len() {
            return self.finish().map(|()| None);
        }
        let mut role = self.role();
        self.db.closes();
        match std::mem::replace(&mut *role, Role::Ended) {
            Role::Publisher(publishing) => match self.settle() {
                Ok(waits) => {
                    *role = Role::Lingering(Former::Publisher(Some(publishing)));
                    if waits {
                        Self::listen_with(self, &mut role);
                        drop(role);
                        self.shippers.iter().for_each(|shipper| shipper.begin_lingering());
                    } else {
                        self.release(&mut role);
                    }
                }
                Err(e) => {
                    *role = Role::Publisher(publishing);
                    return Err(e);
                }
            },
            Role::Standby => *role = Role::Lingering(Former::Standby),
            Role::Lingering(_) | Role::Ended => return Ok(None),
        }
        Ok(Some(Left(self.db.stamps())))
    }

    /// Puts on disk what the shippers have only in memory; whether files wait that can be sent.
    fn settle(&self) -> Result<bool> {
        let mut waits = false;
        for shipper in &self.shippers {
            waits |= shipper.linger()?;
        }
        Ok(waits)
    }

    /// Lets another process publish: nothing is locked any more, and nobody listens.
    fn release(&self, role: &mut MutexGuard<'_, Role>) {
        let Role::Lingering(Former::Publisher(publishing)) = &mut **role else { return };
        let Some(mut publishing) = publishing.take() else { return };
        self.shippers.iter().for_each(|shipper| shipper.shelve());
        self.close_ear(&mut publishing);
    }

    /// Nobody listens any more. To be done while the publisher lock is held: the next publisher listens there.
    pub(super) fn close_ear(&self, publishing: &mut Publishing) {
        if publishing.ear.take().is_some() {
            control_socket::close(&self.db.folder);
        }
    }

    /// If no connection has the database open here, lets another process publish it; whether that is so.
    pub(super) fn gives_way(&self) -> bool {
        let mut role = self.role();
        self.release(&mut role);
        matches!(*role, Role::Lingering(_) | Role::Ended)
    }

    /// Lets another process publish if all that waited was sent.
    pub(in crate::primary) fn lingers(&self) {
        let mut role = self.role();
        if !self.shippers.iter().any(|shipper| shipper.sends_what_waits()) {
            self.release(&mut role);
        }
    }

    /// A connection opens the database, of which the last close left `left`, by its `agreement` with other processes.
    ///
    /// # Errors
    /// Those of the folder of local state, and of the database.
    pub(in crate::primary) fn open_again(&self, left: Left, agreement: &Agreement) -> Result<Again> {
        let is_stopped = self.shippers.iter().any(|shipper| shipper.stopped().is_some());
        if is_stopped || !agreement.is_as(&self.agreement) || self.db.check_file().is_err() {
            return Ok(Again::Other);
        }
        let mut role = self.role();
        let unchanged = left.0 == self.db.stamps();
        match std::mem::replace(&mut *role, Role::Ended) {
            Role::Lingering(Former::Publisher(_)) if !unchanged => {
                // Another process that publishes leaves another state.
                return Ok(if self.is_as_left() { Again::Written } else { Again::Other });
            }
            Role::Lingering(Former::Publisher(publishing)) => {
                let Some(publishing) = self.publishes_again(publishing)? else {
                    return Ok(Again::Other);
                };
                *role = Role::Publisher(publishing);
            }
            // Another process has it in hand.
            Role::Lingering(Former::Standby) if self.db.others_have_it_open() => {
                *role = Role::Standby;
                self.db.opens_again();
            }
            _ => return Ok(Again::Other),
        }
        drop(role);
        self.agreement.join(agreement);
        if !unchanged {
            self.db.commits.ask();
        }
        self.shippers.iter().for_each(|shipper| shipper.goes_on(unchanged));
        Ok(Again::Same)
    }

    /// What this process, which published before, publishes with; `None` if it may not go on from what it has in memory.
    fn publishes_again(&self, held: Option<Publishing>) -> Result<Option<Publishing>> {
        let publishing = match held {
            Some(publishing) => publishing,
            None => match PublisherLock::take(&self.db.folder)? {
                Some(lock) => Publishing { ear: None, _lock: lock },
                None => return Ok(None),
            },
        };
        if !self.is_as_left() {
            return Ok(None);
        }
        // Before the database counts as open: by that the tasks of the shippers wake, and one that may not publish yet would
        // sleep on, commits or not.
        let resumed = self.shippers.iter().all(|shipper| shipper.resumes());
        if resumed {
            self.db.opens_again();
        }
        Ok(resumed.then_some(publishing))
    }

    /// Whether the state of each replica on disk is what this process left there.
    fn is_as_left(&self) -> bool {
        self.shippers.iter().all(|shipper| shipper.is_as_left())
    }

    /// Whether this process publishes, and nobody can tell it anything.
    pub(in crate::primary) fn is_deaf(&self) -> bool {
        matches!(&*self.role(), Role::Publisher(publishing) if publishing.ear.is_none())
    }

    /// The database was opened again, and stays open: other processes are heard from now on, which may have committed
    /// meanwhile.
    pub(in crate::primary) fn stays_open(self: &Arc<Self>) {
        self.listen();
        self.db.commits.ask();
        self.shippers.iter().for_each(|shipper| shipper.signal.commit());
    }

    /// Takes the lock by which one process publishes, unless another process has it that has the database open too.
    ///
    /// # Errors
    /// As [`PublisherLock::take`].
    pub(super) fn take_lock(&self) -> Result<Option<PublisherLock>> {
        match PublisherLock::take(&self.db.folder)? {
            None if !self.db.others_have_it_open() => PublisherLock::take_from_lingerer(&self.db.folder),
            taken => Ok(taken),
        }
    }
}
