//! `litestream_status`, as JSON and as a table, and `litestream_databases`.

use std::time::Duration;

use rusqlite::Connection;
use rusqlite::types::Value;
use serde_json::json;

use super::database::{Database, Facts, all, find};
use super::object::objects;
use super::permission::permit;
use crate::error::Result;
use crate::failures::{self, Attempt, Failure};
use crate::sqlite::{Call, Row, Safety, Table};

/// `litestream_status()`: an object with the `databases` of the connection and the latest
/// `failures` of this process to open, read or write one.
pub(super) fn status(call: &Call<'_>) -> Result<Value> {
    let databases = objects(StatusTable::COLUMNS, find(call.connection()).iter().flat_map(database_rows));
    let failures = objects(StatusTable::COLUMNS, failures::recent().into_iter().rev().map(failure_row));
    let status = json!({ "databases": databases, "failures": failures });
    Ok(Value::Text(status.to_string()))
}

/// `litestream_status`: a row for each database of the connection and each of its replicas, then one for each of the latest
/// failures of this process, the latest first.
pub(super) struct StatusTable;

impl Table for StatusTable {
    const NAME: &'static str = "litestream_status";
    const COLUMNS: &'static [&'static str] = &[
        "schema TEXT",
        "path TEXT",
        "role TEXT",
        "url TEXT",
        "state TEXT",
        "txid TEXT",
        "time TEXT",
        "lag REAL",
        "waiting_files INTEGER",
        "waiting_bytes INTEGER",
        "fencing TEXT",
        "page_size INTEGER",
        "pages INTEGER",
        "cache_bytes INTEGER",
        "requests INTEGER",
        "files INTEGER",
        "sealed_files INTEGER",
        "sealed_since TEXT",
        "sealed_to TEXT",
        "verified_txid TEXT",
        "verified_at TEXT",
        "commits_waited INTEGER",
        "commit_wait_median REAL",
        "commit_wait_p99 REAL",
        "commits_per_upload REAL",
        "notice TEXT",
        "last_error TEXT",
    ];
    const ARGUMENTS: &'static [&'static str] = &[];
    const SAFETY: Safety = Safety::TrustedSchema;

    fn rows(conn: &Connection, _: &[Value]) -> Result<Vec<Row>> {
        let databases = find(conn);
        let failures = failures::recent().into_iter().rev().map(failure_row);
        Ok(databases.iter().flat_map(database_rows).chain(failures).collect())
    }
}

/// `litestream_databases`: a row for each database and replica that any connection of this process has open, for connections
/// that may reach a store by SQL.
pub(super) struct DatabasesTable;

impl Table for DatabasesTable {
    const NAME: &'static str = "litestream_databases";
    /// Those of `litestream_status` without `schema`, which is a connection's.
    const COLUMNS: &'static [&'static str] = StatusTable::COLUMNS.split_at(1).1;
    const ARGUMENTS: &'static [&'static str] = &[];
    const SAFETY: Safety = Safety::DirectOnly;

    fn rows(conn: &Connection, _: &[Value]) -> Result<Vec<Row>> {
        permit(conn)?;
        Ok(all().into_iter().map(|facts| row(None, facts).split_off(1)).collect())
    }
}

fn database_rows(database: &Database) -> Vec<Row> {
    database.facts().into_iter().map(|facts| row(Some(database.schema.clone()), facts)).collect()
}

fn failure_row(failure: Failure) -> Row {
    let state = match failure.attempt {
        Attempt::Open => "open refused",
        Attempt::Read => "read failed",
        Attempt::Write => "write failed",
        Attempt::Use => "use refused",
        Attempt::Confirm => "commit unconfirmed",
    };
    let facts = Facts {
        path: failure.path,
        state,
        time: Some(failure.at),
        last_error: Some(failure.message),
        ..Facts::default()
    };
    row(None, facts)
}

fn row(schema: Option<String>, facts: Facts) -> Row {
    let (waiting_files, waiting_bytes) = facts.waiting.unzip();
    let (verified_txid, verified_at) = facts.verified.unzip();
    let (files, sealed_files) = facts.files.unzip();
    let (sealed_since, sealed_to) = facts.sealed.unzip();
    vec![
        text(schema),
        text(facts.path.map(|p| p.display().to_string())),
        text(Some(facts.role)),
        text(Some(facts.url)),
        text(Some(facts.state)),
        text(facts.txid),
        text(facts.time),
        seconds(facts.lag),
        number(waiting_files),
        number(waiting_bytes),
        text(facts.fencing),
        number(facts.page_size),
        number(facts.pages),
        number(facts.cache_bytes),
        number(facts.requests),
        number(files),
        number(sealed_files),
        text(sealed_since),
        text(sealed_to),
        text(verified_txid),
        text(verified_at),
        number(facts.waits.map(|waits| waits.count)),
        seconds(facts.waits.map(|waits| waits.median)),
        seconds(facts.waits.map(|waits| waits.p99)),
        facts.commits_per_upload.map_or(Value::Null, Value::Real),
        text(facts.notice),
        text(facts.last_error),
    ]
}

/// Text that is not empty, or NULL.
fn text(value: Option<impl ToString>) -> Value {
    let value = value.map(|v| v.to_string()).filter(|v| !v.is_empty());
    value.map_or(Value::Null, Value::Text)
}

fn seconds(time: Option<Duration>) -> Value {
    time.map_or(Value::Null, |time| Value::Real(time.as_secs_f64()))
}

fn number(value: Option<impl TryInto<i64>>) -> Value {
    value.map_or(Value::Null, |n| Value::Integer(n.try_into().unwrap_or(i64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    #[test]
    fn a_failure_is_a_row_and_an_object() {
        let failure = Failure {
            attempt: Attempt::Open,
            path: Some("/data/app.db".into()),
            message: "no replica URL".to_owned(),
            at: Timestamp::from_millis(0),
        };
        let row = failure_row(failure);
        assert_eq!(row.len(), StatusTable::COLUMNS.len());
        assert_eq!(
            objects(StatusTable::COLUMNS, [row])[0],
            json!({
                "path": "/data/app.db",
                "state": "open refused",
                "time": "1970-01-01T00:00:00Z",
                "last_error": "no replica URL",
            })
        );
    }
}
