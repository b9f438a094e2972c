//! What a connection may do with the functions.

use rusqlite::Connection;

use crate::config::{self, ProcessEnv};
use crate::error::{Error, ErrorKind, Result};
use crate::sqlite;

/// Permits `conn` to write files and to reach a store that it names.
///
/// # Errors
/// `Denied`, with what would permit it.
pub(super) fn permit(conn: &Connection) -> Result<()> {
    config::permit_sql(&ProcessEnv, || sqlite::may_reach_out(conn))
}

/// Permits `conn` to make its primary write to its own replica.
///
/// # Errors
/// `Denied` under `PRAGMA query_only`.
pub(super) fn permit_writing(conn: &Connection) -> Result<()> {
    if sqlite::is_query_only(conn) == Some(true) {
        return Err(Error::new(
            ErrorKind::Denied,
            "PRAGMA query_only is on: switch it off, or use another connection",
        ));
    }
    Ok(())
}
