//! Syncs of the WAL where commits wait: after a power failure the disk that is kept must have what was confirmed, and all that
//! is in a replica, or the database would be behind that. So a shipper syncs before it sends, and a thread whose commit went
//! out before anybody waited for it syncs beside.
//!
//! The descriptor is one of its own, on which no lock depends. One thread syncs for all who wait meanwhile.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::primary::hooks::{CommitSeq, Commits};
use crate::runtime;

/// How long a thread sleeps at most before it looks again whether another one is done.
const LOOK: Duration = Duration::from_secs(1);

/// The WAL of a database, as far as it is synced.
pub(super) struct WalSync {
    wal: PathBuf,
    state: Mutex<State>,
    done: Condvar,
    /// A commit waited: from then on nothing is sent that is not on disk.
    comes_first: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    /// Every commit up to this one is on disk.
    synced: CommitSeq,
    /// A thread is syncing.
    is_under_way: bool,
    /// The inode of the WAL whose name is on disk too.
    named: Option<u64>,
}

impl WalSync {
    /// That of the WAL at `wal`, of which nothing is known to be on disk.
    pub(super) fn new(wal: &Path) -> Self {
        let (state, done, comes_first) = <(Mutex<State>, Condvar, AtomicBool)>::default();
        Self { wal: wal.to_path_buf(), state, done, comes_first }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Commits wait from now on.
    pub(super) fn comes_first(&self) {
        self.comes_first.store(true, Ordering::SeqCst);
    }

    /// Whether what is sent must be on disk first: a commit waited.
    pub(super) fn is_first(&self) -> bool {
        self.comes_first.load(Ordering::SeqCst)
    }

    /// Returns when all that is committed now, by any process, is on disk.
    ///
    /// # Errors
    /// `Io` if the WAL cannot be synced.
    pub(super) fn sync_all(&self, commits: &Commits) -> Result<()> {
        self.run(commits, None)
    }

    /// Returns when every commit up to `seq` is on disk, in the WAL or, where that was restarted, in the database file.
    ///
    /// # Errors
    /// `Io` if the WAL cannot be synced.
    pub(super) fn sync(&self, commits: &Commits, seq: CommitSeq) -> Result<()> {
        self.run(commits, Some(seq))
    }

    /// Syncs, unless `seq` is given and on disk.
    fn run(&self, commits: &Commits, seq: Option<CommitSeq>) -> Result<()> {
        let mut state = self.lock();
        loop {
            if seq.is_some_and(|seq| state.synced >= seq) {
                return Ok(());
            }
            if !state.is_under_way {
                break;
            }
            state = runtime::wait_for_news(&self.done, &self.state, state, LOOK);
        }
        state.is_under_way = true;
        let named = state.named;
        drop(state);
        // Before the sync: what is noted during it may be missing.
        let covers = commits.last().seq;
        let synced = sync_file(&self.wal, named);
        let mut state = self.lock();
        state.is_under_way = false;
        if let Ok(inode) = &synced {
            state.synced = state.synced.max(covers);
            state.named = *inode;
        }
        drop(state);
        self.done.notify_all();
        synced.map(drop).map_err(|e| Error::io(format_args!("cannot sync {}", self.wal.display()), e))
    }
}

/// Syncs the file `wal`, and its name unless it is the file whose name is on disk; its inode. Where no WAL is, all is in the
/// database file.
fn sync_file(wal: &Path, named: Option<u64>) -> io::Result<Option<u64>> {
    let file = match File::open(wal) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    file.sync_data()?;
    let inode = file.metadata()?.ino();
    if named != Some(inode)
        && let Some(folder) = wal.parent()
    {
        File::open(folder)?.sync_all()?;
    }
    Ok(Some(inode))
}
