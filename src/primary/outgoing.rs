//! The file that is on its way to the replica.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::PathBuf;

use bytes::Bytes;

use crate::error::{Error, Result};
use crate::ltx::{Decoder, Encoder, Header, Txid};
use crate::primary::commits::CommitSeq;
use crate::primary::spool::Spool;

/// Where the bytes are.
#[derive(Clone, Debug)]
pub(super) enum Body {
    /// In memory.
    Memory(Bytes),
    /// In a scratch file of the spool.
    File {
        /// Its path.
        path: PathBuf,
    },
}

/// A file that is on its way as `txid`. Until its fate is known it is sent again as it is, because an
/// earlier attempt may have landed.
#[derive(Clone, Debug)]
pub(super) struct Outgoing {
    pub(super) txid: Txid,
    pub(super) header: Header,
    pub(super) body: Body,
    /// How many spool files hold the same pages. 0: the pages are nowhere else on disk.
    pub(super) inputs: usize,
    /// The last commit that the file holds.
    pub(super) covers: CommitSeq,
    /// The capture that the file was made from.
    pub(super) mark: u64,
}

impl Outgoing {
    /// Makes sure that the pages are in the spool too. Nothing was captured into the spool since the
    /// file was made from memory, so it is the oldest there.
    ///
    /// # Errors
    /// `Io`, `NoSpace` on the spool.
    pub(super) fn keep(&mut self, spool: &mut Spool) -> Result<()> {
        if self.inputs > 0 {
            return Ok(());
        }
        let mut decoder = Decoder::new(self.reader()?)?;
        let mut page = vec![0; self.header.page_size.bytes()];
        spool.write(self.header, |encoder| copy_pages(&mut decoder, encoder, &mut page))?;
        self.inputs = 1;
        Ok(())
    }

    /// The bytes from the start.
    ///
    /// # Errors
    /// `Io` on the scratch file.
    pub(super) fn reader(&self) -> Result<Box<dyn Read + Send>> {
        match &self.body {
            Body::Memory(bytes) => Ok(Box::new(std::io::Cursor::new(bytes.clone()))),
            Body::File { path } => {
                let file = File::open(path).map_err(|e| Error::io(path.display(), e))?;
                Ok(Box::new(BufReader::with_capacity(256 * 1024, file)))
            }
        }
    }
}

fn copy_pages<R: Read, W: std::io::Write>(
    from: &mut Decoder<R>,
    to: &mut Encoder<W>,
    page: &mut [u8],
) -> Result<()> {
    while let Some(pgno) = from.next_page(page)? {
        to.page(pgno, page)?;
    }
    Ok(())
}
