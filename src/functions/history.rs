//! `litestream_history(url [, options])`: the points that a replica can be restored to.

use std::sync::Arc;

use rusqlite::Connection;
use rusqlite::types::Value;

use super::ltx::{all, target};
use super::permission::permit;
use crate::error::Result;
use crate::replica::{self, HistoryPoint, Wanted};
use crate::runtime::wait_for;
use crate::sqlite::{self, Columns, Row, Rows, Safety, Table};
use crate::store::{FileInfo, Replica};

/// Points that are looked at together; a statement that wants fewer pays for no more.
const BATCH: usize = 64;

/// A row for each point, the latest first. Times and pages are read from the files as rows are asked
/// for, and not at all if nobody asks for them.
pub(super) struct HistoryTable;

impl Table for HistoryTable {
    const NAME: &'static str = "litestream_history";
    const COLUMNS: &'static [&'static str] =
        &["txid TEXT", "time TEXT", "pages INTEGER", "bytes INTEGER", "level INTEGER"];
    const ARGUMENTS: &'static [&'static str] = &["url", "options"];
    const SAFETY: Safety = Safety::DirectOnly;

    fn rows(conn: &Connection, arguments: &[Value]) -> Result<Vec<Row>> {
        all(&mut *Self::scan(conn, arguments, Columns::ALL)?, conn)
    }

    fn scan(conn: &Connection, arguments: &[Value], wanted: Columns) -> Result<Box<dyn Rows>> {
        permit(conn)?;
        let store = target(arguments, Self::NAME)?.connect();
        Ok(Box::new(Points::list(store, wanted, &|| sqlite::is_interrupted(conn))?))
    }
}

/// The points of a replica.
pub(super) struct Points {
    store: Arc<Replica>,
    wanted: Wanted,
    /// Those that were not yet looked at, the latest last.
    files: Vec<FileInfo>,
    batch: std::vec::IntoIter<HistoryPoint>,
}

impl Points {
    /// Lists them.
    ///
    /// # Errors
    /// Those of the store; `Interrupted`.
    pub(super) fn list(
        store: Arc<Replica>,
        columns: Columns,
        interrupted: &dyn Fn() -> bool,
    ) -> Result<Self> {
        let listed = store.clone();
        let mut files = wait_for(interrupted, async move { replica::points(listed).await })?;
        files.reverse();
        let wanted = Wanted { time: columns.has(1), pages: columns.has(2) };
        Ok(Self { store, wanted, files, batch: Vec::new().into_iter() })
    }

    /// How many were not yet shown.
    pub(super) fn left(&self) -> usize {
        self.files.len() + self.batch.len()
    }

    /// The next one, the latest first.
    ///
    /// # Errors
    /// Those of the store; `Interrupted`.
    pub(super) fn next_row(&mut self, interrupted: &dyn Fn() -> bool) -> Result<Option<Row>> {
        while self.batch.len() == 0 && !self.files.is_empty() {
            let mut files = self.files.split_off(self.files.len().saturating_sub(BATCH));
            files.reverse();
            let (store, wanted) = (self.store.clone(), self.wanted);
            let batch = wait_for(interrupted, async move { replica::describe(store, &files, wanted).await })?;
            self.batch = batch.into_iter();
        }
        Ok(self.batch.next().map(|point| row(&point)))
    }
}

impl Rows for Points {
    fn next(&mut self, conn: &Connection) -> Result<Option<Row>> {
        self.next_row(&|| sqlite::is_interrupted(conn))
    }
}

fn row(point: &HistoryPoint) -> Row {
    let file = &point.file;
    let number = |n: u64| Value::Integer(i64::try_from(n).unwrap_or(i64::MAX));
    vec![
        Value::Text(file.id.name.max().to_string()),
        point.time.map_or(Value::Null, |time| Value::Text(time.to_string())),
        point.pages.map_or(Value::Null, number),
        number(file.size),
        Value::Integer(file.id.level.get().into()),
    ]
}
