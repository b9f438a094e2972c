//! The publisher: one background task per database that takes commits to the replica.
//!
//! The first commit after quiet goes out at once; under load at most one file goes out per
//! `sync_interval`. Without commits the task sleeps without a timer.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncReadExt;
use tokio::time::Instant;

use crate::error::{Error, ErrorKind, Result};
use crate::ltx::{Decoder, FileName, Header, Txid};
use crate::primary::anchor::{self, Compared, ViewPages};
use crate::primary::commits::CommitSeq;
use crate::primary::handover;
use crate::primary::kinship;
use crate::primary::outgoing::{Body, Outgoing};
use crate::primary::resume::{self, Local};
use crate::primary::shared::{Phase, Shared};
use crate::primary::standby;
use crate::primary::state::{self, Captured};
use crate::primary::sums::Sums;
use crate::primary::watch;
use crate::store::PutOptions;
use crate::wal::{FrameNo, IndexHeader, Position, read_header};

/// The wait after a first failure; it doubles up to `BACKOFF_MAX`, and each wait is drawn at random
/// from its upper half.
const BACKOFF_MIN: Duration = Duration::from_millis(250);
const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// What a round has to do.
enum Step {
    /// All that was committed is in the replica.
    Done,
    /// The database must be copied anew.
    Anchor,
    /// A file is to be sent.
    Send(Outgoing),
}

/// Publishes and captures until the task is aborted.
pub(super) async fn run(shared: Arc<Shared>) {
    tokio::select! {
        () = publish(&shared) => {}
        () = capture_when_asked(&shared) => {}
    }
}

/// Captures without publishing, whatever the publisher is waiting for, so that little is kept on disk.
async fn capture_when_asked(shared: &Arc<Shared>) {
    loop {
        shared.signal.capture_asked().await;
        let captured = blocking(shared, |shared| {
            shared.generations.copy_ahead(&shared.commits)?;
            shared.capture_now()?;
            if shared.has_failed() { shared.tidy() } else { Ok(()) }
        });
        if let Err(e) = captured.await {
            tracing::debug!("{}: {e}", shared.path.display());
        }
    }
}

async fn publish(shared: &Arc<Shared>) {
    let mut backoff = BACKOFF_MIN;
    loop {
        let started = Instant::now();
        shared.begin_round();
        let waiting = shared.requests.take_waiting();
        let outcome = round(shared, !waiting.is_empty()).await;
        shared.answer(waiting, outcome.as_ref().map(|_| ()));
        let wait = match outcome {
            Ok(_) if shared.is_standby() => {
                standby::rest(shared).await;
                continue;
            }
            Ok(sent) => {
                backoff = BACKOFF_MIN;
                shared.recovered();
                if sent { shared.options.sync_interval } else { Duration::ZERO }
            }
            Err(e) if e.kind() == ErrorKind::Conflict => {
                shared.stop(e);
                standby::until_told(shared).await;
                continue;
            }
            Err(e) => {
                shared.failed(e);
                let wait = jittered(backoff);
                backoff = (backoff * 2).min(BACKOFF_MAX);
                if let Err(e) = blocking(shared, |shared| shared.tidy()).await {
                    tracing::warn!("{e}");
                }
                wait
            }
        };
        let hurried = pause(shared, started + wait).await;
        if hurried || shared.has_failed() {
            continue;
        }
        watch::idle(shared).await;
    }
}

/// Waits until `deadline` or, then true, until somebody waits for the replica.
async fn pause(shared: &Arc<Shared>, deadline: Instant) -> bool {
    tokio::time::timeout_at(deadline, shared.signal.hurried()).await.is_ok()
}

/// Brings the replica up to what is committed now; `false` if it was there already.
async fn round(shared: &Arc<Shared>, asked: bool) -> Result<bool> {
    if !blocking(shared, |shared| shared.become_publisher()).await? {
        return Ok(false);
    }
    shared.listen();
    if !shared.is_resumed() {
        resume(shared).await?;
    }
    standby::look_at_others(shared, asked).await?;
    let goal = shared.commits.last().seq;
    let mut sent = false;
    loop {
        match next_step(shared).await? {
            Step::Done => return Ok(sent),
            Step::Anchor if anchor(shared).await? => sent = true,
            Step::Anchor => return Ok(sent),
            Step::Send(out) => {
                let covers = out.covers;
                sent = true;
                if send(shared, out).await? && covers >= goal {
                    return Ok(true);
                }
            }
        }
    }
}

async fn resume(shared: &Arc<Shared>) -> Result<()> {
    let url = shared.store.url();
    let page_size = blocking(shared, |shared| shared.look_at_database()).await?;
    let local = shared.with_capture(|capture| Local {
        txid: capture.known_txid(&url),
        node_id: capture.node_id(),
        page_size,
        was_empty: shared.was_empty(),
        forced: capture.is_forced(),
        same_boot: capture.is_of_this_boot(),
    })?;
    let resumed = resume::resume(shared.store.as_ref(), local).await?;
    let unknown = resumed.stranger.is_some();
    if let (Some(last), Some(stranger)) = (resumed.last, resumed.stranger)
        && !kinship::holds_ours(shared, stranger).await?
    {
        return Err(resume::another(shared.store.as_ref(), last));
    }
    if local.forced || unknown {
        sums_of(shared).forget();
    }
    if resumed.is_ahead {
        shared.with_capture(|capture| capture.lost("the replica is further than local state knows"))?;
    }
    // What an earlier process left counts as a commit: whoever waits waits for it too.
    shared.commits.note_other();
    shared.resumed(resumed.last);
    Ok(())
}

async fn next_step(shared: &Arc<Shared>) -> Result<Step> {
    blocking(shared, |shared| {
        let txid = shared.next_txid();
        shared.capture_now()?;
        let (step, seq) = shared.with_capture(|capture| {
            // What is taken now is captured now, or was before.
            let (noted, since) = shared.commits.take();
            shared.on_the_way(since);
            capture.catch_up(&shared.commits)?;
            if capture.anchor_reason().is_some() {
                return Ok((Step::Anchor, noted.seq));
            }
            let step = match capture.next_outgoing(txid, &noted)? {
                Some(out) => Step::Send(out),
                // What waited was just given up.
                None if capture.anchor_reason().is_some() => Step::Anchor,
                None => Step::Done,
            };
            Ok((step, noted.seq))
        })??;
        if let Step::Done = step {
            shared.all_published(seq);
        }
        Ok(step)
    })
    .await
}

/// Copies the whole database; `false` if it has no pages yet.
async fn anchor(shared: &Arc<Shared>) -> Result<bool> {
    sums_of(shared).catch_up(shared.store.as_ref(), shared.progress_txid()).await;
    let Some((pages, covers, header, reason)) = blocking(shared, begin_anchor).await? else {
        shared.nothing_here(Phase::Empty);
        return Ok(false);
    };
    let page_size = pages.page_size();
    let compared = blocking(shared, move |shared| {
        Ok(Compared::with(&sums_of(shared), shared.progress_txid(), page_size))
    })
    .await?;
    let copied = if compared.has_base() { "what differs is sent" } else { "all of it is sent" };
    if shared.progress_txid().is_some() {
        shared.notice(format!("{reason}; the database is compared with the replica, and {copied}"));
    }
    shared.set_phase(Phase::Copying);
    let id = resume::single(header.max);
    let options = PutOptions { timestamp: header.timestamp, if_absent: true };
    let done = async {
        let (mut upload, compared) =
            anchor::upload(&shared.store, id, options, pages, header, compared).await?;
        let completed = upload.complete().await;
        match &completed {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::AlreadyExists => anchor::abort(upload).await,
            Err(_) => {
                shared.with_capture(|capture| capture.attempted(header))?;
                anchor::abort(upload).await;
            }
        }
        completed.map(|()| compared)
    };
    let (landed, compared) = match done.await {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => (identify(shared, &header).await, None),
        Err(e) => (Err(e), None),
        Ok(compared) => (Ok(Landed::This), Some(compared)),
    };
    if let Ok(Landed::This) = landed {
        shared.with_capture(|capture| capture.anchored(header.max))?;
        anchored(shared, header.max, compared).await;
        shared.published(header.max, covers, header.timestamp);
        return Ok(true);
    }
    shared.with_capture(|capture| {
        capture.abandon_anchor();
        if landed.is_ok() {
            capture.skip_to(header.max);
        }
    })?;
    landed.map(|_| {
        shared.skip_to(header.max);
        true
    })
}

/// The database is in the replica as `txid`.
async fn anchored(shared: &Arc<Shared>, txid: Txid, compared: Option<Compared>) {
    let Some(compared) = compared else { return };
    tracing::info!("{}: {} pages were sent as {txid}", shared.path.display(), compared.differing);
    if let Err(e) = blocking(shared, move |_| compared.adopt(txid)).await {
        tracing::warn!("{e}");
    }
}

/// The checksums of what the replica holds.
fn sums_of(shared: &Shared) -> Sums {
    Sums::new(&state::folder(&shared.path), &shared.store.url())
}

/// Opens a view of the database and makes it the base of all that is captured from now on.
fn begin_anchor(shared: &Shared) -> Result<Option<(ViewPages, CommitSeq, Header, &'static str)>> {
    let txid = shared.next_txid();
    // Hooks wait for these locks, so that no restart of the WAL falls between view and position.
    shared.with_capture(|capture| {
        let mut passage = shared.generations.lock();
        let (noted, since) = shared.commits.take();
        shared.on_the_way(since);
        // What other processes left before the view is part of it.
        let old = capture.handover.names();
        let Some(view) = shared.host.read_view()? else { return Ok(None) };
        let index = view.header();
        match index {
            Some(index) if index.mx_frame == FrameNo::ZERO => shared.commits.forget_older(noted.seq, index),
            Some(index) => shared.commits.agree_with(index),
            None => {}
        }
        let position = match index {
            Some(index) if index.mx_frame > FrameNo::ZERO => Captured::At(Position::end_of(&index)),
            // A writer of ours is between the header of a generation and its first commit.
            _ if shared.commits.last().end.is_none()
                && let Some(begun) = passage.begun() =>
            {
                begun
            }
            Some(index) => start_of_wal(&index, &shared.wal_path)?,
            None => Captured::NextGeneration,
        };
        let reason = capture.anchor_reason().unwrap_or_default();
        capture.begin_anchor(position, index, &mut passage)?;
        drop(passage);
        handover::remove(old);
        let pages = ViewPages::new(view, &shared.wal_path)?;
        let name = FileName::single(txid);
        let mut header = Header::new(pages.page_size(), pages.commit(), name, noted.time);
        header.node_id = capture.node_id();
        if let Some(index) = index.filter(|index| index.mx_frame > FrameNo::ZERO) {
            let start = FrameNo::ZERO.end_offset(header.page_size);
            header.wal_offset = start as i64;
            header.wal_size = (index.mx_frame.end_offset(header.page_size) - start) as i64;
            (header.salt1, header.salt2) = (index.salts.0, index.salts.1);
        }
        Ok(Some((pages, noted.seq, header, reason)))
    })?
}

/// Where commits go on if `index` says that the WAL holds none.
fn start_of_wal(index: &IndexHeader, wal_path: &Path) -> Result<Captured> {
    let header = match std::fs::File::open(wal_path) {
        Ok(file) => read_header(&file)?,
        Err(_) => None,
    };
    Ok(match header {
        Some(header) if header.salts == index.salts => Captured::At(Position::start_of(&header)),
        _ => Captured::NextGeneration,
    })
}

/// Sends a file and settles what became of it; `false` if its content must go out as another
/// transaction.
async fn send(shared: &Arc<Shared>, out: Outgoing) -> Result<bool> {
    shared.set_phase(Phase::Publishing);
    let id = resume::single(out.txid);
    let options = PutOptions { timestamp: out.header.timestamp, if_absent: true };
    let body = merged(shared, &out).await?;
    let sent = match &body {
        Body::File(scratch) => upload_file(shared, id, options, scratch.path()).await,
        Body::Memory(bytes) => shared.store.put(id, bytes.clone(), options).await,
        Body::Waiting(_) => unreachable!("BUG: what waits was merged"),
    };
    match sent {
        Ok(()) => delivered(shared, &out, body).await,
        Err(e) if e.kind() == ErrorKind::AlreadyExists => match identify(shared, &out.header).await? {
            // An earlier attempt landed, and only its answer was lost.
            Landed::This => delivered(shared, &out, body).await,
            Landed::Earlier => {
                shared.with_capture(|capture| capture.requeue(out.txid))??;
                shared.skip_to(out.txid);
                Ok(false)
            }
        },
        Err(e) => Err(e),
    }
}

/// The bytes of a file, from waiting files if that is where they are.
async fn merged(shared: &Arc<Shared>, out: &Outgoing) -> Result<Body> {
    if !matches!(out.body, Body::Waiting(_)) {
        return Ok(out.body.clone());
    }
    let out = out.clone();
    blocking(shared, move |shared| {
        let scratch = shared.with_capture(|capture| capture.scratch())?;
        // Committing threads do not wait for this.
        let merged = out.merged(scratch);
        shared.with_capture(|capture| match &merged {
            Ok(body) => capture.merged(body.clone()),
            Err(e) => capture.not_merged(e),
        })?;
        merged
    })
    .await
}

async fn delivered(shared: &Arc<Shared>, out: &Outgoing, body: Body) -> Result<bool> {
    shared.with_capture(|capture| capture.delivered(out))?;
    shared.published(out.txid, out.covers, out.header.timestamp);
    // Without them a repair copies more than it needs.
    let noted = blocking(shared, move |shared| match body {
        Body::Memory(bytes) => sums_of(shared).apply(Decoder::new(&bytes[..])?),
        Body::File(scratch) => sums_of(shared).apply(scratch.open()?),
        Body::Waiting(_) => Ok(()),
    });
    if let Err(e) = noted.await {
        tracing::debug!("{e}");
    }
    sums_of(shared).catch_up(shared.store.as_ref(), Some(out.txid)).await;
    Ok(true)
}

async fn upload_file(
    shared: &Arc<Shared>,
    id: crate::ltx::FileId,
    options: PutOptions,
    path: &Path,
) -> Result<()> {
    let io = |e| Error::io(format_args!("cannot read {}", path.display()), e);
    let mut file = tokio::fs::File::open(path).await.map_err(io)?;
    let mut upload = shared.store.upload(id, options).await?;
    loop {
        let part = read_part(&mut file, upload.part_size()).await.map_err(io)?;
        if part.is_empty() {
            break;
        }
        if let Err(e) = upload.part(part).await {
            let _ = upload.abort().await;
            return Err(e);
        }
    }
    upload.complete().await
}

async fn read_part(file: &mut tokio::fs::File, size: usize) -> std::io::Result<Bytes> {
    let mut part = BytesMut::with_capacity(size);
    while part.len() < size && file.read_buf(&mut part).await? > 0 {}
    Ok(part.freeze())
}

/// Whose file stands where ours should.
enum Landed {
    /// The one that was just sent.
    This,
    /// One of ours from before.
    Earlier,
}

/// Finds out whose file stands where the one with the header `ours` should.
///
/// # Errors
/// `Conflict` if another writer wrote it; those of the store.
async fn identify(shared: &Shared, ours: &Header) -> Result<Landed> {
    let txid = ours.max;
    let theirs = resume::read_header(shared.store.as_ref(), resume::single(txid)).await?;
    let (node_id, attempted) =
        shared.with_capture(|capture| (capture.node_id(), capture.was_attempted(&theirs)))?;
    if attempted {
        return Ok(Landed::Earlier);
    }
    if theirs == *ours {
        return Ok(Landed::This);
    }
    // The same node id alone proves little: a machine that was cloned has it too.
    if theirs.node_id == node_id && shared.may_land() {
        tracing::info!("transaction {txid} is in the replica from before a crash");
        return Ok(Landed::Earlier);
    }
    Err(Error::new(
        ErrorKind::Conflict,
        format!(
            "another primary wrote transaction {txid} to {}: replication of {} stopped. Stop one of the \
             two, or give this one another replica URL; if this one is the right one, call \
             litestream_resume('force') to publish it after that",
            shared.store.url(),
            shared.path.display()
        ),
    ))
}

/// Runs `work`, which waits for files and locks, off the asynchronous threads.
pub(super) async fn blocking<T: Send + 'static>(
    shared: &Arc<Shared>,
    work: impl FnOnce(&Shared) -> Result<T> + Send + 'static,
) -> Result<T> {
    let shared = Arc::clone(shared);
    tokio::task::spawn_blocking(move || work(&shared))
        .await
        .map_err(|e| Error::new(ErrorKind::Interrupted, format!("background work ended early: {e}")))?
}

fn jittered(wait: Duration) -> Duration {
    let share = crate::primary::random_u64() as f64 / u64::MAX as f64;
    wait.mul_f64(0.5 + share / 2.0)
}
