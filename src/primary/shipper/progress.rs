//! How far the replica is, and how that changes.

use std::sync::MutexGuard;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::{Capture, Desk, Phase, Shipper};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind};
use crate::events::{self, Event, Subject};
use crate::ltx::Txid;
use crate::primary::hooks::CommitSeq;
use crate::primary::time::Witness;

/// A database that is locked for longer is worth a line in the log.
const LOCKED: Duration = Duration::from_secs(5);

/// A database that is locked no longer than this is not said to be: one is while it is put into WAL mode.
const MOMENT: Duration = Duration::from_secs(1);

/// How far the replica is.
#[derive(Debug)]
pub(in crate::primary) struct Progress {
    pub(in crate::primary) phase: Phase,
    /// Counts the shipper's rounds.
    pub(in crate::primary) round: u64,
    /// The round that found that there is nothing to publish: the database is empty.
    pub(in crate::primary) nothing_here: u64,
    /// Whether the replica was looked at.
    pub(in crate::primary) resumed: bool,
    /// The database as it was opened is known, so that a program may write it.
    pub(in crate::primary) local_known: bool,
    /// The last transaction in the replica.
    pub(in crate::primary) txid: Option<Txid>,
    /// The last commit in the replica.
    pub(in crate::primary) acked: CommitSeq,
    /// When the last transaction in the replica was committed. No later one is published with an earlier time.
    pub(in crate::primary) time: Option<Timestamp>,
    /// Since when the oldest commit waits of those that are on their way, by the steady clock.
    pub(in crate::primary) on_the_way_since: Option<Timestamp>,
    /// The last commit that is on its way, or was.
    pub(in crate::primary) on_the_way: CommitSeq,
    /// What was found and repaired last, and when.
    pub(in crate::primary) notice: Option<(Timestamp, String)>,
    /// The failure of the last attempt, if it failed, or what ended replication.
    pub(in crate::primary) error: Option<Error>,
    /// How many requests to the store had succeeded when that attempt failed, or when its failure was expected.
    pub(super) succeeded: u64,
    /// What the first attempt of the next shipper is expected to come to. It counts there when the database as it was opened is
    /// known.
    pub(super) expected: Option<Error>,
    /// What ended replication before a user said that it shall continue.
    pub(in crate::primary) stopped_by: Option<Error>,
    /// Since when each attempt failed, by the steady clock.
    failing_since: Option<Timestamp>,
    /// The log has a failure, and not yet its end.
    pub(in crate::primary) logged: bool,
    /// The number of transactions that took commits along which waited.
    awaited_uploads: u64,
}

impl Progress {
    pub(in crate::primary) fn new() -> Self {
        Self {
            phase: Phase::Starting,
            round: 0,
            nothing_here: 0,
            resumed: false,
            local_known: false,
            txid: None,
            acked: CommitSeq::default(),
            time: None,
            on_the_way_since: None,
            on_the_way: CommitSeq::default(),
            notice: None,
            error: None,
            succeeded: 0,
            expected: None,
            stopped_by: None,
            failing_since: None,
            logged: false,
            awaited_uploads: 0,
        }
    }
}

impl Progress {
    /// Every commit up to `covers` is in the replica.
    fn arrived(&mut self, covers: CommitSeq) {
        self.acked = self.acked.max(covers);
        if self.acked >= self.on_the_way {
            self.on_the_way_since = None;
        }
    }

    /// Whether commits get to the replica one after the other: nothing else ends or keeps up the wait for one.
    const fn is_in_order(&self) -> bool {
        matches!(self.phase, Phase::Publishing | Phase::Idle | Phase::Retrying)
    }

    /// Since when each attempt failed, by the steady clock.
    pub(super) const fn failing_since(&self) -> Option<Timestamp> {
        self.failing_since
    }

    /// How many of `commits`, which waited, each transaction took along.
    pub(in crate::primary) fn commits_per_upload(&self, commits: u64) -> Option<f64> {
        (self.awaited_uploads > 0).then(|| commits as f64 / self.awaited_uploads as f64)
    }

    /// What was found and repaired last, with its time.
    pub(in crate::primary) fn shown_notice(&self) -> Option<String> {
        self.notice.as_ref().map(|(at, notice)| format!("{at}: {notice}"))
    }

    /// The last attempt came to `error`, when `succeeded` requests to the store had succeeded.
    pub(super) fn fails(&mut self, error: Error, succeeded: u64) {
        self.phase = Phase::Retrying;
        self.error = Some(error);
        self.succeeded = succeeded;
    }

    /// Enters a phase, unless replication was ended meanwhile by another thread than the publisher's.
    fn enter(&mut self, phase: Phase) {
        if self.phase != Phase::Stopped {
            self.phase = phase;
        }
    }
}

impl Shipper {
    pub(in crate::primary) fn change(&self, change: impl FnOnce(&mut Progress)) {
        let is_news = {
            let mut progress = self.progress();
            let before = (progress.acked, progress.is_in_order());
            change(&mut progress);
            before != (progress.acked, progress.is_in_order())
        };
        self.db.bell.ring();
        if is_news {
            self.db.arrivals.ring();
        }
    }

    /// Whoever waits is to look again.
    pub(in crate::primary) fn changed(&self) {
        self.change(|_| ());
    }

    pub(in crate::primary) fn is_resumed(&self) -> bool {
        self.progress().resumed
    }

    pub(in crate::primary) fn resumed(&self, last: Option<Txid>) {
        self.change(|p| {
            p.resumed = true;
            p.txid = last;
        });
    }

    /// The last transaction in the replica.
    pub(in crate::primary) fn progress_txid(&self) -> Option<Txid> {
        self.progress().txid
    }

    pub(in crate::primary) fn next_txid(&self) -> Txid {
        self.progress().txid.map_or(Txid::ONE, Txid::next)
    }

    /// When the last transaction in the replica was committed is known to be `time`.
    pub(in crate::primary) fn seen(&self, time: Timestamp) {
        self.change(|p| p.time = p.time.max(Some(time)));
    }

    /// The time with which a commit is published that was noted at `noted`: not before that of the
    /// transaction before it.
    pub(in crate::primary) fn published_time(&self, noted: Timestamp, witness: Witness) -> Timestamp {
        let time = self.time.of_commit(noted, witness);
        self.progress().time.map_or(time, |before| time.max(before))
    }

    pub(in crate::primary) fn set_phase(&self, phase: Phase) {
        self.change(|p| {
            p.enter(phase);
            // Who could not read the database a moment ago has read it.
            if matches!(phase, Phase::Copying | Phase::Publishing) && !p.logged {
                p.error.take_if(|error| error.kind() == ErrorKind::Busy);
            }
        });
    }

    /// The publisher begins a round.
    pub(in crate::primary) fn begin_round(&self) {
        self.progress().round += 1;
    }

    /// This round found that there is nothing to publish: the database is empty.
    pub(in crate::primary) fn nothing_here(&self) {
        self.change(|p| {
            p.enter(Phase::Empty);
            p.nothing_here = p.round;
        });
    }

    /// Commits up to `last`, which waited since `since`, are on their way.
    pub(in crate::primary) fn on_the_way(&self, last: CommitSeq, since: Option<Timestamp>) {
        let mut progress = self.progress();
        progress.on_the_way_since = progress.on_the_way_since.or(since);
        progress.on_the_way = progress.on_the_way.max(last);
    }

    /// Whether this process noted commits that are not in the replica, or a caller waits.
    pub(in crate::primary) fn has_commits_on_the_way(&self) -> bool {
        let is_on_the_way = self.progress().on_the_way_since.is_some();
        is_on_the_way || self.is_awaited()
    }

    /// `txid` is in the replica and holds every commit up to `covers`.
    pub(in crate::primary) fn published(&self, txid: Txid, covers: CommitSeq, time: Timestamp) {
        self.db.has_pages();
        self.rounds.published();
        let awaited = self.awaited_commit.load(Ordering::SeqCst);
        self.change(|p| {
            self.works_again(p);
            p.awaited_uploads += u64::from(awaited > p.acked.0);
            p.enter(Phase::Idle);
            p.txid = Some(txid);
            p.arrived(covers);
            p.time = p.time.max(Some(time));
        });
    }

    /// `txid` is in the replica from an earlier life; what is to be sent takes the next.
    pub(in crate::primary) fn skip_to(&self, txid: Txid) {
        self.history.found_unknown();
        self.change(|p| {
            p.txid = Some(txid);
        });
    }

    /// Every commit up to `seq` is in the replica.
    pub(in crate::primary) fn all_published(&self, seq: CommitSeq) {
        self.change(|p| {
            p.arrived(seq);
        });
    }

    /// The commit `seq` waits for the replica from now on.
    pub(in crate::primary) fn awaits_commit(&self, seq: CommitSeq) {
        self.awaited_commit.fetch_max(seq.0, Ordering::SeqCst);
        self.tickets.fetch_add(1, Ordering::SeqCst);
    }

    /// The number of commits that waited, or wait, for the replica.
    pub(super) fn tickets(&self) -> u64 {
        self.tickets.load(Ordering::SeqCst)
    }

    /// Whether somebody waits for the replica.
    pub(in crate::primary) fn is_awaited(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
            || self.requests.is_awaited()
            || self.awaited_commit.load(Ordering::SeqCst) > self.progress().acked.0
    }

    /// The last round succeeded.
    pub(in crate::primary) fn recovered(&self) {
        self.change(|p| {
            self.works_again(p);
            if !matches!(p.phase, Phase::Standby | Phase::Empty) {
                p.enter(Phase::Idle);
            }
        });
    }

    fn works_again(&self, progress: &mut Progress) {
        if progress.phase == Phase::Stopped {
            return;
        }
        (progress.error, progress.failing_since, progress.expected) = (None, None, None);
        if std::mem::take(&mut progress.logged) {
            for event in [&events::UPLOAD_FAILED, &events::AUTH_FAILURE, &events::CIRCUIT_BREAKER_OPEN] {
                self.ends(event);
            }
        }
    }

    /// The last round failed and will be repeated.
    pub(in crate::primary) fn failed(&self, error: Error) {
        // A round may be under way when the last connection closes.
        let is_ended = matches!(*self.desk(), Desk::Shelved(_) | Desk::Ended);
        if is_ended || (error.kind() == ErrorKind::Interrupted && !self.db.is_open()) {
            return;
        }
        self.change(|p| {
            if p.phase == Phase::Stopped {
                return;
            }
            let now = self.db.clock.steady().as_millis();
            let lasts = now - p.failing_since.get_or_insert(Timestamp::from_millis(now)).as_millis();
            // A database that is locked for a while, as by a connection that closes, is no failure yet; nor is a round that the
            // last close ended, if the database was opened again since.
            let may_pass = matches!(error.kind(), ErrorKind::Busy | ErrorKind::Interrupted);
            let passes = may_pass && lasts < LOCKED.as_millis() as i64;
            if !passes {
                self.fails_with(&error);
                p.logged = true;
            }
            p.fails(error, self.store.requests().succeeded());
        });
    }

    /// Tells of a failure that will be tried again, and of what it says of the store.
    fn fails_with(&self, error: &Error) {
        self.begins(&events::UPLOAD_FAILED, &error.to_string());
        match error.kind() {
            ErrorKind::Denied => self.begins(&events::AUTH_FAILURE, &error.to_string()),
            _ => self.ends(&events::AUTH_FAILURE),
        }
    }

    /// `event` lasts from now on of this replica, because of `error`.
    pub(in crate::primary) fn begins(&self, event: &'static Event, error: &str) {
        events::begins(event, Subject { db: &self.db.path, replica: &self.store.url() }, error);
    }

    /// What `event` tells of this replica is over, if it lasted.
    pub(in crate::primary) fn ends(&self, event: &'static Event) {
        events::ends(event, Subject { db: &self.db.path, replica: &self.store.url() });
    }

    /// `event` happened to this replica.
    pub(in crate::primary) fn happened(&self, event: &'static Event, text: &str) {
        events::happened(event, Subject { db: &self.db.path, replica: &self.store.url() }, text);
    }

    pub(in crate::primary) fn has_failed(&self) -> bool {
        self.progress().error.is_some()
    }

    /// Replication ends: somebody else is on the replica.
    pub(in crate::primary) fn stop(&self, error: Error) {
        self.begins(&events::REPLICATION_STOPPED, &error.to_string());
        self.history.end();
        if let Ok(Err(e)) = self.with_capture(Capture::stop) {
            tracing::warn!("{}: {e}", self.name());
        }
        self.change(|p| {
            // At once for who waits: that a hole is known keeps him from being told that all is there.
            self.holes.forget();
            p.phase = Phase::Stopped;
            p.logged = true;
            p.error = Some(error);
        });
    }

    /// The phase to be shown, and what is wrong with the last attempt. A database that is locked for a moment, and a round that
    /// the last close ended before it was opened again, is nothing.
    pub(in crate::primary) fn shown(&self, progress: &Progress) -> (Phase, Option<Error>) {
        let kind = progress.error.as_ref().map(Error::kind);
        let may_pass = matches!(kind, Some(ErrorKind::Busy | ErrorKind::Interrupted));
        let since = progress.failing_since.filter(|_| may_pass && progress.phase == Phase::Retrying);
        let lasts = since.map(|since| self.db.clock.steady().as_millis() - since.as_millis());
        match lasts {
            Some(millis) if millis < MOMENT.as_millis() as i64 => {
                let ended = kind == Some(ErrorKind::Interrupted) && progress.on_the_way_since.is_none();
                let phase = match progress.resumed {
                    true if ended => Phase::Idle,
                    true => Phase::Publishing,
                    false => Phase::Starting,
                };
                (phase, None)
            }
            _ => (progress.phase, progress.error.clone()),
        }
    }

    /// What is wrong now, of replication, history or the replica itself.
    pub(in crate::primary) fn trouble(&self, progress: &Progress) -> Option<Error> {
        let later = || self.history.error().or_else(|| self.proof.verified().error.clone());
        let hole = || self.holes.error(self.store.as_ref());
        self.shown(progress).1.or_else(hole).or_else(later)
    }

    /// How many local files wait for the replica, and their size in bytes.
    pub(in crate::primary) fn waiting_files(&self) -> (usize, u64) {
        self.with_capture(|c| (c.spool.segments().len(), c.spool.bytes())).unwrap_or_default()
    }

    /// How far the replica is. A moment after the replica was looked at it turns out whether something is to be
    /// sent: that is waited for.
    pub(in crate::primary) fn settled_progress(&self) -> MutexGuard<'_, Progress> {
        const PATIENCE: Duration = Duration::from_millis(100);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let before = self.db.bell.rings();
            let progress = self.progress();
            let left = deadline.saturating_duration_since(Instant::now());
            if progress.phase != Phase::Starting || !progress.resumed || left.is_zero() {
                return progress;
            }
            drop(progress);
            self.db.bell.wait(before, left);
        }
    }

    /// How long the oldest commit waits that is not in the replica; zero if none does.
    pub(in crate::primary) fn lag(&self) -> Duration {
        let since = self.progress().on_the_way_since.or_else(|| self.db.commits.waiting_since(self.number));
        let millis = since.map_or(0, |since| self.db.clock.steady().as_millis() - since.as_millis());
        Duration::from_millis(millis.max(0) as u64)
    }
}
