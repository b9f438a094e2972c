//! `xFileControl`: what SQLite asks of a file beside reading and writing it.

use std::ffi::{c_int, c_void};
use std::marker::PhantomData;
use std::ptr::NonNull;

use rusqlite::{Connection, ffi};

use super::{find, host};

/// What a file control asks: `SQLITE_FCNTL_*`.
///
/// Source: <https://www.sqlite.org/c3ref/c_fcntl_begin_atomic_write.html>.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileControlOp(c_int);

impl FileControlOp {
    /// The size that the file will soon have; the argument is an `i64`.
    pub const SIZE_HINT: Self = Self(ffi::SQLITE_FCNTL_SIZE_HINT);
    /// Whether the WAL stays on last close; the argument is an `i32`.
    pub const PERSIST_WAL: Self = Self(ffi::SQLITE_FCNTL_PERSIST_WAL);
    /// The next transaction overwrites the whole database (`VACUUM`).
    pub const OVERWRITE: Self = Self(ffi::SQLITE_FCNTL_OVERWRITE);
    /// The names of the VFSes of this file.
    pub const VFSNAME: Self = Self(ffi::SQLITE_FCNTL_VFSNAME);
    /// A PRAGMA statement; comes as [`File::pragma`](super::File::pragma).
    pub const PRAGMA: Self = Self(ffi::SQLITE_FCNTL_PRAGMA);
    /// The most bytes that may be mapped; the argument is an `i64`.
    pub const MMAP_SIZE: Self = Self(ffi::SQLITE_FCNTL_MMAP_SIZE);
    /// Whether the file was renamed or deleted under us; the argument is an `i32`.
    pub const HAS_MOVED: Self = Self(ffi::SQLITE_FCNTL_HAS_MOVED);
    /// A sync comes next.
    pub const SYNC: Self = Self(ffi::SQLITE_FCNTL_SYNC);
    /// A transaction was committed and its locks are not yet released.
    pub const COMMIT_PHASETWO: Self = Self(ffi::SQLITE_FCNTL_COMMIT_PHASETWO);
    /// A checkpoint is about to begin.
    pub const CKPT_START: Self = Self(ffi::SQLITE_FCNTL_CKPT_START);
    /// A checkpoint has ended.
    pub const CKPT_DONE: Self = Self(ffi::SQLITE_FCNTL_CKPT_DONE);

    /// Which connection the file belongs to; see [`FileControl::connection`].
    pub const PDB: Self = Self(ffi::SQLITE_FCNTL_PDB);

    /// The operation with this number.
    pub const fn from_raw(op: c_int) -> Self {
        Self(op)
    }

    /// The number.
    pub const fn get(self) -> c_int {
        self.0
    }
}

/// One file control with its argument, which only SQLite and the base VFS understand.
///
/// A shim that wants to know looks at [`FileControl::op`] and passes the control on.
#[derive(Debug)]
pub struct FileControl<'a> {
    op: FileControlOp,
    arg: *mut c_void,
    call: PhantomData<&'a mut ()>,
}

impl FileControl<'_> {
    /// # Safety
    /// `arg` must be what SQLite documents for `op` and stay so for the lifetime of the value.
    pub(super) const unsafe fn new(op: c_int, arg: *mut c_void) -> Self {
        Self { op: FileControlOp(op), arg, call: PhantomData }
    }

    /// What is asked.
    pub const fn op(&self) -> FileControlOp {
        self.op
    }

    pub(super) const fn arg(&self) -> *mut c_void {
        self.arg
    }

    /// The connection that the file belongs to, if that is what SQLite tells with this.
    pub fn connection(&self) -> Option<FileConnection> {
        let place = NonNull::new(self.arg.cast::<*mut ffi::sqlite3>())?;
        (self.op == FileControlOp::PDB).then_some(FileConnection(place))
    }

    /// The argument of an operation that takes an `i32`: read it, or write the answer to it.
    pub fn as_i32(&mut self) -> Option<&mut i32> {
        match self.op {
            FileControlOp::PERSIST_WAL | FileControlOp::HAS_MOVED => {
                // SAFETY: SQLite documents an `int*` for these operations; `new` vouches for it.
                unsafe { self.arg.cast::<i32>().as_mut() }
            }
            _ => None,
        }
    }

    /// The argument of an operation that takes an `i64`: read it, or write the answer to it.
    pub fn as_i64(&mut self) -> Option<&mut i64> {
        match self.op {
            FileControlOp::SIZE_HINT | FileControlOp::MMAP_SIZE => {
                // SAFETY: SQLite documents a `sqlite3_int64*` for these operations; `new` vouches for it.
                unsafe { self.arg.cast::<i64>().as_mut() }
            }
            _ => None,
        }
    }
}

/// The connection that a file belongs to, as SQLite tells it when a database is opened.
///
/// Only for use in the methods of that file: the place is part of what SQLite keeps for as long as the
/// file is open, and does not change while a method of it is called. A file that owns it must drop it
/// with itself.
#[derive(Debug)]
pub struct FileConnection(NonNull<*mut ffi::sqlite3>);

// SAFETY: SQLite calls the methods of a file from one thread at a time, whichever that is.
unsafe impl Send for FileConnection {}

impl FileConnection {
    /// Whether `sqlite3_interrupt` was called on it. False on a host older than SQLite 3.41.
    pub fn is_interrupted(&self) -> bool {
        // SAFETY: a method of the file is being called, so the place is there and the connection open.
        unsafe { host::is_interrupted_raw(self.0.read()) }.unwrap_or(false)
    }

    /// Its address, which tells it from all others that are open.
    pub fn address(&self) -> usize {
        // SAFETY: a method of the file is being called, so the place is there. Only the address is taken.
        unsafe { self.0.read() }.addr()
    }

    /// The connection itself.
    pub(super) fn handle(&self) -> *mut ffi::sqlite3 {
        // SAFETY: a method of the file is being called, so the place is there.
        unsafe { self.0.read() }
    }

    /// Who opens `file`, which is the file that the connection belongs to.
    pub(super) fn opener(self, file: *mut ffi::sqlite3_file) -> Opener {
        // SAFETY: a method of the file is being called, so the place is there, and the connection open or being
        // opened. SQLite answers from what it has in memory.
        let is_main = unsafe { find::main_file(self.0.read()) } == file;
        // A VFS in front of ours may pass on less than it should. SQLite prepares nothing on a connection that it opens.
        let misuse = |e: rusqlite::Error| e.sqlite_error_code() == Some(rusqlite::ErrorCode::ApiMisuse);
        let is_open = || self.look(|conn| conn.prepare("SELECT 1").err().is_none_or(|e| !misuse(e)));
        let attaching = !is_main && is_open().unwrap_or(true);
        Opener { connection: self, attaching, file: file.addr() }
    }

    /// What `look` finds about the connection, on which a statement is running.
    ///
    /// # Errors
    /// That of rusqlite, which takes no connection that is null.
    pub fn look<T>(&self, look: impl FnOnce(&Connection) -> T) -> rusqlite::Result<T> {
        // SAFETY: a method of the file is being called, so the place is there, and the connection is in use by
        // this thread. It is not closed by the reference, which ends with the call.
        unsafe { Connection::from_handle(self.0.read()) }.map(|conn| look(&conn))
    }
}

/// Who opens a file.
#[derive(Debug)]
pub struct Opener {
    /// The connection.
    pub connection: FileConnection,
    /// SQL on the connection attaches the file; else a program is opening the connection with it.
    pub attaching: bool,
    /// Address of the file, which tells it from all others that are open.
    pub file: usize,
}

/// What a file answers to a PRAGMA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PragmaAnswer {
    /// It is not ours: SQLite does what it would do without us.
    NotMine,
    /// One row with one column.
    Value(String),
    /// It is done and there is no row. Not for names that SQLite knows: it would obey them too.
    Done,
    /// The statement fails with this message.
    Error(String),
    /// The statement was interrupted.
    Interrupted,
}
