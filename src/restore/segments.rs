//! The bytes of several files one after the other, fetched ahead in pieces of bounded size.
//!
//! However large or many the files are, `parallelism` pieces are in memory or on their way: small
//! files are whole pieces, large ones are cut. A piece that fails does not fail the others.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::Cancel;
use crate::error::{Error, ErrorKind, Result};
use crate::replica::Source;
use crate::runtime;
use crate::store::{ByteRange, FileInfo};

/// The size of a piece.
const PIECE: u64 = 2 * 1024 * 1024;
/// How often a waiting reader looks whether it was cancelled.
const LOOK: Duration = Duration::from_millis(50);

/// A piece of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    file: usize,
    range: ByteRange,
}

/// Fetches the pieces of files in order, ahead of who reads them.
#[derive(Debug)]
pub(super) struct Segments {
    source: Arc<Source>,
    files: Arc<[FileInfo]>,
    runtime: Handle,
    cancel: Cancel,
    ahead: VecDeque<JoinHandle<Result<Bytes>>>,
    parallelism: usize,
    /// The next piece to ask for.
    next: (usize, u64),
}

impl Segments {
    pub(super) fn new(
        source: Arc<Source>,
        files: &[FileInfo],
        parallelism: usize,
        cancel: Cancel,
    ) -> Result<Self> {
        Ok(Self {
            source,
            files: files.into(),
            runtime: runtime::handle()?,
            cancel,
            ahead: VecDeque::new(),
            parallelism: parallelism.max(1),
            next: (0, 0),
        })
    }

    /// The next piece of all the files' bytes.
    fn next_piece(&mut self) -> Result<Bytes> {
        self.fill();
        let mut task = self.ahead.pop_front().expect("BUG: read beyond the last file");
        loop {
            self.cancel.check()?;
            let waited = self.runtime.block_on(async { timeout(LOOK, &mut task).await });
            match waited {
                Err(_) => continue,
                Ok(Ok(bytes)) => {
                    self.fill();
                    return bytes;
                }
                Ok(Err(e)) => {
                    return Err(Error::new(ErrorKind::Interrupted, format!("a download ended early: {e}")));
                }
            }
        }
    }

    /// Asks for pieces until as many as allowed are under way.
    fn fill(&mut self) {
        while self.ahead.len() < self.parallelism {
            let Some(piece) = self.take_next() else { return };
            let (source, files) = (self.source.clone(), self.files.clone());
            let task = self.runtime.spawn(async move { source.read(&files[piece.file], piece.range).await });
            self.ahead.push_back(task);
        }
    }

    fn take_next(&mut self) -> Option<Piece> {
        let (file, offset) = self.next;
        let size = self.files.get(file)?.size;
        let len = PIECE.min(size.saturating_sub(offset));
        self.next = if offset + len >= size { (file + 1, 0) } else { (file, offset + len) };
        let whole = offset == 0 && len == size;
        let range = if whole { ByteRange::All } else { ByteRange::Bounded { offset, len } };
        Some(Piece { file, range })
    }

    /// Reads the next file; each must be read to its end before the next one.
    pub(super) fn file(&mut self, size: u64) -> SegmentReader<'_> {
        SegmentReader { segments: self, left: size, piece: Bytes::new(), failure: None }
    }
}

impl Drop for Segments {
    fn drop(&mut self) {
        self.ahead.iter().for_each(JoinHandle::abort);
    }
}

/// Reads one file.
#[derive(Debug)]
pub(super) struct SegmentReader<'a> {
    segments: &'a mut Segments,
    /// Bytes that were not yet asked of `segments`.
    left: u64,
    piece: Bytes,
    failure: Option<Error>,
}

impl SegmentReader<'_> {
    /// Why the last read failed, if it did: [`io::Error`] cannot say it.
    pub(super) fn take_failure(&mut self) -> Option<Error> {
        self.failure.take()
    }
}

impl Read for SegmentReader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.piece.is_empty() {
            if self.left == 0 {
                return Ok(0);
            }
            match self.segments.next_piece() {
                Ok(piece) => {
                    self.left -= piece.len() as u64;
                    self.piece = piece;
                }
                Err(e) => {
                    let text = e.to_string();
                    self.failure = Some(e);
                    return Err(io::Error::other(text));
                }
            }
        }
        let n = buf.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut buf[..n]);
        Ok(n)
    }
}
