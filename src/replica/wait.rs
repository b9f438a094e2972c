//! Waiting until a replica shows a transaction, so that who wrote it can read it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::by_name::Look;
use super::core::Core;
use super::view::Seen;
use crate::error::{Error, ErrorKind, Result};
use crate::ltx::Txid;
use crate::runtime;

/// The first pause between two looks. Each later one is twice as long.
const SHORTEST_PAUSE: Duration = Duration::from_millis(20);
/// The longest pause, unless the poll interval is shorter.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// How it looks, again and again: the first look is the one that finds what was just written.
const LOOKS: [Look; 4] = [Look::Cheaply, Look::Thoroughly, Look::Cheaply, Look::Cheaply];

impl Core {
    /// Waits until transactions that begin from now on see `txid`, which the replica's primary gave out; returns the last
    /// one that they see. Looks at once, and then again and again; with a `timeout` of zero, once.
    ///
    /// # Errors
    /// `Timeout`, with the reason if the store did not answer; `Interrupted`.
    pub fn wait_for(
        self: &Arc<Self>,
        txid: Txid,
        timeout: Duration,
        interrupted: impl Fn() -> bool,
    ) -> Result<Txid> {
        let deadline = Instant::now() + timeout;
        let is_late = || !timeout.is_zero() && Instant::now() >= deadline;
        let mut pause = SHORTEST_PAUSE;
        let mut looks = LOOKS.into_iter().cycle().skip(usize::from(timeout.is_zero()));
        loop {
            let last = self.snapshot().txid;
            if last >= txid {
                return Ok(last);
            }
            let look = looks.next().expect("BUG: a cycle ended");
            let polled = self.look_unless(look, || interrupted() || is_late());
            if interrupted() {
                return Err(Error::new(ErrorKind::Interrupted, "the wait for the replica was interrupted"));
            }
            if self.snapshot().txid >= txid {
                continue;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(self.lacks(txid, timeout, polled.err()));
            }
            let pausing = sleep(pause.min(left));
            runtime::wait_for(&interrupted, pausing)?;
            pause = (pause * 2).min(LONGEST_PAUSE.min(self.poller.interval()).max(SHORTEST_PAUSE));
        }
    }

    fn lacks(&self, txid: Txid, timeout: Duration, failed: Option<Error>) -> Error {
        let url = self.files.source.url();
        let last = self.snapshot().txid;
        let why = failed.filter(|e| e.kind() != ErrorKind::Interrupted);
        let why = why.map_or_else(String::new, |e| format!(" ({e})"));
        let message = format!("{url} does not hold {txid} after {timeout:?}, but {last}{why}");
        Error::new(ErrorKind::Timeout, message)
    }
}

async fn sleep(time: Duration) -> Result<()> {
    tokio::time::sleep(time).await;
    Ok(())
}

impl Seen {
    /// Waits until the connection's next transaction sees `txid`, or without one all that the replica holds now; returns the
    /// last transaction that it sees.
    ///
    /// # Errors
    /// Those of [`Core::wait_for`]; `Busy` if a transaction is open that sees an earlier state, `Unsupported` if an earlier
    /// state was chosen.
    pub fn wait_for(
        &self,
        txid: Option<Txid>,
        timeout: Duration,
        interrupted: impl Fn() -> bool,
    ) -> Result<Txid> {
        if let Some((held, is_chosen)) = self.held() {
            return match txid {
                Some(txid) if held.txid >= txid => Ok(held.txid),
                _ => Err(does_not_follow(held.txid, is_chosen)),
            };
        }
        match txid {
            Some(txid) => self.core().wait_for(txid, timeout, interrupted),
            None => {
                let deadline = Instant::now() + timeout;
                self.core().poll_unless(|| interrupted() || Instant::now() >= deadline)?;
                Ok(self.core().snapshot().txid)
            }
        }
    }
}

/// The error of a connection that keeps to the state at `txid`.
fn does_not_follow(txid: Txid, is_chosen: bool) -> Error {
    if is_chosen {
        return Error::new(
            ErrorKind::Unsupported,
            format!(
                "this connection reads the state at TXID {txid}, which was chosen: litestream_set_time('latest') makes \
                 it follow again"
            ),
        );
    }
    Error::new(
        ErrorKind::Busy,
        format!("a transaction is open and sees the state at TXID {txid} to its end: end it, then wait"),
    )
}
