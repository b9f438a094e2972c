//! `litestream_configured`: the databases of the configuration file.

use std::path::Path;

use rusqlite::Connection;
use rusqlite::types::Value;

use super::permission::permit;
use crate::config::{self, ConfiguredDatabase, ProcessEnv};
use crate::error::Result;
use crate::primary;
use crate::sqlite::{Row, Safety, Table};
use crate::store::Location;

/// A row for each database of the configuration file and each of its replicas. No store is asked.
pub(super) struct ConfiguredTable;

impl Table for ConfiguredTable {
    const NAME: &'static str = "litestream_configured";
    const COLUMNS: &'static [&'static str] =
        &["path TEXT", "url TEXT", "type TEXT", "state TEXT", "txid TEXT", "wal_bytes INTEGER"];
    const ARGUMENTS: &'static [&'static str] = &[];
    const SAFETY: Safety = Safety::DirectOnly;

    fn rows(conn: &Connection, _: &[Value]) -> Result<Vec<Row>> {
        // It shows what is in a file, and which files there are.
        permit(conn)?;
        config::start_logging(&ProcessEnv);
        Ok(config::databases(&ProcessEnv)?.iter().flat_map(rows).collect())
    }
}

/// The rows of a database.
pub(super) fn rows(database: &ConfiguredDatabase) -> Vec<Row> {
    database.replicas.iter().map(|replica| row(database, &replica.target)).collect()
}

/// Path, URL and kind of the replica, and how far the database was published there, as Litestream's `status` says it.
fn row(database: &ConfiguredDatabase, replica: &Location) -> Row {
    let txid = primary::last_published(&database.state_folder, replica);
    let state = match (database.path.exists(), txid) {
        (false, _) => "no database",
        (true, None) => "not initialized",
        (true, Some(_)) => "ok",
    };
    vec![
        Value::Text(database.path.display().to_string()),
        Value::Text(replica.to_string()),
        Value::Text(replica.kind().to_owned()),
        Value::Text(state.to_owned()),
        txid.map_or(Value::Null, |txid| Value::Text(txid.to_string())),
        wal_bytes(&database.path).map_or(Value::Null, Value::Integer),
    ]
}

fn wal_bytes(database: &Path) -> Option<i64> {
    let mut wal = database.as_os_str().to_owned();
    wal.push("-wal");
    i64::try_from(std::fs::metadata(wal).ok()?.len()).ok()
}
