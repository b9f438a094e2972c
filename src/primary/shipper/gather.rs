//! Gathering commits that wait, so that they share uploads.
//!
//! When an upload ends, those whose commits it confirmed commit again within a moment, while others wait already. An upload that
//! began at once would leave with these only, and the two halves would wait for each other's uploads for ever. So the next one
//! is held back a moment, until there are as many as took part before.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::Shipper;

/// An upload is held back at most this part of the time that the last one took,
const PART: u32 = 8;
/// and at most so long.
const MOST: Duration = Duration::from_millis(20);
/// After a shorter one it is not worth it.
const SHORT: Duration = Duration::from_millis(2);
/// How many uploads are not held back after one for which nobody came.
const RESTS: u32 = 8;

/// Who shared the last upload, by the tickets that were drawn.
pub(super) struct Gathering {
    /// Those that were drawn when it began.
    begun: u64,
    /// The number of those that it confirmed.
    aboard: u64,
    /// How many are drawn when all are there who took part.
    expected: u64,
    since: Instant,
    took: Duration,
    rests: u32,
}

impl Gathering {
    pub(super) fn new() -> Self {
        let since = Instant::now();
        Self { begun: 0, aboard: 0, expected: 0, since, took: Duration::ZERO, rests: 0 }
    }

    /// A round begins now, which takes along all that wait.
    pub(super) fn begin(&mut self, shipper: &Shipper) {
        let drawn = shipper.tickets();
        (self.aboard, self.begun, self.since) = (drawn - self.begun, drawn, Instant::now());
    }

    /// The round has ended.
    pub(super) fn end(&mut self, shipper: &Shipper) {
        self.expected = shipper.tickets() + self.aboard;
        self.took = self.since.elapsed();
    }

    /// Waits a moment for who took part in the last round.
    pub(super) async fn wait(&mut self, shipper: &Shipper) {
        let drawn = shipper.tickets();
        if self.took < SHORT || drawn == self.begun || drawn >= self.expected {
            return;
        }
        if self.rests > 0 {
            self.rests -= 1;
            return;
        }
        let pause = (self.took / PART).min(MOST);
        let all = shipper.signal.hurried(|| shipper.tickets() >= self.expected);
        let _ = timeout_at(Instant::now() + pause, all).await;
        if shipper.tickets() == drawn {
            self.rests = RESTS;
        }
    }
}
