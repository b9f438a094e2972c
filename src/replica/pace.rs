//! How a store answers, as measured: decides between few long requests and many short ones.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The share of a new measurement in the average.
const WEIGHT: f64 = 0.3;
/// Bodies that are smaller tell nothing of how fast bytes come.
const TELLING: usize = 128 * 1024;
/// A body that was there at once still took some time.
const SHORTEST: f64 = 0.000_1;

/// Averages over the last answers of a store.
#[derive(Debug, Default)]
pub(crate) struct Pace(Mutex<Averages>);

#[derive(Clone, Copy, Debug, Default)]
struct Averages {
    /// Seconds until a body begins.
    latency: Option<f64>,
    /// Bytes a second after that.
    rate: Option<f64>,
}

impl Pace {
    /// Takes in an answer: its body of `bytes` began after `latency` and took `body`.
    pub(crate) fn note(&self, latency: Duration, body: Duration, bytes: usize) {
        let mut averages = self.lock();
        let latency = latency.as_secs_f64();
        mix(&mut averages.latency, latency);
        if bytes >= TELLING {
            mix(&mut averages.rate, bytes as f64 / body.as_secs_f64().max(SHORTEST));
        }
    }

    /// How many bytes a request under way would bring in the time that another one takes to begin:
    /// what a request should have at least. `None` before anything was measured.
    pub(crate) fn worthwhile(&self) -> Option<u64> {
        let Averages { latency, rate, .. } = *self.lock();
        Some((latency? * rate?) as u64)
    }

    fn lock(&self) -> MutexGuard<'_, Averages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn mix(average: &mut Option<f64>, value: f64) {
    *average = Some(average.map_or(value, |old| old + WEIGHT * (value - old)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_beginning_makes_long_requests_worthwhile() {
        let pace = Pace::default();
        pace.note(Duration::from_millis(100), Duration::from_millis(1), 1000);
        assert_eq!(pace.worthwhile(), None, "a small body tells no rate");
        for _ in 0..50 {
            pace.note(Duration::from_millis(100), Duration::from_millis(10), 1_000_000);
        }
        let bytes = pace.worthwhile().unwrap();
        assert!((9_990_000..10_010_000).contains(&bytes), "{bytes}");
    }
}
