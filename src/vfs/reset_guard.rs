//! Keeps SQLite's WAL-reset bug from losing commits.
//!
//! SQLite 3.7.0 to 3.51.2, but 3.44.6 and 3.50.7, may lose commits when a checkpoint overlaps the
//! restart of the WAL:
//!
//! 1. A checkpoint reads the WAL index: N frames, all of them in the database file already.
//! 2. A writer restarts the WAL and commits less than N frames. `nBackfill` is 0 now.
//! 3. The checkpoint finds that `nBackfill` is less than its N, copies what there is, and notes N
//!    frames as copied. Later commits up to frame N are taken for copied and are lost.
//!
//! The guard watches the locks of a connection and prevents this from either side:
//!
//! - The connection that checkpoints: it copies under the lock `READ(0)`, which no writer that restarts
//!   the WAL can be under. The salts, which each restart changes, must be those that it saw when it took
//!   the lock of the checkpoint; else it does not get `READ(0)` and copies nothing, as if a reader were
//!   in the way. SQLite's own correction is the same comparison.
//! - The connection that restarts: only while nobody holds the lock of the checkpoint, so that the
//!   checkpoints of processes without us cannot do harm. Else it does not get the locks of the readers and
//!   appends to the WAL, as if a reader were in the way.
//!
//! Nobody ever waits for a lock, so there is nothing to deadlock.
//!
//! Source: <https://www.sqlite.org/wal.html#walresetbug>, `walCheckpoint` and `walRestartLog` in
//! SQLite's `wal.c`.

use crate::sqlite::{BaseFile, Code, ShmLock, ShmLockFlags};
use crate::wal::{IndexHeader, READ_MARKS, Salts};

const CHECKPOINT: ShmLock = ShmLock { first: ShmLock::CHECKPOINT, count: 1 };
const READ_0: ShmLock = ShmLock { first: ShmLock::READ_0, count: 1 };
/// What a writer locks to restart the WAL: all readers that use it.
pub(super) const ALL_WAL_READERS: ShmLock =
    ShmLock { first: ShmLock::READ_0 + 1, count: READ_MARKS as u8 - 1 };

/// Whether SQLite of this version, as in `sqlite3_libversion_number`, has the bug.
pub(super) const fn is_needed(version: i32) -> bool {
    let fixed_in_branch = matches!(version, 3_044_006..=3_044_999 | 3_050_007..=3_050_999);
    3_007_000 <= version && version <= 3_051_002 && !fixed_in_branch
}

/// What one connection has locked of the WAL index, as far as it matters.
#[derive(Debug, Default)]
pub(super) struct ResetGuard {
    on: bool,
    writes: bool,
    checkpoints: bool,
    /// While `checkpoints`: the salts before SQLite read the header by which it checkpoints.
    seen: Option<Salts>,
    /// The connection restarts the WAL, and the lock of the checkpoint is held because of that.
    keeps_checkpoints_off: bool,
}

impl ResetGuard {
    /// A guard, which lets everything pass unless `on`.
    pub(super) fn new(on: bool) -> Self {
        Self { on, ..Self::default() }
    }

    /// Takes or releases locks for the connection.
    ///
    /// # Errors
    /// Those of the base file, and `BUSY`.
    pub(super) fn shm_lock(
        &mut self,
        base: &mut BaseFile,
        lock: ShmLock,
        flags: ShmLockFlags,
    ) -> Result<(), Code> {
        match (self.on && flags.is_exclusive(), flags.is_lock()) {
            (false, _) => base.shm_lock(lock, flags),
            (true, true) => self.take(base, lock, flags),
            (true, false) => self.release(base, lock, flags),
        }
    }

    fn take(&mut self, base: &mut BaseFile, lock: ShmLock, flags: ShmLockFlags) -> Result<(), Code> {
        base.shm_lock(lock, flags)?;
        let allowed = match lock {
            READ_0 if self.checkpoints => self.may_copy(base),
            ALL_WAL_READERS if self.writes && !self.checkpoints => self.may_restart(base),
            _ => Ok(()),
        };
        if let Err(code) = allowed {
            base.shm_lock(lock, ShmLockFlags::UNLOCK_EXCLUSIVE)?;
            return Err(code);
        }
        self.writes |= lock.covers(ShmLock::WRITE);
        self.checkpoints |= lock.covers(ShmLock::CHECKPOINT);
        self.look(base, lock);
        Ok(())
    }

    fn release(&mut self, base: &mut BaseFile, lock: ShmLock, flags: ShmLockFlags) -> Result<(), Code> {
        self.look(base, lock);
        base.shm_lock(lock, flags)?;
        self.writes &= !lock.covers(ShmLock::WRITE);
        self.checkpoints &= !lock.covers(ShmLock::CHECKPOINT);
        if lock == ALL_WAL_READERS && std::mem::take(&mut self.keeps_checkpoints_off) {
            base.shm_lock(CHECKPOINT, ShmLockFlags::UNLOCK_EXCLUSIVE)?;
        }
        Ok(())
    }

    /// Notes the salts of a checkpoint. It reads the header after it took its lock, and once more if it
    /// gets the lock of the writer too: for a recovery, which changes the salts, or for longer.
    fn look(&mut self, base: &BaseFile, lock: ShmLock) {
        if self.checkpoints && (lock.covers(ShmLock::CHECKPOINT) || lock.covers(ShmLock::WRITE)) {
            self.seen = salts(base);
            // What SQLite reads next is not older.
            base.shm_barrier();
        }
    }

    /// Whether the checkpoint may copy frames by the header that it has read: nobody changes the salts
    /// while `READ(0)` is locked.
    fn may_copy(&self, base: &BaseFile) -> Result<(), Code> {
        let same = self.seen.is_some() && self.seen == salts(base);
        if same { Ok(()) } else { Err(Code::BUSY) }
    }

    fn may_restart(&mut self, base: &mut BaseFile) -> Result<(), Code> {
        base.shm_lock(CHECKPOINT, ShmLockFlags::LOCK_EXCLUSIVE)?;
        self.keeps_checkpoints_off = true;
        Ok(())
    }
}

/// The salts that the index has now. Caught in the middle of a change they are unlike those before and
/// those after it.
fn salts(base: &BaseFile) -> Option<Salts> {
    let mut bytes = [0; IndexHeader::SALTS_SIZE];
    base.shm_region(0)?.copy_to(IndexHeader::SALTS_OFFSET, &mut bytes);
    Some(Salts::from_be_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_versions_that_lose_commits_are_known() {
        for affected in
            [3_007_000, 3_034_001, 3_040_001, 3_044_005, 3_045_000, 3_050_006, 3_051_000, 3_051_002]
        {
            assert!(is_needed(affected), "{affected}");
        }
        for sound in [3_006_023, 3_044_006, 3_044_007, 3_050_007, 3_051_003, 3_054_000, 4_000_000] {
            assert!(!is_needed(sound), "{sound}");
        }
    }

    #[test]
    fn the_locks_are_those_of_the_wal_index() {
        assert_eq!((READ_0.first, ALL_WAL_READERS.first, ALL_WAL_READERS.count), (3, 4, 4));
    }
}
