//! Rows of a table as JSON.

use rusqlite::types::Value;
use serde_json::{Map, json};

use crate::sqlite::Row;

/// Rows as objects, with the names that a table has for its columns, without what is NULL.
pub(super) fn objects(columns: &[&str], rows: impl IntoIterator<Item = Row>) -> Vec<serde_json::Value> {
    rows.into_iter().map(|row| object(columns, row)).collect()
}

fn object(columns: &[&str], row: Row) -> serde_json::Value {
    let names = columns.iter().map(|column| column.split(' ').next().unwrap_or(column));
    let members = names.zip(row).filter_map(|(name, value)| {
        let value = match value {
            Value::Null | Value::Blob(_) => return None,
            Value::Integer(n) => json!(n),
            Value::Real(x) => json!(x),
            Value::Text(text) => json!(text),
        };
        Some((name.to_owned(), value))
    });
    serde_json::Value::Object(members.collect::<Map<_, _>>())
}
