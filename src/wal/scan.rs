//! Reading committed frames back from the WAL file.
//!
//! What SQLite writes is not what it commits: cache spills, rolled back savepoints and commits whose
//! sync failed leave frames behind. The WAL index says what is committed; the frames themselves are
//! read back here, and every one of them must continue the checksum chain up to the checksum that
//! the index gives. Frames that SQLite left unsealed (see [`FrameHeader::is_unsealed`]) are taken on the
//! word of the index alone.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::error::{Error, Result};
use crate::page::{PageCount, PageSize, Pgno};
use crate::wal::checksum::Checksum;
use crate::wal::frame::{FrameHeader, FrameNo};
use crate::wal::header::{Salts, WalHeader};
use crate::wal::index::IndexHeader;

/// How much of the WAL is read at once, at least one frame. More would be memory of its own for each scan
/// (`sqlite::memory`), which costs more than the calls that it saves.
const READ_BYTES: usize = 64 * 1024;

/// A point in one generation of the WAL: everything up to and including `frame` is done with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The generation.
    pub salts: Salts,
    /// The last frame that is done with.
    pub frame: FrameNo,
    /// The checksum of that frame, or of the WAL header for frame 0.
    pub checksum: Checksum,
}

impl Position {
    /// The start of the generation that `header` begins.
    pub const fn start_of(header: &WalHeader) -> Self {
        Self { salts: header.salts, frame: FrameNo::ZERO, checksum: header.checksum }
    }

    /// The last frame that `index` says is committed. Not for an empty WAL.
    pub const fn end_of(index: &IndexHeader) -> Self {
        Self { salts: index.salts, frame: index.mx_frame, checksum: index.frame_checksum }
    }
}

/// Up to where the WAL is committed.
#[derive(Clone, Copy, Debug)]
pub enum End {
    /// As the WAL index says.
    Index(IndexHeader),
    /// Up to the last commit frame of the unbroken chain: all that is known when the connection
    /// keeps the index in private memory (`locking_mode=EXCLUSIVE`).
    LastCommit,
}

/// The committed frames between a position and an end.
#[derive(Clone, Debug)]
pub struct Committed {
    /// The page size of the WAL.
    pub page_size: PageSize,
    /// Where the frames start.
    pub from: Position,
    /// The position after them.
    pub to: Position,
    /// The size of the database after the last commit.
    pub commit: PageCount,
    /// The last frame of each page, for pages that the database still has.
    pub pages: BTreeMap<Pgno, FrameNo>,
}

/// What a scan found.
#[derive(Clone, Debug)]
pub enum Scan {
    /// Nothing was committed after the position.
    Nothing,
    /// These frames were.
    Committed(Committed),
    /// The file holds another generation than the position's: the frames are gone.
    OtherGeneration,
}

/// Reads what was committed in `wal` after `from`, up to `end`.
///
/// # Errors
/// `Corrupt` if a frame that must be committed breaks the checksum chain; `Io`.
pub fn scan(wal: &File, from: Position, end: End) -> Result<Scan> {
    let Some(header) = read_header(wal)? else { return Ok(Scan::OtherGeneration) };
    let same = header.salts == from.salts && (from.frame > FrameNo::ZERO || header.checksum == from.checksum);
    if !same {
        return Ok(Scan::OtherGeneration);
    }
    let last = match end {
        End::Index(index) if index.salts != from.salts => return Ok(Scan::OtherGeneration),
        End::Index(index) if index.mx_frame < from.frame => return Ok(Scan::OtherGeneration),
        End::Index(index) if index.mx_frame == from.frame => return Ok(Scan::Nothing),
        End::Index(index) => Some(index.mx_frame),
        End::LastCommit => None,
    };
    let mut chain = Chain::new(header, from, last.is_some());
    chain.read_to(wal, last)?;
    chain.finish(end)
}

/// Whether `wal` holds the very frame that `position` speaks of (for frame 0: that header).
///
/// Salts are random and checksums cover all that comes before, so an equal frame has an equal past.
///
/// # Errors
/// `Io`.
pub fn holds(wal: &File, position: Position) -> Result<bool> {
    let Some(header) = read_header(wal)? else { return Ok(false) };
    if header.salts != position.salts {
        return Ok(false);
    }
    if position.frame == FrameNo::ZERO {
        return Ok(header.checksum == position.checksum);
    }
    let mut bytes = [0; FrameHeader::SIZE];
    let offset = position.frame.page_offset(header.page_size) - FrameHeader::SIZE as u64;
    if read_up_to(wal, &mut bytes, offset)? < bytes.len() {
        return Ok(false);
    }
    let frame = FrameHeader::decode(&bytes);
    Ok(frame.salts == position.salts && frame.checksum == position.checksum)
}

/// The header of `wal`, or `None` if the file has no valid one.
///
/// # Errors
/// `Io`.
pub fn read_header(wal: &File) -> Result<Option<WalHeader>> {
    let mut bytes = [0; WalHeader::SIZE];
    match wal.read_exact_at(&mut bytes, 0) {
        Ok(()) => Ok(WalHeader::decode(&bytes).ok()),
        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => Ok(None),
        Err(e) => Err(Error::io("cannot read the WAL", e)),
    }
}

/// A walk along the checksum chain.
struct Chain {
    header: WalHeader,
    from: Position,
    /// The last frame that continued the chain.
    at: Position,
    /// The index vouches for every frame that is read.
    vouched: bool,
    /// The last frame was unsealed: the chain goes on from a checksum that is in no frame.
    unsealed: bool,
    /// Pages of frames after the last commit frame: they count only once one follows.
    open: Vec<(Pgno, FrameNo)>,
    pages: BTreeMap<Pgno, FrameNo>,
    /// The last commit frame: the position after it, and the size of the database.
    commit: Option<(Position, PageCount)>,
}

impl Chain {
    fn new(header: WalHeader, from: Position, vouched: bool) -> Self {
        Self {
            header,
            from,
            at: from,
            vouched,
            unsealed: false,
            open: Vec::new(),
            pages: BTreeMap::new(),
            commit: None,
        }
    }

    /// Follows the chain to frame `last`, or to where it breaks.
    fn read_to(&mut self, wal: &File, last: Option<FrameNo>) -> Result<()> {
        let frame_size = FrameHeader::frame_size(self.header.page_size);
        let batch = (READ_BYTES / frame_size).max(1);
        let wanted = last.map_or(usize::MAX, |last| (last.0 - self.at.frame.0) as usize);
        let mut buf = vec![0; frame_size * batch.min(wanted)];
        let mut left = wanted;
        while left > 0 {
            let len = frame_size * batch.min(left);
            let got = read_up_to(wal, &mut buf[..len], self.at.frame.end_offset(self.header.page_size))?;
            let frames = got / frame_size;
            for frame in buf[..frames * frame_size].chunks_exact(frame_size) {
                if !self.follow(frame) {
                    return Ok(());
                }
            }
            if frames * frame_size < len {
                return Ok(());
            }
            left -= frames;
        }
        Ok(())
    }

    /// Takes one frame; `false` if it does not continue the chain.
    fn follow(&mut self, frame: &[u8]) -> bool {
        let Some((head, page)) = frame.split_first_chunk::<{ FrameHeader::SIZE }>() else { return false };
        let header = FrameHeader::decode(head);
        let Some(pgno) = header.pgno else { return false };
        if self.vouched && FrameHeader::is_unsealed(head) {
            self.unsealed = true;
        } else {
            let expected = FrameHeader::expected_checksum(self.at.checksum, self.header.order, head, page);
            // After unsealed frames the last checksum, which the index has, must bear this one out.
            if header.salts != self.at.salts || !(header.checksum == expected || self.unsealed) {
                return false;
            }
            self.unsealed = false;
            self.at.checksum = header.checksum;
        }
        self.at.frame = self.at.frame.next();
        self.open.push((pgno, self.at.frame));
        if let Some(commit) = header.commit {
            self.pages.extend(self.open.drain(..));
            self.commit = Some((self.at, commit));
        }
        true
    }

    fn finish(mut self, end: End) -> Result<Scan> {
        let Some((mut to, commit)) = self.commit else {
            return match end {
                End::LastCommit => Ok(Scan::Nothing),
                End::Index(index) => Err(self.broken(&index)),
            };
        };
        if let End::Index(index) = end
            && self.unsealed
        {
            to.checksum = index.frame_checksum;
        }
        if let End::Index(index) = end
            && (to.frame != index.mx_frame || to.checksum != index.frame_checksum)
        {
            return Err(self.broken(&index));
        }
        self.pages.retain(|pgno, _| commit.contains(*pgno));
        let page_size = self.header.page_size;
        Ok(Scan::Committed(Committed { page_size, from: self.from, to, commit, pages: self.pages }))
    }

    fn broken(&self, index: &IndexHeader) -> Error {
        Error::corrupt(format!(
            "the WAL's checksum chain ends at frame {}, but its index says that frame {} is committed",
            self.at.frame, index.mx_frame
        ))
    }
}

/// Reads until `buf` is full or the file ends; returns the number of bytes.
fn read_up_to(file: &File, buf: &mut [u8], offset: u64) -> Result<usize> {
    let mut done = 0;
    while done < buf.len() {
        match file.read_at(&mut buf[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Error::io("cannot read the WAL", e)),
        }
    }
    Ok(done)
}
