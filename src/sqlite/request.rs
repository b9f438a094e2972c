//! What is known of a file that SQLite wants to open, and what becomes of it.

use std::ffi::{CStr, c_char};
use std::path::Path;

use rusqlite::ffi;

use super::name::FileName;
use super::{BaseFile, BaseVfs, Code, DatabaseFile, File, FileKind, OpenFlags};

/// A file that SQLite wants to open.
#[derive(Clone, Copy, Debug)]
pub struct OpenRequest<'a> {
    /// `None` for a temporary file, whose name the VFS chooses.
    name: Option<FileName<'a>>,
    flags: OpenFlags,
    base: &'a BaseVfs,
    is_for_shared_cache: bool,
}

impl<'a> OpenRequest<'a> {
    pub(super) const fn new(name: Option<FileName<'a>>, flags: OpenFlags, base: &'a BaseVfs) -> Self {
        Self { name, flags, base, is_for_shared_cache: false }
    }

    /// The same, for a cache that connections share if `shares`.
    pub(super) const fn sharing_cache(mut self, shares: bool) -> Self {
        self.is_for_shared_cache = shares;
        self
    }

    /// The full path of the file, as the base VFS made it; `None` for a temporary file.
    pub fn path(&self) -> Option<&'a Path> {
        self.name.map(|name| name.path())
    }

    /// What the file is for.
    pub const fn kind(&self) -> FileKind {
        self.flags.kind()
    }

    /// How it is to be opened. The bits go to the base VFS as they are.
    pub const fn flags(&self) -> OpenFlags {
        self.flags
    }

    /// Whether SQLite gives this very file, without a word to us, to other connections that open a database of this
    /// name, whatever else their URIs say.
    pub const fn is_for_shared_cache(&self) -> bool {
        self.is_for_shared_cache
    }

    /// The host's VFS. It is `Copy` and may be kept.
    pub const fn base(&self) -> &'a BaseVfs {
        self.base
    }

    /// The path of the main database to which this database, WAL or rollback journal belongs; `None`
    /// for other kinds of files.
    pub fn database_path(&self) -> Option<&'a Path> {
        self.database().map(|name| name.path())
    }

    /// The URI parameters of the main database to which this database, WAL or rollback journal
    /// belongs; none for other kinds of files.
    pub fn parameters(&self) -> Parameters<'a> {
        Parameters { database: self.database() }
    }

    /// The file of the main database to which this WAL belongs, if that is one of ours. The [`File`] that is answered
    /// for this request must own it.
    pub fn database_file(&self) -> Option<DatabaseFile> {
        let name = self.name.filter(|_| self.kind() == FileKind::Wal)?;
        // SAFETY: the name is SQLite's own for a WAL.
        unsafe { DatabaseFile::of_wal(name) }
    }

    /// Opens this very file through the base VFS.
    ///
    /// The base file keeps using SQLite's own copy of the name, so the [`File`] that is answered for
    /// this request must own it, and drop it at the latest when it is dropped itself.
    ///
    /// # Errors
    /// Those of the base VFS.
    pub fn open_base(&self) -> Result<(BaseFile, OpenFlags), Code> {
        self.open_base_as(self.flags)
    }

    /// [`OpenRequest::open_base`] with other flags.
    ///
    /// # Errors
    /// Those of the base VFS.
    pub fn open_base_as(&self, flags: OpenFlags) -> Result<(BaseFile, OpenFlags), Code> {
        // SAFETY: the name is SQLite's own for a file of this kind; it outlives the file as said above.
        unsafe { self.base.open_raw(self.name_ptr(), flags) }
    }

    /// The request, to be kept beyond the call of `xOpen`. The [`File`] that is answered for it must own it, and
    /// drop it at the latest when it is dropped itself.
    pub fn hold(&self) -> HeldRequest {
        // SAFETY: SQLite keeps the name as it is until the file is closed, and a shim and its base live for ever.
        HeldRequest(unsafe { std::mem::transmute::<OpenRequest<'a>, OpenRequest<'static>>(*self) })
    }

    pub(super) fn name_ptr(&self) -> *const c_char {
        self.name.map_or(std::ptr::null(), FileName::as_ptr)
    }

    fn database(&self) -> Option<FileName<'a>> {
        match self.kind() {
            FileKind::MainDb => self.name,
            FileKind::Wal | FileKind::MainJournal => self.name.map(|name| name.database()),
            _ => None,
        }
    }
}

/// A request that its file keeps; see [`OpenRequest::hold`].
#[derive(Debug)]
pub struct HeldRequest(OpenRequest<'static>);

// SAFETY: a name that any thread may read, and a VFS that any thread may use.
unsafe impl Send for HeldRequest {}

impl HeldRequest {
    /// The request.
    pub const fn get(&self) -> OpenRequest<'_> {
        self.0
    }
}

/// What becomes of an open.
pub enum Opened {
    /// The base VFS opens the file where SQLite wants it: from then on nothing of it comes to us.
    PassThrough,
    /// SQLite gets this file.
    File {
        /// The file.
        file: Box<dyn File>,
        /// How it was opened, for SQLite: `READONLY` or `READWRITE` matters.
        out_flags: OpenFlags,
    },
}

/// The parameters of a database's URI, percent-decoded.
#[derive(Clone, Copy, Debug)]
pub struct Parameters<'a> {
    database: Option<FileName<'a>>,
}

impl<'a> Parameters<'a> {
    /// Those of a database with this name.
    pub(super) const fn of(database: FileName<'a>) -> Self {
        Self { database: Some(database) }
    }

    /// The keys with their values, in the order of the URI; a key may be there several times, and a value may be empty.
    /// Bytes that are not UTF-8 are replaced.
    pub fn pairs(&self) -> impl Iterator<Item = (String, String)> + '_ {
        (0..).map_while(|n| {
            let name = self.database?;
            // SAFETY: `name` is a database name of SQLite's, with its parameters behind it; beyond the last key the answer
            // is null.
            let key = unsafe { ffi::sqlite3_uri_key(name.as_ptr(), n) };
            if key.is_null() {
                return None;
            }
            // SAFETY: a string that lives as long as the name.
            let key = unsafe { CStr::from_ptr(key) };
            // SAFETY: each key is followed by its value: `key\0value\0`. By name, SQLite answers with the first of several.
            let value = unsafe { CStr::from_ptr(key.as_ptr().add(key.to_bytes_with_nul().len())) };
            let text = |s: &CStr| s.to_string_lossy().into_owned();
            Some((text(key), text(value)))
        })
    }
}
