//! `litestream_snapshot()`.

use rusqlite::types::Value;

use super::database::committed;
use super::permission::permit_writing;
use crate::config;
use crate::error::{Error, ErrorKind, Result};
use crate::sqlite::{self, Call};

/// Makes a snapshot of the first primary of the connection (`main` before attached ones) as it is now,
/// and answers with its TXID.
///
/// # Errors
/// `Unsupported` if the connection has no primary; those of [`crate::primary::Primary::snapshot`].
pub(super) fn snapshot(call: &Call<'_>) -> Result<Value> {
    let conn = call.connection();
    permit_writing(conn)?;
    let databases = committed(conn, "litestream_snapshot()")?;
    let primary = databases.iter().find_map(|database| database.primary()).ok_or_else(|| {
        Error::new(
            ErrorKind::Unsupported,
            "this connection reads a replica; call it on a connection that is a primary",
        )
    })?;
    let txid = primary.snapshot(config::SYNC_TIMEOUT, &|| sqlite::is_interrupted(conn))?;
    Ok(Value::Text(txid.to_string()))
}
