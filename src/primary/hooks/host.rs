//! What the write flow needs of SQLite; the `vfs` room provides it.

use std::path::Path;

use crate::error::Result;
use crate::page::{PageCount, PageSize, Pgno};
use crate::primary::page_set::PageSet;
use crate::wal::{FrameHeader, FrameNo, IndexHeader};

/// One database, as SQLite's own VFS and locks show it.
pub trait Host: Send + Sync {
    /// Pins a consistent view of the database as of its last commit, or `None` while the database is empty. It runs no
    /// SQL that needs sound pages. `measured` answers the measures of the database file as it is at the moment of the
    /// question; only a file of which neither the first page nor the WAL index says it is asked for.
    ///
    /// # Errors
    /// `Busy` if the locks cannot be had now, or there is no WAL database yet, with what is missing; `Io`.
    fn pin(&self, measured: &dyn Fn() -> Option<Measures>) -> Result<Option<Box<dyn PinnedView>>>;

    /// Replaces the content of the database by that of the database file `source`, which nobody else uses and
    /// which has a rollback journal, in one transaction while nobody else has the database open; `is_current`
    /// is asked then whether the database is still what it was.
    ///
    /// # Errors
    /// `Busy` if a program has it open, or it is not what it was; `Io`, `NoSpace`, `Corrupt`.
    fn overwrite(&self, source: &Path, is_current: &dyn Fn() -> bool) -> Result<()>;
}

/// The measures of a database in WAL mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measures {
    /// The page size.
    pub page_size: PageSize,
    /// The size in pages.
    pub pages: PageCount,
}

/// The WAL index as one connection has it mapped.
pub trait WalIndex {
    /// The header, if both copies of it agree.
    fn header(&self) -> Option<IndexHeader>;

    /// The pages of the frames after `after` up to `last`. `None` if the index cannot be read.
    fn pages(&mut self, after: FrameNo, last: FrameNo) -> Option<PageSet>;
}

/// A consistent view of a database, as a reader of SQLite pins it: while it lives no checkpoint overwrites what it
/// shows, and the part of the WAL that it needs stays.
pub trait PinnedView: Send {
    /// The page size in bytes.
    fn page_size(&self) -> PageSize;

    /// The size of the database in the view.
    fn commit(&self) -> PageCount;

    /// The header of the WAL index that the view was pinned with.
    fn header(&self) -> IndexHeader;

    /// The pages of the frames after `after` up to the last frame of the view. `None` if the WAL was restarted
    /// meanwhile, as it may be if the view uses no frame of it: then a new view is to be pinned.
    ///
    /// # Errors
    /// `Io`, `Corrupt`.
    fn pages_after(&mut self, after: FrameNo) -> Result<Option<PageSet>>;

    /// The header of a frame in the WAL file, as it is there now. `None` if the file does not have it.
    ///
    /// # Errors
    /// `Io`.
    fn frame(&mut self, frame: FrameNo) -> Result<Option<FrameHeader>>;

    /// Reads the pages from `first` on into `pages`, whose size is a multiple of the page size, each as the view
    /// shows it. What is beyond the end of the database file reads as zeros.
    ///
    /// # Errors
    /// `Io`, `Corrupt`.
    fn read_pages(&mut self, first: Pgno, pages: &mut [u8]) -> Result<()>;

    /// From now on shows pages and size as they were after `frame`, which ended a transaction; with 0, as they were before
    /// the first frame of the WAL. A page that has none up to `frame` is read from the database file, into which a later
    /// one may have been copied: who needs to know compares. `false`, and nothing else, if the view has no such frame.
    ///
    /// # Errors
    /// `Io`. Later reads answer `Busy` if the WAL was restarted meanwhile.
    fn rewind(&mut self, frame: FrameNo) -> Result<bool>;
}
