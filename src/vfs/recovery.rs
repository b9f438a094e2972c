//! Has SQLite make the WAL index from the WAL, when no connection has.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{ErrorCode, OpenFlags};

use crate::error::{Error, ErrorKind, Result};
use crate::sqlite::{BaseVfs, InternalConnection};
use crate::vfs::own_locks::{Held, OwnLocks};

/// Has SQLite recover the index of the database `path`, while the caller has SHARED on it and the index mapped.
///
/// SQLite recovers when a read transaction begins, before it looks at the first page. What it then says of that
/// is the program's affair: a damaged or encrypted page is copied like any other.
///
/// # Errors
/// `Busy` if another connection is at it; `Io`.
pub(super) fn recover(path: &Path, vfs: &BaseVfs, locks: &Arc<OwnLocks>) -> Result<()> {
    let _held = locks.hold(Held::Moment);
    match read(path, vfs) {
        Ok(()) => Ok(()),
        Err(e) => match e.sqlite_error_code() {
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => Ok(()),
            Some(ErrorCode::DatabaseBusy) => Err(failed(ErrorKind::Busy, path, &e)),
            _ => Err(failed(ErrorKind::Io, path, &e)),
        },
    }
}

fn read(path: &Path, vfs: &BaseVfs) -> rusqlite::Result<()> {
    let conn = InternalConnection::open(path, OpenFlags::SQLITE_OPEN_READ_WRITE, vfs)?;
    // Committing threads may wait for us: we do not wait for them.
    conn.busy_timeout(Duration::ZERO)?;
    // Its close would take EXCLUSIVE, in the way of others.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    // Of all statements that begin a transaction this one reads neither the schema nor another page.
    conn.query_row("PRAGMA user_version", (), |_| Ok(()))
}

fn failed(kind: ErrorKind, path: &Path, e: &rusqlite::Error) -> Error {
    Error::new(kind, format!("cannot recover the WAL index of {}: {e}", path.display()))
}
