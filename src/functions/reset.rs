//! `litestream_reset(path)`.

use std::path::Path;

use rusqlite::types::Value;
use serde_json::json;

use super::permission::permit;
use crate::config::{self, ProcessEnv};
use crate::error::{Error, Result};
use crate::files;
use crate::primary::Primary;
use crate::sqlite::Call;

/// Forgets the local state of a database that nobody has open, named by its path or a `file:` URI: the next open compares
/// it with its replicas. Answers with a JSON object: `path`, and `waiting_files` that were not sent.
///
/// # Errors
/// `Denied` where SQL may not write files; `Busy` if a program has the database open; `Io` and the like on the folder.
pub(super) fn reset(call: &Call<'_>) -> Result<Value> {
    permit(call.connection())?;
    let name =
        call.arg::<String>(0)?.ok_or_else(|| Error::config("litestream_reset(path): the path is NULL"))?;
    forget(&config::database_file(&name)?).map(|answer| Value::Text(answer.to_string()))
}

/// Does it to the database file `path`.
///
/// # Errors
/// As [`reset`].
pub(super) fn forget(path: &Path) -> Result<serde_json::Value> {
    let path = files::resolved(path);
    place(&path);
    let waiting = Primary::reset(&path)?;
    Ok(json!({ "path": path.display().to_string(), "waiting_files": waiting }))
}

/// Has the state be looked for where the configuration file puts it, unless an open has.
fn place(path: &Path) {
    let Ok(databases) = config::databases(&ProcessEnv) else { return };
    let configured = databases.into_iter().find(|database| files::resolved(&database.path) == path);
    if let Some(database) = configured
        && Primary::find(path).is_none()
        && database.state_folder != files::state_folder(path)
    {
        files::place_state(path, Some(&database.state_folder));
    }
}
