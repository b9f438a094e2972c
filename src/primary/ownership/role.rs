//! Which process publishes a database.

use std::path::Path;

use crate::error::{Error, Result};
use crate::files::{self, Kind, RecordLock};
use crate::primary::ownership::control_socket::Ear;

/// What this process is to the database.
pub(super) enum Role {
    /// Another process publishes, as far as is known.
    Standby,
    /// This one does.
    Publisher(Publishing),
    /// The last connection was closed.
    Ended,
}

/// What only the publishing process has.
pub(super) struct Publishing {
    /// Hears other processes. It ends with the role: a later one would take the next publisher's place.
    pub(super) ear: Option<Ear>,
    pub(super) _lock: PublisherLock,
}

/// The lock by which one process publishes a database: a record lock, which a forked child does not
/// share, so that it is gone with the process whatever children live on.
pub(in crate::primary) struct PublisherLock {
    _lock: RecordLock,
}

impl PublisherLock {
    /// Takes the lock in the folder of local state; `None` if another process has it.
    ///
    /// # Errors
    /// `Io`, `Denied`, `NoSpace` on the folder.
    pub(in crate::primary) fn take(folder: &Path) -> Result<Option<Self>> {
        files::create_folders(folder)
            .and_then(|()| RecordLock::take(&folder.join("vfs.lock"), Kind::Exclusive))
            .map(|lock| lock.map(|lock| Self { _lock: lock }))
            .map_err(|e| Error::io(format_args!("cannot use {}", folder.display()), e))
    }
}
