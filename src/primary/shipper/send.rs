//! One file on its way to the replica, and whose file it is that stands there.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::blocking;
use crate::error::{Error, ErrorKind, Result};
use crate::ltx::{Decoder, FileId, Header};
use crate::primary::shipper::outgoing::{Body, Outgoing};
use crate::primary::shipper::resume;
use crate::primary::shipper::sidecar;
use crate::primary::shipper::sums::Sums;
use crate::primary::shipper::{Phase, Shipper};
use crate::runtime;
use crate::store::{Fencing, PutOptions};

/// No larger file is written twice to find out about the store.
const PROOF_SIZE: usize = 64 * 1024;

/// Sends a file and settles what became of it; `false` if its content must go out as another
/// transaction.
pub(in crate::primary) async fn send(shipper: &Arc<Shipper>, out: Outgoing) -> Result<bool> {
    shipper.set_phase(Phase::Publishing);
    let id = FileId::single(out.txid);
    let options = PutOptions { timestamp: out.header.timestamp, if_absent: true };
    let body = merged(shipper, &out).await?;
    shipper.with_capture(|capture| capture.sends(&out.header, out.cursor.0))?;
    let sent = match &body {
        Body::File(scratch) => upload_file(shipper, id, options, scratch.path()).await,
        Body::Memory(bytes) => shipper.store.put(id, bytes.clone(), options).await,
        Body::Waiting(_) => unreachable!("BUG: what waits was merged"),
    };
    match sent {
        Ok(()) => delivered(shipper, &out, body).await,
        Err(e) if e.kind() == ErrorKind::AlreadyExists => match identify(shipper, &out.header).await? {
            // An earlier attempt landed, and only its answer was lost.
            Landed::This => delivered(shipper, &out, body).await,
            Landed::Earlier => {
                shipper.with_capture(|capture| capture.requeue(out.txid))??;
                shipper.skip_to(out.txid);
                Ok(false)
            }
        },
        Err(e) => Err(e),
    }
}

/// The bytes of a file, from waiting files if that is where they are.
async fn merged(shipper: &Arc<Shipper>, out: &Outgoing) -> Result<Body> {
    if !matches!(out.body, Body::Waiting(_)) {
        return Ok(out.body.clone());
    }
    let out = out.clone();
    blocking(shipper, move |shipper| {
        let scratch = shipper.with_capture(|capture| capture.scratch())?;
        // Committing threads do not wait for this.
        let merged = out.merged(scratch);
        shipper.with_capture(|capture| match &merged {
            Ok(body) => capture.merged(body.clone()),
            Err(e) => capture.not_merged(e),
        })?;
        merged
    })
    .await
}

async fn delivered(shipper: &Arc<Shipper>, out: &Outgoing, body: Body) -> Result<bool> {
    let bytes = if let Body::Memory(bytes) = &body { Some(bytes.clone()) } else { None };
    // Before the state says so, and before a close that waits for it ends this task: a later open would not know this
    // transaction again.
    note_checksums(shipper, out, body).await;
    shipper.with_capture(|capture| capture.delivered(out))?;
    if let Some(bytes) = &bytes {
        prove_fencing(shipper, out, bytes);
    }
    // Before whoever waits for it hears of it and asks for a snapshot.
    shipper.keep_history_of(FileId::single(out.txid), bytes);
    shipper.published(out.txid, out.covers, out.header.timestamp);
    Sums::of(shipper).catch_up(shipper.store.as_ref(), Some(out.txid)).await;
    Ok(true)
}

/// Brings the checksums of the replica's pages to `out`, which is there. Without them a repair copies more than it needs.
async fn note_checksums(shipper: &Arc<Shipper>, out: &Outgoing, body: Body) {
    let header = out.header;
    let page_sums = out.sums.clone();
    let noted = blocking(shipper, move |shipper| match body {
        Body::Memory(_) if !page_sums.is_empty() => Sums::of(shipper).apply_sums(&header, &page_sums),
        Body::Memory(bytes) => Sums::of(shipper).apply(Decoder::new(&bytes[..])?),
        Body::File(scratch) => Sums::of(shipper).apply(scratch.open()?),
        Body::Waiting(_) => Ok(()),
    });
    if let Err(e) = noted.await {
        tracing::debug!("{e}");
    }
}

/// Finds out in the background, once in a process, whether the store keeps the condition under which a file
/// is written: `out`, which is there, is written once more as it is.
fn prove_fencing(shipper: &Arc<Shipper>, out: &Outgoing, bytes: &Bytes) {
    let is_open = bytes.len() <= PROOF_SIZE && shipper.store.fencing() == Fencing::Unproven;
    if !is_open || shipper.proving_fencing.swap(true, Ordering::Relaxed) {
        return;
    }
    let (shipper, id, bytes) = (Arc::clone(shipper), FileId::single(out.txid), bytes.clone());
    let options = PutOptions { timestamp: out.header.timestamp, if_absent: true };
    tokio::spawn(async move {
        if let Err(e) = shipper.store.prove_fencing(id, bytes, options).await {
            tracing::debug!("{}: {e}", shipper.db.path.display());
            shipper.proving_fencing.store(false, Ordering::Relaxed);
        } else if shipper.store.fencing() == Fencing::LookFirst {
            let url = shipper.store.url();
            shipper.notice(format!(
                "{url} ignores the condition that a file is not there yet: each file is looked for before it is written, \
                 and two primaries that write at the same moment may not see each other"
            ));
        }
    });
}

async fn upload_file(
    shipper: &Arc<Shipper>,
    id: crate::ltx::FileId,
    options: PutOptions,
    path: &Path,
) -> Result<()> {
    let opened = path.to_path_buf();
    let file = runtime::blocking(move || File::open(&opened).map_err(|e| unreadable(&opened, e))).await?;
    let file = Arc::new((file, path.to_path_buf()));
    let mut upload = shipper.store.upload(id, options).await?;
    let mut offset = 0;
    loop {
        let (from, size) = (Arc::clone(&file), upload.part_size());
        let part = runtime::blocking(move || {
            let (file, path) = &*from;
            read_part(file, offset, size).map_err(|e| unreadable(path, e))
        });
        let part = part.await?;
        if part.is_empty() {
            break;
        }
        offset += part.len() as u64;
        if let Err(e) = upload.part(part).await {
            let _ = upload.abort().await;
            return Err(e);
        }
    }
    upload.complete().await
}

fn unreadable(path: &Path, e: io::Error) -> Error {
    Error::io(format_args!("cannot read {}", path.display()), e)
}

/// The `size` bytes of `file` from `offset` on, or what is there of them.
fn read_part(file: &File, offset: u64, size: usize) -> io::Result<Bytes> {
    let mut part = vec![0; size];
    let mut read = 0;
    while read < size {
        match file.read_at(&mut part[read..], offset + read as u64)? {
            0 => break,
            more => read += more,
        }
    }
    part.truncate(read);
    Ok(Bytes::from(part))
}

/// Whose file stands where ours should.
pub(in crate::primary) enum Landed {
    /// The one that was just sent.
    This,
    /// One of ours from before.
    Earlier,
}

/// Finds out whose file stands where the one with the header `ours` should.
///
/// # Errors
/// `Conflict` if another writer wrote it; those of the store.
pub(in crate::primary) async fn identify(shipper: &Shipper, ours: &Header) -> Result<Landed> {
    let txid = ours.max;
    let theirs = resume::read_header(shipper.store.as_ref(), FileId::single(txid)).await?;
    shipper.seen(theirs.timestamp);
    // The node id proves nothing: a copy of the state folder has it too.
    if shipper.with_capture(|capture| capture.was_attempted(&theirs))? {
        tracing::info!("transaction {txid} is in the replica from before");
        return Ok(Landed::Earlier);
    }
    if theirs == *ours {
        return Ok(Landed::This);
    }
    if theirs.is_litestreams() {
        return Err(sidecar::runs_beside(shipper, txid));
    }
    Err(Error::new(
        ErrorKind::Conflict,
        format!(
            "another primary wrote transaction {txid} to {}: replication of {} stopped. Stop one of the \
             two, or give this one another replica URL; if this one is the right one, call \
             litestream_resume('force') to publish it after that",
            shipper.store.url(),
            shipper.db.path.display()
        ),
    ))
}
