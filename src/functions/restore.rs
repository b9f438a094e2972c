//! `litestream_restore(url, path [, options])`.

use std::path::PathBuf;
use std::sync::atomic::Ordering;

use rusqlite::types::Value;
use serde_json::json;

use super::interruptible::run;
use crate::config::{self, ProcessEnv};
use crate::error::{Error, Result};
use crate::restore::{self, Cancel, Report};
use crate::sqlite::{self, Call};
use crate::store;

/// Writes the database file `path` from the replica at `url`, and answers with a JSON object.
///
/// # Errors
/// `Config` if an argument is missing or wrong; those of [`restore::restore`].
pub(super) fn restore(call: &Call<'_>) -> Result<Value> {
    let url: String = call.arg(0)?.ok_or_else(|| missing("replica URL"))?;
    let path: String = call.arg(1)?.ok_or_else(|| missing("path"))?;
    if path.is_empty() {
        return Err(missing("path"));
    }
    let options: Option<String> = call.arg(2)?;
    config::start_logging(&ProcessEnv);
    let config = config::restore(&url, options.as_deref(), &ProcessEnv)?;
    let store = store::connect(&config.target)?;
    let (point, force, parallelism) = (config.point, config.force, config.parallelism);
    let report = run(
        || sqlite::is_interrupted(call.connection()),
        move |stop| {
            let cancel = Cancel::when(move || stop.load(Ordering::Relaxed));
            let options = restore::Options { point, force, parallelism, cancel };
            restore::restore(store, &PathBuf::from(path), &options)
        },
    )?;
    Ok(Value::Text(answer(&report)))
}

/// The report as JSON; `duration` is in seconds.
fn answer(report: &Report) -> String {
    json!({
        "path": report.path.to_string_lossy(),
        "txid": report.txid.to_string(),
        "timestamp": report.timestamp.to_string(),
        "pages": report.pages.get(),
        "bytes": report.bytes,
        "files": report.files,
        "duration": report.duration.as_secs_f64(),
    })
    .to_string()
}

fn missing(what: &str) -> Error {
    Error::config(format!("there is no {what}; write litestream_restore('s3://bucket/path', 'copy.db')"))
}
