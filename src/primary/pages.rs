//! Pages on their way from the WAL into LTX files.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;

use crate::error::{Error, Result};
use crate::ltx::Encoder;
use crate::page::{PageCount, PageSize, Pgno};
use crate::wal::{Committed, FrameNo};

/// The newest content of pages.
pub(super) type Pages = BTreeMap<Pgno, Box<[u8]>>;

/// Reads the page of a frame that a scan found.
///
/// # Errors
/// `Io`.
pub(super) fn read_page(wal: &File, frame: FrameNo, page_size: PageSize) -> Result<Box<[u8]>> {
    let mut page = vec![0; page_size.bytes()].into_boxed_slice();
    wal.read_exact_at(&mut page, frame.page_offset(page_size))
        .map_err(|e| Error::io("cannot read the WAL", e))?;
    Ok(page)
}

/// Encodes all of `pages`.
pub(super) fn encode_pages<W: Write>(encoder: &mut Encoder<W>, pages: &Pages) -> Result<()> {
    pages.iter().try_for_each(|(pgno, page)| encoder.page(*pgno, page))
}

/// Encodes `pending` with the pages of `committed` over them, in order, one page in memory at a time.
pub(super) fn encode_overlay<W: Write>(
    encoder: &mut Encoder<W>,
    pending: &Pages,
    wal: &File,
    committed: &Committed,
) -> Result<()> {
    let mut old = pending.range(..=last_page(committed.commit)).peekable();
    for (pgno, frame) in &committed.pages {
        while let Some((older, page)) = old.next_if(|(older, _)| *older < pgno) {
            encoder.page(*older, page)?;
        }
        old.next_if(|(older, _)| *older == pgno);
        encoder.page(*pgno, &read_page(wal, *frame, committed.page_size)?)?;
    }
    old.try_for_each(|(pgno, page)| encoder.page(*pgno, page))
}

fn last_page(commit: PageCount) -> Pgno {
    commit.last().unwrap_or(Pgno::ONE)
}
