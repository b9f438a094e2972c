//! File names in SQLite's own layout: a path with URI parameters, journal and WAL name around it.

use std::ffi::{CStr, CString, OsStr, c_char};
use std::marker::PhantomData;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::NonNull;

use rusqlite::ffi;

use super::Code;

/// A file name that SQLite gave to `xOpen`.
#[derive(Clone, Copy, Debug)]
pub(super) struct FileName<'a> {
    /// Invariant: a string that ends with a zero; that of a database, its WAL or its journal lies in
    /// the layout that `sqlite3_uri_parameter` and its relatives understand.
    start: NonNull<c_char>,
    call: PhantomData<&'a CStr>,
}

impl<'a> FileName<'a> {
    /// # Safety
    /// `name` must be null or a name that SQLite passed to `xOpen`, and live for `'a`.
    pub(super) unsafe fn new(name: *const c_char) -> Option<Self> {
        NonNull::new(name.cast_mut()).map(|start| Self { start, call: PhantomData })
    }

    pub(super) const fn as_ptr(self) -> *const c_char {
        self.start.as_ptr()
    }

    pub(super) fn path(self) -> &'a Path {
        // SAFETY: the invariant of `start`.
        path_of(unsafe { CStr::from_ptr(self.as_ptr()) })
    }

    /// The name of the database to which this WAL or journal belongs. For no other kind of file: SQLite
    /// looks for it in the bytes before the name.
    pub(super) fn database(self) -> Self {
        // SAFETY: the caller has the name of a WAL or journal, so the invariant of `start` holds.
        let database = unsafe { ffi::sqlite3_filename_database(self.as_ptr()) };
        NonNull::new(database.cast_mut()).map_or(self, |start| Self { start, call: PhantomData })
    }
}

/// A path as SQLite spells it.
pub(super) fn path_of(name: &CStr) -> &Path {
    Path::new(OsStr::from_bytes(name.to_bytes()))
}

/// `path` as SQLite spells it.
///
/// # Errors
/// `CANTOPEN` if the path has a zero byte.
pub(super) fn c_path(path: &Path) -> Result<CString, Code> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| Code::CANTOPEN)
}

/// The name of a main database in SQLite's layout, made by us.
#[derive(Debug)]
pub(super) struct OwnedName(NonNull<c_char>);

// SAFETY: memory of SQLite's allocator, which any thread may read and free.
unsafe impl Send for OwnedName {}

impl OwnedName {
    /// A database name with URI parameters.
    ///
    /// # Errors
    /// `CANTOPEN` if a string has a zero byte, `NOMEM`.
    pub(super) fn new(path: &Path, parameters: &[(&str, &str)]) -> Result<Self, Code> {
        let database = c_path(path)?;
        let beside = |suffix: &str| {
            CString::new([database.to_bytes(), suffix.as_bytes()].concat()).map_err(|_| Code::CANTOPEN)
        };
        let (journal, wal) = (beside("-journal")?, beside("-wal")?);
        let strings = parameters
            .iter()
            .flat_map(|(key, value)| [*key, *value])
            .map(|s| CString::new(s).map_err(|_| Code::CANTOPEN))
            .collect::<Result<Vec<_>, _>>()?;
        let mut pointers: Vec<*const c_char> = strings.iter().map(|s| s.as_ptr()).collect();
        let count = i32::try_from(parameters.len()).map_err(|_| Code::CANTOPEN)?;
        // SAFETY: all strings end with a zero and live until after the call, which copies them; there
        // are `count` pairs.
        let name = unsafe {
            ffi::sqlite3_create_filename(
                database.as_ptr(),
                journal.as_ptr(),
                wal.as_ptr(),
                count,
                pointers.as_mut_ptr(),
            )
        };
        NonNull::new(name).map(Self).ok_or(Code::NOMEM)
    }

    pub(super) const fn as_ptr(&self) -> *const c_char {
        self.0.as_ptr()
    }
}

impl Drop for OwnedName {
    fn drop(&mut self) {
        // SAFETY: from `sqlite3_create_filename`, freed once.
        unsafe { ffi::sqlite3_free_filename(self.0.as_ptr()) }
    }
}
