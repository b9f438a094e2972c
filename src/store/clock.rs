//! What time it is by a store's own clock.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::clock::{self, Timestamp};

/// The time by a store's own clock, reckoned from when it last told it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreTime {
    /// What time it is there now, by a second or so.
    pub now: Timestamp,
    /// How long ago it told it. A virtual machine that stood still does not know that it did: what is old may
    /// be behind by that.
    pub age: Duration,
    /// It is another clock than this machine's. A folder's may be the same.
    pub is_another: bool,
}

/// The last time that a store told, and when it did.
#[derive(Debug, Default)]
pub(super) struct StoreClock(Mutex<Option<(Timestamp, Duration)>>);

impl StoreClock {
    /// The store just told that it is `time` there.
    pub(super) fn told(&self, time: Timestamp) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((time, clock::uptime()));
    }

    /// What time it is there now, by a clock that `is_another` than this machine's; `None` if it has not told any
    /// yet.
    pub(super) fn read(&self, is_another: bool) -> Option<StoreTime> {
        let (time, then) = (*self.0.lock().unwrap_or_else(PoisonError::into_inner))?;
        let age = clock::uptime().saturating_sub(then);
        let millis = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        let now = Timestamp::from_millis(time.as_millis().saturating_add(millis));
        Some(StoreTime { now, age, is_another })
    }
}
