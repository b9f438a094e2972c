//! How much history a replica keeps, and the windows of time that its levels are cut by.

use std::time::Duration;

use crate::clock::Timestamp;

/// How much history a replica keeps, with Litestream's meaning of each setting. The defaults and
/// spellings are in `config`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How much time a file of each level covers, from level 1 on; at most 8. Without any, files are
    /// neither merged nor deleted, and there are no snapshots but those that are asked for.
    pub levels: Vec<Duration>,
    /// How often the whole database is written as one file.
    pub snapshot_interval: Duration,
    /// How far back there is a state to go back to.
    pub snapshot_retention: Duration,
    /// How long a file of level 0 stays at least, once it is part of a file of level 1; zero for ever.
    pub l0_retention: Duration,
    /// Delete what need not be kept. Without it, nothing is ever deleted.
    pub retention: bool,
}

impl Settings {
    /// Whether no file of level 0 is ever deleted.
    pub(super) fn keeps_l0(&self) -> bool {
        self.l0_retention.is_zero()
    }

    /// Nothing falls due later than this after the moment in which that is known.
    pub(super) fn longest(&self) -> Duration {
        let levels = self.levels.iter().copied().max().unwrap_or_default();
        let longest = levels.max(self.snapshot_interval).max(self.snapshot_retention).max(self.l0_retention);
        // Deletions wait for the end of a window.
        longest.saturating_add(self.levels.first().copied().unwrap_or_default())
    }

    /// Before this, a file that was published at `time` leads to no work.
    pub(super) fn earliest(&self, time: Timestamp) -> Timestamp {
        let level = self.levels.first().copied().unwrap_or(Duration::MAX);
        window_end(time, level.min(self.snapshot_interval))
    }
}

/// Windows are counted from the beginning of the year 1, in UTC, as Go's `time.Truncate` does.
const EPOCH_MS: i64 = 62_135_596_800_000;

/// When the window of length `interval` began that `time` is in.
pub(super) fn window_start(time: Timestamp, interval: Duration) -> Timestamp {
    let into = (time.as_millis() + EPOCH_MS).rem_euclid(millis(interval));
    Timestamp::from_millis(time.as_millis() - into)
}

/// When the window of length `interval` is over that `time` is in.
pub(super) fn window_end(time: Timestamp, interval: Duration) -> Timestamp {
    after(window_start(time, interval), interval)
}

/// `time`, or the next end of a window if it is in the middle of one.
pub(super) fn round_up(time: Timestamp, interval: Duration) -> Timestamp {
    if window_start(time, interval) == time { time } else { window_end(time, interval) }
}

/// The moment `duration` after `time`.
pub(super) fn after(time: Timestamp, duration: Duration) -> Timestamp {
    Timestamp::from_millis(time.as_millis() + millis(duration))
}

/// The moment `duration` before `time`.
pub(super) fn before(time: Timestamp, duration: Duration) -> Timestamp {
    Timestamp::from_millis(time.as_millis() - millis(duration))
}

/// At least 1.
fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 4).clamp(1, i64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn windows_begin_where_litestreams_do() {
        let time = at("2026-11-20T21:46:42.123Z");
        for (seconds, start) in [
            (30, "2026-11-20T21:46:30Z"),
            (300, "2026-11-20T21:45:00Z"),
            (86_400, "2026-11-20T00:00:00Z"),
            // The year 1 began on a Monday.
            (7 * 86_400, "2026-11-16T00:00:00Z"),
        ] {
            let interval = Duration::from_secs(seconds);
            assert_eq!(window_start(time, interval), at(start));
            assert_eq!(window_end(time, interval), after(at(start), interval));
            assert_eq!(window_start(at(start), interval), at(start));
            assert_eq!(round_up(at(start), interval), at(start));
            assert_eq!(round_up(time, interval), window_end(time, interval));
        }
        let long_ago = at("1969-12-31T23:59:59Z");
        assert_eq!(window_start(long_ago, Duration::from_secs(60)), at("1969-12-31T23:59:00Z"));
    }
}
