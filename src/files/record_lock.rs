//! Record locks on files of ours: between processes whatever namespaces they are in, gone with their
//! process, and not shared with its forked children.

use std::collections::BTreeMap;
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::io::Errno;
use rustix::process::{Flock, FlockType};

use crate::fork;

/// Who else may hold a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Others that share it.
    Shared,
    /// Nobody.
    Exclusive,
}

/// A process, and the device and inode of a lock file.
type Key = (u32, u64, u64);

/// A lock file that this process has locked, once for all who hold the lock.
struct Held {
    file: File,
    kind: Kind,
    holders: usize,
}

/// The locks that this process holds. Closing any descriptor of a locked file drops the lock, so that a
/// file of this map must not be opened again.
static HELD: Mutex<BTreeMap<Key, Held>> = Mutex::new(BTreeMap::new());

fn held() -> MutexGuard<'static, BTreeMap<Key, Held>> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A lock on a whole file, until it is dropped.
#[derive(Debug)]
pub struct RecordLock {
    key: Key,
}

impl RecordLock {
    /// Takes the lock on the file at `path`, which is made if it is not there; `None` if another holder, of
    /// this process or of another, does not let it.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn take(path: &Path, kind: Kind) -> io::Result<Option<Self>> {
        let _section = fork::section();
        let mut held = held();
        loop {
            if let Ok(meta) = path.metadata()
                && let Some(held) = held.get_mut(&key(&meta))
            {
                return Ok(held.join(kind).then(|| Self { key: key(&meta) }));
            }
            let file = super::open(path, OpenOptions::new().read(true).write(true))?;
            let operation = match kind {
                Kind::Shared => FlockOperation::NonBlockingLockShared,
                Kind::Exclusive => FlockOperation::NonBlockingLockExclusive,
            };
            match fcntl_lock(&file, operation) {
                Ok(()) => {}
                Err(Errno::AGAIN | Errno::ACCESS) => return Ok(None),
                Err(e) => return Err(e.into()),
            }
            let key = key(&file.metadata()?);
            // The last holder may have removed the file before the lock was had.
            if path.metadata().is_ok_and(|meta| self::key(&meta) == key) {
                held.insert(key, Held { file, kind, holders: 1 });
                return Ok(Some(Self { key }));
            }
        }
    }

    /// Lets others share a lock that was exclusive.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn share(&self) -> io::Result<()> {
        let _section = fork::section();
        let mut held = held();
        let Some(held) = held.get_mut(&self.key) else { return Ok(()) };
        fcntl_lock(&held.file, FlockOperation::NonBlockingLockShared)?;
        held.kind = Kind::Shared;
        Ok(())
    }

    /// Whether another process holds a lock on the file at `path`, of which this process holds one too; `None` if it does
    /// not, or if that cannot be told.
    pub fn is_shared_with_others(path: &Path) -> Option<bool> {
        let _section = fork::section();
        let held = held();
        let held = held.get(&key(&path.metadata().ok()?))?;
        let whole = Flock::from(FlockType::WriteLock);
        rustix::process::fcntl_getlk(&held.file, &whole).ok().map(|found| found.is_some())
    }

    /// Whether this process holds a lock on the file at `path`.
    pub fn is_ours(path: &Path) -> bool {
        let _section = fork::section();
        path.metadata().is_ok_and(|meta| held().contains_key(&key(&meta)))
    }
}

impl Held {
    /// Adds a holder, if that may be.
    fn join(&mut self, kind: Kind) -> bool {
        let joins = self.kind == Kind::Shared && kind == Kind::Shared;
        self.holders += usize::from(joins);
        joins
    }
}

impl Drop for RecordLock {
    fn drop(&mut self) {
        let _section = fork::section();
        // In a forked child, the parent's lock is not the child's to forget.
        if self.key.0 != std::process::id() {
            return;
        }
        let mut held = held();
        if let Some(lock) = held.get_mut(&self.key) {
            lock.holders -= 1;
            if lock.holders == 0 {
                held.remove(&self.key);
            }
        }
    }
}

fn key(meta: &Metadata) -> Key {
    (std::process::id(), meta.dev(), meta.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_shared_or_not_and_ends_with_its_last_holder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.lock");
        let take = |kind| RecordLock::take(&path, kind).unwrap();
        let (first, second) = (take(Kind::Shared), take(Kind::Shared));
        assert!(first.is_some() && second.is_some() && take(Kind::Exclusive).is_none());
        drop(first);
        assert!(take(Kind::Exclusive).is_none() && RecordLock::is_ours(&path));
        drop(second);
        let alone = take(Kind::Exclusive);
        assert!(alone.is_some() && take(Kind::Shared).is_none() && take(Kind::Exclusive).is_none());
        alone.as_ref().unwrap().share().unwrap();
        assert!(take(Kind::Shared).is_some() && take(Kind::Exclusive).is_none());
        drop(alone);
        assert!(!RecordLock::is_ours(&path) && take(Kind::Shared).is_some());
    }
}
