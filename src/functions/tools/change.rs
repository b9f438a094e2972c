//! What writes: a restore, and the local state forgotten.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use super::known;
use super::replica::{restore_config, target};
use crate::config::RestoreConfig;
use crate::error::{Error, ErrorKind, Result};
use crate::files;
use crate::fork::PerProcess;
use crate::functions::{reset as forgetting, restore as restoring};
use crate::mcp::{Arguments, Output};
use crate::monitor::Caller;

/// `litestream_restore`: never over a file that is there.
pub(super) fn restore(caller: &Caller<'_>, arguments: &Arguments) -> Result<Output> {
    let target = target(arguments)?;
    let path = target.output(arguments.text("o"))?;
    known::check_output(&target, &path)?;
    let _alone = Alone::take()?;
    let config = restore_config(&target, arguments)?;
    // A link that leads nowhere is there too: what it leads to is in no folder of ours.
    let is_left = config.if_db_not_exists && path.exists();
    if !is_left && path.symlink_metadata().is_ok() {
        let message = format!(
            "{} is there already, and tools replace no file: name another one as 'o'",
            path.display()
        );
        return Err(Error::new(ErrorKind::AlreadyExists, message));
    }
    leave_space(caller, &config, &path)?;
    restoring::write(config, path, caller.is_stopped).map(Output::of)
}

/// The one restore that tools have under way: several would each count on the same space.
struct Alone;

static IS_RESTORING: PerProcess<AtomicBool> = PerProcess::new();

impl Alone {
    /// Begins it.
    ///
    /// # Errors
    /// `Busy`: another one is under way.
    fn take() -> Result<Self> {
        if IS_RESTORING.get().swap(true, Ordering::SeqCst) {
            let message = "a restore by a tool is under way in this process: try again when it has ended";
            return Err(Error::new(ErrorKind::Busy, message));
        }
        Ok(Self)
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        IS_RESTORING.get().store(false, Ordering::SeqCst);
    }
}

/// Makes sure that the disk has `disk_reserve` left after a restore: databases that are written there need it.
fn leave_space(caller: &Caller<'_>, config: &RestoreConfig, path: &Path) -> Result<()> {
    if path.exists() {
        return Ok(());
    }
    let asked = RestoreConfig { dry_run: true, ..config.clone() };
    let forecast = restoring::write(asked, path.to_path_buf(), caller.is_stopped)?;
    let bytes = forecast.get("bytes").and_then(Value::as_u64).unwrap_or_default();
    let reserve = (caller.overview)().disk_reserve;
    match files::free_space(path) {
        Some(free) if free < bytes.saturating_add(reserve) => Err(Error::new(
            ErrorKind::NoSpace,
            format!(
                "the database has {bytes} bytes, {} has {free} left, and disk_reserve is {reserve}: make room first",
                path.parent().unwrap_or(path).display()
            ),
        )),
        _ => Ok(()),
    }
}

/// `litestream_reset`
pub(super) fn reset(_: &Caller<'_>, arguments: &Arguments) -> Result<Output> {
    let name = arguments.text("path").unwrap_or_default();
    let all = known::all()?;
    let database = known::database(&all, name).and_then(|known| known.path.as_ref());
    forgetting::forget(database.ok_or_else(|| known::unknown(name, &all))?).map(Output::of)
}
