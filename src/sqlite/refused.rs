//! A database whose open is refused with a message.

use super::{BaseFile, Code, File, LockLevel, ReadOutcome};

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
