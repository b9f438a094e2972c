//! `litestream_sync([timeout])`.

use std::time::{Duration, Instant};

use rusqlite::types::Value;

use super::database::committed;
use super::permission::permit_writing;
use crate::config;
use crate::error::{Error, ErrorKind, Result};
use crate::sqlite::{self, Call};

/// Argument `index` of a call: a number of seconds, or a duration with its unit.
pub(super) fn timeout(call: &Call<'_>, index: usize) -> Result<Duration> {
    let timeout = match call.arg(index)? {
        None => Ok(config::SYNC_TIMEOUT),
        Some(Value::Text(text)) => config::timeout(&text),
        Some(_) => config::seconds(call.arg(index)?.unwrap_or_default()),
    };
    timeout.map_err(|e| e.context("timeout"))
}

/// Waits until every commit that was made before the call is in its replicas, for all databases of the
/// connection, and answers with the TXID that covers those of the first (`main` before attached ones) in its first replica:
/// NULL if `sync_replicas` needs fewer than all, and that one is not there yet.
///
/// # Errors
/// `Busy` inside a write transaction; `Timeout` after `timeout` seconds; `Unsupported` if the connection has no primary.
pub(super) fn sync(call: &Call<'_>) -> Result<Value> {
    let timeout = timeout(call, 0)?;
    let conn = call.connection();
    permit_writing(conn)?;
    let deadline = Instant::now() + timeout;
    let mut first = None;
    for primary in committed(conn, "litestream_sync()")?.iter().filter_map(|database| database.primary()) {
        let left = deadline.saturating_duration_since(Instant::now());
        let txid = primary.sync(left, &|| sqlite::is_interrupted(conn))?;
        first.get_or_insert(txid);
    }
    match first {
        Some(txid) => Ok(txid.map_or(Value::Null, |txid| Value::Text(txid.to_string()))),
        None => Err(Error::new(
            ErrorKind::Unsupported,
            "this connection reads a replica; call it on a connection that is a primary",
        )),
    }
}
