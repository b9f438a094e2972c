//! Time of day for what is published and for how long it is kept, although any clock may be set at any
//! moment.
//!
//! The clock of this machine counts as long as it agrees with that of the store. Where they disagree, the
//! store's counts: files are stored by it, and no program of ours reads a wrong one into a history that lasts
//! for years. A store that tells no time is believed to agree.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::{Clock, Timestamp};
use crate::error::Result;
use crate::store::Replica;

/// Clocks that differ by no more agree: a store tells seconds, and an answer may take half a minute.
const TOLERANCE_MS: i64 = 120_000;
/// What the store told is asked again, if it disagrees and is older than this.
const FRESH: Duration = Duration::from_secs(10);

/// A clock that was set forward is believed after this, where no other clock confirms it.
const BELIEVED_MS: i64 = 3_600_000;

/// Who noted a commit's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Witness {
    /// In this process.
    Here,
    /// Perhaps in an earlier one, or in another.
    Elsewhere,
}

/// Time of day as this machine and the store agree on it.
#[derive(Debug)]
pub(super) struct Time {
    clock: Arc<dyn Clock>,
    store: Arc<Replica>,
    /// When this process began to publish, by the steady clock.
    begun: Timestamp,
    /// When the clocks agreed last: the time of day, and that of the steady clock.
    agreed: Mutex<Option<(Timestamp, Timestamp)>>,
    set_forward: Mutex<SetForward>,
    /// The store was asked and tells no time.
    store_is_mute: AtomicBool,
    /// It was said that the clocks disagree.
    told: AtomicBool,
}

impl Time {
    pub(super) fn new(clock: Arc<dyn Clock>, store: Arc<Replica>) -> Self {
        let begun = clock.steady();
        Self {
            clock,
            store,
            begun,
            agreed: Mutex::default(),
            set_forward: Mutex::default(),
            store_is_mute: AtomicBool::new(false),
            told: AtomicBool::new(false),
        }
    }

    /// The time now.
    pub(super) fn now(&self) -> Timestamp {
        self.stores_own().unwrap_or_else(|| self.clock.now())
    }

    /// The store's time, if it is another than this machine's: as exactly as it can be known from when they
    /// agreed, since a store tells seconds.
    fn stores_own(&self) -> Option<Timestamp> {
        let there = self.store.clock()?.now;
        let (here, steady) = (self.clock.now(), self.clock.steady());
        let mut agreed = self.agreed.lock().unwrap_or_else(PoisonError::into_inner);
        if agree(here, there) {
            *agreed = Some((here, steady));
            return None;
        }
        let exact = agreed.map(|(time, then)| after(time, ms_between(steady, then)));
        Some(exact.filter(|exact| agree(*exact, there)).unwrap_or(there))
    }

    /// The time until which time has passed for certain, for what is deleted for good: as long as no other clock
    /// confirms it, one that was set forward while this process runs counts only after an hour.
    pub(super) fn certain(&self) -> Timestamp {
        let now = self.now();
        if self.store.clock().is_some_and(|there| there.is_another) {
            return now;
        }
        let steady = self.clock.steady();
        let unset = self.set_forward.lock().unwrap_or_else(PoisonError::into_inner).look(now, steady);
        unset.map_or(now, |ahead| after(steady, ahead).min(now))
    }

    /// Whether the store should be asked before its time, or this machine's, is relied on.
    pub(super) fn is_doubtful(&self) -> bool {
        match self.store.clock() {
            None => !self.store_is_mute.load(Ordering::Relaxed),
            Some(there) => there.age > FRESH && self.stores_own().is_some(),
        }
    }

    /// Asks the store for its time, unless there is no doubt.
    ///
    /// # Errors
    /// Those of the store.
    pub(super) async fn ascertain(&self) -> Result<()> {
        if self.is_doubtful() {
            self.store.ask_time().await?;
            self.store_is_mute.store(self.store.clock().is_none(), Ordering::Relaxed);
        }
        Ok(())
    }

    /// When a commit was made whose time was noted as `noted`: that, if it can be true.
    pub(super) fn of_commit(&self, noted: Timestamp, witness: Witness) -> Timestamp {
        let now = self.now();
        let begun = match witness {
            Witness::Here => now.as_millis() - ms_between(self.clock.steady(), self.begun),
            Witness::Elsewhere => i64::MIN + TOLERANCE_MS,
        };
        let can_be = |time: &Timestamp| {
            (begun - TOLERANCE_MS..=now.as_millis() + TOLERANCE_MS).contains(&time.as_millis())
        };
        // The clock that noted it may be as wrong as it is now.
        let age = ms_between(self.clock.now(), noted).max(0);
        let shifted = after(now, -age);
        [noted, shifted].into_iter().find(can_be).unwrap_or(now)
    }

    /// What to say of clocks that disagree, once until they agree again.
    pub(super) fn complaint(&self) -> Option<String> {
        let Some(there) = self.stores_own() else {
            self.told.store(false, Ordering::Relaxed);
            return None;
        };
        if self.told.swap(true, Ordering::Relaxed) {
            return None;
        }
        let difference = ms_between(self.clock.now(), there);
        let side = if difference > 0 { "ahead of" } else { "behind" };
        Some(format!(
            "the clock of this machine is {} {side} that of {}: set the right one. Until they agree, commits are \
             published with the time of the store, and history is kept and deleted by it",
            span(difference.unsigned_abs()),
            self.store.url()
        ))
    }
}

/// Whether the clock was set forward of late.
#[derive(Debug, Default)]
struct SetForward {
    /// How far the clock was ahead of the steady one at the last look.
    ahead: Option<i64>,
    /// When it was set forward, by the steady clock, and how far it was ahead before.
    set: Option<(Timestamp, i64)>,
}

impl SetForward {
    /// Looks at both clocks. How far the clock was ahead before it was set forward, if that is not believed yet.
    fn look(&mut self, now: Timestamp, steady: Timestamp) -> Option<i64> {
        let ahead = ms_between(now, steady);
        let before = self.ahead.replace(ahead).unwrap_or(ahead);
        if ahead - before > TOLERANCE_MS {
            self.set = Some((steady, self.set.map_or(before, |(_, first)| first)));
        }
        self.set = self
            .set
            .filter(|(then, first)| ahead - first > TOLERANCE_MS && ms_between(steady, *then) < BELIEVED_MS);
        self.set.map(|(_, first)| first)
    }
}

/// Whether two clocks show the same time.
fn agree(a: Timestamp, b: Timestamp) -> bool {
    ms_between(a, b).abs() <= TOLERANCE_MS
}

fn after(time: Timestamp, ms: i64) -> Timestamp {
    Timestamp::from_millis(time.as_millis().saturating_add(ms))
}

/// From `earlier` to `later`, in milliseconds.
fn ms_between(later: Timestamp, earlier: Timestamp) -> i64 {
    later.as_millis().saturating_sub(earlier.as_millis())
}

/// A difference of clocks in words.
fn span(ms: u64) -> String {
    let minutes = ms / 60_000;
    let (hours, days) = (minutes / 60, minutes / 1440);
    match days {
        0 if hours == 0 => format!("{minutes} minutes"),
        0..=1 => format!("{hours} h {} min", minutes % 60),
        2..=729 => format!("{days} days"),
        _ => format!("{} years", days / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::store::MemoryStore;

    const HOUR: i64 = 3_600_000;
    const YEAR: i64 = 365 * 24 * HOUR;
    const NOW: i64 = 1_800_000_000_000;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millis(ms)
    }

    /// This machine's clock, the store's, and the time of both.
    fn clocks() -> (Arc<ManualClock>, Arc<ManualClock>, Time) {
        let (here, there) = (Arc::new(ManualClock::new(at(NOW))), Arc::new(ManualClock::new(at(NOW))));
        let store = MemoryStore::new();
        store.set_clock(there.clone());
        let time = Time::new(here.clone(), store.replica());
        (here, there, time)
    }

    #[test]
    fn where_the_clocks_disagree_the_stores_counts() {
        let (here, _, time) = clocks();
        for jump in [HOUR, 6 * HOUR, 10 * YEAR, 36 * YEAR, -HOUR, -26 * YEAR, -36 * YEAR] {
            here.jump(at(NOW + jump));
            assert_eq!(time.now(), at(NOW), "{jump}");
            assert_eq!(time.of_commit(at(NOW + jump), Witness::Here), at(NOW));
            assert!(time.complaint().is_some() && time.complaint().is_none(), "{jump}");
            here.jump(at(NOW));
            assert_eq!((time.now(), time.complaint()), (at(NOW), None));
        }
        // A store tells seconds, and an answer takes its time: that is no disagreement.
        here.jump(at(NOW + 60_000));
        assert_eq!((time.now(), time.complaint()), (at(NOW + 60_000), None));
        // From when they agreed the time is known more exactly than from the store.
        here.jump(at(NOW + YEAR));
        assert_eq!(time.now(), at(NOW + 60_000));
    }

    #[test]
    fn a_commit_has_the_time_that_it_can_have() {
        let (here, there, time) = clocks();
        for clock in [&here, &there] {
            clock.set(at(NOW + HOUR));
        }
        // Noted right, and the clock was set since, or not.
        for jump in [0, 36 * YEAR, -36 * YEAR] {
            here.jump(at(NOW + HOUR + jump));
            assert_eq!(time.of_commit(at(NOW + HOUR / 2), Witness::Here), at(NOW + HOUR / 2), "{jump}");
            // Noted by the clock as it is now.
            assert_eq!(
                time.of_commit(at(NOW + HOUR / 2 + jump), Witness::Here),
                at(NOW + HOUR / 2),
                "{jump}"
            );
        }
        // Noted by a clock that was wrong then, and was set right since.
        here.jump(at(NOW + HOUR));
        for wrong in [36 * YEAR, -36 * YEAR] {
            assert_eq!(time.of_commit(at(NOW + wrong), Witness::Here), at(NOW + HOUR), "{wrong}");
        }
        // What waited since long ago may be as old as it says, but not younger than now.
        assert_eq!(time.of_commit(at(NOW - 400 * HOUR), Witness::Elsewhere), at(NOW - 400 * HOUR));
        assert_eq!(time.of_commit(at(NOW + YEAR), Witness::Elsewhere), at(NOW + HOUR));
    }

    #[test]
    fn a_clock_that_was_set_forward_is_believed_after_an_hour_or_when_another_confirms_it() {
        let clock = Arc::new(ManualClock::new(at(NOW)));
        let alone = Time::new(clock.clone(), MemoryStore::new().replica());
        assert_eq!(alone.certain(), at(NOW));
        for jump in [6 * HOUR, 36 * YEAR] {
            clock.jump(at(NOW + jump));
            assert_eq!((alone.now(), alone.certain()), (at(NOW + jump), at(NOW)));
            clock.jump(at(NOW));
            assert_eq!(alone.certain(), at(NOW));
        }
        clock.jump(at(NOW + YEAR));
        assert_eq!(alone.certain(), at(NOW));
        clock.set(at(NOW + YEAR + HOUR / 2));
        assert_eq!(alone.certain(), at(NOW + HOUR / 2));
        clock.set(at(NOW + YEAR + HOUR));
        assert_eq!(alone.certain(), at(NOW + YEAR + HOUR));
        // Back is back at once.
        clock.jump(at(NOW));
        assert_eq!(alone.certain(), at(NOW));

        let (here, there, confirmed) = clocks();
        assert_eq!(confirmed.certain(), at(NOW));
        here.jump(at(NOW + YEAR));
        there.jump(at(NOW + YEAR));
        assert_eq!(confirmed.certain(), at(NOW + YEAR));
    }

    #[test]
    fn differences_are_told_in_words() {
        for (ms, words) in [
            (5 * 60_000, "5 minutes"),
            (HOUR + 60_000, "1 h 1 min"),
            (30 * HOUR, "30 h 0 min"),
            (72 * HOUR, "3 days"),
            (36 * YEAR, "36 years"),
        ] {
            assert_eq!(span(ms as u64), words);
        }
    }
}
