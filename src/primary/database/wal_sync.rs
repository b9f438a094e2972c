//! Syncs of the WAL for commits that wait: what was confirmed must not be lost by a power failure after which the disk is
//! kept, or the database would be behind its replica.
//!
//! The descriptor is one of its own, on which no lock depends. One thread syncs for all who wait meanwhile.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::primary::context::Context;
use crate::primary::hooks::CommitSeq;
use crate::runtime;

/// How long a thread sleeps at most before it looks again whether another one is done.
const LOOK: Duration = Duration::from_secs(1);

/// The WAL of a database, as far as it is synced.
#[derive(Debug, Default)]
pub(super) struct WalSync {
    state: Mutex<State>,
    done: Condvar,
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
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when every commit up to `seq` is on disk, in the WAL or, where that was restarted, in the database file.
    ///
    /// # Errors
    /// `Io` if the WAL cannot be synced.
    pub(super) fn sync(&self, db: &Context, seq: CommitSeq) -> Result<()> {
        let mut state = self.lock();
        loop {
            if state.synced >= seq {
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
        let covers = db.commits.last().seq;
        let synced = sync_file(db, named);
        let mut state = self.lock();
        state.is_under_way = false;
        if let Ok(inode) = &synced {
            state.synced = state.synced.max(covers);
            state.named = *inode;
        }
        drop(state);
        self.done.notify_all();
        synced.map(drop).map_err(|e| Error::io(format_args!("cannot sync {}", db.wal_path.display()), e))
    }
}

/// Syncs the WAL of `db`, and its name unless it is the file whose name is on disk; its inode. Where no WAL is, all is in the
/// database file.
fn sync_file(db: &Context, named: Option<u64>) -> io::Result<Option<u64>> {
    let wal = match File::open(&db.wal_path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    wal.sync_data()?;
    let inode = wal.metadata()?.ino();
    if named != Some(inode)
        && let Some(folder) = db.wal_path.parent()
    {
        File::open(folder)?.sync_all()?;
    }
    Ok(Some(inode))
}
