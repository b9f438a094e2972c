//! What SQLite has committed, as the shim saw it, and the wake-up of the publisher.
//!
//! This is what a committing thread does with each commit: note that the index header changed, and wake the publisher if
//! it sleeps. What it does when the WAL restarts is in `hooks`.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::clock::{Clock, Timestamp};
use crate::wal::{Checksum, IndexHeader};

/// The number of changes of the WAL that were noted so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct CommitSeq(pub(super) u64);

/// The last commit that was noted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Noted {
    /// The number of changes that were noted up to it.
    pub(super) seq: CommitSeq,
    /// The time of the commit.
    pub(super) time: Timestamp,
    /// When the first commit was noted that no publication has taken yet, by the steady clock.
    waiting_since: Option<Timestamp>,
}

#[derive(Debug)]
struct State {
    noted: Noted,
    /// The header of the WAL index at the last look.
    header: Option<IndexHeader>,
    /// The last commits that were noted since a view was pinned last, with their times.
    recent: VecDeque<(Checksum, Timestamp)>,
}

/// More commits than this are not made between the moment in which a view is pinned and the next.
const RECENT: usize = 256;

/// The commits of one database.
pub(super) struct Commits {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

impl Commits {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        let noted = Noted { seq: CommitSeq::default(), time: clock.now(), waiting_since: None };
        Self { clock, state: Mutex::new(State { noted, header: None, recent: VecDeque::new() }) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the index header that was read while no writer could change it; whether it shows a commit that was
    /// not noted.
    pub(super) fn look(&self, header: IndexHeader) -> bool {
        let mut state = self.lock();
        let last = state.header.replace(header);
        // A restart of the WAL changes salts and last frame, a commit the checksum.
        let is_commit = last
            .is_none_or(|last| (last.frame_checksum, last.change) != (header.frame_checksum, header.change));
        if is_commit {
            self.note_now(&mut state.noted);
            if state.recent.len() == RECENT {
                state.recent.pop_front();
            }
            let time = state.noted.time;
            state.recent.push_back((header.frame_checksum, time));
        }
        is_commit
    }

    /// The time of the last commit that a view with the index header `header` shows, which was pinned just now: of one that
    /// another process made, the time of this look.
    pub(super) fn time_in_view(&self, header: &IndexHeader) -> Timestamp {
        let mut state = self.lock();
        let at = state.recent.iter().position(|(commit, _)| *commit == header.frame_checksum);
        let Some(at) = at else { return self.clock.now() };
        // A later view shows no commit before this one.
        state.recent.drain(..at);
        state.recent.front().map_or_else(|| self.clock.now(), |(_, time)| *time)
    }

    /// Asks for a look at the database, as after a commit that this process cannot have seen.
    pub(super) fn ask(&self) {
        self.lock().noted.seq.0 += 1;
    }

    /// As [`Commits::ask`], for a commit that waits since `since`, by the steady clock.
    pub(super) fn ask_since(&self, since: Timestamp) {
        let noted = &mut self.lock().noted;
        noted.seq.0 += 1;
        noted.waiting_since = Some(noted.waiting_since.map_or(since, |before| before.min(since)));
    }

    /// Notes a commit that no index header has shown to this process.
    pub(super) fn note(&self) {
        self.note_now(&mut self.lock().noted);
    }

    fn note_now(&self, noted: &mut Noted) {
        noted.seq.0 += 1;
        noted.time = self.clock.now();
        noted.waiting_since.get_or_insert_with(|| self.clock.steady());
    }

    /// The last commit noted.
    pub(super) fn last(&self) -> Noted {
        self.lock().noted
    }

    /// The last commit noted, which is now on its way to the replica; and since when it waited.
    pub(super) fn take(&self) -> (Noted, Option<Timestamp>) {
        let noted = &mut self.lock().noted;
        let since = noted.waiting_since.take();
        (*noted, since)
    }

    /// At `asked`, when the change `.0` was the last, the oldest commit that was not in the replica had waited
    /// for `lag`, says the process that publishes.
    pub(super) fn confirm(&self, asked: (CommitSeq, Timestamp), lag: Duration) {
        let noted = &mut self.lock().noted;
        let (seq, at) = asked;
        let oldest = at.as_millis().saturating_sub(i64::try_from(lag.as_millis()).unwrap_or(i64::MAX));
        let oldest = Timestamp::from_millis(oldest);
        let all_arrived = lag.is_zero() && noted.seq == seq;
        noted.waiting_since = noted.waiting_since.filter(|_| !all_arrived).map(|since| since.max(oldest));
    }

    /// Since when the oldest commit waits that is not on its way, by the steady clock.
    pub(super) fn waiting_since(&self) -> Option<Timestamp> {
        self.lock().noted.waiting_since
    }
}

/// How committing threads, `litestream_sync` and close reach the publisher.
#[derive(Default)]
pub(super) struct Signal {
    /// The publisher sleeps without a timer and wants to hear of the next commit.
    idle: AtomicBool,
    /// Something was committed.
    commit: AtomicBool,
    /// Somebody waits for the replica.
    hurry: AtomicBool,
    notify: Notify,
    /// The publisher was last seen to wait for somebody who waits.
    #[cfg(test)]
    at_rest: AtomicBool,
}

impl Signal {
    /// A commit was noted.
    pub(super) fn commit(&self) {
        self.commit.store(true, Ordering::SeqCst);
        if self.idle.load(Ordering::SeqCst) {
            self.notify.notify_one();
        }
    }

    /// Somebody waits.
    pub(super) fn hurry(&self) {
        self.hurry.store(true, Ordering::SeqCst);
        self.notify.notify_one();
    }

    /// Sleeps, without a timer, until there is anything to publish or, then true, somebody
    /// waits.
    pub(super) async fn next(&self) -> bool {
        self.idle.store(true, Ordering::SeqCst);
        let hurried = loop {
            if self.hurry.swap(false, Ordering::SeqCst) {
                break true;
            }
            if self.commit.swap(false, Ordering::SeqCst) {
                break false;
            }
            self.notify.notified().await;
        };
        self.idle.store(false, Ordering::SeqCst);
        hurried
    }

    /// Sleeps until somebody waits; `awaited` tells whether who said so still does. Whoever hurried the publisher without
    /// waiting for it is not forgotten: [`Signal::next`] returns at once then.
    pub(super) async fn hurried(&self, awaited: impl Fn() -> bool) {
        loop {
            if self.hurry.swap(false, Ordering::SeqCst) {
                if awaited() {
                    return;
                }
                self.commit.store(true, Ordering::SeqCst);
            }
            #[cfg(test)]
            self.at_rest.store(true, Ordering::SeqCst);
            self.notify.notified().await;
            #[cfg(test)]
            self.at_rest.store(false, Ordering::SeqCst);
        }
    }

    /// Whether the publisher does nothing until its time has come or somebody waits, as nobody does now.
    #[cfg(test)]
    pub(super) fn is_at_rest(&self) -> bool {
        self.at_rest.load(Ordering::SeqCst)
    }
}
