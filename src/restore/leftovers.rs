//! The temporary files of restores: locked as long as a restore writes them, so that those of processes that were killed are
//! told from them, and removed by the next restore into their folder.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::output::unpredictable;
use crate::error::{Error, Result};

/// How the names begin.
const PREFIX: &str = ".litestream-restore-";
/// The permissions of a file that is not complete: it is nobody else's.
const PRIVATE: u32 = 0o600;
/// What was written to later than this is left alone: version 0.1.0 locked nothing.
const YOUNG: Duration = Duration::from_secs(60);

/// A name in `folder` that no other file has.
///
/// # Errors
/// `Io`: the system has no random numbers.
pub(super) fn new_name(folder: &Path) -> Result<PathBuf> {
    Ok(folder.join(format!("{PREFIX}{}", unpredictable()?)))
}

/// A new file in `folder`, which counts as written until it is closed.
///
/// # Errors
/// Those of the folder.
pub(super) fn create(folder: &Path) -> Result<(PathBuf, File)> {
    let path = new_name(folder)?;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(PRIVATE)
        .open(&path)
        .map_err(|e| Error::io(format!("cannot create a file in {}", folder.display()), e))?;
    // Where there are no locks, nobody removes it.
    let _ = file.try_lock();
    Ok((path, file))
}

/// Removes what restores left in `folder` whose processes were killed, as far as this one may.
pub(super) fn remove(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let is_ours = entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes());
        if is_ours && is_left(&entry.path()).unwrap_or(false) {
            tracing::info!("{} is removed: a restore that was killed left it", entry.path().display());
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn is_left(path: &Path) -> io::Result<bool> {
    let meta = fs::symlink_metadata(path)?;
    let is_old = meta.modified()?.elapsed().is_ok_and(|age| age > YOUNG);
    Ok(meta.is_file() && is_old && File::open(path)?.try_lock().is_ok())
}
