//! The main database of a primary: everything passes to the host's VFS, commits are noted.

use std::any::Any;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::clock::SystemClock;
use crate::config::PrimaryConfig;
use crate::error::{Error, ErrorKind};
use crate::files::OpenLock;
use crate::primary::Primary;
use crate::sqlite::{
    BaseFile, BaseVfs, Code, File, LockLevel, OpenFlags, OpenRequest, Opened, PragmaAnswer, ShmLock,
    ShmLockFlags,
};
use crate::store::{self, RetryPolicy};
use crate::vfs::closing::Closing;
use crate::vfs::read_view::SqliteHost;
use crate::vfs::reset_guard::{self, ResetGuard};
use crate::vfs::wal_mode::{self, JournalMode};
use crate::vfs::{hidden, pragma};
use crate::wal::IndexHeader;

/// The publisher has its own, patient way to try again, and status tells of each failure: only a hiccup
/// is hidden here.
const RETRY: RetryPolicy = RetryPolicy {
    max_attempts: 3,
    base_delay: Duration::from_millis(50),
    max_delay: Duration::from_millis(500),
    max_elapsed: Duration::from_secs(2),
};

/// How long an open waits for other connections that keep the database in another mode.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often a file that was replaced is opened again.
const REOPENS: usize = 10;

struct PrimaryFile {
    base: BaseFile,
    vfs: BaseVfs,
    path: PathBuf,
    primary: Arc<Primary>,
    guard: ResetGuard,
    closing: Closing,
    /// The database is in WAL mode. Until it is, every release of the lock is a chance to put it
    /// there: SQLite creates a database with a rollback journal.
    in_wal_mode: bool,
    /// The database counts as open until the last connection of the process is closed.
    _open_lock: OpenLock,
}

/// Opens a database as a primary, for the connection at the address `connection`.
pub(super) fn open(
    request: &OpenRequest<'_>,
    config: PrimaryConfig,
    connection: usize,
) -> Result<Opened, Error> {
    let path = config.path;
    let (mut base, out_flags, open_lock) = open_base(request, &path)?;
    let mode = match wal_mode::journal_mode(&mut base, &path)? {
        JournalMode::Rollback => {
            wal_mode::enter(&path, request.base(), PATIENCE)?;
            JournalMode::Wal
        }
        mode => mode,
    };
    let vfs = *request.base();
    let primary = Primary::open(
        &path,
        &config.target,
        config.options,
        Arc::new(SystemClock),
        || store::connect_for(&path, &config.target, RETRY),
        || Arc::new(SqliteHost::new(&path, vfs)),
    )?;
    let guard = ResetGuard::new(config.wal_reset_guard && reset_guard::is_needed(rusqlite::version_number()));
    let in_wal_mode = mode == JournalMode::Wal;
    let closing = Closing::of(connection);
    let file = PrimaryFile { base, vfs, path, primary, guard, closing, in_wal_mode, _open_lock: open_lock };
    Ok(Opened::File { file: Box::new(file), out_flags })
}

/// Opens the file, and has it count as open. A restore that came in between replaced it: then the new one
/// is opened.
fn open_base(request: &OpenRequest<'_>, path: &Path) -> Result<(BaseFile, OpenFlags, OpenLock), Error> {
    let open = || {
        let (base, out_flags) = request.open_base().map_err(|code| cannot_open(path, code))?;
        if out_flags.is_readonly() { Err(cannot_write(path)) } else { Ok((base, out_flags)) }
    };
    let (mut base, mut out_flags) = open()?;
    // Its folder is made with the owner and permissions of the file, which is there now.
    let open_lock = OpenLock::take(path)?;
    for _ in 0..REOPENS {
        if !base.has_moved() {
            break;
        }
        (base, out_flags) = open()?;
    }
    if base.has_moved() {
        let message = format!("{} is replaced again and again; try later", path.display());
        return Err(Error::new(ErrorKind::Busy, message));
    }
    Ok((base, out_flags, open_lock))
}

fn cannot_open(path: &Path, code: Code) -> Error {
    let why = match std::fs::metadata(path.parent().unwrap_or(Path::new("."))) {
        Err(e) => format!("its folder cannot be used: {e}"),
        Ok(_) => code.to_string(),
    };
    Error::new(ErrorKind::NotFound, format!("cannot open {}: {why}", path.display()))
}

fn cannot_write(path: &Path) -> Error {
    Error::new(
        ErrorKind::ReadOnly,
        format!(
            "{} cannot be written, and a primary writes: give the process write permission, or add \
             mode=ro to read the replica",
            path.display()
        ),
    )
}

impl PrimaryFile {
    /// Shows the primary what SQLite has committed. To be called while no other connection writes.
    fn look_at_index(&self) {
        let Some(region) = self.base.shm_region(0) else { return };
        let mut bytes = [0; IndexHeader::SIZE];
        region.copy_to(0, &mut bytes);
        if let Some(header) = IndexHeader::decode(&bytes) {
            self.primary.look(header);
        }
    }

    fn enter_wal_mode(&mut self) {
        let entered = match wal_mode::journal_mode(&mut self.base, &self.path) {
            // The next release of the lock tries again: the host's thread does not wait here.
            Ok(JournalMode::Rollback) => {
                wal_mode::enter(&self.path, &self.vfs, Duration::ZERO).map(|()| true)
            }
            Ok(mode) => Ok(mode == JournalMode::Wal),
            Err(e) => Err(e),
        };
        match entered {
            Ok(true) => {
                self.in_wal_mode = true;
                self.primary.entered_wal_mode();
            }
            Ok(false) => {}
            Err(e) => tracing::warn!("{e}"),
        }
    }
}

impl File for PrimaryFile {
    fn base(&mut self) -> Option<&mut BaseFile> {
        Some(&mut self.base)
    }

    fn write(&mut self, data: &[u8], offset: u64) -> Result<(), Code> {
        // Bytes 18 and 19 of page 1 are the journal mode. The PRAGMA is refused, but one that names no
        // schema reaches an attached database without being asked.
        if self.in_wal_mode && offset == 0 && data.get(18) == Some(&1) {
            self.in_wal_mode = false;
            self.primary.left_wal_mode();
        }
        self.base.write(data, offset)
    }

    fn lock(&mut self, level: LockLevel) -> Result<(), Code> {
        hidden::locking_other();
        if level != LockLevel::Exclusive {
            return self.base.lock(level);
        }
        let began = self.closing.step();
        match self.base.lock(level) {
            Err(code) if code.primary() == Code::BUSY.primary() && self.primary.wait_for_views(began) => {
                self.base.lock(level)?;
            }
            other => other?,
        }
        // The last connection is about to checkpoint and delete the WAL.
        self.look_at_index();
        Ok(())
    }

    fn unlock(&mut self, level: LockLevel) -> Result<(), Code> {
        self.base.unlock(level)?;
        if !self.in_wal_mode && level == LockLevel::None {
            self.enter_wal_mode();
        }
        Ok(())
    }

    fn shm_lock(&mut self, lock: ShmLock, flags: ShmLockFlags) -> Result<(), Code> {
        self.closing.goes_on();
        if !(lock.covers(ShmLock::WRITE) && flags.is_exclusive()) {
            self.guard.shm_lock(&mut self.base, lock, flags)?;
            if lock.covers(ShmLock::CHECKPOINT) && flags.is_exclusive() && flags.is_lock() {
                self.primary.checkpoint_begins();
            }
            return Ok(());
        }
        if flags.is_lock() {
            self.guard.shm_lock(&mut self.base, lock, flags)?;
            // What other processes committed, before this one may restart the WAL.
            self.look_at_index();
            self.primary.set_write_locked(true);
            Ok(())
        } else {
            // While the lock is still held, what the header says cannot change.
            self.look_at_index();
            self.primary.set_write_locked(false);
            self.guard.shm_lock(&mut self.base, lock, flags)
        }
    }

    fn pragma(&mut self, name: &str, arg: Option<&str>) -> PragmaAnswer {
        match (name.to_ascii_lowercase().as_str(), arg) {
            ("journal_mode", Some(mode)) if !mode.eq_ignore_ascii_case("wal") => {
                PragmaAnswer::Error(format!(
                    "journal_mode={mode} is refused while {} is replicated, which needs WAL mode; open it with \
                 vfs=unix to change the mode",
                    self.path.display()
                ))
            }
            ("litestream_txid", None) => {
                PragmaAnswer::Value(self.primary.txid().map_or_else(String::new, |t| t.to_string()))
            }
            ("litestream_lag", None) => {
                PragmaAnswer::Value(format!("{:.3}", self.primary.lag().as_secs_f64()))
            }
            ("litestream_time", None) => {
                PragmaAnswer::Value(self.primary.time().map_or_else(String::new, |t| t.to_string()))
            }
            _ => pragma::unknown(name),
        }
    }

    fn close(&mut self) -> Result<(), Code> {
        // Locks go first: nobody waits for the network.
        let closed = self.base.close();
        self.primary.close(self.closing.step());
        self.closing.end();
        closed
    }

    fn role(&self) -> Option<Arc<dyn Any + Send + Sync>> {
        Some(Arc::clone(&self.primary) as Arc<dyn Any + Send + Sync>)
    }
}
