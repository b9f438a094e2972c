//! `litestream_restores`: how far restores are.

use rusqlite::Connection;
use rusqlite::types::Value;

use super::permission::permit;
use crate::error::Result;
use crate::restore::{self, Standing};
use crate::sqlite::{Row, Safety, Table};

/// A row for each restore of this process that is under way, and for the last ones that ended; the
/// latest first. For connections that may reach a store by SQL.
pub(super) struct RestoresTable;

impl Table for RestoresTable {
    const NAME: &'static str = "litestream_restores";
    const COLUMNS: &'static [&'static str] = &[
        "path TEXT",
        "url TEXT",
        "state TEXT",
        "txid TEXT",
        "files INTEGER",
        "files_done INTEGER",
        "bytes INTEGER",
        "bytes_done INTEGER",
        "started TEXT",
        "seconds REAL",
        "error TEXT",
    ];
    const ARGUMENTS: &'static [&'static str] = &[];
    const SAFETY: Safety = Safety::DirectOnly;

    fn rows(conn: &Connection, _: &[Value]) -> Result<Vec<Row>> {
        permit(conn)?;
        Ok(restore::restores().into_iter().map(row).collect())
    }
}

/// The row of one.
pub(super) fn row(restore: Standing) -> Row {
    let number = |n: u64| Value::Integer(i64::try_from(n).unwrap_or(i64::MAX));
    let text = |text: Option<String>| text.map_or(Value::Null, Value::Text);
    vec![
        Value::Text(restore.path.display().to_string()),
        Value::Text(restore.url),
        Value::Text(restore.phase.name().to_owned()),
        text(restore.txid.map(|txid| txid.to_string())),
        number(restore.files.0),
        number(restore.files.1),
        number(restore.bytes.0),
        number(restore.bytes.1),
        Value::Text(restore.started.to_string()),
        Value::Real(restore.took.as_secs_f64()),
        text(restore.error),
    ]
}
