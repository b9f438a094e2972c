//! The trampolines from SQLite's file methods to [`File`], in the order of `sqlite3_io_methods`.
//!
//! Each is called with a `sqlite3_file` that [`install`](super::installed::install) made ours, because
//! only that sets one of [`TABLES`]; SQLite calls one method of a file at a time.

use std::ffi::{c_int, c_void};
use std::ptr::NonNull;

use rusqlite::ffi::{self, sqlite3_file, sqlite3_int64, sqlite3_io_methods};

use super::asking::is_asking;
use super::find::FIND;
use super::forked::Inherited;
use super::installed::{file_mut, inherited, remove, replace, settled_before};
use super::log::{guard, guard_value};
use super::{
    Code, DeviceCharacteristics, Fetched, File, FileControl, FileControlOp, LockLevel, ReadOutcome, ShmLock,
    ShmLockFlags, SyncFlags, fcntl, forked, shared_cache,
};

/// The methods of our files. The number of a table says what is in it: 1 for shared memory, 2 for
/// memory maps, 3 for both. SQLite looks at no method that is newer than the table's version; a VFS in front of ours may
/// call it all the same.
pub(super) static TABLES: [sqlite3_io_methods; 4] = [
    with_shm(with_fetch(BASIC)),
    sqlite3_io_methods { iVersion: 2, ..with_shm(with_fetch(BASIC)) },
    sqlite3_io_methods { iVersion: 3, ..with_fetch(BASIC) },
    sqlite3_io_methods { iVersion: 3, ..with_shm(with_fetch(BASIC)) },
];

const BASIC: sqlite3_io_methods = sqlite3_io_methods {
    iVersion: 1,
    xClose: Some(x_close),
    xRead: Some(x_read),
    xWrite: Some(x_write),
    xTruncate: Some(x_truncate),
    xSync: Some(x_sync),
    xFileSize: Some(x_file_size),
    xLock: Some(x_lock),
    xUnlock: Some(x_unlock),
    xCheckReservedLock: Some(x_check_reserved_lock),
    xFileControl: Some(x_file_control),
    xSectorSize: Some(x_sector_size),
    xDeviceCharacteristics: Some(x_device_characteristics),
    xShmMap: None,
    xShmLock: None,
    xShmBarrier: None,
    xShmUnmap: None,
    xFetch: None,
    xUnfetch: None,
};

const fn with_shm(methods: sqlite3_io_methods) -> sqlite3_io_methods {
    sqlite3_io_methods {
        xShmMap: Some(x_shm_map),
        xShmLock: Some(x_shm_lock),
        xShmBarrier: Some(x_shm_barrier),
        xShmUnmap: Some(x_shm_unmap),
        ..methods
    }
}

const fn with_fetch(methods: sqlite3_io_methods) -> sqlite3_io_methods {
    sqlite3_io_methods { xFetch: Some(x_fetch), xUnfetch: Some(x_unfetch), ..methods }
}

/// Calls `body` with our file at `place`; a panic is logged and becomes `default`. In a forked child an inherited
/// file is refused.
///
/// # Safety
/// `place` must be an open file of ours of which no method is running.
unsafe fn call(
    place: *mut sqlite3_file,
    callback: &str,
    default: Code,
    body: impl FnOnce(&mut dyn File) -> Result<(), Code>,
) -> c_int {
    // SAFETY: as the caller promises.
    guard(callback, default, || match unsafe { inherited(place) } {
        // SAFETY: as above.
        None => body(unsafe { file_mut(place) }),
        Some(inherited) => Err(refuse(&inherited, default)),
    })
}

/// The same for what gives back, of which an inherited file has nothing: what it had is its parent's.
///
/// # Safety
/// As [`call`].
unsafe fn give_back(
    place: *mut sqlite3_file,
    callback: &str,
    default: Code,
    body: impl FnOnce(&mut dyn File) -> Result<(), Code>,
) -> c_int {
    // SAFETY: as the caller promises.
    guard(callback, default, || match unsafe { inherited(place) } {
        // SAFETY: as above.
        None => body(unsafe { file_mut(place) }),
        Some(_) => Ok(()),
    })
}

/// Refuses a method of an inherited file. The program made a mistake, and no disk: where a statement begins, with a
/// lock, SQLite passes that on. Anywhere else it wants the method's own code, to give up a transaction.
#[cold]
fn refuse(inherited: &Inherited, default: Code) -> Code {
    let code = match default {
        Code::IOERR_LOCK | Code::IOERR_SHMLOCK | Code::IOERR_SHMMAP => Code::MISUSE,
        other => other,
    };
    inherited.note(code);
    code
}

fn unsigned(n: sqlite3_int64, code: Code) -> Result<u64, Code> {
    u64::try_from(n).map_err(|_| code)
}

fn length(n: c_int, code: Code) -> Result<usize, Code> {
    usize::try_from(n).map_err(|_| code)
}

unsafe extern "C" fn x_close(place: *mut sqlite3_file) -> c_int {
    // SAFETY: an open file of ours.
    let is_inherited = unsafe { inherited(place) }.is_some();
    // SAFETY: an open file of ours, used by nobody else; SQLite does not use it after this.
    let mut file = unsafe { remove(place) };
    if is_inherited {
        // It shares what its parent's threads work with, and may have locked.
        std::mem::forget(file);
        return guard("xClose", Code::IOERR_CLOSE, || {
            forked::close_inherited();
            Ok(())
        });
    }
    let closed = guard("xClose", Code::IOERR_CLOSE, || file.close());
    guard_value("xClose", (), || drop(file));
    closed
}

unsafe extern "C" fn x_read(
    place: *mut sqlite3_file,
    buf: *mut c_void,
    amount: c_int,
    offset: sqlite3_int64,
) -> c_int {
    let read = |file: &mut dyn File| {
        let len = length(amount, Code::IOERR_READ)?;
        // SAFETY: SQLite gives `amount` bytes that are ours to write during the call.
        let buf = unsafe { std::slice::from_raw_parts_mut(buf.cast::<u8>(), len) };
        match file.read(buf, unsigned(offset, Code::IOERR_READ)?)? {
            ReadOutcome::Full => Ok(()),
            ReadOutcome::Short => Err(Code::IOERR_SHORT_READ),
        }
    };
    // SAFETY: SQLite's promise for every method, see the module.
    unsafe { call(place, "xRead", Code::IOERR_READ, read) }
}

unsafe extern "C" fn x_write(
    place: *mut sqlite3_file,
    data: *const c_void,
    amount: c_int,
    offset: sqlite3_int64,
) -> c_int {
    let write = |file: &mut dyn File| {
        let len = length(amount, Code::IOERR_WRITE)?;
        // SAFETY: SQLite gives `amount` bytes that do not change during the call.
        let data = unsafe { std::slice::from_raw_parts(data.cast::<u8>(), len) };
        file.write(data, unsigned(offset, Code::IOERR_WRITE)?)
    };
    // SAFETY: SQLite's promise for every method, see the module.
    unsafe { call(place, "xWrite", Code::IOERR_WRITE, write) }
}

unsafe extern "C" fn x_truncate(place: *mut sqlite3_file, size: sqlite3_int64) -> c_int {
    let truncate = |file: &mut dyn File| file.truncate(unsigned(size, Code::IOERR_TRUNCATE)?);
    // SAFETY: SQLite's promise for every method, see the module.
    unsafe { call(place, "xTruncate", Code::IOERR_TRUNCATE, truncate) }
}

unsafe extern "C" fn x_sync(place: *mut sqlite3_file, flags: c_int) -> c_int {
    // SAFETY: SQLite's promise for every method, see the module.
    unsafe { call(place, "xSync", Code::IOERR_FSYNC, |file| file.sync(SyncFlags::from_bits(flags))) }
}

unsafe extern "C" fn x_file_size(place: *mut sqlite3_file, answer: *mut sqlite3_int64) -> c_int {
    let file_size = |file: &mut dyn File| {
        let size = i64::try_from(file.file_size()?).map_err(|_| Code::IOERR_FSTAT)?;
        // SAFETY: SQLite gives a place for the answer.
        unsafe { answer.write(size) };
        Ok(())
    };
    // SAFETY: SQLite's promise for every method, see the module.
    unsafe { call(place, "xFileSize", Code::IOERR_FSTAT, file_size) }
}

unsafe extern "C" fn x_lock(place: *mut sqlite3_file, level: c_int) -> c_int {
    // In WAL mode SQLite asks for this lock first where it closes a connection. That is what a child does with those that it
    // inherited, however late: it is no use of them, and others have the database.
    // SAFETY: SQLite's promise for every method, see the module.
    if level == ffi::SQLITE_LOCK_EXCLUSIVE && unsafe { inherited(place) }.is_some() {
        return ffi::SQLITE_BUSY;
    }
    let lock = |file: &mut dyn File| file.lock(LockLevel::from_raw(level).ok_or(Code::IOERR_LOCK)?);
    // SAFETY: SQLite's promise for every method, see the module.
    unsafe { call(place, "xLock", Code::IOERR_LOCK, lock) }
}

unsafe extern "C" fn x_unlock(place: *mut sqlite3_file, level: c_int) -> c_int {
    let unlock = |file: &mut dyn File| file.unlock(LockLevel::from_raw(level).ok_or(Code::IOERR_UNLOCK)?);
    // SAFETY: SQLite's promise for every method, see the module.
    unsafe { give_back(place, "xUnlock", Code::IOERR_UNLOCK, unlock) }
}

unsafe extern "C" fn x_check_reserved_lock(place: *mut sqlite3_file, answer: *mut c_int) -> c_int {
    let check = |file: &mut dyn File| {
        let held = file.check_reserved_lock()?;
        // SAFETY: SQLite gives a place for the answer.
        unsafe { answer.write(held.into()) };
        Ok(())
    };
    // SAFETY: SQLite's promise for every method, see the module.
    unsafe { call(place, "xCheckReservedLock", Code::IOERR_CHECKRESERVEDLOCK, check) }
}

unsafe extern "C" fn x_file_control(place: *mut sqlite3_file, op: c_int, arg: *mut c_void) -> c_int {
    if op == FIND {
        // SAFETY: the operation is ours, and who asks gives a place for the address.
        unsafe { arg.cast::<*mut sqlite3_file>().write(place) };
        return ffi::SQLITE_OK;
    }
    if op == FileControlOp::PRAGMA.get() && is_asking() {
        return ffi::SQLITE_NOTFOUND;
    }
    // SAFETY: SQLite's promise for every method, see the module.
    if let Some(inherited) = unsafe { inherited(place) } {
        // SAFETY: SQLite gives the argument that it documents for the operation.
        return guard("xFileControl", Code::IOERR, || unsafe { control_inherited(&inherited, op, arg) });
    }
    if op == FileControlOp::PDB.get() {
        shared_cache::opened();
        // With a shared cache SQLite says it for each connection that joins, without a lock, and with the
        // connection that used the file last, which another thread may be using.
        // SAFETY: SQLite's promise for every method, see the module.
        if unsafe { settled_before(place) } {
            return ffi::SQLITE_OK;
        }
        // SAFETY: as for the module; SQLite gives the argument that it documents for the operation.
        guard_value("xFileControl", (), || unsafe { settle(place, arg) });
    }
    // SAFETY: SQLite gives the argument that it documents for the operation.
    let control = |file: &mut dyn File| unsafe {
        match FileControlOp::from_raw(op) {
            FileControlOp::PRAGMA => fcntl::pragma(file, arg),
            FileControlOp::VFSNAME => fcntl::vfs_name(file, arg),
            _ => fcntl::other(file, op, arg),
        }
    };
    // SAFETY: SQLite's promise for every method, see the module.
    unsafe { call(place, "xFileControl", Code::IOERR, control) }
}

/// Answers a file control of an inherited file: a PRAGMA is where SQLite has room for a text.
///
/// # Safety
/// `arg` must be what SQLite documents for `op`.
unsafe fn control_inherited(inherited: &Inherited, op: c_int, arg: *mut c_void) -> Result<(), Code> {
    if op != FileControlOp::PRAGMA.get() {
        return Err(Code::NOTFOUND);
    }
    inherited.note(Code::ERROR);
    // SAFETY: as the caller promises.
    unsafe { fcntl::refuse_pragma(arg, &inherited.message()) }
}

/// Lets the file at `place` be replaced, now that it is known whose it is.
///
/// # Safety
/// `place` must be an open file of ours of which no method is running, `arg` that of `SQLITE_FCNTL_PDB`.
unsafe fn settle(place: *mut sqlite3_file, arg: *mut c_void) {
    // SAFETY: as the caller promises.
    let connection = unsafe { FileControl::new(FileControlOp::PDB.get(), arg) }.connection();
    // SAFETY: as the caller promises. No reference is left when the file is replaced.
    unsafe {
        if let Some(next) =
            connection.and_then(|connection| file_mut(place).settle(&connection.opener(place)))
        {
            replace(place, next);
        }
    }
}

unsafe extern "C" fn x_sector_size(place: *mut sqlite3_file) -> c_int {
    // SAFETY: SQLite's promise for every method, see the module.
    let size = guard_value("xSectorSize", 0, || unsafe {
        if inherited(place).is_some() { 0 } else { file_mut(place).sector_size() }
    });
    // SQLite takes its default for what is too small.
    c_int::try_from(size).unwrap_or(0)
}

unsafe extern "C" fn x_device_characteristics(place: *mut sqlite3_file) -> c_int {
    // SAFETY: SQLite's promise for every method, see the module.
    guard_value("xDeviceCharacteristics", DeviceCharacteristics::NONE, || unsafe {
        match inherited(place) {
            None => file_mut(place).device_characteristics(),
            Some(_) => DeviceCharacteristics::NONE,
        }
    })
    .bits()
}

unsafe extern "C" fn x_shm_map(
    place: *mut sqlite3_file,
    region: c_int,
    size: c_int,
    extend: c_int,
    answer: *mut *mut c_void,
) -> c_int {
    // SAFETY: SQLite gives a place for the answer.
    unsafe { answer.write(std::ptr::null_mut()) };
    let map = |file: &mut dyn File| {
        let number = u32::try_from(region).map_err(|_| Code::IOERR_SHMMAP)?;
        let size = u32::try_from(size).map_err(|_| Code::IOERR_SHMMAP)?;
        let Some(region) = file.shm_map(number, size, extend != 0)? else { return Ok(()) };
        // SAFETY: as above.
        unsafe { answer.write(region.start().as_ptr().cast()) };
        if region.is_read_only() { Err(Code::READONLY) } else { Ok(()) }
    };
    // SAFETY: SQLite's promise for every method, see the module.
    unsafe { call(place, "xShmMap", Code::IOERR_SHMMAP, map) }
}

unsafe extern "C" fn x_shm_lock(place: *mut sqlite3_file, first: c_int, count: c_int, flags: c_int) -> c_int {
    let flags = ShmLockFlags::from_bits(flags);
    let lock = |file: &mut dyn File| {
        let slot = |n: c_int| u8::try_from(n).map_err(|_| Code::IOERR_SHMLOCK);
        file.shm_lock(ShmLock { first: slot(first)?, count: slot(count)? }, flags)
    };
    // SAFETY: SQLite's promise for every method, see the module.
    unsafe {
        if flags.is_lock() {
            call(place, "xShmLock", Code::IOERR_SHMLOCK, lock)
        } else {
            give_back(place, "xShmLock", Code::IOERR_SHMLOCK, lock)
        }
    }
}

unsafe extern "C" fn x_shm_barrier(place: *mut sqlite3_file) {
    // SAFETY: SQLite's promise for every method, see the module.
    guard_value("xShmBarrier", (), || unsafe {
        if inherited(place).is_none() {
            file_mut(place).shm_barrier();
        }
    });
}

unsafe extern "C" fn x_shm_unmap(place: *mut sqlite3_file, delete: c_int) -> c_int {
    // SAFETY: SQLite's promise for every method, see the module.
    unsafe { give_back(place, "xShmUnmap", Code::IOERR_SHMMAP, |file| file.shm_unmap(delete != 0)) }
}

unsafe extern "C" fn x_fetch(
    place: *mut sqlite3_file,
    offset: sqlite3_int64,
    amount: c_int,
    answer: *mut *mut c_void,
) -> c_int {
    // SAFETY: SQLite gives a place for the answer.
    unsafe { answer.write(std::ptr::null_mut()) };
    let fetch = |file: &mut dyn File| {
        let (offset, len) = (unsigned(offset, Code::IOERR_MMAP)?, length(amount, Code::IOERR_MMAP)?);
        if let Some(Fetched(start)) = file.fetch(offset, len)? {
            // SAFETY: as above.
            unsafe { answer.write(start.as_ptr()) };
        }
        Ok(())
    };
    // SAFETY: SQLite's promise for every method, see the module.
    unsafe { call(place, "xFetch", Code::IOERR_MMAP, fetch) }
}

unsafe extern "C" fn x_unfetch(place: *mut sqlite3_file, offset: sqlite3_int64, start: *mut c_void) -> c_int {
    let unfetch = |file: &mut dyn File| {
        file.unfetch(unsigned(offset, Code::IOERR_MMAP)?, NonNull::new(start).map(Fetched))
    };
    // SAFETY: SQLite's promise for every method, see the module.
    unsafe { give_back(place, "xUnfetch", Code::IOERR_MMAP, unfetch) }
}

#[cfg(test)]
mod tests;
