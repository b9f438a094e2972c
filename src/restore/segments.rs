//! The bytes of several files one after the other, fetched ahead in bounded memory.
//!
//! Small files are pieces, large ones are cut into pieces, and as many pieces as fit a [`Window`] are in
//! memory or on their way. From a store that takes long to begin an answer, so long that it would rather have
//! sent all those pieces, a large file comes in one request.

use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, Read};
use std::sync::Arc;
use std::vec;

use bytes::{Buf as _, Bytes};
use futures_util::StreamExt as _;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::window::{PIECE, Window};
use super::{Cancel, LOOK, Progress};
use crate::error::{Error, ErrorKind, Result};
use crate::replica::{Source, wrong_length};
use crate::runtime;
use crate::store::{ByteRange, FileInfo};

/// Less than this is not worth a stream.
const STREAMED: u64 = 4 * PIECE;
/// Parts of a stream that wait to be read; a store gives some 100 KiB at once.
const WAITING: usize = 16;

/// Fetches files in order, ahead of who reads them.
#[derive(Debug)]
pub(super) struct Segments {
    source: Arc<Source>,
    files: Arc<[FileInfo]>,
    runtime: Handle,
    cancel: Cancel,
    progress: Arc<Progress>,
    window: Window,
    /// The rest of the file that is being read, if that comes in one request.
    stream: Option<Stream>,
    /// The rest of the piece that is being read.
    parts: vec::IntoIter<Bytes>,
    /// Pieces that follow.
    ahead: VecDeque<Piece>,
    /// Their size in bytes.
    ahead_bytes: u64,
    /// The file and offset that nobody has asked for yet.
    next: (usize, u64),
}

/// A small file, or a part of a large one.
#[derive(Debug)]
struct Piece {
    len: u64,
    task: JoinHandle<Result<Vec<Bytes>>>,
}

/// A file, or the rest of one, in one request.
#[derive(Debug)]
struct Stream {
    parts: mpsc::Receiver<Result<Bytes>>,
    task: JoinHandle<()>,
}

impl Segments {
    pub(super) fn new(
        source: Arc<Source>,
        files: &[FileInfo],
        parallelism: usize,
        cancel: Cancel,
        progress: Arc<Progress>,
    ) -> Result<Self> {
        Ok(Self {
            source,
            files: files.into(),
            runtime: runtime::handle()?,
            cancel,
            progress,
            window: Window::new(parallelism),
            stream: None,
            parts: Vec::new().into_iter(),
            ahead: VecDeque::new(),
            ahead_bytes: 0,
            next: (0, 0),
        })
    }

    /// The next bytes.
    fn next_bytes(&mut self) -> Result<Bytes> {
        loop {
            if let Some(part) = self.parts.next() {
                return Ok(part);
            }
            if let Some(stream) = &mut self.stream {
                match wait(&self.runtime, &self.cancel, stream.parts.recv())? {
                    Some(part) => return part,
                    None => self.stream = None,
                }
            }
            self.fill();
            if let Some(Piece { len, task }) = self.ahead.pop_front() {
                self.ahead_bytes -= len;
                let parts = wait(&self.runtime, &self.cancel, task)?.unwrap_or_else(|e| {
                    Err(Error::new(ErrorKind::Interrupted, format!("a download ended early: {e}")))
                });
                self.parts = parts?.into_iter();
            } else {
                self.start_stream();
            }
        }
    }

    /// Asks for pieces until as many as allowed are under way, or the rest is better streamed.
    fn fill(&mut self) {
        while let Some(len) = self.next_piece() {
            let file = self.next.0;
            let range = self.advance(len);
            let (source, files) = (self.source.clone(), self.files.clone());
            let task = self.runtime.spawn(async move { source.parts(&files[file], range).await });
            self.ahead.push_back(Piece { len, task });
            self.ahead_bytes += len;
        }
    }

    /// The size of what comes next, if it is to be asked for as a piece, and now.
    fn next_piece(&self) -> Option<u64> {
        let (file, offset) = self.next;
        let rest = self.files.get(file)?.size - offset;
        let len = rest.min(PIECE);
        let in_pieces = rest < STREAMED
            || match self.source.pace().worthwhile() {
                // The first piece tells how the store answers.
                None => self.ahead.is_empty(),
                Some(worthwhile) => worthwhile < self.window.bytes(),
            };
        (in_pieces && self.window.admits(self.ahead.len(), self.ahead_bytes, len)).then_some(len)
    }

    /// Asks for the rest of the next file.
    fn start_stream(&mut self) {
        let (file, offset) = self.next;
        let size = self.files.get(file).expect("BUG: read beyond the last file").size;
        let range = self.advance(size - offset);
        let (source, files) = (self.source.clone(), self.files.clone());
        let (sender, parts) = mpsc::channel(WAITING);
        let task = self.runtime.spawn(async move {
            if let Err(e) = forward(&source, &files[file], range, &sender).await {
                // Nobody listens if the reader has given up.
                let _ = sender.send(Err(e)).await;
            }
        });
        self.stream = Some(Stream { parts, task });
    }

    /// The range of the next `len` bytes of the next file, which count as asked for from now on.
    fn advance(&mut self, len: u64) -> ByteRange {
        let (file, offset) = self.next;
        let size = self.files[file].size;
        self.next = if offset + len == size { (file + 1, 0) } else { (file, offset + len) };
        if len == size { ByteRange::All } else { ByteRange::Bounded { offset, len } }
    }

    /// Reads the next file; each must be read to its end before the next one.
    pub(super) fn file(&mut self, size: u64) -> SegmentReader<'_> {
        SegmentReader { segments: self, left: size, piece: Bytes::new(), failure: None }
    }
}

/// Waits for `work`, unless the restore is cancelled.
fn wait<T>(runtime: &Handle, cancel: &Cancel, work: impl Future<Output = T>) -> Result<T> {
    let mut work = std::pin::pin!(work);
    loop {
        cancel.check()?;
        if let Ok(done) = runtime::wait_on(runtime, async { timeout(LOOK, &mut work).await }) {
            return Ok(done);
        }
    }
}

/// Sends the bytes of `range` as they arrive.
async fn forward(
    source: &Source,
    file: &FileInfo,
    range: ByteRange,
    sender: &mpsc::Sender<Result<Bytes>>,
) -> Result<()> {
    let (mut body, len) = source.stream(file, range).await?;
    let mut left = len;
    while let Some(part) = body.next().await.transpose()? {
        if part.len() > left {
            break;
        }
        left -= part.len();
        if sender.send(Ok(part)).await.is_err() {
            return Ok(());
        }
    }
    if left == 0 { Ok(()) } else { Err(wrong_length(file, len - left, len)) }
}

impl Drop for Segments {
    fn drop(&mut self) {
        self.ahead.iter().for_each(|piece| piece.task.abort());
        if let Some(stream) = &self.stream {
            stream.task.abort();
        }
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
        while self.piece.is_empty() {
            if self.left == 0 {
                return Ok(0);
            }
            self.piece = self.segments.next_bytes().map_err(|e| {
                let text = e.to_string();
                self.failure = Some(e);
                io::Error::other(text)
            })?;
            self.left = self.left.saturating_sub(self.piece.len() as u64);
            self.segments.progress.received(self.piece.len());
        }
        let n = buf.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut buf[..n]);
        Ok(n)
    }
}
