//! `litestream_metrics`: what this process counts.

use rusqlite::types::Value;

use super::permission::permit;
use crate::error::Result;
use crate::monitor;
use crate::sqlite::Call;

/// `litestream_metrics()`: the metrics of all databases of this process, as text that Prometheus reads, for connections
/// that may reach a store by SQL.
pub(super) fn metrics(call: &Call<'_>) -> Result<Value> {
    permit(call.connection())?;
    Ok(Value::Text(monitor::metrics()))
}
