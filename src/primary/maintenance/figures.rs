//! Figures of a replica's history: what is kept, and what was done for that.

use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::metrics::{Counter, Histogram};

/// What a replica holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::primary) struct Kept {
    /// Levels that have files.
    pub levels: Vec<KeptLevel>,
    /// The oldest time to which the replica can be restored.
    pub oldest: Option<Timestamp>,
    /// Files of level 0 that may be deleted.
    pub l0_eligible: u64,
    /// Files of level 0 that are not merged into level 1 yet.
    pub l0_not_compacted: u64,
    /// Files of level 0 that are merged, and stay for a while.
    pub l0_too_recent: u64,
}

/// The files of one level.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptLevel {
    /// The level; 9 has snapshots.
    pub level: u8,
    /// The number of files.
    pub files: u64,
    /// Their size in bytes, as far as it is known.
    pub bytes: u64,
}

/// Figures of one replica's history.
#[derive(Debug, Default)]
pub(in crate::primary) struct Figures {
    /// How long snapshots took.
    pub(in crate::primary) snapshots: Histogram,
    /// How often files turned out to be damaged or missing.
    pub(in crate::primary) broken: Counter,
    kept: Mutex<Option<Kept>>,
}

impl Figures {
    /// What the replica holds, as last listed or changed; `None` if it was not listed yet.
    pub(in crate::primary) fn kept(&self) -> Option<Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn keep(&self, kept: Kept) {
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(kept);
    }
}
