//! SQL functions: parse arguments, call a room, format the answer.

use rusqlite::Connection;
use rusqlite::functions::FunctionFlags;

/// Registers all functions on a connection.
///
/// # Errors
/// Those of `sqlite3_create_function_v2`.
pub fn register(conn: &Connection) -> rusqlite::Result<()> {
    let flags =
        FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_INNOCUOUS;
    conn.create_scalar_function("litestream_version", 0, flags, |_| Ok(env!("CARGO_PKG_VERSION")))
}
