//! Packs: of a large LTX file, the pages that every look-up begins with, in one object beside it.
//!
//! Interior pages of B-trees are all over a file. To find a row they are needed one after another, a round trip each. A
//! primary that writes a large file writes its pack too, below `vfs/`, where nobody but this library looks; a reader fetches
//! it at the same time as the page index.
//!
//! ```text
//!    0  magic `LSVPACK1`
//!    8  level u32               of the LTX file
//!   12  number of pages u32
//!   16  min TXID u64            of the LTX file, as the next three
//!   24  max TXID u64
//!   32  size in bytes u64
//!   40  file checksum u64       that of its trailer
//!   48  size of all frames u64
//!   56  of each page, ascending by offset: pgno u32, size of its frame u32, offset of its frame in the LTX file u64
//!       frames, in that order, as they are in the LTX file
//!  end  checksum u64            of all before it
//! ```
//! Integers are big-endian.
//!
//! A pack is a cache, and nothing depends on it. It counts only if it names just the LTX file that was listed (level,
//! transactions, size) with the checksum that the file's own trailer has; of it, a frame counts only where the page map says
//! that this page is, now, in that file at that offset with that size; and what it holds must decompress to the page of that
//! number. Anything else (older, of another database, cut off, damaged, of a later version) is as good as no pack.
//!
//! LTX has no checksum of a single page, so a pack that was *forged*, with checksums that are right, can show a reader other
//! pages. Who can do that can write to the replica, and could as well have forged the LTX file: a pack adds no power. It is
//! never used by what checks: restores, verification, merges, and a hydrated file.

mod builder;
mod slot;
#[cfg(test)]
pub(super) mod tests;

use bytes::{Buf as _, BufMut as _, Bytes};
use crc_fast::{CrcAlgorithm, Digest};

pub(crate) use self::builder::{PackBuilder, Packed};
pub(super) use self::slot::{FilePack, Packs};
use crate::error::{Error, Result};
use crate::ltx::{FileId, Header, IndexEntry};
use crate::page::Pgno;
use crate::store::{FileInfo, may_have_pack};

/// How a pack begins. Another format gets another magic.
const MAGIC: &[u8; 8] = b"LSVPACK1";
/// What precedes the pages.
const HEAD: usize = 56;
/// What is said of each page.
const ENTRY: usize = 16;
/// The size of the checksum.
const CHECKSUM: usize = 8;
/// No frame is smaller.
const SMALLEST_FRAME: usize = 7;
/// The largest pack, in bytes. A smaller one has all interior pages of a database of a few GB.
const LARGEST: usize = 8 * 1024 * 1024;
/// A file of up to this many bytes comes whole: it needs no pack.
pub(super) const WHOLE: u64 = 1024 * 1024;

/// Whether there may be a pack of the file `id`, which has `size` bytes.
fn is_worth_it(id: FileId, size: u64) -> bool {
    size > WHOLE && may_have_pack(id)
}

/// An LTX file, told from every other one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    id: FileId,
    size: u64,
    checksum: u64,
}

/// A pack that was read: it is whole, and one of the file that it was read for.
#[derive(Debug)]
pub struct Pack {
    bytes: Bytes,
    /// The checksum of its file.
    checksum: u64,
    /// Ascending by offset.
    entries: Vec<Entry>,
}

/// A page of a pack.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Where its frame is in the LTX file.
    offset: u64,
    pgno: Pgno,
    /// Where its frame is in the pack.
    at: u32,
    /// The size of its frame.
    size: u32,
}

/// The bytes of a pack of `file` with these frames, which ascend by offset.
fn encode(file: &Identity, frames: &[(IndexEntry, &[u8])]) -> Vec<u8> {
    let size: usize = frames.iter().map(|(_, frame)| frame.len()).sum();
    let mut bytes = Vec::with_capacity(HEAD + frames.len() * ENTRY + size + CHECKSUM);
    bytes.extend_from_slice(MAGIC);
    let name = file.id.name;
    bytes.put_u32(file.id.level.get().into());
    bytes.put_u32(frames.len() as u32);
    for n in [name.min().get(), name.max().get(), file.size, file.checksum, size as u64] {
        bytes.put_u64(n);
    }
    for (entry, _) in frames {
        bytes.put_u32(entry.pgno.get());
        bytes.put_u32(entry.size as u32);
        bytes.put_u64(entry.offset);
    }
    frames.iter().for_each(|(_, frame)| bytes.extend_from_slice(frame));
    bytes.put_u64(checksum(&bytes));
    bytes
}

impl Pack {
    /// Reads `bytes` as the pack of `file`.
    ///
    /// # Errors
    /// `Corrupt` if they are anything else.
    pub fn parse(file: &FileInfo, bytes: Bytes) -> Result<Self> {
        if !(HEAD + CHECKSUM..=LARGEST).contains(&bytes.len()) {
            return Err(broken(format_args!("it has {} bytes", bytes.len())));
        }
        if !bytes.starts_with(MAGIC) {
            return Err(broken("it is none of this version"));
        }
        let (body, sum) = bytes.split_at(bytes.len() - CHECKSUM);
        if checksum(body).to_be_bytes() != sum {
            return Err(broken("it fails its checksum"));
        }
        let mut head = &body[MAGIC.len()..HEAD];
        let (level, count) = (head.get_u32(), head.get_u32() as usize);
        let (min, max, size, of_file) = (head.get_u64(), head.get_u64(), head.get_u64(), head.get_u64());
        let frames = head.get_u64();
        let name = (file.id.name.min().get(), file.id.name.max().get());
        if (level, min, max, size) != (file.id.level.get().into(), name.0, name.1, file.size) {
            return Err(broken("it is one of another file"));
        }
        let entries = entries(file, body, count, frames)?;
        Ok(Self { checksum: of_file, entries, bytes })
    }

    /// The checksum of the file that it was made of.
    pub fn checksum(&self) -> u64 {
        self.checksum
    }

    /// The frame of the page that a page index has as `entry`, if it is here.
    pub fn frame(&self, entry: IndexEntry) -> Option<&[u8]> {
        let place = self.entries.binary_search_by_key(&entry.offset, |entry| entry.offset).ok()?;
        let found = self.entries[place];
        (found.pgno == entry.pgno && u64::from(found.size) == entry.size).then(|| self.bytes_of(found))
    }

    /// All pages, as a page index has them, and their frames.
    pub fn frames(&self) -> impl Iterator<Item = (IndexEntry, &[u8])> {
        self.entries.iter().map(|entry| {
            let Entry { offset, pgno, size, .. } = *entry;
            (IndexEntry { pgno, offset, size: size.into() }, self.bytes_of(*entry))
        })
    }

    fn bytes_of(&self, entry: Entry) -> &[u8] {
        &self.bytes[entry.at as usize..][..entry.size as usize]
    }

    /// What it takes in memory.
    fn memory(&self) -> usize {
        self.bytes.len() + size_of_val(self.entries.as_slice())
    }
}

/// Reads what `body` says of `count` pages, whose frames have `frames` bytes.
fn entries(file: &FileInfo, body: &[u8], count: usize, frames: u64) -> Result<Vec<Entry>> {
    let start = count.checked_mul(ENTRY).and_then(|listed| listed.checked_add(HEAD));
    let fits = |start: &usize| {
        let rest = body.len().checked_sub(*start);
        rest.is_some_and(|rest| rest as u64 == frames && rest / SMALLEST_FRAME >= count)
    };
    let start = start.filter(fits).ok_or_else(|| broken(format_args!("it has no room for {count} pages")))?;
    // No more than its own bytes have room for.
    let mut entries = Vec::with_capacity(count);
    let (mut at, mut next) = (start, Header::SIZE as u64);
    for mut entry in body[HEAD..start].chunks_exact(ENTRY) {
        let (pgno, size, offset) = (Pgno::new(entry.get_u32()), entry.get_u32(), entry.get_u64());
        let end = offset.checked_add(size.into()).filter(|end| offset >= next && *end <= file.size);
        let (Some(pgno), Some(end)) = (pgno, end) else {
            return Err(broken(format_args!("it has a frame of {size} bytes at {offset}")));
        };
        if size as usize > body.len() - at {
            return Err(broken("its frames are cut short"));
        }
        entries.push(Entry { offset, pgno, at: at as u32, size });
        (at, next) = (at + size as usize, end);
    }
    if at == body.len() { Ok(entries) } else { Err(broken("bytes follow its frames")) }
}

fn checksum(bytes: &[u8]) -> u64 {
    let mut digest = Digest::new(CrcAlgorithm::Crc64Nvme);
    digest.update(bytes);
    digest.finalize()
}

fn broken(what: impl std::fmt::Display) -> Error {
    Error::corrupt(format!("this is no pack of it: {what}"))
}
