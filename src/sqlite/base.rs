//! The host's default VFS.

use std::ffi::{CStr, c_char, c_int};
use std::path::Path;
use std::ptr::NonNull;

use rusqlite::ffi;

use super::name::{OwnedName, c_path};
use super::{Access, BaseFile, Code, OpenFlags, forked};

/// The VFS that was the host's default when we were loaded. SQLite's own; it lives for ever and may be
/// used by any thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BaseVfs(NonNull<ffi::sqlite3_vfs>);

// SAFETY: SQLite calls the methods of a VFS from any thread, several at once.
unsafe impl Send for BaseVfs {}
// SAFETY: as for `Send`.
unsafe impl Sync for BaseVfs {}

impl BaseVfs {
    /// The host's default VFS, `None` if it has none.
    pub fn host_default() -> Option<Self> {
        // SAFETY: the API is initialised before anything of this room runs.
        NonNull::new(unsafe { ffi::sqlite3_vfs_find(std::ptr::null()) }).map(Self)
    }

    /// A VFS that is registered, and stays where it is.
    pub(super) fn of(vfs: &'static ffi::sqlite3_vfs) -> Self {
        Self(NonNull::from(vfs))
    }

    /// Makes it the host's default VFS again.
    ///
    /// # Errors
    /// Those of `sqlite3_vfs_register`.
    pub(super) fn become_default(self) -> Result<(), Code> {
        // SAFETY: it is registered, and stays where it is; to register it once more only moves it to the front.
        Code::check(unsafe { ffi::sqlite3_vfs_register(self.as_ptr(), 1) })
    }

    /// The VFS of the operating system, which changes nothing on its way to the file. The host's default may be one
    /// that encrypts in front of it. It has the same locks and the same shared memory.
    #[must_use]
    pub fn operating_system(self) -> Self {
        let name = self.name().to_bytes();
        if name == b"unix" || name.starts_with(b"unix-") {
            // Their locks and shared memory may be other ones.
            return self;
        }
        Self::named(c"unix").unwrap_or(self)
    }

    /// The VFS of this `name`, if there is one.
    pub(super) fn named(name: &CStr) -> Option<Self> {
        // SAFETY: as in `host_default`; the name ends with a zero.
        NonNull::new(unsafe { ffi::sqlite3_vfs_find(name.as_ptr()) }).map(Self)
    }

    pub(super) const fn as_ptr(&self) -> *mut ffi::sqlite3_vfs {
        self.0.as_ptr()
    }

    pub(super) fn methods(&self) -> &ffi::sqlite3_vfs {
        // SAFETY: a registered VFS stays where it is; only SQLite's own list link in it changes, which
        // nothing here reads.
        unsafe { self.0.as_ref() }
    }

    /// Its name, by which a connection can ask for it.
    pub fn name(&self) -> &CStr {
        // SAFETY: a registered VFS has a name for as long as it lives.
        unsafe { CStr::from_ptr(self.methods().zName) }
    }

    /// Opens a main database of our own, with a name in SQLite's layout that the file owns.
    ///
    /// On POSIX, closing any descriptor of a database drops all locks of the process on it. The base
    /// VFS knows of all files that were opened through it and keeps that from happening, but for one moment, which
    /// [`BaseFile`] closes (`closing_lock`).
    ///
    /// # Errors
    /// Those of the base VFS.
    pub fn open_database(
        &self,
        path: &Path,
        parameters: &[(&str, &str)],
        flags: OpenFlags,
    ) -> Result<(BaseFile, OpenFlags), Code> {
        // An open that comes later would take this file for one of the parent's.
        forked::close_inherited();
        let name = OwnedName::new(path, parameters)?;
        // SAFETY: the name is in SQLite's layout and moves into the file.
        let (mut file, out_flags) = unsafe { self.open_raw(name.as_ptr(), flags.with(OpenFlags::MAIN_DB)) }?;
        file.keep_name(name);
        Ok((file, out_flags))
    }

    /// # Safety
    /// `name` must be null for a temporary file, else a name in SQLite's layout for the kind of file
    /// that `flags` says, and outlive the file.
    pub(super) unsafe fn open_raw(
        &self,
        name: *const c_char,
        flags: OpenFlags,
    ) -> Result<(BaseFile, OpenFlags), Code> {
        // SAFETY: as the caller promises.
        unsafe { BaseFile::open(self, name, flags) }
    }

    /// Deletes a file; syncs its folder if `sync_dir`.
    ///
    /// # Errors
    /// `IOERR_DELETE_NOENT` if it is not there, `IOERR_DELETE`.
    pub fn delete(&self, path: &Path, sync_dir: bool) -> Result<(), Code> {
        let path = c_path(path)?;
        let delete = self.methods().xDelete.ok_or(Code::IOERR_DELETE)?;
        // SAFETY: the VFS is alive and the path ends with a zero.
        Code::check(unsafe { delete(self.as_ptr(), path.as_ptr(), sync_dir.into()) })
    }

    /// Whether a file is there, or can be read or written.
    ///
    /// # Errors
    /// `IOERR_ACCESS`.
    pub fn access(&self, path: &Path, what: Access) -> Result<bool, Code> {
        let path = c_path(path)?;
        let access = self.methods().xAccess.ok_or(Code::IOERR_ACCESS)?;
        let mut answer: c_int = 0;
        // SAFETY: the VFS is alive, the path ends with a zero, the answer is ours.
        Code::check(unsafe { access(self.as_ptr(), path.as_ptr(), what.get(), &raw mut answer) })?;
        Ok(answer != 0)
    }
}
