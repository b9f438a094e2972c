//! What time it is by a store's own clock.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

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

/// A signature whose time is further than this from the store's is not sent: stores refuse 15 minutes, and tokens that
/// begin in the future.
const MAX_SKEW: Duration = Duration::from_secs(300);

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

    /// The time that a signature bears: this machine's, unless the store has shown that it is wrong.
    pub(super) fn signing_time(&self) -> SystemTime {
        let ours = SystemTime::now();
        match self.read(true).map(|there| system_time(there.now)) {
            Some(there) if self.is_skewed(ours) => there,
            _ => ours,
        }
    }

    /// Whether the store's clock is known to show quite another time than `time`.
    pub(super) fn is_skewed(&self, time: SystemTime) -> bool {
        let Some(there) = self.read(true).map(|there| system_time(there.now)) else { return false };
        there.duration_since(time).unwrap_or_else(|e| e.duration()) > MAX_SKEW
    }
}

fn system_time(time: Timestamp) -> SystemTime {
    let since = Duration::from_millis(time.as_millis().unsigned_abs());
    if time.as_millis() < 0 { SystemTime::UNIX_EPOCH - since } else { SystemTime::UNIX_EPOCH + since }
}
