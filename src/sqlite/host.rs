//! Which SQLite library called us, and what its API has beyond the oldest that we accept.

use std::ffi::{CStr, CString, c_char, c_int};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicPtr, Ordering};

use rusqlite::{Connection, ffi};

use super::threading::SingleThread;

/// The oldest SQLite that we work with: the one whose API the bindings describe.
const OLDEST: c_int = ffi::SQLITE_VERSION_NUMBER;
const OLDEST_TEXT: &str = "3.34.1";
/// The first SQLite with `sqlite3_is_interrupted`.
const HAS_IS_INTERRUPTED: c_int = 3_041_000;

/// The API of the library that loaded us; null before. Set once.
static LOADED: AtomicPtr<ffi::sqlite3_api_routines> = AtomicPtr::new(std::ptr::null_mut());

/// The connection that a loadable extension is given. Only SQLite makes one.
#[repr(transparent)]
#[derive(Debug)]
pub struct HostConnection(*mut ffi::sqlite3);

/// Where a loadable extension puts its error message. Only SQLite makes one.
#[repr(transparent)]
#[derive(Debug)]
pub struct HostErrorSlot(*mut *mut c_char);

/// The API that a loadable extension is given. Only SQLite makes one.
#[repr(transparent)]
#[derive(Debug)]
pub struct HostApi(*mut ffi::sqlite3_api_routines);

/// Why a library may not load us, for the user.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unfit(pub(super) String);

impl HostConnection {
    /// # Safety
    /// `db` must be a connection that SQLite gives to a callback, for the duration of that.
    pub(super) const unsafe fn from_raw(db: *mut ffi::sqlite3) -> Self {
        Self(db)
    }

    /// A connection of rusqlite's, which does not close it.
    pub(super) fn open(&self) -> rusqlite::Result<Connection> {
        // SAFETY: SQLite gives an open connection, and we use it only inside the call that gave it.
        unsafe { Connection::from_handle(self.0) }
    }
}

impl HostApi {
    pub(super) fn routines(&self) -> Option<&ffi::sqlite3_api_routines> {
        // SAFETY: null, or SQLite's table, which lives as long as the library. An old library's table
        // is shorter than the type: only fields that all versions have are read before `admit`.
        unsafe { self.0.as_ref() }
    }

    fn version_number(&self) -> c_int {
        // SAFETY: takes nothing, answers a number.
        self.routines().and_then(|api| api.libversion_number).map_or(0, |version| unsafe { version() })
    }

    fn version(&self) -> String {
        let Some(version) = self.routines().and_then(|api| api.libversion) else { return String::new() };
        // SAFETY: answers a static string.
        unsafe { CStr::from_ptr(version()) }.to_string_lossy().into_owned()
    }

    /// Makes this library the one that every call of ours goes to. Idempotent.
    ///
    /// All calls go through one set of pointers, so a second library in the same process is refused.
    ///
    /// # Errors
    /// If the library is too old, in single-thread mode, or another one loaded us before.
    pub(super) fn admit(&self) -> Result<(), Unfit> {
        if self.version_number() < OLDEST {
            return Err(Unfit(format!(
                "litestream_vfs needs SQLite {OLDEST_TEXT} or later, and this is SQLite {}: use a newer SQLite",
                self.version()
            )));
        }
        if let Some(single) = SingleThread::of(self) {
            return Err(Unfit(single.message().to_owned()));
        }
        let first =
            LOADED.compare_exchange(std::ptr::null_mut(), self.0, Ordering::AcqRel, Ordering::Acquire);
        if let Err(loaded) = first {
            return if loaded == self.0 { Ok(()) } else { Err(self.second_library(&Self(loaded))) };
        }
        // SAFETY: not null, because its version could be read, and recent enough.
        unsafe { ffi::rusqlite_extension_init2(self.0) }
            .map_err(|e| Unfit(format!("litestream_vfs cannot use this SQLite: {e}")))
    }

    fn second_library(&self, first: &Self) -> Unfit {
        Unfit(format!(
            "litestream_vfs is already loaded by another SQLite library in this process: this is SQLite {}, \
             the other is SQLite {}. Load it from one of the two only, or from separate processes",
            self.version(),
            first.version()
        ))
    }

    /// Puts `message` into `slot`, in memory of this library's own allocator.
    pub(super) fn tell(&self, slot: &HostErrorSlot, message: &str) {
        if let Some(allocate) = self.routines().and_then(|api| api.malloc) {
            // SAFETY: SQLite's allocator, given the size that `text_with` computed.
            let text = text_with(message, |size| unsafe { allocate(size) }.cast());
            slot.set(text);
        }
    }
}

impl HostErrorSlot {
    /// # Safety
    /// `slot` must be null or where SQLite wants a message from a callback, for the duration of that.
    pub(super) const unsafe fn from_raw(slot: *mut *mut c_char) -> Self {
        Self(slot)
    }

    fn set(&self, text: Option<NonNull<c_char>>) {
        // SAFETY: null, or where SQLite wants a pointer to memory of its allocator.
        if let (Some(slot), Some(text)) = (unsafe { self.0.as_mut() }, text) {
            *slot = text.as_ptr();
        }
    }

    /// Puts `message` there, in memory of the admitted library.
    pub(super) fn tell(&self, message: &str) {
        self.set(sqlite_text(message));
    }
}

/// `message` as a string in memory of SQLite's allocator; `None` if there is none left.
pub(super) fn sqlite_text(message: &str) -> Option<NonNull<c_char>> {
    // SAFETY: SQLite's allocator, given the size that `text_with` computed.
    text_with(message, |size| unsafe { ffi::sqlite3_malloc(size) }.cast())
}

/// `message` as a string in memory that `allocate` gives: at least as many bytes as asked for, or null.
fn text_with(message: &str, allocate: impl FnOnce(c_int) -> *mut c_char) -> Option<NonNull<c_char>> {
    // What follows a zero byte would not be seen anyway.
    let bytes = message.bytes().take_while(|b| *b != 0).count();
    let memory = NonNull::new(allocate(c_int::try_from(bytes + 1).ok()?))?;
    // SAFETY: `bytes` + 1 were allocated, and `message` has as many as `bytes`.
    unsafe {
        memory.as_ptr().copy_from_nonoverlapping(message.as_ptr().cast(), bytes);
        memory.as_ptr().add(bytes).write(0);
    }
    Some(memory)
}

/// Whether `conn` has a write transaction open on the database `schema`.
pub fn is_writing(conn: &Connection, schema: &str) -> bool {
    let Ok(schema) = CString::new(schema) else { return false };
    // SAFETY: the connection is open, and the name a string that ends with a zero byte.
    unsafe { ffi::sqlite3_txn_state(conn.handle(), schema.as_ptr()) == ffi::SQLITE_TXN_WRITE }
}

/// Whether a library has loaded us, so that its API may be called.
pub(super) fn is_loaded() -> bool {
    !LOADED.load(Ordering::Acquire).is_null()
}

/// Whether connections of the library that loaded us can share a cache. Some libraries are built without.
pub(super) fn can_share_caches() -> bool {
    loaded().routines().is_some_and(|api| api.enable_shared_cache.is_some())
}

/// The API of the library that loaded us; without routines before.
pub(super) fn loaded() -> HostApi {
    HostApi(LOADED.load(Ordering::Acquire))
}

/// The beginning of SQLite's API from 3.41 on, for what the bindings do not describe.
///
/// Source: `sqlite3ext.h`; fields are only ever added at the end.
#[repr(C)]
struct ApiOf341 {
    upto_txn_state: ffi::sqlite3_api_routines,
    /// `changes64`, `total_changes64`, `autovacuum_pages`, `error_offset`, `vtab_rhs_value`,
    /// `vtab_distinct`, `vtab_in`, `vtab_in_first`, `vtab_in_next`, `deserialize`, `serialize`,
    /// `db_name`, `value_encoding`.
    upto_value_encoding: [Option<unsafe extern "C" fn()>; 13],
    is_interrupted: Option<unsafe extern "C" fn(*mut ffi::sqlite3) -> c_int>,
}

/// `sqlite3_is_interrupted`, `None` on hosts that do not have it.
pub(super) fn is_interrupted(conn: &Connection) -> Option<bool> {
    // SAFETY: the connection is open.
    unsafe { is_interrupted_raw(conn.handle()) }
}

/// The same.
///
/// # Safety
/// `db` must be an open connection, or null.
pub(super) unsafe fn is_interrupted_raw(db: *mut ffi::sqlite3) -> Option<bool> {
    if db.is_null() {
        return None;
    }
    let api = loaded();
    if api.version_number() < HAS_IS_INTERRUPTED {
        return None;
    }
    // SAFETY: the table of a library of this version has this beginning and lives as long as it.
    let ask = (unsafe { api.0.cast::<ApiOf341>().as_ref() }).and_then(|api| api.is_interrupted)?;
    // SAFETY: as the caller promises.
    Some(unsafe { ask(db) != 0 })
}
