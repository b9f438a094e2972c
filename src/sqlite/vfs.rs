//! The trait of a VFS in front of the host's.

use std::path::Path;

use super::{Access, BaseVfs, Code, OpenRequest, Opened};

/// A VFS in front of the host's default VFS. Everything that is not here goes to that one.
///
/// Its methods are called by any thread, by several at once. A panic in one of them is caught, logged,
/// and becomes `SQLITE_CANTOPEN` or the method's own I/O error.
pub trait Vfs: Send + Sync + 'static {
    /// Opens a file, or leaves it to the base VFS.
    ///
    /// SQLite has no way to give a text with a failed open. To refuse a main database with a message,
    /// answer `Ok` with a [`RefusedFile`](super::RefusedFile).
    ///
    /// The open of a main database need not be meant for us: `ATTACH 'x.db'` and `VACUUM INTO 'x.db'`
    /// use the VFS of the connection. Whether it is one of these is known when [`File::settle`] is called.
    ///
    /// [`File::settle`]: super::File::settle
    ///
    /// # Errors
    /// The code with which `sqlite3_open` or `ATTACH` fails.
    fn open(&self, request: OpenRequest<'_>) -> Result<Opened, Code>;

    /// Deletes a file; syncs its folder if `sync_dir`.
    ///
    /// # Errors
    /// `IOERR_DELETE_NOENT` if it is not there, `IOERR_DELETE` otherwise.
    fn delete(&self, base: &BaseVfs, path: &Path, sync_dir: bool) -> Result<(), Code> {
        base.delete(path, sync_dir)
    }

    /// Answers whether a file is there, or can be read or written.
    ///
    /// # Errors
    /// `IOERR_ACCESS`.
    fn access(&self, base: &BaseVfs, path: &Path, what: Access) -> Result<bool, Code> {
        base.access(path, what)
    }
}
