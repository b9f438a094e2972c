//! Waiting for replicas: here if this process publishes, and else through the one that does.

use std::time::Duration;

use tokio::time::Instant;

use super::{LOOK, Primary};
use crate::error::{Error, ErrorKind, Result};
use crate::ltx::Txid;
use crate::primary::hooks::CommitSeq;
use crate::primary::ownership::Question;
use crate::primary::shipper::{Goal, Shipper, Waiter, timed_out};

/// How long a look at the database may take, though less time is given to wait.
const GLANCE: Duration = Duration::from_millis(250);

/// What is waited for.
pub(super) struct Wanted<'a> {
    /// What another process that publishes is asked for.
    pub(super) question: Question,
    pub(super) goal: &'a Goal,
    /// The commit that waits, which hurried the shippers. `None` for every commit up to now: then they hurry when the
    /// wait begins.
    pub(super) commit: Option<CommitSeq>,
}

impl<'a> Wanted<'a> {
    /// All that is committed now is wanted in the replicas of `goal`.
    pub(super) const fn sync(goal: &'a Goal) -> Self {
        Self { question: Question::Sync, goal, commit: None }
    }
}

impl Primary {
    /// Waits until transaction `txid` of the first replica, or without one what was committed before the call, is in the
    /// replicas, or in as many as `sync_replicas` says. No upload is asked for before its time. Returns the last transaction
    /// of the first replica, or `None` if that was not needed.
    ///
    /// # Errors
    /// Those of [`Primary::sync`].
    pub fn wait_for(
        &self,
        txid: Option<Txid>,
        timeout: Duration,
        interrupted: &dyn Fn() -> bool,
    ) -> Result<Option<Txid>> {
        let deadline = Instant::now() + timeout;
        let goal = self.goal(self.shippers());
        let seq = match txid {
            Some(txid) => {
                let last = self.wait_for_first(txid, timeout, interrupted)?;
                if self.replicas() == 1 {
                    return Ok(Some(last));
                }
                // The others count for themselves: what the first one holds now is more than enough.
                self.first().progress().acked
            }
            None => {
                // Commits of other processes count too, and nothing has shown them to this one yet.
                if self.owner.is_standby() || goal.replicas().any(|number| self.shippers()[number].may_lack())
                {
                    self.db.commits.ask();
                    self.committed();
                }
                self.db.commits.last().seq
            }
        };
        let wanted = Wanted { question: Question::Wait, goal: &goal, commit: Some(seq) };
        self.wait(&wanted, deadline.saturating_duration_since(Instant::now()), interrupted)
    }

    /// Waits until the first replica has transaction `txid`; its last one then.
    fn wait_for_first(&self, txid: Txid, timeout: Duration, interrupted: &dyn Fn() -> bool) -> Result<Txid> {
        let deadline = Instant::now() + timeout;
        loop {
            let before = self.db.bell.rings();
            if let Some(last) = self.txid().filter(|last| *last >= txid) {
                return Ok(last);
            }
            if let Some(stopped) = self.first().stopped() {
                return Err(stopped);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let url = self.first().store.url();
                let there = self.txid().map_or("no transaction".to_owned(), |last| last.to_string());
                let message = format!("{url} does not hold {txid} after {timeout:?}, but {there}");
                return Err(Error::new(ErrorKind::Timeout, message));
            }
            if interrupted() {
                return Err(Error::new(ErrorKind::Interrupted, "the wait for the replica was interrupted"));
            }
            self.db.bell.wait(before, left.min(LOOK));
        }
    }

    /// Waits here if this process publishes, and else asks the one that does.
    pub(super) fn wait(
        &self,
        wanted: &Wanted<'_>,
        timeout: Duration,
        interrupted: &dyn Fn() -> bool,
    ) -> Result<Option<Txid>> {
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if let Some(txid) = self.wait_here(wanted, left, interrupted)? {
                return Ok(txid);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if let Some(txid) = self.owner.ask_publisher(wanted.question, wanted.goal, left, interrupted)? {
                return Ok(txid);
            }
        }
    }

    /// As [`Primary::wait`], in the process that publishes; `None` if this one does not.
    fn wait_here(
        &self,
        wanted: &Wanted<'_>,
        timeout: Duration,
        interrupted: &dyn Fn() -> bool,
    ) -> Result<Option<Option<Txid>>> {
        if self.owner.is_standby() {
            return Ok(None);
        }
        let begun = Instant::now();
        let goal = wanted.goal;
        let mut waiters: Vec<Option<Waiter<'_>>> = self.shippers().iter().map(|_| None).collect();
        for number in goal.replicas() {
            let shipper = &self.shippers()[number];
            waiters[number] = Some(match wanted.commit {
                Some(seq) => Waiter::of_commit(shipper, seq),
                None => Waiter::new(shipper),
            });
        }
        let bell = if wanted.commit.is_some() { &self.db.arrivals } else { &self.db.bell };
        loop {
            if self.owner.is_standby() {
                return Ok(None);
            }
            let before = bell.rings();
            let outcomes: Vec<_> =
                waiters.iter_mut().map(|waiter| waiter.as_mut().and_then(Waiter::outcome)).collect();
            if let Some(verdict) = goal.verdict(&outcomes) {
                return verdict.map(Some);
            }
            let lacking = goal.replicas().filter(|number| !matches!(outcomes[*number], Some(Ok(_))));
            let lacking: Vec<&Shipper> = lacking.map(|number| &*self.shippers()[number]).collect();
            // Whether all is there is known once it was looked.
            let looks =
                wanted.question != Question::Commit && lacking.iter().any(|shipper| shipper.is_idle());
            let patience = if looks { timeout.max(GLANCE) } else { timeout };
            let left = patience.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return Err(timed_out(&lacking.iter().map(|one| one.lacks()).collect::<Vec<_>>(), timeout));
            }
            if interrupted() {
                return Err(Error::new(ErrorKind::Interrupted, "the wait for the replica was interrupted"));
            }
            bell.wait(before, left.min(LOOK));
        }
    }
}
