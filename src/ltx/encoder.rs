//! Writes an LTX file, page by page.

use std::fmt;
use std::io::Write;

use super::checksum::Hasher;
use super::file::PageSequence;
use super::frame::{BLOCK_OFFSET, END_OF_PAGES, FRAME_HEADER_SIZE, block_frame_header, check_buffer};
use super::index::{IndexEntry, IndexWriter};
use super::lz4::{self, Compressor};
use super::seal::{Cipher, NONCE, PackCipher, Seal, TAG};
use super::source::io_error;
use super::{Header, Summary, Trailer};
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
    /// What seals a sealed file, and what that has for its recipients.
    seal: Option<(Cipher, Vec<u8>)>,
    /// The page that was written last, as long as its frame is in `frame`.
    last: Option<IndexEntry>,
    /// A write failed: what `out` holds is unknown.
    failed: bool,
}

impl<W: Write> Encoder<W> {
    /// Writes the `header` of a file that is not sealed.
    ///
    /// # Errors
    /// `Corrupt` if the header is not valid or the database has no pages; `Unsupported` if it says that the file is
    /// sealed or keeps database checksums; what writing to `out` says.
    pub fn new(out: W, header: Header) -> Result<Self> {
        if header.is_sealed() {
            return Err(Error::new(ErrorKind::Unsupported, "a sealed LTX file is written with a seal"));
        }
        Self::begin(out, header, &header.encode(), None)
    }

    /// Writes header and recipients of the file that `seal` seals.
    ///
    /// # Errors
    /// As [`Encoder::new`].
    pub fn sealed(out: W, seal: Seal) -> Result<Self> {
        let (header, head, cipher) = seal.into_parts();
        let recipients = head[Header::SIZE..].to_vec();
        Self::begin(out, header, &head, Some((cipher, recipients)))
    }

    fn begin(out: W, header: Header, head: &[u8], seal: Option<(Cipher, Vec<u8>)>) -> Result<Self> {
        header.validate()?;
        if header.has_database_checksums() {
            let message = "LTX files with database checksums are read, not written";
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        if header.commit.last().is_none() {
            return Err(Error::corrupt("LTX header: a database has at least one page"));
        }
        let compressor = Compressor::new(header.page_size);
        let overhead = if seal.is_some() { NONCE + TAG } else { 0 };
        let frame = vec![0; BLOCK_OFFSET + overhead + compressor.max_output()];
        let mut encoder = Self {
            out,
            hasher: Hasher::new(),
            compressor,
            stored: false,
            frame,
            index: IndexWriter::new(header.shape()),
            pages: PageSequence::default(),
            seal,
            last: None,
            failed: false,
            header,
        };
        encoder.put(head)?;
        Ok(encoder)
    }

    /// The same, of a file that is soon read and removed: its pages are blocks of literals, which cost no more than a
    /// copy.
    #[must_use]
    pub fn stored(self) -> Self {
        Self { stored: true, ..self }
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// What seals the pack of the file, if that is sealed.
    ///
    /// # Errors
    /// `Io` if the system gives no random numbers.
    pub fn pack_cipher(&self) -> Result<Option<PackCipher>> {
        self.seal.as_ref().map(|(cipher, _)| cipher.new_pack()).transpose()
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
        let offset = self.block_offset();
        let block = &mut self.frame[offset..];
        let size = if self.stored { lz4::store(data, block) } else { self.compressor.compress(data, block) };
        Ok(&block[..size])
    }

    /// As [`Encoder::page`], of which `block` is the LZ4 block, as [`Encoder::block_of`] made it.
    ///
    /// # Errors
    /// As [`Encoder::page`]; `Corrupt` if the block is longer than any of a page.
    pub fn page_as(&mut self, pgno: Pgno, data: &[u8], block: &[u8]) -> Result<()> {
        check_buffer(data, self.header.page_size)?;
        let offset = self.block_offset();
        let end = offset + block.len();
        let room =
            if end + self.tag_size() <= self.frame.len() { self.frame.get_mut(offset..end) } else { None };
        room.ok_or_else(|| Error::corrupt("an LZ4 block is longer than any of a page"))?
            .copy_from_slice(block);
        self.write_frame(pgno, data, block.len())
    }

    /// Where the LZ4 block of a page is in its frame.
    const fn block_offset(&self) -> usize {
        if self.seal.is_some() { BLOCK_OFFSET + NONCE } else { BLOCK_OFFSET }
    }

    /// What follows the LZ4 block.
    const fn tag_size(&self) -> usize {
        if self.seal.is_some() { TAG } else { 0 }
    }

    /// Writes the frame of page `pgno`, whose block of `size` bytes is in its place.
    fn write_frame(&mut self, pgno: Pgno, data: &[u8], size: usize) -> Result<()> {
        self.pages.push(&self.header, pgno)?;
        let end = self.block_offset() + size + self.tag_size();
        let head = block_frame_header(pgno, (end - BLOCK_OFFSET) as u32);
        self.frame[..BLOCK_OFFSET].copy_from_slice(&head);
        if let Some((cipher, _)) = &self.seal {
            let head = head.first_chunk::<FRAME_HEADER_SIZE>().expect("BUG: the head has its size");
            cipher.seal(head, &mut self.frame[BLOCK_OFFSET..end])?;
            self.hasher.update(&self.frame[..end]);
        } else {
            self.hasher.update(&head);
            self.hasher.update(data);
        }
        self.last = Some(IndexEntry { pgno, offset: self.index.next_offset(), size: end as u64 });
        self.index.push(pgno, end as u64);
        let frame = std::mem::take(&mut self.frame);
        let written = self.write(&frame[..end]);
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
    /// `Corrupt` if the file is a snapshot and misses a page, or is sealed and has none; what writing says.
    pub fn finish(mut self) -> Result<(W, Summary)> {
        let pages = self.pages.finish(&self.header)?;
        let seal = self.seal.take();
        if seal.is_some() && self.index.next_offset() == self.header.shape().first_frame() {
            return Err(Error::corrupt("a sealed LTX file has at least one page"));
        }
        let index_offset = self.index.next_offset() + END_OF_PAGES.len() as u64;
        let index = std::mem::replace(&mut self.index, IndexWriter::new(self.header.shape())).finish();
        let size = index_offset + index.len() as u64 + self.header.shape().after_index();
        self.put(&END_OF_PAGES)?;
        self.put(&index)?;
        if let Some((cipher, recipients)) = seal {
            self.put(&cipher.index_tag(&index))?;
            self.put(&recipients)?;
        }
        let post_apply_checksum = 0_u64;
        self.hasher.update(&post_apply_checksum.to_be_bytes());
        let trailer = Trailer { post_apply_checksum, file_checksum: self.hasher.checksum() };
        self.write(&trailer.encode())?;
        self.out.flush().map_err(|e| io_error("writing an LTX file", e))?;
        Ok((self.out, Summary { header: self.header, trailer, size, pages }))
    }

    /// Writes what the file checksum covers as it is.
    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.hasher.update(bytes);
        self.write(bytes)
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
