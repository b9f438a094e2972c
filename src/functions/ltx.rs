//! `litestream_ltx(url [, options])`: the files of a replica.

use rusqlite::Connection;
use rusqlite::types::Value;

use super::permission::permit;
use crate::config::{self, ProcessEnv};
use crate::error::{Error, Result};
use crate::ltx::{Level, Txid};
use crate::runtime::wait_for;
use crate::sqlite::{self, Row, Safety, Table};
use crate::store::{FileInfo, Location};

/// A row for each file, by level and transaction.
pub(super) struct LtxTable;

impl Table for LtxTable {
    const NAME: &'static str = "litestream_ltx";
    const COLUMNS: &'static [&'static str] =
        &["level INTEGER", "min_txid TEXT", "max_txid TEXT", "size INTEGER", "timestamp TEXT", "name TEXT"];
    const ARGUMENTS: &'static [&'static str] = &["url", "options"];
    const SAFETY: Safety = Safety::DirectOnly;

    fn rows(conn: &Connection, arguments: &[Value]) -> Result<Vec<Row>> {
        permit(conn)?;
        let store = target(arguments, Self::NAME)?.connect();
        let files = wait_for(|| sqlite::is_interrupted(conn), async move {
            let levels = Level::all().map(|level| {
                let store = &store;
                async move { store.list(level, Txid::ONE).await }
            });
            futures_util::future::try_join_all(levels).await
        })?;
        Ok(files.iter().flatten().map(file_row).collect())
    }
}

/// The replica that the arguments `url` and `options` of `function` name.
pub(super) fn target(arguments: &[Value], function: &str) -> Result<Location> {
    let (url, options) = url_and_options(arguments, function)?;
    config::start_logging(&ProcessEnv);
    config::target(url, options, &ProcessEnv)
}

/// The arguments `url` and `options` of `function`.
pub(super) fn url_and_options<'a>(
    arguments: &'a [Value],
    function: &str,
) -> Result<(&'a str, Option<&'a str>)> {
    let [url, options] = arguments else { unreachable!("BUG: not as many arguments as were declared") };
    let url = text(url, "url")?.ok_or_else(|| {
        Error::config(format!("give it a replica URL, such as {function}('s3://bucket/path')"))
    })?;
    Ok((url, text(options, "options")?))
}

fn text<'a>(value: &'a Value, name: &str) -> Result<Option<&'a str>> {
    match value {
        Value::Null => Ok(None),
        Value::Text(text) => Ok(Some(text)),
        _ => Err(Error::config(format!("{name} is not text"))),
    }
}

/// Level, first and last transaction, size, timestamp and name.
pub(super) fn file_row(file: &FileInfo) -> Row {
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
