//! Whether an LTX file passed its checksum.

use std::sync::atomic::{AtomicU8, Ordering};

/// What the checksum of a file said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Verdict {
    /// Not all of the file was read.
    Open,
    /// All of it was read, and passed.
    Whole,
    /// All of it was read more than once, and failed.
    Damaged,
}

/// The verdict about one file, which threads share.
#[derive(Debug)]
pub(super) struct VerdictCell(AtomicU8);

impl VerdictCell {
    pub(super) fn new(verdict: Verdict) -> Self {
        Self(AtomicU8::new(verdict as u8))
    }

    pub(super) fn set(&self, verdict: Verdict) {
        self.0.store(verdict as u8, Ordering::Relaxed);
    }

    pub(super) fn is(&self, verdict: Verdict) -> bool {
        self.0.load(Ordering::Relaxed) == verdict as u8
    }
}
