//! A file that the host's VFS opened, in memory that we own.

use std::alloc::{self, Layout};
use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::ffi;

use super::closing_lock::ClosingLock;
use super::name::OwnedName;
use super::{
    BaseVfs, Code, DeviceCharacteristics, Fetched, FileControl, FileKind, IoVersion, LockLevel, OpenFlags,
    ReadOutcome, ShmLock, ShmLockFlags, ShmRegion, SyncFlags, forked,
};

/// The alignment of a `sqlite3_file` of an unknown VFS, in bytes: that of any C type.
const ALIGNMENT: usize = 16;

/// A file of the host's VFS. Closed when it is dropped, if it was not before.
#[derive(Debug)]
pub struct BaseFile {
    memory: Memory,
    /// The regions of shared memory that are mapped, by number.
    ///
    /// Invariant: valid while the file is open, until `shm_unmap` or `close`, which empty it.
    regions: Vec<Option<Mapping>>,
    /// Whether it holds the WRITE lock of the WAL, for forked children.
    is_writing: Arc<AtomicBool>,
    /// The name, if we made it. After `memory`, whose file points to it until it is closed.
    name: Option<OwnedName>,
}

// SAFETY: SQLite uses a file from any thread, one at a time; nothing in it belongs to a thread.
unsafe impl Send for BaseFile {}

/// A mapped region of shared memory.
#[derive(Clone, Copy, Debug)]
struct Mapping {
    start: NonNull<u8>,
    len: usize,
    read_only: bool,
}

/// The memory of a `sqlite3_file`.
#[derive(Debug)]
struct Memory {
    /// Invariant: allocated with `layout`. Its `pMethods` is null if and only if the file is closed.
    file: NonNull<ffi::sqlite3_file>,
    layout: Layout,
    /// That of a main database: other files are never locked.
    closing_lock: Option<ClosingLock>,
}

impl Memory {
    fn new(size: c_int) -> Result<Self, Code> {
        let size = usize::try_from(size).unwrap_or(0).max(size_of::<ffi::sqlite3_file>());
        let layout = Layout::from_size_align(size, ALIGNMENT).map_err(|_| Code::NOMEM)?;
        // SAFETY: the size is not zero.
        let memory = unsafe { alloc::alloc_zeroed(layout) };
        Ok(Self { file: NonNull::new(memory.cast()).ok_or(Code::NOMEM)?, layout, closing_lock: None })
    }

    const fn as_ptr(&self) -> *mut ffi::sqlite3_file {
        self.file.as_ptr()
    }

    fn methods(&self) -> Option<&ffi::sqlite3_io_methods> {
        // SAFETY: the memory is ours and zeroed at first; a VFS sets `pMethods` to null or to a table
        // that lives as long as the file. It may set another one later, so it is read each time.
        unsafe { (*self.as_ptr()).pMethods.as_ref() }
    }

    fn close(&mut self) -> Result<(), Code> {
        forked::closes(self.file);
        let Some(close) = self.methods().and_then(|methods| methods.xClose) else { return Ok(()) };
        let _closing = self.closing_lock.map(ClosingLock::closing);
        // SAFETY: the file is open.
        let closed = Code::check(unsafe { close(self.as_ptr()) });
        // SAFETY: the memory is ours.
        unsafe { (*self.as_ptr()).pMethods = std::ptr::null() };
        closed
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // There is nobody to tell.
        let _ = self.close();
        // SAFETY: allocated with this layout, freed once.
        unsafe { alloc::dealloc(self.file.as_ptr().cast(), self.layout) }
    }
}

/// Calls a method of the base file: its code, or `$missing` if the file has none such or is closed.
macro_rules! call {
    ($self:ident . $method:ident ( $($arg:expr),* ) else $missing:expr) => {{
        match $self.memory.methods().and_then(|methods| methods.$method) {
            // SAFETY: the file is open, this is its own method, and pointers among the arguments are
            // valid for the length that goes with them, for the duration of the call.
            Some(method) => unsafe { method($self.memory.as_ptr(), $($arg),*) },
            None => $missing,
        }
    }};
}

fn signed(n: u64, code: Code) -> Result<i64, Code> {
    i64::try_from(n).map_err(|_| code)
}

fn amount(len: usize, code: Code) -> Result<c_int, Code> {
    c_int::try_from(len).map_err(|_| code)
}

impl BaseFile {
    /// # Safety
    /// As [`BaseVfs::open_raw`].
    pub(super) unsafe fn open(
        vfs: &BaseVfs,
        name: *const c_char,
        flags: OpenFlags,
    ) -> Result<(Self, OpenFlags), Code> {
        let memory = Memory::new(vfs.methods().szOsFile)?;
        let open = vfs.methods().xOpen.ok_or(Code::CANTOPEN)?;
        let mut out_flags = flags.bits();
        // SAFETY: the VFS is alive, the name is as it wants it, the memory is zeroed and large enough.
        let opened = unsafe { open(vfs.as_ptr(), name, memory.as_ptr(), flags.bits(), &raw mut out_flags) };
        let mut file = Self { memory, regions: Vec::new(), is_writing: Arc::default(), name: None };
        // A file whose open failed may still want to be closed: dropping it does.
        Code::check(opened)?;
        file.is_writing = forked::opened(file.memory.file);
        if flags.kind() == FileKind::MainDb && !name.is_null() {
            // SAFETY: the name ends with a zero, as the caller promises.
            let path = unsafe { CStr::from_ptr(name) };
            file.memory.closing_lock = Some(ClosingLock::of(Path::new(OsStr::from_bytes(path.to_bytes()))));
        }
        Ok((file, OpenFlags::from_bits(out_flags)))
    }

    pub(super) fn keep_name(&mut self, name: OwnedName) {
        self.name = Some(name);
    }

    /// Which optional methods it has.
    pub fn io_version(&self) -> IoVersion {
        self.memory.methods().map_or(IoVersion::BASIC, |methods| IoVersion {
            shm: methods.iVersion >= 2 && methods.xShmMap.is_some(),
            fetch: methods.iVersion >= 3 && methods.xFetch.is_some(),
        })
    }

    /// Reads `buf.len()` bytes at `offset`.
    ///
    /// # Errors
    /// `IOERR_READ`.
    pub fn read(&mut self, buf: &mut [u8], offset: u64) -> Result<ReadOutcome, Code> {
        let (len, offset) = (amount(buf.len(), Code::IOERR_READ)?, signed(offset, Code::IOERR_READ)?);
        let into = buf.as_mut_ptr().cast::<c_void>();
        match call!(self.xRead(into, len, offset) else ffi::SQLITE_IOERR_READ) {
            ffi::SQLITE_IOERR_SHORT_READ => Ok(ReadOutcome::Short),
            code => Code::check(code).map(|()| ReadOutcome::Full),
        }
    }

    /// Writes all of `data` at `offset`.
    ///
    /// # Errors
    /// `IOERR_WRITE`, `FULL`, `READONLY`.
    pub fn write(&mut self, data: &[u8], offset: u64) -> Result<(), Code> {
        let (len, offset) = (amount(data.len(), Code::IOERR_WRITE)?, signed(offset, Code::IOERR_WRITE)?);
        let from = data.as_ptr().cast::<c_void>();
        Code::check(call!(self.xWrite(from, len, offset) else ffi::SQLITE_IOERR_WRITE))
    }

    /// Makes the file `size` bytes long.
    ///
    /// # Errors
    /// `IOERR_TRUNCATE`.
    pub fn truncate(&mut self, size: u64) -> Result<(), Code> {
        let size = signed(size, Code::IOERR_TRUNCATE)?;
        Code::check(call!(self.xTruncate(size) else ffi::SQLITE_IOERR_TRUNCATE))
    }

    /// Makes what was written durable.
    ///
    /// # Errors
    /// `IOERR_FSYNC`.
    pub fn sync(&mut self, flags: SyncFlags) -> Result<(), Code> {
        Code::check(call!(self.xSync(flags.bits()) else ffi::SQLITE_IOERR_FSYNC))
    }

    /// The size in bytes.
    ///
    /// # Errors
    /// `IOERR_FSTAT`.
    pub fn file_size(&mut self) -> Result<u64, Code> {
        let mut size = 0_i64;
        Code::check(call!(self.xFileSize(&raw mut size) else ffi::SQLITE_IOERR_FSTAT))?;
        u64::try_from(size).map_err(|_| Code::IOERR_FSTAT)
    }

    /// Raises the lock to `level`.
    ///
    /// # Errors
    /// `BUSY`, or an I/O error.
    pub fn lock(&mut self, level: LockLevel) -> Result<(), Code> {
        let from_nothing = level == LockLevel::Shared;
        let _locking = self.memory.closing_lock.filter(|_| from_nothing).map(ClosingLock::locking);
        Code::check(call!(self.xLock(level.get()) else ffi::SQLITE_IOERR_LOCK))
    }

    /// Lowers the lock to `level`, which is `None` or `Shared`.
    ///
    /// # Errors
    /// `IOERR_UNLOCK`.
    pub fn unlock(&mut self, level: LockLevel) -> Result<(), Code> {
        Code::check(call!(self.xUnlock(level.get()) else ffi::SQLITE_IOERR_UNLOCK))
    }

    /// Whether any connection holds a lock of `Reserved` or more.
    ///
    /// # Errors
    /// `IOERR_CHECKRESERVEDLOCK`.
    pub fn check_reserved_lock(&mut self) -> Result<bool, Code> {
        let mut held: c_int = 0;
        let missing = ffi::SQLITE_IOERR_CHECKRESERVEDLOCK;
        Code::check(call!(self.xCheckReservedLock(&raw mut held) else missing))?;
        Ok(held != 0)
    }

    /// Passes a file control on.
    ///
    /// # Errors
    /// `NOTFOUND` if the operation is not known.
    pub fn file_control(&mut self, control: FileControl<'_>) -> Result<(), Code> {
        Code::check(call!(self.xFileControl(control.op().get(), control.arg()) else ffi::SQLITE_NOTFOUND))
    }

    /// Whether the file was renamed, removed or replaced since it was opened; false if the VFS does not tell.
    pub fn has_moved(&mut self) -> bool {
        let mut moved: c_int = 0;
        let arg = (&raw mut moved).cast::<c_void>();
        let code = call!(self.xFileControl(ffi::SQLITE_FCNTL_HAS_MOVED, arg) else ffi::SQLITE_NOTFOUND);
        code == ffi::SQLITE_OK && moved != 0
    }

    /// The sector size of the device in bytes.
    pub fn sector_size(&mut self) -> u32 {
        let size = call!(self.xSectorSize() else 4096);
        u32::try_from(size).unwrap_or(4096)
    }

    /// What the device promises.
    pub fn device_characteristics(&mut self) -> DeviceCharacteristics {
        DeviceCharacteristics::from_bits(call!(self.xDeviceCharacteristics() else 0))
    }

    /// Maps region number `region` of the shared memory, of `size` bytes each; `None` if it is not
    /// there and `extend` is false.
    ///
    /// # Errors
    /// `IOERR_SHMMAP` and its relatives, `READONLY_CANTINIT`, `READONLY` if the region is not there and
    /// the shared memory may only be read.
    pub fn shm_map(&mut self, region: u32, size: u32, extend: bool) -> Result<Option<ShmRegion<'_>>, Code> {
        let number = c_int::try_from(region).map_err(|_| Code::IOERR_SHMMAP)?;
        let bytes = c_int::try_from(size).map_err(|_| Code::IOERR_SHMMAP)?;
        let mut start: *mut c_void = std::ptr::null_mut();
        let code = call!(
            self.xShmMap(number, bytes, extend.into(), &raw mut start) else ffi::SQLITE_IOERR_SHMMAP
        );
        // `READONLY` with a region is a success of its kind.
        let read_only = code == ffi::SQLITE_READONLY && !start.is_null();
        if !read_only {
            Code::check(code)?;
        }
        let Some(start) = NonNull::new(start.cast::<u8>()) else { return Ok(None) };
        let index = region as usize;
        if self.regions.len() <= index {
            self.regions.resize(index + 1, None);
        }
        self.regions[index] = Some(Mapping { start, len: size as usize, read_only });
        forked::mapped(self.memory.file, start, size as usize);
        Ok(self.shm_region(region))
    }

    /// A region that was mapped before and not unmapped since.
    pub fn shm_region(&self, region: u32) -> Option<ShmRegion<'_>> {
        let Mapping { start, len, read_only } = (*self.regions.get(region as usize)?)?;
        // A forked child may have closed it behind our back.
        self.memory.methods()?;
        // SAFETY: mapped by the invariant of `regions`; unmapping needs `&mut self`.
        unsafe { ShmRegion::new(start, len, read_only) }
    }

    /// Takes or releases locks on slots of the shared memory.
    ///
    /// # Errors
    /// `BUSY`, `IOERR_SHMLOCK`.
    pub fn shm_lock(&mut self, lock: ShmLock, flags: ShmLockFlags) -> Result<(), Code> {
        let (first, count) = (lock.first.into(), lock.count.into());
        Code::check(call!(self.xShmLock(first, count, flags.bits()) else ffi::SQLITE_IOERR_SHMLOCK))?;
        if lock.covers(ShmLock::WRITE) && flags.is_exclusive() {
            self.is_writing.store(flags.is_lock(), Ordering::Relaxed);
        }
        Ok(())
    }

    /// Orders all loads and stores before it and all after it.
    pub fn shm_barrier(&self) {
        call!(self.xShmBarrier() else ());
    }

    /// Unmaps the shared memory, and deletes it if `delete`.
    ///
    /// # Errors
    /// An I/O error.
    pub fn shm_unmap(&mut self, delete: bool) -> Result<(), Code> {
        self.regions.clear();
        forked::unmaps(self.memory.file);
        Code::check(call!(self.xShmUnmap(delete.into()) else ffi::SQLITE_OK))
    }

    /// A pointer into a memory map of the file; `None` if there is none.
    ///
    /// # Errors
    /// An I/O error.
    pub fn fetch(&mut self, offset: u64, len: usize) -> Result<Option<Fetched>, Code> {
        let (len, offset) = (amount(len, Code::IOERR_MMAP)?, signed(offset, Code::IOERR_MMAP)?);
        let mut place: *mut c_void = std::ptr::null_mut();
        Code::check(call!(self.xFetch(offset, len, &raw mut place) else ffi::SQLITE_OK))?;
        Ok(NonNull::new(place).map(Fetched))
    }

    /// Gives back what `fetch` gave for `offset`; with `None` the whole map must go.
    ///
    /// # Errors
    /// An I/O error.
    pub fn unfetch(&mut self, offset: u64, fetched: Option<Fetched>) -> Result<(), Code> {
        let offset = signed(offset, Code::IOERR_MMAP)?;
        let place = fetched.map_or(std::ptr::null_mut(), |Fetched(place)| place.as_ptr());
        Code::check(call!(self.xUnfetch(offset, place) else ffi::SQLITE_OK))
    }

    /// Closes the file; closing it again does nothing. A closed file answers every method with an error.
    ///
    /// # Errors
    /// `IOERR_CLOSE`.
    pub fn close(&mut self) -> Result<(), Code> {
        self.regions.clear();
        self.memory.close()
    }
}
