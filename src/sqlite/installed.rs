//! Our file in the memory that SQLite holds for it.

use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::ffi;

use super::file_methods::TABLES;
use super::find;
use super::forked::Inherited;
use super::{File, IoVersion};
use crate::fork::Maker;

/// What SQLite's `sqlite3_file` is when the file is ours.
#[repr(C)]
pub(super) struct Installed {
    /// Invariant: `pMethods` is one of [`TABLES`] from `install` to `remove`.
    head: ffi::sqlite3_file,
    /// Whether SQLite told to which connection the file belongs.
    is_settled: AtomicBool,
    /// The process that opened it.
    maker: Maker,
    /// The database to which it belongs, if that has a name.
    database: Option<Box<Path>>,
    file: Box<dyn File>,
}

/// How many bytes SQLite must hold for a file of ours.
pub(super) const SIZE: usize = size_of::<Installed>();

/// Where in [`TABLES`] the methods of a version are.
const fn table_of(version: IoVersion) -> usize {
    version.shm as usize + 2 * version.fetch as usize
}

/// Makes the memory at `place` our file, which belongs to `database`.
///
/// # Safety
/// `place` must have [`SIZE`] bytes, be aligned as SQLite aligns a `sqlite3_file`, and hold no open file.
pub(super) unsafe fn install(
    place: *mut ffi::sqlite3_file,
    mut file: Box<dyn File>,
    database: Option<Box<Path>>,
) {
    let methods = &raw const TABLES[table_of(file.io_version())];
    // SAFETY: as the caller promises.
    unsafe {
        place.cast::<Installed>().write(Installed {
            head: ffi::sqlite3_file { pMethods: methods },
            is_settled: AtomicBool::new(false),
            maker: Maker::here(),
            database,
            file,
        })
    }
}

/// Puts `file` in the place of our file at `place`, which is dropped. It is settled.
///
/// # Safety
/// `place` must be a file that was installed and not removed, and no reference to it may be alive.
pub(super) unsafe fn replace(place: *mut ffi::sqlite3_file, file: Box<dyn File>) {
    // SAFETY: as the caller promises; once it is removed there is no open file.
    let before = unsafe {
        let database = (*place.cast::<Installed>()).database.take();
        let before = remove(place);
        install(place, file, database);
        settled_before(place);
        before
    };
    drop(before);
}

/// Takes our file out of the memory at `place`.
///
/// # Safety
/// `place` must be a file that was installed and not removed, and no reference to it may be alive.
pub(super) unsafe fn remove(place: *mut ffi::sqlite3_file) -> Box<dyn File> {
    // SAFETY: as the caller promises.
    let Installed { file, .. } = unsafe { place.cast::<Installed>().read() };
    // SAFETY: the memory is still SQLite's, for a file of ours.
    unsafe { (*place).pMethods = std::ptr::null() };
    file
}

/// Whether SQLite told before to which connection the file at `place` belongs; from now on it did.
///
/// # Safety
/// `place` must be a file that was installed and not removed. Its methods may be running on other threads.
pub(super) unsafe fn settled_before(place: *mut ffi::sqlite3_file) -> bool {
    // SAFETY: as the caller promises. Only this field is looked at, and it may be shared.
    unsafe { (*place.cast::<Installed>()).is_settled.swap(true, Ordering::AcqRel) }
}

/// What is to be said of our file at `place` if this process inherited it from the one that opened it.
///
/// # Safety
/// `place` must be a file that was installed and not removed.
pub(super) unsafe fn inherited(place: *mut ffi::sqlite3_file) -> Option<Inherited> {
    // SAFETY: as the caller promises. These fields do not change.
    let installed = unsafe { &*place.cast::<Installed>() };
    if installed.maker.is_here() {
        return None;
    }
    Some(Inherited { path: installed.database.as_deref().map(Path::to_owned), maker: installed.maker })
}

/// Our file at `place`.
///
/// # Safety
/// `place` must be a file that was installed and not removed, and no other reference to it may be
/// alive for `'a`.
pub(super) unsafe fn file_mut<'a>(place: *mut ffi::sqlite3_file) -> &'a mut dyn File {
    // SAFETY: as the caller promises.
    unsafe { (*place.cast::<Installed>()).file.as_mut() }
}

/// Whether the open file at `place` is one of ours.
///
/// # Safety
/// `place` must be a `sqlite3_file` that is open or was zeroed.
pub(super) unsafe fn is_our_file(place: NonNull<ffi::sqlite3_file>) -> bool {
    // SAFETY: as the caller promises.
    let methods = unsafe { (*place.as_ptr()).pMethods };
    TABLES.iter().any(|table| std::ptr::eq(table, methods))
}

/// The file at `place` if it is one of ours.
///
/// # Safety
/// `place` must be null or a `sqlite3_file` that is open or was zeroed, and no other reference to it
/// may be alive for `'a`.
pub(super) unsafe fn our_file<'a>(place: *mut ffi::sqlite3_file) -> Option<&'a dyn File> {
    // SAFETY: as the caller promises, and only `install` sets one of our tables.
    unsafe { is_ours(place).then(|| &*file_mut(place)) }
}

/// Whether the file at `place` is one of ours.
///
/// # Safety
/// `place` must be null or a `sqlite3_file` that is open or was zeroed.
pub(super) unsafe fn is_ours(place: *mut ffi::sqlite3_file) -> bool {
    let Some(place) = NonNull::new(place) else { return false };
    // SAFETY: as the caller promises.
    unsafe { is_our_file(place) }
}

/// Our file at `place`, or behind the file there if a VFS in front of ours opened that; null if there is none.
///
/// # Safety
/// `place` must be null or a `sqlite3_file` that is open or was zeroed.
pub(super) unsafe fn ours_behind(place: *mut ffi::sqlite3_file) -> *mut ffi::sqlite3_file {
    // SAFETY: as the caller promises; only our own files answer, with their address.
    unsafe {
        if is_ours(place) {
            return place;
        }
        let found = find::behind(place);
        if is_ours(found) { found } else { std::ptr::null_mut() }
    }
}
