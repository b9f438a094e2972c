//! The main database of a primary: everything passes to the host's VFS, commits are noted.

use std::any::Any;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::clock::SystemClock;
use crate::config::PrimaryConfig;
use crate::error::{Error, ErrorKind};
use crate::events;
use crate::failures::{self, Attempt};
use crate::files::{self, OpenLock};
use crate::monitor;
use crate::primary::Primary;
use crate::sqlite::{
    BaseFile, BaseVfs, Code, File, FileControl, FileControlOp, LockLevel, OpenFlags, OpenRequest, Opened,
    Opener, PragmaAnswer, ShmLock, ShmLockFlags, ShmRegion, SyncFlags, log,
};
use crate::store::{Opening, RetryPolicy};
use crate::vfs::closing::Closing;
use crate::vfs::commit_wait::CommitWait;
use crate::vfs::first_page::FirstPage;
use crate::vfs::hooks::Hooks;
use crate::vfs::host::SqliteHost;
use crate::vfs::own_locks::{Held, OwnLocks};
use crate::vfs::reset_guard::{self, ResetGuard};
use crate::vfs::wal_mode::{self, JournalMode};
use crate::vfs::{hidden, missing, pragma, wal};

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

/// What ends with the last close has so long for it, whatever that has waited for already.
const MOMENT: Duration = Duration::from_millis(500);

/// How often a file that was replaced is opened again.
const REOPENS: usize = 10;

pub(super) struct PrimaryFile {
    base: BaseFile,
    vfs: BaseVfs,
    path: PathBuf,
    primary: Arc<Primary>,
    guard: ResetGuard,
    hooks: Hooks,
    /// What the library itself has locked of the database.
    own: Arc<OwnLocks>,
    /// How long the last close waits for views.
    close_patience: Duration,
    /// A `PRAGMA wal_checkpoint` was prepared and has not checkpointed yet.
    asked_for_checkpoint: bool,
    closing: Closing,
    commit: CommitWait,
    /// A transaction with a rollback journal was committed, and its locks are not released.
    left_rollback: bool,
    /// The database is in WAL mode. Until it is, every release of the lock is a chance to put it
    /// there: SQLite creates a database with a rollback journal.
    in_wal_mode: bool,
    /// The database counts as open until the last connection of the process is closed.
    _open_lock: OpenLock,
}

/// Opens a database as a primary, for `opener`.
pub(super) fn open(
    request: &OpenRequest<'_>,
    config: PrimaryConfig,
    opener: &Opener,
) -> Result<Opened, Error> {
    let path = config.path;
    if Primary::find(&path).is_none() {
        files::place_state(&path, config.state_folder.as_deref());
    }
    if config.restore_missing {
        missing::restore(&path, &config.replicas)?;
    }
    let (mut base, out_flags, open_lock) = open_base(request, &path)?;
    let vfs = *request.base();
    let in_wal_mode = is_in_wal_mode(&mut base, &vfs, &path)?;
    let close_patience = config.options.close_timeout;
    let primary = Primary::open(
        &path,
        &config.replicas,
        &config.options,
        Arc::new(SystemClock),
        |target| Ok(target.connect_with(&Opening { database: Some(&path) }, RETRY)),
        || Arc::new(SqliteHost::new(&path, vfs)),
    )?;
    let guard = ResetGuard::new(config.wal_reset_guard && reset_guard::is_needed(rusqlite::version_number()));
    let file = PrimaryFile {
        base,
        vfs,
        guard,
        hooks: Hooks::new(Arc::clone(&primary), &path, vfs.operating_system()),
        own: OwnLocks::of(&path),
        close_patience,
        asked_for_checkpoint: false,
        closing: Closing::of(opener.connection.address()),
        commit: CommitWait::new(Arc::clone(&primary), opener.file, config.commit, config.commit_timeout)
            .sharing_cache(request.is_for_shared_cache()),
        left_rollback: false,
        path,
        primary,
        in_wal_mode,
        _open_lock: open_lock,
    };
    Ok(Opened::File { file: Box::new(file), out_flags })
}

/// Whether the database is in WAL mode, into which it is put if it can be now.
///
/// What the file holds is SQLite's affair: of a hot journal, of a damaged or encrypted page its first statement tells.
fn is_in_wal_mode(base: &mut BaseFile, vfs: &BaseVfs, path: &Path) -> Result<bool, Error> {
    match wal_mode::journal_mode(base, vfs, path)? {
        JournalMode::Wal => return Ok(true),
        JournalMode::Unknown => return Ok(false),
        JournalMode::Rollback => {}
    }
    match wal_mode::enter(path, vfs, PATIENCE) {
        Ok(()) => Ok(true),
        Err(e) if matches!(e.kind(), ErrorKind::Busy | ErrorKind::NotADatabase | ErrorKind::Corrupt) => {
            tracing::warn!("{e}");
            Ok(false)
        }
        Err(e) => Err(e),
    }
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
    /// Tells the hooks what happens to the connection's WAL.
    pub(super) fn tell<R>(&mut self, tell: impl FnOnce(&mut Hooks, &mut BaseFile) -> R) -> R {
        tell(&mut self.hooks, &mut self.base)
    }

    /// SQLite opened the WAL of the connection: the database has one.
    pub(super) fn wal_opened(&mut self) {
        self.hooks.wal_opened();
        if !std::mem::replace(&mut self.in_wal_mode, true) {
            self.primary.entered_wal_mode();
        }
    }

    /// Takes a lock by `lock`. What the library itself has locked is waited for, as nothing that the program does:
    /// no statement fails because of it.
    fn lock_after_ours(
        &mut self,
        held: Held,
        patience: Duration,
        lock: impl Fn(&mut Self) -> Result<(), Code>,
    ) -> Result<(), Code> {
        let before = self.own.before(held);
        let locked = lock(self);
        let busy = matches!(locked, Err(code) if code.primary() == Code::BUSY.primary());
        if busy && self.own.wait(before, patience) { lock(self) } else { locked }
    }

    /// Whether a lock on read marks is worth the wait for the end of a view: that of a checkpoint that a program asked
    /// for. The automatic one and a writer's restart never wait, in the way of a commit.
    fn waits_for_views(&self, lock: ShmLock, flags: ShmLockFlags) -> bool {
        let asked_for =
            self.hooks.checkpoints_alone() || self.asked_for_checkpoint && self.hooks.checkpoints();
        asked_for && flags.is_exclusive() && lock.first >= ShmLock::READ_0
    }

    fn release(&mut self, lock: ShmLock, flags: ShmLockFlags) -> Result<(), Code> {
        self.hooks.releases(&self.base, lock, flags);
        if self.commit.is_writing() && flags.is_exclusive() && lock.covers(ShmLock::WRITE) {
            self.commit.ends(self.hooks.header(&self.base));
        }
        if lock.covers(ShmLock::CHECKPOINT) {
            self.asked_for_checkpoint = false;
        }
        self.guard.shm_lock(&mut self.base, lock, flags)?;
        if !flags.is_exclusive() {
            self.commit.released();
        }
        Ok(())
    }

    fn enter_wal_mode(&mut self) {
        let entered = match wal_mode::journal_mode(&mut self.base, &self.vfs, &self.path) {
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
        if self.in_wal_mode && offset == 0 && FirstPage::leaves_wal_mode(data) {
            self.in_wal_mode = false;
            self.primary.left_wal_mode();
        }
        self.base.write(data, offset).inspect_err(|_| self.hooks.database_failed())
    }

    fn sync(&mut self, flags: SyncFlags) -> Result<(), Code> {
        self.base.sync(flags).inspect_err(|_| self.hooks.database_failed())
    }

    fn lock(&mut self, level: LockLevel) -> Result<(), Code> {
        hidden::locking_other();
        if level != LockLevel::Exclusive {
            return self.lock_after_ours(Held::Moment, PATIENCE, |file| file.base.lock(level));
        }
        let patience = self.close_patience.saturating_sub(self.closing.step().elapsed());
        self.lock_after_ours(Held::View, patience, |file| file.base.lock(level))?;
        self.closing.locked();
        self.hooks.locked(&self.base, level);
        Ok(())
    }

    fn unlock(&mut self, level: LockLevel) -> Result<(), Code> {
        self.hooks.unlocks(&mut self.base, level);
        self.base.unlock(level)?;
        if !self.in_wal_mode && level == LockLevel::None {
            self.enter_wal_mode();
        }
        if level == LockLevel::None && std::mem::take(&mut self.left_rollback) {
            self.commit.committed_without_wal();
        }
        Ok(())
    }

    fn shm_map(&mut self, region: u32, size: u32, extend: bool) -> Result<Option<ShmRegion<'_>>, Code> {
        if region == 0 && wal_mode::is_encrypted_below(&self.vfs, &self.path) {
            let error = wal_mode::encrypted_below(&self.vfs, &self.path);
            failures::record(Attempt::Use, Some(&self.path), error.to_string());
            log(Code::CANTOPEN, &format!("litestream: {error}"));
            return Err(Code::CANTOPEN);
        }
        self.hooks.mapped();
        self.base.shm_map(region, size, extend)
    }

    fn shm_lock(&mut self, lock: ShmLock, flags: ShmLockFlags) -> Result<(), Code> {
        self.closing.goes_on();
        if flags.is_unlock() {
            return self.release(lock, flags);
        }
        if !flags.is_exclusive() {
            self.commit.next_begins();
        }
        let held = if self.waits_for_views(lock, flags) { Held::View } else { Held::Moment };
        self.lock_after_ours(held, PATIENCE, |file| file.guard.shm_lock(&mut file.base, lock, flags))?;
        self.hooks.granted(&mut self.base, lock, flags);
        if self.commit.waits() && flags.is_exclusive() && lock.covers(ShmLock::WRITE) {
            self.commit.begins(self.hooks.header(&self.base));
        }
        Ok(())
    }

    fn shm_unmap(&mut self, delete: bool) -> Result<(), Code> {
        self.hooks.unmaps(&mut self.base, delete);
        self.base.shm_unmap(delete)
    }

    fn file_control(&mut self, control: FileControl<'_>) -> Result<(), Code> {
        if control.op() == FileControlOp::COMMIT_PHASETWO {
            self.closing.goes_on();
            let alone = self.hooks.committed(&mut self.base);
            self.left_rollback = !self.in_wal_mode;
            self.commit.committed(alone);
        }
        if let Some(connection) = control.connection() {
            self.commit.belongs_to(connection);
        }
        self.base.file_control(control)
    }

    fn as_any(&mut self) -> Option<&mut dyn Any> {
        Some(self)
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
            ("litestream_commit", _) => self.commit.pragma(arg),
            ("wal_autocheckpoint", _) => {
                self.commit.automatic_checkpoint(arg);
                PragmaAnswer::NotMine
            }
            ("synchronous", Some(_)) => {
                self.commit.synchronous();
                PragmaAnswer::NotMine
            }
            ("wal_checkpoint", _) => {
                self.asked_for_checkpoint = true;
                PragmaAnswer::NotMine
            }
            _ => pragma::unknown(name),
        }
    }

    fn close(&mut self) -> Result<(), Code> {
        self.commit.end();
        let told = events::told();
        // Locks go first: nobody waits for the network.
        let closed = self.base.close();
        wal::forget_closed();
        let began = self.closing.step();
        if self.primary.close(began, self.close_patience) {
            // A view of a copy that was given up may be open still.
            let left = self.close_patience.saturating_sub(began.elapsed());
            self.own.wait_for_end(Held::View, left.max(MOMENT));
        }
        monitor::closed(told);
        self.closing.end();
        closed
    }

    fn role(&self) -> Option<Arc<dyn Any + Send + Sync>> {
        Some(Arc::clone(&self.primary) as Arc<dyn Any + Send + Sync>)
    }
}
