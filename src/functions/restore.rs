//! `litestream_restore(url, path [, options])`.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::types::Value;
use serde_json::json;

use super::permission::permit;
use crate::config::{self, IntegrityCheck, ProcessEnv, RestoreConfig};
use crate::error::{Error, ErrorKind, Result};
use crate::primary::{self, Restored};
use crate::restore::{self, Cancel, Check, Exclusion, Forecast, Line, Progress, Report, RestorePoint};
use crate::runtime;
use crate::runtime::run;
use crate::sqlite::{self, Call, Integrity};
use crate::store::Replica;

/// Writes the database file `path` from the replica at `url`, and answers with a JSON object.
///
/// # Errors
/// `Config` if an argument is missing or wrong; those of [`restore::restore`].
pub(super) fn restore(call: &Call<'_>) -> Result<Value> {
    permit(call.connection())?;
    let url: String = call.arg(0)?.ok_or_else(|| missing("replica URL"))?;
    let path: String =
        call.arg(1)?.filter(|path: &String| !path.is_empty()).ok_or_else(|| missing("path"))?;
    let options: Option<String> = call.arg(2)?;
    config::start_logging(&ProcessEnv);
    let config = config::restore(&url, options.as_deref(), &ProcessEnv)?;
    let path = config::database_file(&path)?;
    let answer = write(config, path, &|| sqlite::is_interrupted(call.connection()))?;
    Ok(Value::Text(answer.to_string()))
}

/// Writes the database file `path`, unless that is `interrupted`.
///
/// # Errors
/// Those of [`restore::restore`].
pub(super) fn write(
    config: RestoreConfig,
    path: PathBuf,
    interrupted: &dyn Fn() -> bool,
) -> Result<serde_json::Value> {
    let store = config.target.connect();
    if config.if_db_not_exists && path.exists() {
        return Ok(left_alone(&path, "the file exists"));
    }
    let progress = (!config.dry_run).then(|| Progress::begin(store.url(), &path));
    let line = RefCell::new(Line::new());
    let interrupted = || {
        if let Some(progress) = &progress {
            line.borrow_mut().update(|| progress.standing());
        }
        interrupted()
    };
    let shown = progress.clone();
    run(interrupted, move |stop| work(&store, &path, &config, shown, &stop))
}

/// Does it, on a thread that may block.
fn work(
    store: &Arc<Replica>,
    path: &Path,
    config: &RestoreConfig,
    progress: Option<Arc<Progress>>,
    stop: &Arc<AtomicBool>,
) -> Result<serde_json::Value> {
    let stopped = {
        let stop = stop.clone();
        move || stop.load(Ordering::Relaxed)
    };
    let options = restore::Options {
        point: config.point,
        force: config.force.then(exclusion),
        parallelism: config.parallelism,
        check: check(config.integrity_check, stopped.clone()),
        cancel: Cancel::when(stopped),
        bandwidth: None,
        progress,
    };
    let outcome = if config.dry_run {
        restore::dry_run(store.clone(), path, &options).map(|forecast| foretold(path, &forecast))
    } else {
        restore::restore(store.clone(), path, &options).and_then(|report| {
            mark(&report, config, &store.url())?;
            Ok(restored(&report))
        })
    };
    match outcome {
        // Somebody else was faster.
        Err(e) if e.kind() == ErrorKind::AlreadyExists && config.if_db_not_exists && path.exists() => {
            Ok(left_alone(path, "the file exists"))
        }
        Err(e) if e.kind() == ErrorKind::NotFound && config.if_replica_exists => {
            let store = store.clone();
            match runtime::block_on(async move { restore::is_empty(store).await }) {
                Ok(true) => Ok(left_alone(path, "the replica is empty")),
                _ => Err(e),
            }
        }
        outcome => outcome,
    }
}

/// What keeps other programs from a file that is replaced.
fn exclusion() -> Exclusion {
    Exclusion::by(|path| Ok(Box::new(sqlite::sole_use(path)?)))
}

/// Marks the file, so that a primary that opens it knows which state it is.
///
/// # Errors
/// `Io`, `NoSpace`, `Busy` if the decision to rewind could not be noted.
fn mark(report: &Report, config: &RestoreConfig, url: &str) -> Result<()> {
    let Some(txid) = report.txid else { return Ok(()) };
    let restored = match config.point {
        RestorePoint::Latest => Restored::Newest,
        _ if config.rewind => Restored::Present,
        _ => Restored::Earlier,
    };
    match primary::mark(&report.path, (&config.target, url), txid, report.lineage, report.pages, restored) {
        Err(e) if config.rewind => {
            let what = format!("{} was restored, but \"rewind\" could not be noted", report.path.display());
            Err(e.context(what))
        }
        Err(e) => {
            tracing::warn!(
                "{}: which state it was restored to could not be noted: {e}",
                report.path.display()
            );
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

/// SQLite's check of the restored file.
fn check(check: IntegrityCheck, stop: impl Fn() -> bool + Send + Sync + 'static) -> Option<Check> {
    let integrity = match check {
        IntegrityCheck::None => return None,
        IntegrityCheck::Quick => Integrity::Quick,
        IntegrityCheck::Full => Integrity::Full,
    };
    Some(Check::that(move |path| sqlite::check_integrity(path, integrity, &stop)))
}

/// The report as JSON; `duration` is in seconds.
fn restored(report: &Report) -> serde_json::Value {
    json!({
        "restored": true,
        "path": report.path.to_string_lossy(),
        "txid": report.txid.map(|txid| txid.to_string()),
        "generation": report.generation,
        "timestamp": report.timestamp.to_string(),
        "pages": report.pages.get(),
        "bytes": report.bytes,
        "files": report.files,
        "sealed": report.sealed,
        "left_out": report.left_out.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "duration": report.duration.as_secs_f64(),
    })
}

/// What would be restored; `download` is in bytes.
fn foretold(path: &Path, forecast: &Forecast) -> serde_json::Value {
    json!({
        "restored": false,
        "dry_run": true,
        "path": path.to_string_lossy(),
        "txid": forecast.txid.map(|txid| txid.to_string()),
        "generation": forecast.generation,
        "timestamp": forecast.timestamp.to_string(),
        "pages": forecast.pages.map(|pages| pages.get()),
        "bytes": forecast.bytes,
        "files": forecast.files,
        "download": forecast.download,
    })
}

/// Why nothing was done.
fn left_alone(path: &Path, reason: &str) -> serde_json::Value {
    json!({ "restored": false, "path": path.to_string_lossy(), "reason": reason })
}

fn missing(what: &str) -> Error {
    Error::config(format!("there is no {what}; write litestream_restore('s3://bucket/path', 'copy.db')"))
}
