//! A database takes the content of another one, by SQLite's backup.

use std::path::Path;
use std::time::Duration;

use rusqlite::OpenFlags;
use rusqlite::backup::{Backup, StepResult};

use crate::error::{Error, ErrorKind, Result};
use crate::sqlite::{BaseVfs, InternalConnection};

/// Replaces the content of the database `path` by that of the database file `source`, in one transaction,
/// while nobody else has `path` open; `is_current` is asked then whether `path` is still what it was.
///
/// # Errors
/// `Busy` if a program has it open, or it is not what it was; `Io`, `NoSpace`, `Corrupt`.
pub(super) fn overwrite(
    path: &Path,
    vfs: &BaseVfs,
    source: &Path,
    is_current: &dyn Fn() -> bool,
) -> Result<()> {
    let cannot = |e: rusqlite::Error| named(path, &e);
    let mut conn = open_exclusively(path, vfs).map_err(cannot)?;
    if !is_current() {
        let message = format!("{} was written meanwhile", path.display());
        return Err(Error::new(ErrorKind::Busy, message));
    }
    let source = InternalConnection::open(source, OpenFlags::SQLITE_OPEN_READ_ONLY, vfs).map_err(cannot)?;
    let step = Backup::new(&source, &mut conn).and_then(|backup| backup.step(-1)).map_err(cannot)?;
    if step != StepResult::Done {
        return Err(Error::new(ErrorKind::Busy, format!("{} is locked", path.display())));
    }
    conn.close().map_err(cannot)
}

/// A connection that keeps everybody else out until it is closed. A reader in WAL mode that asks for this
/// gets the exclusive lock of the database file before it looks at the WAL.
fn open_exclusively(path: &Path, vfs: &BaseVfs) -> rusqlite::Result<InternalConnection> {
    let conn = InternalConnection::open(path, OpenFlags::SQLITE_OPEN_READ_WRITE, vfs)?;
    conn.busy_timeout(Duration::ZERO)?;
    conn.query_row("PRAGMA locking_mode = exclusive", (), |_| Ok(()))?;
    conn.locking(|conn| conn.query_row("SELECT count(*) FROM sqlite_schema", (), |_| Ok(())))?;
    // The new content is on the disk before anybody builds on it.
    conn.execute_batch("PRAGMA synchronous = full")?;
    Ok(conn)
}

fn named(path: &Path, e: &rusqlite::Error) -> Error {
    use rusqlite::ErrorCode;

    let kind = match e.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => ErrorKind::Busy,
        Some(ErrorCode::DiskFull) => ErrorKind::NoSpace,
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => ErrorKind::Corrupt,
        _ => ErrorKind::Io,
    };
    Error::new(kind, format!("cannot bring {} forward: {e}", path.display()))
}
