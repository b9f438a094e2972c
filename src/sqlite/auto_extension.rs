//! What SQLite calls at the end of each `sqlite3_open`.

use std::ffi::{c_char, c_int};
use std::mem::transmute;
use std::sync::OnceLock;

use rusqlite::ffi;

use super::Code;

/// The type of an extension's entry point.
pub(super) type EntryPoint =
    unsafe extern "C" fn(*mut ffi::sqlite3, *mut *mut c_char, *const ffi::sqlite3_api_routines) -> c_int;

/// Set by the first load.
static ENTRY: OnceLock<EntryPoint> = OnceLock::new();

/// Has `entry` called at the end of each open. The first one stays.
///
/// # Errors
/// Those of `sqlite3_auto_extension`.
pub(super) fn set(entry: EntryPoint) -> Result<(), Code> {
    ENTRY.get_or_init(|| entry);
    register()
}

/// Registers again what was set: `sqlite3_shutdown` makes SQLite forget it, but not the VFS.
///
/// # Errors
/// Those of `sqlite3_auto_extension`.
pub(super) fn register() -> Result<(), Code> {
    let Some(entry) = ENTRY.get() else { return Ok(()) };
    // SAFETY: SQLite takes an entry point under another type, and calls it as what it is. Registering it again does
    // nothing.
    Code::check(unsafe {
        ffi::sqlite3_auto_extension(Some(transmute::<EntryPoint, unsafe extern "C" fn()>(*entry)))
    })
}
