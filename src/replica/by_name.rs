//! Following without listings: the files of level 0 are contiguous, so the name of the next one is known.
//!
//! Asking for it costs a twelfth of a listing at the prices of most stores, says that there is nothing new where there is
//! no such file, and brings what is new at once where there is. Two things it does not tell, so that a listing is needed:
//! - Whether the file was there and is merged away. A listing every [`POLLS`] polls, and at least every [`LONGEST`], finds
//!   that, which bounds how far a replica can be behind; where it happened, only listings tell what is new from then on.
//! - Whether the replica is still of the history that is known. So a file by its name is taken only from whoever wrote the
//!   last one, in the same lineage, who gives out no TXID twice unless the disk and the bucket go back in time together: that
//!   is found by the next listing. Files that say neither are confirmed by a listing.

#[cfg(test)]
mod tests;

use bytes::Bytes;
use tokio::time::{Duration, Instant};

use super::core::Core;
use super::files::Files;
use super::follow::Follow;
use super::load::{WHOLE, whole};
use super::snapshot::Snapshot;
use super::source::Named;
use crate::error::{ErrorKind, Result};
use crate::ltx::{FileId, FileName, Level, Txid};
use crate::runtime;
use crate::store::FileInfo;

/// The longest time without a listing, however long the poll interval.
const LONGEST: Duration = Duration::from_secs(30);
/// As many polls, at the usual interval, make do with one listing.
const POLLS: u32 = 30;
/// Files that one poll takes by their names. Where there are more, a listing finds all of them at once.
const MOST: usize = 2;

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

/// What came of asking for the next file.
enum Next {
    /// It is not there.
    Nothing,
    /// It continues what is known.
    Came(FileInfo, Snapshot),
    /// A listing must tell.
    Unclear,
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

    /// The longest time without a listing.
    pub(super) fn every(&self) -> Duration {
        self.every
    }

    fn may_ask(&self) -> bool {
        self.works && self.listed.elapsed() < self.every
    }
}

/// The file of level 0 that comes after `txid`.
fn next(txid: Txid) -> FileId {
    FileId::new(Level::L0, FileName::single(txid.next()))
}

impl Core {
    /// Takes in what is new without a listing. Returns whether that was all; else a listing must tell.
    ///
    /// # Errors
    /// Those of the store that pass.
    pub(super) async fn advance_by_name(&self, follow: &mut Follow) -> Result<bool> {
        for _ in 0..MOST {
            if !follow.by_name.may_ask() || !self.shows_no_doubt() {
                return Ok(false);
            }
            match self.ask_next(follow).await? {
                Next::Nothing => {
                    follow.by_name.missed = true;
                    return Ok(true);
                }
                Next::Came(file, next) => {
                    follow.note_next(&file);
                    runtime::busy(true, || self.publish(next));
                }
                Next::Unclear => return Ok(false),
            }
        }
        Ok(false)
    }

    async fn ask_next(&self, follow: &mut Follow) -> Result<Next> {
        let snapshot = self.snapshot();
        match self.files.source.get_by_name(next(snapshot.txid), WHOLE).await {
            Ok(Named::Missing) => Ok(Next::Nothing),
            Ok(Named::Unclear) => Ok(Next::Unclear),
            Ok(Named::Whole(file, bytes)) => match self.files.extend_by(&snapshot, &file, bytes) {
                Ok(Some(next)) => {
                    self.files.source.remember(&file);
                    Ok(Next::Came(file, next))
                }
                // The listing sees what it is.
                Ok(None) | Err(_) => Ok(Next::Unclear),
            },
            Err(e) if e.is_transient() => Err(e),
            Err(e) => {
                // Without the right to list a bucket, some stores deny what is not there.
                follow.by_name.works &= e.kind() != ErrorKind::Denied;
                Ok(Next::Unclear)
            }
        }
    }
}

impl Files {
    /// The state after `file`, which came as `bytes` and continues `before`; `None` if that is not certain.
    fn extend_by(&self, before: &Snapshot, file: &FileInfo, bytes: Bytes) -> Result<Option<Snapshot>> {
        let loaded = whole(self.on_disk(file).as_ref(), file, bytes, self.source.keyring())?;
        let header = loaded.header;
        let is_known = header.lineage.is_some() && header.lineage == before.lineage;
        if !is_known || header.node_id == 0 || header.node_id != before.writer {
            return Ok(None);
        }
        self.extend_with(before, file, loaded).map(Some)
    }
}
