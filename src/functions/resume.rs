//! `litestream_resume([mode [, replica]])`.

use rusqlite::types::Value;

use super::database::committed;
use super::permission::permit_writing;
use crate::config;
use crate::error::{Error, ErrorKind, Result};
use crate::primary::Asked;
use crate::sqlite::{self, Call};

/// Replication that stopped because of what it found in the replica looks again and goes on with a full
/// copy; with the mode `force` it continues after whatever the replica holds. The last argument is the URL of the replica, if it
/// is not for all of them. Answers as `litestream_sync` does, for the first database of the connection.
///
/// # Errors
/// `Config` for another mode, and for a replica that the database does not have; `Conflict` if the replica is still not as it should be; `Timeout`;
/// `Unsupported` if the connection has no primary.
pub(super) fn resume(call: &Call<'_>) -> Result<Value> {
    let (mode, url) = (call.arg::<String>(0)?, call.arg::<String>(1)?);
    let (force, url) = match (mode.as_deref(), url) {
        (None, url) => (false, url),
        (Some("force"), url) => (true, url),
        // The only argument may be the replica.
        (Some(named), None) if named.contains(':') => (false, Some(named.to_owned())),
        (Some(other), _) => {
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
    let asked = url.as_deref().map_or(Asked::All, Asked::One);
    let txid = primary.resume(asked, force, config::SYNC_TIMEOUT, &|| sqlite::is_interrupted(conn))?;
    Ok(txid.map_or(Value::Null, |txid| Value::Text(txid.to_string())))
}
