//! `litestream_restore_plan(url [, options])`: the files that a restore would take.

use std::sync::Arc;

use rusqlite::Connection;
use rusqlite::types::Value;

use super::ltx::{file_row, url_and_options};
use super::permission::permit;
use crate::config::{self, ProcessEnv};
use crate::error::Result;
use crate::restore::{self, RestorePoint, Steps};
use crate::runtime::wait_for;
use crate::sqlite::{self, Row, Safety, Table};
use crate::store::{RawInfo, Replica};

/// A row for each file, in the order in which they are applied.
pub(super) struct PlanTable;

impl Table for PlanTable {
    const NAME: &'static str = "litestream_restore_plan";
    const COLUMNS: &'static [&'static str] = &[
        "step INTEGER",
        "level INTEGER",
        "min_txid TEXT",
        "max_txid TEXT",
        "size INTEGER",
        "timestamp TEXT",
        "name TEXT",
    ];
    const ARGUMENTS: &'static [&'static str] = &["url", "options"];
    const SAFETY: Safety = Safety::DirectOnly;

    fn rows(conn: &Connection, arguments: &[Value]) -> Result<Vec<Row>> {
        permit(conn)?;
        let (url, options) = url_and_options(arguments, Self::NAME)?;
        config::start_logging(&ProcessEnv);
        let config = config::restore(url, options, &ProcessEnv)?;
        steps(config.target.connect(), config.point, &|| sqlite::is_interrupted(conn))
    }
}

/// The rows for `point` of the replica `store`.
///
/// # Errors
/// Those of [`restore::plan`]; `Interrupted`.
pub(super) fn steps(
    store: Arc<Replica>,
    point: RestorePoint,
    interrupted: &dyn Fn() -> bool,
) -> Result<Vec<Row>> {
    let steps = wait_for(interrupted, async move { restore::plan(store, point).await })?;
    let rows: Vec<Row> = match &steps {
        Steps::Ltx(plan) => plan.files().iter().map(file_row).collect(),
        Steps::Old(objects) => objects.iter().map(object_row).collect(),
    };
    Ok((1..).map(Value::Integer).zip(rows).map(|(step, row)| [vec![step], row].concat()).collect())
}

/// An object of Litestream 0.3, which knows no levels and no TXIDs.
fn object_row(object: &RawInfo) -> Row {
    vec![
        Value::Null,
        Value::Null,
        Value::Null,
        Value::Integer(i64::try_from(object.size).unwrap_or(i64::MAX)),
        Value::Text(object.timestamp.to_string()),
        Value::Text(object.path.clone()),
    ]
}
