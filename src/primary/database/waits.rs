//! How long commits waited, for the status.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The number of commits, the last ones, of which percentiles are taken.
const REMEMBERED: usize = 1024;

/// The waits of a database's commits in this process.
#[derive(Debug, Default)]
pub(super) struct Waits(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    count: u64,
    time: Duration,
    last: VecDeque<Duration>,
}

/// How many commits waited, and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitWaits {
    /// The number of commits that waited, confirmed or not.
    pub count: u64,
    /// Half of the last ones waited no longer.
    pub median: Duration,
    /// 99 of 100 of them waited no longer.
    pub p99: Duration,
}

impl Waits {
    /// A commit waited for `time`.
    pub(super) fn note(&self, time: Duration) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.count += 1;
        inner.time += time;
        if inner.last.len() == REMEMBERED {
            inner.last.pop_front();
        }
        inner.last.push_back(time);
    }

    /// The number of commits that waited, and their time together.
    pub(super) fn total(&self) -> (u64, Duration) {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (inner.count, inner.time)
    }

    /// `None` if no commit waited.
    pub(super) fn summary(&self) -> Option<CommitWaits> {
        let (count, mut last) = {
            let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            (inner.count, inner.last.iter().copied().collect::<Vec<_>>())
        };
        last.sort_unstable();
        let of = |percent: usize| last.get((last.len() * percent).div_ceil(100).saturating_sub(1)).copied();
        Some(CommitWaits { count, median: of(50)?, p99: of(99)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_last_commits() {
        let waits = Waits::default();
        assert_eq!(waits.summary(), None);
        (1..=100).for_each(|millis| waits.note(Duration::from_millis(millis)));
        let [median, p99] = [50, 99].map(Duration::from_millis);
        assert_eq!(waits.summary(), Some(CommitWaits { count: 100, median, p99 }));
        (0..REMEMBERED).for_each(|_| waits.note(Duration::from_millis(7)));
        let seven = Duration::from_millis(7);
        let count = 100 + REMEMBERED as u64;
        assert_eq!(waits.summary(), Some(CommitWaits { count, median: seven, p99: seven }));
    }
}
