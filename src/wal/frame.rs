//! Frames of the WAL file: a header of 24 bytes, then one page.

use std::fmt;

use crate::page::{PageCount, PageSize, Pgno};
use crate::wal::checksum::{ByteOrder, Checksum};
use crate::wal::header::{Salts, WalHeader};

/// The number of a frame, from 1; 0 stands for "before the first frame".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrameNo(pub u32);

impl FrameNo {
    /// Before the first frame.
    pub const ZERO: Self = Self(0);

    /// The frame that follows.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// Where the frame *after* this one starts in the WAL file: the number of bytes up to and
    /// including this one.
    pub const fn end_offset(self, page_size: PageSize) -> u64 {
        WalHeader::SIZE as u64 + self.0 as u64 * FrameHeader::frame_size(page_size) as u64
    }

    /// Where the page of this frame starts in the WAL file. Not for frame 0.
    pub const fn page_offset(self, page_size: PageSize) -> u64 {
        self.end_offset(page_size) - page_size.get() as u64
    }
}

impl fmt::Display for FrameNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The header of a frame.
///
/// ```text
///  0  page number  u32
///  4  commit       u32  database size in pages after a commit; 0 in other frames
///  8  salts        2 x u32, those of the WAL header
/// 16  checksum     2 x u32, over the chain so far, bytes 0..8 of this header, and the page
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Which page; `None` for the invalid number 0.
    pub pgno: Option<Pgno>,
    /// The size of the database after this frame, if it ends a transaction.
    pub commit: Option<PageCount>,
    /// The salts of the generation that wrote it.
    pub salts: Salts,
    /// The checksum that the writer stored.
    pub checksum: Checksum,
}

impl FrameHeader {
    /// The size of the header in bytes.
    pub const SIZE: usize = 24;

    /// The size in bytes of a frame with its header.
    pub const fn frame_size(page_size: PageSize) -> usize {
        Self::SIZE + page_size.bytes()
    }

    /// Reads a header; nothing is verified.
    pub fn decode(bytes: &[u8; Self::SIZE]) -> Self {
        let word = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        Self {
            pgno: Pgno::new(word(0)),
            commit: (word(4) != 0).then(|| PageCount::new(word(4))),
            salts: Salts(word(8), word(12)),
            checksum: Checksum(word(16), word(20)),
        }
    }

    /// Whether the writer left salts and checksum out.
    ///
    /// It does while it means to write them anew at the commit. SQLite 3.40 and others forget to do that
    /// after `ROLLBACK TO` a savepoint whose pages had spilled into the WAL: such frames are committed by
    /// the WAL index, but recovery will not take them.
    pub fn is_unsealed(bytes: &[u8; Self::SIZE]) -> bool {
        bytes[8..].iter().all(|byte| *byte == 0)
    }

    /// The checksum that the frame `header`, `page` must have after `chain`.
    pub fn expected_checksum(
        chain: Checksum,
        order: ByteOrder,
        header: &[u8; Self::SIZE],
        page: &[u8],
    ) -> Checksum {
        chain.update(order, &header[..8]).update(order, page)
    }
}
