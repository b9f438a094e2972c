//! Which process publishes a database.

use std::fs::File;
use std::path::Path;

use crate::error::{Error, Result};
use crate::primary::capture::Capture;

/// What this process is to the database.
pub(super) enum Role {
    /// Another process publishes, as far as is known.
    Standby,
    /// This one does.
    Publisher(Box<Publishing>),
    /// The last connection was closed.
    Ended,
}

/// What only the publishing process has.
pub(super) struct Publishing {
    pub(super) capture: Capture,
    pub(super) lock: PublisherLock,
}

/// The lock by which one process publishes a database.
pub(super) struct PublisherLock {
    file: File,
    /// It is the parent's, from which this process was forked: not ours to release.
    is_inherited: bool,
}

impl Drop for PublisherLock {
    fn drop(&mut self) {
        // A forked child has the same open file: closing ours alone would not release the lock.
        if !self.is_inherited {
            let _ = self.file.unlock();
        }
    }
}

impl PublisherLock {
    /// Takes the lock in the folder of local state; `None` if another process has it.
    ///
    /// # Errors
    /// `Io`, `Denied`, `NoSpace` on the folder.
    pub(super) fn take(folder: &Path) -> Result<Option<Self>> {
        let named = |e| Error::io(format_args!("cannot use {}", folder.display()), e);
        std::fs::create_dir_all(folder).map_err(named)?;
        let file = File::create(folder.join("vfs.lock")).map_err(named)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { file, is_inherited: false })),
            Err(std::fs::TryLockError::WouldBlock) => Ok(None),
            Err(std::fs::TryLockError::Error(e)) => Err(named(e)),
        }
    }

    /// Closes the lock file that a forked child has of its parent, who keeps the lock.
    pub(super) fn leave_to_parent(mut self) {
        self.is_inherited = true;
    }

    /// The lock as a forked child has it.
    #[cfg(test)]
    pub(super) fn duplicate(&self) -> Option<File> {
        self.file.try_clone().ok()
    }
}
