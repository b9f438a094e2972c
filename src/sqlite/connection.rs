//! Connections: our own, and what rusqlite does not tell of others.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::internal::internally;
use super::{BaseVfs, host};

/// Opens a connection of our own through the host's VFS, on which our auto-extension does nothing.
///
/// Such a connection must be closed by the thread pool or thread that opened it, before its owner
/// goes; it holds SQLite's ordinary locks.
///
/// # Errors
/// Those of `sqlite3_open_v2`.
pub fn open_internal(path: &Path, flags: OpenFlags, base: &BaseVfs) -> rusqlite::Result<Connection> {
    // Where the host shares caches, its own open holds the lock of those while it waits for us.
    let flags = flags | OpenFlags::SQLITE_OPEN_PRIVATE_CACHE;
    internally(|| Connection::open_with_flags_and_vfs(path, flags, base.name()))
}

/// Whether `sqlite3_interrupt` was called on `conn` and its statements have not ended yet; to be asked
/// while one of them runs.
pub fn is_interrupted(conn: &Connection) -> bool {
    // A host older than SQLite 3.41 does not tell, but prepares no statement until then.
    host::is_interrupted(conn).unwrap_or_else(|| {
        let refused = conn.prepare("SELECT 1").err();
        refused.and_then(|e| e.sqlite_error_code()) == Some(rusqlite::ErrorCode::OperationInterrupted)
    })
}
