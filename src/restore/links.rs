//! What a path leads to, when there is nothing yet at the end of its links.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The most links in a row; Linux follows no more either.
const MOST: usize = 40;

/// Where a file is made that is opened as `path`: behind the last link. What is no link, or leads to something, is as it is.
///
/// # Errors
/// `Config`: the links lead round in a circle, or into a folder that is not there; those of the file system.
pub(super) fn end_of(path: &Path) -> Result<PathBuf> {
    let mut end = path.to_owned();
    for followed in 0..=MOST {
        match fs::read_link(&end) {
            // An absolute one takes the place of all that is before it.
            Ok(next) => end = end.parent().unwrap_or(Path::new("")).join(next),
            Err(e) if !matches!(e.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::NotFound) => {
                return Err(Error::io(format!("cannot look at {}", end.display()), e));
            }
            Err(_) if followed == 0 => return Ok(end),
            Err(_) => return in_its_folder(path, &end),
        }
    }
    let message = format!("cannot restore to {}: its links lead round in a circle", path.display());
    Err(Error::config(format!("{message}; remove them, or name another file")))
}

/// `end`, to which the link `path` leads, without links and `..`.
fn in_its_folder(path: &Path, end: &Path) -> Result<PathBuf> {
    let cannot = |why: String| {
        Error::config(format!(
            "cannot restore to {}: it is a link to {}, {why}",
            path.display(),
            end.display()
        ))
    };
    let (Some(folder), Some(name)) = (end.parent(), end.file_name()) else {
        return Err(cannot("which names no file; name another file".to_owned()));
    };
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    match folder.canonicalize() {
        Ok(folder) => Ok(folder.join(name)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            Err(cannot(format!("and there is no folder {}; make it first", folder.display())))
        }
        Err(e) => Err(Error::io(format!("cannot look at {}", folder.display()), e)),
    }
}
