//! Counters and histograms.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The upper limits of a histogram's buckets, in seconds: those of Prometheus' own clients.
pub const BUCKETS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn one(&self) {
        self.add(1);
    }

    /// `n` more.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The number.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Time that adds up.
#[derive(Debug, Default)]
pub struct Seconds(Counter);

impl Seconds {
    /// `time` more.
    pub fn add(&self, time: Duration) {
        self.0.add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    /// The time in seconds.
    pub fn get(&self) -> f64 {
        self.0.get() as f64 / 1e9
    }
}

/// How long something took, each time, by [`BUCKETS`].
#[derive(Debug, Default)]
pub struct Histogram {
    /// Those that took longer than the bucket before; the last one has what is beyond all limits.
    counts: [Counter; BUCKETS.len() + 1],
    sum: Seconds,
}

impl Histogram {
    /// It took `time`.
    pub fn note(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        let at = BUCKETS.iter().position(|limit| seconds <= *limit).unwrap_or(BUCKETS.len());
        self.counts[at].one();
        self.sum.add(time);
    }

    /// What was noted so far.
    pub fn get(&self) -> HistogramValue {
        HistogramValue { counts: self.counts.iter().map(Counter::get).collect(), sum: self.sum.get() }
    }
}

/// What a histogram holds at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HistogramValue {
    /// The number in each bucket, and beyond the last one; not cumulative.
    pub counts: Vec<u64>,
    /// The sum in seconds.
    pub sum: f64,
}

impl HistogramValue {
    /// Adds `other`, of the same buckets.
    pub fn add(&mut self, other: &Self) {
        self.counts.resize(self.counts.len().max(other.counts.len()), 0);
        self.counts.iter_mut().zip(&other.counts).for_each(|(ours, theirs)| *ours += theirs);
        self.sum += other.sum;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_in_the_first_bucket_that_it_does_not_exceed() {
        let histogram = Histogram::default();
        for millis in [1, 5, 6, 10_000, 10_001] {
            histogram.note(Duration::from_millis(millis));
        }
        let value = histogram.get();
        assert_eq!((value.counts[0], value.counts[1], value.counts[10], value.counts[11]), (2, 1, 1, 1));
        assert!((value.sum - 20.013).abs() < 1e-9);
    }

    #[test]
    fn histograms_of_several_processes_add_up() {
        let mut sum = HistogramValue::default();
        sum.add(&HistogramValue { counts: vec![1, 2], sum: 0.5 });
        sum.add(&HistogramValue { counts: vec![3, 4], sum: 1.0 });
        assert_eq!(sum, HistogramValue { counts: vec![4, 6], sum: 1.5 });
    }
}
