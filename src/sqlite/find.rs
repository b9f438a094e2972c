//! The address of our file behind that of another VFS.

use std::ffi::{c_int, c_void};

use rusqlite::ffi;

/// A file control of our own, which a VFS in front of ours passes on, because it does not know it: our file writes its
/// address where the argument points.
pub(super) const FIND: c_int = 0x4c53_5646;

/// What the file at `place`, or one behind it, answers to [`FIND`]; null if nothing does.
///
/// # Safety
/// `place` must be null or a `sqlite3_file` that is open or was zeroed.
pub(super) unsafe fn behind(place: *mut ffi::sqlite3_file) -> *mut ffi::sqlite3_file {
    let mut found: *mut ffi::sqlite3_file = std::ptr::null_mut();
    // SAFETY: as the caller promises. A file that is open has methods, which may be asked for what they do not know.
    unsafe {
        let methods = place.as_ref().and_then(|file| file.pMethods.as_ref());
        if let Some(control) = methods.and_then(|methods| methods.xFileControl) {
            control(place, FIND, (&raw mut found).cast::<c_void>());
        }
    }
    found
}

/// The address of our file of the main database of `db`, also behind that of another VFS; null if there is none.
///
/// # Safety
/// `db` must be a connection that is open or being opened, in use by this thread.
pub(super) unsafe fn main_file(db: *mut ffi::sqlite3) -> *mut ffi::sqlite3_file {
    let mut file: *mut ffi::sqlite3_file = std::ptr::null_mut();
    let answer = (&raw mut file).cast::<c_void>();
    // SAFETY: as the caller promises; this operation writes the file's address where its argument points.
    unsafe { ffi::sqlite3_file_control(db, std::ptr::null(), ffi::SQLITE_FCNTL_FILE_POINTER, answer) };
    // SAFETY: the address is null, or that of a file that is open or being opened.
    unsafe { behind(file) }
}
