//! Packs: of a large LTX file, the pages that every look-up begins with, in one object beside it.
//!
//! Interior pages of B-trees are all over a file. To find a row they are needed one after another, a round trip each. A
//! primary that writes a large file writes its pack too, below `vfs/`, where nobody but this library looks; a reader fetches
//! it at the same time as the page index.
//!
//! Of a very large file it also has the page index, in blocks that are fetched one by one.
//!
//! ```text
//! front
//!    0  magic `LSVPACK1`
//!    8  size of the front u32   with its checksum; at most 8 MiB
//!   12  level u32               of the LTX file
//!   16  min TXID u64            of the LTX file, as the next four
//!   24  max TXID u64
//!   32  size in bytes u64
//!   40  file checksum u64       that of its trailer
//!   48  end of its frames u64   where the zero page header is; 0 without blocks
//!   56  its last page u32       0 without blocks
//!   60  number of pages u32
//!   64  number of blocks u32
//!   68  size of all frames u32
//!   72  of each page, ascending by offset: pgno u32, size of its frame u32, offset of its frame in the LTX file u64
//!       of each block: offset of its first frame in the LTX file u64, number of pages u32, size u32, checksum u64
//!       frames, in that order, as they are in the LTX file
//!       checksum u64            of all before it
//! blocks, in order              what is in them: [`PackedIndex`]
//! ```
//! That of a sealed file is in [`seal`].
//!
//! Integers are big-endian, checksums CRC-64/NVME. A reader asks for the first 8 MiB, which is all of most packs, and for single
//! blocks by their ranges.
//!
//! A pack is a cache, and nothing depends on it. It counts only if it names just the LTX file that was listed (level,
//! transactions, size) with the checksum that the file's own trailer has; of it, a frame counts only where the page map says
//! that this page is, now, in that file at that offset with that size; and what it holds must decompress to the page of that
//! number. Anything else (older, of another database, cut off, damaged, of a later version) is as good as no pack.
//!
//! Plain LTX has no checksum of a single page, so a plain pack that was *forged*, with checksums that are right, can show a reader other
//! pages. Who can do that can write to the replica, and could as well have forged the LTX file: a pack adds no power. It is
//! never used by what checks: restores, verification, merges, and a hydrated file.

mod builder;
mod index;
mod seal;
mod slot;
#[cfg(test)]
pub(super) mod tests;

use std::borrow::Cow;
use std::ops::Range;

use bytes::{Buf as _, BufMut as _, Bytes};
use crc_fast::{CrcAlgorithm, Digest};

pub(crate) use self::builder::{PackBuilder, Packed};
pub use self::index::PackedIndex;
use self::index::{BLOCK_ENTRY, Block, Blocks};
use self::seal::{Opener, SEALED_HEAD};
pub(super) use self::slot::{Asked, FilePack, Packs};
use crate::error::{Error, Result};
use crate::ltx::{FRAME_SIZES, FileId, FrameCodec, IndexEntry, PackCipher, PackPart};
use crate::page::Pgno;
use crate::store::{FileInfo, may_have_pack};

/// How a pack begins. Another format gets another magic.
const MAGIC: &[u8; 8] = b"LSVPACK1";
/// What precedes the pages.
const HEAD: usize = 72;
/// What is said of each page.
const ENTRY: usize = 16;
/// The size of the checksum.
const CHECKSUM: usize = 8;
/// The largest front, in bytes. A smaller one has all interior pages of a database of a few GB.
const LARGEST: usize = 8 * 1024 * 1024;
/// A file of at least this many bytes gets the blocks of its page index.
pub(super) const BLOCKS_FROM: u64 = 1024 * 1024 * 1024;
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

/// The front of a pack that was read: it is whole, and one of the file that it was read for.
#[derive(Debug)]
pub struct Pack {
    bytes: Bytes,
    /// The checksum of its file.
    checksum: u64,
    /// Ascending by offset.
    entries: Vec<Entry>,
    index: Option<PackedIndex>,
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

/// The bytes of a pack of `file` with these frames, which ascend by offset, and the blocks of its page `index`. That of a
/// sealed file is sealed by `cipher`.
fn encode(
    file: &Identity,
    frames: &[(IndexEntry, &[u8])],
    mut index: Option<Blocks>,
    cipher: Option<&PackCipher>,
) -> Vec<u8> {
    let (end, last) = index.as_ref().map_or((0, 0), |index| (index.end, index.last.get()));
    let blocks = index.as_ref().map_or(0, |index| index.blocks.len());
    let size: usize = frames.iter().map(|(_, frame)| frame.len()).sum();
    let seal = cipher.map_or(0, |_| PackCipher::SALT + PackCipher::OVERHEAD);
    let front = HEAD + seal + frames.len() * ENTRY + blocks * BLOCK_ENTRY + size + CHECKSUM;
    let mut bytes = Vec::with_capacity(front);
    bytes.extend_from_slice(if cipher.is_some() { seal::MAGIC } else { MAGIC });
    bytes.put_u32(front as u32);
    let name = file.id.name;
    bytes.put_u32(file.id.level.get().into());
    for n in [name.min().get(), name.max().get(), file.size, file.checksum, end] {
        bytes.put_u64(n);
    }
    for n in [last, frames.len() as u32, blocks as u32, size as u32] {
        bytes.put_u32(n);
    }
    if let Some(cipher) = cipher {
        bytes.extend_from_slice(cipher.salt());
        index.iter_mut().for_each(|index| index.seal(cipher, &bytes));
    }
    let blocks = index.map_or_else(Vec::new, |index| index.blocks);
    let mut list = list_of(frames, &blocks);
    if let Some(cipher) = cipher {
        cipher.seal(PackPart { head: &bytes, number: 0, count: blocks.len() as u32 + 1 }, &mut list);
    }
    bytes.extend_from_slice(&list);
    frames.iter().for_each(|(_, frame)| bytes.extend_from_slice(frame));
    bytes.put_u64(checksum(&bytes));
    bytes.reserve_exact(blocks.iter().map(|(_, block)| block.len()).sum());
    // Each is dropped when it is written: together they may be large.
    blocks.into_iter().for_each(|(_, block)| bytes.extend_from_slice(&block));
    bytes
}

/// The list of pages with these frames, and the table of `blocks`.
fn list_of(frames: &[(IndexEntry, &[u8])], blocks: &[(Block, Box<[u8]>)]) -> Vec<u8> {
    let mut list = Vec::new();
    for (entry, _) in frames {
        list.put_u32(entry.pgno.get());
        list.put_u32(entry.size as u32);
        list.put_u64(entry.offset);
    }
    blocks.iter().for_each(|(block, _)| block.put(&mut list));
    list
}

/// What the head of a pack says, beside which file it is of.
struct Head {
    /// The size of the front.
    front: usize,
    /// The checksum of the file.
    checksum: u64,
    /// Where the frames of the file end.
    end: u64,
    /// The last page of the file.
    last: u32,
    pages: usize,
    blocks: usize,
    /// The size of all frames.
    frames: usize,
}

impl Head {
    /// Reads the head of the pack of `file`, which is sealed or not; the pack begins with `bytes`.
    fn parse(file: &FileInfo, bytes: &[u8], is_sealed: bool) -> Result<Self> {
        let mut head =
            bytes.get(..HEAD).ok_or_else(|| broken(format_args!("it has {} bytes", bytes.len())))?;
        if !head.starts_with(if is_sealed { seal::MAGIC } else { MAGIC }) {
            return Err(broken("it is none of this version"));
        }
        head.advance(MAGIC.len());
        let (front, level) = (head.get_u32() as usize, head.get_u32());
        let (min, max, size) = (head.get_u64(), head.get_u64(), head.get_u64());
        let name = (file.id.name.min().get(), file.id.name.max().get());
        if (level, min, max, size) != (file.id.level.get().into(), name.0, name.1, file.size) {
            return Err(broken("it is one of another file"));
        }
        let (checksum, end, last) = (head.get_u64(), head.get_u64(), head.get_u32());
        let [pages, blocks, frames] = [(); 3].map(|()| head.get_u32() as usize);
        Ok(Self { front, checksum, end, last, pages, blocks, frames })
    }

    /// Where the list of pages and blocks is, sealed or not; frames follow it.
    fn list(&self, is_sealed: bool) -> Result<Range<usize>> {
        let (start, overhead) = if is_sealed { (SEALED_HEAD, PackCipher::OVERHEAD) } else { (HEAD, 0) };
        let pages = self.pages.checked_mul(ENTRY);
        let len = pages
            .zip(self.blocks.checked_mul(BLOCK_ENTRY))
            .and_then(|(pages, blocks)| pages.checked_add(blocks));
        let end = len.and_then(|len| len.checked_add(start + overhead));
        let front = end.and_then(|end| end.checked_add(self.frames)?.checked_add(CHECKSUM));
        end.filter(|_| front == Some(self.front)).map(|end| start..end).ok_or_else(|| {
            let (pages, blocks) = (self.pages, self.blocks);
            broken(format_args!("it has no room for {pages} pages and {blocks} blocks"))
        })
    }
}

impl Pack {
    /// Reads `bytes`, the first 8 MiB or all, as the pack of `file`, which has this `codec`.
    ///
    /// # Errors
    /// `Corrupt` if they are anything else, or the codec does not open it.
    pub fn parse(file: &FileInfo, bytes: Bytes, codec: &FrameCodec) -> Result<Self> {
        let is_sealed = codec.is_sealed();
        let head = Head::parse(file, &bytes, is_sealed)?;
        let front =
            bytes.get(..head.front).filter(|front| (HEAD + CHECKSUM..=LARGEST).contains(&front.len()));
        let front = front.ok_or_else(|| broken(format_args!("its front has {} bytes", head.front)))?;
        let (body, sum) = front.split_at(front.len() - CHECKSUM);
        if checksum(body).to_be_bytes() != sum {
            return Err(broken("it fails its checksum"));
        }
        let place = head.list(is_sealed)?;
        let frames = place.end;
        let opener = is_sealed.then(|| Opener::new(codec, &bytes, head.blocks)).transpose()?;
        let list = match &opener {
            Some(opener) => Cow::Owned(opener.open(0, &body[place])?),
            None => Cow::Borrowed(&body[place]),
        };
        let (listed, table) = list.split_at(head.pages * ENTRY);
        let first_frame = codec.shape().first_frame();
        let entries = entries((first_frame, file.size), listed, &body[frames..], frames)?;
        let index = if table.is_empty() {
            None
        } else {
            let about = (first_frame, head.end, head.last);
            let blocks = (head.front as u64, bytes.slice(head.front..));
            Some(PackedIndex::parse(table, file, about, blocks, opener)?)
        };
        let size = head.front as u64 + index.as_ref().map_or(0, PackedIndex::size);
        if bytes.len() as u64 != size.min(LARGEST as u64) {
            return Err(broken(format_args!("{} bytes came of {size}", bytes.len())));
        }
        Ok(Self { checksum: head.checksum, entries, index, bytes })
    }

    /// The checksum of the file that it was made of.
    pub fn checksum(&self) -> u64 {
        self.checksum
    }

    /// The page index of the file, if it is here: its table, the blocks of which are fetched one by one.
    pub fn index(&self) -> Option<&PackedIndex> {
        self.index.as_ref()
    }

    /// The frame of the page that a page index has as `entry`, if it is here.
    pub fn frame(&self, entry: IndexEntry) -> Option<&[u8]> {
        let place = self.entries.binary_search_by_key(&entry.offset, |entry| entry.offset).ok()?;
        let found = self.entries[place];
        (found.pgno == entry.pgno && u64::from(found.size) == entry.size).then(|| self.bytes_of(found))
    }

    /// What a page index has of page `pgno`, if that page is here.
    pub fn entry(&self, pgno: Pgno) -> Option<IndexEntry> {
        // As in the file, which lists pages by their numbers.
        let place = self.entries.binary_search_by_key(&pgno, |entry| entry.pgno).ok()?;
        let Entry { offset, size, .. } = self.entries[place];
        Some(IndexEntry { pgno, offset, size: size.into() })
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
        let index = self.index.as_ref().map_or(0, PackedIndex::memory);
        self.bytes.len() + size_of_val(self.entries.as_slice()) + index
    }
}

/// Reads what `listed` says of the pages whose frames are `frames`, which begin at `start` of the pack. In the LTX file they
/// are between the offsets `first` and `last`.
fn entries((first, last): (u64, u64), listed: &[u8], frames: &[u8], start: usize) -> Result<Vec<Entry>> {
    let (listed, _) = listed.as_chunks::<ENTRY>();
    let mut entries = Vec::with_capacity(listed.len());
    let (mut at, mut next) = (0, first);
    for mut entry in listed.iter().map(<[u8; ENTRY]>::as_slice) {
        let (pgno, size, offset) = (Pgno::new(entry.get_u32()), entry.get_u32(), entry.get_u64());
        let fits = |end: &u64| offset >= next && *end <= last && FRAME_SIZES.contains(&size.into());
        let end = offset.checked_add(size.into()).filter(fits);
        let (Some(pgno), Some(end)) = (pgno, end) else {
            return Err(broken(format_args!("it has a frame of {size} bytes at {offset}")));
        };
        if size as usize > frames.len() - at {
            return Err(broken("its frames are cut short"));
        }
        entries.push(Entry { offset, pgno, at: (start + at) as u32, size });
        (at, next) = (at + size as usize, end);
    }
    if at == frames.len() { Ok(entries) } else { Err(broken("bytes follow its frames")) }
}

#[cfg(test)]
impl Pack {
    fn without_blocks_that_came(self) -> Self {
        Self { index: self.index.map(PackedIndex::without_blocks_that_came), ..self }
    }
}

fn checksum(bytes: &[u8]) -> u64 {
    let mut digest = Digest::new(CrcAlgorithm::Crc64Nvme);
    digest.update(bytes);
    digest.finalize()
}

fn broken(what: impl std::fmt::Display) -> Error {
    Error::corrupt(format!("this is no pack of it: {what}"))
}
