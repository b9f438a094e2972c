//! `litestream_set_time(t [, schema])`: which state of a replica is read.

use rusqlite::types::Value;

use super::database::{Database, databases};
use crate::config;
use crate::error::{Error, ErrorKind, Result};
use crate::replica::Seen;
use crate::sqlite::{self, Call};

/// From the next transaction on the connection reads the last state at or before `t`, which is a time,
/// a TXID or `latest`. Answers with the time of that state.
///
/// # Errors
/// `Config` if `t` is none of these; `Unsupported` if there is no such replica; `NotFound` with the
/// range that is covered; `Busy` in a transaction; `Interrupted`.
pub(super) fn set_time(call: &Call<'_>) -> Result<Value> {
    let text = match call.arg(0)? {
        Some(Value::Text(text)) => text,
        Some(Value::Integer(n)) => n.to_string(),
        Some(Value::Real(x)) => x.to_string(),
        _ => return Err(Error::config("there is no time; write litestream_set_time('5 minutes ago')")),
    };
    let schema: Option<String> = call.arg(1)?;
    let all = databases(call.connection())?;
    let seen = replica(&all, schema.as_deref())?;
    seen.choose_unless(config::point(&text)?, || sqlite::is_interrupted(call.connection()))?;
    Ok(Value::Text(seen.snapshot().timestamp.to_string()))
}

/// The replica that is attached as `schema`, or else the first.
fn replica<'a>(all: &'a [Database], schema: Option<&str>) -> Result<&'a Seen> {
    let named = |db: &&Database| schema.is_none_or(|name| db.schema.eq_ignore_ascii_case(name));
    all.iter().filter(named).find_map(Database::seen).ok_or_else(|| {
        let what = schema.map_or("no database of this connection is a replica".to_owned(), |name| {
            format!("'{name}' is not a replica of this connection")
        });
        Error::new(
            ErrorKind::Unsupported,
            format!("{what}; only a replica, opened with mode=ro, can be read as of another time"),
        )
    })
}
