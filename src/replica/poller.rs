//! When to look for new transactions: once per interval for all connections together, less often while
//! nobody reads, and at once when a connection asks.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use super::options::Options;

/// After errors in a row polls become rarer, up to this interval.
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);
/// Polls become rarer after so many between which nobody read.
const QUIET_POLLS: u32 = 10;

/// What readers and the task that polls tell each other.
#[derive(Debug)]
pub(super) struct Poller {
    interval: Duration,
    idle_interval: Duration,
    /// Somebody read since the last poll.
    read: AtomicBool,
    /// Polls are rarer than the interval because nobody reads, so what is known may be old.
    resting: AtomicBool,
    woken: Notify,
    /// The number of polls that have begun.
    begun: AtomicU64,
}

impl Poller {
    /// Polls as `options` say.
    pub(super) fn new(options: &Options) -> Self {
        Self {
            interval: options.poll_interval,
            idle_interval: options.poll_idle_interval.max(options.poll_interval),
            read: AtomicBool::new(true),
            resting: AtomicBool::new(false),
            woken: Notify::new(),
            begun: AtomicU64::new(0),
        }
    }

    /// Notes that somebody reads. Returns whether what is known may be older than the interval.
    pub(super) fn note_read(&self) -> bool {
        // Looked at before it is written: readers on all cores come by here.
        if !self.read.load(Ordering::Relaxed) {
            self.read.store(true, Ordering::Relaxed);
        }
        self.resting.load(Ordering::Acquire)
    }

    /// Notes that polls are rarer from now on.
    pub(super) fn rest(&self) {
        self.resting.store(true, Ordering::Release);
    }

    /// A reader polls by itself: the usual interval begins again with it.
    pub(super) fn wake(&self) {
        self.woken.notify_one();
    }

    /// A reader polled by itself.
    pub(super) async fn woken(&self) {
        self.woken.notified().await;
    }

    /// How often to look while somebody reads.
    pub(super) fn interval(&self) -> Duration {
        self.interval
    }

    /// The number of polls that have begun.
    pub(super) fn begun(&self) -> u64 {
        self.begun.load(Ordering::Acquire)
    }

    /// Notes that a poll begins.
    pub(super) fn note_begin(&self) {
        self.begun.fetch_add(1, Ordering::AcqRel);
    }

    /// Notes that a poll succeeded: what is known is new.
    pub(super) fn note_success(&self) {
        self.resting.store(false, Ordering::Release);
    }

    /// How long until the next poll, after one that went well or not.
    pub(super) fn pause(&self, before: Duration, well: bool, quiet: &mut u32) -> Duration {
        if !well {
            return (before * 2).min(LONGEST_BACKOFF.max(self.interval));
        }
        if self.read.swap(false, Ordering::Relaxed) {
            *quiet = 0;
        } else {
            *quiet = quiet.saturating_add(1);
        }
        if *quiet < QUIET_POLLS { self.interval } else { (before * 2).min(self.idle_interval) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polls_become_rarer_while_nobody_reads_and_while_they_fail() {
        let options = Options {
            poll_interval: Duration::from_secs(1),
            poll_idle_interval: Duration::from_secs(30),
            ..Options::default()
        };
        let poller = Poller::new(&options);
        let (mut pause, mut quiet) = (options.poll_interval, 0);
        let mut seconds = Vec::new();
        for _ in 0..17 {
            pause = poller.pause(pause, true, &mut quiet);
            seconds.push(pause.as_secs());
        }
        assert_eq!(seconds, [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 4, 8, 16, 30, 30, 30]);
        poller.note_read();
        assert_eq!(poller.pause(pause, true, &mut quiet), options.poll_interval);
        let mut pause = options.poll_interval;
        for expected in [2, 4, 8, 16, 30, 30] {
            pause = poller.pause(pause, false, &mut quiet);
            assert_eq!(pause.as_secs(), expected);
        }
        assert_eq!(poller.pause(pause, true, &mut quiet), options.poll_interval);
    }
}
