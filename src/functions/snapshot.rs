//! `litestream_snapshot([replica])`.

use rusqlite::types::Value;

use super::database::committed;
use super::permission::permit_writing;
use crate::config;
use crate::error::{Error, ErrorKind, Result};
use crate::primary::Asked;
use crate::sqlite::{self, Call};

/// Makes a snapshot of the first primary of the connection (`main` before attached ones) as it is now, in all its replicas or
/// in the one with the URL that is given, and answers with its TXID, in the first of them.
///
/// # Errors
/// `Config` for a replica that the database does not have; `Unsupported` if the connection has no primary; those of [`crate::primary::Primary::snapshot`].
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
    let url = call.arg::<String>(0)?;
    let asked = url.as_deref().map_or(Asked::All, Asked::One);
    let txid = primary.snapshot(asked, config::SYNC_TIMEOUT, &|| sqlite::is_interrupted(conn))?;
    Ok(txid.map_or(Value::Null, |txid| Value::Text(txid.to_string())))
}
