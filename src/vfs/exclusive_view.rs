//! The view that a connection has of its own commit while it keeps the database for itself.

use std::path::PathBuf;

use crate::error::{Error, ErrorKind, Result};
use crate::page::{PageCount, PageSize, Pgno};
use crate::primary::{PageSet, PinnedView};
use crate::sqlite::{BaseFile, BaseVfs, OpenFlags};
use crate::vfs::content::{self, Source, WalReader};
use crate::vfs::frame_log::FrameLog;
use crate::vfs::frames::Frames;
use crate::vfs::index;
use crate::wal::{FrameHeader, FrameNo, IndexHeader};

/// Where the index is.
pub(super) enum Index<'a> {
    /// In shared memory, which the connection's file has mapped.
    Shared(&'a mut BaseFile, Frames),
    /// In private memory.
    Private(&'a FrameLog),
}

/// A view of the last commit, of which the committing thread itself takes what it needs.
pub(super) struct ExclusiveView<'a> {
    pub(super) path: PathBuf,
    /// The VFS of the operating system.
    pub(super) vfs: BaseVfs,
    pub(super) header: IndexHeader,
    pub(super) page_size: PageSize,
    pub(super) index: Index<'a>,
    pub(super) wal: WalReader,
    /// Opened when a page is read from it: the connection's own file may be one that decrypts.
    pub(super) file: Option<BaseFile>,
}

impl ExclusiveView<'_> {
    fn failed(&self, why: &dyn std::fmt::Display) -> Error {
        Error::new(ErrorKind::Io, format!("cannot read {}: {why}", self.path.display()))
    }

    fn file(&mut self) -> Result<&mut BaseFile> {
        if self.file.is_none() {
            let opened = self.vfs.open_database(&self.path, &[], OpenFlags::READWRITE);
            self.file = Some(opened.map_err(|code| self.failed(&code))?.0);
        }
        Ok(self.file.as_mut().expect("BUG: it was just opened"))
    }
}

impl Source for ExclusiveView<'_> {
    fn page_size(&self) -> PageSize {
        self.page_size
    }

    fn wal(&mut self) -> &mut WalReader {
        &mut self.wal
    }

    fn frame_of(&mut self, pgno: Pgno) -> Result<Option<FrameNo>> {
        let found = match &mut self.index {
            Index::Shared(file, frames) => frames.find(file, pgno),
            Index::Private(log) => Ok(log.find(pgno)),
        };
        found.map_err(|code| self.failed(&code))
    }

    fn read_file(&mut self, buf: &mut [u8], offset: u64) -> Result<()> {
        let read = self.file()?.read(buf, offset);
        read.map(|_short_is_zeros| ()).map_err(|code| self.failed(&code))
    }
}

impl PinnedView for ExclusiveView<'_> {
    fn page_size(&self) -> PageSize {
        self.page_size
    }

    fn commit(&self) -> PageCount {
        self.header.page_count
    }

    fn header(&self) -> IndexHeader {
        self.header
    }

    fn pages_after(&mut self, after: FrameNo) -> Result<Option<PageSet>> {
        let listed = match &mut self.index {
            Index::Private(log) => log.pages_after(after),
            Index::Shared(file, _) => {
                let listed = index::pages(file, after, self.header.mx_frame);
                listed.map_err(|code| self.failed(&code))?
            }
        };
        let last = self.header.mx_frame;
        listed.map(Some).ok_or_else(|| self.failed(&format_args!("its WAL index does not list frame {last}")))
    }

    fn frame(&mut self, frame: FrameNo) -> Result<Option<FrameHeader>> {
        self.wal.frame(frame, self.page_size)
    }

    fn read_pages(&mut self, first: Pgno, pages: &mut [u8]) -> Result<()> {
        content::read_pages(self, first, pages)
    }

    /// It is a commit of this moment.
    fn rewind(&mut self, _: FrameNo) -> Result<bool> {
        Ok(false)
    }
}
