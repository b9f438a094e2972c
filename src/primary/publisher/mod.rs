//! The publisher: one background task per database that takes commits to the replica.
//!
//! The first commit after quiet goes out at once; under load at most one file goes out per
//! `sync_interval`. Without commits the task sleeps without a timer.

mod begin;
mod copy;
mod heal;
mod send;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::time::Instant;

use crate::error::{ErrorKind, Result};
use crate::primary::outgoing::Outgoing;
use crate::primary::shared::Shared;
use crate::primary::standby;
use crate::primary::watch;
use crate::runtime;

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

/// Publishes and captures until the task is aborted. A bug stops replication, with an error in status, until a user
/// says that it shall continue.
pub(super) async fn run(shared: Arc<Shared>) {
    let work = || async {
        tokio::select! {
            () = publish(&shared) => {}
            () = capture_when_asked(&shared) => {}
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

/// Captures without publishing, whatever the publisher is waiting for, so that little is kept on disk.
async fn capture_when_asked(shared: &Arc<Shared>) {
    loop {
        shared.signal.capture_asked().await;
        let captured = blocking(shared, capture);
        if let Err(e) = captured.await {
            tracing::debug!("{}: {e}", shared.path.display());
        }
    }
}

fn capture(shared: &Shared) -> Result<()> {
    // With older generations to capture first, this one would not be done before it is restarted.
    if shared.generations.oldest().is_some() {
        shared.generations.copy_ahead(&shared.commits)?;
    }
    if shared.generations.is_behind(&shared.commits) {
        shared.put_on_disk()?;
    } else {
        shared.capture_now()?;
    }
    if shared.has_failed() { shared.tidy() } else { Ok(()) }
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
                if let Err(e) = blocking(shared, |shared| shared.tidy()).await {
                    tracing::warn!("{e}");
                }
                started + wait
            }
        };
        let hurried = pause(shared, deadline).await;
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
    standby::look_at_others(shared, asked).await?;
    let goal = shared.commits.last().seq;
    let mut sent = false;
    loop {
        match next_step(shared).await? {
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
                if send::send(shared, out).await? && covers >= goal {
                    return Ok(true);
                }
            }
        }
    }
}

async fn next_step(shared: &Arc<Shared>) -> Result<Step> {
    if shared.time.is_doubtful() && blocking(shared, has_something).await? {
        shared.time.ascertain().await?;
    }
    shared.look_at_clock();
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
            let time = |noted, witness| shared.published_time(noted, witness);
            let step = match capture.next_outgoing(txid, &noted, time)? {
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

/// Whether something is to be published, as far as it is captured now.
fn has_something(shared: &Shared) -> Result<bool> {
    shared.capture_now()?;
    shared.with_capture(|capture| capture.anchor_reason().is_some() || capture.has_waiting())
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
