//! The exported entry points: check the host, wire the rooms, register.
//!
//! SQLite derives the name of the entry point from that of the file: `litestream_vfs.so` gives
//! `sqlite3_litestreamvfs_init`. A file of any other name is tried with `sqlite3_extension_init`.
//!
//! Loading starts no thread, reads no environment but `LITESTREAM_DEFAULT_VFS`, and opens nothing.

use std::ffi::c_int;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::config::{self, ProcessEnv};
use crate::primary::Primary;
use crate::sqlite::{self, HostApi, HostConnection, HostErrorSlot, Wiring};
use crate::{follow, functions, monitor, vfs};

/// What the host gets: the VFS for `?vfs=litestream`, and the functions.
static WIRING: Wiring = Wiring {
    vfs_name: c"litestream",
    vfs: || Box::new(vfs::new()),
    default_name: c"litestream-default",
    default_vfs: || Box::new(vfs::new_default()),
    wants_default: || DEFAULT_BY_ENTRY.load(Ordering::Relaxed) || config::wants_default_vfs(&ProcessEnv),
    functions: functions::register,
    after_commit: vfs::after_commit,
    at_exit,
};

/// The process ends normally.
fn at_exit() {
    follow::end_at_exit();
    Primary::flush_at_exit();
}

fn load(db: HostConnection, error: HostErrorSlot, api: HostApi) -> c_int {
    monitor::answer_with(functions::answer_message);
    sqlite::load(db, error, api, &WIRING)
}

/// The library was loaded by the entry point that makes its VFS the default.
static DEFAULT_BY_ENTRY: AtomicBool = AtomicBool::new(false);

/// The entry point of `litestream_vfs.so`.
#[unsafe(no_mangle)]
pub extern "C" fn sqlite3_litestreamvfs_init(
    db: HostConnection,
    error: HostErrorSlot,
    api: HostApi,
) -> c_int {
    load(db, error, api)
}

/// The entry point of the library under any other file name.
#[unsafe(no_mangle)]
pub extern "C" fn sqlite3_extension_init(db: HostConnection, error: HostErrorSlot, api: HostApi) -> c_int {
    load(db, error, api)
}

/// The entry point that also makes the VFS the default for connections that name no other: for hosts that pass no URI.
#[unsafe(no_mangle)]
pub extern "C" fn sqlite3_litestreamdefault_init(
    db: HostConnection,
    error: HostErrorSlot,
    api: HostApi,
) -> c_int {
    DEFAULT_BY_ENTRY.store(true, Ordering::Relaxed);
    load(db, error, api)
}
