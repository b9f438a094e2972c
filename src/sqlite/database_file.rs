//! The file of the database to which a WAL belongs.

use std::any::Any;
use std::ptr::NonNull;

use rusqlite::ffi;

use super::installed::{file_mut, ours_behind};
use super::name::FileName;

/// The main database file of the connection that opened a WAL, if it is one of ours.
///
/// Only for use in the methods of that WAL, which SQLite calls from outside of the database file's own methods, and
/// never at the same time as those.
#[derive(Debug)]
pub struct DatabaseFile(NonNull<ffi::sqlite3_file>);

// SAFETY: SQLite uses a connection's files from one thread at a time, whichever that is.
unsafe impl Send for DatabaseFile {}

impl DatabaseFile {
    /// That of the WAL `wal`, whose file must drop this with itself.
    ///
    /// # Safety
    /// `wal` must be the name that SQLite gave to `xOpen` for a WAL.
    pub(super) unsafe fn of_wal(wal: FileName<'_>) -> Option<Self> {
        // SAFETY: as the caller promises; SQLite finds the file in what it keeps before the name.
        let file = unsafe { ffi::sqlite3_database_file_object(wal.as_ptr()) };
        // SAFETY: SQLite opened the database before its WAL and closes it after. A VFS in front of ours has a file of
        // its own there.
        NonNull::new(unsafe { ours_behind(file) }).map(Self)
    }

    /// What `look` does with the room's own file behind it; `None` if that is not a `T`.
    pub fn with<T: Any, R>(&mut self, look: impl FnOnce(&mut T) -> R) -> Option<R> {
        // SAFETY: the database file is open for as long as its WAL is, and no method of it is running, so nobody
        // else has a reference to it.
        let file = unsafe { file_mut(self.0.as_ptr()) };
        file.as_any()?.downcast_mut::<T>().map(look)
    }
}
