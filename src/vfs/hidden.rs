//! Hides the files of a local database from a replica of the same name.
//!
//! `file:app.db?…&mode=ro` may name a replica where a local `app.db` stands, even one that this very
//! process has open as a primary. SQLite would find the local journal and WAL and take them for the
//! replica's. It asks for them by path alone, but always right after it has locked the file that it
//! asks for, on the same thread: so the thread remembers which replica it locked last.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

thread_local! {
    /// The replica that this thread locked last, unless it locked another file since.
    static LOCKED: RefCell<Option<PathBuf>> = const { RefCell::new(None) };
}

/// This thread locks the replica of the name `path`.
pub(super) fn locking_replica(path: &Path) {
    LOCKED.with_borrow_mut(|locked| {
        if locked.as_deref() != Some(path) {
            *locked = Some(path.to_path_buf());
        }
    });
}

/// This thread locks a file that is no replica.
pub(super) fn locking_other() {
    LOCKED.with_borrow_mut(|locked| *locked = None);
}

/// Whether `path` is a journal or WAL that does not belong to the file that this thread locked last.
pub(super) fn is_hidden(path: &Path) -> bool {
    LOCKED.with_borrow(|locked| {
        let Some(database) = locked else { return false };
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
        locking_replica(Path::new("/d/app.db"));
        assert!(is_hidden(Path::new("/d/app.db-wal")));
        assert!(is_hidden(Path::new("/d/app.db-journal")));
        assert!(!is_hidden(Path::new("/d/app.db")));
        assert!(!is_hidden(Path::new("/d/other.db-wal")));
        locking_other();
        assert!(!is_hidden(Path::new("/d/app.db-wal")));
    }
}
