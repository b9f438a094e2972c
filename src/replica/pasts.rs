//! The states other than the latest that connections see.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::snapshot::Snapshot;

/// The past states that connections see, so that those which see the same one share it.
#[derive(Debug, Default)]
pub(super) struct Pasts(Mutex<Vec<Weak<Snapshot>>>);

impl Pasts {
    pub(super) fn find(&self, alike: impl Fn(&Snapshot) -> bool) -> Option<Arc<Snapshot>> {
        let pasts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pasts.iter().filter_map(Weak::upgrade).find(|past| alike(past))
    }

    pub(super) fn add(&self, past: &Arc<Snapshot>) {
        let mut pasts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pasts.retain(|past| past.strong_count() > 0);
        pasts.push(Arc::downgrade(past));
    }
}
