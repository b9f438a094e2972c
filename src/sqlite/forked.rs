//! What a forked child inherits, and must not keep or use.
//!
//! SQLite's VFS remembers in memory which locks a process has on a file, for all its connections
//! together; the locks themselves belong to the process. A child inherits the memory and not the locks:
//! it takes for locked what is not, and another process then restarts or deletes a WAL that the child
//! writes to. So before a child opens its first database, it closes what was open in its parent. That
//! releases nothing of the parent's.
//!
//! A connection that the parent opened answers every statement of the child that reaches our files with an
//! error, and touches nothing: neither the base VFS, nor what our own rooms share with the parent's threads.
//! Two things SQLite does without asking a file, and both would hurt: it reads the WAL index where that was
//! mapped, also after the file was closed here; and a rollback cleans the index, which is the parent's too.
//! So what was unmapped is replaced by memory without content, which sends SQLite to our methods, and a child
//! that is forked inside a write transaction gets a copy of the index of its own.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};

use rusqlite::ffi;

use super::{Code, log};
use crate::failures::{self, Attempt};
use crate::fork::{self, Maker};

/// An open file of the base VFS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct OpenFile(NonNull<ffi::sqlite3_file>);

// SAFETY: it is used in a forked child only, by its only thread.
unsafe impl Send for OpenFile {}

/// The process in which the files of `OPEN` were opened; 0 before the first.
static OWNER: AtomicU32 = AtomicU32::new(0);

/// Facts about an open file.
#[derive(Debug, Default)]
struct Opened {
    /// Its shared memory: addresses and lengths in bytes.
    regions: Vec<Region>,
    /// It holds the WRITE lock of the WAL.
    is_writing: Arc<AtomicBool>,
}

/// A mapped piece of shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Region {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: it is used in a forked child only, by its only thread.
unsafe impl Send for Region {}

/// The files that are open.
///
/// Invariant: each is in memory that is not freed before it is removed from here.
static OPEN: Mutex<BTreeMap<OpenFile, Opened>> = Mutex::new(BTreeMap::new());

/// Works on the files that are open. No fork comes in between: a child would find them locked.
fn with_open<T>(work: impl FnOnce(&mut BTreeMap<OpenFile, Opened>) -> T) -> T {
    let _section = fork::section();
    work(&mut open())
}

fn open() -> MutexGuard<'static, BTreeMap<OpenFile, Opened>> {
    OPEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `file` was opened. The answer is to be told whether it holds the WRITE lock of the WAL.
pub(super) fn opened(file: NonNull<ffi::sqlite3_file>) -> Arc<AtomicBool> {
    let opened = Opened::default();
    let is_writing = Arc::clone(&opened.is_writing);
    with_open(|open| open.insert(OpenFile(file), opened));
    is_writing
}

/// `file` is about to be closed or freed.
pub(super) fn closes(file: NonNull<ffi::sqlite3_file>) {
    with_open(|open| open.remove(&OpenFile(file)));
}

/// `len` bytes of shared memory of `file` are mapped at `start`.
pub(super) fn mapped(file: NonNull<ffi::sqlite3_file>, start: NonNull<u8>, len: usize) {
    let region = Region { start, len };
    with_open(|open| {
        if let Some(opened) = open.get_mut(&OpenFile(file)).filter(|o| !o.regions.contains(&region)) {
            opened.regions.push(region);
        }
    });
}

/// The shared memory of `file` is about to be unmapped.
pub(super) fn unmaps(file: NonNull<ffi::sqlite3_file>) {
    with_open(|open| open.get_mut(&OpenFile(file)).map(|opened| opened.regions.clear()));
}

/// Closes, in a forked child, the files that its parent had open. To be called before the child opens
/// any.
pub(super) fn close_inherited() {
    let pid = std::process::id();
    if OWNER.load(Ordering::Acquire) == pid {
        return;
    }
    with_open(|open| {
        if OWNER.load(Ordering::Relaxed) != pid {
            let inherited = std::mem::take(open);
            inherited.keys().for_each(close);
            inherited.values().flat_map(|opened| &opened.regions).for_each(stand_in);
            // Only now may another thread go on without a look.
            OWNER.store(pid, Ordering::Release);
        }
    });
}

fn close(OpenFile(file): &OpenFile) {
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

/// Puts zeros where shared memory was unmapped: an inherited connection looks there before it asks our file. What
/// is still mapped, for another connection, stays.
fn stand_in(region: &Region) {
    map_own(region, libc::MAP_FIXED_NOREPLACE);
}

/// Maps memory without content, of this process alone, at a region. Whether it is there.
fn map_own(region: &Region, fixed: libc::c_int) -> bool {
    let (start, flags) = (region.start.as_ptr().cast::<c_void>(), libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: with `MAP_FIXED_NOREPLACE` nothing is there that could be replaced; with `MAP_FIXED` it is the shared
    // memory of an inherited file, which the caller replaces by its content.
    let placed =
        unsafe { libc::mmap(start, region.len, libc::PROT_READ | libc::PROT_WRITE, flags | fixed, -1, 0) };
    if placed != start && placed != libc::MAP_FAILED {
        // A kernel before Linux 4.17 takes the place for a wish.
        // SAFETY: it was just mapped, and nothing refers to it.
        unsafe { libc::munmap(placed, region.len) };
    }
    placed == start
}

/// Gives a child that was forked inside a write transaction a copy of the index of its own: its rollback, which
/// comes with the end of the program at the latest, would take from the parent what that has written.
fn leave_writers() {
    // Nobody holds the lock, unless a section did not end in time.
    let Ok(open) = OPEN.try_lock() else { return };
    for opened in open.values().filter(|opened| opened.is_writing.load(Ordering::Relaxed)) {
        for region in &opened.regions {
            // SAFETY: the shared memory of a file that is open; whoever changes it meanwhile changes what the child
            // has no use for.
            let content = unsafe { std::slice::from_raw_parts(region.start.as_ptr(), region.len) }.to_vec();
            if map_own(region, libc::MAP_FIXED) {
                // SAFETY: this many bytes were just mapped there, for this process alone.
                unsafe { region.start.as_ptr().copy_from_nonoverlapping(content.as_ptr(), region.len) };
            }
        }
    }
}

/// Closes what a child must not keep open: the parent alone has a port, and its end is to be noticed.
fn close_sockets() {
    for fd in fork::closed_in_child() {
        // SAFETY: a descriptor of the parent's, which its threads alone use, and they are not in this process.
        unsafe { libc::close(fd) };
    }
}

/// A file that this process inherited from the one that opened it.
#[derive(Debug)]
pub(super) struct Inherited {
    /// The database to which it belongs, if that has a name.
    pub(super) path: Option<PathBuf>,
    /// Who opened it.
    pub(super) maker: Maker,
}

impl Inherited {
    /// What is said of the connection, wherever it is used.
    pub(super) fn message(&self) -> String {
        format!(
            "this connection was opened before fork by process {}; open a new one in this process (with SQLAlchemy: \
             engine.dispose(close=False) in the child, before its first statement)",
            self.maker.pid()
        )
    }

    /// Says so where a VFS has only a code to answer with.
    pub(super) fn note(&self, code: Code) {
        let path = self.path.as_deref();
        let name = path.unwrap_or(Path::new("a database without a name")).display();
        log(code, &format!("litestream: cannot use {name}: {}", self.message()));
        failures::record(Attempt::Use, path, self.message());
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
        close_sockets();
        leave_writers();
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
