//! `litestream_resume([mode])`.

use rusqlite::types::Value;

use super::database::committed;
use super::permission::permit_writing;
use crate::config;
use crate::error::{Error, ErrorKind, Result};
use crate::sqlite::{self, Call};

/// Replication that stopped because of what it found in the replica looks again and goes on with a full
/// copy; with the mode `force` it goes on after whatever the replica holds. Answers as `litestream_sync`
/// does, for the first database of the connection.
///
/// # Errors
/// `Config` for another mode; `Conflict` if the replica is still not as it should be; `Timeout`;
/// `Unsupported` if the connection has no primary.
pub(super) fn resume(call: &Call<'_>) -> Result<Value> {
    let force = match call.arg::<String>(0)?.as_deref() {
        None => false,
        Some("force") => true,
        Some(other) => {
            let message = format!("litestream_resume() takes no mode but 'force', not '{other}'");
            return Err(Error::config(message));
        }
    };
    let conn = call.connection();
    permit_writing(conn)?;
    let databases = committed(conn, "litestream_resume()")?;
    let primary = databases.iter().find_map(|database| database.primary()).ok_or_else(|| {
        Error::new(
            ErrorKind::Unsupported,
            "this connection reads a replica; call it on a connection that is a primary",
        )
    })?;
    let txid = primary.resume(force, config::SYNC_TIMEOUT, &|| sqlite::is_interrupted(conn))?;
    Ok(Value::Text(txid.to_string()))
}
