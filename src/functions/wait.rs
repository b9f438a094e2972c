//! `litestream_wait(txid [, timeout])`.

use rusqlite::types::Value;

use super::database::committed;
use super::sync::timeout;
use crate::error::{Error, ErrorKind, Result};
use crate::ltx::Txid;
use crate::sqlite::{self, Call};

/// Waits until a transaction of the first replica of the connection's first primary, or with NULL every commit that was made
/// before the call, is in the replicas, and answers as `litestream_sync` does. Unlike that it asks for no upload.
///
/// # Errors
/// `Busy` inside a write transaction; `Timeout` after `timeout` seconds; `Unsupported` if the connection has no primary.
pub(super) fn wait(call: &Call<'_>) -> Result<Value> {
    let timeout = timeout(call, 1)?;
    let txid = call.arg::<String>(0)?.map(|text| text.parse::<Txid>()).transpose()?;
    let conn = call.connection();
    let databases = committed(conn, "litestream_wait()")?;
    let Some(primary) = databases.iter().find_map(|database| database.primary()) else {
        return Err(Error::new(
            ErrorKind::Unsupported,
            "this connection reads a replica; call it on a connection that is a primary",
        ));
    };
    let last = primary.wait_for(txid, timeout, &|| sqlite::is_interrupted(conn))?;
    Ok(last.map_or(Value::Null, |txid| Value::Text(txid.to_string())))
}
