//! Entries that the program itself gives, for hosts that have neither URIs nor a file: `litestream_configure`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::entry::resolved;
use super::{Document, Matched, find, read};
use crate::error::Result;
use crate::fork;

/// The entries of this process, by path without links. A forked child has those of its parent: the lock is held within a
/// section only, which a fork waits for.
static CONFIGURED: Mutex<BTreeMap<PathBuf, Arc<Document>>> = Mutex::new(BTreeMap::new());

fn entries<T>(work: impl FnOnce(&mut BTreeMap<PathBuf, Arc<Document>>) -> T) -> T {
    let _section = fork::section();
    work(&mut CONFIGURED.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Gives the database `path` the entry `settings`, a JSON object with the keys of an entry of `dbs`. It holds from the next
/// open on.
///
/// # Errors
/// `Config`, with the key that is wrong.
pub fn configure(path: &Path, settings: &str) -> Result<()> {
    let document = Arc::new(read::configured(path, settings)?);
    let real = resolved(path);
    entries(|entries| entries.insert(real, document));
    Ok(())
}

/// The database `path` has no entry from [`configure`] any more.
pub fn forget(path: &Path) {
    let real = resolved(path);
    entries(|entries| entries.remove(&real));
}

/// The entry from [`configure`] for the database `path`.
pub(in crate::config) fn configured(path: &Path) -> Option<Matched> {
    if entries(|entries| entries.is_empty()) {
        return None;
    }
    let real = resolved(path);
    let document = entries(|entries| entries.get(&real).cloned())?;
    find(&document, path)
}
