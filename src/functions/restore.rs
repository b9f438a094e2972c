//! `litestream_restore(url, path [, options])`.

use std::path::PathBuf;
use std::sync::atomic::Ordering;

use rusqlite::types::Value;
use serde_json::json;

use super::interruptible::run;
use crate::config::{self, Age, ProcessEnv};
use crate::error::{Error, Result};
use crate::restore::{self, Cancel, Identities, Report};
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
    let identities = identities(&config.age)?;
    let report = run(
        || sqlite::is_interrupted(call.connection()),
        move |stop| {
            let cancel = Cancel::when(move || stop.load(Ordering::Relaxed));
            let options = restore::Options { point, force, parallelism, identities, cancel };
            restore::restore(store, &PathBuf::from(path), &options)
        },
    )?;
    Ok(Value::Text(answer(&report)))
}

/// What opens an encrypted replica. The text of the identities is not repeated in errors.
fn identities(age: &Age) -> Result<Identities> {
    match age {
        Age::None => Ok(Identities::default()),
        Age::Identities(text) => Identities::parse(text.reveal()).map_err(|e| e.context("age_identity")),
        Age::File(path) => {
            let text = std::fs::read_to_string(path)
                .map_err(|e| Error::io(format!("age_identity_file: cannot read {}", path.display()), e))?;
            Identities::parse(&text).map_err(|e| e.context(format!("age_identity_file {}", path.display())))
        }
    }
}

/// The report as JSON; `duration` is in seconds.
fn answer(report: &Report) -> String {
    json!({
        "path": report.path.to_string_lossy(),
        "txid": report.txid.map(|txid| txid.to_string()),
        "generation": report.generation,
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
