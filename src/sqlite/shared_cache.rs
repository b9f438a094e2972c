//! Whether SQLite opens a database for a cache that connections share, of which it keeps the flag from `xOpen`.
//!
//! It looks for such a cache by the full path of the database. Only if it finds none it opens the file, and for that it
//! asks for the full path a second time; for a cache of one connection it asks once. Both times it asks with the same
//! name, in the same thread, and nothing of ours is called in between. Whoever finds a cache calls no `xOpen`, but says
//! `SQLITE_FCNTL_PDB` to the file.
//!
//! Source: `sqlite3BtreeOpen` and `sqlite3PagerOpen`, alike in 3.34 and 3.54.

use std::cell::Cell;
use std::collections::hash_map::DefaultHasher;
use std::ffi::c_char;
use std::hash::{Hash, Hasher};
use std::path::Path;

use rusqlite::ffi::sqlite3_vfs;

use super::{Parameters, host};

/// A full path that a VFS of ours was asked for, and that is not opened yet.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Asked {
    vfs: *const sqlite3_vfs,
    name: *const c_char,
    full_path: u64,
}

/// The last question, and whether it is the same as the one before.
#[derive(Clone, Copy)]
struct Last {
    asked: Asked,
    again: bool,
}

/// At most so many VFSes of ours are in front of each other.
const VFSES: usize = 4;

thread_local! {
    /// Of each VFS.
    static LAST: Cell<[Option<Last>; VFSES]> = const { Cell::new([None; VFSES]) };
}

/// Notes that `vfs` was asked for the full path of `name`, and what it is; `None` if it has none.
pub(super) fn asked(vfs: *const sqlite3_vfs, name: *const c_char, full_path: Option<&Path>) {
    let before = take(vfs);
    let Some(full_path) = full_path else { return };
    let asked = Asked { vfs, name, full_path: hash(full_path) };
    let again = before.is_some_and(|before| before.asked == asked);
    let mut all = LAST.get();
    all.rotate_right(1);
    all[0] = Some(Last { asked, again });
    LAST.set(all);
}

/// Whether `vfs`, which now opens the main database `full_path` with these parameters, does so for a cache that is
/// shared.
pub(super) fn opens(vfs: *const sqlite3_vfs, full_path: &Path, parameters: Parameters<'_>) -> bool {
    let last = take(vfs).filter(|last| last.asked.full_path == hash(full_path));
    // The last one counts.
    let named = parameters.pairs().filter(|(key, _)| key == "cache").last();
    let is_shared = match named.as_ref().map(|(_, mode)| mode.as_str()) {
        Some("shared") => true,
        Some("private") => false,
        _ => last.is_some_and(|last| last.again),
    };
    is_shared && host::can_share_caches()
}

/// Notes that the open of a database is over, or that a cache was found.
pub(super) fn opened() {
    LAST.set([None; VFSES]);
}

fn take(vfs: *const sqlite3_vfs) -> Option<Last> {
    let mut all = LAST.get();
    let taken =
        all.iter_mut().find(|last| last.is_some_and(|last| last.asked.vfs == vfs)).and_then(Option::take);
    LAST.set(all);
    taken
}

fn hash(path: &Path) -> u64 {
    let mut hasher = DefaultHasher::new();
    path.as_os_str().hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether the open of `path` is for a shared cache as far as the questions tell.
    fn is_again(vfs: *const sqlite3_vfs, path: &Path) -> bool {
        take(vfs).is_some_and(|last| last.asked.full_path == hash(path) && last.again)
    }

    #[test]
    fn a_second_question_for_the_same_name_is_of_a_shared_cache() {
        let (vfs, other) = (std::ptr::without_provenance(8), std::ptr::without_provenance(16));
        let (name, path) = (c"app.db".as_ptr(), Path::new("/app.db"));
        let ask = |vfs| asked(vfs, name, Some(path));
        ask(vfs);
        assert!(!is_again(vfs, path), "asked once");
        ask(vfs);
        ask(vfs);
        assert!(is_again(vfs, path) && !is_again(vfs, path), "asked twice, and opened");
        // One in front of another.
        for _ in 0..2 {
            ask(vfs);
            ask(other);
        }
        assert!(is_again(other, path) && is_again(vfs, path));
        ask(vfs);
        opened();
        ask(vfs);
        assert!(!is_again(vfs, path), "a cache was found");
        ask(vfs);
        asked(vfs, name, None);
        ask(vfs);
        assert!(!is_again(vfs, path), "there was no full path");
        ask(vfs);
        let other_path = Path::new("/other.db");
        asked(vfs, name, Some(other_path));
        assert!(!is_again(vfs, other_path), "the name was another one");
    }
}
