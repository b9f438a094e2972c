//! A file is encoded in a background thread and uploaded part by part meanwhile.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use bytes::{Bytes, BytesMut};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::error::{Error, ErrorKind, Result};
use crate::ltx::FileId;
use crate::runtime;
use crate::store::{PartLog, PutOptions, Replica, Taken, Upload, Work};

/// Uploads what `encode` writes: at most three parts are in memory. The upload is still to be
/// completed. It is given up as soon as `stop` ends.
///
/// # Errors
/// Those of `encode` and of the store; `Interrupted`. Nothing is left in the store then.
pub(super) async fn upload<T: Send + 'static>(
    store: &Arc<Replica>,
    id: FileId,
    options: PutOptions,
    encode: impl FnOnce(PartWriter) -> Result<(PartWriter, T)> + Send + 'static,
    stop: impl Future<Output = ()>,
) -> Result<(Box<dyn Upload>, T)> {
    let mut stop = std::pin::pin!(stop);
    // What it holds a thread for takes as long as the store does.
    let _turn = tokio::select! {
        biased;
        turn = store.turn(Work::Upload) => turn,
        () = stop.as_mut() => return Err(given_up(id)),
    };
    let mut upload = store.upload(id, options).await?;
    match fill(&mut *upload, id, encode, |_| (), stop).await {
        Ok(encoded) => Ok((upload, encoded)),
        Err(e) => {
            abort(upload).await;
            Err(e)
        }
    }
}

/// As [`upload`]. What `log` says of an earlier attempt is taken up, and what the store has stays for the next one if this one fails. `has`
/// hears of each part that the store has.
///
/// # Errors
/// Those of `encode` and of the store.
pub(super) async fn resume<T: Send + 'static>(
    store: &Arc<Replica>,
    id: FileId,
    options: PutOptions,
    log: Option<Arc<PartLog>>,
    encode: impl FnOnce(PartWriter) -> Result<(PartWriter, T)> + Send + 'static,
    has: impl Fn(usize),
) -> Result<(Box<dyn Upload>, T)> {
    let _turn = store.turn(Work::Upload).await;
    let mut upload = match &log {
        Some(log) => store.resume_upload(id, options, Arc::clone(log)).await?,
        None => store.upload(id, options).await?,
    };
    match fill(&mut *upload, id, encode, has, std::future::pending()).await {
        Ok(encoded) => Ok((upload, encoded)),
        Err(e) => {
            leave(upload, log.as_deref()).await;
            Err(e)
        }
    }
}

/// Gives the `upload` what `encode` writes. `has` hears of each part that the store has.
async fn fill<T: Send + 'static>(
    upload: &mut dyn Upload,
    id: FileId,
    encode: impl FnOnce(PartWriter) -> Result<(PartWriter, T)> + Send + 'static,
    has: impl Fn(usize),
    stop: impl Future<Output = ()>,
) -> Result<T> {
    let (sender, mut parts) = mpsc::channel::<Bytes>(1);
    let (emptied, spare) = std::sync::mpsc::channel();
    let part_size = upload.part_size();
    let runtime = Handle::current();
    let encoding = runtime::long_blocking(move || {
        let out = PartWriter { part: BytesMut::new(), part_size, runtime, sender, spare };
        let (out, encoded) = encode(out)?;
        out.finish().map(|()| encoded)
    });
    let sending = async {
        while let Some(part) = parts.recv().await {
            let (bytes, kept) = (part.len(), part.clone());
            let taken = upload.part(part).await?;
            // Who still holds it needs it: the next part gets new memory then. Nobody listens at the end.
            let _ = kept.try_into_mut().map(|memory| emptied.send(memory));
            if taken != Taken::Later {
                has(bytes);
            }
        }
        Ok(())
    };
    let sent = tokio::select! {
        biased;
        sent = sending => Some(sent),
        () = stop => None,
    };
    drop(parts);
    let Some(sent) = sent else {
        // The encoder may wait for a server that is silent: it ends by itself.
        return Err(given_up(id));
    };
    let encoded = encoding.await;
    // An upload that fails closes the channel, so its error is the cause of the encoder's.
    sent.and(encoded)
}

/// The error of a file whose making was told to stop.
pub(super) fn given_up(id: FileId) -> Error {
    Error::new(ErrorKind::Interrupted, format!("{id} was not written to its end"))
}

/// Leaves to the next attempt what the store has of an upload, if `log` has anything of it; else it is removed.
pub(super) async fn leave(upload: Box<dyn Upload>, log: Option<&PartLog>) {
    if log.and_then(PartLog::begun).is_none() {
        abort(upload).await;
    }
}

/// Removes what was stored of an upload that came to nothing.
pub(super) async fn abort(mut upload: Box<dyn Upload>) {
    if let Err(e) = upload.abort().await {
        tracing::debug!("{e}");
    }
}

/// Cuts what is written into parts.
pub(super) struct PartWriter {
    /// What is being filled. Invariant: not full between two writes.
    part: BytesMut,
    part_size: usize,
    runtime: Handle,
    sender: mpsc::Sender<Bytes>,
    /// The memory of parts that were sent.
    spare: Receiver<BytesMut>,
}

impl PartWriter {
    fn send(&mut self) -> io::Result<()> {
        let sent = self.sender.send(std::mem::take(&mut self.part).freeze());
        runtime::wait_on(&self.runtime, sent)
            .map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "the upload ended"))
    }

    fn finish(mut self) -> Result<()> {
        if self.part.is_empty() {
            return Ok(());
        }
        self.send().map_err(|e| Error::io("cannot upload a file", e))
    }
}

impl Write for PartWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.part.is_empty() {
            self.part = self.spare.try_recv().unwrap_or_default();
            self.part.clear();
            self.part.reserve(self.part_size);
        }
        let n = bytes.len().min(self.part_size - self.part.len());
        self.part.extend_from_slice(&bytes[..n]);
        if self.part.len() == self.part_size {
            self.send()?;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
