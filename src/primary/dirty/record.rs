//! What is kept of a generation of the WAL that ends, and of one that begins.
//!
//! A record is made before the commit that it makes way for can be seen, so that a record which is missing is missing
//! for good.

use crc_fast::CrcAlgorithm;

use crate::page::{PageCount, PageSize};
use crate::primary::dirty::Position;
use crate::primary::file_fingerprint::Stamp;
use crate::primary::page_set::PageSet;
use crate::wal::{Checksum, FrameNo, IndexHeader, Salts};

/// What is kept of a generation.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::primary) enum Record {
    /// It ends, unless its writers go on with it.
    End(End),
    /// The next one begins.
    Begin(Begin),
}

/// The end of a generation. It is the true one only if the generation that follows begins at its last commit:
/// whoever wrote this may have left the WAL as it was, and others may have gone on with it.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::primary) struct End {
    /// The header of the index. Without frames only if this is a close.
    pub(in crate::primary) index: IndexHeader,
    /// The pages of all its frames.
    pub(in crate::primary) pages: PageSet,
    /// The publisher's positions in this generation: the frames, and the checksums that they had in the WAL now.
    pub(in crate::primary) seen: Vec<(FrameNo, Checksum)>,
    /// The pages of the frames after the first of those: all that was changed after any of them.
    pub(in crate::primary) recent: PageSet,
    /// The stamp of the database file, if this is the close of the last connection, which deletes the WAL.
    pub(in crate::primary) closed: Option<Stamp>,
}

/// The beginning of a generation.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::primary) struct Begin {
    /// The salts of the generation.
    pub(in crate::primary) salts: Salts,
    /// The header of the index just before: it has no frames, but the checksum and the change counter of the last
    /// commit.
    pub(in crate::primary) before: IndexHeader,
    /// The stamp of the database file then.
    pub(in crate::primary) file: Option<Stamp>,
}

impl End {
    /// Its last commit.
    pub(in crate::primary) const fn position(&self) -> Position {
        Position::end_of(&self.index)
    }
}

/// What precedes the body of a record: its length and its checksum.
const HEAD: usize = 12;
/// A record is not longer than this: 512 MB is a set of all pages there can be, and a little.
const MAX_BODY: usize = 0x2100_0000;

const END: u8 = 1;
const BEGIN: u8 = 2;

/// The form of a record in a file; integers are big-endian.
///
/// ```text
///  0  length    u32  of the body
///  4  checksum  u64  CRC-64/NVME of the body
/// 12  body
///
/// body of an end                          body of a beginning
///  0  kind    u8   1                       0  kind    u8   2
///  1  index   32 bytes, below              1  salts   2 x u32
/// 33  closed  1 byte, or 41, below         9  before  32 bytes, as the index of an end
///  .  seen    u32  how many               41  file    1 byte, or 41, as `closed` of an end
///  .          count x 12 bytes:  
///             frame u32, checksum 2 x u32
///  .  recent  u32  length, and as many bytes: a Roaring bitmap
///  .  pages   the rest: a Roaring bitmap, which lists pages where they are
///             few, and has one bit for each where they are many
///
/// index                                   closed, file
///  0  salts       2 x u32                  0  known     u8   0: nothing follows; 1
///  8  last frame  u32                      1  device    u64
/// 12  checksum    2 x u32                  9  inode     u64
/// 20  change      u32                     17  size      u64
/// 24  page size   u32  0: not known       25  modified  i64  seconds, i64 nanoseconds
/// 28  page count  u32
/// ```
impl Record {
    /// Appends the record to `bytes`.
    pub(in crate::primary) fn encode(&self, bytes: &mut Vec<u8>) {
        let from = bytes.len();
        bytes.resize(from + HEAD, 0);
        match self {
            Self::End(end) => {
                bytes.push(END);
                put_index(bytes, &end.index);
                put_stamp(bytes, end.closed);
                put(bytes, [end.seen.len() as u32]);
                for (frame, checksum) in &end.seen {
                    put(bytes, [frame.0, checksum.0, checksum.1]);
                }
                let recent = end.recent.encode();
                put(bytes, [recent.len() as u32]);
                bytes.extend(recent);
                bytes.extend(end.pages.encode());
            }
            Self::Begin(begin) => {
                bytes.push(BEGIN);
                put(bytes, [begin.salts.0, begin.salts.1]);
                put_index(bytes, &begin.before);
                put_stamp(bytes, begin.file);
            }
        }
        let body = &bytes[from + HEAD..];
        let (length, checksum) = (body.len() as u32, crc_fast::checksum(CrcAlgorithm::Crc64Nvme, body));
        bytes[from..from + 4].copy_from_slice(&length.to_be_bytes());
        bytes[from + 4..from + HEAD].copy_from_slice(&checksum.to_be_bytes());
    }

    /// Takes the record with which `bytes` begin. `None` if they are no whole record.
    pub(in crate::primary) fn decode(bytes: &mut &[u8]) -> Option<Self> {
        let mut rest = Bytes(bytes);
        let length = rest.word()? as usize;
        let checksum = rest.long()?;
        let body = rest.take(Some(length).filter(|length| *length <= MAX_BODY)?)?;
        if crc_fast::checksum(CrcAlgorithm::Crc64Nvme, body) != checksum {
            return None;
        }
        let record = Self::decode_body(Bytes(body))?;
        *bytes = rest.0;
        Some(record)
    }

    fn decode_body(mut body: Bytes<'_>) -> Option<Self> {
        match body.take(1)? {
            [END] => {
                let (index, closed) = (body.index()?, body.stamp()?);
                let mut seen = Vec::new();
                for _ in 0..body.word()? {
                    seen.push((FrameNo(body.word()?), Checksum(body.word()?, body.word()?)));
                }
                let length = body.word()? as usize;
                let recent = PageSet::decode(body.take(length)?).ok()?;
                let pages = PageSet::decode(body.0).ok()?;
                Some(Self::End(End { index, pages, seen, recent, closed }))
            }
            [BEGIN] => {
                let salts = Salts(body.word()?, body.word()?);
                Some(Self::Begin(Begin { salts, before: body.index()?, file: body.stamp()? }))
            }
            _ => None,
        }
    }
}

fn put<const N: usize>(bytes: &mut Vec<u8>, words: [u32; N]) {
    words.iter().for_each(|word| bytes.extend(word.to_be_bytes()));
}

fn put_index(bytes: &mut Vec<u8>, index: &IndexHeader) {
    let IndexHeader { change, page_size, mx_frame, page_count, frame_checksum, salts } = *index;
    put(bytes, [salts.0, salts.1, mx_frame.0, frame_checksum.0, frame_checksum.1, change]);
    put(bytes, [page_size.map_or(0, PageSize::get), page_count.get()]);
}

fn put_stamp(bytes: &mut Vec<u8>, stamp: Option<Stamp>) {
    bytes.push(u8::from(stamp.is_some()));
    let words = stamp.map(Stamp::to_words).into_iter().flatten();
    words.for_each(|word| bytes.extend(word.to_be_bytes()));
}

/// The bytes that are still to be read.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }

    fn word(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_be_bytes)
    }

    fn long(&mut self) -> Option<u64> {
        self.take(8)?.try_into().ok().map(u64::from_be_bytes)
    }

    fn index(&mut self) -> Option<IndexHeader> {
        Some(IndexHeader {
            salts: Salts(self.word()?, self.word()?),
            mx_frame: FrameNo(self.word()?),
            frame_checksum: Checksum(self.word()?, self.word()?),
            change: self.word()?,
            page_size: match self.word()? {
                0 => None,
                size => Some(PageSize::new(size).ok()?),
            },
            page_count: PageCount::new(self.word()?),
        })
    }

    /// A stamp, which may be unknown.
    #[expect(clippy::option_option, reason = "the outer one is an end of the bytes")]
    fn stamp(&mut self) -> Option<Option<Stamp>> {
        match self.take(1)? {
            [0] => Some(None),
            [1] => {
                let words = [self.long()?, self.long()?, self.long()?, self.long()?, self.long()?];
                Some(Some(Stamp::from_words(words)))
            }
            _ => None,
        }
    }
}
