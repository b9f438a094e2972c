//! Databases whose open is refused with a message.
//!
//! `xOpen` cannot give a text. So the open succeeds with a file that has an [`open_error`], and the
//! auto-extension, which runs at the end of `sqlite3_open`, fails it with the code and the message.
//! `ATTACH` runs no auto-extension, and has no other place where a VFS could say more than a code.
//!
//! [`open_error`]: File::open_error

use std::cell::Cell;
use std::path::{Path, PathBuf};

use super::{BaseFile, Code, File, LockLevel, ReadOutcome, log};
use crate::failures::{self, Attempt};

/// What SQLite reads of a file while it opens it: the header of a database, in bytes.
const HEADER: usize = 100;
/// Stands in for a main database whose open is refused. Nothing is opened or created.
///
/// `ATTACH` fails with the code when it takes its first lock, or, if its URI switches locks off, when it reads the
/// first page; the message is in SQLite's log and in [`failures`].
#[derive(Debug)]
pub struct RefusedFile {
    path: PathBuf,
    code: Code,
    message: String,
}

impl RefusedFile {
    /// The size that the file pretends to have, in bytes: that of the largest page. Of an empty file SQLite would read
    /// nothing, and take it for an empty database.
    pub const SIZE: u64 = 65536;

    /// A refusal to open `path` with `code` that says `message`, which must carry no secret.
    pub fn new(path: impl Into<PathBuf>, code: Code, message: impl Into<String>) -> Self {
        Self { path: path.into(), code, message: message.into() }
    }

    fn refuse(&self) -> Code {
        note(&self.path, self.code, &self.message);
        self.code
    }
}

impl File for RefusedFile {
    fn base(&mut self) -> Option<&mut BaseFile> {
        None
    }

    /// SQLite reads the header while it opens the file; that is no error yet.
    fn read(&mut self, buf: &mut [u8], _offset: u64) -> Result<ReadOutcome, Code> {
        if buf.len() == HEADER || AS_IF_EMPTY.get() {
            Ok(ReadOutcome::of(buf, 0))
        } else {
            Err(self.refuse())
        }
    }

    fn file_size(&mut self) -> Result<u64, Code> {
        Ok(if AS_IF_EMPTY.get() { 0 } else { Self::SIZE })
    }

    fn lock(&mut self, _level: LockLevel) -> Result<(), Code> {
        if AS_IF_EMPTY.get() {
            return Ok(());
        }
        Err(self.refuse())
    }

    fn open_error(&self) -> Option<(Code, &str)> {
        Some((self.code, &self.message))
    }
}

thread_local! {
    /// Whether refused databases are empty ones for this thread.
    static AS_IF_EMPTY: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work`, for which the refused databases of this thread are empty ones: SQLite from some version on reads
/// the schema before it runs any statement.
pub(super) fn as_if_empty<T>(work: impl FnOnce() -> T) -> T {
    AS_IF_EMPTY.set(true);
    let done = work();
    AS_IF_EMPTY.set(false);
    done
}

/// Writes a refusal to SQLite's log and keeps it.
fn note(path: &Path, code: Code, message: &str) {
    log::log(code, &format!("litestream: cannot open {}: {message}", path.display()));
    failures::record(Attempt::Open, Some(path), message);
}

/// The same, for a refusal whose message is the error of `sqlite3_open`.
pub(super) fn note_shown(path: &Path, code: Code, message: &str) {
    log::log(code, &format!("litestream: cannot open {}: {message}", path.display()));
    failures::record_shown(Attempt::Open, Some(path), message);
}
