//! Reads an LTX file, page by page, and verifies it.

use std::fmt;
use std::io::Read;

use super::bytes::u64_at;
use super::checksum::{DatabaseChecksum, Hasher};
use super::file::PageSequence;
use super::frame::{check_buffer, read_frame};
use super::index::{self, ExpectedIndex, SIZE_FIELD};
use super::source::{Source, Stream};
use super::{Header, Summary, Trailer};
use crate::error::{Error, Result};
use crate::page::Pgno;

/// Reads an LTX file from `R`, page by page, in constant memory.
///
/// Pages come before the checksum that covers them: what was read is not to be trusted before
/// [`Decoder::finish`] says so.
pub struct Decoder<R: Read> {
    stream: Stream<R>,
    header: Header,
    hasher: Hasher,
    pages: PageSequence,
    index: ExpectedIndex,
    /// Only of a snapshot that keeps checksums: of other files the database is not known.
    database: Option<DatabaseChecksum>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Within the page block.
    Pages,
    /// Behind the page block.
    Tail,
    /// An error was returned: where the stream stands is unknown.
    Failed,
}

impl<R: Read> Decoder<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// `Corrupt` or `Unsupported` if it is not that of an LTX file of format version 3; what reading
    /// says.
    pub fn new(reader: R) -> Result<Self> {
        let mut stream = Stream::new(reader);
        let mut hasher = Hasher::new();
        let bytes = stream.take(Header::SIZE)?;
        hasher.update(bytes);
        let header = Header::decode(bytes.try_into().expect("BUG: the header's size was taken"))?;
        let tracked = header.is_snapshot() && header.has_database_checksums();
        Ok(Self {
            stream,
            header,
            hasher,
            pages: PageSequence::default(),
            index: ExpectedIndex::new(),
            database: tracked.then_some(DatabaseChecksum::EMPTY),
            state: State::Pages,
        })
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Reads the next page into `buf`, which has the page size; `None` after the last one.
    ///
    /// # Errors
    /// `Corrupt`; what reading says. After an error there are no more pages.
    pub fn next_page(&mut self, buf: &mut [u8]) -> Result<Option<Pgno>> {
        check_buffer(buf, self.header.page_size)?;
        match self.state {
            State::Pages => {}
            State::Tail => return Ok(None),
            State::Failed => return Err(failed_before()),
        }
        self.state = State::Failed;
        let page = self.read_page(buf)?;
        self.state = if page.is_some() { State::Pages } else { State::Tail };
        Ok(page)
    }

    fn read_page(&mut self, buf: &mut [u8]) -> Result<Option<Pgno>> {
        let offset = self.stream.position();
        let hasher = &mut self.hasher;
        let Some(pgno) = read_frame(&mut self.stream, buf, |bytes| hasher.update(bytes))? else {
            return Ok(None);
        };
        self.pages.push(&self.header, pgno)?;
        self.index.push(pgno, self.stream.position() - offset);
        if let Some(database) = &mut self.database {
            database.add(pgno, buf);
        }
        Ok(Some(pgno))
    }

    /// Reads what is left and verifies the whole: that a snapshot has all pages, the page index
    /// agrees with the pages, the checksums hold, and nothing follows.
    ///
    /// # Errors
    /// `Corrupt`; what reading says; any error if an earlier call returned one.
    pub fn finish(mut self) -> Result<Summary> {
        if self.state != State::Tail {
            let mut page = vec![0; self.header.page_size.bytes()];
            while self.next_page(&mut page)?.is_some() {}
        }
        let pages = self.pages.finish(&self.header)?;
        self.read_index()?;
        let trailer = self.read_trailer()?;
        if !self.stream.is_at_end()? {
            return Err(Error::corrupt("bytes follow the end of the LTX file"));
        }
        Ok(Summary { size: self.stream.position(), header: self.header, trailer, pages })
    }

    fn read_index(&mut self) -> Result<()> {
        const CHUNK: u64 = 8 * 1024;
        let (size, expected) = std::mem::replace(&mut self.index, ExpectedIndex::new()).finish();
        let mut crc = Hasher::new();
        let mut left = size;
        while left > 0 {
            let bytes = self.stream.take(left.min(CHUNK) as usize)?;
            crc.update(bytes);
            self.hasher.update(bytes);
            left -= bytes.len() as u64;
        }
        let field = self.stream.take(SIZE_FIELD)?;
        self.hasher.update(field);
        if crc.crc() != expected || u64_at(field, 0) != size {
            return Err(index::broken("it does not agree with the pages of the file"));
        }
        Ok(())
    }

    fn read_trailer(&mut self) -> Result<Trailer> {
        let bytes: &[u8; Trailer::SIZE] =
            self.stream.take(Trailer::SIZE)?.try_into().expect("BUG: the trailer's size was taken");
        self.hasher.update(&bytes[..8]);
        let trailer = Trailer::decode(bytes, &self.header)?;
        if trailer.file_checksum != self.hasher.checksum() {
            return Err(Error::corrupt("the LTX file fails its checksum"));
        }
        match self.database {
            Some(database) if database.get() != trailer.post_apply_checksum => {
                Err(Error::corrupt("the database in the LTX snapshot fails its checksum"))
            }
            _ => Ok(trailer),
        }
    }
}

fn failed_before() -> Error {
    Error::corrupt("the LTX file could not be read to its end")
}

impl<R: Read> fmt::Debug for Decoder<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder")
            .field("header", &self.header)
            .field("pages", &self.pages)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}
