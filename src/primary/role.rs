//! Which process publishes a database.

use std::collections::BTreeSet;
use std::fs::{File, Metadata, OpenOptions};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::fork;
use crate::primary::capture::Capture;
use crate::primary::line::Ear;

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
    /// Hears other processes. It ends with the role: a later one would take the next publisher's place.
    pub(super) ear: Option<Ear>,
    pub(super) _lock: PublisherLock,
}

/// A process, and the device and inode of a lock file.
type Key = (u32, u64, u64);

/// The locks that this process holds. Closing any descriptor of a locked file drops the lock, so that a
/// file of this set must not be opened again.
static HELD: Mutex<BTreeSet<Key>> = Mutex::new(BTreeSet::new());

fn held() -> MutexGuard<'static, BTreeSet<Key>> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The lock by which one process publishes a database: a record lock, which a forked child does not
/// share, so that it is gone with the process whatever children live on.
pub(super) struct PublisherLock {
    file: Option<File>,
    key: Key,
}

impl Drop for PublisherLock {
    fn drop(&mut self) {
        let _section = fork::section();
        let mut held = held();
        // In a forked child, the parent's lock is not the child's to forget.
        if self.key.0 == std::process::id() {
            self.file = None;
            held.remove(&self.key);
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
        let _section = fork::section();
        let mut held = held();
        std::fs::create_dir_all(folder).map_err(named)?;
        let path = folder.join("vfs.lock");
        if path.metadata().is_ok_and(|meta| held.contains(&key(&meta))) {
            return Ok(None);
        }
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path).map_err(named)?;
        let key = key(&file.metadata().map_err(named)?);
        match fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                held.insert(key);
                Ok(Some(Self { file: Some(file), key }))
            }
            Err(Errno::AGAIN | Errno::ACCESS) => Ok(None),
            Err(e) => Err(named(e.into())),
        }
    }
}

fn key(meta: &Metadata) -> Key {
    (std::process::id(), meta.dev(), meta.ino())
}
