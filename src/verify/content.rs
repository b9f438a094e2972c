//! One file: to its end, or only its header and page index.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Buf as _, Bytes};
use futures_util::StreamExt as _;
use tokio::runtime::Handle;

use crate::error::{Error, ErrorKind, Result};
use crate::ltx::{Decoder, Header, PageIndex, TailRead};
use crate::page::Pgno;
use crate::replica::{Body, Source, read_tail};
use crate::runtime;
use crate::store::{ByteRange, FileInfo};

/// A file of up to this many bytes comes whole: it is a single request.
const SMALL: u64 = 64 * 1024;

/// Reads again if bytes are wrong: they may be damaged in the store, or only on their way.
///
/// # Errors
/// Those of the second time.
pub(super) fn twice<T>(read: impl Fn() -> Result<T>) -> Result<T> {
    match read() {
        Err(e) if e.kind() == ErrorKind::Corrupt => read(),
        done => done,
    }
}

/// A file that was read to its end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Checked {
    pub(super) header: Header,
    /// Its pages were decoded. If not, it is sealed and there was no identity: only its bytes were verified.
    pub(super) content: bool,
}

/// Reads `file` to its end and verifies every checksum. `take` is shown each page that is decoded, before the file's
/// checksum is known. Gives up when `stop` is set.
///
/// # Errors
/// Those of the store; `Corrupt`, `Unsupported`; `Denied` if none of the identities opens it, or if it is not sealed where
/// it must be.
pub(super) fn whole(
    source: &Arc<Source>,
    file: &FileInfo,
    stop: &AtomicBool,
    mut take: impl FnMut(Pgno, &[u8]),
) -> Result<Checked> {
    let mut download = download(source, file, stop)?;
    let mut decoder = Decoder::verifying(&mut download, source.keyring())?;
    let content = decoder.has_content();
    let mut page = vec![0; decoder.header().page_size.bytes()];
    while let Some(pgno) = decoder.next_page(&mut page)? {
        if content {
            take(pgno, &page);
        }
    }
    Ok(Checked { header: decoder.finish()?.header, content })
}

/// Shows every page of `file` to `visit`, in order, as long as that answers true; gives the header when the
/// file was read to its end and every checksum verified, and `None` if `visit` gave up before.
///
/// # Errors
/// Those of the store and of `visit`; `Corrupt`, `Unsupported`; `Denied` if nothing opens it; `Interrupted` when `stop` is
/// set.
pub(crate) fn read_pages(
    source: &Arc<Source>,
    file: &FileInfo,
    stop: &AtomicBool,
    mut visit: impl FnMut(&Header, Pgno, &[u8]) -> Result<bool>,
) -> Result<Option<Header>> {
    let mut download = download(source, file, stop)?;
    let mut decoder = Decoder::open(&mut download, source.keyring())?;
    let header = *decoder.header();
    let mut page = vec![0; header.page_size.bytes()];
    while let Some(pgno) = decoder.next_page(&mut page)? {
        if !visit(&header, pgno, &page)? {
            return Ok(None);
        }
    }
    Ok(Some(decoder.finish()?.header))
}

fn download<'a>(source: &Arc<Source>, file: &FileInfo, stop: &'a AtomicBool) -> Result<Download<'a>> {
    let runtime = runtime::handle()?;
    let (source, file) = (Arc::clone(source), file.clone());
    let (body, left) = runtime::block_on(async move { source.stream(&file, ByteRange::All).await })?;
    Ok(Download { runtime, body, left, piece: Bytes::new(), stop })
}

/// Reads header and page index of `file`, for which no key is needed; gives the header.
///
/// # Errors
/// Those of the store; `Corrupt`, `Unsupported`; `Denied` if it is not sealed where it must be.
pub(super) fn outline(source: &Arc<Source>, file: &FileInfo) -> Result<Header> {
    twice(|| outline_once(source, file))
}

fn outline_once(source: &Arc<Source>, file: &FileInfo) -> Result<Header> {
    let (header, index) = {
        let (source, file) = (Arc::clone(source), file.clone());
        runtime::block_on(async move { header_and_index(&source, &file).await })?
    };
    source.keyring().admit(&header)?;
    check_pages(&header, &index)?;
    Ok(header)
}

async fn header_and_index(source: &Source, file: &FileInfo) -> Result<(Header, PageIndex)> {
    if file.size > SMALL {
        let head = source.read(file, ByteRange::Bounded { offset: 0, len: Header::SIZE as u64 }).await?;
        let header = decode_header(&head)?;
        let (_, index) = read_tail(source, file, header.shape()).await?;
        return Ok((header, index));
    }
    let bytes = source.read(file, ByteRange::All).await?;
    let header = decode_header(&bytes)?;
    match PageIndex::from_tail(&bytes, file.size, header.shape())? {
        TailRead::Index(index) => Ok((header, index)),
        TailRead::NeedMore(_) => Err(Error::corrupt("the page index has no beginning")),
    }
}

fn decode_header(bytes: &[u8]) -> Result<Header> {
    let cut_off = || Error::corrupt(format!("the file has only {} bytes: it was cut off", bytes.len()));
    Header::decode(bytes.first_chunk().ok_or_else(cut_off)?)
}

/// Whether the page index is one that a file with this header can have.
fn check_pages(header: &Header, index: &PageIndex) -> Result<()> {
    let Header { commit, page_size, .. } = *header;
    let lock = page_size.lock_page();
    if let Some(entry) = index.iter().find(|e| !commit.contains(e.pgno) || e.pgno == lock) {
        return Err(Error::corrupt(format!(
            "the page index has page {}, which a database of {commit} pages does not have",
            entry.pgno
        )));
    }
    let all = commit.get() - u32::from(commit.contains(lock));
    if header.is_snapshot() && index.len() as u64 != u64::from(all) {
        return Err(Error::corrupt(format!("the snapshot has {} pages instead of {all}", index.len())));
    }
    Ok(())
}

/// The bytes of a file as they arrive.
struct Download<'a> {
    runtime: Handle,
    body: Body,
    /// Bytes that are still to come.
    left: usize,
    piece: Bytes,
    stop: &'a AtomicBool,
}

impl Read for Download<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            if self.stop.load(Ordering::Relaxed) {
                return Err(io::Error::other(Error::new(ErrorKind::Interrupted, "interrupted")));
            }
            match runtime::wait_on(&self.runtime, self.body.next()) {
                Some(piece) => self.piece = piece.map_err(io::Error::other)?,
                None if self.left == 0 => return Ok(0),
                None => {
                    let short = format!("the store answered {} bytes less than the file has", self.left);
                    return Err(io::Error::other(Error::wrong_answer(short)));
                }
            }
            self.left = self.left.saturating_sub(self.piece.len());
        }
        let n = buf.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut buf[..n]);
        Ok(n)
    }
}
