//! Record locks on files of ours: between processes whatever namespaces they are in, gone with their
//! process, and not shared with its forked children.

use std::collections::BTreeMap;
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

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

/// A lock file of which this process has locked some bytes, each once for all who hold its lock.
struct Held {
    file: File,
    /// Never empty.
    bytes: BTreeMap<u8, Holders>,
}

struct Holders {
    kind: Kind,
    count: usize,
    /// Another process has locked the whole file: as soon as that is over, the byte is locked.
    is_promised: bool,
}

/// The locks that this process holds. Closing any descriptor of a locked file drops its locks, so that a
/// file of this map must not be opened again.
static HELD: Mutex<BTreeMap<Key, Held>> = Mutex::new(BTreeMap::new());

fn held() -> MutexGuard<'static, BTreeMap<Key, Held>> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A lock on one byte of a file, which need not have that byte, until it is dropped.
#[derive(Debug)]
pub struct RecordLock {
    key: Key,
    byte: u8,
}

impl RecordLock {
    /// Takes the lock on `byte` of the file at `path`, which is made if it is not there; `None` if another holder, of
    /// this process or of another, does not let it.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn take(path: &Path, byte: u8, kind: Kind) -> io::Result<Option<Self>> {
        Self::take_with(path, byte, kind, false)
    }

    /// As [`RecordLock::take`]. While another process has locked the whole file it is granted within this process,
    /// and taken from all others by the first lock that is taken on the file after that process is gone.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn take_or_promise(path: &Path, byte: u8, kind: Kind) -> io::Result<Option<Self>> {
        Self::take_with(path, byte, kind, true)
    }

    fn take_with(path: &Path, byte: u8, kind: Kind, may_promise: bool) -> io::Result<Option<Self>> {
        let _section = fork::section();
        let mut held = held();
        loop {
            if let Ok(meta) = path.metadata()
                && let Some(held) = held.get_mut(&key(&meta))
            {
                return Ok(held.join(byte, kind, may_promise)?.then(|| Self { key: key(&meta), byte }));
            }
            let file = super::make::open(path, OpenOptions::new().read(true).write(true))?;
            let mut locked = Held { file, bytes: BTreeMap::new() };
            if !locked.join(byte, kind, may_promise)? {
                return Ok(None);
            }
            let key = key(&locked.file.metadata()?);
            // The last holder may have removed the file before the lock was had.
            if path.metadata().is_ok_and(|meta| self::key(&meta) == key) {
                held.insert(key, locked);
                return Ok(Some(Self { key, byte }));
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
        let Some(holders) = held.bytes.get_mut(&self.byte) else { return Ok(()) };
        if !holders.is_promised {
            set(&held.file, self.byte, libc::F_RDLCK)?;
        }
        holders.kind = Kind::Shared;
        Ok(())
    }

    /// Whether another process holds a lock on `byte` of the file at `path`, of which this process holds one too; `None` if
    /// it does not, or if that cannot be told.
    pub fn is_shared_with_others(path: &Path, byte: u8) -> Option<bool> {
        let _section = fork::section();
        let held = held();
        let held = held.get(&key(&path.metadata().ok()?)).filter(|held| held.bytes.contains_key(&byte))?;
        blocking(&held.file, byte).ok().map(|found| found.is_some())
    }

    /// Whether this process holds a lock on `byte` of the file at `path`.
    pub fn is_ours(path: &Path, byte: u8) -> bool {
        let _section = fork::section();
        let key = path.metadata().map(|meta| key(&meta));
        key.is_ok_and(|key| held().get(&key).is_some_and(|held| held.bytes.contains_key(&byte)))
    }
}

impl Held {
    /// Adds a holder of the lock on `byte`, if that may be.
    fn join(&mut self, byte: u8, kind: Kind, may_promise: bool) -> io::Result<bool> {
        self.keep_promises()?;
        if let Some(holders) = self.bytes.get_mut(&byte) {
            let joins = holders.kind == Kind::Shared && kind == Kind::Shared;
            holders.count += usize::from(joins);
            return Ok(joins);
        }
        let is_locked = try_lock(&self.file, byte, kind)?;
        let is_promised = !is_locked && may_promise && is_locked_whole(&self.file)?;
        if is_locked || is_promised {
            self.bytes.insert(byte, Holders { kind, count: 1, is_promised });
        }
        Ok(is_locked || is_promised)
    }

    /// Locks what was promised, as far as nobody else has it.
    fn keep_promises(&mut self) -> io::Result<()> {
        for (byte, holders) in &mut self.bytes {
            if holders.is_promised {
                holders.is_promised = !try_lock(&self.file, *byte, holders.kind)?;
            }
        }
        Ok(())
    }

    fn leave(&mut self, byte: u8) {
        let Some(holders) = self.bytes.get_mut(&byte) else { return };
        holders.count -= 1;
        if holders.count == 0 {
            self.bytes.remove(&byte);
            if let Err(e) = set(&self.file, byte, libc::F_UNLCK) {
                tracing::warn!("cannot release a lock: {e}");
            }
        }
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
            lock.leave(self.byte);
            if lock.bytes.is_empty() {
                held.remove(&self.key);
            }
        }
    }
}

/// Locks `byte`, unless another process does not let it.
fn try_lock(file: &File, byte: u8, kind: Kind) -> io::Result<bool> {
    let kind = match kind {
        Kind::Shared => libc::F_RDLCK,
        Kind::Exclusive => libc::F_WRLCK,
    };
    match set(file, byte, kind) {
        Ok(()) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// Whether another process has locked the whole file.
fn is_locked_whole(file: &File) -> io::Result<bool> {
    Ok(blocking(file, 0)?.is_some_and(|lock| lock.l_start == 0 && lock.l_len == 0))
}

/// A lock of another process that does not let `byte` be locked alone.
fn blocking(file: &File, byte: u8) -> io::Result<Option<libc::flock>> {
    let mut found = range(byte, libc::F_WRLCK);
    fcntl(file, FcntlArg::F_GETLK(&mut found))?;
    Ok((i32::from(found.l_type) != libc::F_UNLCK).then_some(found))
}

fn set(file: &File, byte: u8, kind: i32) -> nix::Result<()> {
    fcntl(file, FcntlArg::F_SETLK(&range(byte, kind))).map(drop)
}

fn range(byte: u8, kind: i32) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: libc::off_t::from(byte),
        l_len: 1,
        l_pid: 0,
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
        let take = |kind| RecordLock::take(&path, 1, kind).unwrap();
        let (first, second) = (take(Kind::Shared), take(Kind::Shared));
        assert!(first.is_some() && second.is_some() && take(Kind::Exclusive).is_none());
        drop(first);
        assert!(take(Kind::Exclusive).is_none() && RecordLock::is_ours(&path, 1));
        drop(second);
        let alone = take(Kind::Exclusive);
        assert!(alone.is_some() && take(Kind::Shared).is_none() && take(Kind::Exclusive).is_none());
        alone.as_ref().unwrap().share().unwrap();
        assert!(take(Kind::Shared).is_some() && take(Kind::Exclusive).is_none());
        drop(alone);
        assert!(!RecordLock::is_ours(&path, 1) && take(Kind::Shared).is_some());
    }

    #[test]
    fn each_byte_is_a_lock_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.lock");
        let take = |byte| RecordLock::take(&path, byte, Kind::Exclusive).unwrap();
        let (first, second) = (take(0), take(7));
        assert!(first.is_some() && second.is_some() && take(0).is_none());
        drop(first);
        assert!(take(0).is_some() && take(7).is_none() && RecordLock::is_ours(&path, 7));
        assert!(!RecordLock::is_ours(&path, 0));
        assert_eq!(RecordLock::is_shared_with_others(&path, 7), Some(false));
        assert_eq!(RecordLock::is_shared_with_others(&path, 0), None);
    }
}
