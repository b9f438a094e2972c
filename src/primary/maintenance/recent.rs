//! Files that were just written and are still in memory, so that a merge need not fetch them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

#[cfg(not(test))]
use crate::fork::PerProcess;
use crate::ltx::{FileId, Txid};

/// So many bytes are kept at most, of all databases of a process together: with many of them the merges of some fetch their
/// files.
const LIMIT: usize = 4 * 1024 * 1024;

/// The bytes that are kept by all who share it.
#[derive(Debug, Default)]
struct Kept(AtomicUsize);

impl Kept {
    /// Counts `size` more bytes, if there is room for them.
    fn takes(&self, size: usize) -> bool {
        let more = |kept: usize| kept.checked_add(size).filter(|kept| *kept <= LIMIT);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    fn gives_back(&self, size: usize) {
        self.0.fetch_sub(size, Ordering::Relaxed);
    }

    /// That of the process. In tests everybody has one alone, so that a seed replays beside others.
    fn shared() -> Arc<Self> {
        #[cfg(not(test))]
        {
            static OF_PROCESS: PerProcess<Arc<Kept>> = PerProcess::new();
            Arc::clone(OF_PROCESS.get())
        }
        #[cfg(test)]
        Arc::default()
    }
}

/// Files of level 0 in memory, the oldest given up first.
#[derive(Debug)]
pub(super) struct Recent {
    /// Invariant: the sizes of all of them are counted in `kept`.
    files: BTreeMap<FileId, Bytes>,
    kept: Arc<Kept>,
}

impl Default for Recent {
    fn default() -> Self {
        Self { files: BTreeMap::new(), kept: Kept::shared() }
    }
}

impl Recent {
    /// Keeps a file, and gives up the oldest ones for it where they become too many.
    pub(super) fn add(&mut self, id: FileId, bytes: Bytes) {
        if bytes.len() > LIMIT {
            return;
        }
        if let Some(old) = self.files.remove(&id) {
            self.kept.gives_back(old.len());
        }
        while !self.kept.takes(bytes.len()) {
            // Without one of its own, others have all the room.
            let Some((_, oldest)) = self.files.pop_first() else { return };
            self.kept.gives_back(oldest.len());
        }
        self.files.insert(id, bytes);
    }

    /// A file, if it is still kept.
    pub(super) fn get(&self, id: FileId) -> Option<Bytes> {
        self.files.get(&id).cloned()
    }

    /// Gives up what holds no transaction later than `txid`.
    pub(super) fn forget(&mut self, txid: Txid) {
        self.files.retain(|id, bytes| {
            let stays = id.name.max() > txid;
            if !stays {
                self.kept.gives_back(bytes.len());
            }
            stays
        });
    }
}

impl Drop for Recent {
    fn drop(&mut self) {
        self.files.values().for_each(|bytes| self.kept.gives_back(bytes.len()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ltx::{FileName, Level};

    fn id(txid: u64) -> FileId {
        FileId::new(Level::L0, FileName::single(Txid::new(txid).unwrap()))
    }

    #[test]
    fn the_latest_files_are_kept_within_the_limit() {
        let mut recent = Recent::default();
        let third = Bytes::from(vec![0; LIMIT / 3]);
        for txid in 1..=5 {
            recent.add(id(txid), third.clone());
        }
        recent.add(id(6), Bytes::from(vec![0; LIMIT + 1]));
        let there: Vec<u64> = (1..=6).filter(|txid| recent.get(id(*txid)).is_some()).collect();
        assert_eq!(there, [3, 4, 5]);
        recent.forget(Txid::new(4).unwrap());
        assert!(recent.get(id(4)).is_none() && recent.get(id(5)).is_some());
        assert_eq!(recent.kept.0.load(Ordering::Relaxed), LIMIT / 3);
    }

    #[test]
    fn all_of_a_process_share_the_limit() {
        let mut first = Recent::default();
        let mut second = Recent { files: BTreeMap::new(), kept: Arc::clone(&first.kept) };
        let half = Bytes::from(vec![0; LIMIT / 2]);
        first.add(id(1), half.clone());
        first.add(id(2), half.clone());
        second.add(id(1), half.clone());
        assert!(first.get(id(1)).is_some() && first.get(id(2)).is_some() && second.get(id(1)).is_none());
        first.forget(Txid::new(1).unwrap());
        second.add(id(1), half.clone());
        second.add(id(2), half);
        assert!(first.get(id(2)).is_some() && second.get(id(1)).is_none() && second.get(id(2)).is_some());
        let kept = Arc::clone(&second.kept);
        drop((first, second));
        assert_eq!(kept.0.load(Ordering::Relaxed), 0);
    }
}
