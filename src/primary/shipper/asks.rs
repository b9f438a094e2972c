//! What is asked of a shipper by other processes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::clock::Timestamp;
use crate::ltx::Txid;

/// Outcome of a shipper's round, for those who wait for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::primary) enum Outcome {
    /// All is in the replica, which ends with this transaction.
    Done(Txid),
    /// Replication stopped.
    Stopped(String),
    /// There is nothing to replicate yet.
    Empty(String),
    /// It did not work so far; it is tried again.
    Failing(String),
}

/// One who waits, in another process.
pub(in crate::primary) trait Asker: Send + Sync {
    /// The name by which it is known.
    fn name(&self) -> &str;

    /// Tells it the `outcome` of the shipper of this number; `false` if it does not wait any more.
    fn tell(&self, shipper: usize, outcome: &Outcome) -> bool;
}

/// Why a shipper is to look at the database for commits of other processes.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::primary) struct Look {
    /// Since when one of them has a commit, by the steady clock, if it said so.
    pub(in crate::primary) committed_since: Option<Timestamp>,
}

/// The requests to one shipper.
#[derive(Default)]
pub(in crate::primary) struct Requests(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    /// The database is to be looked at.
    look: Option<Look>,
    /// Those who wait for the replica.
    waiting: Vec<Arc<dyn Asker>>,
}

impl Requests {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The database is to be looked at for commits of other processes.
    pub(in crate::primary) fn look(&self) {
        self.lock().look.get_or_insert_default();
    }

    /// As [`Requests::look`], because another process committed something at `now`, by the steady clock.
    pub(in crate::primary) fn look_for_commit(&self, now: Timestamp) {
        self.lock().look.get_or_insert_default().committed_since.get_or_insert(now);
    }

    /// Whether it is, once.
    pub(super) fn take_look(&self) -> Option<Look> {
        self.lock().look.take()
    }

    /// What was taken is still to be done.
    pub(super) fn look_again(&self, Look { committed_since }: Look) {
        let mut inner = self.lock();
        let look = inner.look.get_or_insert_default();
        look.committed_since = committed_since.or(look.committed_since);
    }

    /// Since when another process has a commit, by the steady clock, for which the database was not looked at.
    pub(in crate::primary) fn committed_since(&self) -> Option<Timestamp> {
        self.lock().look.as_ref()?.committed_since
    }

    /// Whether anybody waits for the replica.
    pub(super) fn is_awaited(&self) -> bool {
        !self.lock().waiting.is_empty()
    }

    /// Those who wait for the replica now.
    pub(super) fn take_waiting(&self) -> Vec<Arc<dyn Asker>> {
        std::mem::take(&mut self.lock().waiting)
    }

    /// Those who were taken wait on.
    pub(super) fn wait_again(&self, askers: Vec<Arc<dyn Asker>>) {
        for asker in askers {
            let mut inner = self.lock();
            if !inner.waiting.iter().any(|other| other.name() == asker.name()) {
                inner.waiting.push(asker);
            }
        }
    }

    /// The `asker` waits for the replica; it takes the place of an earlier one of that name.
    pub(in crate::primary) fn wait(&self, asker: Arc<dyn Asker>) {
        let mut inner = self.lock();
        inner.waiting.retain(|other| other.name() != asker.name());
        inner.waiting.push(asker);
    }
}
