//! `litestream_ltx(url [, options])`: the files of a replica.

use std::sync::Arc;

use rusqlite::Connection;
use rusqlite::types::Value;

use super::permission::permit;
use crate::config::{self, ProcessEnv};
use crate::error::{Error, Result};
use crate::ltx::{Level, Txid};
use crate::replica;
use crate::runtime::wait_for;
use crate::sqlite::{self, Columns, Row, Rows, Safety, Table};
use crate::store::{FileInfo, Location, Replica};

/// Files whose beginnings are read together, where a statement asks what those say.
const BATCH: usize = 64;
/// The column that says whether a file is sealed.
const SEALED: u32 = 6;

/// A row for each file, by level and transaction. Whether it is sealed is read from the file as rows are asked for, and
/// not at all if nobody asks for that.
pub(super) struct LtxTable;

impl Table for LtxTable {
    const NAME: &'static str = "litestream_ltx";
    const COLUMNS: &'static [&'static str] = &[
        "level INTEGER",
        "min_txid TEXT",
        "max_txid TEXT",
        "size INTEGER",
        "timestamp TEXT",
        "name TEXT",
        "sealed INTEGER",
    ];
    const ARGUMENTS: &'static [&'static str] = &["url", "options"];
    const SAFETY: Safety = Safety::DirectOnly;

    fn rows(conn: &Connection, arguments: &[Value]) -> Result<Vec<Row>> {
        all(&mut *Self::scan(conn, arguments, Columns::ALL)?, conn)
    }

    fn scan(conn: &Connection, arguments: &[Value], wanted: Columns) -> Result<Box<dyn Rows>> {
        permit(conn)?;
        let store = target(arguments, Self::NAME)?.connect();
        let interrupted = || sqlite::is_interrupted(conn);
        let files = list(store.clone(), &interrupted)?.into_iter();
        Ok(Box::new(Files { store, wants_seal: wanted.has(SEALED), files, batch: Vec::new().into_iter() }))
    }
}

/// All rows of a scan.
pub(super) fn all(scan: &mut dyn Rows, conn: &Connection) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    while let Some(row) = scan.next(conn)? {
        rows.push(row);
    }
    Ok(rows)
}

/// The files of the replica `store`, by level and transaction.
///
/// # Errors
/// Those of the store; `Interrupted`.
pub(super) fn list(store: Arc<Replica>, interrupted: &dyn Fn() -> bool) -> Result<Vec<FileInfo>> {
    let files = wait_for(interrupted, async move {
        let levels = Level::all().map(|level| {
            let store = &store;
            async move { store.list(level, Txid::ONE).await }
        });
        futures_util::future::try_join_all(levels).await
    })?;
    Ok(files.concat())
}

struct Files {
    store: Arc<Replica>,
    wants_seal: bool,
    /// Those that are still to be shown.
    files: std::vec::IntoIter<FileInfo>,
    batch: std::vec::IntoIter<Row>,
}

impl Rows for Files {
    fn next(&mut self, conn: &Connection) -> Result<Option<Row>> {
        if self.batch.len() == 0 {
            let files: Vec<FileInfo> = self.files.by_ref().take(BATCH).collect();
            let (store, asked) =
                (self.store.clone(), if self.wants_seal { files.clone() } else { Vec::new() });
            let sealed =
                wait_for(
                    || sqlite::is_interrupted(conn),
                    async move { replica::sealed(store, &asked).await },
                )?;
            let seals = sealed.into_iter().map(|is| is.map_or(Value::Null, |is| Value::Integer(is.into())));
            let seals = seals.chain(std::iter::repeat(Value::Null));
            let rows: Vec<Row> =
                files.iter().zip(seals).map(|(file, seal)| [file_row(file), vec![seal]].concat()).collect();
            self.batch = rows.into_iter();
        }
        Ok(Iterator::next(&mut self.batch))
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
