//! The header of the WAL index: shared memory in which SQLite publishes each commit.

use crate::page::{PageCount, PageSize};
use crate::wal::checksum::{ByteOrder, Checksum};
use crate::wal::frame::FrameNo;
use crate::wal::header::Salts;

/// The number of read marks, and of the locks that go with them.
pub const READ_MARKS: usize = 5;

/// What the index says is committed.
///
/// ```text
///  0  version       u32  3007000
///  4  unused        u32
///  8  change        u32  counts transactions
/// 12  initialised   u8
/// 13  big-endian    u8   checksums of the WAL are big-endian
/// 14  page size     u16  1 stands for 65536
/// 16  mxFrame       u32  last committed frame
/// 20  page count    u32  database size in pages
/// 24  checksum      2 x u32, of frame mxFrame
/// 32  salts         2 x u32, big-endian as in the WAL header
/// 40  checksum      2 x u32, over bytes 0..40
/// ```
///
/// The header stands twice, at 0 and at 48; a reader that finds them different looks again.
/// All but the salts is in the host's byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexHeader {
    /// Counts transactions; tells two headers of one generation apart.
    pub change: u32,
    /// The page size, or `None` while the database is empty.
    pub page_size: Option<PageSize>,
    /// The last committed frame; 0 if the WAL has none.
    pub mx_frame: FrameNo,
    /// The size of the database; 0 when no frame has told it.
    pub page_count: PageCount,
    /// The checksum of frame `mx_frame`.
    pub frame_checksum: Checksum,
    /// The salts of this generation of the WAL.
    pub salts: Salts,
}

impl IndexHeader {
    /// The size of one copy in bytes.
    pub const SIZE: usize = 48;
    /// Where the salts are.
    pub const SALTS_OFFSET: usize = 32;
    /// The size of the salts in bytes.
    pub const SALTS_SIZE: usize = 8;
    const VERSION: u32 = 3_007_000;

    /// The header as a recovery of an empty WAL leaves it.
    pub const EMPTY: Self = Self {
        change: 0,
        page_size: None,
        mx_frame: FrameNo::ZERO,
        page_count: PageCount::ZERO,
        frame_checksum: Checksum(0, 0),
        salts: Salts(0, 0),
    };

    /// Reads and verifies one copy. `None` if it is not initialised or caught in the middle of a
    /// change.
    pub fn decode(bytes: &[u8; Self::SIZE]) -> Option<Self> {
        let word = |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let pair = |at: usize| [0, 1, 2, 3, 4, 5, 6, 7].map(|i: usize| bytes[at + i]);
        let stored = Checksum(word(40), word(44));
        let sound = word(0) == Self::VERSION
            && bytes[12] != 0
            && Checksum::default().update(ByteOrder::NATIVE, &bytes[..40]) == stored;
        if !sound {
            return None;
        }
        let page_size = match u16::from_ne_bytes([bytes[14], bytes[15]]) {
            1 => 65536,
            n => u32::from(n),
        };
        Some(Self {
            change: word(8),
            page_size: PageSize::new(page_size).ok(),
            mx_frame: FrameNo(word(16)),
            page_count: PageCount::new(word(20)),
            frame_checksum: Checksum(word(24), word(28)),
            salts: Salts::from_be_bytes(pair(Self::SALTS_OFFSET)),
        })
    }
}

/// Where checkpoints and readers are, as the index tells it right after its two headers.
///
/// ```text
///  96  nBackfill    u32      frames that are in the database file already
/// 100  read marks   5 x u32  the frame up to which the readers of a slot read
/// 120  locks        8 bytes  never read; only locked
/// ```
pub struct CheckpointInfo;

impl CheckpointInfo {
    /// Where `nBackfill` is in region 0 of the shared memory.
    pub const BACKFILL_OFFSET: usize = 96;
    /// The lock that a writer holds.
    pub const WRITE_LOCK: u8 = 0;
    /// The lock that a checkpoint holds.
    pub const CHECKPOINT_LOCK: u8 = 1;

    /// Where the read mark of `slot` is in region 0 of the shared memory.
    pub const fn read_mark_offset(slot: usize) -> usize {
        Self::BACKFILL_OFFSET + 4 + 4 * slot
    }

    /// The lock that goes with read mark `slot`.
    pub const fn read_lock(slot: usize) -> u8 {
        3 + slot as u8
    }
}
