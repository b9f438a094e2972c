//! `litestream_default_vfs(on)` and `litestream_configure(path, settings)`: for programs that pass no URI.

use rusqlite::types::Value;

use super::permission::permit;
use crate::config;
use crate::error::{Error, Result};
use crate::sqlite::{self, Call};

/// Makes the library the default VFS of the process, or what was the default before. Returns the argument.
pub(super) fn default_vfs(call: &Call<'_>) -> Result<Value> {
    permit(call.connection())?;
    let on = call.arg::<bool>(0).ok().flatten();
    let remedy = "write litestream_default_vfs(1), or 0 for the VFS that was the default before";
    let on = on.ok_or_else(|| Error::config(remedy))?;
    sqlite::set_default_vfs(on)?;
    Ok(Value::Integer(on.into()))
}

/// Gives a database its entry, or takes it away with `NULL`. Returns the path of the database.
pub(super) fn configure(call: &Call<'_>) -> Result<Value> {
    permit(call.connection())?;
    let name: String =
        call.arg(0)?.ok_or_else(|| Error::config("the first argument is the path of a database"))?;
    let path = config::database_file(&name)?;
    let path = std::path::absolute(&path).map_err(|e| Error::io(path.display(), e))?;
    match call.arg::<String>(1)? {
        Some(settings) => config::configure(&path, &settings)?,
        None => config::forget(&path),
    }
    Ok(Value::Text(path.display().to_string()))
}
