//! The exported entry points: check the host, wire the rooms, register.
//!
//! SQLite derives the name of the entry point from that of the file: `litestream_vfs.so` gives
//! `sqlite3_litestreamvfs_init`. A file of any other name is tried with `sqlite3_extension_init`.
//!
//! Loading starts no thread, reads no environment and opens nothing.

use std::ffi::c_int;

use crate::sqlite::{self, HostApi, HostConnection, HostErrorSlot, Wiring};
use crate::{functions, vfs};

/// What the host gets: the VFS for `?vfs=litestream`, and the functions.
static WIRING: Wiring =
    Wiring { vfs_name: c"litestream", vfs: || Box::new(vfs::new()), functions: functions::register };

/// The entry point of `litestream_vfs.so`.
#[unsafe(no_mangle)]
pub extern "C" fn sqlite3_litestreamvfs_init(
    db: HostConnection,
    error: HostErrorSlot,
    api: HostApi,
) -> c_int {
    sqlite::load(db, error, api, &WIRING)
}

/// The entry point of the library under any other file name.
#[unsafe(no_mangle)]
pub extern "C" fn sqlite3_extension_init(db: HostConnection, error: HostErrorSlot, api: HostApi) -> c_int {
    sqlite::load(db, error, api, &WIRING)
}
