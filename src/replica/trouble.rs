//! Why a page could not be read, until one comes from the store again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::clock::Timestamp;
use crate::error::Error;

/// The last failure to read a page, if no page came from the store since.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    is_there: AtomicBool,
    last: Mutex<Option<(Timestamp, String)>>,
}

impl Trouble {
    /// A read failed `at` this time.
    pub(super) fn note(&self, at: Timestamp, error: &Error) {
        *self.lock() = Some((at, error.to_string()));
        self.is_there.store(true, Ordering::Release);
    }

    /// A page came from the store.
    pub(super) fn end(&self) {
        if self.is_there.swap(false, Ordering::AcqRel) {
            *self.lock() = None;
        }
    }

    /// When a read failed, and why.
    pub(super) fn last(&self) -> Option<(Timestamp, String)> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Option<(Timestamp, String)>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
