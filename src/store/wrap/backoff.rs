//! When to try again what failed for now, and when no more.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::{Error, ErrorKind, Result};
use crate::runtime::random_u64;

/// How often and how long to try again what failed for now ([`Error::is_transient`]). What a wrong answer or a
/// refusal came of is tried once more.
///
/// The pause before the n-th repetition is random between nothing and `base_delay` times 2 to the n,
/// so that many clients of one store that fell over do not return in step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts in all, 1 or more.
    pub max_attempts: u32,
    /// The longest first pause.
    pub base_delay: Duration,
    /// The longest pause.
    pub max_delay: Duration,
    /// No attempt begins later than this after the first one.
    pub max_elapsed: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            max_attempts: 8,
            base_delay: Duration::from_millis(100),
            max_delay: Duration::from_secs(5),
            max_elapsed: Duration::from_secs(30),
        }
    }
}

/// Whether a failure that usually stays deserves one more try: one answer of a gateway or of a server that is just
/// being changed decides nothing, and credentials may have been renewed.
fn may_be_a_slip(failure: &Error) -> bool {
    matches!(failure.kind(), ErrorKind::WrongAnswer | ErrorKind::Denied | ErrorKind::Config)
}

/// Pauses between attempts, until they are used up.
pub(super) struct Backoff<'a> {
    policy: &'a RetryPolicy,
    attempts: u32,
    /// The last attempt had no answer.
    pub(super) was_silent: bool,
    /// What does not pass by itself was tried once more.
    asked_twice: bool,
    started: Instant,
}

impl<'a> Backoff<'a> {
    pub(super) fn new(policy: &'a RetryPolicy) -> Self {
        Self { policy, attempts: 0, was_silent: false, asked_twice: false, started: Instant::now() }
    }

    /// Waits before the next attempt.
    ///
    /// # Errors
    /// `failure` itself, if it does not pass or enough was tried.
    pub(super) async fn pause(&mut self, failure: Error) -> Result<()> {
        self.attempts += 1;
        let allowed = failure.is_transient() || (may_be_a_slip(&failure) && !self.asked_twice);
        if !allowed || self.attempts >= self.policy.max_attempts {
            return Err(failure);
        }
        self.was_silent = failure.kind() == ErrorKind::Timeout;
        self.asked_twice |= !failure.is_transient();
        let delay = self.jittered();
        if self.started.elapsed() + delay > self.policy.max_elapsed {
            return Err(failure);
        }
        tracing::debug!(error = %failure, attempt = self.attempts, ?delay, "trying again");
        tokio::time::sleep(delay).await;
        Ok(())
    }

    fn jittered(&self) -> Duration {
        let doublings = (self.attempts - 1).min(20);
        let ceiling = self.policy.base_delay.saturating_mul(1 << doublings).min(self.policy.max_delay);
        // Without random bytes the pause is the longest one, which is right as well.
        let share = random_u64().map_or(1.0, |random| random as f64 / u64::MAX as f64);
        ceiling.mul_f64(share)
    }
}
