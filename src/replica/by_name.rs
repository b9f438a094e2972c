//! Following without listings: the files of level 0 are contiguous, so the name of the next one is known.
//!
//! Asking for it costs a twelfth of a listing at the prices of most stores, says that there is nothing new where there is
//! no such file, and brings what is new at once where there is. Two things it does not tell, so that a listing is needed:
//! - Whether the file was there and is merged away. A listing every [`POLLS`] polls, and at least every [`LONGEST`], finds
//!   that, which bounds how far a replica can be behind; where it happened, only listings tell what is new from then on.
//! - Whether the replica is still of the history that is known. So a file by its name is taken only from whoever wrote the
//!   last one, in the same lineage, who gives out no TXID twice unless the disk and the bucket go back in time together: that
//!   is found by the next listing. Files that say neither are confirmed by a listing.

use tokio::time::{Duration, Instant};

use crate::ltx::{FileId, FileName, Level, Txid};
use crate::store::FileInfo;

/// The longest time without a listing, however long the poll interval.
pub(super) const LONGEST: Duration = Duration::from_secs(30);
/// As many polls, at the usual interval, make do with one listing.
const POLLS: u32 = 30;
/// How a poll looks for what is new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// In the cheapest way that finds it before the next listing is due.
    Cheaply,
    /// So that nothing can be missed.
    Thoroughly,
}

/// When the next file may be asked for by its name.
#[derive(Debug)]
pub(super) struct ByName {
    /// The store tells cheaply what is not there, and files stay until they were asked for.
    works: bool,
    /// How often to list nonetheless.
    every: Duration,
    /// When the last listing was made.
    listed: Instant,
    /// Since then there was no file of the next name.
    missed: bool,
}

impl ByName {
    /// A listing was just made of a store that `works` so. It is polled every `interval`.
    pub(super) fn new(works: bool, interval: Duration) -> Self {
        let every = interval.saturating_mul(POLLS).min(LONGEST);
        Self { works, every, listed: Instant::now(), missed: false }
    }

    /// A listing has `files`, all that may come after the transaction `known`.
    pub(super) fn note_listing(&mut self, files: &[FileInfo], known: Txid) {
        let is_behind = files.iter().any(|file| file.id.name.max() > known);
        if self.missed && is_behind && !files.iter().any(|file| file.id == next(known)) {
            tracing::info!(txid = %known.next(), "files are merged away before they are asked for: polls list");
            self.works = false;
        }
        (self.listed, self.missed) = (Instant::now(), false);
    }

    /// There is no file of the next name.
    pub(super) fn note_missing(&mut self) {
        self.missed = true;
    }

    /// The store denies what is not there, and tells nothing by that: polls list from now on.
    pub(super) fn note_denied(&mut self) {
        self.works = false;
    }

    /// The longest time without a listing.
    pub(super) fn every(&self) -> Duration {
        self.every
    }

    pub(super) fn may_ask(&self) -> bool {
        self.works && self.is_recent()
    }

    /// Whether the last listing will do for now.
    pub(super) fn is_recent(&self) -> bool {
        self.listed.elapsed() < self.every
    }

    #[cfg(test)]
    pub(super) fn works(&self) -> bool {
        self.works
    }

    /// As if the last listing were so much older.
    #[cfg(test)]
    pub(super) fn ages(&mut self, by: Duration) {
        self.listed -= by;
    }
}

/// The file of level 0 that comes after `txid`.
pub(super) fn next(txid: Txid) -> FileId {
    FileId::new(Level::L0, FileName::single(txid.next()))
}
