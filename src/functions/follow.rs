//! `litestream_follow(url, path [, options])` and `litestream_unfollow(path)`.

use rusqlite::types::Value;
use serde_json::json;

use super::permission::permit;
use crate::config::{self, ProcessEnv};
use crate::error::{Error, Result};
use crate::follow::{self, Options, Standing};
use crate::replica::Bandwidth;
use crate::runtime::run;
use crate::sqlite::{self, Call};

/// Has the database file `path` follow the replica at `url`, and answers with a JSON object. Makes the file if it is not
/// there.
///
/// # Errors
/// `Config` if an argument is missing or wrong; those of [`follow::follow`].
pub(super) fn follow(call: &Call<'_>) -> Result<Value> {
    permit(call.connection())?;
    let missing = |what| {
        Error::config(format!("there is no {what}; write litestream_follow('s3://bucket/path', 'copy.db')"))
    };
    let url: String = call.arg(0)?.ok_or_else(|| missing("replica URL"))?;
    let path = path(call, 1)?.ok_or_else(|| missing("path"))?;
    let options: Option<String> = call.arg(2)?;
    config::start_logging(&ProcessEnv);
    let config = config::follow(&url, options.as_deref(), &ProcessEnv)?;
    let options = Options {
        target: config.target,
        path: config::database_file(&path)?,
        interval: config.interval,
        bandwidth: config.bandwidth.map(Bandwidth::new),
    };
    let interrupted = || sqlite::is_interrupted(call.connection());
    run(interrupted, move |stopped| follow::follow(options, stopped)).map(|standing| answer(&standing, true))
}

/// Ends that the copy `path` follows, and answers with a JSON object.
///
/// # Errors
/// `Config` if the path is missing; those of [`follow::unfollow`].
pub(super) fn unfollow(call: &Call<'_>) -> Result<Value> {
    permit(call.connection())?;
    let path = path(call, 0)?.ok_or_else(|| Error::config("litestream_unfollow(path): there is no path"))?;
    let path = config::database_file(&path)?;
    let interrupted = || sqlite::is_interrupted(call.connection());
    run(interrupted, move |_| follow::unfollow(&path)).map(|standing| answer(&standing, false))
}

fn path(call: &Call<'_>, index: usize) -> Result<Option<String>> {
    Ok(call.arg::<String>(index)?.filter(|path| !path.is_empty()))
}

fn answer(standing: &Standing, follows: bool) -> Value {
    let answer = json!({
        "following": follows,
        "restored": standing.is_new,
        "path": standing.path.to_string_lossy(),
        "replica": standing.url,
        "txid": standing.txid.to_string(),
        "timestamp": standing.time.to_string(),
        "pages": standing.pages.get(),
    });
    Value::Text(answer.to_string())
}
