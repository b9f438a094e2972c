//! A consistent view of a database that is being written: what a reader of SQLite's would see.
//!
//! The view takes the locks that a reader takes, by SQLite's own VFS: SHARED on the database file, so
//! that the last close neither checkpoints nor deletes the WAL, and a read mark, so that no checkpoint
//! goes beyond the view and no writer restarts the WAL over it.
//!
//! Source: SQLite's `wal.c`, `walTryBeginRead`.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::OpenFlags as ConnectionFlags;

use crate::error::{Error, ErrorKind, Result};
use crate::fork;
use crate::page::{PageCount, PageSize};
use crate::primary::{Host, ReadView};
use crate::sqlite::{
    BaseFile, BaseVfs, Code, LockLevel, OpenFlags, ShmLock, ShmLockFlags, ShmRegion, open_internal,
};
use crate::vfs::overwrite;
use crate::vfs::wal_mode::{JournalMode, journal_mode};
use crate::wal::{CheckpointInfo, FrameNo, IndexHeader, READ_MARKS};

/// The size of a region of the WAL index in bytes.
const REGION_SIZE: u32 = 32 * 1024;
/// How often a view is tried while writers get in between.
const ATTEMPTS: usize = 100;
/// How often the index header is read again before a writer's change is taken for a broken index.
const TORN_READS: usize = 10;

/// Opens views of one database through the host's VFS.
pub(super) struct SqliteHost {
    path: PathBuf,
    vfs: BaseVfs,
    views: Arc<OpenViews>,
}

/// How many views of one database are open in this process.
#[derive(Default)]
struct OpenViews {
    count: Mutex<usize>,
    ended: Condvar,
}

impl OpenViews {
    fn count(&self) -> MutexGuard<'_, usize> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(self: &Arc<Self>) -> OpenView {
        *self.count() += 1;
        OpenView(Arc::clone(self))
    }
}

/// Counts one view for as long as it lives.
struct OpenView(Arc<OpenViews>);

impl Drop for OpenView {
    fn drop(&mut self) {
        *self.0.count() -= 1;
        self.0.ended.notify_all();
    }
}

impl SqliteHost {
    pub(super) fn new(path: &Path, vfs: BaseVfs) -> Self {
        Self { path: path.to_path_buf(), vfs, views: Arc::default() }
    }

    fn failed(&self, code: Code) -> Error {
        let (kind, why) = if code.primary() == Code::BUSY.primary() {
            (ErrorKind::Busy, "a connection has it locked exclusively (locking_mode=EXCLUSIVE?)".to_owned())
        } else {
            (ErrorKind::Io, code.to_string())
        };
        Error::new(kind, format!("cannot read {}: {why}", self.path.display()))
    }

    /// Lets SQLite rebuild the WAL index from the WAL.
    fn recover(&self) -> Result<()> {
        open_internal(&self.path, ConnectionFlags::SQLITE_OPEN_READ_WRITE, &self.vfs)
            .and_then(|conn| {
                // Committing threads may wait for us: we do not wait for them.
                conn.busy_timeout(Duration::ZERO)?;
                conn.query_row("SELECT count(*) FROM sqlite_schema", (), |_| Ok(()))
            })
            .map_err(|e| Error::new(ErrorKind::Io, format!("cannot read {}: {e}", self.path.display())))
    }
}

impl Host for SqliteHost {
    fn read_view(&self) -> Result<Option<Box<dyn ReadView>>> {
        let _section = fork::section();
        let failed = |code| self.failed(code);
        let flags = OpenFlags::READWRITE;
        let mut file = match self.vfs.open_database(&self.path, &[], flags) {
            Ok((file, _)) => file,
            Err(_) if !self.path.exists() => return Ok(None),
            Err(code) => return Err(failed(code)),
        };
        // Without a lock yet: a lock would be in the way of the connection that creates the database.
        match journal_mode(&mut file, &self.path)? {
            JournalMode::Empty => return Ok(None),
            JournalMode::Rollback => return Err(not_in_wal_mode(&self.path)),
            JournalMode::Wal => {}
        }
        let open = self.views.begin();
        let mut view = View {
            file,
            vfs: self.vfs,
            path: self.path.clone(),
            recovered: false,
            _open: open,
            slot: None,
            header: None,
            page_size: PageSize::MIN,
            commit: PageCount::ZERO,
        };
        view.file.lock(LockLevel::Shared).map_err(failed)?;
        view.file.shm_map(0, REGION_SIZE, true).map_err(failed)?;
        view.pin(|| self.recover()).map_err(|e| e.context(self.path.display()))?;
        view.measure().map_err(failed)?;
        Ok(Some(Box::new(view)))
    }

    fn overwrite(&self, source: &Path, is_current: &dyn Fn() -> bool) -> Result<()> {
        overwrite::overwrite(&self.path, &self.vfs, source, is_current)
    }

    fn wait_for_views(&self, timeout: Duration) -> bool {
        let count = self.views.count();
        if *count == 0 {
            return false;
        }
        drop(self.views.ended.wait_timeout_while(count, timeout, |count| *count > 0));
        true
    }
}

fn not_in_wal_mode(path: &Path) -> Error {
    Error::new(
        ErrorKind::Busy,
        format!(
            "{} is not in WAL mode yet: a connection keeps it locked (locking_mode=EXCLUSIVE?); replication \
             begins when that one closes",
            path.display()
        ),
    )
}

struct View {
    file: BaseFile,
    vfs: BaseVfs,
    path: PathBuf,
    /// No connection had the WAL index, so the view had it made, and the WAL with it.
    recovered: bool,
    /// Declared after the file: a view counts until its file is closed.
    _open: OpenView,
    /// The read mark whose lock is held.
    slot: Option<usize>,
    header: Option<IndexHeader>,
    page_size: PageSize,
    commit: PageCount,
}

/// What an attempt to pin the current commit came to.
enum Attempt {
    Pinned(IndexHeader, usize),
    Again,
    NeedsRecovery,
}

impl View {
    fn pin(&mut self, recover: impl Fn() -> Result<()>) -> Result<()> {
        let failed = |code: Code| Error::new(ErrorKind::Io, format!("cannot lock the WAL index: {code}"));
        for attempt in 0..ATTEMPTS {
            match self.try_pin().map_err(failed)? {
                Attempt::Pinned(header, slot) => {
                    self.header = Some(header);
                    self.slot = Some(slot);
                    return Ok(());
                }
                Attempt::NeedsRecovery if attempt >= TORN_READS => {
                    self.recovered = true;
                    recover()?;
                }
                Attempt::NeedsRecovery => std::thread::yield_now(),
                Attempt::Again if attempt > 3 => std::thread::yield_now(),
                Attempt::Again => {}
            }
        }
        Err(Error::new(ErrorKind::Busy, "other connections hold all read marks"))
    }

    fn try_pin(&mut self) -> Result<Attempt, Code> {
        let Some(header) = self.read_header() else { return Ok(Attempt::NeedsRecovery) };
        let Some(slot) = self.lock_mark(&header)? else { return Ok(Attempt::Again) };
        self.file.shm_barrier();
        // A writer or a checkpoint may have come between the look and the lock.
        let region = self.region();
        let mark_holds =
            slot == 0 || region.load_u32(CheckpointInfo::read_mark_offset(slot)) <= header.mx_frame.0;
        if mark_holds && self.read_header() == Some(header) {
            return Ok(Attempt::Pinned(header, slot));
        }
        self.file.shm_lock(read_lock(slot), ShmLockFlags::UNLOCK_SHARED)?;
        Ok(Attempt::Again)
    }

    fn region(&self) -> ShmRegion<'_> {
        self.file.shm_region(0).expect("BUG: region 0 is mapped while the view lives")
    }

    /// The header, if both copies of it agree.
    fn read_header(&self) -> Option<IndexHeader> {
        let region = self.region();
        let (mut first, mut second) = ([0; IndexHeader::SIZE], [0; IndexHeader::SIZE]);
        region.copy_to(0, &mut first);
        self.file.shm_barrier();
        region.copy_to(IndexHeader::SIZE, &mut second);
        if first == second { IndexHeader::decode(&first) } else { None }
    }

    /// Locks a read mark that protects `header`; returns its slot.
    fn lock_mark(&mut self, header: &IndexHeader) -> Result<Option<usize>, Code> {
        let region = self.region();
        if region.load_u32(CheckpointInfo::BACKFILL_OFFSET) == header.mx_frame.0 {
            // All is in the database file: the reader needs no WAL.
            return Ok(self.try_lock(read_lock(0), ShmLockFlags::LOCK_SHARED)?.then_some(0));
        }
        let exact = (1..READ_MARKS)
            .find(|slot| region.load_u32(CheckpointInfo::read_mark_offset(*slot)) == header.mx_frame.0);
        if let Some(slot) = exact {
            return Ok(self.try_lock(read_lock(slot), ShmLockFlags::LOCK_SHARED)?.then_some(slot));
        }
        for slot in 1..READ_MARKS {
            if self.try_lock(read_lock(slot), ShmLockFlags::LOCK_EXCLUSIVE)? {
                self.region().store_u32(CheckpointInfo::read_mark_offset(slot), header.mx_frame.0);
                self.file.shm_lock(read_lock(slot), ShmLockFlags::UNLOCK_EXCLUSIVE)?;
                return Ok(self.try_lock(read_lock(slot), ShmLockFlags::LOCK_SHARED)?.then_some(slot));
            }
        }
        Ok(None)
    }

    fn try_lock(&mut self, lock: ShmLock, flags: ShmLockFlags) -> Result<bool, Code> {
        match self.file.shm_lock(lock, flags) {
            Ok(()) => Ok(true),
            Err(code) if code.primary() == Code::BUSY.primary() => Ok(false),
            Err(code) => Err(code),
        }
    }

    /// Whether WAL and WAL index may be deleted as the last connection to close would: nobody else has
    /// the database, and all is in the database file.
    fn is_alone_with_empty_wal(&mut self) -> bool {
        let empty = std::fs::metadata(wal_path(&self.path)).is_ok_and(|meta| meta.len() == 0);
        empty && self.file.lock(LockLevel::Exclusive).is_ok()
    }

    /// Finds the page size and the size of the database.
    fn measure(&mut self) -> Result<(), Code> {
        let header = self.header.expect("BUG: the view is pinned");
        let mut bytes = [0; 2];
        let _short_is_zeros = self.file.read(&mut bytes, 16)?;
        let in_file = match u16::from_be_bytes(bytes) {
            1 => 65536,
            n => u32::from(n),
        };
        let from_wal = header.page_size.filter(|_| header.mx_frame > FrameNo::ZERO);
        self.page_size = match from_wal {
            Some(page_size) => page_size,
            None => PageSize::new(in_file).map_err(|_| Code::CORRUPT)?,
        };
        self.commit = if header.mx_frame > FrameNo::ZERO && header.page_count > PageCount::ZERO {
            header.page_count
        } else {
            let pages = self.file.file_size()? / u64::from(self.page_size.get());
            PageCount::new(u32::try_from(pages).map_err(|_| Code::CORRUPT)?)
        };
        Ok(())
    }
}

impl ReadView for View {
    fn page_size(&self) -> PageSize {
        self.page_size
    }

    fn commit(&self) -> PageCount {
        self.commit
    }

    fn header(&self) -> Option<IndexHeader> {
        self.header
    }

    fn uses_wal(&self) -> bool {
        self.slot != Some(0)
    }

    fn read_file(&mut self, buf: &mut [u8], offset: u64) -> Result<()> {
        match self.file.read(buf, offset) {
            Ok(_short_is_zeros) => Ok(()),
            Err(code) => Err(Error::new(ErrorKind::Io, format!("cannot read the database: {code}"))),
        }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        let _section = fork::section();
        // A lock that cannot be released goes with the file.
        if let Some(slot) = self.slot {
            let _ = self.file.shm_lock(read_lock(slot), ShmLockFlags::UNLOCK_SHARED);
        }
        let alone = self.recovered && self.is_alone_with_empty_wal();
        let _ = self.file.shm_unmap(alone);
        if alone {
            let _ = self.vfs.delete(&wal_path(&self.path), false);
        }
        let _ = self.file.unlock(LockLevel::None);
        let _ = self.file.close();
    }
}

fn wal_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}

fn read_lock(slot: usize) -> ShmLock {
    ShmLock { first: CheckpointInfo::read_lock(slot), count: 1 }
}
