//! The hook that SQLite calls after a commit to a WAL, when of all locks only SHARED is held: the one place where a
//! statement can still fail and nothing is undone.
//!
//! It is also where SQLite checkpoints by itself, so our hook does what SQLite's own does, first. The number of frames at
//! which that happens is its argument, so that the hook needs nothing else and stays right for the life of the connection.
//! It is installed only on connections whose commits wait.
//!
//! Source: <https://www.sqlite.org/c3ref/wal_hook.html>.

use std::ffi::{c_char, c_int, c_void};
use std::sync::OnceLock;

use rusqlite::ffi;

use super::asking::Asking;
use super::control::FileConnection;
use super::installed::ours_behind;
use super::log::guard;
use super::{Code, host};

/// What the library does after a commit; its code becomes the statement's.
pub(super) type AfterCommit = fn(&WalCommit) -> Result<(), Code>;

/// Set by the first load.
static AFTER_COMMIT: OnceLock<AfterCommit> = OnceLock::new();

/// Has `after` called after each commit of a connection that has our hook. The first one stays.
pub(super) fn set_after_commit(after: AfterCommit) {
    AFTER_COMMIT.get_or_init(|| after);
}

/// A commit to a WAL of a connection with our hook.
#[derive(Debug)]
pub struct WalCommit {
    db: *mut ffi::sqlite3,
    schema: *const c_char,
    file: *mut ffi::sqlite3_file,
    least: usize,
}

impl WalCommit {
    /// The number of frames in the WAL from which on our hook checkpoints; 0 for never.
    pub fn automatic_checkpoint(&self) -> u32 {
        u32::try_from(self.least).unwrap_or(u32::MAX)
    }

    /// Address of the connection, as [`FileConnection::address`] tells it.
    pub fn connection(&self) -> usize {
        self.db.addr()
    }

    /// Address of the database's file, as [`Opener::file`](super::Opener::file) tells it; 0 if it is not ours.
    pub fn file(&self) -> usize {
        self.file.addr()
    }

    /// Whether `sqlite3_interrupt` was called. False on a host older than SQLite 3.41.
    pub fn is_interrupted(&self) -> bool {
        // SAFETY: the hook is being called, so the connection is open.
        unsafe { host::is_interrupted_raw(self.db) }.unwrap_or(false)
    }

    /// Whether the connection syncs nothing of this database: `PRAGMA synchronous` is off.
    pub fn is_never_synced(&self) -> bool {
        // SAFETY: the hook is being called, so the connection is open, in use by this thread, and lent to the closure only;
        // the schema is a string that ends with a zero and lives for the call.
        let schema = unsafe { std::ffi::CStr::from_ptr(self.schema) }.to_string_lossy().replace('"', "\"\"");
        let asked = || {
            // SAFETY: as above.
            let conn = unsafe { rusqlite::Connection::from_handle(self.db) }?;
            conn.query_row(&format!("PRAGMA \"{schema}\".synchronous"), (), |row| row.get::<_, i64>(0))
        };
        asked().is_ok_and(|level| level == 0)
    }
}

impl FileConnection {
    /// The number of frames in the WAL from which on SQLite checkpoints by itself; 0 if it does not, or if the hook is not
    /// SQLite's own.
    pub fn automatic_checkpoint(&self) -> u32 {
        let _asking = Asking::begin();
        let frames = self.look(|conn| conn.query_row("PRAGMA wal_autocheckpoint", (), |row| row.get(0)));
        frames.flatten().unwrap_or(0)
    }

    /// Installs our hook, which checkpoints from `frames` frames on (0: never). What was there before is not called any more.
    pub fn take_wal_hook(&self, frames: u32) {
        let frames = std::ptr::without_provenance_mut(frames as usize);
        // SAFETY: a method of the file is being called, so the connection is open. The argument is never dereferenced.
        unsafe { ffi::sqlite3_wal_hook(self.handle(), Some(on_commit), frames) };
    }

    /// Gives SQLite's own hook back, which checkpoints from `frames` frames on (0: never).
    pub fn give_wal_hook_back(&self, frames: u32) {
        let frames = c_int::try_from(frames).unwrap_or(c_int::MAX);
        // SAFETY: a method of the file is being called, so the connection is open.
        unsafe { ffi::sqlite3_wal_autocheckpoint(self.handle(), frames) };
    }
}

unsafe extern "C" fn on_commit(
    frames: *mut c_void,
    db: *mut ffi::sqlite3,
    schema: *const c_char,
    written: c_int,
) -> c_int {
    let least = frames.addr();
    if least > 0 && usize::try_from(written).is_ok_and(|written| written >= least) {
        // As SQLite's own hook does, whatever it comes to.
        // SAFETY: SQLite gives an open connection and the name of one of its databases.
        unsafe { ffi::sqlite3_wal_checkpoint(db, schema) };
    }
    guard("WAL hook", Code::PROTOCOL, || {
        let mut file: *mut ffi::sqlite3_file = std::ptr::null_mut();
        // SAFETY: as above; this operation writes the file's address where its argument points. The file is open.
        let file = unsafe {
            let answer = (&raw mut file).cast::<c_void>();
            ffi::sqlite3_file_control(db, schema, ffi::SQLITE_FCNTL_FILE_POINTER, answer);
            ours_behind(file)
        };
        AFTER_COMMIT.get().map_or(Ok(()), |after| after(&WalCommit { db, schema, file, least }))
    })
}
