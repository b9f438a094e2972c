//! Puts a database into WAL mode. Commits can be captured in no other.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::OpenFlags;

use crate::error::{Error, ErrorKind, Result};
use crate::sqlite::{BaseFile, BaseVfs, open_internal};

/// The time from one try to the next while another connection writes.
const AGAIN: Duration = Duration::from_millis(20);

/// What the first bytes of a database file tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum JournalMode {
    /// The file is empty: SQLite has not written it yet.
    Empty,
    /// A rollback journal.
    Rollback,
    /// A WAL.
    Wal,
}

/// Reads the journal mode of a database file. Takes no lock.
///
/// # Errors
/// `NotADatabase`; `Io`.
pub(super) fn journal_mode(file: &mut BaseFile, path: &Path) -> Result<JournalMode> {
    const MAGIC: &[u8; 16] = b"SQLite format 3\0";
    let failed = |code| Error::new(ErrorKind::Io, format!("cannot read {}: {code}", path.display()));
    if file.file_size().map_err(failed)? == 0 {
        return Ok(JournalMode::Empty);
    }
    let mut header = [0; 100];
    let _short_is_zeros = file.read(&mut header, 0).map_err(failed)?;
    if !header.starts_with(MAGIC) {
        return Err(Error::new(
            ErrorKind::NotADatabase,
            format!("{} is not a database: it does not begin as SQLite files do", path.display()),
        ));
    }
    Ok(if header[18] == 2 && header[19] == 2 { JournalMode::Wal } else { JournalMode::Rollback })
}

/// Puts the database into WAL mode by a connection of our own, for which other connections may keep it
/// waiting for `patience`.
///
/// # Errors
/// `Busy` if other connections do not let it; `Unsupported` if the mode cannot be had there; that of SQLite's answer.
pub(super) fn enter(path: &Path, vfs: &BaseVfs, patience: Duration) -> Result<()> {
    let cannot = |kind, why: &dyn std::fmt::Display| {
        Error::new(
            kind,
            format!("cannot put {} into WAL mode, which replication needs: {why}", path.display()),
        )
    };
    let deadline = Instant::now() + patience;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match ask_for_wal(path, vfs, left) {
            Ok(mode) if mode == "wal" => return Ok(()),
            Ok(mode) => return Err(cannot(ErrorKind::Unsupported, &format_args!("it stays in mode {mode}"))),
            // SQLite waits for those who read, and not for one who writes.
            Err(e) if is_busy(&e) && !left.is_zero() => std::thread::sleep(AGAIN.min(left)),
            Err(e) if is_busy(&e) => {
                return Err(cannot(
                    ErrorKind::Busy,
                    &"another connection uses it in another mode: close that one first",
                ));
            }
            Err(e) => return Err(cannot(kind_of(&e), &e)),
        }
    }
}

/// The kind of what SQLite answers.
fn kind_of(error: &rusqlite::Error) -> ErrorKind {
    use rusqlite::ErrorCode;

    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => ErrorKind::NotADatabase,
        Some(ErrorCode::DatabaseCorrupt) => ErrorKind::Corrupt,
        Some(ErrorCode::ReadOnly) => ErrorKind::ReadOnly,
        Some(ErrorCode::CannotOpen) => ErrorKind::NotFound,
        Some(ErrorCode::DiskFull) => ErrorKind::NoSpace,
        _ => ErrorKind::Io,
    }
}

fn ask_for_wal(path: &Path, vfs: &BaseVfs, patience: Duration) -> rusqlite::Result<String> {
    let conn = open_internal(path, OpenFlags::SQLITE_OPEN_READ_WRITE, vfs)?;
    conn.busy_timeout(patience)?;
    conn.query_row("PRAGMA journal_mode = wal", (), |row| row.get(0))
}

fn is_busy(e: &rusqlite::Error) -> bool {
    e.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy)
}
