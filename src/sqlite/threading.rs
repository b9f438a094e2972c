//! Whether the host's SQLite has mutexes. Without them, our threads would corrupt its memory.
//!
//! Source: <https://www.sqlite.org/threadsafe.html>.

use std::ffi::c_int;

use rusqlite::ffi;

use super::host::{self, HostApi};
use super::internal::internally;
use crate::error::{Error, ErrorKind, Result};

/// Refuses a SQLite that is in single-thread mode. To be asked at each open: a host may change the mode
/// between `sqlite3_shutdown` and `sqlite3_initialize`.
///
/// # Errors
/// `Unsupported`.
pub fn check_threads() -> Result<()> {
    match SingleThread::of(&host::loaded()) {
        Some(single) => Err(Error::new(ErrorKind::Unsupported, single.message())),
        None => Ok(()),
    }
}

/// Why SQLite has no mutexes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SingleThread {
    /// It was compiled without them.
    Compiled,
    /// The process told it to do without.
    Configured,
}

impl SingleThread {
    /// Why the library of `api` has no mutexes, `None` if it has some.
    pub(super) fn of(api: &HostApi) -> Option<Self> {
        let routines = api.routines()?;
        // SAFETY: takes nothing, answers a number.
        if routines.xthreadsafe.is_some_and(|threadsafe| unsafe { threadsafe() } == 0) {
            return Some(Self::Compiled);
        }
        let missing = mutexes_are_all_one(routines) || connections_have_none(routines) == Some(true);
        missing.then_some(Self::Configured)
    }

    /// What is wrong and what to do about it.
    pub(super) const fn message(self) -> &'static str {
        match self {
            Self::Compiled => {
                "litestream_vfs replicates in threads of its own, and this SQLite is not safe for threads: it was \
                 compiled with SQLITE_THREADSAFE=0; use one that was compiled without that option"
            }
            Self::Configured => {
                "litestream_vfs replicates in threads of its own, and SQLite is in single-thread mode in this \
                 process: remove sqlite3_config(SQLITE_CONFIG_SINGLETHREAD), or use SQLITE_CONFIG_MULTITHREAD"
            }
        }
    }
}

/// Whether SQLite's mutexes are stand-ins that do nothing, which are one and the same. True if there are none.
fn mutexes_are_all_one(routines: &ffi::sqlite3_api_routines) -> bool {
    let (Some(alloc), Some(free)) = (routines.mutex_alloc, routines.mutex_free) else { return true };
    // SAFETY: a kind of mutex that every SQLite has; each is freed once, and null may be freed.
    unsafe {
        let (one, other) = (alloc(ffi::SQLITE_MUTEX_FAST), alloc(ffi::SQLITE_MUTEX_FAST));
        free(one);
        free(other);
        one.is_null() || one == other
    }
}

/// Whether a connection has no mutex although it asks for one. `None` if no connection can be had.
///
/// A process that changes the mode after SQLite's first use keeps real mutexes, but SQLite uses none of them.
fn connections_have_none(routines: &ffi::sqlite3_api_routines) -> Option<bool> {
    const FLAGS: c_int = ffi::SQLITE_OPEN_READWRITE
        | ffi::SQLITE_OPEN_MEMORY
        | ffi::SQLITE_OPEN_FULLMUTEX
        | ffi::SQLITE_OPEN_PRIVATECACHE;
    let (open, close, mutex) = (routines.open_v2?, routines.close?, routines.db_mutex?);
    let mut db = std::ptr::null_mut();
    // SAFETY: the name ends with a zero, and SQLite writes the connection where it is told to.
    let opened = internally(|| unsafe { open(c":memory:".as_ptr(), &raw mut db, FLAGS, std::ptr::null()) });
    // SAFETY: the connection is open, and is closed once; it may be null if the open failed.
    unsafe {
        let none = (opened == ffi::SQLITE_OK).then(|| mutex(db).is_null());
        close(db);
        none
    }
}
