//! What the follower remembers.

use tokio::time::Instant;

use super::by_name::{ByName, Look};
use crate::clock::Timestamp;
use crate::error::Result;
use crate::store::FileInfo;

/// What the follower remembers between polls.
#[derive(Debug)]
pub(super) struct Follow {
    /// The last file of level 0 that is not beyond the current state, as it was listed.
    pub(super) anchor: Option<FileInfo>,
    /// When the newest file was stored that was ever listed.
    pub(super) newest: Timestamp,
    /// Polls since all levels were listed, and when that was.
    pub(super) polls: u32,
    pub(super) around: Instant,
    /// When the next file may be asked for by its name.
    pub(super) by_name: ByName,
    /// How the last poll looked.
    pub(super) looked: Look,
    /// What the last poll came to.
    pub(super) outcome: Result<()>,
}

impl Follow {
    /// `file` is the last one of level 0 that is part of the current state, and came by its name. The anchor stays a file
    /// that was listed: the next listing begins there, and shows whether what came since was put on the right state.
    pub(super) fn note_next(&mut self, file: &FileInfo) {
        // Its time is that of a second, rounded down.
        self.newest = self.newest.max(Timestamp::from_millis(file.timestamp.as_millis() + 999));
    }
}
