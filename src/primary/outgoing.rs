//! The file that is on its way to the replica.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use crate::error::{Error, Result};
use crate::ltx::{Encoder, Header, Txid};
use crate::primary::commits::CommitSeq;
use crate::primary::pages::{Pages, encode_pages};
use crate::primary::spool::{Segment, Spool, merge_as};

/// Files are made in memory up to this, else on disk.
const MEMORY_LIMIT: u64 = 4 * 1024 * 1024;

/// Where the pages of the file are.
#[derive(Clone, Debug)]
enum Source {
    /// In memory, and nowhere else unless `inputs` says so.
    Memory(Arc<Pages>),
    /// In files of the spool, oldest first.
    Spool(Vec<Segment>),
}

/// The bytes of a file, ready to be sent.
#[derive(Debug)]
pub(super) enum Body {
    /// In memory.
    Memory(Bytes),
    /// In a scratch file.
    File(PathBuf),
}

/// A file that is on its way as `txid`. Until its fate is known it is sent again, header and pages the
/// same, because an earlier attempt may have landed.
#[derive(Clone, Debug)]
pub(super) struct Outgoing {
    pub(super) txid: Txid,
    pub(super) header: Header,
    source: Source,
    /// How many spool files hold the same pages, the oldest ones there. 0: they are nowhere on disk.
    pub(super) inputs: usize,
    /// The last commit that the file holds.
    pub(super) covers: CommitSeq,
    /// The capture that the file was made from.
    pub(super) mark: u64,
}

impl Outgoing {
    /// A file of pages that are only in memory. The spool is empty.
    pub(super) fn of_pages(header: Header, pages: Pages, covers: CommitSeq, mark: u64) -> Self {
        let source = Source::Memory(Arc::new(pages));
        Self { txid: header.max, header, source, inputs: 0, covers, mark }
    }

    /// A file of all that is in the spool.
    pub(super) fn of_spool(header: Header, spool: &Spool, covers: CommitSeq, mark: u64) -> Self {
        let segments = spool.segments().to_vec();
        let inputs = segments.len();
        Self { txid: header.max, header, source: Source::Spool(segments), inputs, covers, mark }
    }

    /// Makes sure that the pages are in the spool too. Nothing was captured into the spool since the
    /// file was made from memory, so it is the oldest there.
    ///
    /// # Errors
    /// `Io`, `NoSpace` on the spool.
    pub(super) fn keep(&mut self, spool: &mut Spool) -> Result<()> {
        if let (0, Source::Memory(pages)) = (self.inputs, &self.source) {
            spool.write(self.header, |encoder| encode_pages(encoder, pages))?;
            self.inputs = 1;
        }
        Ok(())
    }

    /// Makes the bytes; `scratch` is where they may go if they are many.
    ///
    /// # Errors
    /// `Io`, `Corrupt` on the spool.
    pub(super) fn encode(&self, scratch: &Path) -> Result<Body> {
        match &self.source {
            Source::Memory(pages) => {
                let mut encoder = Encoder::new(Vec::new(), self.header)?;
                encode_pages(&mut encoder, pages)?;
                Ok(Body::Memory(encoder.finish()?.0.into()))
            }
            Source::Spool(segments) => self.merge(segments, scratch),
        }
    }

    fn merge(&self, segments: &[Segment], scratch: &Path) -> Result<Body> {
        let inputs = segments.iter().map(Segment::open).collect::<Result<Vec<_>>>()?;
        if segments.iter().map(|s| s.size).sum::<u64>() <= MEMORY_LIMIT {
            return Ok(Body::Memory(merge_as(inputs, Vec::new(), self.header)?.0.into()));
        }
        let failed = |e| Error::io(format_args!("cannot write {}", scratch.display()), e);
        let out = BufWriter::with_capacity(256 * 1024, File::create(scratch).map_err(failed)?);
        // The encoder flushes what it has written.
        merge_as(inputs, out, self.header)?;
        Ok(Body::File(scratch.to_path_buf()))
    }
}
