//! Objects one after the other, the small ones fetched ahead.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use futures_util::stream::{self, BoxStream, StreamExt as _};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::error::{Error, ErrorKind, Result};
use crate::restore::window::{PIECE, Window};
use crate::restore::{Cancel, Options, Progress};
use crate::runtime;
use crate::store::{ByteRange, RawInfo, Replica};

/// How often a waiting reader looks whether it was cancelled.
const LOOK: Duration = Duration::from_millis(50);

/// Objects in the order in which they are wanted.
pub(super) struct Objects {
    store: Arc<Replica>,
    runtime: Handle,
    cancel: Cancel,
    progress: Arc<Progress>,
    window: Window,
    /// Those that nobody has asked for yet.
    waiting: VecDeque<RawInfo>,
    ahead: VecDeque<Ahead>,
    /// The bytes of those that are in memory or on their way.
    ahead_bytes: u64,
}

/// An object that is wanted soon; a large one comes as a stream when it is wanted.
enum Ahead {
    Small(RawInfo, JoinHandle<Result<Bytes>>),
    Large(RawInfo),
}

impl Objects {
    pub(super) fn new<'a>(
        store: Arc<Replica>,
        objects: impl Iterator<Item = &'a RawInfo>,
        options: &Options,
        progress: &Arc<Progress>,
    ) -> Result<Self> {
        Ok(Self {
            store,
            runtime: runtime::handle()?,
            cancel: options.cancel.clone(),
            progress: Arc::clone(progress),
            window: Window::new(options.parallelism),
            waiting: objects.cloned().collect(),
            ahead: VecDeque::new(),
            ahead_bytes: 0,
        })
    }

    /// The next object, to be read to its end.
    pub(super) fn open_next(&mut self) -> Result<Download> {
        self.fill();
        let (object, body) =
            match self.ahead.pop_front().expect("BUG: more objects are read than were asked for") {
                Ahead::Large(object) => {
                    let (store, path) = (Arc::clone(&self.store), object.path.clone());
                    let content = async move { store.get_raw(&path, ByteRange::All).await };
                    (object, wait(&self.runtime, &self.cancel, self.runtime.spawn(content))?.body)
                }
                Ahead::Small(object, task) => {
                    self.ahead_bytes -= object.size;
                    let bytes = wait(&self.runtime, &self.cancel, task)?;
                    (object, stream::once(async { Ok(bytes) }).boxed())
                }
            };
        Ok(Download {
            object,
            runtime: self.runtime.clone(),
            cancel: self.cancel.clone(),
            progress: Arc::clone(&self.progress),
            body,
            piece: Bytes::new(),
        })
    }

    fn fill(&mut self) {
        while let Some(object) = self.waiting.front() {
            let len = if object.size > PIECE { 0 } else { object.size };
            if !self.window.admits(self.ahead.len(), self.ahead_bytes, len) {
                return;
            }
            let object = self.waiting.pop_front().expect("BUG: there is one at the front");
            if object.size > PIECE {
                self.ahead.push_back(Ahead::Large(object));
                continue;
            }
            self.ahead_bytes += len;
            let (store, path) = (Arc::clone(&self.store), object.path.clone());
            let bytes = async move { store.get_raw(&path, ByteRange::All).await?.bytes().await };
            self.ahead.push_back(Ahead::Small(object, self.runtime.spawn(bytes)));
        }
    }
}

impl Drop for Objects {
    fn drop(&mut self) {
        for ahead in &self.ahead {
            if let Ahead::Small(_, task) = ahead {
                task.abort();
            }
        }
    }
}

/// Waits for `task`, unless the restore is cancelled.
fn wait<T>(runtime: &Handle, cancel: &Cancel, mut task: JoinHandle<Result<T>>) -> Result<T> {
    loop {
        cancel.check()?;
        if let Ok(done) = runtime.block_on(async { timeout(LOOK, &mut task).await }) {
            return done.unwrap_or_else(|e| {
                Err(Error::new(ErrorKind::Interrupted, format!("a download ended early: {e}")))
            });
        }
    }
}

/// One object as it arrives. Its errors are those of this crate inside [`io::Error`].
pub(super) struct Download {
    pub(super) object: RawInfo,
    runtime: Handle,
    cancel: Cancel,
    progress: Arc<Progress>,
    body: BoxStream<'static, Result<Bytes>>,
    piece: Bytes,
}

impl Read for Download {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            self.cancel.check().map_err(io::Error::other)?;
            let next = self.runtime.block_on(async { timeout(LOOK, self.body.next()).await });
            match next {
                Ok(Some(piece)) => self.piece = piece.map_err(io::Error::other)?,
                Ok(None) => return Ok(0),
                Err(_) => {}
            }
        }
        let n = buf.len().min(self.piece.len());
        self.progress.received(n);
        self.piece.copy_to_slice(&mut buf[..n]);
        Ok(n)
    }
}
