//! Where the database of a connection stands; of several replicas, the first one.

use rusqlite::types::Value;

use super::database::{Facts, first};
use crate::error::Result;
use crate::sqlite::Call;

/// Status of the first replica of the first database of the connection.
fn facts(call: &Call<'_>) -> Result<Facts> {
    Ok(first(call.connection())?.facts().into_iter().next().unwrap_or_default())
}

/// `litestream_txid()`: the last transaction that is in the replica, as 16 hexadecimal digits. On a
/// replica it is the one that is read. NULL if there is none yet.
pub(super) fn txid(call: &Call<'_>) -> Result<Value> {
    let facts = facts(call)?;
    Ok(facts.txid.map_or(Value::Null, |t| Value::Text(t.to_string())))
}

/// `litestream_time()`: when that transaction was committed, in RFC 3339. NULL if it is not known.
pub(super) fn time(call: &Call<'_>) -> Result<Value> {
    let facts = facts(call)?;
    Ok(facts.time.map_or(Value::Null, |t| Value::Text(t.to_string())))
}

/// `litestream_lag()`: seconds by which the replica may be behind. On a primary, the age of the oldest
/// commit that is not yet in the replica; on a replica, the age of what this connection reads: the time
/// since that was the latest state, as far as is known. NULL if that is not known.
pub(super) fn lag(call: &Call<'_>) -> Result<Value> {
    let facts = facts(call)?;
    Ok(facts.lag.map_or(Value::Null, |lag| Value::Real(lag.as_secs_f64())))
}
