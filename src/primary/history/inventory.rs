//! The files of a replica as its only writer knows them: listed once, and kept up to date since.

use std::collections::BTreeMap;

use futures_util::future;

use crate::clock::Timestamp;
use crate::error::Result;
use crate::ltx::{FileId, FileName, Level, Txid};
use crate::store::{FileInfo, Store};

/// The files of a replica. The time of each is when it was written or the last commit in it was made,
/// whichever is known.
#[derive(Clone, Debug, Default)]
pub(super) struct Inventory {
    files: BTreeMap<FileId, FileInfo>,
}

impl Inventory {
    /// Lists all levels. A time in the future counts as `now`.
    ///
    /// # Errors
    /// Those of the store.
    pub(super) async fn list(store: &dyn Store, now: Timestamp) -> Result<Self> {
        let levels = Level::all().map(|level| store.list(level, Txid::ONE));
        let mut inventory = Self::default();
        for file in future::try_join_all(levels).await?.into_iter().flatten() {
            inventory.add(FileInfo { timestamp: file.timestamp.min(now), ..file });
        }
        Ok(inventory)
    }

    /// A file was written.
    pub(super) fn add(&mut self, file: FileInfo) {
        self.files.entry(file.id).or_insert(file);
    }

    /// Files were deleted.
    pub(super) fn remove(&mut self, ids: &[FileId]) {
        for id in ids {
            self.files.remove(id);
        }
    }

    /// The files of one level, by first transaction.
    pub(super) fn level(&self, level: Level) -> impl DoubleEndedIterator<Item = &FileInfo> {
        let first = FileId::new(level, FileName::single(Txid::ONE));
        let last = FileId::new(level, FileName::single(Txid::new(u64::MAX).expect("BUG: not zero")));
        self.files.range(first..=last).map(|(_, file)| file)
    }

    /// The files of all levels but the snapshots, by first transaction.
    pub(super) fn increments(&self) -> Vec<&FileInfo> {
        let mut files: Vec<_> = self.files.values().filter(|f| f.id.level != Level::SNAPSHOT).collect();
        files.sort_by_key(|f| (f.id.name, f.id.level));
        files
    }

    /// The last transaction that `level` holds.
    pub(super) fn last_of(&self, level: Level) -> Option<Txid> {
        self.level(level).map(|f| f.id.name.max()).max()
    }

    /// The last transaction that the replica holds.
    pub(super) fn last(&self) -> Option<Txid> {
        self.files.keys().map(|id| id.name.max()).max()
    }

    /// The last transaction that a full copy holds.
    pub(super) fn last_full(&self) -> Option<Txid> {
        self.files.keys().filter(|id| id.name.is_snapshot()).map(|id| id.name.max()).max()
    }

    /// The snapshots, oldest state first.
    pub(super) fn snapshots(&self) -> Vec<&FileInfo> {
        let mut snapshots: Vec<_> = self.level(Level::SNAPSHOT).filter(|f| f.id.name.is_snapshot()).collect();
        snapshots.sort_by_key(|f| f.id.name.max());
        snapshots
    }
}

/// The files that lead on from transaction `reached`, each the one that reaches furthest of those that
/// continue what is there. `files` are sorted by first transaction.
pub(super) fn chain<'a>(files: impl IntoIterator<Item = &'a FileInfo>, mut reached: u64) -> Vec<FileInfo> {
    let mut files = files.into_iter().peekable();
    let mut chain = Vec::new();
    let mut best: Option<&FileInfo> = None;
    loop {
        while let Some(file) = files.next_if(|f| f.id.name.min().get() <= reached.saturating_add(1)) {
            if best.is_none_or(|best| file.id.name.max() > best.id.name.max()) {
                best = Some(file);
            }
        }
        match best.take() {
            Some(file) if file.id.name.max().get() > reached => {
                reached = file.id.name.max().get();
                chain.push(file.clone());
            }
            _ => return chain,
        }
    }
}
