//! Writes an LTX file, page by page.

use std::fmt;
use std::io::Write;

use super::checksum::Hasher;
use super::file::PageSequence;
use super::frame::{BLOCK_OFFSET, END_OF_PAGES, block_frame_header, check_buffer};
use super::index::{IndexEntry, IndexWriter};
use super::lz4::{self, Compressor};
use super::source::io_error;
use super::{Header, Shape, Summary, Trailer};
use crate::error::{Error, ErrorKind, Result};
use crate::page::Pgno;

/// Writes an LTX file to `W`, page by page.
///
/// Memory: one frame, and the varints of the page index: 10 bytes a page in a file of 1 GB.
pub struct Encoder<W: Write> {
    out: W,
    header: Header,
    hasher: Hasher,
    compressor: Compressor,
    /// Pages are stored as they are.
    stored: bool,
    frame: Vec<u8>,
    index: IndexWriter,
    pages: PageSequence,
    /// The page that was written last, as long as its frame is in `frame`.
    last: Option<IndexEntry>,
    /// A write failed: what `out` holds is unknown.
    failed: bool,
}

impl<W: Write> Encoder<W> {
    /// Writes `header`.
    ///
    /// # Errors
    /// `Corrupt` if the header is not valid or the database has no pages; `Unsupported` if it is to
    /// be sealed or to keep database checksums; what writing to `out` says.
    pub fn new(out: W, header: Header) -> Result<Self> {
        header.validate()?;
        if header.has_database_checksums() {
            let message = "LTX files with database checksums are read, not written";
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        if header.is_sealed() {
            return Err(Error::new(ErrorKind::Unsupported, "sealed LTX files are read, not written"));
        }
        if header.commit.last().is_none() {
            return Err(Error::corrupt("LTX header: a database has at least one page"));
        }
        let compressor = Compressor::new(header.page_size);
        let frame = vec![0; BLOCK_OFFSET + compressor.max_output()];
        let mut encoder = Self {
            out,
            hasher: Hasher::new(),
            compressor,
            stored: false,
            frame,
            index: IndexWriter::new(Shape::PLAIN),
            pages: PageSequence::default(),
            last: None,
            failed: false,
            header,
        };
        let header = encoder.header.encode();
        encoder.hasher.update(&header);
        encoder.write(&header)?;
        Ok(encoder)
    }

    /// As [`Encoder::new`], for a file that is soon read and removed: its pages are blocks of literals,
    /// which cost no more than a copy.
    ///
    /// # Errors
    /// As [`Encoder::new`].
    pub fn stored(out: W, header: Header) -> Result<Self> {
        Ok(Self { stored: true, ..Self::new(out, header)? })
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Writes the next page. Pages ascend.
    ///
    /// # Errors
    /// `Corrupt` if the page does not follow the one before it, is the lock page or beyond the end
    /// of the database, or `data` has not the page size; what writing says.
    pub fn page(&mut self, pgno: Pgno, data: &[u8]) -> Result<()> {
        let size = self.block_of(data)?.len();
        self.write_frame(pgno, data, size)
    }

    /// The LZ4 block of a page with the content `data`, for [`Encoder::page_as`].
    ///
    /// # Errors
    /// `Corrupt` if `data` has not the page size.
    pub fn block_of(&mut self, data: &[u8]) -> Result<&[u8]> {
        check_buffer(data, self.header.page_size)?;
        self.last = None;
        let block = &mut self.frame[BLOCK_OFFSET..];
        let size = if self.stored { lz4::store(data, block) } else { self.compressor.compress(data, block) };
        Ok(&block[..size])
    }

    /// As [`Encoder::page`], of which `block` is the LZ4 block, as [`Encoder::block_of`] made it.
    ///
    /// # Errors
    /// As [`Encoder::page`]; `Corrupt` if the block is longer than any of a page.
    pub fn page_as(&mut self, pgno: Pgno, data: &[u8], block: &[u8]) -> Result<()> {
        check_buffer(data, self.header.page_size)?;
        let room = self.frame.get_mut(BLOCK_OFFSET..BLOCK_OFFSET + block.len());
        room.ok_or_else(|| Error::corrupt("an LZ4 block is longer than any of a page"))?
            .copy_from_slice(block);
        self.write_frame(pgno, data, block.len())
    }

    /// Writes the frame of page `pgno`, whose block of `size` bytes is in its place.
    fn write_frame(&mut self, pgno: Pgno, data: &[u8], size: usize) -> Result<()> {
        self.pages.push(&self.header, pgno)?;
        self.frame[..BLOCK_OFFSET].copy_from_slice(&block_frame_header(pgno, size as u32));
        self.hasher.update(&self.frame[..BLOCK_OFFSET]);
        self.hasher.update(data);
        let size = BLOCK_OFFSET + size;
        self.last = Some(IndexEntry { pgno, offset: self.index.next_offset(), size: size as u64 });
        self.index.push(pgno, size as u64);
        let frame = std::mem::take(&mut self.frame);
        let written = self.write(&frame[..size]);
        self.frame = frame;
        written
    }

    /// Where the page that was written last is in the file, and its frame; `None` once a block was made for another one.
    pub fn last_frame(&self) -> Option<(IndexEntry, &[u8])> {
        self.last.map(|entry| (entry, &self.frame[..entry.size as usize]))
    }

    /// Writes page index and trailer, and flushes.
    ///
    /// # Errors
    /// `Corrupt` if the file is a snapshot and misses a page; what writing says.
    pub fn finish(mut self) -> Result<(W, Summary)> {
        let pages = self.pages.finish(&self.header)?;
        let index_offset = self.index.next_offset() + END_OF_PAGES.len() as u64;
        let index = std::mem::replace(&mut self.index, IndexWriter::new(Shape::PLAIN)).finish();
        let size = index_offset + (index.len() + Trailer::SIZE) as u64;
        for part in [&END_OF_PAGES[..], &index] {
            self.hasher.update(part);
            self.write(part)?;
        }
        let post_apply_checksum = 0_u64;
        self.hasher.update(&post_apply_checksum.to_be_bytes());
        let trailer = Trailer { post_apply_checksum, file_checksum: self.hasher.checksum() };
        self.write(&trailer.encode())?;
        self.out.flush().map_err(|e| io_error("writing an LTX file", e))?;
        Ok((self.out, Summary { header: self.header, trailer, size, pages }))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        if self.failed {
            return Err(Error::new(ErrorKind::Io, "writing the LTX file failed before; write it anew"));
        }
        self.out.write_all(bytes).map_err(|e| {
            self.failed = true;
            io_error("writing an LTX file", e)
        })
    }
}

impl<W: Write> fmt::Debug for Encoder<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoder")
            .field("header", &self.header)
            .field("pages", &self.pages)
            .finish_non_exhaustive()
    }
}
