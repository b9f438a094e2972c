//! A database whose open is refused with a message.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::{BaseFile, Code, File, LockLevel, ReadOutcome, log};

/// The latest refusal of this process.
static LAST: Mutex<Option<Refusal>> = Mutex::new(None);

/// That the open of a database was refused, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The database.
    pub path: PathBuf,
    /// The code that SQLite answers.
    pub code: Code,
    /// What the user should read.
    pub message: String,
}

/// The latest refusal of this process. A refused `ATTACH` shows only its code: the message is here and
/// in SQLite's log.
pub fn last_refusal() -> Option<Refusal> {
    LAST.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Writes a refusal to SQLite's log and keeps it.
pub(super) fn note(path: Option<&Path>, code: Code, message: &str) {
    let path = path.unwrap_or(Path::new("")).to_owned();
    log::log(code, &format!("litestream: cannot open {}: {message}", path.display()));
    let refusal = Refusal { path, code, message: message.to_owned() };
    *LAST.lock().unwrap_or_else(PoisonError::into_inner) = Some(refusal);
}

/// Stands in for a main database whose open is refused.
///
/// `xOpen` cannot give a text. So the open succeeds with this file, and the auto-extension, which runs
/// at the end of `sqlite3_open`, fails it with the code and the message. `ATTACH` runs no
/// auto-extension: there the first lock fails with the code, and the message is in SQLite's log only.
#[derive(Debug)]
pub struct RefusedFile {
    code: Code,
    message: String,
}

impl RefusedFile {
    /// A refusal with `code` that says `message`, which must carry no secret.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl File for RefusedFile {
    fn base(&mut self) -> Option<&mut BaseFile> {
        None
    }

    /// SQLite reads the header while it opens the file; an empty file is no error yet.
    fn read(&mut self, buf: &mut [u8], _offset: u64) -> Result<ReadOutcome, Code> {
        Ok(ReadOutcome::of(buf, 0))
    }

    fn lock(&mut self, _level: LockLevel) -> Result<(), Code> {
        Err(self.code)
    }

    fn open_error(&self) -> Option<(Code, &str)> {
        Some((self.code, &self.message))
    }
}
