//! Keeps the close of a database file apart from the first lock of another connection of the process.
//!
//! On POSIX the close of any descriptor of a file releases all locks that the process has on it. SQLite's VFS keeps a
//! descriptor open while a connection holds a lock, but it looks first and closes then, and the lock of another thread may
//! come in between: it is gone, and nobody is told. In WAL mode a connection takes SHARED once and for all. Without it the
//! last close of another process deletes the WAL, and what the connection commits from then on goes into a file without a
//! name.
//!
//! Source: `unixClose` and `unixLock` in SQLite's `os_unix.c`.

use std::array;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::fork::PerProcess;

/// How many locks all database files of a process share. Files that share one wait for each other's closes only.
const LOCKS: u64 = 64;

struct Locks([RwLock<()>; LOCKS as usize]);

impl Default for Locks {
    fn default() -> Self {
        Self(array::from_fn(|_| RwLock::new(())))
    }
}

static LOCKS_OF_FILES: PerProcess<Locks> = PerProcess::new();

/// What the first locks and the closes of one database file exclude each other by, however it is named.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClosingLock {
    index: usize,
}

impl ClosingLock {
    /// That of the database file `path`, which is open.
    pub(super) fn of(path: &Path) -> Self {
        let inode = std::fs::metadata(path).map_or(0, |meta| meta.ino());
        Self { index: usize::try_from(inode % LOCKS).expect("BUG: a remainder of 64 fits") }
    }

    fn lock(self) -> &'static RwLock<()> {
        &LOCKS_OF_FILES.get().0[self.index]
    }

    /// While this lives, no descriptor of the file is closed: to be held while a lock is taken from nothing.
    pub(super) fn locking(self) -> RwLockReadGuard<'static, ()> {
        self.lock().read().unwrap_or_else(PoisonError::into_inner)
    }

    /// While this lives, no lock of the file is taken from nothing: to be held while a descriptor is closed.
    pub(super) fn closing(self) -> RwLockWriteGuard<'static, ()> {
        self.lock().write().unwrap_or_else(PoisonError::into_inner)
    }
}
