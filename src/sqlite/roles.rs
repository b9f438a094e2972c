//! How SQL functions find our files behind a connection.

use std::any::Any;
use std::ffi::{CStr, CString, c_void};
use std::path::PathBuf;
use std::sync::Arc;

use rusqlite::{Connection, ffi};

use super::installed::{inherited, our_file, ours_behind};
use super::name::FileName;
use super::vfs_methods;
use super::{File, Parameters};
use crate::error::{Error, ErrorKind};
use crate::fork;

/// The rooms' objects behind the databases of `conn` that are ours, with their schema names: `main`
/// first, then the attached ones in their order.
pub fn roles(conn: &Connection) -> Vec<(String, Arc<dyn Any + Send + Sync>)> {
    schemas(conn)
        .into_iter()
        .filter_map(|schema| {
            let name = CString::new(schema.as_str()).ok()?;
            let role = with_file(conn, Some(&name), |file| file.role())??;
            Some((schema, role))
        })
        .collect()
}

/// The name under which a connection opened a database.
#[derive(Clone, Debug)]
pub struct OpenedName {
    /// The full path of the file.
    pub path: PathBuf,
    /// The parameters of the URI, percent-decoded.
    pub parameters: Vec<(String, String)>,
    /// The connection cannot write it.
    pub is_read_only: bool,
}

/// The names of the databases of `conn` that are ours: `main` first, then the attached ones in their order.
pub fn opened_names(conn: &Connection) -> Vec<OpenedName> {
    let names = schemas(conn).into_iter().filter_map(|schema| CString::new(schema).ok());
    names
        .filter(|schema| with_file(conn, Some(schema), |_| ()).is_some())
        .filter_map(|schema| name_of(conn, &schema))
        .collect()
}

fn name_of(conn: &Connection, schema: &CStr) -> Option<OpenedName> {
    // SAFETY: the connection is open and in use by this thread; the answer is null, or the name that SQLite gave to
    // `xOpen` and keeps as long as the database is open, which is longer than this call.
    let name = unsafe { FileName::new(ffi::sqlite3_db_filename(conn.handle(), schema.as_ptr())) }?;
    // SAFETY: the connection is open and in use by this thread.
    let is_read_only = unsafe { ffi::sqlite3_db_readonly(conn.handle(), schema.as_ptr()) } == 1;
    let parameters = Parameters::of(name);
    let pairs = parameters.pairs().collect();
    Some(OpenedName { path: name.path().to_path_buf(), parameters: pairs, is_read_only })
}

/// Refuses a connection of which a forked child inherited a file.
///
/// # Errors
/// `Unsupported`, with who opened it and what to do.
pub(super) fn refuse_inherited(conn: &Connection) -> Result<(), Error> {
    if !fork::is_child() {
        return Ok(());
    }
    let files =
        schemas(conn).into_iter().filter_map(|schema| file_of(conn, Some(&CString::new(schema).ok()?)));
    // SAFETY: as for `with_file`; files that are ours were installed.
    let inherited = |file: *mut ffi::sqlite3_file| unsafe { inherited(file) };
    match files.filter_map(inherited).next() {
        None => Ok(()),
        Some(inherited) => {
            inherited.note(super::Code::MISUSE);
            Err(Error::new(ErrorKind::Unsupported, inherited.message()))
        }
    }
}

/// The schema names of `conn`. Only `main` if the host does not let us ask.
fn schemas(conn: &Connection) -> Vec<String> {
    let ask = || -> rusqlite::Result<Vec<String>> {
        let mut list = conn.prepare("PRAGMA database_list")?;
        list.query_map((), |row| row.get("name"))?.collect()
    };
    ask().unwrap_or_else(|_| vec!["main".to_owned()])
}

/// The code and message of a main database whose open was refused, or that asks for our VFS and needs none:
/// SQLite opens no file for a database in memory, and none at once for one without a name.
pub(super) fn open_error(conn: &Connection) -> Option<(super::Code, String)> {
    if let Some(refused) =
        with_file(conn, None, |file| file.open_error().map(|(code, message)| (code, message.to_owned())))
    {
        return refused;
    }
    let is_nowhere = conn.path().is_none_or(str::is_empty) && asks_for_ours(conn);
    is_nowhere.then(|| (super::Code::CANTOPEN, NOWHERE.to_owned()))
}

/// What is said of a database that cannot be replicated.
const NOWHERE: &str = "a database in memory or without a name cannot be replicated, and reads no replica: give it a \
                       file name, such as file:app.db?vfs=litestream, without mode=memory; or leave out \
                       vfs=litestream";

/// Whether the main database of `conn` has our VFS because it asked for it.
fn asks_for_ours(conn: &Connection) -> bool {
    let mut vfs: *mut ffi::sqlite3_vfs = std::ptr::null_mut();
    // SAFETY: the connection is open, null names the main database, and this operation writes the VFS's
    // address where its argument points.
    let code = unsafe {
        ffi::sqlite3_file_control(
            conn.handle(),
            std::ptr::null(),
            ffi::SQLITE_FCNTL_VFS_POINTER,
            (&raw mut vfs).cast::<c_void>(),
        )
    };
    // SAFETY: null, or a registered VFS, which stays where it is while it has connections.
    code == ffi::SQLITE_OK && unsafe { vfs.as_ref() }.is_some_and(vfs_methods::is_named)
}

/// Whether the main database wants its header read at the end of the open.
pub(super) fn has_late_header(conn: &Connection) -> bool {
    with_file(conn, None, |file| file.has_late_header()).unwrap_or(false)
}

/// What `look` finds in the file of a schema (`None`: the main database), if that file is ours.
fn with_file<T>(conn: &Connection, schema: Option<&CStr>, look: impl FnOnce(&dyn File) -> T) -> Option<T> {
    let file = file_of(conn, schema)?;
    // SAFETY: the address is null or that of the schema's file, which stays open while its connection,
    // which this thread is using, does not close it. No method of the file is running: SQLite calls
    // those and SQL functions by turns.
    unsafe { our_file(file) }.map(look)
}

/// Our file of a schema (`None`: the main database), also behind that of another VFS; `None` if there is none.
fn file_of(conn: &Connection, schema: Option<&CStr>) -> Option<*mut ffi::sqlite3_file> {
    let mut file: *mut ffi::sqlite3_file = std::ptr::null_mut();
    let name = schema.map_or(std::ptr::null(), CStr::as_ptr);
    // SAFETY: the connection is open, the name ends with a zero or is null, and this operation writes
    // the file's address where its argument points.
    let code = unsafe {
        ffi::sqlite3_file_control(
            conn.handle(),
            name,
            ffi::SQLITE_FCNTL_FILE_POINTER,
            (&raw mut file).cast::<c_void>(),
        )
    };
    if code != ffi::SQLITE_OK {
        return None;
    }
    // SAFETY: the address is null or that of the schema's file, which is open.
    let file = unsafe { ours_behind(file) };
    (!file.is_null()).then_some(file)
}
