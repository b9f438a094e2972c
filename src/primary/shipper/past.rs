//! Digests of the database after the last transactions: `.<file name>-litestream/pages.past`.
//!
//! A database file that comes back from a backup, from a reverted disk or out of a power failure may be
//! exactly an earlier transaction. These digests say which. Each has a slot of its own, which the
//! transaction gives, so that a new one takes the place of the oldest. Nothing is synced: each slot bears
//! a checksum of its own.
//!
//! ```text
//! slot (txid mod 4096), 40 bytes, little-endian:
//!  0  txid       u64
//!  8  page size  u32
//! 12  pages      u32   size of the database
//! 16  digest     u64   of the checksums of all pages, in any order (`sums`)
//! 24  replica    u64   CRC-64 of its URL
//! 32  checksum   u64   CRC-64 of the 32 bytes before it
//! ```

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crc_fast::CrcAlgorithm;

use crate::files;
use crate::ltx::Txid;

const NAME: &str = "pages.past";
const SLOTS: u64 = 4096;
const SLOT_SIZE: usize = 40;

/// A digest of the pages of a whole database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::primary) struct Digest {
    pub(in crate::primary) page_size: u32,
    pub(in crate::primary) pages: u32,
    pub(in crate::primary) digest: u64,
}

/// The digests of one database and one replica.
#[derive(Clone, Debug)]
pub(in crate::primary) struct Past {
    path: PathBuf,
    replica: u64,
}

type Slot = [u8; SLOT_SIZE];

impl Past {
    pub(in crate::primary) fn new(folder: &Path, replica: u64) -> Self {
        Self { path: folder.join(NAME), replica }
    }

    /// Forgets all of them.
    pub(in crate::primary) fn forget(&self) {
        let _ = fs::remove_file(&self.path);
    }

    /// Remembers the database after `txid`. Where this fails, a later open that relies on the digest stops.
    pub(in crate::primary) fn note(&self, txid: Txid, digest: &Digest) {
        let file = files::open(&self.path, OpenOptions::new().write(true));
        let offset = txid.get() % SLOTS * SLOT_SIZE as u64;
        let noted = file.and_then(|file| file.write_all_at(&self.encode(txid, digest), offset));
        if let Err(e) = noted {
            tracing::debug!("{}: {e}", self.path.display());
        }
    }

    /// The last transaction after which the database had `digest`.
    pub(in crate::primary) fn find(&self, digest: &Digest) -> Option<Txid> {
        let bytes = fs::read(&self.path).ok()?;
        let (slots, _rest) = bytes.as_chunks::<SLOT_SIZE>();
        let known = slots.iter().filter_map(|slot| self.decode(slot));
        known.filter(|(_, known)| known == digest).map(|(txid, _)| txid).max()
    }

    /// Whether any is remembered.
    pub(in crate::primary) fn has_any(&self) -> bool {
        let bytes = fs::read(&self.path).unwrap_or_default();
        let (slots, _rest) = bytes.as_chunks::<SLOT_SIZE>();
        slots.iter().any(|slot| self.decode(slot).is_some())
    }

    /// The digest of the database after `txid`.
    pub(in crate::primary) fn digest_of(&self, txid: Txid) -> Option<Digest> {
        let file = fs::File::open(&self.path).ok()?;
        let mut slot = [0; SLOT_SIZE];
        file.read_exact_at(&mut slot, txid.get() % SLOTS * SLOT_SIZE as u64).ok()?;
        self.decode(&slot).filter(|(known, _)| *known == txid).map(|(_, digest)| digest)
    }

    fn encode(&self, txid: Txid, digest: &Digest) -> Slot {
        let mut slot = [0; SLOT_SIZE];
        slot[..8].copy_from_slice(&txid.get().to_le_bytes());
        slot[8..12].copy_from_slice(&digest.page_size.to_le_bytes());
        slot[12..16].copy_from_slice(&digest.pages.to_le_bytes());
        slot[16..24].copy_from_slice(&digest.digest.to_le_bytes());
        slot[24..32].copy_from_slice(&self.replica.to_le_bytes());
        let checksum = crc_fast::checksum(CrcAlgorithm::Crc64Nvme, &slot[..32]);
        slot[32..].copy_from_slice(&checksum.to_le_bytes());
        slot
    }

    fn decode(&self, slot: &Slot) -> Option<(Txid, Digest)> {
        let long = |at: usize| [0, 1, 2, 3, 4, 5, 6, 7].map(|i: usize| slot[at + i]);
        let long = |at: usize| u64::from_le_bytes(long(at));
        let word = |at: usize| u32::from_le_bytes([slot[at], slot[at + 1], slot[at + 2], slot[at + 3]]);
        let is_whole = crc_fast::checksum(CrcAlgorithm::Crc64Nvme, &slot[..32]) == long(32);
        if !is_whole || long(24) != self.replica {
            return None;
        }
        Some((Txid::new(long(0))?, Digest { page_size: word(8), pages: word(12), digest: long(16) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(digest: u64) -> Digest {
        Digest { page_size: 4096, pages: 7, digest }
    }

    fn txid(n: u64) -> Txid {
        Txid::new(n).unwrap()
    }

    #[test]
    fn the_last_transaction_with_a_digest_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let past = Past::new(folder.path(), 1);
        for n in 1..=SLOTS + 5 {
            past.note(txid(n), &digest(n % 100));
        }
        assert_eq!(past.find(&digest(3)), Some(txid(4003)));
        assert_eq!(past.digest_of(txid(6)), Some(digest(6)));
        assert_eq!(past.digest_of(txid(5)), None, "its slot holds a later one");
        assert_eq!(past.find(&digest(100)), None);
        assert_eq!(past.find(&Digest { pages: 8, ..digest(3) }), None);
        assert_eq!(Past::new(folder.path(), 2).find(&digest(3)), None, "another replica");
    }

    #[test]
    fn a_slot_that_was_torn_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let past = Past::new(folder.path(), 1);
        past.note(txid(2), &digest(9));
        let mut bytes = fs::read(&past.path).unwrap();
        bytes[2 * SLOT_SIZE + 17] ^= 1;
        fs::write(&past.path, bytes).unwrap();
        assert_eq!(past.find(&digest(9)), None);
    }
}
