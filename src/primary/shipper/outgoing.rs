//! The file that is on its way to the replica.

use std::io::{Read, Write};

use bytes::Bytes;

use crate::error::Result;
use crate::ltx::{Decoder, Encoder, FileId, Header, Merger, Summary, Txid};
use crate::primary::dirty::{Cursor, PageSet};
use crate::primary::hooks::CommitSeq;
use crate::primary::seals::{Seals, Subject};
use crate::primary::shipper::spool::{Segment, Spool};
use crate::primary::shipper::sums::{PageSums, sum_of};

/// Files up to this size are made in memory and sent in one request.
const MEMORY_LIMIT: u64 = 4 * 1024 * 1024;

/// Where the bytes are.
#[derive(Clone, Debug)]
pub(in crate::primary) enum Body {
    /// In waiting files, of which each attempt makes the same file while it sends it.
    Waiting(Vec<Segment>),
    /// In memory.
    Memory(Bytes),
}

/// A file that is on its way as `txid`. Until its fate is known it is sent again as it is, because an
/// earlier attempt may have landed.
#[derive(Clone, Debug)]
pub(in crate::primary) struct Outgoing {
    pub(in crate::primary) txid: Txid,
    pub(in crate::primary) header: Header,
    pub(in crate::primary) body: Body,
    /// How many spool files hold the same pages. 0: the pages are nowhere else on disk.
    pub(in crate::primary) inputs: usize,
    /// The last commit that the file holds.
    pub(in crate::primary) covers: CommitSeq,
    /// The pages.
    pub(in crate::primary) pages: PageSet,
    /// Their checksums, if it is in memory.
    pub(in crate::primary) sums: PageSums,
    /// Up to where all commits are in this file and those before it, and the number of that capture.
    pub(in crate::primary) cursor: (Cursor, u64),
}

impl Outgoing {
    /// Makes sure that the pages are in the spool too. Nothing was captured into the spool since the
    /// file was made from memory, so it is the oldest there.
    ///
    /// # Errors
    /// `Io`, `NoSpace` on the spool.
    pub(in crate::primary) fn keep(&mut self, spool: &mut Spool) -> Result<()> {
        let Body::Memory(bytes) = &self.body else { return Ok(()) };
        if self.inputs > 0 {
            return Ok(());
        }
        let mut decoder = spool.seals().open(&bytes[..])?;
        let mut page = vec![0; self.header.page_size.bytes()];
        spool.write(self.header, self.covers, &self.pages, |encoder| {
            copy_pages(&mut decoder, encoder, &mut page)
        })?;
        self.inputs = 1;
        Ok(())
    }

    /// The waiting files that hold the pages, if together they are small: they are sent from memory. Needs no lock.
    pub(in crate::primary) fn small_files(&self) -> Option<&[Segment]> {
        match &self.body {
            Body::Waiting(files) if files.iter().map(|file| file.size).sum::<u64>() <= MEMORY_LIMIT => {
                Some(files)
            }
            Body::Waiting(_) | Body::Memory(_) => None,
        }
    }
}

/// Writes the newest of every page of `files`, oldest first, as a file with `header`; returns the checksums of the pages.
///
/// # Errors
/// `Corrupt` or `NotFound` if a waiting file is broken or gone; `Io`; what writing says.
pub(in crate::primary) fn write_as_one<W: Write>(
    files: &[Segment],
    out: W,
    header: Header,
    seals: &Seals,
) -> Result<(W, Summary, PageSums)> {
    let mut merger = Merger::new(files.iter().map(|file| file.open(seals)).collect::<Result<Vec<_>>>()?)?;
    let id = FileId::single(header.max);
    let mut encoder = seals.encoder(out, header, Subject::Replica(id), seals.keep_of(id.level))?;
    let mut sums = Vec::new();
    while let Some((pgno, page)) = merger.next_page()? {
        encoder.page(pgno, page)?;
        sums.push((pgno, sum_of(page)));
    }
    merger.finish()?;
    let (out, summary) = encoder.finish()?;
    Ok((out, summary, sums))
}

/// Copies all pages.
///
/// # Errors
/// Those of reading and writing.
pub(in crate::primary) fn copy_pages<R: Read, W: Write>(
    from: &mut Decoder<R>,
    to: &mut Encoder<W>,
    page: &mut [u8],
) -> Result<()> {
    while let Some(pgno) = from.next_page(page)? {
        to.page(pgno, page)?;
    }
    Ok(())
}
