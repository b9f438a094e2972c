//! What a primary is told of one connection: who writes, which page numbers the WAL index is about to lose, and
//! what a connection commits that keeps the database for itself.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use crate::primary::{CheckpointMode, HeldLock, Primary, WalIndex};
use crate::sqlite::{BaseFile, BaseVfs, LockLevel, ShmLock, ShmLockFlags};
use crate::vfs::content::WalReader;
use crate::vfs::exclusive_view::{ExclusiveView, Index};
use crate::vfs::frame_log::{FrameLog, LoggedIndex};
use crate::vfs::frames::Frames;
use crate::vfs::index::{self, ConnectionIndex};
use crate::vfs::reset_guard::ALL_WAL_READERS;
use crate::wal::{FrameNo, IndexHeader};

/// Where the connection has the WAL index. Only one in shared memory may be mapped by a call of ours, which would
/// make one else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In private memory, or nowhere yet.
    Private,
    /// In shared memory.
    Shared,
    /// It was in shared memory, and is unmapped.
    Unmapped,
}

/// A checkpoint of the connection.
struct Checkpoint {
    begun: Instant,
    /// How far it came.
    mode: CheckpointMode,
    failed: bool,
}

impl Checkpoint {
    fn begins() -> Self {
        Self { begun: Instant::now(), mode: CheckpointMode::Passive, failed: false }
    }
}

/// The state of one connection as far as its primary is told of it.
pub(super) struct Hooks {
    primary: Arc<Primary>,
    path: PathBuf,
    /// The VFS of the operating system.
    vfs: BaseVfs,
    place: Place,
    writes: bool,
    checkpoints: bool,
    /// The checkpoint that is under way.
    checkpoint: Option<Checkpoint>,
    /// It may restart the WAL: read marks 1 to 4 are locked.
    restarts: bool,
    /// EXCLUSIVE is locked on the database file. SQLite takes no lock on the index from then on.
    alone: bool,
    /// The last commit that was shown under that lock.
    shown: Option<IndexHeader>,
    log: FrameLog,
}

impl Hooks {
    /// Those of a connection to the database `path`.
    pub(super) fn new(primary: Arc<Primary>, path: &Path, vfs: BaseVfs) -> Self {
        Self {
            primary,
            path: path.to_path_buf(),
            vfs,
            place: Place::Private,
            writes: false,
            checkpoints: false,
            checkpoint: None,
            restarts: false,
            alone: false,
            shown: None,
            log: FrameLog::default(),
        }
    }

    /// Whether the connection checkpoints.
    pub(super) const fn checkpoints(&self) -> bool {
        self.checkpoints
    }

    /// Whether the connection checkpoints and keeps writers off: a FULL, RESTART or TRUNCATE checkpoint.
    pub(super) const fn checkpoints_alone(&self) -> bool {
        self.checkpoints && self.writes
    }

    /// SQLite opened the WAL, and has no index yet.
    pub(super) fn wal_opened(&mut self) {
        self.place = Place::Private;
        self.log.begin();
    }

    /// SQLite mapped a region of the index.
    pub(super) const fn mapped(&mut self) {
        self.place = Place::Shared;
    }

    fn shares_index(&self) -> bool {
        self.place == Place::Shared
    }

    /// The header of the index, if it is in shared memory.
    pub(super) fn header(&self, base: &BaseFile) -> Option<IndexHeader> {
        if self.shares_index() { index::header(base) } else { None }
    }

    /// SQLite was granted `lock`, and does not know it yet.
    pub(super) fn granted(&mut self, base: &mut BaseFile, lock: ShmLock, flags: ShmLockFlags) {
        if !flags.is_exclusive() {
            return;
        }
        if lock.covers(ShmLock::CHECKPOINT) {
            self.checkpoints = true;
            self.checkpoint = Some(Checkpoint::begins());
        }
        if lock.covers(ShmLock::WRITE) {
            self.comes_to(CheckpointMode::Full);
            self.writes = true;
            self.primary.writer_begins(self.header(base));
        }
        if lock == ALL_WAL_READERS {
            self.comes_to(CheckpointMode::Restart);
            self.restarts = true;
            self.primary.generation_ends(&mut ConnectionIndex::now(base));
        }
    }

    /// SQLite is about to release `lock`.
    pub(super) fn releases(&mut self, base: &BaseFile, lock: ShmLock, flags: ShmLockFlags) {
        if !flags.is_exclusive() {
            return;
        }
        if lock.covers(ShmLock::WRITE) {
            self.primary.writer_ends(self.header(base));
            self.writes = false;
        }
        if lock.covers(ShmLock::CHECKPOINT) {
            self.checkpoints = false;
            if let Some(made) = self.checkpoint.take() {
                self.primary.checkpointed(made.mode, made.begun.elapsed(), made.failed);
            }
        }
        self.restarts &= lock != ALL_WAL_READERS;
    }

    /// The checkpoint that is under way comes to more than it was known to be.
    const fn comes_to(&mut self, mode: CheckpointMode) {
        if let Some(checkpoint) = &mut self.checkpoint {
            checkpoint.mode = mode;
        }
    }

    /// The database file could not be written or synced.
    pub(super) const fn database_failed(&mut self) {
        if let Some(checkpoint) = &mut self.checkpoint {
            checkpoint.failed = true;
        }
    }

    /// The lock of the database file is `level` now.
    pub(super) fn locked(&mut self, base: &BaseFile, level: LockLevel) {
        if level == LockLevel::Exclusive && !self.alone {
            self.alone = true;
            // Never what was there before: another connection may have written over the entries since.
            self.shown = self.header(base);
            if let Some(header) = &self.shown {
                self.primary.keeps_file(header);
            }
        }
    }

    /// The lock of the database file is about to become `level`.
    pub(super) fn unlocks(&mut self, base: &mut BaseFile, level: LockLevel) {
        if self.alone && level <= LockLevel::Shared {
            self.alone = false;
            if self.shares_index() {
                self.primary.gives_file_up(&mut ConnectionIndex::now(base));
            }
            self.primary.ends_exclusive_use();
        }
    }

    /// The index is about to be unmapped, and deleted if `delete`.
    pub(super) fn unmaps(&mut self, base: &mut BaseFile, delete: bool) {
        if delete && self.shares_index() {
            self.primary.closes_generation(&mut ConnectionIndex::now(base));
        }
        self.place = Place::Unmapped;
    }

    /// The header of the WAL is about to be written.
    pub(super) fn wal_begins(&mut self, base: &mut BaseFile, header: &[u8]) {
        if self.shares_index() {
            let lock = if self.writes { HeldLock::Write } else { HeldLock::File };
            self.primary.generation_begins(header, &mut ConnectionIndex::now(base), lock);
            return;
        }
        self.end_private_generation();
        self.primary.generation_begins(header, &mut LoggedIndex::now(&self.log), HeldLock::Write);
        self.log.begin();
    }

    /// The WAL is about to be cut to nothing.
    pub(super) fn wal_is_cut(&mut self, base: &mut BaseFile) {
        self.comes_to(CheckpointMode::Truncate);
        if self.restarts && self.shares_index() {
            // The end was recorded when the marks were locked. If every process dies before the next commit, only the
            // database file's stamp leads to it.
            self.primary.closes_generation(&mut ConnectionIndex::now(base));
            return;
        }
        if !self.shares_index() {
            self.end_private_generation();
            return;
        }
        let mut index = ConnectionIndex::now(base);
        if index.has_frames() {
            // The last connection closes and keeps the WAL (SQLITE_FCNTL_PERSIST_WAL): all of it is in the file.
            self.primary.closes_generation(&mut index);
        } else {
            self.primary.cuts_generation(&mut index);
        }
    }

    /// The end of the generation of an index in private memory, once.
    fn end_private_generation(&mut self) {
        let mut index = LoggedIndex::now(&self.log);
        if index.header().is_some_and(|header| header.mx_frame > FrameNo::ZERO) {
            self.primary.generation_ends(&mut index);
            self.log.empty();
        }
    }

    /// The WAL was written up to the byte `end`.
    pub(super) fn wal_written(&mut self, end: u64) {
        if self.place == Place::Private {
            self.log.wrote(end);
        }
    }

    /// Writing or syncing the WAL failed.
    pub(super) const fn wal_failed(&mut self) {
        self.log.failed();
    }

    /// The WAL is closed; what deletes it then, if its index was in private memory.
    pub(super) fn wal_closed(&mut self) -> Option<ClosedWal> {
        if self.place != Place::Private || !self.alone {
            return None;
        }
        if self.log.is_cut() {
            self.primary.closes_generation(&mut LoggedIndex::now(&self.log));
            return None;
        }
        Some(ClosedWal { primary: Arc::clone(&self.primary), log: std::mem::take(&mut self.log) })
    }

    /// A transaction was committed, and its locks are not released yet. Only what is committed without locks on the
    /// index is looked at: whether something was, `None` if they are used.
    pub(super) fn committed(&mut self, base: &mut BaseFile) -> Option<bool> {
        if !self.alone {
            return None;
        }
        if self.writes {
            // The transaction began with locks, which SQLite does not release any more.
            self.primary.writer_ends(self.header(base));
            return Some(true);
        }
        let mut wal = WalReader::of(&self.path);
        let (header, index) = if self.place == Place::Shared {
            let Some(header) = index::header(base).filter(|header| header.mx_frame > FrameNo::ZERO) else {
                return Some(false);
            };
            if self.shown == Some(header) {
                return Some(false);
            }
            self.shown = Some(header);
            (header, Index::Shared(base, Frames::up_to(header.mx_frame)))
        } else {
            if self.log.is_broken() {
                self.primary.misses_exclusive_commit();
                return Some(true);
            }
            match self.log.committed(&mut wal) {
                Ok(true) => {}
                Ok(false) => return Some(false),
                Err(e) => {
                    tracing::warn!("{}: {e}", self.path.display());
                    self.primary.misses_exclusive_commit();
                    return Some(true);
                }
            }
            let Some(header) = self.log.last() else { return Some(false) };
            (header, Index::Private(&self.log))
        };
        let Some(page_size) = header.page_size else { return Some(false) };
        let (path, vfs) = (self.path.clone(), self.vfs);
        let mut view = ExclusiveView { path, vfs, header, page_size, index, wal, file: None };
        self.primary.committed_exclusively(&mut view);
        Some(true)
    }
}

/// A WAL that was closed and may be deleted next.
pub(super) struct ClosedWal {
    primary: Arc<Primary>,
    log: FrameLog,
}

impl ClosedWal {
    /// It is about to be deleted.
    pub(super) fn is_deleted(&self) {
        self.primary.closes_generation(&mut LoggedIndex::now(&self.log));
    }
}
