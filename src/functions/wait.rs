//! `litestream_wait(txid [, timeout])`.

use rusqlite::types::Value;

use super::database::committed;
use super::sync::timeout;
use crate::error::Result;
use crate::ltx::Txid;
use crate::sqlite::{self, Call};

/// On a primary, waits until a transaction of its first replica, or with NULL every commit that was made before the call, is
/// in the replicas, and answers as `litestream_sync` does. Unlike that it asks for no upload. Of several databases, `main`
/// comes before attached ones.
///
/// On a replica, waits until the next transaction of the connection sees that one, or with NULL all that the replica holds,
/// and answers with the last one that it sees. A connection that has both a primary and a replica waits as a primary.
///
/// # Errors
/// `Timeout` after `timeout` seconds; `Busy` inside a write transaction, or on a replica inside one that sees an earlier state;
/// `Unsupported` on a replica of which an earlier state was chosen.
pub(super) fn wait(call: &Call<'_>) -> Result<Value> {
    let timeout = timeout(call, 1)?;
    let txid = call.arg::<String>(0)?.map(|text| text.parse::<Txid>()).transpose()?;
    let conn = call.connection();
    let databases = committed(conn, "litestream_wait()")?;
    let interrupted = || sqlite::is_interrupted(conn);
    let last = match databases.iter().find_map(|database| database.primary()) {
        Some(primary) => primary.wait_for(txid, timeout, &interrupted)?,
        None => {
            let seen = databases.iter().find_map(|database| database.seen());
            let seen = seen.expect("BUG: a database is neither a primary nor a replica");
            Some(seen.wait_for(txid, timeout, interrupted)?)
        }
    };
    Ok(last.map_or(Value::Null, |txid| Value::Text(txid.to_string())))
}
