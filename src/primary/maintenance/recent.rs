//! Files that were just written and are still in memory, so that a merge need not fetch them.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::ltx::{FileId, Txid};

/// At most so many bytes are kept.
const LIMIT: usize = 4 * 1024 * 1024;

/// Files of level 0 in memory, the oldest given up first.
#[derive(Debug, Default)]
pub(super) struct Recent {
    files: BTreeMap<FileId, Bytes>,
    size: usize,
}

impl Recent {
    /// Keeps a file, and gives up the oldest ones for it where they become too many.
    pub(super) fn add(&mut self, id: FileId, bytes: Bytes) {
        if bytes.len() > LIMIT {
            return;
        }
        self.size += bytes.len();
        if let Some(old) = self.files.insert(id, bytes) {
            self.size -= old.len();
        }
        while self.size > LIMIT {
            let (_, oldest) = self.files.pop_first().expect("BUG: nothing has no size");
            self.size -= oldest.len();
        }
    }

    /// A file, if it is still kept.
    pub(super) fn get(&self, id: FileId) -> Option<Bytes> {
        self.files.get(&id).cloned()
    }

    /// Gives up what holds no transaction later than `txid`.
    pub(super) fn forget(&mut self, txid: Txid) {
        self.files.retain(|id, _| id.name.max() > txid);
        self.size = self.files.values().map(Bytes::len).sum();
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
        assert_eq!(recent.size, LIMIT / 3);
    }
}
