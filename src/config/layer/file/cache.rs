//! A configuration file is read once in a process, and again at the next open when it changed.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::super::Env;
use super::{Document, read_file};
use crate::error::{Error, Result};
use crate::fork::PerProcess;

/// What tells one version of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Version {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Documents by path, each with the version of its file.
type Documents = HashMap<PathBuf, (Version, Arc<Document>)>;

/// The documents of this process.
static READ: PerProcess<Mutex<Documents>> = PerProcess::new();

/// The configuration file at `path`, absolute.
///
/// # Errors
/// `NotFound` if it is not there; others of the file system; `Config` with file and line.
pub(in crate::config) fn document(path: &Path, env: &dyn Env) -> Result<Arc<Document>> {
    let version = version(path)?;
    let mut read = READ.get().lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, document)) = read.get(path).filter(|(known, _)| *known == version) {
        return Ok(Arc::clone(document));
    }
    let document = Arc::new(read_file(path, env)?);
    read.insert(path.to_path_buf(), (version, Arc::clone(&document)));
    Ok(document)
}

fn version(path: &Path) -> Result<Version> {
    let meta = std::fs::metadata(path)
        .map_err(|e| Error::io(format_args!("cannot read the configuration {}", path.display()), e))?;
    Ok(Version {
        device: meta.dev(),
        inode: meta.ino(),
        size: meta.size(),
        modified: (meta.mtime(), meta.mtime_nsec()),
        changed: (meta.ctime(), meta.ctime_nsec()),
    })
}
