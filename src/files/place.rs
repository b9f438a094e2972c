//! Where the local state of a database is, what a path leads to, and what its disk has left.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use crate::fork::PerProcess;

/// Folders of local state that are not beside their databases, by database. A forked child learns them when it opens one.
static MOVED: PerProcess<RwLock<BTreeMap<PathBuf, PathBuf>>> = PerProcess::new();

/// The folder of local state that belongs to the database `path`: `.<file name>-litestream` beside it, or where
/// [`place_state`] put it.
pub fn state_folder(path: &Path) -> PathBuf {
    let moved = MOVED.get().read().unwrap_or_else(PoisonError::into_inner).get(path).cloned();
    moved.unwrap_or_else(|| {
        let mut name = OsString::from(".");
        name.push(path.file_name().unwrap_or_default());
        name.push("-litestream");
        path.with_file_name(name)
    })
}

/// From now on the folder of local state of the database `path` is `folder`, or beside it. Not to be called while the
/// database is open as a primary.
pub fn place_state(path: &Path, folder: Option<&Path>) {
    let mut moved = MOVED.get().write().unwrap_or_else(PoisonError::into_inner);
    match folder {
        Some(folder) => drop(moved.insert(path.to_path_buf(), folder.to_path_buf())),
        None => drop(moved.remove(path)),
    }
}

/// The space that is left for unprivileged programs on the disk of the file `path`, in bytes; `None` if that cannot be told.
/// Opens no file.
pub fn free_space(path: &Path) -> Option<u64> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let disk = rustix::fs::statvfs(folder).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// The absolute path of `path` without links, as far as it is there; what is not there is taken as it is written.
pub fn resolved(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let mut found = PathBuf::new();
    for part in absolute.components() {
        match part {
            Component::ParentDir => drop(found.pop()),
            Component::CurDir => {}
            part => {
                found.push(part);
                found = found.canonicalize().unwrap_or(found);
            }
        }
    }
    found
}

/// The database to which the folder of local state `folder` belongs, if it has the name of one.
pub(super) fn database_of(folder: &Path) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStrExt as _;

    let moved = MOVED.get().read().unwrap_or_else(PoisonError::into_inner);
    if let Some((database, _)) = moved.iter().find(|(_, own)| own.as_path() == folder) {
        return Some(database.clone());
    }
    let name = folder.file_name()?.as_bytes();
    let name = name.strip_prefix(b".")?.strip_suffix(b"-litestream")?;
    (!name.is_empty()).then(|| folder.with_file_name(std::ffi::OsStr::from_bytes(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_resolved_as_far_as_it_is_there() {
        let home = tempfile::tempdir().unwrap();
        let home = home.path().canonicalize().unwrap();
        std::fs::create_dir(home.join("there")).unwrap();
        std::os::unix::fs::symlink(home.join("there"), home.join("link")).unwrap();
        for (path, expected) in [
            ("there/new/app", "there/new/app"),
            ("link/new/app", "there/new/app"),
            ("./link/../there/./app/", "there/app"),
            ("x/../there", "there"),
            ("x/y/../../link", "there"),
        ] {
            assert_eq!(resolved(&home.join(path)), home.join(expected), "{path}");
        }
    }
}
