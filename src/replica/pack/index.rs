//! The page index of a large file in blocks, each of which is fetched, verified and read by itself.
//!
//! Block n is about the pages n · 16384 + 1 to (n + 1) · 16384:
//!
//! ```text
//!   of each run of pages that follow each other, until these are all of the block: varint number of pages that
//!                the file lacks before it, varint number of its pages
//!   of each page: varint size of its frame
//! ```
//! In the pack of a sealed file a block is sealed, see [`super::seal`]. Frames lie one after another, so that the offset of a block's first one, which the table has, gives all of them. A page
//! takes about two bytes.

use std::borrow::Cow;

use bytes::{Buf as _, BufMut as _, Bytes};

use super::seal::Opener;
use super::{broken, checksum};
use crate::error::Result;
use crate::ltx::{FRAME_SIZES, IndexEntry, PackCipher, PackPart, varint};
use crate::page::Pgno;
use crate::store::{ByteRange, FileInfo};

/// The size of what the table has of a block.
pub(super) const BLOCK_ENTRY: usize = 24;
/// The most bytes that a page takes in a block: a run of its own, and its size.
const MOST_OF_PAGE: u64 = 9;

/// What the table has of a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Block {
    /// Where the first of its frames is in the LTX file; of a block without pages, where it would be.
    offset: u64,
    pages: u32,
    /// Its size in the pack.
    size: u32,
    checksum: u64,
}

impl Block {
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.put_u64(self.offset);
        out.put_u32(self.pages);
        out.put_u32(self.size);
        out.put_u64(self.checksum);
    }

    fn take(mut bytes: &[u8]) -> Self {
        Self {
            offset: bytes.get_u64(),
            pages: bytes.get_u32(),
            size: bytes.get_u32(),
            checksum: bytes.get_u64(),
        }
    }

    /// Whether it may be one whose frames end at `end`, and which has `overhead` unless it has no pages.
    fn fits(&self, end: u64, overhead: usize) -> bool {
        let (pages, size) = (u64::from(self.pages), u64::from(self.size));
        let overhead = if pages > 0 { overhead as u64 } else { 0 };
        let frames = end.checked_sub(self.offset);
        self.pages as usize <= PackedIndex::BLOCK
            && frames.is_some_and(|frames| {
                (pages * FRAME_SIZES.start()..=pages * FRAME_SIZES.end()).contains(&frames)
            })
            && (pages + overhead..=pages * MOST_OF_PAGE + overhead).contains(&size)
    }
}

/// The index of a file that is being written.
#[derive(Debug)]
pub(super) struct IndexWriter {
    done: Vec<(Block, Box<[u8]>)>,
    open: OpenBlock,
    /// Where the first frame of the open block begins.
    begin: u64,
    /// Where the next frame begins.
    end: u64,
}

/// All blocks of a file that was written.
#[derive(Debug)]
pub(super) struct Blocks {
    /// In order, from that of page 1 on.
    pub(super) blocks: Vec<(Block, Box<[u8]>)>,
    /// The last page.
    pub(super) last: Pgno,
    /// Where the last frame ends in the LTX file.
    pub(super) end: u64,
}

impl Blocks {
    /// Seals each block that has pages, in a pack that begins with `head`. The table is part 0.
    pub(super) fn seal(&mut self, cipher: &PackCipher, head: &[u8]) {
        let count = self.blocks.len() as u32 + 1;
        for (number, (block, bytes)) in (1..).zip(&mut self.blocks).filter(|(_, (block, _))| block.pages > 0)
        {
            let mut sealed = std::mem::take(bytes).into_vec();
            cipher.seal(PackPart { head, number, count }, &mut sealed);
            (block.size, block.checksum) = (sealed.len() as u32, checksum(&sealed));
            *bytes = sealed.into();
        }
    }
}

/// A block to which pages are added.
#[derive(Debug, Default)]
struct OpenBlock {
    runs: Vec<u8>,
    sizes: Vec<u8>,
    pages: u32,
    /// The place that follows its last page.
    next: u32,
    /// The pages before the last run, since the run before it, and those of the last run.
    run: (u32, u32),
}

impl IndexWriter {
    /// For a file whose first frame begins at `first_frame`.
    pub(super) fn new(first_frame: u64) -> Self {
        Self { done: Vec::new(), open: OpenBlock::default(), begin: first_frame, end: first_frame }
    }

    /// Adds the next page.
    pub(super) fn push(&mut self, entry: IndexEntry) {
        let place = entry.pgno.index();
        while self.done.len() < place / PackedIndex::BLOCK {
            self.close();
        }
        self.open.push((place % PackedIndex::BLOCK) as u32, entry.size);
        self.end += entry.size;
    }

    fn close(&mut self) {
        let (offset, open) = (self.begin, std::mem::take(&mut self.open));
        self.done.push(open.finish(offset));
        self.begin = self.end;
    }

    /// The blocks; `None` if there is no page.
    pub(super) fn finish(mut self) -> Option<Blocks> {
        let last = self.done.len() * PackedIndex::BLOCK + self.open.next as usize;
        self.close();
        let last = Pgno::new(last as u32)?;
        Some(Blocks { blocks: self.done, last, end: self.end })
    }
}

impl OpenBlock {
    fn push(&mut self, place: u32, size: u64) {
        if place != self.next {
            self.end_run();
        }
        if self.run.1 == 0 {
            self.run.0 = place - self.next;
        }
        self.run.1 += 1;
        self.pages += 1;
        self.next = place + 1;
        varint::put(&mut self.sizes, size);
    }

    fn end_run(&mut self) {
        if self.run.1 > 0 {
            varint::put(&mut self.runs, self.run.0.into());
            varint::put(&mut self.runs, self.run.1.into());
            self.run = (0, 0);
        }
    }

    fn finish(mut self, offset: u64) -> (Block, Box<[u8]>) {
        self.end_run();
        let bytes = [self.runs, self.sizes].concat();
        let block = Block { offset, pages: self.pages, size: bytes.len() as u32, checksum: checksum(&bytes) };
        (block, bytes.into())
    }
}

/// The page index of a file as its pack has it: where each block is, and what it must be.
///
/// Invariants: the frames of blocks lie one after another; a block has at most [`PackedIndex::BLOCK`] pages, and the last
/// one has a page.
#[derive(Debug)]
pub struct PackedIndex {
    /// Each block, and where it is in the pack.
    blocks: Vec<(Block, u64)>,
    last: Pgno,
    /// Where the last frame ends in the LTX file.
    end: u64,
    /// Where the first block is in the pack.
    start: u64,
    /// What came of the blocks.
    came: Bytes,
    /// What opens the blocks, if they are sealed.
    opener: Option<Opener>,
}

impl PackedIndex {
    /// The pages that a block is about, whether the file has them or not.
    pub const BLOCK: usize = 16_384;

    /// Reads `table`, of the pack of `file`, whose first frame is at `first_frame`, whose last page is `last`, and whose
    /// frames end at `end`. The blocks begin at `start` of the pack; `came` are the first of their bytes, as far as they came;
    /// `opener` opens them if they are sealed.
    ///
    /// # Errors
    /// `Corrupt` if it is none.
    pub(super) fn parse(
        table: &[u8],
        file: &FileInfo,
        (first_frame, end, last): (u64, u64, u32),
        (start, came): (u64, Bytes),
        opener: Option<Opener>,
    ) -> Result<Self> {
        let (entries, _) = table.as_chunks::<BLOCK_ENTRY>();
        let last = Pgno::new(last).filter(|last| last.index() / Self::BLOCK + 1 == entries.len());
        let last = last.ok_or_else(|| broken("its blocks do not end with its last page"))?;
        let mut blocks = Vec::with_capacity(entries.len());
        let mut at = start;
        for block in entries.iter().map(|entry| Block::take(entry)) {
            blocks.push((block, at));
            at += u64::from(block.size);
        }
        let overhead = opener.as_ref().map_or(0, |_| PackCipher::OVERHEAD);
        let index = Self { blocks, last, end, start, came, opener };
        let first = index.blocks.first().is_some_and(|(block, _)| block.offset == first_frame);
        let has_last = index.blocks.last().is_some_and(|(block, _)| block.pages > 0);
        let fits = (0..index.blocks()).all(|n| index.blocks[n].0.fits(index.end_of(n), overhead));
        if first && has_last && fits && end < file.size {
            Ok(index)
        } else {
            Err(broken("its blocks do not fit each other, or the file"))
        }
    }

    /// The number of blocks. They begin with that of page 1.
    pub fn blocks(&self) -> usize {
        self.blocks.len()
    }

    /// The block that has page `pgno`, if the file has that page; `None` if no block has it.
    pub fn of(&self, pgno: Pgno) -> Option<usize> {
        let block = pgno.index() / Self::BLOCK;
        (pgno <= self.last && self.blocks.get(block)?.0.pages > 0).then_some(block)
    }

    /// The number of pages of the file.
    pub fn pages(&self) -> u64 {
        self.blocks.iter().map(|(block, _)| u64::from(block.pages)).sum()
    }

    /// The last page of the file.
    pub fn last(&self) -> Pgno {
        self.last
    }

    /// Where the last frame ends in the LTX file.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Where a block is in the pack; `None` if it has no pages, or there is no such block.
    pub fn range(&self, block: usize) -> Option<ByteRange> {
        let (block, offset) = self.blocks.get(block).filter(|(block, _)| block.pages > 0)?;
        Some(ByteRange::Bounded { offset: *offset, len: block.size.into() })
    }

    /// The bytes of a block, if they came with the front of the pack.
    pub fn came(&self, block: usize) -> Option<&[u8]> {
        let (block, offset) = self.blocks.get(block)?;
        let place = usize::try_from(offset - self.start).ok()?;
        self.came.get(place..place + block.size as usize)
    }

    /// The entries of a block, ascending, of which `bytes` came.
    ///
    /// # Errors
    /// `Corrupt` if they are not the ones that the table tells of.
    pub fn read(&self, block: usize, bytes: &[u8]) -> Result<Vec<IndexEntry>> {
        let stored = self.blocks.get(block).map(|(stored, _)| *stored);
        let stored = stored.ok_or_else(|| broken(format_args!("it has no block {block}")))?;
        if bytes.len() != stored.size as usize || checksum(bytes) != stored.checksum {
            return Err(broken(format_args!("block {block} fails its checksum")));
        }
        let opened = match &self.opener {
            Some(opener) if stored.pages > 0 => Cow::Owned(opener.open(block as u32 + 1, bytes)?),
            _ => Cow::Borrowed(bytes),
        };
        self.entries(block, &stored, &opened)
            .ok_or_else(|| broken(format_args!("block {block} is not what its table says")))
    }

    fn entries(&self, block: usize, stored: &Block, mut bytes: &[u8]) -> Option<Vec<IndexEntry>> {
        let mut entries = self.pages_of(block, stored.pages as usize, &mut bytes)?;
        let mut offset = stored.offset;
        for entry in &mut entries {
            entry.size = varint::take(&mut bytes).filter(|size| FRAME_SIZES.contains(size))?;
            entry.offset = offset;
            offset += entry.size;
        }
        (bytes.is_empty() && offset == self.end_of(block)).then_some(entries)
    }

    /// The entries of the `count` pages that the runs of a block have, still without frames.
    fn pages_of(&self, block: usize, count: usize, bytes: &mut &[u8]) -> Option<Vec<IndexEntry>> {
        let mut next = block as u64 * Self::BLOCK as u64;
        let end = u64::from(self.last.get()).min(next + Self::BLOCK as u64);
        // No more than a block may have: that was seen when the table was read.
        let mut entries = Vec::with_capacity(count);
        while entries.len() < count {
            let first = next.checked_add(varint::take(bytes)?)?;
            let len = varint::take(bytes)?;
            next = first.checked_add(len)?;
            if len == 0 || next > end || len > (count - entries.len()) as u64 {
                return None;
            }
            let page = |place: u64| Pgno::new(u32::try_from(place + 1).ok()?);
            let run = (first..next).filter_map(page);
            entries.extend(run.map(|pgno| IndexEntry { pgno, offset: 0, size: 0 }));
        }
        let is_last = block + 1 == self.blocks();
        (!is_last || entries.last()?.pgno == self.last).then_some(entries)
    }

    /// Where the frames of a block end in the LTX file.
    fn end_of(&self, block: usize) -> u64 {
        self.blocks.get(block + 1).map_or(self.end, |(next, _)| next.offset)
    }

    /// The size of all blocks.
    pub(super) fn size(&self) -> u64 {
        self.blocks.iter().map(|(block, _)| u64::from(block.size)).sum()
    }

    /// What it takes in memory, beside what came with the front.
    pub(super) fn memory(&self) -> usize {
        size_of_val(self.blocks.as_slice())
    }
}

#[cfg(test)]
impl PackedIndex {
    pub(super) fn without_blocks_that_came(self) -> Self {
        Self { came: Bytes::new(), ..self }
    }
}
