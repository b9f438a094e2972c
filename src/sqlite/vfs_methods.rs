//! The trampolines from SQLite's VFS methods to [`Vfs`] and the base VFS, in the order of `sqlite3_vfs`.
//!
//! Each is called with the `sqlite3_vfs` inside a [`Shim`], because only that has these methods. A
//! shim lives for ever.

use std::ffi::{CStr, c_char, c_int, c_void};

use rusqlite::ffi::{self, sqlite3_file, sqlite3_int64, sqlite3_syscall_ptr, sqlite3_vfs};

use super::name::{FileName, path_of};
use super::{
    Access, BaseVfs, Code, FileKind, OpenFlags, OpenRequest, Opened, Vfs, auto_extension, forked, installed,
    log, shared_cache,
};

/// A VFS that SQLite knows, and what is behind it.
pub(super) struct Shim {
    vfs: sqlite3_vfs,
    inner: Box<dyn Vfs>,
    base: BaseVfs,
    /// Connections have it only because they name it.
    is_named: bool,
}

/// What `xDlSym` finds.
type Symbol = Option<unsafe extern "C" fn(*mut sqlite3_vfs, *mut c_void, *const c_char)>;

/// Who gets a VFS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Users {
    /// Connections that name it.
    WhoNameIt,
    /// All that name no other.
    Everybody,
    /// Those of the VFS in front of it, which is for everybody.
    BehindEverybody,
}

impl Users {
    /// The same users, of a VFS that has another one in front.
    pub(super) const fn behind_another(self) -> Self {
        match self {
            Self::WhoNameIt => Self::WhoNameIt,
            Self::Everybody | Self::BehindEverybody => Self::BehindEverybody,
        }
    }
}

/// Registers `inner` as a VFS of this name in front of `base`.
///
/// # Errors
/// Those of `sqlite3_vfs_register`.
pub(super) fn register(
    name: &'static CStr,
    base: BaseVfs,
    inner: Box<dyn Vfs>,
    users: Users,
) -> Result<(), Code> {
    let vfs = describe(name, &base);
    let shim = Box::leak(Box::new(Shim { vfs, inner, base, is_named: users == Users::WhoNameIt }));
    let start: *mut Shim = shim;
    // SAFETY: the shim is leaked, so it stays where it is for ever; nothing else refers to it yet.
    unsafe {
        (*start).vfs.pAppData = start.cast();
        Code::check(ffi::sqlite3_vfs_register(&raw mut (*start).vfs, (users == Users::Everybody).into()))
    }
}

/// Whether `vfs` is one of ours that connections have only because they name it.
pub(super) fn is_named(vfs: &sqlite3_vfs) -> bool {
    // SAFETY: `register` set it to the shim, which lives for ever and does not change.
    is_ours(vfs) && unsafe { &*vfs.pAppData.cast::<Shim>() }.is_named
}

/// Whether `vfs` is one of ours.
pub(super) fn is_ours(vfs: &sqlite3_vfs) -> bool {
    vfs.xOpen
        .is_some_and(|open| std::ptr::fn_addr_eq(open, x_open as unsafe extern "C" fn(_, _, _, _, _) -> _))
}

/// Our methods, without those that the base VFS has not, because it lacks them or is of an older version.
fn describe(name: &'static CStr, base: &BaseVfs) -> sqlite3_vfs {
    let below = base.methods();
    let ours = c_int::try_from(installed::SIZE).expect("BUG: a file of ours is small");
    sqlite3_vfs {
        iVersion: below.iVersion.min(3),
        szOsFile: below.szOsFile.max(ours),
        mxPathname: below.mxPathname,
        pNext: std::ptr::null_mut(),
        zName: name.as_ptr(),
        pAppData: std::ptr::null_mut(),
        xOpen: Some(x_open),
        xDelete: Some(x_delete),
        xAccess: Some(x_access),
        xFullPathname: below.xFullPathname.and(Some(x_full_pathname)),
        xDlOpen: below.xDlOpen.and(Some(x_dl_open)),
        xDlError: below.xDlError.and(Some(x_dl_error)),
        xDlSym: below.xDlSym.and(Some(x_dl_sym)),
        xDlClose: below.xDlClose.and(Some(x_dl_close)),
        xRandomness: below.xRandomness.and(Some(x_randomness)),
        xSleep: below.xSleep.and(Some(x_sleep)),
        xCurrentTime: below.xCurrentTime.and(Some(x_current_time)),
        xGetLastError: below.xGetLastError.and(Some(x_get_last_error)),
        xCurrentTimeInt64: below
            .xCurrentTimeInt64
            .filter(|_| below.iVersion >= 2)
            .and(Some(x_current_time_int64)),
        xSetSystemCall: below.xSetSystemCall.filter(|_| below.iVersion >= 3).and(Some(x_set_system_call)),
        xGetSystemCall: below.xGetSystemCall.filter(|_| below.iVersion >= 3).and(Some(x_get_system_call)),
        xNextSystemCall: below.xNextSystemCall.filter(|_| below.iVersion >= 3).and(Some(x_next_system_call)),
    }
}

/// The shim of which `vfs` is a part.
///
/// # Safety
/// `vfs` must be one that `register` made.
unsafe fn shim<'a>(vfs: *mut sqlite3_vfs) -> &'a Shim {
    // SAFETY: `register` set it to the shim, which lives for ever and does not change.
    unsafe { &*(*vfs).pAppData.cast::<Shim>() }
}

unsafe extern "C" fn x_open(
    vfs: *mut sqlite3_vfs,
    name: *const c_char,
    file: *mut sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: SQLite gives memory for a file. It looks at `pMethods` after a failed open too.
    unsafe { (*file).pMethods = std::ptr::null() };
    log::guard("xOpen", Code::CANTOPEN, || {
        forked::close_inherited();
        // SAFETY: see the module; SQLite's name lives longer than the call.
        let (shim, name) = unsafe { (shim(vfs), FileName::new(name)) };
        let mut request = OpenRequest::new(name, OpenFlags::from_bits(flags), &shim.base);
        if request.kind() == FileKind::MainDb {
            // What fails a refused open, and gives the others the functions.
            auto_extension::register()?;
            request = request.sharing_cache(is_for_shared_cache(vfs, &request));
        }
        let (opened, opened_flags) = match shim.inner.open(request)? {
            // SAFETY: what SQLite gave us, for a VFS whose files fit in the memory.
            Opened::PassThrough => return unsafe { pass_open(&shim.base, request, file, out_flags) },
            Opened::File { file, out_flags } => (file, out_flags),
        };
        // SAFETY: `szOsFile` is large enough for a file of ours, and there is none yet; SQLite gives
        // null or a place for the flags.
        unsafe {
            installed::install(file, opened, request.database_path().map(Box::from));
            if let Some(out_flags) = out_flags.as_mut() {
                *out_flags = opened_flags.bits();
            }
        }
        Ok(())
    })
}

/// Lets the base VFS open the file right where SQLite wants it.
///
/// # Safety
/// `file` and `out_flags` must be those of SQLite's call.
unsafe fn pass_open(
    base: &BaseVfs,
    request: OpenRequest<'_>,
    file: *mut sqlite3_file,
    out_flags: *mut c_int,
) -> Result<(), Code> {
    let open = base.methods().xOpen.ok_or(Code::CANTOPEN)?;
    // SAFETY: as the caller promises; `szOsFile` is at least the base VFS's.
    Code::check(unsafe { open(base.as_ptr(), request.name_ptr(), file, request.flags().bits(), out_flags) })
}

unsafe extern "C" fn x_delete(vfs: *mut sqlite3_vfs, name: *const c_char, sync_dir: c_int) -> c_int {
    log::guard("xDelete", Code::IOERR_DELETE, || {
        // SAFETY: see the module; the name ends with a zero.
        let (shim, path) = unsafe { (shim(vfs), path_of(CStr::from_ptr(name))) };
        shim.inner.delete(&shim.base, path, sync_dir != 0)
    })
}

unsafe extern "C" fn x_access(
    vfs: *mut sqlite3_vfs,
    name: *const c_char,
    flags: c_int,
    answer: *mut c_int,
) -> c_int {
    log::guard("xAccess", Code::IOERR_ACCESS, || {
        // SAFETY: see the module; the name ends with a zero.
        let (shim, path) = unsafe { (shim(vfs), path_of(CStr::from_ptr(name))) };
        let what = Access::from_raw(flags).ok_or(Code::IOERR_ACCESS)?;
        let is_so = shim.inner.access(&shim.base, path, what)?;
        // SAFETY: SQLite gives a place for the answer.
        unsafe { answer.write(is_so.into()) };
        Ok(())
    })
}

/// Calls the same method of the base VFS. `describe` sets a trampoline only if that is there.
macro_rules! below {
    ($vfs:ident . $method:ident ( $($arg:expr),* ) else $missing:expr) => {{
        // SAFETY: see the module.
        let base = unsafe { shim($vfs) }.base;
        match base.methods().$method {
            // SAFETY: the arguments are those that SQLite gave for this very method.
            Some(method) => unsafe { method(base.as_ptr(), $($arg),*) },
            None => $missing,
        }
    }};
}

unsafe extern "C" fn x_full_pathname(
    vfs: *mut sqlite3_vfs,
    name: *const c_char,
    size: c_int,
    out: *mut c_char,
) -> c_int {
    let code = below!(vfs.xFullPathname(name, size, out) else ffi::SQLITE_CANTOPEN);
    let is_known = matches!(code, ffi::SQLITE_OK | ffi::SQLITE_OK_SYMLINK);
    // SAFETY: after a success it is a string that ends with a zero.
    let full_path = is_known.then(|| path_of(unsafe { CStr::from_ptr(out) }));
    shared_cache::asked(vfs, name, full_path);
    code
}

/// Whether the main database of `request` is opened for a cache that connections share.
fn is_for_shared_cache(vfs: *const sqlite3_vfs, request: &OpenRequest<'_>) -> bool {
    request.path().is_some_and(|path| shared_cache::opens(vfs, path, request.parameters()))
}

unsafe extern "C" fn x_dl_open(vfs: *mut sqlite3_vfs, name: *const c_char) -> *mut c_void {
    below!(vfs.xDlOpen(name) else std::ptr::null_mut())
}

unsafe extern "C" fn x_dl_error(vfs: *mut sqlite3_vfs, size: c_int, out: *mut c_char) {
    below!(vfs.xDlError(size, out) else ());
}

unsafe extern "C" fn x_dl_sym(vfs: *mut sqlite3_vfs, library: *mut c_void, symbol: *const c_char) -> Symbol {
    below!(vfs.xDlSym(library, symbol) else None)
}

unsafe extern "C" fn x_dl_close(vfs: *mut sqlite3_vfs, library: *mut c_void) {
    below!(vfs.xDlClose(library) else ());
}

unsafe extern "C" fn x_randomness(vfs: *mut sqlite3_vfs, size: c_int, out: *mut c_char) -> c_int {
    below!(vfs.xRandomness(size, out) else 0)
}

unsafe extern "C" fn x_sleep(vfs: *mut sqlite3_vfs, microseconds: c_int) -> c_int {
    below!(vfs.xSleep(microseconds) else 0)
}

unsafe extern "C" fn x_current_time(vfs: *mut sqlite3_vfs, out: *mut f64) -> c_int {
    below!(vfs.xCurrentTime(out) else ffi::SQLITE_ERROR)
}

unsafe extern "C" fn x_get_last_error(vfs: *mut sqlite3_vfs, size: c_int, out: *mut c_char) -> c_int {
    below!(vfs.xGetLastError(size, out) else 0)
}

unsafe extern "C" fn x_current_time_int64(vfs: *mut sqlite3_vfs, out: *mut sqlite3_int64) -> c_int {
    below!(vfs.xCurrentTimeInt64(out) else ffi::SQLITE_ERROR)
}

unsafe extern "C" fn x_set_system_call(
    vfs: *mut sqlite3_vfs,
    name: *const c_char,
    call: sqlite3_syscall_ptr,
) -> c_int {
    below!(vfs.xSetSystemCall(name, call) else ffi::SQLITE_NOTFOUND)
}

unsafe extern "C" fn x_get_system_call(vfs: *mut sqlite3_vfs, name: *const c_char) -> sqlite3_syscall_ptr {
    below!(vfs.xGetSystemCall(name) else None)
}

unsafe extern "C" fn x_next_system_call(vfs: *mut sqlite3_vfs, name: *const c_char) -> *const c_char {
    below!(vfs.xNextSystemCall(name) else std::ptr::null())
}
