//! What this library itself has locked of one database in this process, so that statements wait for that
//! instead of failing.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

/// By process id (a forked child has none) and path.
type Databases = HashMap<(u32, PathBuf), Weak<OwnLocks>>;

/// The databases of this process.
static DATABASES: Mutex<Option<Databases>> = Mutex::new(None);

/// What is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Held {
    /// A view: SHARED on the database, and a read mark.
    View = 0,
    /// More, for a moment: what a recovery of the WAL index takes, or EXCLUSIVE.
    Moment = 1,
}

/// The locks that this library holds on one database.
#[derive(Debug, Default)]
pub(super) struct OwnLocks {
    /// How many of each kind of [`Held`].
    now: Mutex<[usize; 2]>,
    released: Condvar,
    /// How many of each kind were released so far.
    ended: [AtomicU64; 2],
}

/// A lock that is counted for as long as this lives.
#[derive(Debug)]
pub(super) struct OwnLock(Arc<OwnLocks>, Held);

/// What was released before a lock was tried.
#[derive(Clone, Copy, Debug)]
pub(super) struct Before(u64, Held);

impl OwnLocks {
    /// Those of the database `path`.
    pub(super) fn of(path: &Path) -> Arc<Self> {
        let mut databases = DATABASES.lock().unwrap_or_else(PoisonError::into_inner);
        let databases = databases.get_or_insert_default();
        databases.retain(|_, locks| locks.strong_count() > 0);
        let key = (std::process::id(), path.to_path_buf());
        if let Some(locks) = databases.get(&key).and_then(Weak::upgrade) {
            return locks;
        }
        let locks = Arc::<Self>::default();
        databases.insert(key, Arc::downgrade(&locks));
        locks
    }

    fn now(&self) -> MutexGuard<'_, [usize; 2]> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a lock that is about to be taken.
    pub(super) fn hold(self: &Arc<Self>, held: Held) -> OwnLock {
        self.now()[held as usize] += 1;
        OwnLock(Arc::clone(self), held)
    }

    /// To be asked before a lock is tried that one of ours may be in the way of.
    pub(super) fn before(&self, held: Held) -> Before {
        Before(self.ended[held as usize].load(Ordering::Acquire), held)
    }

    /// Waits at most `timeout` until nothing of the kind is held.
    pub(super) fn wait_for_end(&self, held: Held, timeout: Duration) {
        let waited = self.released.wait_timeout_while(self.now(), timeout, |now| now[held as usize] > 0);
        drop(waited);
    }

    /// Waits at most `timeout` until nothing of the kind is held; `false` if nothing was since `before`.
    pub(super) fn wait(&self, before: Before, timeout: Duration) -> bool {
        let Before(ended, held) = before;
        let now = self.now();
        if now[held as usize] == 0 {
            return self.ended[held as usize].load(Ordering::Acquire) != ended;
        }
        let waited = self.released.wait_timeout_while(now, timeout, |now| now[held as usize] > 0);
        drop(waited);
        true
    }
}

impl Drop for OwnLock {
    fn drop(&mut self) {
        let Self(locks, held) = self;
        let mut now = locks.now();
        now[*held as usize] -= 1;
        locks.ended[*held as usize].fetch_add(1, Ordering::Release);
        drop(now);
        locks.released.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_of_ours_is_waited_for() {
        let locks = OwnLocks::of(Path::new("/d/own-locks.db"));
        let before = locks.before(Held::View);
        assert!(!locks.wait(before, Duration::from_secs(60)), "nothing is held");
        let held = locks.hold(Held::View);
        assert!(
            !locks.wait(locks.before(Held::Moment), Duration::from_secs(60)),
            "nothing of the other kind"
        );
        assert!(locks.wait(before, Duration::ZERO), "it is held");
        let again = OwnLocks::of(Path::new("/d/own-locks.db"));
        let waits = std::thread::spawn(move || again.wait(before, Duration::from_secs(60)));
        drop(held);
        assert!(waits.join().unwrap());
        assert!(locks.wait(before, Duration::ZERO), "it was held since");
        assert!(!locks.wait(locks.before(Held::View), Duration::ZERO));
    }
}
