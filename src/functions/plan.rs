//! `litestream_restore_plan(url [, options])`: the files that a restore would take.

use rusqlite::Connection;
use rusqlite::types::Value;

use super::interruptible::wait_for;
use super::ltx::{file_row, url_and_options};
use crate::config::{self, ProcessEnv};
use crate::error::Result;
use crate::restore;
use crate::sqlite::{self, Row, Safety, Table};
use crate::store;

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
        let (url, options) = url_and_options(arguments, Self::NAME)?;
        config::start_logging(&ProcessEnv);
        let config = config::restore(url, options, &ProcessEnv)?;
        let store = store::connect(&config.target)?;
        let plan =
            wait_for(
                || sqlite::is_interrupted(conn),
                async move { restore::plan(store, config.point).await },
            )?;
        let steps = (1..).map(Value::Integer);
        Ok(steps.zip(plan.files()).map(|(step, file)| [vec![step], file_row(file)].concat()).collect())
    }
}
