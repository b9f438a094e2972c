//! The locks that processes have on a database: bytes of one file in its folder of local state, because each
//! file that stays open costs a descriptor.
//!
//! ```text
//! vfs.lock
//! byte 0   open       shared while the database is open; alone while its file is replaced
//!      1   settings   shared while the database is open; alone while the first who opens it decides
//!      2   begin      alone during a first open, one process after the other
//!      3   publish    alone: the publisher
//! ```
//!
//! A publisher of version 0.1.0 locks the whole file. A process that opens the database meanwhile holds all but the last
//! one within itself only: there is nothing to decide beside a publisher. They are taken from other processes too by the next
//! lock that this process takes after that publisher is gone: a standby looks for the last one every second.

use std::io;
use std::path::Path;

use super::record_lock::{Kind, RecordLock};

/// The name of the file.
pub(super) const NAME: &str = "vfs.lock";

/// One of the locks. Its number is its byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum DatabaseLock {
    /// The database is open as a primary.
    Open = 0,
    /// What all who have it open agree on.
    Settings = 1,
    /// A first open is under way.
    Begin = 2,
    /// The database is published.
    Publish = 3,
}

impl DatabaseLock {
    /// Takes the lock of the database whose folder of local state is `folder`; `None` if another holder, of this process
    /// or of another, does not let it.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn take(self, folder: &Path, kind: Kind) -> io::Result<Option<RecordLock>> {
        let path = folder.join(NAME);
        match (self, kind) {
            (Self::Publish, _) | (Self::Open, Kind::Exclusive) => RecordLock::take(&path, self as u8, kind),
            (Self::Open | Self::Settings | Self::Begin, _) => {
                RecordLock::take_or_promise(&path, self as u8, kind)
            }
        }
    }

    /// Whether this process holds it.
    pub fn is_ours(self, folder: &Path) -> bool {
        RecordLock::is_ours(&folder.join(NAME), self as u8)
    }

    /// Whether another process holds it too. To be asked while this process holds it: `None` if it does not, or if that
    /// cannot be told.
    pub fn is_shared_with_others(self, folder: &Path) -> Option<bool> {
        RecordLock::is_shared_with_others(&folder.join(NAME), self as u8)
    }
}
