//! What SQLite has committed, as the shim saw it, and the wake-up of the publisher.
//!
//! This is all that a committing thread does: note the index header, and wake the publisher if it
//! sleeps.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::clock::{Clock, Timestamp};
use crate::wal::{End, FrameNo, IndexHeader};

/// A commit counts as far as it is noted: the number of changes of the WAL seen so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct CommitSeq(pub(super) u64);

/// The last commit that was noted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Noted {
    /// Where the WAL is committed up to; `None` before the first look.
    pub(super) end: Option<End>,
    /// How many changes were noted.
    pub(super) seq: CommitSeq,
    /// When the last one was.
    pub(super) time: Timestamp,
    /// When the first one was that no capture for the replica has taken yet, by the steady clock.
    waiting_since: Option<Timestamp>,
}

impl Noted {
    fn header(&self) -> Option<IndexHeader> {
        match self.end {
            Some(End::Index(header)) => Some(header),
            _ => None,
        }
    }
}

/// What is to be done after a look at the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Noticed {
    /// Nothing was committed.
    Nothing,
    /// Something was.
    Commit,
    /// The WAL began a new generation. What the old one holds must be captured before anything else,
    /// and the new header noted after that.
    NewGeneration,
}

/// The commits of one database.
pub(super) struct Commits {
    clock: Arc<dyn Clock>,
    noted: Mutex<Noted>,
}

impl Commits {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        let noted = Noted { end: None, seq: CommitSeq::default(), time: clock.now(), waiting_since: None };
        Self { clock, noted: Mutex::new(noted) }
    }

    fn lock(&self) -> MutexGuard<'_, Noted> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a look at the index header that was read while no writer could change it.
    pub(super) fn look(&self, header: IndexHeader) -> Noticed {
        let mut noted = self.lock();
        match noted.header() {
            Some(old) if old == header => Noticed::Nothing,
            Some(old) if old.salts != header.salts => Noticed::NewGeneration,
            Some(old) if old.mx_frame == header.mx_frame && old.frame_checksum == header.frame_checksum => {
                noted.end = Some(End::Index(header));
                Noticed::Nothing
            }
            _ => {
                self.note(&mut noted, End::Index(header));
                Noticed::Commit
            }
        }
    }

    /// Notes `header`, whatever was noted before.
    pub(super) fn replace(&self, header: IndexHeader) {
        let mut noted = self.lock();
        self.note(&mut noted, End::Index(header));
    }

    /// Makes sure that the commits that `header` tells of are noted. It was read while others write: what
    /// is noted may be newer, and an empty WAL may be one that a writer has begun.
    pub(super) fn agree_with(&self, header: IndexHeader) {
        let mut noted = self.lock();
        if header.mx_frame == FrameNo::ZERO {
            // Whether anything was lost with the generation that we know, capture will find.
            if noted.header().is_some_and(|old| old.salts != header.salts) {
                let end = noted.end.expect("BUG: a noted header is an end");
                self.note(&mut noted, end);
            }
            return;
        }
        match noted.end {
            Some(End::LastCommit) => {}
            Some(End::Index(old)) if old.salts == header.salts && old.mx_frame >= header.mx_frame => {}
            _ => self.note(&mut noted, End::Index(header)),
        }
    }

    /// The database was looked at, and its index was `header`, after the change `seq` was noted. If that is
    /// still the last one, what was noted of it is older: the WAL may have been restarted since.
    pub(super) fn supersede(&self, seq: CommitSeq, header: IndexHeader) {
        let mut noted = self.lock();
        if noted.seq == seq && matches!(noted.end, Some(End::Index(_))) {
            noted.end = (header.mx_frame > FrameNo::ZERO).then_some(End::Index(header));
        }
    }

    /// Notes a change that the WAL does not show.
    pub(super) fn note_other(&self) {
        let mut noted = self.lock();
        let end = noted.end;
        self.note(&mut noted, End::LastCommit);
        noted.end = end;
    }

    /// The WAL is gone, and with it what was noted of its end.
    pub(super) fn forget(&self) {
        self.lock().end = None;
    }

    /// Notes a write to the WAL of a connection that keeps the index in private memory.
    pub(super) fn note_private(&self) {
        let mut noted = self.lock();
        self.note(&mut noted, End::LastCommit);
    }

    fn note(&self, noted: &mut Noted, end: End) {
        noted.end = Some(end);
        noted.seq.0 += 1;
        noted.time = self.clock.now();
        noted.waiting_since.get_or_insert_with(|| self.clock.steady());
    }

    /// The last commit noted.
    pub(super) fn last(&self) -> Noted {
        *self.lock()
    }

    /// The last commit noted, which is now on its way to the replica; and since when it waited.
    pub(super) fn take(&self) -> (Noted, Option<Timestamp>) {
        let mut noted = self.lock();
        let since = noted.waiting_since.take();
        (*noted, since)
    }

    /// At `asked`, when the change `.0` was the last, the oldest commit that was not in the replica had waited
    /// for `lag`, says the process that publishes.
    pub(super) fn confirm(&self, asked: (CommitSeq, Timestamp), lag: Duration) {
        let mut noted = self.lock();
        let (seq, at) = asked;
        let oldest = at.as_millis().saturating_sub(i64::try_from(lag.as_millis()).unwrap_or(i64::MAX));
        let oldest = Timestamp::from_millis(oldest);
        let all_arrived = lag.is_zero() && noted.seq == seq;
        noted.waiting_since = noted.waiting_since.filter(|_| !all_arrived).map(|since| since.max(oldest));
    }

    /// Since when the oldest commit waits that is not on its way, by the steady clock.
    pub(super) fn waiting_since(&self) -> Option<Timestamp> {
        self.lock().waiting_since
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
    /// So much was committed that it should be captured now. Remembered until somebody listens.
    capture: Notify,
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

    /// Much was committed since the last capture.
    pub(super) fn capture(&self) {
        self.capture.notify_one();
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

    /// Sleeps until somebody waits; `awaited` tells whether who said so still does.
    pub(super) async fn hurried(&self, awaited: impl Fn() -> bool) {
        while !(self.hurry.swap(false, Ordering::SeqCst) && awaited()) {
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

    /// Sleeps until a capture is asked for.
    pub(super) async fn capture_asked(&self) {
        self.capture.notified().await;
    }
}
