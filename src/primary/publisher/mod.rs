//! The publisher: one background task per database that takes commits to the replica.
//!
//! The first commit after quiet goes out at once; under load at most one file goes out per
//! `sync_interval`. Without commits the task sleeps without a timer.

mod begin;
pub(super) mod copy;
mod heal;
mod send;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::time::Instant;

use crate::error::{ErrorKind, Result};
use crate::primary::commits::Noted;
use crate::primary::outgoing::Outgoing;
use crate::primary::shared::Shared;
use crate::primary::standby;
use crate::primary::watch;
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
    /// The database must be copied anew.
    Anchor,
    /// A file is to be sent.
    Send(Box<Outgoing>),
}

/// Publishes until the task is aborted. A bug stops replication, with an error in status, until a user says that it shall
/// continue.
pub(super) async fn run(shared: Arc<Shared>) {
    let work = || async {
        tokio::select! {
            () = publish(&shared) => {}
            () = standby::watch_force(&shared) => {}
        }
    };
    while let Err(panic) = AssertUnwindSafe(work()).catch_unwind().await {
        let remedy =
            "replication stopped, which litestream_resume() or the next open of the database begins again";
        shared.stop(runtime::bug(&*panic).context(remedy));
        standby::until_told(&shared).await;
    }
}

async fn publish(shared: &Arc<Shared>) {
    let mut backoff = BACKOFF_MIN;
    // From when on the next file may go out though nobody waits for it.
    let mut due = Instant::now();
    loop {
        standby::until_told(shared).await;
        let started = Instant::now();
        shared.begin_round();
        let waiting = shared.requests.take_waiting();
        let outcome = tokio::select! {
            outcome = round(shared, !waiting.is_empty()) => outcome,
            () = shared.withdrawn.notified() => {
                shared.requests.wait_again(waiting);
                continue;
            }
        };
        if let Some(stopped) = shared.stopped() {
            shared.answer(waiting, Err(&stopped));
            continue;
        }
        shared.answer(waiting, outcome.as_ref().map(|_| ()));
        let deadline = match outcome {
            Ok(_) if shared.is_standby() => {
                standby::rest(shared).await;
                continue;
            }
            Ok(sent) => {
                backoff = BACKOFF_MIN;
                shared.recovered();
                if sent {
                    due = started + shared.options.sync_interval;
                }
                due
            }
            Err(e) if e.kind() == ErrorKind::Conflict => {
                shared.stop(e);
                continue;
            }
            Err(e) => {
                shared.failed(e);
                let wait = jittered(backoff);
                backoff = (backoff * 2).min(BACKOFF_MAX);
                started + wait
            }
        };
        let hurried = if shared.has_failed() {
            wait_out(shared, deadline).await
        } else {
            pause(shared, deadline).await
        };
        if hurried || shared.has_failed() {
            continue;
        }
        watch::idle(shared).await;
    }
}

/// Waits until `deadline` or, then true, until somebody waits for the replica.
async fn pause(shared: &Arc<Shared>, deadline: Instant) -> bool {
    tokio::time::timeout_at(deadline, shared.signal.hurried(|| shared.is_awaited())).await.is_ok()
}

/// As [`pause`], while the replica cannot be reached: what is committed meanwhile goes into waiting files, one in
/// `sync_interval`, so that points in time within an outage survive.
async fn wait_out(shared: &Arc<Shared>, deadline: Instant) -> bool {
    let interval = shared.options.sync_interval.max(WAITING_FILE_EVERY);
    loop {
        let kept = blocking(shared, |shared| {
            shared.capture_into_spool()?;
            shared.tidy()
        });
        match kept.await {
            Err(e) if e.kind() == ErrorKind::Busy => tracing::debug!("{}: {e}", shared.path.display()),
            // The database has the pages all the same.
            Err(e) => shared.notice(format!("points in time of this outage are lost: {e}")),
            Ok(()) => {}
        }
        let next = deadline.min(Instant::now() + interval);
        if pause(shared, next).await {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
    }
}

/// Brings the replica up to what is committed now; `false` if it was there already.
async fn round(shared: &Arc<Shared>, asked: bool) -> Result<bool> {
    if !blocking(shared, |shared| shared.become_publisher()).await? {
        return Ok(false);
    }
    shared.check_file()?;
    shared.listen();
    if let Some(conflict) = shared.history.take_conflict() {
        return Err(conflict);
    }
    if !shared.is_resumed() {
        begin::begin(shared).await?;
    }
    heal::finish(shared).await?;
    heal::look_if_asked(shared).await?;
    let look = shared.requests.take_look();
    match look.as_ref().and_then(|look| look.committed_since) {
        Some(since) => shared.commits.ask_since(since),
        // What the other process committed is not in a file that is under way already.
        None if asked || look.is_some() => shared.commits.ask(),
        None => {}
    }
    let published = publish_all(shared, asked).await;
    if published.is_err()
        && let Some(look) = look
    {
        shared.requests.look_again(look);
    }
    published
}

/// Publishes every commit that was noted, and what others committed before; `false` if there was nothing to send.
async fn publish_all(shared: &Arc<Shared>, asked: bool) -> Result<bool> {
    let goal = shared.commits.last().seq;
    let mut sent = false;
    loop {
        match next_step(shared, asked).await? {
            Step::Done => return Ok(sent),
            Step::Anchor if copy::anchor(shared).await? => {
                sent = true;
                heal::finish(shared).await?;
            }
            Step::Anchor => return Ok(sent),
            Step::Send(_) if heal::look_now_and_then(shared).await? => {}
            Step::Send(out) => {
                let covers = out.covers;
                sent = true;
                if send::send(shared, *out).await? && covers >= goal {
                    return Ok(true);
                }
            }
        }
    }
}

/// What is to be done now; `asked`: another process waits for it.
async fn next_step(shared: &Arc<Shared>, asked: bool) -> Result<Step> {
    if shared.time.is_doubtful() && blocking(shared, has_something).await? {
        shared.time.ascertain().await?;
    }
    shared.look_at_clock();
    blocking(shared, move |shared| {
        let (step, noted) = step_now(shared)?;
        match step {
            Ok(Step::Done) => {
                shared.all_published(noted.seq);
                Ok(Step::Done)
            }
            // A connection that keeps the database for itself may be reading: then nothing was committed.
            Err(e) if e.kind() == ErrorKind::Busy && !asked && !shared.has_commits_on_the_way() => {
                tracing::debug!("{}: {e}", shared.path.display());
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
fn step_now(shared: &Shared) -> Result<(Result<Step>, Noted)> {
    shared.looks();
    let txid = shared.next_txid();
    let (noted, since) = shared.commits.take();
    shared.on_the_way(noted.seq, since);
    let step = shared.with_capture(|capture| {
        if capture.anchor_reason().is_some() {
            return Ok(Step::Anchor);
        }
        let time = |noted, witness| shared.published_time(noted, witness);
        let database = (shared.host.as_ref(), &shared.commits, &noted);
        match capture.next_outgoing(txid, database, time)? {
            Some(out) => Ok(Step::Send(Box::new(out))),
            None if capture.anchor_reason().is_some() => Ok(Step::Anchor),
            None => Ok(Step::Done),
        }
    })?;
    shared.note_what_was_given_up();
    Ok((step, noted))
}

/// Whether something is to be published.
fn has_something(shared: &Shared) -> Result<bool> {
    shared.with_capture(|capture| capture.has_something(shared.host.as_ref(), &shared.commits))?
}

/// Runs `work`, which waits for files and locks, off the asynchronous threads.
pub(super) async fn blocking<T: Send + 'static>(
    shared: &Arc<Shared>,
    work: impl FnOnce(&Shared) -> Result<T> + Send + 'static,
) -> Result<T> {
    let shared = Arc::clone(shared);
    runtime::blocking(move || work(&shared)).await
}

/// The same for `work` that waits for the store.
pub(super) async fn long_blocking<T: Send + 'static>(
    shared: &Arc<Shared>,
    work: impl FnOnce(&Shared) -> Result<T> + Send + 'static,
) -> Result<T> {
    let shared = Arc::clone(shared);
    runtime::long_blocking(move || work(&shared)).await
}

fn jittered(wait: Duration) -> Duration {
    let share = crate::primary::random_u64() as f64 / u64::MAX as f64;
    wait.mul_f64(0.5 + share / 2.0)
}
