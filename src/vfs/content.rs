//! Reads pages of a view from the WAL and the database file.

use std::fs::File;
use std::io::ErrorKind as IoErrorKind;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::page::{PageSize, Pgno};
use crate::wal::{FrameHeader, FrameNo, WalHeader};

/// The WAL file of a view, opened when it is needed and the view's locks are held.
#[derive(Debug)]
pub(super) struct WalReader {
    path: PathBuf,
    file: Option<File>,
}

impl WalReader {
    /// That of the database `database`.
    pub(super) fn of(database: &Path) -> Self {
        Self { path: wal_path(database), file: None }
    }

    fn file(&mut self) -> Result<Option<&File>> {
        if self.file.is_none() {
            self.file = match File::open(&self.path) {
                Ok(file) => Some(file),
                Err(e) if e.kind() == IoErrorKind::NotFound => None,
                Err(e) => return Err(Error::io(self.path.display(), e)),
            };
        }
        Ok(self.file.as_ref())
    }

    /// Whether it is there with something in it.
    ///
    /// # Errors
    /// `Io`.
    pub(super) fn is_empty(&self) -> Result<bool> {
        match std::fs::metadata(&self.path) {
            Ok(meta) => Ok(meta.len() == 0),
            Err(e) if e.kind() == IoErrorKind::NotFound => Ok(true),
            Err(e) => Err(Error::io(self.path.display(), e)),
        }
    }

    /// Fills `buf` from `offset` on; `false` if the file ends before that, or is not there.
    fn fill(&mut self, buf: &mut [u8], offset: u64) -> Result<bool> {
        let Some(file) = self.file()? else { return Ok(false) };
        match file.read_exact_at(buf, offset) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == IoErrorKind::UnexpectedEof => Ok(false),
            Err(e) => Err(Error::io(self.path.display(), e)),
        }
    }

    /// Its header; `None` if there is none, or no sound one.
    ///
    /// # Errors
    /// `Io`.
    pub(super) fn header(&mut self) -> Result<Option<WalHeader>> {
        let mut bytes = [0; WalHeader::SIZE];
        Ok(self.fill(&mut bytes, 0)?.then(|| WalHeader::decode(&bytes).ok()).flatten())
    }

    /// The header of a frame; `None` if the file does not have it. Not for frame 0.
    ///
    /// # Errors
    /// `Io`.
    pub(super) fn frame(&mut self, frame: FrameNo, page_size: PageSize) -> Result<Option<FrameHeader>> {
        let mut bytes = [0; FrameHeader::SIZE];
        let offset = frame.page_offset(page_size) - FrameHeader::SIZE as u64;
        Ok(self.fill(&mut bytes, offset)?.then(|| FrameHeader::decode(&bytes)))
    }

    fn page(&mut self, frame: FrameNo, page_size: PageSize, page: &mut [u8]) -> Result<()> {
        if self.fill(page, frame.page_offset(page_size))? {
            return Ok(());
        }
        let path = self.path.display();
        Err(Error::corrupt(format!("{path} ends before frame {frame}, which its index says is committed")))
    }
}

/// The name of the WAL of a database.
pub(super) fn wal_path(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}

/// What a view reads from.
pub(super) trait Source {
    fn page_size(&self) -> PageSize;

    fn wal(&mut self) -> &mut WalReader;

    /// The frame from which a page is to be read; `None` for the database file.
    ///
    /// # Errors
    /// `Io`, `Corrupt` on the index.
    fn frame_of(&mut self, pgno: Pgno) -> Result<Option<FrameNo>>;

    /// Reads from the database file; what is beyond its end reads as zeros.
    ///
    /// # Errors
    /// `Io`.
    fn read_file(&mut self, buf: &mut [u8], offset: u64) -> Result<()>;
}

/// Reads the pages from `first` on into `pages`, those of the database file as many at once as there are in a row.
///
/// # Errors
/// Those of the source.
pub(super) fn read_pages(source: &mut impl Source, first: Pgno, pages: &mut [u8]) -> Result<()> {
    let page_size = source.page_size();
    let (start, size) = (page_size.offset_of(first), page_size.bytes());
    // Where those begin that are still to be read from the database file.
    let mut pending = 0;
    for at in (0..pages.len()).step_by(size) {
        let pgno = page_size.page_at(start + at as u64).expect("BUG: no view has such a page");
        if let Some(frame) = source.frame_of(pgno)? {
            if pending < at {
                source.read_file(&mut pages[pending..at], start + pending as u64)?;
            }
            source.wal().page(frame, page_size, &mut pages[at..at + size])?;
            pending = at + size;
        }
    }
    if pending < pages.len() {
        source.read_file(&mut pages[pending..], start + pending as u64)?;
    }
    Ok(())
}
