//! Time of day: the system's, and one that tests set by hand; and the time that passes, which nobody sets.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, clock_gettime};

use crate::error::{Error, Result};

/// A moment, in milliseconds since the Unix epoch: the resolution of an LTX header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The moment `ms` milliseconds after the Unix epoch.
    pub const fn from_millis(ms: i64) -> Self {
        Self(ms)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> i64 {
        self.0
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC, with as many digits of fraction as are needed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(t) => write!(f, "{t}"),
            Err(_) => write!(f, "{} ms", self.0),
        }
    }
}

impl FromStr for Timestamp {
    type Err = Error;

    /// Reads RFC 3339, with a fraction and an offset; finer than milliseconds is rounded down.
    fn from_str(s: &str) -> Result<Self> {
        let t: jiff::Timestamp = s.parse().map_err(|_| {
            Error::config(format!("'{s}' is not a time; write RFC 3339, such as 2026-01-31T12:00:00Z"))
        })?;
        Ok(Self(t.as_nanosecond().div_euclid(1_000_000) as i64))
    }
}

/// Where the time of day comes from.
pub trait Clock: Send + Sync + fmt::Debug {
    /// The time now. The clock may be set at any moment, to any time.
    fn now(&self) -> Timestamp;

    /// The time of day as it was when this was first asked, and what has passed since: however the clock is
    /// set, the difference of two answers is the time between them.
    fn steady(&self) -> Timestamp;
}

/// How long the machine runs, its sleep included. Nobody sets it.
pub fn uptime() -> Duration {
    // On macOS it is the monotonic clock that goes on in sleep.
    let id = if cfg!(target_os = "linux") { ClockId::Boottime } else { ClockId::Monotonic };
    let time = clock_gettime(id);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// The time of day by the operating system's clock.
pub fn time_of_day() -> SystemTime {
    #[cfg(test)]
    if let Some(simulation) = crate::runtime::simulated::current() {
        return simulation.time_of_day();
    }
    SystemTime::now()
}

/// The operating system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp(jiff::Timestamp::now().as_millisecond())
    }

    fn steady(&self) -> Timestamp {
        static FIRST: OnceLock<(Timestamp, Duration)> = OnceLock::new();
        let (time, then) = FIRST.get_or_init(|| (self.now(), uptime()));
        let since = uptime().saturating_sub(*then);
        Timestamp(time.0.saturating_add(i64::try_from(since.as_millis()).unwrap_or(i64::MAX)))
    }
}

/// A clock that stands still until it is set.
#[derive(Debug, Default)]
pub struct ManualClock {
    now: AtomicI64,
    steady: AtomicI64,
}

impl ManualClock {
    /// A clock that shows `now`.
    pub const fn new(now: Timestamp) -> Self {
        Self { now: AtomicI64::new(now.0), steady: AtomicI64::new(now.0) }
    }

    /// The time until `now` passes.
    pub fn set(&self, now: Timestamp) {
        let before = self.now.swap(now.0, Ordering::SeqCst);
        self.steady.fetch_add((now.0 - before).max(0), Ordering::SeqCst);
    }

    /// The clock is set to `now`; no time passes.
    pub fn jump(&self, now: Timestamp) {
        self.now.store(now.0, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.now.load(Ordering::SeqCst))
    }

    fn steady(&self) -> Timestamp {
        Timestamp(self.steady.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_leaves_the_steady_one_alone() {
        let clock = ManualClock::new(Timestamp::from_millis(1000));
        clock.set(Timestamp::from_millis(3000));
        clock.jump(Timestamp::from_millis(0));
        assert_eq!((clock.now().as_millis(), clock.steady().as_millis()), (0, 3000));
        clock.set(Timestamp::from_millis(500));
        assert_eq!(clock.steady().as_millis(), 3500);
        let first = SystemClock.steady();
        assert!(SystemClock.steady() >= first && uptime() > Duration::ZERO);
    }

    #[test]
    fn a_time_survives_being_written_and_read() {
        for text in ["2026-11-20T21:46:02.123Z", "1969-12-31T23:59:59.999Z", "2026-11-20T21:46:02Z"] {
            let t: Timestamp = text.parse().unwrap();
            assert_eq!(t.to_string(), text);
        }
        let offset: Timestamp = "2026-11-20T22:46:02.123999999+01:00".parse().unwrap();
        assert_eq!(offset.to_string(), "2026-11-20T21:46:02.123Z");
        assert!("yesterday-ish".parse::<Timestamp>().is_err());
    }
}
