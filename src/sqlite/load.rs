//! What happens when SQLite loads us, and when it opens a connection after that.

use std::ffi::{CStr, c_char, c_int};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::error::{Error, ErrorKind};
use rusqlite::{Connection, ErrorCode, ffi};

use super::host::{HostApi, HostConnection, HostErrorSlot};
use super::vfs_methods::Users;
use super::wal_hook::{AfterCommit, set_after_commit};
use super::{
    BaseVfs, Code, Vfs, auto_extension, ciphers, exit, forked, internal, log, opening_error, refused, roles,
    signals, standing, vfs_methods,
};

/// What the library gives to its host.
#[derive(Debug)]
pub struct Wiring {
    /// The name of the VFS.
    pub vfs_name: &'static CStr,
    /// Makes the VFS. Called once.
    pub vfs: fn() -> Box<dyn Vfs>,
    /// The name of the VFS that may become the host's default.
    pub default_name: &'static CStr,
    /// Makes that VFS. Called once.
    pub default_vfs: fn() -> Box<dyn Vfs>,
    /// Whether it is to be the default when the library is loaded.
    pub wants_default: fn() -> bool,
    /// Registers the functions on a connection.
    pub functions: fn(&Connection) -> rusqlite::Result<()>,
    /// Called after a commit of a connection that has the library's WAL hook. Its code becomes the statement's.
    pub after_commit: AfterCommit,
    /// Called when the process ends normally.
    pub at_exit: fn(),
}

/// Set by the first load, before the auto-extension is registered.
static WIRING: OnceLock<&'static Wiring> = OnceLock::new();

/// One load at a time.
static LOADING: Mutex<()> = Mutex::new(());

/// The body of a loadable extension's entry point: registers the VFS once, the functions on `db`, and
/// both for all connections to come. May be called again by the same SQLite library.
///
/// Answers `SQLITE_OK_LOAD_PERMANENTLY`, or an error code with its message in `error`.
pub fn load(db: HostConnection, error: HostErrorSlot, api: HostApi, wiring: &'static Wiring) -> c_int {
    let failed =
        (Code::ERROR, "litestream_vfs failed inside while it was loaded, please report it".to_owned());
    let loaded = log::guard_value("load", Err(failed), || try_load(&db, &api, wiring));
    match loaded {
        Ok(()) => ffi::SQLITE_OK_LOAD_PERMANENTLY,
        Err((code, message)) => {
            // The admitted library's allocator need not be this one's.
            api.tell(&error, &message);
            code.get()
        }
    }
}

fn try_load(db: &HostConnection, api: &HostApi, wiring: &'static Wiring) -> Result<(), (Code, String)> {
    let _one = LOADING.lock().unwrap_or_else(PoisonError::into_inner);
    api.admit().map_err(|unfit| (Code::ERROR, unfit.0))?;
    let again = WIRING.set(wiring).is_err();
    register_vfs(wiring)?;
    if (wiring.wants_default)() {
        make_default(wiring)
            .map_err(|code| (code, format!("litestream_vfs cannot be the default VFS: {code}")))?;
    }
    forked::watch_forks();
    exit::at_exit(wiring.at_exit);
    signals::install();
    set_after_commit(wiring.after_commit);
    auto_extension::set(on_connection)
        .map_err(|code| (code, format!("litestream_vfs cannot be registered: {code}")))?;
    let functions = db.open().and_then(|conn| {
        standing::note_loader(&conn)?;
        (wiring.functions)(&conn)
    });
    match functions {
        // `SELECT load_extension(…)` runs a statement, during which functions cannot be replaced: they
        // are there already.
        Err(e) if again && e.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => Ok(()),
        Err(e) => Err((Code::ERROR, format!("litestream_vfs cannot register its functions: {e}"))),
        Ok(()) => Ok(()),
    }
}

/// Registers the VFS, unless it is there.
fn register_vfs(wiring: &Wiring) -> Result<(), (Code, String)> {
    // SAFETY: the name ends with a zero; the answer is null or a VFS that stays where it is.
    let found = unsafe { ffi::sqlite3_vfs_find(wiring.vfs_name.as_ptr()).as_ref() };
    match found {
        Some(vfs) if vfs_methods::is_ours(vfs) => Ok(()),
        Some(_) => Err((
            Code::ERROR,
            format!(
                "a VFS named {0:?} is registered already, by Litestream's own extension or by another copy of \
                 litestream_vfs: load only one of them into a process",
                wiring.vfs_name
            ),
        )),
        None => {
            let base = BaseVfs::host_default()
                .ok_or_else(|| (Code::ERROR, "litestream_vfs needs a host with a default VFS".to_owned()))?;
            register(&wiring.named(), base)
                .map_err(|code| (code, format!("the VFS {:?} cannot be registered: {code}", wiring.vfs_name)))
        }
    }
}

/// Makes the VFS that is for all connections the host's default, or what was the default before.
///
/// # Errors
/// `Unsupported` if SQLite cannot.
pub fn set_default_vfs(on: bool) -> crate::error::Result<()> {
    let _one = LOADING.lock().unwrap_or_else(PoisonError::into_inner);
    let wiring = WIRING.get().expect("BUG: a function of a library that is not loaded");
    let done = if on { make_default(wiring) } else { make_no_default(wiring) };
    done.map_err(|code| {
        Error::new(ErrorKind::Unsupported, format!("the default VFS cannot be changed: {code}"))
    })
}

fn registered(name: &CStr) -> Option<&'static ffi::sqlite3_vfs> {
    // SAFETY: the name ends with a zero; the answer is null or a VFS that stays where it is.
    let found = unsafe { ffi::sqlite3_vfs_find(name.as_ptr()).as_ref() };
    found.filter(|vfs| vfs_methods::is_ours(vfs))
}

fn make_default(wiring: &Wiring) -> Result<(), Code> {
    let before = BaseVfs::host_default().ok_or(Code::ERROR)?;
    if let Some(vfs) = registered(wiring.default_name) {
        let ours = BaseVfs::of(vfs);
        if before != ours {
            *default_before() = Some(before);
        }
        return ours.become_default();
    }
    *default_before() = Some(before);
    register(&wiring.default(), before)
}

fn make_no_default(wiring: &Wiring) -> Result<(), Code> {
    let Some(vfs) = registered(wiring.default_name) else { return Ok(()) };
    let is_default = BaseVfs::host_default().is_some_and(|default| default == BaseVfs::of(vfs));
    // Another one may have come in front of it.
    match *default_before() {
        Some(before) if is_default => before.become_default(),
        _ => Ok(()),
    }
}

/// The host's default before ours was it.
fn default_before() -> MutexGuard<'static, Option<BaseVfs>> {
    static BEFORE: Mutex<Option<BaseVfs>> = Mutex::new(None);
    BEFORE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A VFS of ours that is to be registered.
struct Ours {
    name: &'static CStr,
    /// Its name where it comes behind one that encrypts.
    below: &'static CStr,
    make: fn() -> Box<dyn Vfs>,
    users: Users,
}

impl Wiring {
    fn named(&self) -> Ours {
        Ours { name: self.vfs_name, below: ciphers::BELOW, make: self.vfs, users: Users::WhoNameIt }
    }

    fn default(&self) -> Ours {
        let (name, below) = (self.default_name, ciphers::DEFAULT_BELOW);
        Ours { name, below, make: self.default_vfs, users: Users::Everybody }
    }
}

/// Registers `ours` in front of `base`, or behind it if that encrypts.
fn register(ours: &Ours, base: BaseVfs) -> Result<(), Code> {
    let Some(behind) = ciphers::behind(base) else {
        return vfs_methods::register(ours.name, base, (ours.make)(), ours.users);
    };
    vfs_methods::register(ours.below, behind, (ours.make)(), ours.users.behind_another())?;
    // Without one that encrypts, the host says itself that a key is of no use.
    let next = ciphers::in_front_of(ours.below).or_else(|| BaseVfs::named(ours.below));
    vfs_methods::register(ours.name, next.ok_or(Code::ERROR)?, Box::new(ciphers::InFront), ours.users)
}

/// Runs at the end of each `sqlite3_open`: registers the functions, and fails an open that we refused.
/// Never fails any other.
unsafe extern "C" fn on_connection(
    db: *mut ffi::sqlite3,
    error: *mut *mut c_char,
    _api: *const ffi::sqlite3_api_routines,
) -> c_int {
    // SAFETY: they are those of SQLite's call, which are what the types are for.
    let (db, error) = unsafe { (HostConnection::from_raw(db), HostErrorSlot::from_raw(error)) };
    log::guard_value("auto-extension", ffi::SQLITE_OK, || {
        // For a database of another VFS: its locks are not taken yet.
        forked::close_inherited();
        if internal::is_internal() {
            return ffi::SQLITE_OK;
        }
        let Ok(conn) = db.open() else { return ffi::SQLITE_OK };
        if let Some((code, message)) = roles::open_error(&conn) {
            refused::note_shown(Path::new(conn.path().unwrap_or_default()), code, &message);
            if opening_error::set(&conn, code, &message) {
                return ffi::SQLITE_OK;
            }
            error.tell(&message);
            return code.get();
        }
        if roles::has_late_header(&conn) {
            // If it fails, so does the first query, and tells why.
            let _ = conn.query_row("PRAGMA schema_version", (), |_| Ok(()));
        }
        let functions = WIRING.get().map_or(Ok(()), |wiring| (wiring.functions)(&conn));
        if let Err(e) = functions {
            log::log(Code::ERROR, &format!("litestream: functions are missing on a connection: {e}"));
        }
        ffi::SQLITE_OK
    })
}
