//! One state of the database, as a connection sees it during a transaction.

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::map::PageMap;
use crate::clock::Timestamp;
use crate::ltx::Txid;
use crate::page::{PageCount, PageSize};

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
    /// How often the replica was reset to another history since it was opened.
    pub epoch: u32,
    map: RwLock<Arc<PageMap>>,
    /// Held by whoever is finding out where the pages went.
    pub(super) moving: Mutex<()>,
}

impl Snapshot {
    /// The state whose pages are where `map` says.
    pub(super) fn new(last: &crate::ltx::Header, epoch: u32, map: PageMap) -> Self {
        Self {
            txid: last.max,
            commit: map.commit(),
            page_size: last.page_size,
            timestamp: last.timestamp,
            epoch,
            map: RwLock::new(Arc::new(map)),
            moving: Mutex::new(()),
        }
    }

    /// The same state, for a map of its own.
    pub(super) fn same(&self) -> Self {
        Self { map: RwLock::new(self.map()), moving: Mutex::new(()), ..*self }
    }

    /// Where the pages are.
    pub(super) fn map(&self) -> Arc<PageMap> {
        self.map.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says that the pages are now elsewhere.
    pub(super) fn moved(&self, map: PageMap) {
        *self.map.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(map);
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
