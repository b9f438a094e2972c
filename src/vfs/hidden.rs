//! Hides the files of a local database from a replica of the same name.
//!
//! `file:app.db?…&mode=ro` may name a replica where a local `app.db` stands, even one that this very
//! process has open as a primary. SQLite would find the local journal and WAL and take them for the
//! replica's. It asks for them by path alone, but always right after it has locked the file that it
//! asks for, on the same thread: so the thread remembers which replica it locked last.
//!
//! A file that the default VFS passes on is locked without our knowing. So each of our two VFSes hides files only from
//! its own replicas.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

thread_local! {
    /// The replica that this thread locked last, unless it locked another file since, and whether the default VFS opened
    /// it.
    static LOCKED: RefCell<Option<(PathBuf, bool)>> = const { RefCell::new(None) };
}

/// This thread locks the replica of the name `path`, which was opened `by_default` or by name.
pub(super) fn locking_replica(path: &Path, by_default: bool) {
    LOCKED.with_borrow_mut(|locked| {
        if !matches!(locked, Some((known, by)) if known == path && *by == by_default) {
            *locked = Some((path.to_path_buf(), by_default));
        }
    });
}

/// This thread locks a file that is no replica.
pub(super) fn locking_other() {
    LOCKED.with_borrow_mut(|locked| *locked = None);
}

/// Whether `path` is a journal or WAL that does not belong to the file that this thread locked last.
pub(super) fn is_hidden(path: &Path, by_default: bool) -> bool {
    LOCKED.with_borrow(|locked| {
        let Some((database, _)) = locked.as_ref().filter(|(_, by)| *by == by_default) else { return false };
        ["-wal", "-journal"].iter().any(|suffix| {
            let mut name = database.as_os_str().to_owned();
            name.push(suffix);
            path.as_os_str() == name
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_files_of_the_replica_locked_last_are_hidden() {
        for by_default in [false, true] {
            let is_hidden = |path: &str| super::is_hidden(Path::new(path), by_default);
            locking_replica(Path::new("/d/app.db"), by_default);
            assert!(is_hidden("/d/app.db-wal"));
            assert!(is_hidden("/d/app.db-journal"));
            assert!(!is_hidden("/d/app.db"));
            assert!(!is_hidden("/d/other.db-wal"));
            assert!(!super::is_hidden(Path::new("/d/app.db-wal"), !by_default));
            locking_other();
            assert!(!is_hidden("/d/app.db-wal"));
        }
    }
}
