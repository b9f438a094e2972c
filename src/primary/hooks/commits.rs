//! Commits of SQLite, as the shim saw them, and the wake-up of the tasks that publish them.
//!
//! This is what a committing thread does with each commit: note that the index header changed, and wake who sleeps. What
//! it does when the WAL restarts is in `dirty`.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::clock::{Clock, Timestamp};
use crate::wal::{Checksum, FrameHeader, IndexHeader};

/// The number of changes of the WAL that were noted so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::primary) struct CommitSeq(pub(in crate::primary) u64);

/// The last commit that was noted.
#[derive(Clone, Copy, Debug)]
pub(in crate::primary) struct Noted {
    /// The number of changes that were noted up to it.
    pub(in crate::primary) seq: CommitSeq,
    /// The time of the commit.
    pub(in crate::primary) time: Timestamp,
}

#[derive(Debug)]
struct State {
    noted: Noted,
    /// By shipper: when the first commit was noted that it has not taken yet, by the steady clock.
    waiting: Vec<Option<Timestamp>>,
    /// The header of the WAL index at the last look.
    header: Option<IndexHeader>,
    /// The commits that were noted last, with their times.
    recent: VecDeque<(Checksum, Timestamp)>,
    /// The last changes that were only asked for, and are no commits.
    asks: VecDeque<CommitSeq>,
    /// Bytes of the frames that commits added to the WAL.
    wal_bytes: u64,
}

impl State {
    fn ask(&mut self) {
        self.noted.seq.0 += 1;
        if self.asks.len() == RECENT {
            self.asks.pop_front();
        }
        self.asks.push_back(self.noted.seq);
    }

    /// Adds the frames that `header` shows and `last` did not.
    fn count_frames(&mut self, last: Option<IndexHeader>, header: &IndexHeader) {
        let (Some(last), Some(page_size)) = (last, header.page_size) else { return };
        let before = if last.salts == header.salts { last.mx_frame.0 } else { 0 };
        let frames = header.mx_frame.0.saturating_sub(before);
        self.wal_bytes += u64::from(frames) * FrameHeader::frame_size(page_size) as u64;
    }
}

/// More commits than this are not made between the moment in which a view is pinned and the next.
const RECENT: usize = 256;

/// The commits of one database.
pub(in crate::primary) struct Commits {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

impl Commits {
    /// The commits of a database that `shippers` publish.
    pub(in crate::primary) fn new(clock: Arc<dyn Clock>, shippers: usize) -> Self {
        let noted = Noted { seq: CommitSeq::default(), time: clock.now() };
        let (waiting, recent) = (vec![None; shippers], VecDeque::new());
        let asks = VecDeque::new();
        Self { clock, state: Mutex::new(State { noted, waiting, header: None, recent, asks, wal_bytes: 0 }) }
    }

    /// Whether several shippers publish them.
    pub(in crate::primary) fn has_several(&self) -> bool {
        self.lock().waiting.len() > 1
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the index header that was read while no writer could change it; whether it shows a commit that was
    /// not noted.
    pub(in crate::primary) fn look(&self, header: IndexHeader) -> bool {
        let mut state = self.lock();
        let last = state.header.replace(header);
        // A restart of the WAL changes salts and last frame, a commit the checksum.
        let is_commit = last
            .is_none_or(|last| (last.frame_checksum, last.change) != (header.frame_checksum, header.change));
        if is_commit {
            state.count_frames(last, &header);
            self.note_now(&mut state);
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
    pub(in crate::primary) fn time_in_view(&self, header: &IndexHeader) -> Timestamp {
        let state = self.lock();
        let at = state.recent.iter().rfind(|(commit, _)| *commit == header.frame_checksum);
        at.map_or_else(|| self.clock.now(), |(_, time)| *time)
    }

    /// Asks for a look at the database, as after a commit that this process cannot have seen.
    pub(in crate::primary) fn ask(&self) {
        self.lock().ask();
    }

    /// The number of commits that were noted after `acked`.
    pub(in crate::primary) fn after(&self, acked: CommitSeq) -> u64 {
        let state = self.lock();
        let asks = state.asks.iter().filter(|ask| **ask > acked).count() as u64;
        state.noted.seq.0.saturating_sub(acked.0).saturating_sub(asks)
    }

    /// Bytes of the frames that commits added to the WAL, as far as this process saw them.
    pub(in crate::primary) fn wal_bytes(&self) -> u64 {
        self.lock().wal_bytes
    }

    /// As [`Commits::ask`], for a commit that waits for `shipper` since `since`, by the steady clock.
    pub(in crate::primary) fn ask_since(&self, shipper: usize, since: Timestamp) {
        let mut state = self.lock();
        state.ask();
        let waiting = &mut state.waiting[shipper];
        *waiting = Some(waiting.map_or(since, |before| before.min(since)));
    }

    /// Notes a commit that no index header has shown to this process.
    pub(in crate::primary) fn note(&self) {
        self.note_now(&mut self.lock());
    }

    fn note_now(&self, state: &mut State) {
        state.noted.seq.0 += 1;
        state.noted.time = self.clock.now();
        for waiting in &mut state.waiting {
            waiting.get_or_insert_with(|| self.clock.steady());
        }
    }

    /// The last commit noted.
    pub(in crate::primary) fn last(&self) -> Noted {
        self.lock().noted
    }

    /// The last commit noted, which `shipper` takes on its way now; and since when it waited.
    pub(in crate::primary) fn take(&self, shipper: usize) -> (Noted, Option<Timestamp>) {
        let mut state = self.lock();
        let since = state.waiting[shipper].take();
        (state.noted, since)
    }

    /// At `asked`, when the change `.0` was the last, the oldest commit that was not in the replica of `shipper` had
    /// waited for `lag`, says the process that publishes.
    pub(in crate::primary) fn confirm(&self, shipper: usize, asked: (CommitSeq, Timestamp), lag: Duration) {
        let mut state = self.lock();
        let (seq, at) = asked;
        let oldest = at.as_millis().saturating_sub(i64::try_from(lag.as_millis()).unwrap_or(i64::MAX));
        let oldest = Timestamp::from_millis(oldest);
        let all_arrived = lag.is_zero() && state.noted.seq == seq;
        let waiting = &mut state.waiting[shipper];
        *waiting = waiting.filter(|_| !all_arrived).map(|since| since.max(oldest));
    }

    /// Since when the oldest commit waits that `shipper` has not taken, by the steady clock.
    pub(in crate::primary) fn waiting_since(&self, shipper: usize) -> Option<Timestamp> {
        self.lock().waiting[shipper]
    }
}

/// How committing threads, `litestream_sync` and close reach the publisher.
#[derive(Default)]
pub(in crate::primary) struct Signal {
    /// The publisher sleeps without a timer and wants to hear of the next commit.
    idle: AtomicBool,
    /// Something was committed.
    commit: AtomicBool,
    /// A caller waits for the replica.
    hurry: AtomicBool,
    notify: Notify,
    /// The publisher was last seen to sleep until a caller waits.
    #[cfg(test)]
    at_rest: AtomicBool,
}

impl Signal {
    /// A commit was noted.
    pub(in crate::primary) fn commit(&self) {
        self.commit.store(true, Ordering::SeqCst);
        if self.idle.load(Ordering::SeqCst) {
            self.notify.notify_one();
        }
    }

    /// A caller waits.
    pub(in crate::primary) fn hurry(&self) {
        self.hurry.store(true, Ordering::SeqCst);
        self.notify.notify_one();
    }

    /// Sleeps, without a timer, until there is anything to publish or, then true, a caller
    /// waits.
    pub(in crate::primary) async fn next(&self) -> bool {
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

    /// Sleeps until a caller waits; `awaited` tells whether who said so still does. Whoever hurried the publisher without
    /// waiting for it is not forgotten: [`Signal::next`] returns at once then.
    pub(in crate::primary) async fn hurried(&self, awaited: impl Fn() -> bool) {
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

    /// Whether the publisher does nothing until its time has come or a caller waits, as none does now.
    #[cfg(test)]
    pub(in crate::primary) fn is_at_rest(&self) -> bool {
        self.at_rest.load(Ordering::SeqCst)
    }
}
