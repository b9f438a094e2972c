//! One state of the database, as a connection sees it during a transaction.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use super::keep::Kept;
use super::map::PageMap;
use crate::clock::Timestamp;
use crate::ltx::{Header, Lineage, Txid};
use crate::page::{PageCount, PageSize, Pgno};

/// The state of the database after a transaction. What it says never changes; where its pages are
/// does, when compaction moves them.
#[derive(Debug)]
pub struct Snapshot {
    /// The last transaction that it has.
    pub txid: Txid,
    /// The size of the database in pages.
    pub commit: PageCount,
    /// The size of a page.
    pub page_size: PageSize,
    /// When its last transaction was committed, as the last file's header says.
    pub timestamp: Timestamp,
    /// The history that its files belong to, as far as one of them says so.
    pub(super) lineage: Option<Lineage>,
    /// Who wrote the last of its files; zero if that does not say so.
    pub(super) writer: u64,
    /// How often the replica was reset to another history since it was opened, or a file turned out to be damaged.
    pub epoch: u32,
    map: RwLock<Arc<PageMap>>,
    /// The last time at which this was known to be the latest state; empty as long as it may be. Shared by
    /// all copies of the state.
    outdated: Arc<OnceLock<Timestamp>>,
    /// Pages that are nowhere else any more.
    preserved: Preserved,
    /// Held by whoever is finding out where the pages went.
    pub(super) moving: Mutex<()>,
}

#[derive(Debug, Default)]
struct Preserved {
    /// Whether there are any.
    some: AtomicBool,
    pages: RwLock<HashMap<Pgno, Arc<Kept>>>,
}

impl Snapshot {
    /// The state whose pages are where `map` says.
    pub(super) fn new(last: &Header, lineage: Option<Lineage>, epoch: u32, map: PageMap) -> Self {
        Self {
            txid: last.max,
            commit: map.commit(),
            page_size: last.page_size,
            timestamp: last.timestamp,
            lineage,
            writer: last.node_id,
            epoch,
            map: RwLock::new(Arc::new(map)),
            outdated: Arc::default(),
            preserved: Preserved::default(),
            moving: Mutex::new(()),
        }
    }

    /// The same state, for a map of its own.
    pub(super) fn same(&self) -> Self {
        Self {
            map: RwLock::new(self.map()),
            outdated: Arc::clone(&self.outdated),
            preserved: Preserved::default(),
            moving: Mutex::new(()),
            ..*self
        }
    }

    /// Another state took the place of this one, which was the latest one at `known_until` for the last time
    /// that is known.
    pub(super) fn outdate(&self, known_until: Timestamp) {
        let _ = self.outdated.set(known_until);
    }

    /// The last time at which this was known to be the latest state, if another one is by now.
    pub(super) fn outdated(&self) -> Option<Timestamp> {
        self.outdated.get().copied()
    }

    /// The same state, with another change counter.
    pub(super) fn renewed(&self) -> Self {
        Self { epoch: self.epoch.wrapping_add(1), ..self.same() }
    }

    /// Where the pages are.
    pub(super) fn map(&self) -> Arc<PageMap> {
        self.map.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says that the pages are now elsewhere.
    pub(super) fn moved(&self, map: PageMap) {
        *self.map.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(map);
    }

    /// Keeps a page for as long as this state is read.
    pub(super) fn preserve(&self, pgno: Pgno, page: Arc<Kept>) {
        self.preserved.pages.write().unwrap_or_else(PoisonError::into_inner).insert(pgno, page);
        self.preserved.some.store(true, Ordering::Release);
    }

    /// Reads a page that was preserved; `false` if it was not.
    pub(super) fn read_preserved(&self, pgno: Pgno, buf: &mut [u8]) -> bool {
        if !self.preserved.some.load(Ordering::Acquire) {
            return false;
        }
        let page = self.preserved.pages.read().unwrap_or_else(PoisonError::into_inner).get(&pgno).cloned();
        match page.map(|page| page.read(0, buf.len())) {
            Some(Ok(page)) => {
                buf.copy_from_slice(&page);
                true
            }
            _ => false,
        }
    }

    /// The size of the database in bytes.
    pub fn bytes(&self) -> u64 {
        self.commit.bytes(self.page_size)
    }

    /// The change counter that SQLite is shown: another one exactly when the content is another.
    pub fn change_counter(&self) -> u32 {
        (self.txid.get() as u32).wrapping_add(self.epoch.wrapping_mul(0x9e37_79b9))
    }
}
