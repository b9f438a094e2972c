//! Connections: our own, and what rusqlite does not tell of others.

use std::ops::{Deref, DerefMut};
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::closing_lock::ClosingLock;
use super::internal::internally;
use super::{BaseVfs, host};

/// A connection of our own, closed when it is dropped.
///
/// It must go on the thread that opened it, before the database's owner does; it holds SQLite's ordinary locks.
#[derive(Debug)]
pub struct InternalConnection {
    /// Invariant: there until it is closed.
    conn: Option<Connection>,
    closing_lock: ClosingLock,
}

impl InternalConnection {
    /// Opens a connection to the database `path` through the host's VFS, on which our auto-extension does nothing.
    ///
    /// # Errors
    /// Those of `sqlite3_open_v2`.
    pub fn open(path: &Path, flags: OpenFlags, base: &BaseVfs) -> rusqlite::Result<Self> {
        // Where the host shares caches, its own open holds the lock of those while it waits for us.
        let flags = flags | OpenFlags::SQLITE_OPEN_PRIVATE_CACHE;
        let conn = internally(|| Connection::open_with_flags_and_vfs(path, flags, base.name()))?;
        Ok(Self { conn: Some(conn), closing_lock: ClosingLock::of(path) })
    }

    /// Runs `statement`, in which the connection takes its first lock, while the caller holds none: no close of another
    /// connection releases it meanwhile.
    pub fn locking<T>(&self, statement: impl FnOnce(&Connection) -> T) -> T {
        let _locking = self.closing_lock.locking();
        statement(self)
    }

    /// Closes it.
    ///
    /// # Errors
    /// Those of `sqlite3_close`.
    pub fn close(mut self) -> rusqlite::Result<()> {
        let _closing = self.closing_lock.closing();
        self.conn.take().map_or(Ok(()), |conn| conn.close().map_err(|(_, e)| e))
    }
}

impl Deref for InternalConnection {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.conn.as_ref().expect("BUG: it is there until it is closed")
    }
}

impl DerefMut for InternalConnection {
    fn deref_mut(&mut self) -> &mut Connection {
        self.conn.as_mut().expect("BUG: it is there until it is closed")
    }
}

impl Drop for InternalConnection {
    fn drop(&mut self) {
        if self.conn.is_some() {
            let _closing = self.closing_lock.closing();
            self.conn = None;
        }
    }
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
