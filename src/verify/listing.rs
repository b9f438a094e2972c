//! What is in a replica.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::finding::Finding;
use super::names;
use crate::clock::Timestamp;
use crate::error::Result;
use crate::ltx::{FileId, FileName, Level};
use crate::runtime;
use crate::store::{FileInfo, RawInfo, Replica};

/// The files of all levels, and what lies among them.
#[derive(Clone, Debug, Default)]
pub(super) struct Listing {
    /// By level and transaction.
    pub(super) files: Vec<FileInfo>,
    /// Paths of what is no LTX file.
    pub(super) strays: Vec<String>,
}

impl Listing {
    /// The same, where the time of a file is that of its last commit, as far as `committed` has it. A file is stored later than
    /// that, a snapshot by days where nothing was committed meanwhile.
    pub(super) fn with_commit_times(mut self, committed: &BTreeMap<FileId, Timestamp>) -> Self {
        for file in &mut self.files {
            let committed = committed.get(&file.id).copied();
            file.timestamp = committed.map_or(file.timestamp, |time| time.min(file.timestamp));
        }
        self
    }

    /// What the names tell.
    pub(super) fn findings(&self, thinned: Option<Timestamp>) -> Vec<Finding> {
        let mut findings = names::findings(&self.files, thinned);
        findings.extend(self.strays.iter().map(|path| Finding::stray(path)));
        findings
    }
}

/// A listing whose names tell that all is well, or the last of `attempts`.
pub(super) fn settled(store: &Arc<Replica>, attempts: usize, thinned: Option<Timestamp>) -> Result<Listing> {
    let mut listing = Listing::default();
    for _ in 0..attempts {
        let store = Arc::clone(store);
        listing = runtime::block_on(async move { list(&store).await })?;
        if listing.findings(thinned).is_empty() {
            break;
        }
    }
    Ok(listing)
}

/// Whether Litestream 0.3 has left something.
pub(super) fn has_generations(store: &Arc<Replica>) -> Result<bool> {
    let store = Arc::clone(store);
    Ok(!runtime::block_on(async move { store.list_raw("generations").await })?.is_empty())
}

/// Lists one level after the other from below: what is moved up meanwhile is seen.
async fn list(store: &Replica) -> Result<Listing> {
    let mut listing = Listing::default();
    for level in Level::all() {
        for raw in store.list_raw(&store.folder_of(level)).await? {
            match file(level, &raw) {
                Some(file) => listing.files.push(file),
                None if is_unfinished(&raw.path) => {}
                None => listing.strays.push(raw.path),
            }
        }
    }
    listing.files.sort_unstable_by_key(|file| file.id);
    Ok(listing)
}

/// The LTX file that an object of `level` is, if it is one.
fn file(level: Level, raw: &RawInfo) -> Option<FileInfo> {
    let (_, name) = raw.path.rsplit_once('/')?;
    let name: FileName = name.parse().ok()?;
    Some(FileInfo { id: FileId::new(level, name), size: raw.size, timestamp: raw.timestamp })
}

/// Whether somebody is just writing it: Litestream and we write files under such names first.
fn is_unfinished(path: &str) -> bool {
    path.ends_with(".tmp")
}
