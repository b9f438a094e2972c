//! How much history a replica keeps, and the windows of time that its levels are cut by.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crc_fast::CrcAlgorithm;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::error::Error;
use crate::primary::maintenance::calendar::Calendar;

/// How much history a replica keeps, with Litestream's meaning of each setting. The defaults and
/// spellings are in `config`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How much time a file of each level covers, from level 1 on; at most 8. Without any, files are
    /// neither merged nor deleted, and there are no snapshots but those that are asked for.
    pub levels: Vec<Duration>,
    /// How often the whole database is written as one file.
    pub snapshot_interval: Duration,
    /// At which time of day.
    pub snapshot_at: SnapshotAt,
    /// How far back there is a state to go back to.
    pub snapshot_retention: Duration,
    /// How long a file of level 0 stays at least, once it is part of a file of level 1; zero for ever.
    pub l0_retention: Duration,
    /// Delete what need not be kept. Without it, nothing is ever deleted.
    pub retention: bool,
    /// Which restore points are kept that are older than `snapshot_retention`.
    pub calendar: Calendar,
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

    /// Before the newest snapshot from this time or earlier only some restore points are kept, if it is `now`; `None` if that
    /// is not so.
    pub fn thins(&self, now: Timestamp) -> Option<Timestamp> {
        let thins = self.retention && !self.calendar.is_empty();
        thins.then(|| before(now, self.snapshot_retention))
    }

    /// The windows at whose ends snapshots of the replica at `url` are made.
    pub(super) fn snapshot_windows(&self, url: &str) -> Windows {
        let shift = match self.snapshot_at {
            SnapshotAt::Anytime => Duration::ZERO,
            SnapshotAt::Minute(minute) => Duration::from_secs(u64::from(minute) * 60) + spread(url),
        };
        Windows { interval: self.snapshot_interval, shift }
    }

    /// Before this, a file that was published at `time` leads to no work.
    pub(super) fn earliest(&self, time: Timestamp, snapshots: Windows) -> Timestamp {
        let level = self.levels.first().map(|level| window_end(time, *level));
        level.map_or(snapshots.end(time), |level| level.min(snapshots.end(time)))
    }
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The time of day at which snapshots are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum SnapshotAt {
    /// At ends of the interval, as they are counted in UTC.
    #[default]
    Anytime,
    /// So many minutes after midnight in UTC, and a while later that is always the same for a replica: [`SPREAD`].
    Minute(u16),
}

/// Snapshots of many databases for which one time of day is set are spread over this time after it.
const SPREAD: Duration = Duration::from_secs(30 * 60);

/// How long after the time of day that is set the snapshots of the replica at `url` are made.
fn spread(url: &str) -> Duration {
    let hash = crc_fast::checksum(CrcAlgorithm::Crc64Nvme, url.as_bytes());
    Duration::from_secs(hash % SPREAD.as_secs())
}

impl SnapshotAt {
    /// Whether snapshots in each `interval` can all be made at this time of day.
    pub fn fits(self, interval: Duration) -> bool {
        let (day, interval) = (DAY.as_millis(), interval.as_millis().max(1));
        self == Self::Anytime || day % interval == 0 || interval % day == 0
    }
}

impl FromStr for SnapshotAt {
    type Err = Error;

    /// Reads `03:00`, or `off`.
    fn from_str(text: &str) -> Result<Self, Error> {
        if text.eq_ignore_ascii_case("off") {
            return Ok(Self::Anytime);
        }
        let number = |digits: &str, below: u16| {
            let is_short = (1..=2).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
            digits.parse::<u16>().ok().filter(|number| is_short && *number < below)
        };
        let time = text.split_once(':').filter(|(_, minutes)| minutes.len() == 2);
        let time = time.and_then(|(hours, minutes)| Some((number(hours, 24)?, number(minutes, 60)?)));
        let (hours, minutes) = time.ok_or_else(|| {
            Error::config(format!("'{text}' is not a time of day in UTC from 00:00 to 23:59, and not off"))
        })?;
        Ok(Self::Minute(hours * 60 + minutes))
    }
}

impl TryFrom<String> for SnapshotAt {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<SnapshotAt> for String {
    fn from(at: SnapshotAt) -> Self {
        at.to_string()
    }
}

impl fmt::Display for SnapshotAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anytime => f.write_str("off"),
            Self::Minute(minute) => write!(f, "{:02}:{:02}", minute / 60, minute % 60),
        }
    }
}

/// Windows of time that begin `shift` later than those that are counted in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Windows {
    interval: Duration,
    shift: Duration,
}

impl Windows {
    /// When the window began that `time` is in.
    pub(super) fn start(self, time: Timestamp) -> Timestamp {
        let shifted = Timestamp::from_millis(time.as_millis() - self.shift.as_millis() as i64);
        let start = window_start(shifted, self.interval).as_millis();
        Timestamp::from_millis(start + self.shift.as_millis() as i64)
    }

    /// When the window is over that `time` is in.
    pub(super) fn end(self, time: Timestamp) -> Timestamp {
        after(self.start(time), self.interval)
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
    fn a_time_of_day_is_read_and_written() {
        for (text, minute) in [("03:00", 180), ("3:05", 185), ("00:00", 0), ("23:59", 1439)] {
            let at: SnapshotAt = text.parse().unwrap();
            assert_eq!(at, SnapshotAt::Minute(minute));
            assert_eq!(at.to_string().parse::<SnapshotAt>().unwrap(), at);
        }
        assert_eq!("off".parse::<SnapshotAt>().unwrap(), SnapshotAt::Anytime);
        for text in ["24:00", "3", "03:60", "03:0", "003:00", "+3:00", "03:00:00", "noon", ""] {
            assert!(text.parse::<SnapshotAt>().is_err(), "{text}");
        }
    }

    #[test]
    fn snapshots_of_many_replicas_are_spread_over_half_an_hour_and_each_keeps_its_time() {
        let day = Duration::from_secs(86_400);
        let settings = Settings {
            levels: Vec::new(),
            snapshot_interval: day,
            snapshot_at: SnapshotAt::Minute(180),
            snapshot_retention: day,
            l0_retention: day,
            retention: true,
            calendar: Calendar::default(),
        };
        let midnight = at("2026-11-20T00:00:00Z");
        let times: Vec<i64> = (0..1000)
            .map(|n| {
                let windows = settings.snapshot_windows(&format!("s3://bucket/db-{n}"));
                let end = windows.end(midnight);
                assert_eq!(windows.start(end), end);
                assert_eq!(windows.end(end), after(end, day));
                assert_eq!(windows.end(before(end, Duration::from_millis(1))), end);
                end.as_millis() - midnight.as_millis()
            })
            .collect();
        let (three, half) = (3 * 3_600_000, 1_800_000);
        assert!(times.iter().all(|time| (three..three + half).contains(time)));
        for minute in 0..30 {
            let here = times.iter().filter(|time| (**time - three) / 60_000 == minute).count();
            assert!((10..70).contains(&here), "{here} of 1000 at minute {minute}");
        }
    }

    #[test]
    fn a_time_of_day_fits_intervals_that_come_to_it_again_each_day() {
        let hours = |n: u64| Duration::from_secs(n * 3600);
        let at = SnapshotAt::Minute(180);
        assert!([1, 6, 12, 24, 48, 168].into_iter().all(|n| at.fits(hours(n))));
        assert!([5, 7, 36].into_iter().all(|n| !at.fits(hours(n)) && SnapshotAt::Anytime.fits(hours(n))));
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
