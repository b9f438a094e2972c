//! `litestream_ltx(url [, options])`: the files of a replica.

use rusqlite::Connection;
use rusqlite::types::Value;

use super::interruptible::wait_for;
use crate::config::{self, ProcessEnv};
use crate::error::{Error, Result};
use crate::ltx::{Level, Txid};
use crate::sqlite::{self, Row, Safety, Table};
use crate::store::{self, FileInfo};

/// A row for each file, by level and transaction.
pub(super) struct LtxTable;

impl Table for LtxTable {
    const NAME: &'static str = "litestream_ltx";
    const COLUMNS: &'static [&'static str] =
        &["level INTEGER", "min_txid TEXT", "max_txid TEXT", "size INTEGER", "timestamp TEXT", "name TEXT"];
    const ARGUMENTS: &'static [&'static str] = &["url", "options"];
    const SAFETY: Safety = Safety::DirectOnly;

    fn rows(conn: &Connection, arguments: &[Value]) -> Result<Vec<Row>> {
        let [url, options] = arguments else { unreachable!("BUG: not as many arguments as were declared") };
        let url = text(url, "url")?.ok_or_else(|| {
            Error::config("give it a replica URL, such as litestream_ltx('s3://bucket/path')")
        })?;
        config::start_logging(&ProcessEnv);
        let target = config::target(url, text(options, "options")?, &ProcessEnv)?;
        let store = store::connect(&target)?;
        let files = wait_for(|| sqlite::is_interrupted(conn), async move {
            let levels = Level::all().map(|level| {
                let store = &store;
                async move { store.list(level, Txid::ONE).await }
            });
            futures_util::future::try_join_all(levels).await
        })?;
        Ok(files.iter().flatten().map(row).collect())
    }
}

pub(super) fn text<'a>(value: &'a Value, name: &str) -> Result<Option<&'a str>> {
    match value {
        Value::Null => Ok(None),
        Value::Text(text) => Ok(Some(text)),
        _ => Err(Error::config(format!("{name} is not text"))),
    }
}

fn row(file: &FileInfo) -> Row {
    let name = file.id.name;
    vec![
        Value::Integer(file.id.level.get().into()),
        Value::Text(name.min().to_string()),
        Value::Text(name.max().to_string()),
        Value::Integer(i64::try_from(file.size).unwrap_or(i64::MAX)),
        Value::Text(file.timestamp.to_string()),
        Value::Text(name.to_string()),
    ]
}
