//! What SQL on a connection may be trusted with beside the connection's own databases.
//!
//! The functions are on every connection of the process, also on those that run statements of strangers. A
//! program that wants them to reach out loads the library on the connection that it uses.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use rusqlite::functions::FunctionFlags;
use rusqlite::{Connection, MAIN_DB};

use crate::error::{Error, ErrorKind, Result};
use crate::fork;

/// The connections that loaded the library themselves, by their addresses.
static LOADERS: Mutex<BTreeSet<usize>> = Mutex::new(BTreeSet::new());

/// Works on them. No fork comes in between: a child would find them locked.
fn with_loaders<T>(work: impl FnOnce(&mut BTreeSet<usize>) -> T) -> T {
    let _section = fork::section();
    work(&mut LOADERS.lock().unwrap_or_else(PoisonError::into_inner))
}

fn address(conn: &Connection) -> usize {
    // SAFETY: only its address is taken.
    unsafe { conn.handle() }.addr()
}

/// Strikes a connection off the list when SQLite drops what belongs to it.
struct Entry(usize);

impl Entry {
    fn is_listed(&self) -> bool {
        with_loaders(|loaders| loaders.contains(&self.0))
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        with_loaders(|loaders| loaders.remove(&self.0));
    }
}

/// Remembers, until it is closed, that `conn` loaded the library itself.
///
/// # Errors
/// Those of `sqlite3_create_function_v2`.
pub(super) fn note_loader(conn: &Connection) -> rusqlite::Result<()> {
    let address = address(conn);
    if with_loaders(|loaders| loaders.contains(&address)) {
        return Ok(());
    }
    // SQLite drops a function when its connection is closed, and has no other way to tell an extension.
    let entry = Entry(address);
    conn.create_scalar_function("litestream_loaded", 0, FunctionFlags::SQLITE_INNOCUOUS, move |_| {
        Ok(entry.is_listed())
    })?;
    with_loaders(|loaders| loaders.insert(address));
    Ok(())
}

/// Permits SQL on `conn` what writes files or reaches a store: on a connection that loaded the library
/// itself and may write, and everywhere in SQLite's shell, where SQL can write files anyway.
///
/// # Errors
/// `Denied`, with what would permit it.
pub fn may_reach_out(conn: &Connection) -> Result<()> {
    let Some(why) = objection(conn) else { return Ok(()) };
    if is_shell(conn) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Denied,
        format!("{why}, or set LITESTREAM_SQL=on in the environment, which permits it on every connection"),
    ))
}

fn objection(conn: &Connection) -> Option<&'static str> {
    if !with_loaders(|loaders| loaders.contains(&address(conn))) {
        return Some(
            "this connection did not load litestream_vfs itself, and what writes files or reaches a store is \
             only for those that did: load the extension on this connection too",
        );
    }
    // What cannot be asked is not permitted.
    if conn.is_readonly(MAIN_DB).unwrap_or(true) {
        return Some(
            "this connection is read-only, and may neither write files nor reach a store: use one that may \
             write, such as one to ':memory:' that loads litestream_vfs",
        );
    }
    (is_query_only(conn) != Some(false)).then_some(
        "PRAGMA query_only is on, under which a connection may neither write files nor reach a store: switch \
         it off",
    )
}

/// Whether `PRAGMA query_only` is on. `None` if the host does not let us ask.
pub fn is_query_only(conn: &Connection) -> Option<bool> {
    conn.query_row("PRAGMA query_only", (), |row| row.get(0)).ok()
}

/// Whether `conn` belongs to SQLite's shell: SQL can call its functions for files. A function of the same
/// name that a program made for itself has a fixed number of arguments. SQL cannot make functions.
fn is_shell(conn: &Connection) -> bool {
    const CALLS: &str = "SELECT writefile(?1), writefile(?1, ?1, ?1, ?1, ?1, ?1), readfile(?1) \
                         -- litestream_vfs: is this SQLite's shell?";
    conn.prepare(CALLS).is_ok()
}
