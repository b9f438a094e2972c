//! The trait of an open file.

use std::any::Any;
use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::Arc;

use super::{
    BaseFile, Code, DeviceCharacteristics, FileControl, LockLevel, Opener, PragmaAnswer, ShmLock,
    ShmLockFlags, ShmRegion, SyncFlags,
};

/// An open file, used by one thread at a time.
///
/// There is one method for each of SQLite's, and every one forwards to [`File::base`] unless it is
/// overridden. A file without a base is one that can be locked and closed, and not read or written.
/// A panic in a method is caught, logged, and becomes that method's own I/O error.
///
/// `read`, `write` and `shm_lock` are the hot ones: what they do is done on each page and each
/// transaction.
///
/// Source: <https://www.sqlite.org/c3ref/io_methods.html>.
pub trait File: Send {
    /// The file of the host's VFS behind this one, if there is one.
    fn base(&mut self) -> Option<&mut BaseFile>;

    /// Reads `buf.len()` bytes at `offset`.
    ///
    /// # Errors
    /// `IOERR_READ`. Reading beyond the end is [`ReadOutcome::Short`], not an error.
    fn read(&mut self, buf: &mut [u8], offset: u64) -> Result<ReadOutcome, Code> {
        self.base().ok_or(Code::IOERR_READ)?.read(buf, offset)
    }

    /// Writes all of `data` at `offset`.
    ///
    /// # Errors
    /// `IOERR_WRITE`, `FULL`, `READONLY`.
    fn write(&mut self, data: &[u8], offset: u64) -> Result<(), Code> {
        self.base().ok_or(Code::READONLY)?.write(data, offset)
    }

    /// Makes the file `size` bytes long.
    ///
    /// # Errors
    /// `IOERR_TRUNCATE`, `READONLY`.
    fn truncate(&mut self, size: u64) -> Result<(), Code> {
        self.base().ok_or(Code::READONLY)?.truncate(size)
    }

    /// Makes what was written durable.
    ///
    /// # Errors
    /// `IOERR_FSYNC`.
    fn sync(&mut self, flags: SyncFlags) -> Result<(), Code> {
        self.base().map_or(Ok(()), |base| base.sync(flags))
    }

    /// The size in bytes.
    ///
    /// # Errors
    /// `IOERR_FSTAT`.
    fn file_size(&mut self) -> Result<u64, Code> {
        self.base().map_or(Ok(0), BaseFile::file_size)
    }

    /// Raises the lock to `level`.
    ///
    /// # Errors
    /// `BUSY`, or an I/O error.
    fn lock(&mut self, level: LockLevel) -> Result<(), Code> {
        self.base().map_or(Ok(()), |base| base.lock(level))
    }

    /// Lowers the lock to `level`, which is `None` or `Shared`.
    ///
    /// # Errors
    /// `IOERR_UNLOCK`.
    fn unlock(&mut self, level: LockLevel) -> Result<(), Code> {
        self.base().map_or(Ok(()), |base| base.unlock(level))
    }

    /// Whether any connection holds a lock of `Reserved` or more.
    ///
    /// # Errors
    /// `IOERR_CHECKRESERVEDLOCK`.
    fn check_reserved_lock(&mut self) -> Result<bool, Code> {
        self.base().map_or(Ok(false), BaseFile::check_reserved_lock)
    }

    /// Answers a PRAGMA statement, before SQLite looks at it itself. `name` is as it was written, in
    /// any case of letters.
    fn pragma(&mut self, name: &str, arg: Option<&str>) -> PragmaAnswer {
        let _ = (name, arg);
        PragmaAnswer::NotMine
    }

    /// The file that takes this one's place for good, if any. Asked when SQLite tells to which connection the
    /// file belongs: right after the open, when nothing of it but the header was read. The control goes on to
    /// the file that is then there.
    fn settle(&mut self, opener: &Opener) -> Option<Box<dyn File>> {
        let _ = opener;
        None
    }

    /// Any other file control. The base VFS's answer to `VFSNAME` gets our name in front, whatever
    /// this does.
    ///
    /// # Errors
    /// `NOTFOUND` if the operation is not known.
    fn file_control(&mut self, control: FileControl<'_>) -> Result<(), Code> {
        self.base().ok_or(Code::NOTFOUND)?.file_control(control)
    }

    /// The sector size of the device in bytes.
    fn sector_size(&mut self) -> u32 {
        self.base().map_or(4096, BaseFile::sector_size)
    }

    /// What the device promises.
    fn device_characteristics(&mut self) -> DeviceCharacteristics {
        self.base().map_or(DeviceCharacteristics::NONE, BaseFile::device_characteristics)
    }

    /// Maps region number `region` of the shared memory; each region has `size` bytes. `None` if it is
    /// not there and `extend` is false.
    ///
    /// Once mapped it can be had again from [`BaseFile::shm_region`].
    ///
    /// # Errors
    /// As [`BaseFile::shm_map`].
    fn shm_map(&mut self, region: u32, size: u32, extend: bool) -> Result<Option<ShmRegion<'_>>, Code> {
        self.base().ok_or(Code::IOERR_SHMMAP)?.shm_map(region, size, extend)
    }

    /// Takes or releases locks on slots of the shared memory.
    ///
    /// # Errors
    /// `BUSY`, `IOERR_SHMLOCK`.
    fn shm_lock(&mut self, lock: ShmLock, flags: ShmLockFlags) -> Result<(), Code> {
        self.base().ok_or(Code::IOERR_SHMLOCK)?.shm_lock(lock, flags)
    }

    /// Orders all loads and stores before it and all after it.
    fn shm_barrier(&mut self) {
        match self.base() {
            Some(base) => base.shm_barrier(),
            None => std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst),
        }
    }

    /// Unmaps the shared memory, and deletes it if `delete`.
    ///
    /// # Errors
    /// An I/O error.
    fn shm_unmap(&mut self, delete: bool) -> Result<(), Code> {
        self.base().map_or(Ok(()), |base| base.shm_unmap(delete))
    }

    /// A pointer to `amount` bytes at `offset` in a memory map of the file; `None` if there is none.
    ///
    /// # Errors
    /// An I/O error.
    fn fetch(&mut self, offset: u64, amount: usize) -> Result<Option<Fetched>, Code> {
        self.base().map_or(Ok(None), |base| base.fetch(offset, amount))
    }

    /// Gives back what `fetch` gave for `offset`; with `None` the whole map must go.
    ///
    /// # Errors
    /// An I/O error.
    fn unfetch(&mut self, offset: u64, fetched: Option<Fetched>) -> Result<(), Code> {
        self.base().map_or(Ok(()), |base| base.unfetch(offset, fetched))
    }

    /// Closes the file. It is dropped next, whatever the answer is.
    ///
    /// # Errors
    /// `IOERR_CLOSE`.
    fn close(&mut self) -> Result<(), Code> {
        self.base().map_or(Ok(()), BaseFile::close)
    }

    /// Which of SQLite's versions of file methods it has. A file must not claim what its base lacks.
    fn io_version(&mut self) -> IoVersion {
        self.base().map_or(IoVersion::BASIC, |base| base.io_version())
    }

    /// The room's object behind this file, by which SQL functions find it; see
    /// [`roles`](super::roles).
    fn role(&self) -> Option<Arc<dyn Any + Send + Sync>> {
        None
    }

    /// The file itself, for those that a WAL finds by [`DatabaseFile`](super::DatabaseFile).
    fn as_any(&mut self) -> Option<&mut dyn Any> {
        None
    }

    /// The code and message with which `sqlite3_open` fails if this is its database; see
    /// [`RefusedFile`](super::RefusedFile).
    fn open_error(&self) -> Option<(Code, &str)> {
        None
    }

    /// Whether `sqlite3_open` shall read the header again at its end, because this file was not there yet when
    /// SQLite read it: without that, it would answer `PRAGMA page_size` with its default until the first query.
    fn has_late_header(&self) -> bool {
        false
    }
}

/// Which optional methods a file has. SQLite uses WAL only with `shm`, and memory maps with `fetch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoVersion {
    /// The methods of version 2: shared memory.
    pub shm: bool,
    /// The methods of version 3: memory maps.
    pub fetch: bool,
}

impl IoVersion {
    /// Version 1: neither.
    pub const BASIC: Self = Self { shm: false, fetch: false };
}

/// What a read found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum ReadOutcome {
    /// All bytes.
    Full,
    /// The file ends before that. The rest of the buffer has been filled with zeros, as SQLite demands.
    Short,
}

impl ReadOutcome {
    /// The outcome of a read that filled the first `read` bytes of `buf`; the rest is filled with zeros.
    pub fn of(buf: &mut [u8], read: usize) -> Self {
        match buf.get_mut(read..) {
            None | Some([]) => Self::Full,
            Some(rest) => {
                rest.fill(0);
                Self::Short
            }
        }
    }
}

/// A place in a memory map of the base file. Only the base file can make one.
#[derive(Clone, Copy, Debug)]
pub struct Fetched(pub(super) NonNull<c_void>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_read_is_filled_with_zeros() {
        let mut buf = [7; 4];
        assert_eq!(ReadOutcome::of(&mut buf, 4), ReadOutcome::Full);
        assert_eq!(buf, [7; 4]);
        assert_eq!(ReadOutcome::of(&mut buf, 1), ReadOutcome::Short);
        assert_eq!(buf, [7, 0, 0, 0]);
    }
}
