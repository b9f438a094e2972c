//! Reads an LTX file, page by page, and verifies it.

use std::fmt;
use std::io::Read;

use aws_lc_rs::digest::{self, SHA256};

use super::bytes::u64_at;
use super::checksum::{DatabaseChecksum, Hasher};
use super::file::PageSequence;
use super::frame::{END_OF_PAGES, FRAME_SIZES, check_buffer};
use super::index::{self, ExpectedIndex, SIZE_FIELD};
use super::seal::{ContentKey, ENTRY, SealHasher, SealId, TAG};
use super::source::{Source, Stream};
use super::{
    FrameCodec, Frames, FramesSum, Header, Keyring, PartChecksum, PartHasher, Shape, Summary, Trailer,
};
use crate::error::{Error, ErrorKind, Result};
use crate::page::Pgno;

/// Bytes of a file that are taken at once where no structure says how many.
const CHUNK: usize = 8 * 1024;

/// Reads an LTX file from `R`, page by page, in constant memory but for the page index of a sealed file.
///
/// Pages come before the checksum that covers them: what was read is not to be trusted before
/// [`Decoder::finish`] says so.
pub struct Decoder<R: Read> {
    stream: Stream<R>,
    header: Header,
    codec: FrameCodec,
    /// What was joined of the file's beginning, apart from what `hasher` has.
    joined: PartChecksum,
    hasher: PartHasher,
    pages: PageSequence,
    index: ExpectedIndex,
    /// SHA-256 of what a sealed file has for its recipients.
    recipients: Option<digest::Digest>,
    /// Only of a snapshot that keeps checksums: of other files the database is not known.
    database: Option<DatabaseChecksum>,
    state: State,
    /// What is wrong behind the frames that were cut last.
    behind: Option<Error>,
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

/// What precedes the pages.
struct Beginning<R: Read> {
    stream: Stream<R>,
    hasher: PartHasher,
    bytes: [u8; Header::SIZE],
    header: Header,
}

impl<R: Read> Beginning<R> {
    fn read(reader: R) -> Result<Self> {
        let mut stream = Stream::new(reader);
        let mut hasher = PartHasher::default();
        let bytes: [u8; Header::SIZE] =
            stream.take(Header::SIZE)?.try_into().expect("BUG: the header's size was taken");
        hasher.update(&bytes);
        Ok(Self { stream, hasher, header: Header::decode(&bytes)?, bytes })
    }

    /// Shows `take` what a sealed file has for each recipient; gives the hash of all of it.
    fn recipients(&mut self, mut take: impl FnMut(&[u8; ENTRY])) -> Result<Option<digest::Digest>> {
        if !self.header.is_sealed() {
            return Ok(None);
        }
        let mut hash = digest::Context::new(&SHA256);
        for _ in 0..self.header.recipients {
            let entry: &[u8; ENTRY] =
                self.stream.take(ENTRY)?.try_into().expect("BUG: the size of an entry was taken");
            self.hasher.update(entry);
            hash.update(entry);
            take(entry);
        }
        Ok(Some(hash.finish()))
    }

    fn opened(mut self, keyring: &Keyring) -> Result<Decoder<R>> {
        if !self.header.is_sealed() {
            let codec = keyring.plain_codec(&self.header)?;
            return Ok(self.decoder(codec, None));
        }
        let mut opener = keyring.opener()?;
        let recipients = self.recipients(|entry| opener.entry(entry))?;
        let codec = opener.finish(&self.header, &self.bytes)?;
        Ok(self.decoder(codec, recipients))
    }

    fn kept(mut self, find: impl FnOnce(&SealId) -> Option<ContentKey>) -> Result<Decoder<R>> {
        if !self.header.is_sealed() {
            return Err(Error::new(ErrorKind::Denied, "it is not sealed, and must be"));
        }
        let mut id = SealHasher::new(&self.bytes);
        let recipients = self.recipients(|entry| id.entry(entry))?;
        let key = find(&id.finish());
        let key =
            key.ok_or_else(|| Error::new(ErrorKind::Denied, "none of the keys that are kept opens it"))?;
        let codec = FrameCodec::by_content_key(&self.header, &self.bytes, &key);
        Ok(self.decoder(codec, recipients))
    }

    fn decoder(self, codec: FrameCodec, recipients: Option<digest::Digest>) -> Decoder<R> {
        let Self { stream, hasher, header, .. } = self;
        let tracked = header.is_snapshot() && header.has_database_checksums() && codec.decodes();
        Decoder {
            stream,
            header,
            codec,
            joined: PartChecksum::EMPTY,
            hasher,
            pages: PageSequence::default(),
            index: ExpectedIndex::new(header.shape()),
            recipients,
            database: tracked.then_some(DatabaseChecksum::EMPTY),
            state: State::Pages,
            behind: None,
        }
    }
}

impl<R: Read> Decoder<R> {
    /// Reads the header of a file that is not sealed.
    ///
    /// # Errors
    /// `Corrupt` or `Unsupported` if it is not that of an LTX file of format version 3; what reading
    /// says.
    pub fn new(reader: R) -> Result<Self> {
        let beginning = Beginning::read(reader)?;
        if beginning.header.is_sealed() {
            return Err(Error::new(ErrorKind::Unsupported, "the LTX file is sealed, and must not be here"));
        }
        let codec = FrameCodec::plain(beginning.header.page_size);
        Ok(beginning.decoder(codec, None))
    }

    /// Reads the header of a file of a replica that is read with `keyring`, and finds what opens it.
    ///
    /// # Errors
    /// `Corrupt` or `Unsupported` if it is not that of an LTX file; `Denied` if nothing opens it, or if it is not sealed
    /// where it must be; what reading says.
    pub fn open(reader: R, keyring: &Keyring) -> Result<Self> {
        Beginning::read(reader)?.opened(keyring)
    }

    /// Reads the header of a sealed file that was written here, whose content key `find` gives.
    ///
    /// # Errors
    /// `Corrupt` or `Unsupported` if it is not that of an LTX file; `Denied` if it is not sealed, or there is no such key;
    /// what reading says.
    pub fn kept(reader: R, find: impl FnOnce(&SealId) -> Option<ContentKey>) -> Result<Self> {
        Beginning::read(reader)?.kept(find)
    }

    /// As [`Decoder::open`], to verify the file: a sealed one for which there is no identity is read as well, though
    /// without its content. [`Decoder::has_content`] tells.
    ///
    /// # Errors
    /// As [`Decoder::open`]; `Denied` only if there are identities.
    pub fn verifying(reader: R, keyring: &Keyring) -> Result<Self> {
        let mut beginning = Beginning::read(reader)?;
        if !beginning.header.is_sealed() || !keyring.identities().is_empty() {
            return beginning.opened(keyring);
        }
        let recipients = beginning.recipients(|_| ())?;
        let codec = FrameCodec::closed(&beginning.header);
        Ok(beginning.decoder(codec, recipients))
    }

    /// Whether pages are decoded. Without it only the bytes of the file are verified, and buffers stay as they are.
    pub fn has_content(&self) -> bool {
        self.codec.decodes()
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
        let Some(pgno) = self.codec.read(&mut self.stream, buf, |bytes| hasher.update(bytes))? else {
            return Ok(None);
        };
        self.pages.push(&self.header, pgno)?;
        self.index.push(pgno, self.stream.position() - offset);
        if let Some(database) = &mut self.database {
            database.add(pgno, buf);
        }
        Ok(Some(pgno))
    }

    /// Cuts off the next frames, about `most` bytes of them, to be decoded elsewhere; `None` after the last one. What
    /// comes of them is to be given to [`Decoder::join`], in their order. The next ones are collected in `buffer`.
    ///
    /// Frames in front of what is damaged come first, and then its error, as [`Decoder::next_page`] would find them.
    ///
    /// # Errors
    /// As [`Decoder::next_page`].
    pub fn next_frames(&mut self, most: usize, buffer: Vec<u8>) -> Result<Option<Frames>> {
        if let Some(behind) = self.behind.take() {
            return Err(behind);
        }
        match self.state {
            State::Pages => {}
            State::Tail => return Ok(None),
            State::Failed => return Err(failed_before()),
        }
        self.state = State::Failed;
        if self.joined == PartChecksum::EMPTY {
            self.joined = std::mem::take(&mut self.hasher).finish();
        }
        let (len, found) = self.look_ahead(most);
        match found {
            Ok(()) => self.state = State::Pages,
            Err(e) if len == 0 => return Err(e),
            Err(e) => self.behind = Some(e),
        }
        if len == 0 {
            let end = self.stream.take(END_OF_PAGES.len())?;
            self.hasher.update(end);
            self.state = State::Tail;
            return Ok(None);
        }
        let cut = self.stream.cut(len, buffer, most + *FRAME_SIZES.end() as usize);
        Ok(Some(Frames::new(self.codec.clone(), cut, self.database.is_some())))
    }

    /// The size of the frames ahead, at least `most` unless the page block ends before, and what is wrong behind them. Where
    /// each of them belongs has been checked.
    fn look_ahead(&mut self, most: usize) -> (usize, Result<()>) {
        let mut page = vec![0; self.header.page_size.bytes()];
        let mut len = 0;
        while len < most {
            let mut ahead = self.stream.ahead(len);
            let pgno = match self.codec.skip(&mut ahead, &mut page) {
                Ok(Some(pgno)) => pgno,
                Ok(None) => break,
                Err(e) => return (len, Err(e)),
            };
            let end = ahead.seen();
            if let Err(e) = self.pages.push(&self.header, pgno) {
                // Its content is looked at first, wherever it is done.
                let content = self.codec.read(&mut self.stream.ahead(len), &mut page, |_| ());
                return (len, content.and(Err(e)));
            }
            self.index.push(pgno, (end - len) as u64);
            len = end;
        }
        (len, Ok(()))
    }

    /// Takes what came of the next frames that [`Decoder::next_frames`] cut off.
    pub fn join(&mut self, sum: FramesSum) {
        self.joined = self.joined.then(sum.part);
        if let Some(database) = &mut self.database {
            database.join(sum.database);
        }
    }

    /// Reads what is left and verifies the whole: that a snapshot has all pages, the page index
    /// agrees with the pages and is the one of a sealed file, the checksums hold, and nothing follows.
    ///
    /// # Errors
    /// `Corrupt`; what reading says; any error if an earlier call returned one.
    pub fn finish(mut self) -> Result<Summary> {
        if self.state != State::Tail {
            let mut page = vec![0; self.header.page_size.bytes()];
            while self.next_page(&mut page)?.is_some() {}
        }
        let pages = self.pages.finish(&self.header)?;
        if pages == 0 && self.codec.is_sealed() {
            // Nothing would prove the header.
            return Err(Error::corrupt("a sealed LTX file has at least one page"));
        }
        self.read_index()?;
        let trailer = self.read_trailer()?;
        if !self.stream.is_at_end()? {
            return Err(Error::corrupt("bytes follow the end of the LTX file"));
        }
        Ok(Summary { size: self.stream.position(), header: self.header, trailer, pages })
    }

    fn read_index(&mut self) -> Result<()> {
        let (size, expected) = std::mem::replace(&mut self.index, ExpectedIndex::new(Shape::PLAIN)).finish();
        let mut crc = Hasher::new();
        // As large as the pages that were read make it, and only of a sealed file: the tag covers all of it at once.
        let mut whole = Vec::new();
        let mut left = size;
        while left > 0 {
            let bytes = self.stream.take(left.min(CHUNK as u64) as usize)?;
            crc.update(bytes);
            self.hasher.update(bytes);
            left -= bytes.len() as u64;
            if self.codec.is_sealed() {
                whole.extend_from_slice(bytes);
            }
        }
        let field = self.stream.take(SIZE_FIELD)?;
        self.hasher.update(field);
        if crc.crc() != expected || u64_at(field, 0) != size {
            return Err(index::broken("it does not agree with the pages of the file"));
        }
        if self.codec.is_sealed() {
            whole.extend_from_slice(field);
            self.read_seal(&whole)?;
        }
        Ok(())
    }

    /// Reads what proves `index`, and what the recipients have once more.
    fn read_seal(&mut self, index: &[u8]) -> Result<()> {
        let tag: &[u8; TAG] = self.stream.take(TAG)?.try_into().expect("BUG: the size of a tag was taken");
        self.hasher.update(tag);
        self.codec.check_index(index, tag)?;
        let mut hash = digest::Context::new(&SHA256);
        for _ in 0..self.header.recipients {
            let entry = self.stream.take(ENTRY)?;
            self.hasher.update(entry);
            hash.update(entry);
        }
        let first = self.recipients.as_ref().map(digest::Digest::as_ref);
        if first != Some(hash.finish().as_ref()) {
            return Err(recipients_differ());
        }
        Ok(())
    }

    fn read_trailer(&mut self) -> Result<Trailer> {
        let bytes: &[u8; Trailer::SIZE] =
            self.stream.take(Trailer::SIZE)?.try_into().expect("BUG: the trailer's size was taken");
        self.hasher.update(&bytes[..8]);
        let trailer = Trailer::decode(bytes, &self.header)?;
        let all = self.joined.then(std::mem::take(&mut self.hasher).finish());
        if trailer.file_checksum != all.of_file() {
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

/// The two places that say who may open the file do not agree.
pub(super) fn recipients_differ() -> Error {
    Error::corrupt("the LTX file names other recipients at its end than at its beginning")
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
