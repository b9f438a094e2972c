//! Flags, levels and kinds that SQLite passes to a VFS.

use std::ffi::c_int;

use rusqlite::ffi;

/// How a file is to be opened, or was opened: `SQLITE_OPEN_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenFlags(c_int);

impl OpenFlags {
    /// Read only.
    pub const READONLY: Self = Self(ffi::SQLITE_OPEN_READONLY);
    /// Read and write.
    pub const READWRITE: Self = Self(ffi::SQLITE_OPEN_READWRITE);
    /// Create the file if it is not there.
    pub const CREATE: Self = Self(ffi::SQLITE_OPEN_CREATE);
    /// Delete the file when it is closed.
    pub const DELETEONCLOSE: Self = Self(ffi::SQLITE_OPEN_DELETEONCLOSE);
    /// With `CREATE`: fail if the file is there.
    pub const EXCLUSIVE: Self = Self(ffi::SQLITE_OPEN_EXCLUSIVE);
    /// The main database of a connection, or an attached one.
    pub const MAIN_DB: Self = Self(ffi::SQLITE_OPEN_MAIN_DB);
    /// A write-ahead log.
    pub const WAL: Self = Self(ffi::SQLITE_OPEN_WAL);

    /// The flags with these bits.
    pub const fn from_bits(bits: c_int) -> Self {
        Self(bits)
    }

    /// The bits.
    pub const fn bits(self) -> c_int {
        self.0
    }

    /// Whether all of `other` are set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both together.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// These without `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether the file is asked for, or was opened, read-only.
    pub const fn is_readonly(self) -> bool {
        self.contains(Self::READONLY)
    }

    /// The same, but read-only.
    pub const fn read_only(self) -> Self {
        self.without(Self::READWRITE.with(Self::CREATE)).with(Self::READONLY)
    }

    /// What the file is for.
    pub const fn kind(self) -> FileKind {
        match self.0 & KINDS {
            ffi::SQLITE_OPEN_MAIN_DB => FileKind::MainDb,
            ffi::SQLITE_OPEN_WAL => FileKind::Wal,
            ffi::SQLITE_OPEN_MAIN_JOURNAL => FileKind::MainJournal,
            ffi::SQLITE_OPEN_TEMP_DB => FileKind::TempDb,
            ffi::SQLITE_OPEN_TEMP_JOURNAL => FileKind::TempJournal,
            ffi::SQLITE_OPEN_TRANSIENT_DB => FileKind::TransientDb,
            ffi::SQLITE_OPEN_SUBJOURNAL => FileKind::Subjournal,
            ffi::SQLITE_OPEN_SUPER_JOURNAL => FileKind::SuperJournal,
            _ => FileKind::Other,
        }
    }
}

/// The bits of [`OpenFlags`] that say what a file is for; SQLite sets exactly one.
const KINDS: c_int = ffi::SQLITE_OPEN_MAIN_DB
    | ffi::SQLITE_OPEN_WAL
    | ffi::SQLITE_OPEN_MAIN_JOURNAL
    | ffi::SQLITE_OPEN_TEMP_DB
    | ffi::SQLITE_OPEN_TEMP_JOURNAL
    | ffi::SQLITE_OPEN_TRANSIENT_DB
    | ffi::SQLITE_OPEN_SUBJOURNAL
    | ffi::SQLITE_OPEN_SUPER_JOURNAL;

/// What a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// The main database of a connection, or an attached one.
    MainDb,
    /// The write-ahead log of a main database.
    Wal,
    /// The rollback journal of a main database.
    MainJournal,
    /// The `temp` database.
    TempDb,
    /// The rollback journal of the `temp` database.
    TempJournal,
    /// A database for one statement.
    TransientDb,
    /// A statement journal.
    Subjournal,
    /// A super-journal, or a child journal that is looked at while one is cleaned up.
    SuperJournal,
    /// The opener did not say.
    Other,
}

/// How far a sync must reach: `SQLITE_SYNC_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyncFlags(c_int);

impl SyncFlags {
    /// An ordinary sync.
    pub const NORMAL: Self = Self(ffi::SQLITE_SYNC_NORMAL);
    /// A sync that reaches the medium (`F_FULLFSYNC` on macOS).
    pub const FULL: Self = Self(ffi::SQLITE_SYNC_FULL);

    /// The flags with these bits.
    pub const fn from_bits(bits: c_int) -> Self {
        Self(bits)
    }

    /// The bits.
    pub const fn bits(self) -> c_int {
        self.0
    }

    /// Whether the file's size need not be synced.
    pub const fn is_data_only(self) -> bool {
        self.0 & ffi::SQLITE_SYNC_DATAONLY != 0
    }
}

/// A lock on a database file: `SQLITE_LOCK_*`, in rising order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LockLevel {
    /// Not locked.
    None,
    /// Readers.
    Shared,
    /// One writer that prepares, readers continue.
    Reserved,
    /// No new readers.
    Pending,
    /// Nobody else.
    Exclusive,
}

impl LockLevel {
    /// The level with this number, `None` if there is none.
    pub const fn from_raw(level: c_int) -> Option<Self> {
        Some(match level {
            ffi::SQLITE_LOCK_NONE => Self::None,
            ffi::SQLITE_LOCK_SHARED => Self::Shared,
            ffi::SQLITE_LOCK_RESERVED => Self::Reserved,
            ffi::SQLITE_LOCK_PENDING => Self::Pending,
            ffi::SQLITE_LOCK_EXCLUSIVE => Self::Exclusive,
            _ => return None,
        })
    }

    /// The number.
    pub const fn get(self) -> c_int {
        match self {
            Self::None => ffi::SQLITE_LOCK_NONE,
            Self::Shared => ffi::SQLITE_LOCK_SHARED,
            Self::Reserved => ffi::SQLITE_LOCK_RESERVED,
            Self::Pending => ffi::SQLITE_LOCK_PENDING,
            Self::Exclusive => ffi::SQLITE_LOCK_EXCLUSIVE,
        }
    }
}

/// What `xAccess` asks of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Is it there?
    Exists,
    /// Is it there, and can it be read and written?
    ReadWrite,
    /// Is it there, and can it be read?
    Read,
}

impl Access {
    /// The question with this number, `None` if there is none.
    pub const fn from_raw(flags: c_int) -> Option<Self> {
        Some(match flags {
            ffi::SQLITE_ACCESS_EXISTS => Self::Exists,
            ffi::SQLITE_ACCESS_READWRITE => Self::ReadWrite,
            ffi::SQLITE_ACCESS_READ => Self::Read,
            _ => return None,
        })
    }

    /// The number.
    pub const fn get(self) -> c_int {
        match self {
            Self::Exists => ffi::SQLITE_ACCESS_EXISTS,
            Self::ReadWrite => ffi::SQLITE_ACCESS_READWRITE,
            Self::Read => ffi::SQLITE_ACCESS_READ,
        }
    }
}

/// What `xShmLock` does: take or release, shared or exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShmLockFlags(c_int);

impl ShmLockFlags {
    /// Take a shared lock.
    pub const LOCK_SHARED: Self = Self(ffi::SQLITE_SHM_LOCK | ffi::SQLITE_SHM_SHARED);
    /// Take an exclusive lock.
    pub const LOCK_EXCLUSIVE: Self = Self(ffi::SQLITE_SHM_LOCK | ffi::SQLITE_SHM_EXCLUSIVE);
    /// Release a shared lock.
    pub const UNLOCK_SHARED: Self = Self(ffi::SQLITE_SHM_UNLOCK | ffi::SQLITE_SHM_SHARED);
    /// Release an exclusive lock.
    pub const UNLOCK_EXCLUSIVE: Self = Self(ffi::SQLITE_SHM_UNLOCK | ffi::SQLITE_SHM_EXCLUSIVE);

    /// The flags with these bits.
    pub const fn from_bits(bits: c_int) -> Self {
        Self(bits)
    }

    /// The bits.
    pub const fn bits(self) -> c_int {
        self.0
    }

    /// Whether the lock is taken, not released.
    pub const fn is_lock(self) -> bool {
        self.0 & ffi::SQLITE_SHM_LOCK != 0
    }

    /// Whether the lock is released.
    pub const fn is_unlock(self) -> bool {
        self.0 & ffi::SQLITE_SHM_UNLOCK != 0
    }

    /// Whether the lock is an exclusive one.
    pub const fn is_exclusive(self) -> bool {
        self.0 & ffi::SQLITE_SHM_EXCLUSIVE != 0
    }
}

/// The slots of the WAL-index that `xShmLock` locks.
///
/// Source: <https://www.sqlite.org/walformat.html#wal_locks>.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShmLock {
    /// The first slot, 0 to 7.
    pub first: u8,
    /// How many slots, 1 to 8.
    pub count: u8,
}

impl ShmLock {
    /// The slot of the writer, `WAL_WRITE_LOCK`.
    pub const WRITE: u8 = 0;
    /// The slot of the checkpointer, `WAL_CKPT_LOCK`.
    pub const CHECKPOINT: u8 = 1;
    /// The slot of recovery, `WAL_RECOVER_LOCK`.
    pub const RECOVER: u8 = 2;
    /// The first slot of the five readers, `WAL_READ_LOCK(0)`.
    pub const READ_0: u8 = 3;

    /// Whether `slot` is among them.
    pub const fn covers(self, slot: u8) -> bool {
        self.first <= slot && slot < self.first + self.count
    }
}

/// What a file's device promises: `SQLITE_IOCAP_*`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceCharacteristics(c_int);

impl DeviceCharacteristics {
    /// No promise.
    pub const NONE: Self = Self(0);
    /// The file never changes: SQLite takes no locks.
    pub const IMMUTABLE: Self = Self(ffi::SQLITE_IOCAP_IMMUTABLE);
    /// A write that fails leaves the bytes around it alone.
    pub const POWERSAFE_OVERWRITE: Self = Self(ffi::SQLITE_IOCAP_POWERSAFE_OVERWRITE);
    /// A batch of writes may be made atomic by file controls.
    pub const BATCH_ATOMIC: Self = Self(ffi::SQLITE_IOCAP_BATCH_ATOMIC);
    /// Reading less than a page is as good as reading a page (SQLite 3.50 and later).
    pub const SUBPAGE_READ: Self = Self(0x8000);

    /// The flags with these bits.
    pub const fn from_bits(bits: c_int) -> Self {
        Self(bits)
    }

    /// The bits.
    pub const fn bits(self) -> c_int {
        self.0
    }

    /// Both together.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// These without `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_read_from_the_flags() {
        let flags =
            OpenFlags::from_bits(ffi::SQLITE_OPEN_WAL | ffi::SQLITE_OPEN_READWRITE | ffi::SQLITE_OPEN_CREATE);
        assert_eq!(flags.kind(), FileKind::Wal);
        assert!(!flags.is_readonly());
        assert_eq!(OpenFlags::READONLY.kind(), FileKind::Other);
        assert_eq!(OpenFlags::MAIN_DB.with(OpenFlags::READONLY).kind(), FileKind::MainDb);
    }

    #[test]
    fn levels_keep_their_order_and_numbers() {
        for raw in 0..=4 {
            assert_eq!(LockLevel::from_raw(raw).map(LockLevel::get), Some(raw));
        }
        assert_eq!(LockLevel::from_raw(5), None);
        assert!(LockLevel::Shared < LockLevel::Reserved);
    }

    #[test]
    fn a_range_of_slots_covers_its_own() {
        let lock = ShmLock { first: 0, count: 3 };
        assert!(lock.covers(ShmLock::WRITE) && lock.covers(ShmLock::RECOVER));
        assert!(!lock.covers(ShmLock::READ_0));
    }
}
