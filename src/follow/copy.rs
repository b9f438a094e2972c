//! The file of a copy, reached as SQLite reaches it: through the operating system's VFS, under SQLite's locks.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::page_one;
use super::state::Stamp;
use crate::error::{Error, ErrorKind, Result};
use crate::fork;
use crate::page::PageSize;
use crate::sqlite::{
    BaseFile, BaseVfs, Code, InternalConnection, LockLevel, OpenFlags, ReadOutcome, SyncFlags,
};

/// How long the lock of a reader is waited for that another one keeps away, or a transaction that was broken off.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest time from one try to the next.
const PAUSE: Duration = Duration::from_millis(20);

/// How readers are treated that are in the way of a transaction: they go first for a while, in which others may begin to
/// read; then those that begin wait, until those that read have ended. The more of them do not end, the rarer that is.
#[derive(Debug)]
struct Manners {
    /// For how long readers go first.
    polite: Duration,
    /// For how long those that begin wait then.
    insists: Duration,
    /// When that begins, if readers are in the way.
    next: Option<Instant>,
}

impl Default for Manners {
    fn default() -> Self {
        Self { polite: Duration::from_millis(50), insists: Duration::from_millis(300), next: None }
    }
}

impl Manners {
    /// For how long those wait that begin to read now, if any reader is in the way.
    fn now(&mut self) -> Duration {
        let now = Instant::now();
        let next = *self.next.get_or_insert(now + self.polite);
        if now >= next { self.insists } else { Duration::ZERO }
    }

    /// They waited in vain.
    fn give_in(&mut self) {
        self.polite = (self.polite * 3).min(Duration::from_secs(10));
        self.insists = (self.insists * 2).min(Duration::from_secs(2));
        self.next = Some(Instant::now() + self.polite);
    }
}

/// An open file of a copy.
#[derive(Debug)]
pub(super) struct Copy {
    path: PathBuf,
    vfs: BaseVfs,
    file: BaseFile,
    manners: Manners,
}

impl Copy {
    /// Opens the file at `path`.
    ///
    /// # Errors
    /// `Denied` if it may not be written; `Io`.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let _section = fork::section();
        let vfs = BaseVfs::host_default()
            .ok_or_else(|| Error::new(ErrorKind::Unsupported, "this SQLite has no default VFS"))?
            .operating_system();
        let (file, flags) =
            vfs.open_database(path, &[], OpenFlags::READWRITE).map_err(|code| failed("open", path, code))?;
        let copy = Self { path: path.to_owned(), vfs, file, manners: Manners::default() };
        if flags.is_readonly() {
            let message = format!("{} cannot be written by this user: follow as its owner", path.display());
            return Err(Error::new(ErrorKind::Denied, message));
        }
        Ok(copy)
    }

    /// Its rollback journal.
    fn journal(&self) -> PathBuf {
        journal_of(&self.path)
    }

    /// Holds SHARED, as a reader does: nobody writes the file until it is dropped. What a transaction left that was broken
    /// off is undone before.
    ///
    /// # Errors
    /// `Busy` if another program writes; `Conflict` if the file was replaced; `Io`.
    pub(super) fn hold(&mut self) -> Result<Held<'_>> {
        let deadline = Instant::now() + PATIENCE;
        while !self.try_hold()? {
            if Instant::now() >= deadline {
                let message = format!("{} is locked by another program", self.path.display());
                return Err(Error::new(ErrorKind::Busy, message));
            }
            std::thread::sleep(PAUSE);
        }
        Ok(Held { copy: self })
    }

    /// Takes SHARED, unless another program writes or a hot journal is to be played back first.
    fn try_hold(&mut self) -> Result<bool> {
        self.undo()?;
        match self.lock(LockLevel::Shared) {
            Ok(()) => {}
            Err(code) if code.primary() == Code::BUSY.primary() => return Ok(false),
            Err(code) => return Err(failed("lock", &self.path, code)),
        }
        if self.file.has_moved() {
            self.unlock(LockLevel::None);
            let message = format!("{} was removed, renamed or replaced", self.path.display());
            return Err(Error::new(ErrorKind::Conflict, message));
        }
        let is_held = !self.has_hot_journal();
        if !is_held {
            self.unlock(LockLevel::None);
        }
        Ok(is_held)
    }

    /// Whether there is a journal that is to be played back. SQLite cuts or overwrites one that is not.
    fn has_hot_journal(&self) -> bool {
        let first = File::open(self.journal()).and_then(|file| {
            let mut first = [0];
            file.read_exact_at(&mut first, 0).map(|()| first[0])
        });
        first.is_ok_and(|first| first != 0)
    }

    /// Has SQLite play back the journal of a transaction that was broken off, if there is one.
    ///
    /// # Errors
    /// `Busy` if another program keeps the file locked; `Io`.
    pub(super) fn undo(&self) -> Result<()> {
        if !self.has_hot_journal() {
            return Ok(());
        }
        let _section = fork::section();
        let undone =
            InternalConnection::open(&self.path, rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE, &self.vfs)
                .and_then(|conn| {
                    conn.busy_timeout(PATIENCE)?;
                    // Of all statements that begin a transaction this one reads neither the schema nor another page.
                    conn.locking(|conn| conn.query_row("PRAGMA user_version", (), |_| Ok(())))
                });
        undone.map_err(|e| {
            let kind = match e.sqlite_error_code() {
                Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked) => {
                    ErrorKind::Busy
                }
                _ => ErrorKind::Io,
            };
            let what =
                format!("cannot undo the transaction that was broken off in {}: {e}", self.path.display());
            Error::new(kind, what)
        })
    }

    fn lock(&mut self, level: LockLevel) -> Result<(), Code> {
        let _section = fork::section();
        self.file.lock(level)
    }

    /// What cannot be released goes with the file.
    fn unlock(&mut self, level: LockLevel) {
        let _section = fork::section();
        if let Err(code) = self.file.unlock(level) {
            tracing::warn!("cannot release the lock on {}: {code}", self.path.display());
        }
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        let _section = fork::section();
        // There is nobody to tell.
        let _ = self.file.close();
    }
}

/// A copy with SHARED at least, until it is dropped.
#[derive(Debug)]
pub(super) struct Held<'a> {
    copy: &'a mut Copy,
}

impl Held<'_> {
    /// What tells the file from what it was or will be.
    ///
    /// # Errors
    /// `Io`; `Unsupported` if it does not begin as a database does.
    pub(super) fn stamp(&mut self) -> Result<Stamp> {
        let mut page = vec![0; self.page_size()?.bytes()];
        self.read(&mut page, 0)?;
        Ok(Stamp::of(self.size()?, &page))
    }

    /// The size of its pages.
    ///
    /// # Errors
    /// As [`Held::stamp`].
    pub(super) fn page_size(&mut self) -> Result<PageSize> {
        let mut header = [0; page_one::HEADER];
        self.read(&mut header, 0)?;
        page_one::page_size(&header)
    }

    /// The size of the file in bytes.
    ///
    /// # Errors
    /// `Io`.
    pub(super) fn size(&mut self) -> Result<u64> {
        self.copy.file.file_size().map_err(|code| self.failed("look at", code))
    }

    /// Reads at `offset`; zeros beyond the end.
    ///
    /// # Errors
    /// `Io`.
    pub(super) fn read(&mut self, buf: &mut [u8], offset: u64) -> Result<()> {
        match self.copy.file.read(buf, offset) {
            Ok(ReadOutcome::Full | ReadOutcome::Short) => Ok(()),
            Err(code) => Err(self.failed("read", code)),
        }
    }

    /// Keeps everybody else out, as soon as no reader is in a transaction. Gives up when `patience` is over, or when
    /// `stopped` says so.
    ///
    /// # Errors
    /// `Busy` if readers do not end, or another program writes; `Interrupted`; `Io`.
    pub(super) fn exclude(&mut self, patience: Duration, stopped: &dyn Fn() -> bool) -> Result<()> {
        let begun = Instant::now();
        let mut pause = Duration::from_millis(1);
        loop {
            let insists = self.copy.manners.now();
            if self.try_exclude(insists)? {
                self.copy.manners = Manners::default();
                return Ok(());
            }
            if !insists.is_zero() {
                self.copy.manners.give_in();
            }
            if stopped() {
                return Err(Error::new(ErrorKind::Interrupted, "interrupted"));
            }
            if begun.elapsed() >= patience {
                let (path, seconds) = (self.copy.path.display(), patience.as_secs());
                let message = format!(
                    "{path} is being read, for {seconds} s by now: what is new waits for the end of that"
                );
                return Err(Error::new(ErrorKind::Busy, message));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(PAUSE);
        }
    }

    /// Tries to take EXCLUSIVE. Until it is had, or for as long as `insists`, no reader begins.
    fn try_exclude(&mut self, insists: Duration) -> Result<bool> {
        let until = Instant::now() + insists;
        self.copy.lock(LockLevel::Reserved).map_err(|code| match code.primary() == Code::BUSY.primary() {
            true => {
                Error::new(ErrorKind::Busy, format!("another program writes {}", self.copy.path.display()))
            }
            false => self.failed("lock", code),
        })?;
        loop {
            match self.copy.lock(LockLevel::Exclusive) {
                Ok(()) => return Ok(true),
                Err(code) if code.primary() != Code::BUSY.primary() => return Err(self.failed("lock", code)),
                Err(_) if Instant::now() >= until => {
                    self.copy.unlock(LockLevel::Shared);
                    return Ok(false);
                }
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    /// Writes at `offset`.
    ///
    /// # Errors
    /// `NoSpace`, `Io`.
    pub(super) fn write(&mut self, bytes: &[u8], offset: u64) -> Result<()> {
        self.copy.file.write(bytes, offset).map_err(|code| self.failed("write", code))
    }

    /// Gives the file `size` bytes.
    ///
    /// # Errors
    /// `NoSpace`, `Io`.
    pub(super) fn resize(&mut self, size: u64) -> Result<()> {
        self.copy.file.truncate(size).map_err(|code| self.failed("resize", code))
    }

    /// Brings all to the disk.
    ///
    /// # Errors
    /// `NoSpace`, `Io`.
    pub(super) fn sync(&mut self) -> Result<()> {
        self.copy.file.sync(SyncFlags::NORMAL).map_err(|code| self.failed("sync", code))
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.copy.path
    }

    /// Where its journal is.
    pub(super) fn journal(&self) -> PathBuf {
        self.copy.journal()
    }

    fn failed(&self, what: &str, code: Code) -> Error {
        failed(what, &self.copy.path, code)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.copy.unlock(LockLevel::None);
    }
}

/// The rollback journal of the database `path`.
pub(super) fn journal_of(path: &Path) -> PathBuf {
    beside(path, "-journal")
}

/// The file beside the database `path` whose name ends with `suffix`.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn failed(what: &str, path: &Path, code: Code) -> Error {
    let kind = match code.primary() {
        primary if primary == Code::FULL.primary() => ErrorKind::NoSpace,
        primary if primary == Code::READONLY.primary() => ErrorKind::ReadOnly,
        _ => ErrorKind::Io,
    };
    let why = match kind {
        ErrorKind::NoSpace => "no space is left on its disk".to_owned(),
        _ => code.to_string(),
    };
    Error::new(kind, format!("cannot {what} {}: {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_readers_wait_soon_at_first_and_rarely_where_one_does_not_end() {
        let mut manners = Manners::default();
        assert!(manners.now().is_zero());
        let (mut waited, mut passed) = (Duration::ZERO, Duration::ZERO);
        for round in 0..10 {
            manners.next = Some(Instant::now());
            assert_eq!(manners.now(), manners.insists);
            passed += manners.polite + manners.insists;
            waited += manners.insists;
            manners.give_in();
            assert!(manners.now().is_zero() && (round > 0 || passed < Duration::from_millis(500)));
        }
        assert!(waited * 3 < passed, "{waited:?} of {passed:?}");
    }
}
