//! A second request where the first one is silent: what answers first wins, and the other is given up.
//!
//! A request may wait for an answer that never comes: a router forgot the connection, a server lost it. The second
//! one goes over a connection of its own. It must not double the cost where a link is merely slow, so it waits for
//! longer than answers usually take, and needs one of a few permits: one that did not help is used up, and comes back
//! only after many ordinary answers.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::{Either, select};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep};

use crate::error::Result;

/// How long an answer is waited for before anything was measured.
const FIRST_PATIENCE: Duration = Duration::from_secs(2);
/// The shortest and the longest wait: what every store may take now and then, and what nobody waits for.
const PATIENCE: (Duration, Duration) = (Duration::from_millis(150), Duration::from_secs(10));
/// Answers after which the averages tell what is usual.
const ENOUGH: u32 = 8;
/// Before that, so many times the slowest answer is unusual.
const SLOWEST_TIMES: u32 = 3;
/// So many times the usual deviation is unusual.
const DEVIATIONS: f64 = 6.0;
/// After a connection that was dead, so many requests do not wait for long: what lets one die may have let all die that are
/// open, and each of those would cost the whole patience.
const DOUBTED: u32 = 16;
/// The share of a new measurement in the averages.
const WEIGHT: f64 = 0.3;
/// Second requests that may be under way or have been of no use.
const PERMITS: usize = 4;
/// After so many ordinary answers a permit that was used up is there again.
const ANSWERS_FOR_A_PERMIT: u32 = 10;

/// What is asked for: answers of one kind take alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// A listing, or what a listing tells of one file.
    Names,
    /// Bytes of a file.
    Content,
}

/// When a second request is worth its cost: the answers of one store so far, and the permits.
#[derive(Debug)]
pub(super) struct Hedge {
    names: Mutex<Usual>,
    content: Mutex<Usual>,
    permits: Arc<Semaphore>,
    /// Permits that are gone because they were of no use.
    used_up: AtomicUsize,
    /// Answers since the last permit came back.
    ordinary: AtomicU32,
    /// Requests to come whose connections may be dead.
    doubted: AtomicU32,
}

/// The right to make a second request. It goes back when that helped.
#[derive(Debug)]
pub(super) struct Permit(OwnedSemaphorePermit);

impl Default for Hedge {
    fn default() -> Self {
        Self {
            names: Mutex::default(),
            content: Mutex::default(),
            permits: Arc::new(Semaphore::new(PERMITS)),
            used_up: AtomicUsize::new(0),
            ordinary: AtomicU32::new(0),
            doubted: AtomicU32::new(0),
        }
    }
}

impl Hedge {
    /// The answer of `first`; or of the request that `second` makes when `first` takes far longer than usual, if
    /// that comes earlier. A failure that may pass decides nothing while the other request is under way.
    ///
    /// # Errors
    /// That of the request that was decisive.
    pub(super) async fn race<T, F, S>(&self, asked: Asked, first: F, second: impl FnOnce() -> S) -> Result<T>
    where
        F: Future<Output = Result<T>>,
        S: Future<Output = Result<T>>,
    {
        let begun = Instant::now();
        let first = pin!(first);
        let patience = self.patience(asked);
        let unusual = pin!(async {
            sleep(patience).await;
            self.permit().await
        });
        let (permit, first) = match select(first, unusual).await {
            Either::Left((answer, _)) => {
                self.note(asked, begun.elapsed(), &answer);
                return answer;
            }
            Either::Right(granted) => granted,
        };
        tracing::debug!(?asked, ?patience, "a request is slow, asking again");
        let again = Instant::now();
        match select(first, pin!(second())).await {
            Either::Left((Err(e), second)) if e.is_transient() => second.await,
            Either::Left((answer, _)) => {
                self.use_up(permit);
                self.note(asked, begun.elapsed(), &answer);
                answer
            }
            Either::Right((Err(e), first)) if e.is_transient() => {
                self.use_up(permit);
                first.await
            }
            Either::Right((answer, _)) => {
                self.doubted.store(DOUBTED, Ordering::Relaxed);
                self.note(asked, again.elapsed(), &answer);
                answer
            }
        }
    }

    /// How long the answer of a request that begins now is waited for.
    fn patience(&self, asked: Asked) -> Duration {
        let one_less = |n: u32| n.checked_sub(1);
        if self.doubted.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok() {
            return self.usual(asked).measured();
        }
        // Until enough was measured, the slowest answer of either kind tells how slow the link is.
        let slowest = self.usual(Asked::Names).slowest.max(self.usual(Asked::Content).slowest);
        self.usual(asked).patience(slowest)
    }

    /// A permit for a second request, as soon as there is one.
    async fn permit(&self) -> Permit {
        Permit(Arc::clone(&self.permits).acquire_owned().await.expect("BUG: nothing closes it"))
    }

    /// A permit for a second request, if there is one.
    pub(super) fn permit_now(&self) -> Option<Permit> {
        Arc::clone(&self.permits).try_acquire_owned().ok().map(Permit)
    }

    fn note<T>(&self, asked: Asked, took: Duration, answer: &Result<T>) {
        if answer.as_ref().is_err_and(crate::error::Error::is_transient) {
            return;
        }
        self.usual(asked).note(took);
        let ordinary = self.ordinary.fetch_add(1, Ordering::Relaxed) + 1;
        if ordinary < ANSWERS_FOR_A_PERMIT {
            return;
        }
        let one_less = |n: usize| n.checked_sub(1);
        if self.used_up.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok() {
            self.ordinary.store(0, Ordering::Relaxed);
            self.permits.add_permits(1);
        }
    }

    /// Notes that the second request of a permit did not help.
    pub(super) fn use_up(&self, Permit(permit): Permit) {
        permit.forget();
        self.used_up.fetch_add(1, Ordering::Relaxed);
    }

    fn usual(&self, asked: Asked) -> MutexGuard<'_, Usual> {
        let usual = match asked {
            Asked::Names => &self.names,
            Asked::Content => &self.content,
        };
        usual.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What answers usually take, in seconds.
#[derive(Clone, Copy, Debug, Default)]
struct Usual {
    answers: u32,
    average: f64,
    deviation: f64,
    slowest: f64,
}

impl Usual {
    fn note(&mut self, took: Duration) {
        let took = took.as_secs_f64();
        if self.answers == 0 {
            (self.average, self.deviation) = (took, took / 2.0);
        } else {
            self.deviation += WEIGHT * ((took - self.average).abs() - self.deviation);
            self.average += WEIGHT * (took - self.average);
        }
        self.slowest = self.slowest.max(took);
        self.answers = self.answers.saturating_add(1);
    }

    /// After how long an answer is slower than usual by far, where the slowest one took so many seconds.
    fn patience(&self, slowest: f64) -> Duration {
        if self.answers >= ENOUGH {
            return self.measured();
        }
        FIRST_PATIENCE.max(Duration::from_secs_f64(slowest) * SLOWEST_TIMES).clamp(PATIENCE.0, PATIENCE.1)
    }

    /// The same by what was measured, however little that is.
    fn measured(&self) -> Duration {
        if self.answers == 0 {
            return FIRST_PATIENCE;
        }
        Duration::from_secs_f64(self.average + DEVIATIONS * self.deviation).clamp(PATIENCE.0, PATIENCE.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error, ErrorKind};
    use crate::runtime::block_on;
    use std::future::pending;

    async fn after<T>(seconds: f64, answer: Result<T>) -> Result<T> {
        sleep(Duration::from_secs_f64(seconds)).await;
        answer
    }

    fn unavailable<T>() -> Result<T> {
        Err(Error::new(ErrorKind::Unavailable, "for now"))
    }

    /// One that has measured so many quick answers.
    async fn quick() -> Arc<Hedge> {
        let hedge = Arc::<Hedge>::default();
        for _ in 0..ENOUGH {
            hedge.race(Asked::Content, after(0.001, Ok(())), || after(0.0, Ok(()))).await.unwrap();
        }
        hedge
    }

    #[test]
    fn patience_is_what_is_usual_and_some_more() {
        let usual = Usual::default();
        assert_eq!(usual.patience(0.0), FIRST_PATIENCE);
        assert_eq!(usual.patience(1.0), Duration::from_secs(3), "one slow answer makes patient");
        let mut usual = Usual::default();
        for _ in 0..100 {
            usual.note(Duration::from_millis(300));
        }
        let steady = usual.patience(0.3).as_secs_f64();
        assert!((0.3..0.35).contains(&steady), "{steady:?}");
        for n in 0..100 {
            usual.note(Duration::from_millis(100 + 400 * (n % 2)));
        }
        assert!(usual.patience(0.5) > Duration::from_millis(1000));
        usual.note(Duration::from_secs(1000));
        assert_eq!(usual.patience(1000.0), PATIENCE.1);
    }

    #[test]
    fn a_silent_request_is_made_again_and_the_permit_comes_back() {
        block_on(async {
            let hedge = quick().await;
            for n in 0..3 * PERMITS {
                let answer = hedge.race(Asked::Content, pending(), || after(0.0, Ok(n))).await;
                assert_eq!(answer.unwrap(), n);
            }
            assert_eq!(hedge.permits.available_permits(), PERMITS);
            Ok(())
        })
        .unwrap();
    }

    #[test]
    fn of_dead_connections_only_the_first_one_costs_the_whole_patience() {
        block_on(async {
            let hedge = Hedge::default();
            hedge.race(Asked::Content, after(0.001, Ok(())), || after(0.0, Ok(()))).await?;
            let begun = Instant::now();
            for _ in 0..PERMITS {
                hedge.race(Asked::Content, pending(), || after(0.0, Ok(()))).await?;
            }
            let spent = begun.elapsed() - FIRST_PATIENCE;
            assert!(spent < FIRST_PATIENCE, "{spent:?} more");
            for _ in 0..DOUBTED {
                hedge.race(Asked::Content, after(0.001, Ok(())), || after(0.0, Ok(()))).await?;
            }
            assert_eq!(hedge.doubted.load(Ordering::Relaxed), 0);
            Ok(())
        })
        .unwrap();
    }

    #[test]
    fn where_everything_is_slow_second_requests_come_to_an_end() {
        block_on(async {
            let hedge = quick().await;
            let mut made = 0;
            for _ in 0..20 {
                let second = || {
                    made += 1;
                    after(0.4, Ok(2))
                };
                assert_eq!(hedge.race(Asked::Content, after(0.2, Ok(1)), second).await.unwrap(), 1);
            }
            assert!((1..=PERMITS).contains(&made), "{made}");
            Ok(())
        })
        .unwrap();
    }

    #[test]
    fn a_failure_that_may_pass_waits_for_the_other_answer_and_another_one_does_not() {
        block_on(async {
            let hedge = quick().await;
            let answer = hedge.race(Asked::Content, after(0.2, unavailable()), || after(0.3, Ok(2))).await;
            assert_eq!(answer.unwrap(), 2);
            let answer = hedge.race(Asked::Content, after(0.4, Ok(1)), || after(0.0, unavailable())).await;
            assert_eq!(answer.unwrap(), 1);
            let gone = || Err(Error::new(ErrorKind::NotFound, "gone"));
            let answer: Result<()> = hedge.race(Asked::Content, pending(), || after(0.0, gone())).await;
            assert_eq!(answer.unwrap_err().kind(), ErrorKind::NotFound);
            Ok(())
        })
        .unwrap();
    }
}
