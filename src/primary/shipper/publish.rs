//! The background task of a shipper, which takes commits to its replica.
//!
//! The first commit after quiet goes out at once; under load at most one file goes out per
//! `sync_interval`. Without commits the task sleeps without a timer.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::time::Instant;

use super::asks::{Asker, Outcome};
use super::gather::Gathering;
use super::{Phase, Shipper, begin, blocking, copy, heal, send};
use crate::error::{Error, ErrorKind, Result};
use crate::events;
use crate::primary::hooks::Noted;
use crate::primary::shipper::outgoing::Outgoing;
use crate::runtime;

/// The wait after a first failure; it doubles up to `BACKOFF_MAX`, and each wait is drawn at random
/// from its upper half.
const BACKOFF_MIN: Duration = Duration::from_millis(250);
const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// The shortest time from one waiting file to the next while the replica cannot be reached.
const WAITING_FILE_EVERY: Duration = Duration::from_millis(100);

/// What a round has to do.
enum Step {
    /// All that was committed is in the replica.
    Done,
    /// A full copy of the database is due.
    Anchor,
    /// A file is to be sent.
    Send(Box<Outgoing>),
}

/// A round that takes longer has what is committed meanwhile noted as dirty pages, so that no records are kept for it.
const LONG_ROUND: Duration = Duration::from_secs(30);

/// Publishes until the task is aborted. A bug stops replication, with an error in status, until a user says that it shall
/// continue.
pub(super) async fn run(shipper: Arc<Shipper>) {
    while let Err(panic) = AssertUnwindSafe(publish(&shipper)).catch_unwind().await {
        let remedy =
            "replication stopped, which litestream_resume() or the next open of the database begins again";
        shipper.stop(runtime::bug(&*panic).context(remedy));
    }
}

async fn publish(shipper: &Arc<Shipper>) {
    let mut backoff = BACKOFF_MIN;
    // From when on the next file may go out though nobody waits for it.
    let mut due = Instant::now();
    let mut gathering = Gathering::new();
    if shipper.stopped().is_some() {
        until_told(shipper).await;
    }
    loop {
        shipper.until_there_is_work().await;
        until_told(shipper).await;
        gathering.wait(shipper).await;
        gathering.begin(shipper);
        let started = Instant::now();
        shipper.begin_round();
        let waiting = shipper.requests.take_waiting();
        let outcome = tokio::select! {
            biased;
            outcome = round(shipper, !waiting.is_empty()) => outcome,
            never = keep_up(shipper) => match never {},
            () = shipper.withdrawn.notified() => {
                shipper.requests.wait_again(waiting);
                continue;
            }
        };
        gathering.end(shipper);
        if let Some(stopped) = shipper.stopped() {
            shipper.answer(waiting, Err(&stopped));
            continue;
        }
        shipper.answer(waiting, outcome.as_ref().map(|_| ()));
        shipper.rounds.note(&outcome, started.elapsed());
        let deadline = match outcome {
            Ok(sent) => {
                backoff = BACKOFF_MIN;
                shipper.recovered();
                if sent {
                    due = started + shipper.options.sync_interval;
                }
                due
            }
            Err(e) if e.kind() == ErrorKind::Conflict => {
                shipper.stop(e);
                continue;
            }
            Err(e) if e.kind() == ErrorKind::Interrupted && !shipper.db.is_open() => {
                shipper.drop_views();
                // The store did not fail: the next open tries again at once.
                shipper.failed(e);
                backoff = BACKOFF_MIN;
                started + BACKOFF_MIN
            }
            Err(e) => {
                shipper.drop_views();
                if backoff == BACKOFF_MAX {
                    shipper.begins(&events::CIRCUIT_BREAKER_OPEN, &e.to_string());
                }
                shipper.failed(e);
                let wait = jittered(backoff);
                backoff = (backoff * 2).min(BACKOFF_MAX);
                started + wait
            }
        };
        let hurried = if shipper.has_failed() {
            wait_out(shipper, deadline).await
        } else {
            pause(shipper, deadline).await
        };
        if hurried || shipper.has_failed() {
            continue;
        }
        shipper.signal.next().await;
    }
}

/// Waits until this process publishes and replication is not stopped; who asks a stopped one is answered.
async fn until_told(shipper: &Arc<Shipper>) {
    let mut keeps_up = std::pin::pin!(keep_up(shipper));
    loop {
        let mut publishes = std::pin::pin!(shipper.publishes.notified());
        publishes.as_mut().enable();
        let stopped = shipper.stopped();
        match &stopped {
            Some(error) => shipper.answer(shipper.requests.take_waiting(), Err(error)),
            None if shipper.is_open() => return,
            None => {}
        }
        tokio::select! {
            () = shipper.signal.hurried(|| true) => {}
            () = publishes => {}
            never = &mut keeps_up, if stopped.is_some() => match never {},
        }
    }
}

/// Notes as dirty what is committed while a round takes long, as on a slow link, or while replication is stopped: whatever
/// the WAL does meanwhile, no records pile up. Never ends.
async fn keep_up(shipper: &Arc<Shipper>) -> Infallible {
    loop {
        tokio::time::sleep(LONG_ROUND).await;
        if shipper.db.is_open()
            && let Err(e) =
                blocking(shipper, |shipper| shipper.with_capture(|c| c.absorb(&shipper.db))?).await
        {
            tracing::debug!("{}: {e}", shipper.name());
        }
    }
}

impl Shipper {
    /// Answers the other processes that waited for a round, which came to `outcome`.
    fn answer(&self, waiting: Vec<Arc<dyn Asker>>, outcome: Result<(), &Error>) {
        let outcome = match outcome {
            Err(e) if e.kind() == ErrorKind::Conflict => Outcome::Stopped(e.to_string()),
            Err(e) => Outcome::Failing(e.to_string()),
            Ok(()) => {
                let progress = self.progress();
                match (progress.phase, progress.txid) {
                    (Phase::Standby, _) => return,
                    (Phase::Empty, _) | (_, None) => Outcome::Empty(self.db.empty().to_string()),
                    (_, Some(txid)) => Outcome::Done(txid),
                }
            }
        };
        for asker in waiting {
            let is_heard = asker.tell(self.number, &outcome);
            if is_heard && matches!(outcome, Outcome::Failing(_)) {
                self.requests.wait_again(vec![asker]);
            }
        }
    }
}

/// Waits until `deadline` or, then true, until a caller waits for the replica.
async fn pause(shipper: &Arc<Shipper>, deadline: Instant) -> bool {
    tokio::time::timeout_at(deadline, shipper.signal.hurried(|| shipper.is_awaited())).await.is_ok()
}

/// As [`pause`], while the replica cannot be reached: what is committed meanwhile goes into waiting files, one in
/// `sync_interval`, so that points in time within an outage survive.
async fn wait_out(shipper: &Arc<Shipper>, deadline: Instant) -> bool {
    let interval = shipper.options.sync_interval.max(WAITING_FILE_EVERY);
    loop {
        let kept = blocking(shipper, |shipper| {
            if !shipper.db.is_open() {
                return Ok(());
            }
            shipper.capture_into_spool()?;
            shipper.tidy()
        });
        match kept.await {
            Err(_) if !shipper.db.is_open() => {}
            Err(e) if e.kind() == ErrorKind::Busy => tracing::debug!("{}: {e}", shipper.name()),
            // The database has the pages all the same.
            Err(e) => shipper.notice(format!("points in time of this outage are lost: {e}")),
            Ok(()) => {}
        }
        let next = deadline.min(Instant::now() + interval);
        if pause(shipper, next).await {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
    }
}

/// Brings the replica up to what is committed now; `false` if it was there already.
async fn round(shipper: &Arc<Shipper>, asked: bool) -> Result<bool> {
    if !shipper.db.is_open() {
        return send_what_waits(shipper).await;
    }
    shipper.db.check_file()?;
    if let Some(conflict) = shipper.history.take_conflict() {
        return Err(conflict);
    }
    if !shipper.is_resumed() {
        begin::begin(shipper).await?;
    }
    heal::finish(shipper).await?;
    heal::look_if_asked(shipper).await?;
    let look = shipper.requests.take_look();
    match look.as_ref().and_then(|look| look.committed_since) {
        Some(since) => shipper.db.commits.ask_since(shipper.number, since),
        // What the other process committed is not in a file that is under way already.
        None if asked || look.is_some() => shipper.db.commits.ask(),
        None => {}
    }
    let published = publish_all(shipper, asked).await;
    if published.is_err()
        && let Some(look) = look
    {
        shipper.requests.look_again(look);
    }
    published
}

/// Sends what waits in files of a database that no connection has open; `false` if nothing did.
async fn send_what_waits(shipper: &Arc<Shipper>) -> Result<bool> {
    let mut sent = false;
    // Who removed the folder, or restored the database, wants nothing of it.
    while !shipper.db.is_open()
        && shipper.sends_what_waits()
        && shipper.is_as_left()
        && let Step::Send(out) = next_step(shipper, false).await?
    {
        sent = true;
        send::send(shipper, *out).await?;
    }
    Ok(sent)
}

/// Publishes every commit that was noted, and what others committed before; `false` if there was nothing to send.
async fn publish_all(shipper: &Arc<Shipper>, asked: bool) -> Result<bool> {
    let goal = shipper.db.commits.last().seq;
    let mut sent = false;
    loop {
        match next_step(shipper, asked).await? {
            Step::Done => return Ok(sent),
            Step::Anchor if copy::anchor(shipper).await? => {
                sent = true;
                heal::finish(shipper).await?;
            }
            Step::Anchor => return Ok(sent),
            Step::Send(_) if heal::look_now_and_then(shipper).await? => {}
            Step::Send(out) => {
                let covers = out.covers;
                sent = true;
                if send::send(shipper, *out).await? && covers >= goal {
                    return Ok(true);
                }
            }
        }
    }
}

/// What is to be done now; `asked`: another process waits for it.
async fn next_step(shipper: &Arc<Shipper>, asked: bool) -> Result<Step> {
    if shipper.time.is_doubtful() && blocking(shipper, has_something).await? {
        shipper.time.ascertain().await?;
    }
    shipper.look_at_clock();
    blocking(shipper, move |shipper| {
        let (step, noted) = step_now(shipper)?;
        match step {
            Ok(Step::Done) => {
                shipper.all_published(noted.seq);
                shipper.offer_view()?;
                Ok(Step::Done)
            }
            // A connection that keeps the database for itself may be reading: then nothing was committed.
            Err(e) if e.kind() == ErrorKind::Busy && !asked && !shipper.has_commits_on_the_way() => {
                tracing::debug!("{}: {e}", shipper.name());
                Ok(Step::Done)
            }
            step => step,
        }
    })
    .await
}

/// What is to be done now, for the commits up to the last one that is noted.
///
/// # Errors
/// `Busy` if another process publishes.
fn step_now(shipper: &Shipper) -> Result<(Result<Step>, Noted)> {
    let txid = shipper.next_txid();
    let (noted, since) = shipper.db.commits.take(shipper.number);
    shipper.on_the_way(noted.seq, since);
    let step = shipper.with_capture(|capture| {
        if capture.anchor_reason().is_some() {
            return Ok(Step::Anchor);
        }
        let time = |noted, witness| shipper.published_time(noted, witness);
        match capture.next_outgoing(txid, &shipper.db, &noted, time, shipper.wants_view())? {
            Some(out) => Ok(Step::Send(Box::new(out))),
            None if capture.anchor_reason().is_some() => Ok(Step::Anchor),
            None => Ok(Step::Done),
        }
    })?;
    shipper.note_what_was_given_up();
    Ok((step, noted))
}

/// Whether something is to be published.
fn has_something(shipper: &Shipper) -> Result<bool> {
    shipper.with_capture(|capture| capture.has_something(&shipper.db))?
}

pub(in crate::primary) fn jittered(wait: Duration) -> Duration {
    let share = crate::primary::random_u64() as f64 / u64::MAX as f64;
    wait.mul_f64(0.5 + share / 2.0)
}
