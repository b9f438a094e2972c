//! One file on its way to the replica, and whose file it is that stands there.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::blocking;
use crate::error::{Error, ErrorKind, Result};
use crate::ltx::{FileId, Header};
use crate::primary::seals::{self, Head, Subject};
use crate::primary::shipper::holes;
use crate::primary::shipper::misfit;
use crate::primary::shipper::newest;
use crate::primary::shipper::outgoing::{Body, Outgoing, write_as_one};
use crate::primary::shipper::sidecar;
use crate::primary::shipper::spool::Segment;
use crate::primary::shipper::sums::{PageSums, Sums};
use crate::primary::shipper::{Phase, Shipper};
use crate::primary::streaming_upload::{self, PartWriter};
use crate::store::{Fencing, PutOptions};

/// No larger file is written twice to find out about the store.
const PROOF_SIZE: usize = 64 * 1024;

/// Sends a file and settles what became of it; `false` if its content must go out as another
/// transaction.
pub(in crate::primary) async fn send(shipper: &Arc<Shipper>, out: Outgoing) -> Result<bool> {
    shipper.set_phase(Phase::Publishing);
    let id = FileId::single(out.txid);
    let options = PutOptions { timestamp: out.header.timestamp, if_absent: true };
    let out = into_memory_if_small(shipper, out).await?;
    sync_before(shipper).await?;
    shipper.with_capture(|capture| capture.sends(&out.header, out.cursor.0))?;
    let mut sums = out.sums.clone();
    let sent = match &out.body {
        Body::Memory(bytes) => {
            shipper.store.put(id, bytes.clone(), options).await.map(|()| bytes.len() as u64)
        }
        Body::Waiting(files) => stream(shipper, &out, files, options, &mut sums).await,
    };
    match sent {
        Ok(size) => delivered(shipper, &out, sums, size).await,
        Err(e) if e.kind() == ErrorKind::AlreadyExists => match identify(shipper, &out.header).await? {
            // An earlier attempt landed, and only its answer was lost.
            Landed::This(size) => delivered(shipper, &out, sums, size).await,
            Landed::Earlier => {
                // Whether the database still has all of it is not known.
                let pages =
                    newest::replaced_by(shipper.store.as_ref(), id, out.header.commit, &shipper.seals)
                        .await?;
                shipper.with_capture(|capture| capture.requeue(out.txid, pages.as_ref()))??;
                shipper.skip_to(out.txid);
                Ok(false)
            }
        },
        Err(e) => Err(e),
    }
}

/// Where commits wait, what is to be sent must be on disk: a power failure would leave the database behind its replica.
pub(in crate::primary) async fn sync_before(shipper: &Arc<Shipper>) -> Result<()> {
    if !shipper.db.wal_sync.is_first() {
        return Ok(());
    }
    blocking(shipper, |shipper| shipper.db.wal_sync.sync_all(&shipper.db.commits)).await
}

/// Waiting files that are small together become one in memory, which is made once.
async fn into_memory_if_small(shipper: &Arc<Shipper>, out: Outgoing) -> Result<Outgoing> {
    if out.small_files().is_none() {
        return Ok(out);
    }
    blocking(shipper, move |shipper| {
        let Some(files) = out.small_files() else { return Ok(out) };
        // Committing threads do not wait for this.
        let made = write_as_one(files, Vec::new(), out.header, &shipper.seals);
        let (bytes, _, sums) = made.or_else(|e| not_made(shipper, &out.header, e))?;
        let out = Outgoing { body: Body::Memory(bytes.into()), sums, ..out };
        shipper.with_capture(|capture| capture.is_in_memory(&out))?;
        Ok(out)
    })
    .await
}

/// The file with `header` cannot be made of what waits: `error` says why.
fn not_made<T>(shipper: &Shipper, header: &Header, error: Error) -> Result<T> {
    if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotFound) {
        shipper.with_capture(|capture| capture.is_broken(header))?;
    }
    Err(error)
}

/// Sends `out` as it is made from the waiting `files`; `sums` become the checksums of its pages as soon as it is made. Returns
/// its size in bytes.
async fn stream(
    shipper: &Arc<Shipper>,
    out: &Outgoing,
    files: &[Segment],
    options: PutOptions,
    sums: &mut PageSums,
) -> Result<u64> {
    let (header, files, maker) = (out.header, files.to_vec(), Arc::clone(shipper));
    let encode = move |parts: PartWriter| {
        let made = write_as_one(&files, parts, header, &maker.seals);
        let (parts, summary, sums) = made.or_else(|e| not_made(&maker, &header, e))?;
        Ok((parts, (summary.size, sums)))
    };
    let id = FileId::single(out.txid);
    let made = streaming_upload::upload(&shipper.store, id, options, encode, std::future::pending()).await?;
    let (mut upload, size);
    (upload, (size, *sums)) = made;
    let completed = upload.complete().await;
    if completed.is_err() {
        streaming_upload::abort(upload).await;
    }
    completed.map(|()| size)
}

/// `out` is in the replica, with `size` bytes.
async fn delivered(shipper: &Arc<Shipper>, out: &Outgoing, sums: PageSums, size: u64) -> Result<bool> {
    let bytes = if let Body::Memory(bytes) = &out.body { Some(bytes.clone()) } else { None };
    // Before the state says so, and before a close that waits for it ends this task: a later open would not know this
    // transaction again.
    note_checksums(shipper, out, sums).await;
    shipper.with_capture(|capture| capture.delivered(out))?;
    shipper.offer_view()?;
    if let Some(bytes) = &bytes {
        prove_fencing(shipper, out, bytes);
    }
    tracing::debug!(
        db = %shipper.db.path.display(),
        replica = shipper.store.url(),
        txid = %out.txid,
        size_bytes = size,
        "published"
    );
    // Before whoever waits for it hears of it and asks for a snapshot.
    shipper.keep_history_of(FileId::single(out.txid), size, out.header.timestamp, bytes);
    shipper.published(out.txid, out.covers, out.header.timestamp);
    Sums::of(shipper).catch_up(shipper, Some(out.txid)).await;
    Ok(true)
}

/// Brings the checksums of the replica's pages to `out`, which is there. Without them a repair copies more than it needs.
async fn note_checksums(shipper: &Arc<Shipper>, out: &Outgoing, sums: PageSums) {
    let header = out.header;
    let noted = blocking(shipper, move |shipper| Sums::of(shipper).apply_sums(&header, &sums));
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

/// Whose file stands where ours should.
pub(in crate::primary) enum Landed {
    /// The one that was just sent, and its size in bytes.
    This(u64),
    /// One of ours from before.
    Earlier,
}

/// Finds out whose file stands where the one with the header `ours` should.
///
/// # Errors
/// `Conflict` if another writer wrote it, or it cannot be read; those of the store.
pub(in crate::primary) async fn identify(shipper: &Arc<Shipper>, ours: &Header) -> Result<Landed> {
    let txid = ours.max;
    let id = FileId::single(txid);
    let Head { header: theirs, bytes, file_size } = match seals::read_head(shipper.store.as_ref(), id).await {
        Err(e) if matches!(e.kind(), ErrorKind::Corrupt | ErrorKind::WrongAnswer) => {
            let file = shipper.store.head(id).await?;
            let is_cut_off = file.size < Header::SIZE as u64;
            if is_cut_off || holes::is_damaged(shipper, &file).await? {
                return Err(misfit::ends_damaged(shipper.store.as_ref(), id, shipper.progress_txid()));
            }
            return Err(e);
        }
        head => head?,
    };
    shipper.seen(theirs.timestamp);
    if theirs.is_sealed() && !shipper.seals.are_on() {
        return Err(misfit::sealed(shipper.store.as_ref(), id));
    }
    // Headers are in clear, and so anybody could write one like ours.
    let is_ours = !theirs.is_sealed() || shipper.seals.wrote(Subject::Replica(id), &bytes);
    // The node id proves nothing: a copy of the state folder has it too.
    if is_ours && shipper.with_capture(|capture| capture.was_attempted(&theirs))? {
        tracing::info!("transaction {txid} is in the replica from before");
        return Ok(Landed::Earlier);
    }
    if is_ours && theirs == *ours {
        return Ok(Landed::This(file_size));
    }
    Err(another_writers(shipper, &theirs))
}

/// The error of a file with the header `theirs` that another writer wrote while this one publishes.
pub(in crate::primary) fn another_writers(shipper: &Shipper, theirs: &Header) -> Error {
    let txid = theirs.max;
    if theirs.is_litestreams() {
        return sidecar::runs_beside(shipper, txid);
    }
    Error::new(
        ErrorKind::Conflict,
        format!(
            "another primary wrote transaction {txid} to {}: replication of {} stopped. Stop one of the \
             two, or give this one another replica URL; if this one is the right one, call \
             litestream_resume('force') to publish it after that",
            shipper.store.url(),
            shipper.db.path.display()
        ),
    )
}
