//! One database, as SQLite's own VFS and locks show it to the write flow.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::error::{ErrorKind, Result};
use crate::fork;
use crate::primary::{Host, Measures, PinnedView};
use crate::sqlite::{BaseVfs, OpenFlags};
use crate::vfs::own_locks::{Held, OwnLocks};
use crate::vfs::wal_mode::{self, JournalMode};
use crate::vfs::{overwrite, view};

/// One database, opened by the host's VFS.
pub(super) struct SqliteHost {
    path: PathBuf,
    vfs: BaseVfs,
    locks: Arc<OwnLocks>,
    /// A view was pinned, so that the database was in WAL mode. Until then its connections put it there.
    was_in_wal_mode: AtomicBool,
}

impl SqliteHost {
    pub(super) fn new(path: &Path, vfs: BaseVfs) -> Self {
        Self {
            path: path.to_path_buf(),
            vfs,
            locks: OwnLocks::of(path),
            was_in_wal_mode: AtomicBool::new(false),
        }
    }

    fn pin_once(&self, measured: &dyn Fn() -> Option<Measures>) -> Result<Option<Box<dyn PinnedView>>> {
        let pinned = view::pin(&self.path, &self.vfs.operating_system(), &self.locks, measured)?;
        self.was_in_wal_mode.fetch_or(pinned.is_some(), Ordering::Relaxed);
        Ok(pinned)
    }

    fn left_wal_mode(&self) -> bool {
        if !self.was_in_wal_mode.load(Ordering::Relaxed) {
            return false;
        }
        let _section = fork::section();
        let Ok((mut file, _)) = self.vfs.open_database(&self.path, &[], OpenFlags::READWRITE) else {
            return false;
        };
        matches!(wal_mode::journal_mode(&mut file, &self.vfs, &self.path), Ok(JournalMode::Rollback))
    }
}

impl Host for SqliteHost {
    fn pin(&self, measured: &dyn Fn() -> Option<Measures>) -> Result<Option<Box<dyn PinnedView>>> {
        match self.pin_once(measured) {
            // A program without this library may have left WAL mode.
            Err(e) if e.kind() == ErrorKind::Busy && self.left_wal_mode() => {
                {
                    // Statements wait for it.
                    let _held = self.locks.hold(Held::Moment);
                    wal_mode::enter(&self.path, &self.vfs, Duration::ZERO).map_err(|_| e)?;
                }
                self.pin_once(measured)
            }
            pinned => pinned,
        }
    }

    fn overwrite(&self, source: &Path, is_current: &dyn Fn() -> bool) -> Result<()> {
        overwrite::overwrite(&self.path, &self.vfs, source, is_current)
    }
}
