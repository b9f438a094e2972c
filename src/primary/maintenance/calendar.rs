//! Restore points by the calendar: the last state of each hour, day, week and month, in UTC.
//!
//! A point is a state that files lead to, and its time that of its last commit. Files tell that time only in their
//! headers: a listing says when they were stored, which is later. So the choice asks for the times that decide it, a few
//! on each side of where a period ends, and never looks at the others.
//!
//! Periods without a point do not count: a database that rests keeps what it has. So a point that is chosen stays chosen until
//! later points take its place in each of its periods, and one that was not chosen never is: what was deleted is not missed.

use std::collections::BTreeMap;
use std::fmt;

use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::ltx::{FileId, Txid};

/// How many of the latest hours, days, weeks and months that have a restore point keep their last one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Calendar {
    /// Hours.
    #[serde(default)]
    pub hourly: u32,
    /// Days.
    #[serde(default)]
    pub daily: u32,
    /// Weeks, which begin on Monday.
    #[serde(default)]
    pub weekly: u32,
    /// Months.
    #[serde(default)]
    pub monthly: u32,
}

impl Calendar {
    /// Whether it keeps nothing.
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }

    /// How many of `period` keep their last point.
    pub(super) fn count(self, period: Period) -> u32 {
        match period {
            Period::Hour => self.hourly,
            Period::Day => self.daily,
            Period::Week => self.weekly,
            Period::Month => self.monthly,
        }
    }
}

/// A part of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Period {
    Hour,
    Day,
    Week,
    Month,
}

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;
const WEEK_MS: i64 = 7 * DAY_MS;
/// The Unix epoch was a Thursday.
const MONDAY_MS: i64 = -3 * DAY_MS;

impl Period {
    pub(super) const ALL: [Self; 4] = [Self::Hour, Self::Day, Self::Week, Self::Month];

    /// When the one began that `time` is in.
    pub(super) fn start(self, time: Timestamp) -> Timestamp {
        let ms = time.as_millis();
        let begun = |length: i64, first: i64| ms.saturating_sub(ms.saturating_sub(first).rem_euclid(length));
        Timestamp::from_millis(match self {
            Self::Hour => begun(HOUR_MS, 0),
            Self::Day => begun(DAY_MS, 0),
            Self::Week => begun(WEEK_MS, MONDAY_MS),
            Self::Month => {
                // A time without a date is a month of its own.
                let day =
                    jiff::Timestamp::from_millisecond(ms).map(|time| time.to_zoned(TimeZone::UTC).day());
                day.map_or(ms, |day| begun(DAY_MS, 0) - (i64::from(day) - 1) * DAY_MS)
            }
        })
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
        })
    }
}

/// A state that files lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Point {
    pub(super) txid: Txid,
    /// A file that ends with it.
    pub(super) file: FileId,
    /// When it was committed, if that is known.
    pub(super) committed: Option<Timestamp>,
    /// When that file was stored.
    pub(super) stored: Timestamp,
}

/// A point that is kept, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Promise {
    pub(super) txid: Txid,
    pub(super) committed: Timestamp,
    /// Of which it is the last.
    pub(super) periods: Vec<Period>,
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it leads to {} of {}, the last of its ", self.txid, self.committed)?;
        for (number, period) in self.periods.iter().enumerate() {
            write!(f, "{}{period}", if number == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// The time of this file's last commit must be known first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unknown(pub(super) FileId);

/// The points that `calendar` keeps, of `points`, which ascend. The times of their commits ascend too.
///
/// # Errors
/// The first time that is missing.
pub(super) fn promised(points: &[Point], calendar: Calendar) -> Result<Vec<Promise>, Unknown> {
    let mut chosen: BTreeMap<Txid, Promise> = BTreeMap::new();
    for period in Period::ALL {
        let mut left = points;
        for _ in 0..calendar.count(period) {
            let Some(last) = left.last() else { break };
            let committed = time(last)?;
            let promise = Promise { txid: last.txid, committed, periods: Vec::new() };
            chosen.entry(last.txid).or_insert(promise).periods.push(period);
            left = &left[..before(left, period.start(committed))?];
        }
    }
    Ok(chosen.into_values().collect())
}

/// The number of `points` that were committed before `start`: those are the first ones.
fn before(points: &[Point], start: Timestamp) -> Result<usize, Unknown> {
    let (mut low, mut high) = (0, points.len());
    let mut looks = 0;
    while low < high {
        looks += 1;
        // Mostly a file was stored soon after its last commit.
        let guess = low + points[low..high].partition_point(|point| point.stored < start);
        let middle = if looks <= 2 { guess.min(high - 1) } else { low + (high - low) / 2 };
        if time(&points[middle])? < start {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low)
}

fn time(point: &Point) -> Result<Timestamp, Unknown> {
    point.committed.ok_or(Unknown(point.file))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn point(n: u64, committed: Timestamp, late: i64) -> Point {
        let txid = Txid::new(n).unwrap();
        let stored = Timestamp::from_millis(committed.as_millis() + late);
        Point { txid, file: FileId::single(txid), committed: Some(committed), stored }
    }

    #[test]
    fn periods_begin_as_the_calendar_says() {
        let time = at("2028-02-29T23:59:59.999Z");
        for (period, start) in [
            (Period::Hour, "2028-02-29T23:00:00Z"),
            (Period::Day, "2028-02-29T00:00:00Z"),
            // A Monday.
            (Period::Week, "2028-02-28T00:00:00Z"),
            (Period::Month, "2028-02-01T00:00:00Z"),
        ] {
            assert_eq!(period.start(time), at(start), "{period}");
            assert_eq!(period.start(at(start)), at(start), "{period}");
        }
        assert_eq!(Period::Week.start(at("1969-12-31T00:00:00Z")), at("1969-12-29T00:00:00Z"));
        assert_eq!(Period::Month.start(Timestamp::from_millis(i64::MAX)).as_millis(), i64::MAX);
    }

    /// What `docs/operating.md` says, word by word: of the latest periods that have a point, the last one of each.
    fn naive(points: &[Point], calendar: Calendar) -> BTreeMap<Txid, Vec<Period>> {
        let mut expected: BTreeMap<Txid, Vec<Period>> = BTreeMap::new();
        for period in Period::ALL {
            let mut lasts: BTreeMap<Timestamp, Txid> = BTreeMap::new();
            for point in points {
                lasts.insert(period.start(point.committed.unwrap()), point.txid);
            }
            for (_, txid) in lasts.iter().rev().take(calendar.count(period) as usize) {
                expected.entry(*txid).or_default().push(period);
            }
        }
        expected
    }

    proptest! {
        #[test]
        fn the_choice_is_the_last_of_each_period_and_asks_for_few_times(
            gaps in prop::collection::vec((0i64..200_000_000, 0i64..40_000_000), 1..150),
            (hourly, daily, weekly, monthly) in (0u32..30, 0u32..10, 0u32..10, 0u32..10),
        ) {
            let calendar = Calendar { hourly, daily, weekly, monthly };
            let mut now = 1_800_000_000_000;
            let all: Vec<Point> = (1..).zip(gaps).map(|(n, (gap, late))| {
                now += gap;
                point(n, Timestamp::from_millis(now), late)
            }).collect();
            // Times are told only when they are asked for.
            let mut known: Vec<Point> = all.iter().map(|point| Point { committed: None, ..*point }).collect();
            let mut asked = 0;
            let chosen = loop {
                match promised(&known, calendar) {
                    Ok(chosen) => break chosen,
                    Err(Unknown(file)) => {
                        let index = all.iter().position(|point| point.file == file).unwrap();
                        prop_assert!(known[index].committed.is_none(), "asked twice");
                        known[index].committed = all[index].committed;
                        asked += 1;
                    }
                }
            };
            let chosen: BTreeMap<_, _> = chosen.into_iter().map(|promise| (promise.txid, promise.periods)).collect();
            prop_assert_eq!(&chosen, &naive(&all, calendar));
            let ends = (hourly + daily + weekly + monthly) as usize;
            prop_assert!(asked <= ends * 11, "{} times for {} ends of periods", asked, ends);
        }
    }

    #[test]
    fn files_that_are_stored_soon_cost_two_looks_for_each_end_of_a_period() {
        let start = at("2026-01-01T00:00:00Z").as_millis();
        let all: Vec<Point> =
            (1..=5000).map(|n| point(n as u64, Timestamp::from_millis(start + n * 600_000), 1500)).collect();
        let mut known: Vec<Point> = all.iter().map(|point| Point { committed: None, ..*point }).collect();
        let calendar = Calendar { daily: 10, ..Calendar::default() };
        let mut asked = 0;
        while let Err(Unknown(file)) = promised(&known, calendar) {
            let index = all.iter().position(|point| point.file == file).unwrap();
            known[index].committed = all[index].committed;
            asked += 1;
        }
        assert!(asked <= 1 + 2 * 10, "{asked}");
    }
}
