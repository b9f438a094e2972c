//! The lock that a process holds as long as it has a database open as its primary, publishing or not:
//! `open.lock` in the folder of local state.
//!
//! It is a record lock, which a forked child does not share and which is gone with the process. Each
//! process holds it shared. Who opens the database while nobody else has it open holds it exclusively
//! until it has decided what only the first one decides.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::io::Errno;

use crate::error::{Error, ErrorKind, Result};
use crate::fork;

/// The lock file.
const NAME: &str = "open.lock";
/// How long another process may take to decide what the first one decides.
const PATIENCE: Duration = Duration::from_secs(5);
/// The time from one try to the next.
const AGAIN: Duration = Duration::from_millis(5);

/// A process, and the device and inode of a lock file.
type Key = (u32, u64, u64);

/// The locked files of this process, and how many hold each: closing any descriptor of a file drops all
/// locks on it.
static HELD: Mutex<BTreeMap<Key, (File, usize)>> = Mutex::new(BTreeMap::new());

fn held() -> MutexGuard<'static, BTreeMap<Key, (File, usize)>> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Who else has the database open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Company {
    /// Nobody, and nobody can open it before [`OpenLock::share`].
    Alone,
    /// Somebody has.
    Others,
}

/// The lock, as long as this lives.
#[derive(Debug)]
pub(super) struct OpenLock {
    key: Key,
}

impl Drop for OpenLock {
    fn drop(&mut self) {
        // In a forked child, the parent's lock is not the child's to forget.
        if self.key.0 != std::process::id() {
            return;
        }
        let _section = fork::section();
        let mut held = held();
        if let Some((_, holders)) = held.get_mut(&self.key) {
            *holders -= 1;
            if *holders == 0 {
                held.remove(&self.key);
            }
        }
    }
}

impl OpenLock {
    /// Takes the lock in `folder`, which is created if it is not there.
    ///
    /// # Errors
    /// `Io`, `Denied`, `NoSpace` on the folder; `Busy` if another process does not come to an end of what
    /// it decides.
    pub(super) fn take(folder: &Path) -> Result<(Self, Company)> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(taken) = Self::try_take(folder)? {
                return Ok(taken);
            }
            if Instant::now() >= deadline {
                let message = format!("{} is held by another process", folder.join(NAME).display());
                return Err(Error::new(ErrorKind::Busy, message));
            }
            std::thread::sleep(AGAIN);
        }
    }

    fn try_take(folder: &Path) -> Result<Option<(Self, Company)>> {
        let named = |e| Error::io(format_args!("cannot use {}", folder.display()), e);
        let _section = fork::section();
        let mut held = held();
        std::fs::create_dir_all(folder).map_err(named)?;
        let path = folder.join(NAME);
        if let Ok(meta) = path.metadata()
            && let Some((_, holders)) = held.get_mut(&key(&meta))
        {
            *holders += 1;
            return Ok(Some((Self { key: key(&meta) }, Company::Others)));
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(named)?;
        let key = key(&file.metadata().map_err(named)?);
        for (operation, company) in [
            (FlockOperation::NonBlockingLockExclusive, Company::Alone),
            (FlockOperation::NonBlockingLockShared, Company::Others),
        ] {
            match fcntl_lock(&file, operation) {
                Ok(()) => {
                    held.insert(key, (file, 1));
                    return Ok(Some((Self { key }, company)));
                }
                Err(Errno::AGAIN | Errno::ACCESS) => {}
                Err(e) => return Err(named(e.into())),
            }
        }
        Ok(None)
    }

    /// Lets others open the database as well.
    ///
    /// # Errors
    /// `Io`.
    pub(super) fn share(&self) -> Result<()> {
        let _section = fork::section();
        let held = held();
        let Some((file, _)) = held.get(&self.key) else { return Ok(()) };
        fcntl_lock(file, FlockOperation::NonBlockingLockShared)
            .map_err(|e| Error::io(format_args!("cannot share {NAME}"), e.into()))
    }
}

fn key(meta: &std::fs::Metadata) -> Key {
    (std::process::id(), meta.dev(), meta.ino())
}
