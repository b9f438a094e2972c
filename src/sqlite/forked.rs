//! What a forked child inherits, and must not keep.
//!
//! SQLite's VFS remembers in memory which locks a process has on a file, for all its connections
//! together; the locks themselves belong to the process. A child inherits the memory and not the locks:
//! it takes for locked what is not, and another process then restarts or deletes a WAL that the child
//! writes to. So before a child opens its first database, it closes what was open in its parent. That
//! releases nothing of the parent's.

use std::collections::BTreeSet;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use rusqlite::ffi;

use crate::fork;

/// An open file of the base VFS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct OpenFile(NonNull<ffi::sqlite3_file>);

// SAFETY: it is used in a forked child only, by its only thread.
unsafe impl Send for OpenFile {}

/// The process in which the files of `OPEN` were opened; 0 before the first.
static OWNER: AtomicU32 = AtomicU32::new(0);

/// The files that are open.
///
/// Invariant: each is in memory that is not freed before it is removed from here.
static OPEN: Mutex<BTreeSet<OpenFile>> = Mutex::new(BTreeSet::new());

fn open() -> MutexGuard<'static, BTreeSet<OpenFile>> {
    OPEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `file` was opened.
pub(super) fn opened(file: NonNull<ffi::sqlite3_file>) {
    open().insert(OpenFile(file));
}

/// `file` is about to be closed or freed.
pub(super) fn closes(file: NonNull<ffi::sqlite3_file>) {
    open().remove(&OpenFile(file));
}

/// Closes, in a forked child, the files that its parent had open. To be called before the child opens
/// any.
pub(super) fn close_inherited() {
    let pid = std::process::id();
    if OWNER.load(Ordering::Acquire) == pid {
        return;
    }
    let mut open = open();
    if OWNER.load(Ordering::Relaxed) != pid {
        std::mem::take(&mut *open).into_iter().for_each(close);
        // Only now may another thread go on without a look.
        OWNER.store(pid, Ordering::Release);
    }
}

fn close(OpenFile(file): OpenFile) {
    // SAFETY: the memory of a file that is open; its other users are threads that the child does not have,
    // and connections that it must not use.
    let Some(methods) = (unsafe { file.as_ref().pMethods.as_ref() }) else { return };
    // SAFETY: the file is open, these are its own methods, and nothing uses it after this.
    unsafe {
        if let Some(unmap) = methods.xShmUnmap.filter(|_| methods.iVersion >= 2) {
            unmap(file.as_ptr(), 0);
        }
        if let Some(close) = methods.xClose {
            close(file.as_ptr());
        }
        (*file.as_ptr()).pMethods = std::ptr::null();
    }
}

/// Has the host's forks wait for our threads.
pub(super) fn watch_forks() {
    extern "C" fn before() {
        fork::begins();
    }
    extern "C" fn in_parent() {
        fork::ends_in_parent();
    }
    extern "C" fn in_child() {
        fork::ends_in_child();
    }
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the handlers stay where they are, because the library is never unloaded, and do not
        // panic.
        let refused = unsafe { libc::pthread_atfork(Some(before), Some(in_parent), Some(in_child)) };
        if refused != 0 {
            tracing::warn!("forks cannot be watched: {}", std::io::Error::from_raw_os_error(refused));
        }
    });
}
