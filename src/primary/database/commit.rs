//! Commits that wait: a ticket is drawn when SQLite has the commit, and redeemed when it holds no lock any more.
//!
//! Drawing a ticket takes no lock for longer than a moment, and hurries the shippers. All commits that are noted while a file
//! is on its way are in the next one, so those who wait share uploads.

use std::time::Duration;

use tokio::time::Instant;

use super::{Primary, Wanted};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::failures::{self, Attempt};
use crate::primary::hooks::CommitSeq;
use crate::primary::options::SyncReplicas;
use crate::primary::ownership::Question;
use crate::primary::shipper::Goal;

/// A ticket: a commit that waits until it is in replicas.
#[derive(Debug)]
pub struct Ticket {
    /// The last commit that was noted when it was drawn.
    seq: CommitSeq,
    /// When that was.
    time: Timestamp,
    goal: Goal,
    drawn: Instant,
    timeout: Duration,
}

impl Primary {
    /// The number of its replicas.
    pub fn replicas(&self) -> usize {
        self.shippers().len()
    }

    /// Draws a ticket for the last commit that was noted, which is to be in `replicas` within `timeout`: they are hurried.
    pub fn draw_ticket(&self, replicas: SyncReplicas, timeout: Duration) -> Ticket {
        self.db.wal_sync.comes_first();
        let noted = self.db.commits.last();
        let needed = replicas.needed(self.replicas());
        let hurries_all = self.shippers().iter().filter(|shipper| !shipper.has_failed()).count() < needed;
        for shipper in self.shippers() {
            shipper.awaits_commit(noted.seq);
            // One that fails waits for its next attempt if the others are enough.
            if hurries_all || !shipper.has_failed() {
                shipper.signal.hurry();
            }
        }
        let goal = Goal::any(self.replicas(), needed);
        Ticket { seq: noted.seq, time: noted.time, goal, drawn: Instant::now(), timeout }
    }

    /// Waits until the commit of `ticket` is in its replicas and, if `syncs`, safe from a power failure here too. What it
    /// comes to is in the status and in the log. `interrupted` is asked now and then whether to give up.
    ///
    /// # Errors
    /// Why the commit is not confirmed: `Timeout`, `Conflict`, `Interrupted`, `Busy`, or `Io` of the WAL. It is committed here
    /// all the same.
    pub fn redeem(&self, ticket: &Ticket, syncs: bool, interrupted: &dyn Fn() -> bool) -> Result<()> {
        let confirmed = self.confirm(ticket, syncs, interrupted);
        self.waits.note(ticket.drawn.elapsed());
        confirmed.map_err(|e| {
            let message = format!(
                "the transaction of {} is committed here and not confirmed: {e}. It goes to the replica with later ones; \
                 nothing of it is undone",
                ticket.time
            );
            failures::record(Attempt::Confirm, Some(self.path()), message.clone());
            Error::new(e.kind(), message)
        })
    }

    fn confirm(&self, ticket: &Ticket, syncs: bool, interrupted: &dyn Fn() -> bool) -> Result<()> {
        // Beside the upload, which is under way.
        if syncs {
            self.db.wal_sync.sync(&self.db.commits, ticket.seq)?;
        }
        let wanted = Wanted { question: Question::Commit, goal: &ticket.goal, commit: Some(ticket.seq) };
        let left = ticket.timeout.saturating_sub(ticket.drawn.elapsed());
        match self.wait(&wanted, left, interrupted) {
            Err(e) if e.kind() == ErrorKind::Interrupted => {
                Err(Error::new(ErrorKind::Interrupted, "the wait was interrupted"))
            }
            waited => waited.map(drop),
        }
    }
}
