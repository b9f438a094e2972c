//! The end of a read view, and the cursor that says what is covered.

use serde::{Deserialize, Serialize};

use crate::primary::file_fingerprint::Stamp;
use crate::wal::{Checksum, FrameNo, IndexHeader, Salts};

/// The end of a read view: the last commit that it shows, all fields from one header of the WAL index.
///
/// Invariant: `frame` is a committed frame, or 0 in a view of an emptied WAL, whose index keeps the checksum
/// and the change counter of the last commit before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The generation of the WAL.
    pub salts: Salts,
    /// The last committed frame.
    pub frame: FrameNo,
    /// The checksum of that frame, which covers all frames before it.
    pub checksum: Checksum,
    /// The number of commits that the index counts. It begins again at 0 after a recovery.
    pub change: u32,
}

impl Position {
    /// The last commit that `index` shows.
    pub const fn end_of(index: &IndexHeader) -> Self {
        Self {
            salts: index.salts,
            frame: index.mx_frame,
            checksum: index.frame_checksum,
            change: index.change,
        }
    }

    /// Whether both end with the same commit, whatever became of the WAL since. A checksum of 0 proves nothing:
    /// a recovery of an empty WAL leaves it, and a frame that SQLite did not seal has it.
    pub fn is_same_commit(&self, other: &Self) -> bool {
        self.checksum != Checksum::default() && self.checksum == other.checksum && self.change == other.change
    }
}

impl Position {
    /// Whether nothing of the generation with these salts is covered, and all before it: version 0.1.0 kept such positions,
    /// without a count.
    pub(super) fn is_before_generation(&self, salts: Salts) -> bool {
        self.frame == FrameNo::ZERO && self.change == UNCOUNTED && self.salts == salts
    }
}

/// The change counter of a position that version 0.1.0 kept. No header of an index with a commit counts so far: the position
/// is found again by its frame alone.
const UNCOUNTED: u32 = u32::MAX;

/// What is covered: every commit up to this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cursor {
    /// The commits up to this one.
    At(Position),
    /// All that the database file holds, which had this stamp when there was no WAL, or none with a commit.
    File(Stamp),
}

/// A position as local state keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::primary) struct StoredPosition {
    salts: (u32, u32),
    frame: u32,
    checksum: (u32, u32),
    /// Version 0.1.0 did not keep it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    change: Option<u32>,
}

impl From<Position> for StoredPosition {
    fn from(p: Position) -> Self {
        Self {
            salts: (p.salts.0, p.salts.1),
            frame: p.frame.0,
            checksum: (p.checksum.0, p.checksum.1),
            change: Some(p.change),
        }
    }
}

impl From<StoredPosition> for Position {
    fn from(p: StoredPosition) -> Self {
        Self {
            salts: Salts(p.salts.0, p.salts.1),
            frame: FrameNo(p.frame),
            checksum: Checksum(p.checksum.0, p.checksum.1),
            change: p.change.unwrap_or(UNCOUNTED),
        }
    }
}
