//! Puts a database into WAL mode. Commits can be captured in no other.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::OpenFlags;

use crate::error::{Error, ErrorKind, Result};
use crate::fork::PerProcess;
use crate::sqlite::{BaseFile, BaseVfs, InternalConnection, OpenFlags as BaseFlags};
use crate::vfs::first_page::FirstPage;

/// The time from one try to the next while another connection writes.
const AGAIN: Duration = Duration::from_millis(20);

/// Whether a database has a WAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum JournalMode {
    /// It has.
    Wal,
    /// It has a rollback journal.
    Rollback,
    /// It cannot be told from the file: SQLite has not written it yet, it is encrypted, or it is none.
    Unknown,
}

/// Reads the journal mode from `file`, which the host's VFS `vfs` opened: as the operating system has the file, not
/// as a VFS that decrypts shows it. Takes no lock, and judges nothing: that is for SQLite to do.
///
/// # Errors
/// `Io`.
pub(super) fn journal_mode(file: &mut BaseFile, vfs: &BaseVfs, path: &Path) -> Result<JournalMode> {
    let failed = |code| Error::new(ErrorKind::Io, format!("cannot read {}: {code}", path.display()));
    let below = vfs.operating_system();
    let first = if below == *vfs {
        FirstPage::read(file)
    } else {
        below
            .open_database(path, &[], BaseFlags::READWRITE)
            .and_then(|(mut file, _)| FirstPage::read(&mut file))
    };
    Ok(match first.map_err(failed)? {
        FirstPage::Plain(header) if header.is_wal => JournalMode::Wal,
        FirstPage::Plain(_) => JournalMode::Rollback,
        FirstPage::Empty | FirstPage::Opaque => JournalMode::Unknown,
    })
}

/// Whether the host's VFS `vfs` encrypts the database file below us, in a way of its own: the WAL, which comes through it
/// too, is then not what we take it for.
pub(super) fn is_encrypted_below(vfs: &BaseVfs, path: &Path) -> bool {
    let below = vfs.operating_system();
    let first = || {
        below.open_database(path, &[], BaseFlags::READWRITE).and_then(|(mut f, _)| FirstPage::read(&mut f))
    };
    below != *vfs && matches!(first(), Ok(FirstPage::Opaque))
}

/// What a program is told whose VFS encrypts below us.
pub(super) fn encrypted_below(vfs: &BaseVfs, path: &Path) -> Error {
    let message = format!(
        "{} is encrypted by the VFS {}, below this one, so that its WAL cannot be read as SQLite wrote it: it cannot be \
         replicated so. SQLCipher and SQLite3MultipleCiphers can be, which encrypt in front of it",
        path.display(),
        vfs.name().to_string_lossy()
    );
    Error::new(ErrorKind::Unsupported, message)
}

/// What else than another connection kept a database from being put into WAL mode last, by path.
static REFUSED: PerProcess<Mutex<BTreeMap<PathBuf, String>>> = PerProcess::new();

fn all_refused() -> MutexGuard<'static, BTreeMap<PathBuf, String>> {
    REFUSED.get().lock().unwrap_or_else(PoisonError::into_inner)
}

/// What else than another connection kept the database from being put into WAL mode, if anything did last.
pub(super) fn refused(path: &Path) -> Option<String> {
    all_refused().get(path).cloned()
}

/// Puts the database into WAL mode by a connection of our own, for which other connections may keep it
/// waiting for `patience`.
///
/// # Errors
/// `Busy` if other connections do not let it; `Unsupported` if the mode cannot be had there; that of SQLite's answer.
pub(super) fn enter(path: &Path, vfs: &BaseVfs, patience: Duration) -> Result<()> {
    let entered = try_to_enter(path, vfs, patience);
    match entered.as_ref().err().filter(|e| e.kind() != ErrorKind::Busy) {
        Some(e) => all_refused().insert(path.to_path_buf(), e.to_string()),
        None => all_refused().remove(path),
    };
    entered
}

fn try_to_enter(path: &Path, vfs: &BaseVfs, patience: Duration) -> Result<()> {
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
                    &"another connection uses it in another mode; it is tried again after each statement",
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
    let conn = InternalConnection::open(path, OpenFlags::SQLITE_OPEN_READ_WRITE, vfs)?;
    conn.busy_timeout(patience)?;
    conn.locking(|conn| conn.query_row("PRAGMA journal_mode = wal", (), |row| row.get(0)))
}

fn is_busy(e: &rusqlite::Error) -> bool {
    e.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy)
}
