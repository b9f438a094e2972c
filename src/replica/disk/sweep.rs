//! Keeps the disk cache within its size: what was not used for the longest time goes first.
//!
//! Nobody keeps books that processes would have to agree on. Each looks at what is there when it has
//! written an eighth of the size since it last looked. So one process stays within the size, and each
//! further one that writes at the same time may exceed it by an eighth.

use std::fs::{self, DirEntry, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use super::index;
use crate::runtime;

/// A file system gives space in blocks: what an entry may take beyond its bytes, at both ends.
const BLOCKS: u64 = 2 * 4096;

/// The room that the cache has.
#[derive(Debug)]
pub(super) struct Room {
    root: PathBuf,
    capacity: u64,
    /// What was written since the last look; `None` before the first.
    unseen: Mutex<Option<u64>>,
}

impl Room {
    /// What is below `root` may take `capacity` bytes.
    pub(super) fn new(root: PathBuf, capacity: u64) -> Self {
        Self { root, capacity, unseen: Mutex::new(None) }
    }

    /// Makes room for `bytes` more; false if that is too much for this cache.
    pub(super) fn make(&self, bytes: u64) -> bool {
        let step = self.capacity / 8;
        let bytes = bytes + BLOCKS;
        if bytes > 2 * step {
            return false;
        }
        let mut unseen = self.unseen.lock().unwrap_or_else(PoisonError::into_inner);
        match *unseen {
            Some(before) if before + bytes <= step => *unseen = Some(before + bytes),
            _ => {
                // Afterwards there is room for `bytes` and for a step until the next look.
                let limit = self.capacity - step - bytes;
                runtime::busy(true, || sweep(&self.root, limit, step));
                *unseen = Some(0);
            }
        }
        true
    }
}

/// An entry of the cache.
#[derive(Debug)]
struct Entry {
    used: SystemTime,
    is_index: bool,
    bytes: u64,
    path: PathBuf,
}

/// If more than `limit` bytes are below `root`, removes entries until it is `margin` less.
fn sweep(root: &Path, limit: u64, margin: u64) {
    let mut entries = entries(root);
    let mut total: u64 = entries.iter().map(|entry| entry.bytes).sum();
    if total <= limit {
        return;
    }
    entries.sort_unstable_by_key(|entry| (entry.used, entry.is_index));
    for entry in entries {
        if total <= limit.saturating_sub(margin) {
            return;
        }
        remove(&entry.path);
        total -= entry.bytes;
    }
}

/// Removes an entry, and its folders if they are empty now. Another process may have been faster.
fn remove(path: &Path) {
    let _ = fs::remove_file(path);
    for folder in path.ancestors().skip(1).take(2) {
        if fs::remove_dir(folder).is_err() {
            return;
        }
    }
}

/// All entries below `root`: files in the folders of LTX files in the folders of replicas.
fn entries(root: &Path) -> Vec<Entry> {
    list(root)
        .flat_map(|replica| list(&replica.path()))
        .flat_map(|file| entries_of_file(&file.path()))
        .collect()
}

/// The entries of one LTX file. The index is in use as long as any of its pages is: without it none is
/// found again.
fn entries_of_file(folder: &Path) -> Vec<Entry> {
    let mut entries: Vec<Entry> = list(folder).filter_map(|file| entry(&file)).collect();
    let latest = entries.iter().map(|entry| entry.used).max();
    for entry in entries.iter_mut().filter(|entry| entry.is_index) {
        entry.used = latest.unwrap_or(entry.used);
    }
    entries
}

fn entry(file: &DirEntry) -> Option<Entry> {
    let metadata = file.metadata().ok().filter(Metadata::is_file)?;
    Some(Entry {
        used: metadata.modified().ok()?,
        is_index: file.file_name() == index::NAME,
        // Holes take no space.
        bytes: metadata.blocks() * 512,
        path: file.path(),
    })
}

fn list(folder: &Path) -> impl Iterator<Item = DirEntry> + use<> {
    fs::read_dir(folder).into_iter().flatten().flatten()
}
