//! `litestream_retention_plan(url [, options])`: which files of a replica stay, and which go.

use rusqlite::Connection;
use rusqlite::types::Value;

use super::ltx::{file_row, url_and_options};
use super::permission::permit;
use crate::clock::{Clock as _, SystemClock};
use crate::config::{self, ProcessEnv};
use crate::error::Result;
use crate::primary::{self, Fate, Planned};
use crate::runtime::wait_for;
use crate::sqlite::{self, Row, Safety, Table};

/// A row for each file, by level and transaction.
pub(super) struct RetentionTable;

impl Table for RetentionTable {
    const NAME: &'static str = "litestream_retention_plan";
    const COLUMNS: &'static [&'static str] = &[
        "level INTEGER",
        "min_txid TEXT",
        "max_txid TEXT",
        "size INTEGER",
        "stored TEXT",
        "name TEXT",
        "action TEXT",
        "reason TEXT",
    ];
    const ARGUMENTS: &'static [&'static str] = &["url", "options"];
    const SAFETY: Safety = Safety::DirectOnly;

    fn rows(conn: &Connection, arguments: &[Value]) -> Result<Vec<Row>> {
        permit(conn)?;
        let (url, options) = url_and_options(arguments, Self::NAME)?;
        config::start_logging(&ProcessEnv);
        let config = config::retention(url, options, &ProcessEnv)?;
        let store = config.target.connect();
        let planned = wait_for(|| sqlite::is_interrupted(conn), async move {
            primary::retention_plan(store, &config.history, SystemClock.now()).await
        })?;
        Ok(planned.iter().map(row).collect())
    }
}

fn row(planned: &Planned) -> Row {
    let (action, reason) = match &planned.fate {
        Fate::Keep(why) => ("keep", why),
        Fate::Delete(why) => ("delete", why),
    };
    let mut row = file_row(&planned.file);
    row.extend([Value::Text(action.to_owned()), Value::Text(reason.clone())]);
    row
}
