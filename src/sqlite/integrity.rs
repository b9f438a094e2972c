//! SQLite's own check of a database file that nobody has open.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::{BaseVfs, InternalConnection};
use crate::error::{Error, ErrorKind, Result};
use crate::signals;

/// How thoroughly SQLite looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Integrity {
    /// `PRAGMA quick_check`: indexes are not compared with their tables.
    Quick,
    /// `PRAGMA integrity_check`.
    Full,
}

impl Integrity {
    const fn pragma(self) -> &'static str {
        match self {
            Self::Quick => "quick_check",
            Self::Full => "integrity_check",
        }
    }
}

/// How often it is looked whether to stop.
const GLANCE: Duration = Duration::from_millis(50);

/// Lets SQLite check the database file at `path`, which nobody writes to meanwhile. Gives up as soon as
/// `stop` says so.
///
/// # Errors
/// `Corrupt` with what SQLite found; `Interrupted`; `Io` if the file cannot be opened.
pub fn check_integrity(path: &Path, integrity: Integrity, stop: impl Fn() -> bool + Sync) -> Result<()> {
    let base = BaseVfs::host_default()
        .ok_or_else(|| Error::new(ErrorKind::Unsupported, "this SQLite has no default VFS"))?;
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let cannot = |e: rusqlite::Error| {
        Error::new(ErrorKind::Io, format!("cannot check {}: {e}", path.display())).with_source(e)
    };
    let conn = InternalConnection::open(Path::new(&immutable(path)?), flags, &base).map_err(cannot)?;
    let interrupt = conn.get_interrupt_handle();
    let (done, stopped) = (AtomicBool::new(false), AtomicBool::new(false));
    let findings = thread::scope(|scope| {
        let blocked = signals::block_all();
        // Without a thread to be had the check runs to its end.
        let watcher = thread::Builder::new().spawn_scoped(scope, || {
            while !done.load(Ordering::Relaxed) {
                if stop() {
                    stopped.store(true, Ordering::Relaxed);
                    interrupt.interrupt();
                }
                thread::park_timeout(GLANCE);
            }
        });
        drop(blocked);
        let findings = findings(&conn, integrity);
        done.store(true, Ordering::Relaxed);
        if let Ok(watcher) = watcher {
            watcher.thread().unpark();
        }
        findings
    });
    match findings {
        _ if stopped.load(Ordering::Relaxed) => Err(Error::new(ErrorKind::Interrupted, "interrupted")),
        Ok(findings) if findings == ["ok"] => Ok(()),
        Ok(findings) => Err(failed(integrity, &findings.join("; "))),
        Err(e @ rusqlite::Error::SqliteFailure(_, _)) => Err(failed(integrity, &e.to_string())),
        Err(e) => Err(cannot(e)),
    }
}

/// The first lines that SQLite answers.
fn findings(conn: &Connection, integrity: Integrity) -> rusqlite::Result<Vec<String>> {
    let mut check = conn.prepare(&format!("PRAGMA {}(3)", integrity.pragma()))?;
    check.query_map((), |row| row.get(0))?.collect()
}

fn failed(integrity: Integrity, findings: &str) -> Error {
    Error::corrupt(format!("the database fails PRAGMA {}: {findings}", integrity.pragma()))
}

/// The URI of a file that does not change: SQLite takes no locks and looks for no log.
fn immutable(path: &Path) -> Result<String> {
    let path = path.to_str().ok_or_else(|| {
        Error::new(ErrorKind::Unsupported, format!("cannot check {}: its name is not UTF-8", path.display()))
    })?;
    let escaped = path.replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    Ok(format!("file:{escaped}?immutable=1"))
}
