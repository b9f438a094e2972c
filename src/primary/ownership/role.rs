//! Which process publishes a database.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::files::{self, DatabaseLock, Kind, RecordLock};
use crate::primary::ownership::control_socket::{self, Message};
use crate::primary::ownership::ear::Ear;

/// How long a process that only lingers is given to release the publisher lock.
const GIVES_WAY: Duration = Duration::from_millis(200);
/// The time from one try to the next.
const TRY_AGAIN: Duration = Duration::from_millis(2);

/// What this process is to the database.
pub(super) enum Role {
    /// Another process publishes, as far as is known.
    Standby,
    /// This one does.
    Publisher(Publishing),
    /// No connection of this process has the database open; one may again soon.
    Lingering(Former),
    /// The last connection was closed.
    Ended,
}

/// What a process was to a database that it has not open any more.
pub(super) enum Former {
    /// Another process published.
    Standby,
    /// This one did. It has the publisher lock as long as something waits for a replica and nobody else wants to publish.
    Publisher(Option<Publishing>),
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
            .and_then(|()| DatabaseLock::Publish.take(folder, Kind::Exclusive))
            .map(|lock| lock.map(|lock| Self { _lock: lock }))
            .map_err(|e| Error::io(format_args!("cannot use {}", folder.display()), e))
    }

    /// As [`PublisherLock::take`], from a process that may only linger: such a one gives way when it is told anything.
    ///
    /// # Errors
    /// As [`PublisherLock::take`].
    pub(in crate::primary) fn take_from_lingerer(folder: &Path) -> Result<Option<Self>> {
        let deadline = Instant::now() + GIVES_WAY;
        loop {
            match Self::take(folder)? {
                None if Instant::now() < deadline => {}
                taken => return Ok(taken),
            }
            let _ = control_socket::tell(folder, &Message::Committed);
            std::thread::sleep(TRY_AGAIN);
        }
    }
}
