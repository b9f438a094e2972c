//! When the replica is looked at: at each interval, and when somebody asks.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::by_name::Look;
use super::core::Core;
use super::poller::Poller;
use super::snapshot::Snapshot;
use crate::error::{Error, ErrorKind, Result};
use crate::runtime;

/// How long a reader waits for the poll that ends a rest.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

impl Core {
    /// The latest state, for somebody who reads it: no older than the usual poll interval, unless the
    /// replica does not answer.
    pub(super) fn latest(self: &Arc<Self>) -> Arc<Snapshot> {
        if self.poller.note_read() {
            self.end_rest();
        }
        self.snapshot()
    }

    /// Polls after a rest, and does not wait long for it.
    #[cold]
    fn end_rest(self: &Arc<Self>) {
        self.poller.wake();
        let core = self.clone();
        let poll = async move {
            // On its own, so that it goes on when nobody waits any more.
            let poll = tokio::spawn(async move { core.poll(Look::Thoroughly).await });
            let _ = tokio::time::timeout(LONGEST_WAIT, poll).await;
            Ok(())
        };
        // What went wrong is in the status; what is known stays readable.
        let _ = runtime::block_on(poll);
    }

    /// Looks for new transactions now, and waits for the answer.
    ///
    /// # Errors
    /// Those of the store; `Corrupt`. What was visible stays so.
    pub fn poll_now(self: &Arc<Self>) -> Result<()> {
        self.poll_unless(|| false)
    }

    /// As [`Core::poll_now`], until `interrupted` says that nobody wants the answer any more.
    ///
    /// # Errors
    /// Also `Interrupted`.
    pub fn poll_unless(self: &Arc<Self>, interrupted: impl Fn() -> bool) -> Result<()> {
        self.look_unless(Look::Thoroughly, interrupted)
    }

    /// As [`Core::poll_unless`], which looks as `look` says.
    pub(super) fn look_unless(self: &Arc<Self>, look: Look, interrupted: impl Fn() -> bool) -> Result<()> {
        let core = self.clone();
        runtime::wait_for(interrupted, async move {
            // On its own: a poll that others share is not given up with who asked for it.
            tokio::spawn(async move { core.poll(look).await }).await.unwrap_or_else(|e| {
                Err(Error::new(ErrorKind::Io, format!("background work ended early: {e}")))
            })
        })
    }

    /// Looks for new transactions now, and for where files went that are gone.
    pub(super) async fn poll_suspiciously(&self) -> Result<()> {
        self.suspect.store(true, Ordering::Relaxed);
        self.poll(Look::Thoroughly).await
    }
}

/// Polls until the core is dropped.
pub(super) async fn run(core: Weak<Core>, poller: Arc<Poller>) {
    let mut pause = poller.interval();
    let mut begun = Instant::now();
    let mut quiet = 0;
    loop {
        tokio::select! {
            () = sleep_until(begun + pause) => {}
            () = poller.woken() => {
                (pause, quiet, begun) = (poller.interval(), 0, Instant::now());
                continue;
            }
        }
        let Some(core) = core.upgrade() else { return };
        begun = Instant::now();
        let well = core.poll(Look::Cheaply).await.is_ok();
        pause = poller.pause(pause, well, &mut quiet);
        if well && pause > poller.interval() {
            poller.rest();
        }
    }
}
