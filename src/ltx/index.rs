//! The page index.
//!
//! ```text
//!   for each page, ascending: varint pgno, varint offset of its frame, varint size of its frame
//!   varint 0
//!   u64 size of the varints, the zero included
//! ```
//! Frames lie one after another from the end of the header, or of the recipients behind it, to the end of the page
//! block, so offsets are sums of sizes: they are verified when read and not kept.

use super::bytes::u64_at;
use super::checksum::Hasher;
use super::frame::{FRAME_HEADER_SIZE, FRAME_SIZES};
use super::seal::TAG;
use super::{FrameCodec, Shape, varint};
use crate::error::{Error, Result};
use crate::page::Pgno;

/// The size of the field that follows the varints.
pub(super) const SIZE_FIELD: usize = 8;

/// Where the frame of a page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// The page.
    pub pgno: Pgno,
    /// Where its frame begins, in bytes from the start of the file.
    pub offset: u64,
    /// The size of its frame in bytes.
    pub size: u64,
}

/// The page index of a file, ascending by page.
///
/// Invariants: pages ascend strictly; every size is in [`FRAME_SIZES`]; the first frame is at
/// [`Shape::first_frame`] and each other where the one before it ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageIndex {
    shape: Shape,
    frames: Vec<Frame>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Frame {
    pgno: Pgno,
    size: u32,
}

/// What the tail of a file told of its page index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TailRead {
    /// The page index.
    Index(PageIndex),
    /// The tail is too short: the last this many bytes of the file are needed.
    NeedMore(u64),
}

impl PageIndex {
    /// An index of `entries`, in a file of this `shape`.
    ///
    /// # Errors
    /// `Corrupt` if they do not ascend by page or do not lie one after another.
    pub fn from_entries(shape: Shape, entries: impl IntoIterator<Item = IndexEntry>) -> Result<Self> {
        let mut builder = Builder::new(shape);
        entries.into_iter().try_for_each(|entry| builder.push(entry))?;
        Ok(builder.index)
    }

    /// The number of pages.
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Whether the file has no pages.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// The last page.
    pub fn last(&self) -> Option<Pgno> {
        self.frames.last().map(|frame| frame.pgno)
    }

    /// The entries, ascending by page.
    pub fn iter(&self) -> impl Iterator<Item = IndexEntry> + '_ {
        self.frames.iter().scan(self.first_frame(), |offset, frame| {
            let entry = IndexEntry { pgno: frame.pgno, offset: *offset, size: u64::from(frame.size) };
            *offset += entry.size;
            Some(entry)
        })
    }

    /// Where the first frame begins, or would begin.
    pub fn first_frame(&self) -> u64 {
        self.shape.first_frame()
    }

    /// The entry at `place`, counted from 0, whose frame begins at `offset`.
    pub fn entry(&self, place: usize, offset: u64) -> Option<IndexEntry> {
        let frame = self.frames.get(place)?;
        Some(IndexEntry { pgno: frame.pgno, offset, size: u64::from(frame.size) })
    }

    /// The varints of the index, the final zero included.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.iter().for_each(|entry| put_entry(&mut bytes, entry));
        varint::put(&mut bytes, 0);
        bytes
    }

    /// Reads the varints of the index of a file of this `shape`; they end with a zero and nothing behind it.
    ///
    /// # Errors
    /// `Corrupt`.
    pub fn decode(bytes: &[u8], shape: Shape) -> Result<Self> {
        let mut builder = Builder::new(shape);
        builder.index.frames.reserve_exact(bytes.iter().filter(|b| **b < 0x80).count() / 3);
        let mut rest = bytes;
        while let Some(pgno) = Pgno::new(take_u32(&mut rest)?) {
            let (offset, size) = (take_u64(&mut rest)?, take_u64(&mut rest)?);
            builder.push(IndexEntry { pgno, offset, size })?;
        }
        if !rest.is_empty() {
            return Err(broken(format!("{} bytes follow its end", rest.len())));
        }
        Ok(builder.index)
    }

    /// Reads the index from `tail`, the last bytes of a file of `file_size` bytes and of this `shape`.
    ///
    /// Whether the file's checksum holds is not seen from here, nor whether a sealed file was sealed with this index.
    ///
    /// # Errors
    /// `Corrupt`.
    pub fn from_tail(tail: &[u8], file_size: u64, shape: Shape) -> Result<TailRead> {
        let (before, after) = (shape.first_frame() + FRAME_HEADER_SIZE as u64, after_varints(shape));
        let Some((end, size)) = Self::size_in(tail, file_size, shape)? else {
            return Ok(TailRead::NeedMore(after + 1));
        };
        let start = usize::try_from(size).ok().and_then(|size| end.checked_sub(size));
        let Some(start) = start else {
            return Ok(TailRead::NeedMore(size + after));
        };
        let index = Self::decode(&tail[start..end], shape)?;
        let frames: u64 = index.frames.iter().map(|frame| u64::from(frame.size)).sum();
        if before + frames + size + after != file_size {
            return Err(broken(format!("its frames do not fill a file of {file_size} bytes")));
        }
        if shape.is_sealed() && index.is_empty() {
            return Err(broken("a sealed file has at least one page"));
        }
        Ok(TailRead::Index(index))
    }

    /// Where the last frame ends in a file of `file_size` bytes and of this `shape` that ends with `tail`, as far as the
    /// size of its index says it; `None` if the tail is too short for that.
    ///
    /// # Errors
    /// `Corrupt`.
    pub fn end_of_frames(tail: &[u8], file_size: u64, shape: Shape) -> Result<Option<u64>> {
        let size = Self::size_in(tail, file_size, shape)?;
        Ok(size.map(|(_, size)| file_size - after_varints(shape) - size - FRAME_HEADER_SIZE as u64))
    }

    /// Where in `tail` the varints of the index end, and their size in bytes; `None` if the tail is too short.
    fn size_in(tail: &[u8], file_size: u64, shape: Shape) -> Result<Option<(usize, u64)>> {
        let (before, after) = (shape.first_frame() + FRAME_HEADER_SIZE as u64, after_varints(shape));
        if file_size < before + 1 + after || (tail.len() as u64) > file_size {
            return Err(broken(format!("no LTX file has {file_size} bytes")));
        }
        let Some(end) = usize::try_from(after).ok().and_then(|after| tail.len().checked_sub(after)) else {
            return Ok(None);
        };
        let size = u64_at(tail, end);
        if size == 0 || size > file_size - before - after {
            return Err(broken(format!("a size of {size} bytes is impossible in {file_size} bytes")));
        }
        Ok(Some((end, size)))
    }

    /// Checks that a sealed file was sealed with the index that [`PageIndex::from_tail`] read from `tail`.
    ///
    /// # Errors
    /// `Corrupt` if it was not.
    pub fn check_tail(tail: &[u8], codec: &FrameCodec) -> Result<()> {
        if !codec.is_sealed() {
            return Ok(());
        }
        let cut = || broken("it is cut short");
        let end = usize::try_from(after_varints(codec.shape()))
            .ok()
            .and_then(|after| tail.len().checked_sub(after));
        let end = end.ok_or_else(cut)?;
        let size = usize::try_from(u64_at(tail, end)).ok().filter(|size| *size <= end).ok_or_else(cut)?;
        let (index, rest) = tail[end - size..].split_at(size + SIZE_FIELD);
        codec.check_index(index, rest.first_chunk::<TAG>().ok_or_else(cut)?)
    }
}

/// What follows the varints in a file of this `shape`.
fn after_varints(shape: Shape) -> u64 {
    SIZE_FIELD as u64 + shape.after_index()
}

/// Checks the invariants of an index as it grows.
struct Builder {
    index: PageIndex,
    next_offset: u64,
}

impl Builder {
    fn new(shape: Shape) -> Self {
        Self { index: PageIndex { shape, frames: Vec::new() }, next_offset: shape.first_frame() }
    }

    fn push(&mut self, entry: IndexEntry) -> Result<()> {
        let IndexEntry { pgno, offset, size } = entry;
        if self.index.frames.last().is_some_and(|last| last.pgno >= pgno) {
            return Err(broken(format!("page {pgno} does not follow the page before it")));
        }
        if !FRAME_SIZES.contains(&size) {
            return Err(broken(format!("the frame of page {pgno} has an impossible size of {size} bytes")));
        }
        if offset != self.next_offset {
            let expected = self.next_offset;
            return Err(broken(format!("the frame of page {pgno} is at {offset} instead of {expected}")));
        }
        self.next_offset += size;
        self.index.frames.push(Frame { pgno, size: size as u32 });
        Ok(())
    }
}

/// The index of a file that is being written: its varints, and where the next frame begins.
#[derive(Debug)]
pub(super) struct IndexWriter {
    varints: Vec<u8>,
    next_offset: u64,
}

impl IndexWriter {
    pub(super) fn new(shape: Shape) -> Self {
        Self { varints: Vec::new(), next_offset: shape.first_frame() }
    }

    /// Adds the next frame.
    pub(super) fn push(&mut self, pgno: Pgno, size: u64) {
        put_entry(&mut self.varints, IndexEntry { pgno, offset: self.next_offset, size });
        self.next_offset += size;
    }

    /// Where the next frame begins.
    pub(super) fn next_offset(&self) -> u64 {
        self.next_offset
    }

    /// The whole index, with its size field.
    pub(super) fn finish(mut self) -> Vec<u8> {
        varint::put(&mut self.varints, 0);
        let size = self.varints.len() as u64;
        self.varints.extend_from_slice(&size.to_be_bytes());
        self.varints
    }
}

/// The index that a file must have after the frames that were read, as size and CRC of its varints:
/// constant memory, however many pages there are.
#[derive(Debug)]
pub(super) struct ExpectedIndex {
    pending: IndexWriter,
    size: u64,
    crc: Hasher,
}

impl ExpectedIndex {
    const BATCH: usize = 1024;

    pub(super) fn new(shape: Shape) -> Self {
        Self { pending: IndexWriter::new(shape), size: 0, crc: Hasher::new() }
    }

    /// Adds the frame that was read.
    pub(super) fn push(&mut self, pgno: Pgno, size: u64) {
        self.pending.push(pgno, size);
        if self.pending.varints.len() >= Self::BATCH {
            self.flush();
        }
    }

    /// Size and CRC of all varints, the final zero included.
    pub(super) fn finish(mut self) -> (u64, u64) {
        varint::put(&mut self.pending.varints, 0);
        self.flush();
        (self.size, self.crc.crc())
    }

    fn flush(&mut self) {
        let varints = &mut self.pending.varints;
        self.size += varints.len() as u64;
        self.crc.update(varints);
        varints.clear();
    }
}

fn put_entry(bytes: &mut Vec<u8>, entry: IndexEntry) {
    varint::put(bytes, u64::from(entry.pgno.get()));
    varint::put(bytes, entry.offset);
    varint::put(bytes, entry.size);
}

fn take_u64(bytes: &mut &[u8]) -> Result<u64> {
    varint::take(bytes).ok_or_else(|| broken("a number in it is cut short or malformed"))
}

fn take_u32(bytes: &mut &[u8]) -> Result<u32> {
    u32::try_from(take_u64(bytes)?).map_err(|_| broken("a page number exceeds 32 bits"))
}

pub(super) fn broken(what: impl std::fmt::Display) -> Error {
    Error::corrupt(format!("LTX page index: {what}"))
}
