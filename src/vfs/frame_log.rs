//! The WAL of a connection that keeps its index in private memory (`locking_mode=EXCLUSIVE` before it opened the WAL):
//! which frames it committed, from their headers in the WAL file.

use std::collections::HashMap;

use crate::error::{Error, Result};
use crate::page::Pgno;
use crate::primary::{PageSet, WalIndex};
use crate::vfs::content::WalReader;
use crate::wal::{FrameNo, IndexHeader, WalHeader};

/// The committed frames of one generation.
#[derive(Debug, Default)]
pub(super) struct FrameLog {
    /// Where the last write to the WAL ended, unless it failed or its commit was seen. The last write of a commit is
    /// that of its last frame; frames of transactions that were rolled back may stand behind it.
    written_to: Option<u64>,
    /// The last commit; without a frame if the WAL was emptied after it.
    last: Option<IndexHeader>,
    /// The page of each committed frame.
    pages: Vec<Pgno>,
    /// The last committed frame of each page.
    latest: HashMap<Pgno, FrameNo>,
    /// A commit could not be read: nothing of this generation is known any more.
    is_broken: bool,
}

impl FrameLog {
    /// A new generation begins.
    pub(super) fn begin(&mut self) {
        *self = Self::default();
    }

    /// The WAL was written up to the byte `end`.
    pub(super) const fn wrote(&mut self, end: u64) {
        self.written_to = Some(end);
    }

    /// Writing or syncing the WAL failed: what was written is not committed.
    pub(super) const fn failed(&mut self) {
        self.written_to = None;
    }

    /// The WAL is emptied; the next generation follows the last commit.
    pub(super) fn empty(&mut self) {
        let last = self.last.map(|last| IndexHeader { mx_frame: FrameNo::ZERO, ..last });
        *self = Self { last, ..Self::default() };
    }

    /// Whether it was emptied, and nothing was committed since.
    pub(super) fn is_cut(&self) -> bool {
        self.last.is_some_and(|last| last.mx_frame == FrameNo::ZERO)
    }

    /// The last commit.
    pub(super) const fn last(&self) -> Option<IndexHeader> {
        self.last
    }

    /// The last committed frame of a page.
    pub(super) fn find(&self, pgno: Pgno) -> Option<FrameNo> {
        self.latest.get(&pgno).copied()
    }

    /// Whether a commit of this generation could not be read.
    pub(super) const fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// A transaction was committed. Reads the headers of its frames; `false` if it wrote none.
    ///
    /// # Errors
    /// `Io`, `Corrupt`. The log is broken then.
    pub(super) fn committed(&mut self, wal: &mut WalReader) -> Result<bool> {
        let Some(end) = self.written_to.take() else { return Ok(false) };
        self.read_commit(end, wal).inspect_err(|_| self.is_broken = true)
    }

    fn read_commit(&mut self, end: u64, wal: &mut WalReader) -> Result<bool> {
        let short = || Error::corrupt("the WAL does not hold what was written to it");
        let header = wal.header()?.ok_or_else(short)?;
        let frame_size = FrameNo(1).end_offset(header.page_size) - WalHeader::SIZE as u64;
        let frames = end.saturating_sub(WalHeader::SIZE as u64).div_ceil(frame_size);
        let last = u32::try_from(frames).map(FrameNo).map_err(|_| short())?;
        let known = self.pages.len();
        for number in known as u64 + 1..=u64::from(last.0) {
            let frame = FrameNo(u32::try_from(number).expect("BUG: not above a frame's number"));
            let pgno = wal.frame(frame, header.page_size)?.and_then(|frame| frame.pgno).ok_or_else(short)?;
            self.pages.push(pgno);
        }
        let end = wal.frame(last, header.page_size)?.ok_or_else(short)?;
        // Frames of a transaction that was rolled back.
        let Some(commit) = end.commit else {
            self.pages.truncate(known);
            return Ok(false);
        };
        for (place, pgno) in self.pages.iter().enumerate().skip(known) {
            self.latest.insert(*pgno, FrameNo(place as u32 + 1));
        }
        self.last = Some(IndexHeader {
            change: 0,
            page_size: Some(header.page_size),
            mx_frame: last,
            page_count: commit,
            frame_checksum: end.checksum,
            salts: header.salts,
        });
        Ok(true)
    }

    fn pages(&self, after: FrameNo, last: FrameNo) -> Option<PageSet> {
        let listed = self.pages.get(after.0 as usize..last.0 as usize)?;
        Some(listed.iter().copied().collect())
    }

    /// The pages of the frames after `after` up to the last commit.
    pub(super) fn pages_after(&self, after: FrameNo) -> Option<PageSet> {
        self.pages(after, self.last?.mx_frame)
    }
}

/// The index that the connection has in its memory, as far as it is known.
pub(super) struct LoggedIndex<'a> {
    log: &'a FrameLog,
    header: Option<IndexHeader>,
}

impl<'a> LoggedIndex<'a> {
    /// As of the last commit. Without a header if one could not be read: nothing is to be recorded of it.
    pub(super) fn now(log: &'a FrameLog) -> Self {
        let header = (!log.is_broken).then(|| log.last().unwrap_or(IndexHeader::EMPTY));
        Self { log, header }
    }
}

impl WalIndex for LoggedIndex<'_> {
    fn header(&self) -> Option<IndexHeader> {
        self.header
    }

    fn pages(&mut self, after: FrameNo, last: FrameNo) -> Option<PageSet> {
        self.log.pages(after, last)
    }
}
