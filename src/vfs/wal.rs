//! The WAL of a primary.
//!
//! What it holds disappears in three ways: a write at offset 0 restarts it, a truncation empties it,
//! and the last close deletes it. Before each, the primary is told.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use crate::primary::Primary;
use crate::sqlite::{BaseFile, Code, DatabaseFile, File, OpenRequest, Opened, SyncFlags};
use crate::vfs::hooks::{ClosedWal, Hooks};
use crate::vfs::primary::PrimaryFile;
use crate::wal::WalHeader;

thread_local! {
    /// The WAL that this thread closed last, if it may delete it next.
    static CLOSED: RefCell<Option<(PathBuf, ClosedWal)>> = const { RefCell::new(None) };
}

struct WalFile {
    base: BaseFile,
    path: PathBuf,
    /// The connection's own database file.
    database: Option<DatabaseFile>,
}

/// Opens a WAL: a watched one if its database is a primary.
pub(super) fn open(request: &OpenRequest<'_>) -> Result<Opened, Code> {
    if request.database_path().and_then(Primary::find).is_none() {
        return Ok(Opened::PassThrough);
    }
    let (base, out_flags) = request.open_base()?;
    let path = request.path().map(PathBuf::from).unwrap_or_default();
    let mut file = WalFile { base, path, database: request.database_file() };
    if let Some(database) = &mut file.database {
        database.with(PrimaryFile::wal_opened);
    }
    Ok(Opened::File { file: Box::new(file), out_flags })
}

/// The file `path` is about to be deleted.
pub(super) fn deletes(path: &Path) {
    if let Some((closed, wal)) = CLOSED.take()
        && closed == path
    {
        wal.is_deleted();
    }
}

/// The database of the WAL that this thread closed last is closed.
pub(super) fn forget_closed() {
    CLOSED.set(None);
}

impl WalFile {
    /// Tells the connection's hooks.
    fn tell<R>(&mut self, tell: impl FnOnce(&mut Hooks, &mut BaseFile) -> R) -> Option<R> {
        self.database.as_mut()?.with(|file: &mut PrimaryFile| file.tell(tell))
    }

    fn noting_failure(&mut self, done: Result<(), Code>) -> Result<(), Code> {
        if done.is_err() {
            self.tell(|hooks, _| hooks.wal_failed());
        }
        done
    }
}

impl File for WalFile {
    fn base(&mut self) -> Option<&mut BaseFile> {
        Some(&mut self.base)
    }

    fn write(&mut self, data: &[u8], offset: u64) -> Result<(), Code> {
        if offset == 0 && data.len() == WalHeader::SIZE {
            self.tell(|hooks, base| hooks.wal_begins(base, data));
        }
        let written = self.base.write(data, offset);
        self.noting_failure(written)?;
        self.tell(|hooks, _| hooks.wal_written(offset + data.len() as u64));
        Ok(())
    }

    fn sync(&mut self, flags: SyncFlags) -> Result<(), Code> {
        let synced = self.base.sync(flags);
        self.noting_failure(synced)
    }

    fn truncate(&mut self, size: u64) -> Result<(), Code> {
        if size == 0 {
            self.tell(|hooks, base| hooks.wal_is_cut(base));
        }
        self.base.truncate(size)
    }

    fn close(&mut self) -> Result<(), Code> {
        let closed = self.tell(|hooks, _| hooks.wal_closed()).flatten();
        CLOSED.set(closed.map(|closed| (self.path.clone(), closed)));
        self.base.close()
    }
}
