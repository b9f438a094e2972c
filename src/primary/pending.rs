//! Pages that were captured into memory and are in no file yet.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;

use crate::error::Result;
use crate::ltx::{Encoder, Header};
use crate::page::Pgno;
use crate::wal::Committed;

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
    pub(super) fn add(&mut self, committed: &Committed, pages: Vec<(Pgno, Box<[u8]>)>, header: Header) {
        self.pages.extend(pages);
        self.pages.retain(|pgno, _| committed.commit.contains(*pgno));
        self.header = Some(header);
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
        let mut newer = vec![0; committed.page_size.bytes()];
        for (pgno, frame) in &committed.pages {
            while let Some((older, page)) = old.next_if(|(older, _)| *older < pgno) {
                encoder.page(*older, page)?;
            }
            old.next_if(|(older, _)| *older == pgno);
            committed.read_page(wal, *frame, &mut newer)?;
            encoder.page(*pgno, &newer)?;
        }
        old.try_for_each(|(pgno, page)| encoder.page(*pgno, page))
    }
}
