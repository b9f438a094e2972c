//! How SQL functions find our files behind a connection.

use std::any::Any;
use std::ffi::{CStr, CString, c_void};
use std::sync::Arc;

use rusqlite::{Connection, ffi};

use super::File;
use super::installed::our_file;

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

/// The schema names of `conn`. Only `main` if the host does not let us ask.
fn schemas(conn: &Connection) -> Vec<String> {
    let ask = || -> rusqlite::Result<Vec<String>> {
        let mut list = conn.prepare("PRAGMA database_list")?;
        list.query_map((), |row| row.get("name"))?.collect()
    };
    ask().unwrap_or_else(|_| vec!["main".to_owned()])
}

/// The code and message of a main database whose open was refused.
pub(super) fn open_error(conn: &Connection) -> Option<(super::Code, String)> {
    with_file(conn, None, |file| file.open_error().map(|(code, message)| (code, message.to_owned())))?
}

/// What `look` finds in the file of a schema (`None`: the main database), if that file is ours.
fn with_file<T>(conn: &Connection, schema: Option<&CStr>, look: impl FnOnce(&dyn File) -> T) -> Option<T> {
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
    // SAFETY: the address is null or that of the schema's file, which stays open while its connection,
    // which this thread is using, does not close it. No method of the file is running: SQLite calls
    // those and SQL functions by turns.
    unsafe { our_file(file) }.map(look)
}
