//! What the write flow needs of SQLite; the `vfs` room provides it.

use std::path::Path;
use std::time::Duration;

use crate::error::Result;
use crate::page::{PageCount, PageSize};
use crate::wal::IndexHeader;

/// One database, as SQLite's own VFS and locks show it.
pub trait Host: Send + Sync {
    /// Opens a consistent view of the database as of its last commit, or `None` while the database is
    /// empty.
    ///
    /// # Errors
    /// `Busy` if the locks cannot be had now, or the database is not yet in WAL mode; `Io`, `Corrupt`.
    fn read_view(&self) -> Result<Option<Box<dyn ReadView>>>;

    /// Replaces the content of the database by that of the database file `source`, which nobody else uses and
    /// which has a rollback journal, in one transaction while nobody else has the database open; `is_current`
    /// is asked then whether the database is still what it was.
    ///
    /// # Errors
    /// `Busy` if a program has it open, or it is not what it was; `Io`, `NoSpace`, `Corrupt`.
    fn overwrite(&self, source: &Path, is_current: &dyn Fn() -> bool) -> Result<()>;

    /// Waits at most `timeout` until no view is open; `false` if none was.
    fn wait_for_views(&self, timeout: Duration) -> bool;
}

/// A consistent view of a database. While it lives no checkpoint overwrites what it shows, and the
/// part of the WAL that it needs stays.
pub trait ReadView: Send {
    /// The page size.
    fn page_size(&self) -> PageSize;

    /// The size of the database in this view.
    fn commit(&self) -> PageCount;

    /// The last commit of the view, or `None` if there is no WAL index to tell it.
    fn header(&self) -> Option<IndexHeader>;

    /// Whether pages must be looked for in the WAL, up to the header's `mx_frame`, before the database
    /// file is asked.
    fn uses_wal(&self) -> bool;

    /// Reads from the database *file*; what is beyond its end reads as zeros.
    fn read_file(&mut self, buf: &mut [u8], offset: u64) -> Result<()>;
}
