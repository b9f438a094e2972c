//! What a store has shown of how it keeps the condition that an object is not there yet.

use std::sync::atomic::{AtomicBool, Ordering};

use super::Fencing;
use crate::error::{ErrorKind, Result};

/// What one bucket has shown.
#[derive(Debug, Default)]
pub(super) struct Fence {
    kept: AtomicBool,
    ignored: AtomicBool,
}

impl Fence {
    /// The store refused a write because of its condition.
    pub(super) fn note_kept(&self) {
        self.kept.store(true, Ordering::Relaxed);
    }

    /// The store does not know `condition`: from now on it is asked before each write.
    pub(super) fn note_unknown(&self, replica: &str, condition: &str) {
        tracing::warn!(replica, "the store has no conditional writes by {condition}; looking first");
        self.ignored.store(true, Ordering::Relaxed);
    }

    /// The store was seen to ignore `condition`: from now on it is asked before each write.
    fn note_ignored(&self, replica: &str, condition: &str) {
        tracing::warn!(replica, "the store ignores {condition}; looking first");
        self.ignored.store(true, Ordering::Relaxed);
    }

    /// Finds out what the store does with `condition`, if that is not known: `write` writes an object that is there on condition
    /// that it is not.
    ///
    /// # Errors
    /// Those of `write`, but that the object is there.
    pub(super) async fn prove(
        &self,
        replica: &str,
        condition: &str,
        write: impl Future<Output = Result<()>>,
    ) -> Result<()> {
        if self.strength() != Fencing::Unproven {
            return Ok(());
        }
        self.judge(write.await, replica, condition)
    }

    /// What it shows that an object which is there was written again on condition that it is not: `written` is how that
    /// ended, and `condition` what messages call the condition.
    ///
    /// # Errors
    /// Those of `written`, but that the object is there.
    fn judge(&self, written: Result<()>, replica: &str, condition: &str) -> Result<()> {
        match written {
            Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(()),
            Err(e) => Err(e),
            Ok(()) => {
                self.note_ignored(replica, condition);
                Ok(())
            }
        }
    }

    /// Whether to ask if the object is there before writing it.
    pub(super) fn looks_first(&self) -> bool {
        self.ignored.load(Ordering::Relaxed)
    }

    /// How well the condition is kept, as far as is known.
    pub(super) fn strength(&self) -> Fencing {
        match (self.looks_first(), self.kept.load(Ordering::Relaxed)) {
            (true, _) => Fencing::LookFirst,
            (false, true) => Fencing::Atomic,
            (false, false) => Fencing::Unproven,
        }
    }
}
