//! A consistent view of a database that is being written: what a reader of SQLite's would see.
//!
//! The view takes the locks that a reader takes, by the VFS of the operating system: SHARED on the database file,
//! so that the last close neither checkpoints nor deletes the WAL, and a read mark, so that no checkpoint goes
//! beyond the view and no writer restarts the WAL over it. SHARED comes first and goes last: what is mapped or
//! opened without it may be of a WAL that is deleted.
//!
//! Source: SQLite's `wal.c`, `walTryBeginRead`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::fork;
use crate::page::{PageCount, PageSize, Pgno};
use crate::primary::{Measures, PageSet, PinnedView};
use crate::sqlite::{BaseFile, BaseVfs, Code, LockLevel, OpenFlags, ShmLock, ShmLockFlags, ShmRegion};
use crate::vfs::content::{self, Source, WalReader, wal_path};
use crate::vfs::first_page::FirstPage;
use crate::vfs::frames::Frames;
use crate::vfs::own_locks::{Held, OwnLock, OwnLocks};
use crate::vfs::{index, recovery, wal_mode};
use crate::wal::{CheckpointInfo, FrameHeader, FrameNo, IndexHeader, IndexRegion, READ_MARKS};

/// How often a view is tried while writers get in between.
const ATTEMPTS: usize = 100;
/// How often the index header is read again before a writer's change is taken for a broken index.
const TORN_READS: usize = 10;

/// Pins a view of the last commit; `None` while the database is empty, or not there. `measured` is as for
/// [`Host::pin`](crate::primary::Host::pin).
///
/// # Errors
/// `Busy` if the locks cannot be had now, or there is no WAL database yet; `Io`.
pub(super) fn pin(
    path: &Path,
    vfs: &BaseVfs,
    locks: &Arc<OwnLocks>,
    measured: &dyn Fn() -> Option<Measures>,
) -> Result<Option<Box<dyn PinnedView>>> {
    let _section = fork::section();
    let mut file = match vfs.open_database(path, &[], OpenFlags::READWRITE) {
        Ok((file, _)) => file,
        Err(_) if !path.exists() => return Ok(None),
        Err(code) => return Err(failed(path, code)),
    };
    // Without a lock yet: a lock would be in the way of the connection that creates the database.
    if !is_wal_database(&mut file, path, measured)? {
        return Ok(None);
    }
    let mut pinning = Pinning {
        file,
        vfs: *vfs,
        path: path.to_path_buf(),
        wal: WalReader::of(path),
        had_index: path_exists(&shm_path(path)),
        slot: None,
        _held: locks.hold(Held::View),
        locks: Arc::clone(locks),
    };
    pinning.file.lock(LockLevel::Shared).map_err(|code| failed(path, code))?;
    if !is_wal_database(&mut pinning.file, path, measured)? {
        return Ok(None);
    }
    let mapped = pinning.file.shm_map(IndexRegion::FIRST.number(), IndexRegion::SIZE, true);
    mapped.map_err(|code| failed(path, code))?;
    let header = pinning.pin()?;
    View::new(pinning, header, measured).map(|view| Some(Box::new(view) as Box<dyn PinnedView>))
}

fn failed(path: &Path, code: Code) -> Error {
    let (kind, why) = if code.primary() == Code::BUSY.primary() {
        (ErrorKind::Busy, "a connection has it locked exclusively (locking_mode=EXCLUSIVE?)".to_owned())
    } else {
        (ErrorKind::Io, code.to_string())
    };
    Error::new(kind, format!("cannot read {}: {why}", path.display()))
}

/// Whether the database has a WAL, or had one when it was `measured` as it is now; `false` while the file is empty.
///
/// # Errors
/// `Busy` if it has none yet; `Io`.
fn is_wal_database(
    file: &mut BaseFile,
    path: &Path,
    measured: &dyn Fn() -> Option<Measures>,
) -> Result<bool> {
    let missing = |why: &str| {
        let message = format!("{} is not in WAL mode yet: {why}", path.display());
        Err(Error::new(ErrorKind::Busy, message))
    };
    match FirstPage::read(file).map_err(|code| failed(path, code))? {
        FirstPage::Empty => Ok(false),
        FirstPage::Plain(header) if header.is_wal => Ok(true),
        FirstPage::Plain(_) => match wal_mode::refused(path) {
            Some(why) => Err(Error::new(ErrorKind::Busy, why)),
            None => missing(
                "a connection keeps it locked (locking_mode=EXCLUSIVE?); replication begins when that one closes",
            ),
        },
        FirstPage::Opaque if path_exists(&wal_path(path)) || measured().is_some() => Ok(true),
        FirstPage::Opaque => missing(
            "it does not begin as SQLite's files do, so it is encrypted or no database. If the program encrypts it, \
             let the program put it into WAL mode (PRAGMA journal_mode=wal) and read or write it; replication \
             begins then",
        ),
    }
}

fn path_exists(path: &Path) -> bool {
    path.try_exists().unwrap_or(true)
}

fn shm_path(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push("-shm");
    name.into()
}

/// The locks of a view, which go when it is dropped.
struct Pinning {
    file: BaseFile,
    vfs: BaseVfs,
    path: PathBuf,
    wal: WalReader,
    /// The file of the index was there before.
    had_index: bool,
    /// The read mark whose lock is held.
    slot: Option<usize>,
    locks: Arc<OwnLocks>,
    /// Declared after the file: a view counts until its file is closed.
    _held: OwnLock,
}

/// What an attempt to pin the current commit came to.
enum Attempt {
    Pinned(IndexHeader, usize),
    Again,
    /// The index has no sound header.
    Unsound,
}

impl Pinning {
    fn pin(&mut self) -> Result<IndexHeader> {
        for attempt in 0..ATTEMPTS {
            match self.attempt()? {
                Attempt::Pinned(header, slot) => {
                    self.slot = Some(slot);
                    return Ok(header);
                }
                Attempt::Unsound if attempt >= TORN_READS => {
                    recovery::recover(&self.path, &self.vfs, &self.locks)?;
                }
                Attempt::Again if attempt < 4 => {}
                Attempt::Again | Attempt::Unsound => std::thread::yield_now(),
            }
        }
        let message = format!("cannot read {}: other connections change its WAL", self.path.display());
        Err(Error::new(ErrorKind::Busy, message))
    }

    fn attempt(&mut self) -> Result<Attempt> {
        let path = self.path.clone();
        let failed = |code: Code| {
            Error::new(ErrorKind::Io, format!("cannot lock the WAL index of {}: {code}", path.display()))
        };
        let Some(header) = index::header(&self.file) else { return self.pin_without_wal().map_err(failed) };
        let Some((slot, mark)) = self.lock_mark(&header).map_err(failed)? else { return Ok(Attempt::Again) };
        self.file.shm_barrier();
        // A writer or a checkpoint may have come between the look and the lock.
        if self.mark(slot) == mark && index::header(&self.file) == Some(header) {
            return Ok(Attempt::Pinned(header, slot));
        }
        self.file.shm_lock(read_lock(slot), ShmLockFlags::UNLOCK_SHARED).map_err(failed)?;
        Ok(Attempt::Again)
    }

    /// Pins the database file alone, while nobody has made the index and there is no frame: under mark 0 no
    /// checkpoint writes the file.
    fn pin_without_wal(&mut self) -> Result<Attempt, Code> {
        if !self.wal.is_empty().unwrap_or(false) || !self.try_lock(read_lock(0), ShmLockFlags::LOCK_SHARED)? {
            return Ok(Attempt::Unsound);
        }
        if self.wal.is_empty().unwrap_or(false) && self.is_blank() {
            return Ok(Attempt::Pinned(IndexHeader::EMPTY, 0));
        }
        self.file.shm_lock(read_lock(0), ShmLockFlags::UNLOCK_SHARED)?;
        Ok(Attempt::Unsound)
    }

    /// Whether nobody has written to the index.
    fn is_blank(&self) -> bool {
        let mut headers = [0; 2 * IndexHeader::SIZE];
        self.region().copy_to(0, &mut headers);
        headers.iter().all(|byte| *byte == 0)
    }

    fn region(&self) -> ShmRegion<'_> {
        let region = self.file.shm_region(IndexRegion::FIRST.number());
        region.expect("BUG: region 0 is mapped while the view lives")
    }

    /// The read mark of `slot`. That of slot 0 is always 0.
    fn mark(&self, slot: usize) -> u32 {
        if slot == 0 { 0 } else { self.region().load_u32(CheckpointInfo::read_mark_offset(slot)) }
    }

    /// Locks a read mark that protects `header`; answers its slot and the mark.
    fn lock_mark(&mut self, header: &IndexHeader) -> Result<Option<(usize, u32)>, Code> {
        let last = header.mx_frame.0;
        let all_copied = self.region().load_u32(CheckpointInfo::BACKFILL_OFFSET) == last;
        if all_copied && self.try_lock(read_lock(0), ShmLockFlags::LOCK_SHARED)? {
            return Ok(Some((0, 0)));
        }
        let marks = (1..READ_MARKS).map(|slot| (self.mark(slot), slot));
        let mut best = marks.filter(|(mark, _)| *mark <= last).max().map(|(mark, slot)| (slot, mark));
        if best.is_none_or(|(_, mark)| mark < last)
            && let Some(slot) = self.set_mark(last)?
        {
            best = Some((slot, last));
        }
        let Some((slot, mark)) = best else { return Ok(None) };
        Ok(self.try_lock(read_lock(slot), ShmLockFlags::LOCK_SHARED)?.then_some((slot, mark)))
    }

    /// Sets the first mark to `last` that nobody reads by.
    fn set_mark(&mut self, last: u32) -> Result<Option<usize>, Code> {
        for slot in 1..READ_MARKS {
            if self.try_lock(read_lock(slot), ShmLockFlags::LOCK_EXCLUSIVE)? {
                self.region().store_u32(CheckpointInfo::read_mark_offset(slot), last);
                self.file.shm_lock(read_lock(slot), ShmLockFlags::UNLOCK_EXCLUSIVE)?;
                return Ok(Some(slot));
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

    /// Takes the database for a moment, if nobody else has it and its WAL is empty, so that what was made for the
    /// view may be deleted as the last connection to close would.
    fn takes_all(&mut self) -> Option<OwnLock> {
        if self.had_index || !self.wal.is_empty().unwrap_or(false) {
            return None;
        }
        let held = self.locks.hold(Held::Moment);
        self.file.lock(LockLevel::Exclusive).is_ok().then_some(held)
    }
}

impl Drop for Pinning {
    fn drop(&mut self) {
        let _section = fork::section();
        // A lock that cannot be released goes with the file.
        if let Some(slot) = self.slot {
            let _ = self.file.shm_lock(read_lock(slot), ShmLockFlags::UNLOCK_SHARED);
        }
        let alone = self.takes_all();
        let _ = self.file.shm_unmap(alone.is_some());
        if alone.is_some() {
            let _ = self.vfs.delete(&wal_path(&self.path), false);
        }
        let _ = self.file.unlock(LockLevel::None);
        let _ = self.file.close();
    }
}

fn read_lock(slot: usize) -> ShmLock {
    ShmLock { first: CheckpointInfo::read_lock(slot), count: 1 }
}

/// A pinned view.
struct View {
    pinning: Pinning,
    header: IndexHeader,
    measures: Measures,
    frames: Frames,
    /// It shows an earlier moment than that at which it was pinned.
    is_rewound: bool,
}

impl View {
    fn new(
        mut pinning: Pinning,
        header: IndexHeader,
        measured: &dyn Fn() -> Option<Measures>,
    ) -> Result<Self> {
        let measures = measure(&mut pinning.file, &pinning.path, &header, measured)?;
        // Under mark 0 all is in the database file.
        let last = if pinning.slot == Some(0) { FrameNo::ZERO } else { header.mx_frame };
        Ok(Self { pinning, header, measures, frames: Frames::up_to(last), is_rewound: false })
    }

    /// Whether a writer may restart the WAL and its index over the view, which reads the database file alone.
    fn may_be_restarted(&self) -> bool {
        self.pinning.slot == Some(0)
    }

    /// Whether the index still is that of the view.
    fn is_current(&self) -> bool {
        match index::header(&self.pinning.file) {
            Some(header) => header.salts == self.header.salts && header.mx_frame >= self.header.mx_frame,
            None => self.header == IndexHeader::EMPTY,
        }
    }

    fn failed(&self, code: Code) -> Error {
        Error::new(ErrorKind::Io, format!("cannot read {}: {code}", self.pinning.path.display()))
    }
}

/// The measures of the database as of `header`, while a lock keeps all from writing the file.
///
/// # Errors
/// `Busy` if no commit has told the page size yet, the first page tells nothing, and the file was not `measured` as it is;
/// `Io`.
fn measure(
    file: &mut BaseFile,
    path: &Path,
    header: &IndexHeader,
    measured: &dyn Fn() -> Option<Measures>,
) -> Result<Measures> {
    let known = header.page_size.filter(|_| header.page_count > PageCount::ZERO);
    if let Some(page_size) = known {
        return Ok(Measures { page_size, pages: header.page_count });
    }
    let first = match FirstPage::read(file).map_err(|code| failed(path, code))? {
        FirstPage::Plain(first) => Some(first),
        FirstPage::Empty | FirstPage::Opaque => None,
    };
    let Some(page_size) = header.page_size.or(first.and_then(|first| first.page_size)) else {
        let unknown =
            format!("the page size of {} is known from its next commit on; it is encrypted", path.display());
        return measured().ok_or_else(|| Error::new(ErrorKind::Busy, unknown));
    };
    if let Some(pages) = first.and_then(|first| first.pages) {
        return Ok(Measures { page_size, pages });
    }
    let bytes = file.file_size().map_err(|code| failed(path, code))?;
    let pages = u32::try_from(bytes / u64::from(page_size.get()))
        .map_err(|_| Error::corrupt(format!("{} is too large for a database", path.display())))?;
    Ok(Measures { page_size, pages: PageCount::new(pages) })
}

impl Source for View {
    fn page_size(&self) -> PageSize {
        self.measures.page_size
    }

    fn wal(&mut self) -> &mut WalReader {
        &mut self.pinning.wal
    }

    fn frame_of(&mut self, pgno: Pgno) -> Result<Option<FrameNo>> {
        let found = self.frames.find(&mut self.pinning.file, pgno);
        found.map_err(|code| self.failed(code))
    }

    fn read_file(&mut self, buf: &mut [u8], offset: u64) -> Result<()> {
        let read = self.pinning.file.read(buf, offset);
        read.map(|_short_is_zeros| ()).map_err(|code| self.failed(code))
    }
}

impl PinnedView for View {
    fn page_size(&self) -> PageSize {
        self.measures.page_size
    }

    fn commit(&self) -> PageCount {
        self.measures.pages
    }

    fn header(&self) -> IndexHeader {
        self.header
    }

    fn pages_after(&mut self, after: FrameNo) -> Result<Option<PageSet>> {
        let _section = fork::section();
        let last = self.header.mx_frame;
        let pages = index::pages(&mut self.pinning.file, after, last).map_err(|code| self.failed(code))?;
        // What is loaded next is not older than the entries.
        self.pinning.file.shm_barrier();
        if self.may_be_restarted() && !self.is_current() {
            return Ok(None);
        }
        if pages.is_some() {
            return Ok(pages);
        }
        let path = self.pinning.path.display();
        Err(Error::corrupt(format!("the WAL index of {path} does not list all frames up to {last}")))
    }

    fn frame(&mut self, frame: FrameNo) -> Result<Option<FrameHeader>> {
        self.pinning.wal.frame(frame, self.measures.page_size)
    }

    fn read_pages(&mut self, first: Pgno, pages: &mut [u8]) -> Result<()> {
        let _section = fork::section();
        let read = content::read_pages(self, first, pages);
        // Under mark 0 the frames of an earlier moment may be overwritten.
        if self.is_rewound && self.may_be_restarted() && !self.is_current() {
            let path = self.pinning.path.display();
            return Err(Error::new(ErrorKind::Busy, format!("the WAL of {path} was restarted")));
        }
        read
    }

    fn rewind(&mut self, frame: FrameNo) -> Result<bool> {
        let _section = fork::section();
        if frame > self.header.mx_frame {
            return Ok(false);
        }
        let commit = if frame == FrameNo::ZERO {
            let before = IndexHeader { page_count: PageCount::ZERO, ..self.header };
            let measures = self.measures;
            Some(measure(&mut self.pinning.file, &self.pinning.path, &before, &|| Some(measures))?.pages)
        } else {
            let written = self.frame(frame)?.filter(|written| written.salts == self.header.salts);
            written.and_then(|written| written.commit)
        };
        let Some(commit) = commit else { return Ok(false) };
        (self.measures.pages, self.frames, self.is_rewound) = (commit, Frames::up_to(frame), true);
        Ok(true)
    }
}
