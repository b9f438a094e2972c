//! `litestream_config([name])`: which settings are in force for a database, and where each comes from.

use std::path::{Path, PathBuf};

use rusqlite::Connection;
use rusqlite::types::Value;

use super::permission::permit;
use crate::config::{self, InForce, ProcessEnv};
use crate::error::{Error, Result};
use crate::sqlite::{self, Row, Safety, Table};

/// A row for each setting of the databases of the connection, or of the database that is named as for an open, and for
/// what has no effect in the configuration file.
pub(super) struct ConfigTable;

impl Table for ConfigTable {
    const NAME: &'static str = "litestream_config";
    const COLUMNS: &'static [&'static str] =
        &["path TEXT", "replica TEXT", "setting TEXT", "value TEXT", "origin TEXT", "note TEXT"];
    const ARGUMENTS: &'static [&'static str] = &["name"];
    const SAFETY: Safety = Safety::DirectOnly;

    fn rows(conn: &Connection, arguments: &[Value]) -> Result<Vec<Row>> {
        match arguments {
            [Value::Null] => {
                let names = sqlite::opened_names(conn).into_iter();
                let rows = names.map(|name| in_force(&name.path, &name.parameters, name.is_read_only));
                Ok(rows.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
            }
            [Value::Text(name)] => {
                // It shows what is in a file, or that there is none.
                permit(conn)?;
                config::start_logging(&ProcessEnv);
                let (path, parameters) = (config::database_file(name)?, config::uri_parameters(name));
                let is_read_only = parameters.iter().any(|(key, value)| key == "mode" && value == "ro");
                in_force(&absolute(path)?, &parameters, is_read_only)
            }
            _ => Err(Error::config("the name of a database is text: a path, or a file: URI")),
        }
    }
}

fn absolute(path: PathBuf) -> Result<PathBuf> {
    std::path::absolute(&path).map_err(|e| Error::io(path.display(), e))
}

fn in_force(path: &Path, parameters: &Vec<(String, String)>, is_read_only: bool) -> Result<Vec<Row>> {
    let rows = config::in_force(Some(path), parameters, is_read_only, &ProcessEnv)?;
    Ok(rows.into_iter().map(|row| cells(path, row)).collect())
}

fn cells(path: &Path, row: InForce) -> Row {
    let text = |text: Option<String>| text.map_or(Value::Null, Value::Text);
    vec![
        Value::Text(path.display().to_string()),
        text(row.replica),
        Value::Text(row.setting),
        text(row.value),
        Value::Text(row.origin),
        text(row.note),
    ]
}
