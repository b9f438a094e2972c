//! Pages that were captured into memory and are in no file yet.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;

use crate::error::{Error, Result};
use crate::ltx::{Encoder, Header};
use crate::page::{PageSize, Pgno};
use crate::wal::{Committed, FrameNo};

/// Captured pages are kept in memory up to this; beyond, they go to the spool.
const MEMORY_LIMIT: usize = 4 * 1024 * 1024;

/// Pages that were captured into memory and are in no file yet.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// The newest content of each page, at most `MEMORY_LIMIT` bytes.
    pages: BTreeMap<Pgno, Box<[u8]>>,
    /// The header of the file that they would be, but for its transactions.
    header: Option<Header>,
}

impl Pending {
    /// The header of the file that they would be, but for its transactions. `None` if there are none.
    pub(super) fn header(&self) -> Option<Header> {
        self.header
    }

    /// Whether the pages of `committed` may join them in memory.
    pub(super) fn has_room_for(&self, committed: &Committed) -> bool {
        (self.pages.len() + committed.pages.len()) * committed.page_size.bytes() <= MEMORY_LIMIT
    }

    /// Takes the pages of `committed`, which is newer; `header` is that of a file with all of them.
    ///
    /// # Errors
    /// `Io` on the WAL; some pages are newer then, and `header` is as it was.
    pub(super) fn add(&mut self, committed: &Committed, wal: &File, header: Header) -> Result<()> {
        for (pgno, frame) in &committed.pages {
            self.pages.insert(*pgno, read_page(wal, *frame, committed.page_size)?);
        }
        self.pages.retain(|pgno, _| committed.commit.contains(*pgno));
        self.header = Some(header);
        Ok(())
    }

    /// Writes the pages, in order.
    pub(super) fn encode<W: Write>(&self, encoder: &mut Encoder<W>) -> Result<()> {
        self.pages.iter().try_for_each(|(pgno, page)| encoder.page(*pgno, page))
    }

    /// Writes the pages with those of `committed` over them, in order, one page of it in memory at a
    /// time.
    pub(super) fn encode_under<W: Write>(
        &self,
        committed: &Committed,
        wal: &File,
        encoder: &mut Encoder<W>,
    ) -> Result<()> {
        let last = committed.commit.last().unwrap_or(Pgno::ONE);
        let mut old = self.pages.range(..=last).peekable();
        for (pgno, frame) in &committed.pages {
            while let Some((older, page)) = old.next_if(|(older, _)| *older < pgno) {
                encoder.page(*older, page)?;
            }
            old.next_if(|(older, _)| *older == pgno);
            encoder.page(*pgno, &read_page(wal, *frame, committed.page_size)?)?;
        }
        old.try_for_each(|(pgno, page)| encoder.page(*pgno, page))
    }
}

fn read_page(wal: &File, frame: FrameNo, page_size: PageSize) -> Result<Box<[u8]>> {
    let mut page = vec![0; page_size.bytes()].into_boxed_slice();
    wal.read_exact_at(&mut page, frame.page_offset(page_size))
        .map_err(|e| Error::io("cannot read the WAL", e))?;
    Ok(page)
}
