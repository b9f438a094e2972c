//! A second request where the first one is silent: what answers first wins, and the other is given up. One that fails
//! while the other stays silent is made again as a retry would make it.
//!
//! A request may wait for an answer that never comes: a router forgot the connection, a server lost it. The second
//! one goes over a connection of its own. It must not double the cost where a link is merely slow, so it waits for
//! longer than answers usually take, and needs one of a few permits: one that did not help is used up, and comes back
//! only after many ordinary answers.

use std::pin::pin;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::{BoxFuture, Either, select};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::backoff::Backoff;
use crate::error::{Error, Result};

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
    /// The answer of `first`; or of a request that `again` makes when `first` takes far longer than usual, if that
    /// comes earlier.
    ///
    /// Then two are under way. When one has a failure that may pass, the other decides if it answers within its patience;
    /// or else one is made again, as often and as soon as `backoff` allows, while the silent one may still answer.
    ///
    /// # Errors
    /// That of the request that was decisive; the last failure if all were tried that may be, and the silent one has had
    /// the longest patience.
    pub(super) async fn race<T>(
        &self,
        asked: Asked,
        backoff: &mut Backoff<'_>,
        first: BoxFuture<'static, Result<T>>,
        again: impl Fn() -> BoxFuture<'static, Result<T>>,
    ) -> Result<T> {
        let sent = Sent { at: Instant::now(), is_first: true };
        let patience = self.patience(asked);
        let unusual = pin!(async {
            sleep(patience).await;
            self.permit().await
        });
        let (permit, first) = match select(first, unusual).await {
            Either::Left((answer, _)) => {
                self.note(asked, sent.at.elapsed(), &answer);
                return answer;
            }
            Either::Right(granted) => granted,
        };
        tracing::debug!(?asked, ?patience, "a request is slow, asking again");
        let Decision { sent, answer, first_is_silent } =
            decide((sent, first), patience, backoff, again).await;
        if sent.is_first || is_passing(&answer) {
            self.use_up(permit);
        } else if first_is_silent {
            self.doubted.store(DOUBTED, Ordering::Relaxed);
        }
        self.note(asked, sent.at.elapsed(), &answer);
        answer
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
        if is_passing(answer) {
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

/// A request that was sent.
#[derive(Clone, Copy, Debug)]
struct Sent {
    at: Instant,
    is_first: bool,
}

/// The answer that counts, and of which request it is.
struct Decision<T> {
    sent: Sent,
    answer: Result<T>,
    /// The first request has not failed.
    first_is_silent: bool,
}

/// Whether it is a failure that may pass.
fn is_passing<T>(answer: &Result<T>) -> bool {
    answer.as_ref().is_err_and(Error::is_transient)
}

/// The decisive answer of `first`, which is silent, and of those that `again` makes beside it; see [`Hedge::race`].
async fn decide<T>(
    first: (Sent, BoxFuture<'static, Result<T>>),
    patience: Duration,
    backoff: &mut Backoff<'_>,
    again: impl Fn() -> BoxFuture<'static, Result<T>>,
) -> Decision<T> {
    let ask = || (Sent { at: Instant::now(), is_first: false }, again());
    let longest = first.0.at + PATIENCE.1;
    let mut first_is_silent = true;
    let (mut silent, mut newest) = (first, ask());
    loop {
        let (sent, answer, (other, rest)) = match select(silent.1, newest.1).await {
            Either::Left((answer, rest)) => (silent.0, answer, (newest.0, rest)),
            Either::Right((answer, rest)) => (newest.0, answer, (silent.0, rest)),
        };
        let failure = match answer {
            Err(e) if e.is_transient() => e,
            answer => return Decision { sent, answer, first_is_silent },
        };
        first_is_silent &= !sent.is_first;
        let pause = pin!(async {
            sleep_until(other.at + patience).await;
            backoff.pause(failure).await
        });
        match select(rest, pause).await {
            Either::Left((answer, _)) => return Decision { sent: other, answer, first_is_silent },
            Either::Right((Ok(()), rest)) => (silent, newest) = ((other, rest), ask()),
            Either::Right((Err(failure), rest)) => {
                let answer = timeout_at(longest, rest).await.unwrap_or(Err(failure));
                return Decision { sent: other, answer, first_is_silent };
            }
        }
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
    use crate::error::ErrorKind;
    use crate::runtime::block_on;
    use crate::runtime::simulated::in_virtual_time;
    use crate::store::RetryPolicy;
    use futures_util::FutureExt as _;
    use std::future::pending;
    use tokio::time::timeout;

    fn after<T: Send + 'static>(seconds: f64, answer: Result<T>) -> BoxFuture<'static, Result<T>> {
        async move {
            sleep(Duration::from_secs_f64(seconds)).await;
            answer
        }
        .boxed()
    }

    fn silent<T: Send + 'static>() -> BoxFuture<'static, Result<T>> {
        pending().boxed()
    }

    fn unavailable<T>() -> Result<T> {
        Err(Error::new(ErrorKind::Unavailable, "for now"))
    }

    async fn race<T: Send + 'static>(
        hedge: &Hedge,
        first: BoxFuture<'static, Result<T>>,
        again: impl Fn() -> BoxFuture<'static, Result<T>>,
    ) -> Result<T> {
        let policy = RetryPolicy::default();
        hedge.race(Asked::Content, &mut Backoff::new(&policy), first, again).await
    }

    /// The same, where what is asked again has these answers, each after so many seconds; how long it took, and how many
    /// were asked for.
    async fn race_of<const N: usize>(
        hedge: &Hedge,
        first: BoxFuture<'static, Result<usize>>,
        answers: [(f64, Result<usize>); N],
    ) -> (Result<usize>, Duration, usize) {
        let (begun, made) = (Instant::now(), AtomicUsize::new(0));
        let answer = race(hedge, first, || {
            let n = made.fetch_add(1, Ordering::Relaxed);
            let (seconds, answer) = answers[n.min(N - 1)].clone();
            after(seconds, answer)
        });
        let answer = timeout(Duration::from_secs(1000), answer).await.expect("an answer");
        (answer, begun.elapsed(), made.into_inner())
    }

    /// One that has measured so many quick answers.
    async fn quick() -> Arc<Hedge> {
        let hedge = Arc::<Hedge>::default();
        for _ in 0..ENOUGH {
            race(&hedge, after(0.001, Ok(())), || after(0.0, Ok(()))).await.unwrap();
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
                let answer = race(&hedge, silent(), || after(0.0, Ok(n))).await;
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
            race(&hedge, after(0.001, Ok(())), || after(0.0, Ok(()))).await?;
            let begun = Instant::now();
            for _ in 0..PERMITS {
                race(&hedge, silent(), || after(0.0, Ok(()))).await?;
            }
            let spent = begun.elapsed() - FIRST_PATIENCE;
            assert!(spent < FIRST_PATIENCE, "{spent:?} more");
            for _ in 0..DOUBTED {
                race(&hedge, after(0.001, Ok(())), || after(0.0, Ok(()))).await?;
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
            let made = AtomicUsize::new(0);
            for _ in 0..20 {
                let second = || {
                    made.fetch_add(1, Ordering::Relaxed);
                    after(0.4, Ok(2))
                };
                assert_eq!(race(&hedge, after(0.2, Ok(1)), second).await.unwrap(), 1);
            }
            let made = made.into_inner();
            assert!((1..=PERMITS).contains(&made), "{made}");
            Ok(())
        })
        .unwrap();
    }

    #[test]
    fn a_failure_that_may_pass_waits_for_the_other_answer_and_another_one_does_not() {
        in_virtual_time(|| {
            block_on(async {
                let hedge = Hedge::default();
                let (answer, _, made) = race_of(&hedge, after(2.2, unavailable()), [(0.3, Ok(2))]).await;
                assert_eq!((answer.unwrap(), made), (2, 1));
                // However often what is asked again fails, an answer to the first request is one.
                let (answer, took, _) = race_of(&hedge, after(9.9, Ok(1)), [(0.0, unavailable())]).await;
                assert_eq!((answer.unwrap(), took.as_millis() / 100), (1, 99));
                let gone = Err(Error::new(ErrorKind::NotFound, "gone"));
                let (answer, _, made) = race_of(&hedge, silent(), [(0.0, gone)]).await;
                assert_eq!((answer.unwrap_err().kind(), made), (ErrorKind::NotFound, 1));
                Ok(())
            })
        })
        .unwrap();
    }

    #[test]
    fn what_fails_beside_a_silent_request_is_asked_for_again_soon() {
        in_virtual_time(|| {
            block_on(async {
                // The first one is silent, and the second one fails.
                let hedge = Hedge::default();
                let answers = [(0.1, unavailable()), (0.1, unavailable()), (0.1, Ok(3))];
                let (answer, took, made) = race_of(&hedge, silent(), answers).await;
                assert_eq!((answer.unwrap(), made), (3, 3));
                assert!(took < FIRST_PATIENCE + Duration::from_secs(1), "{took:?}");
                assert_eq!(hedge.permits.available_permits(), PERMITS, "it helped");
                // The second one is silent, and the first one fails.
                let hedge = Hedge::default();
                let answers = [(1000.0, Ok(2)), (0.1, Ok(3))];
                let (answer, took, made) = race_of(&hedge, after(2.1, unavailable()), answers).await;
                assert_eq!((answer.unwrap(), made), (3, 2));
                assert!(took > FIRST_PATIENCE * 2, "the second one has its time too: {took:?}");
                assert!(took < FIRST_PATIENCE * 2 + Duration::from_secs(1), "{took:?}");
                Ok(())
            })
        })
        .unwrap();
    }

    #[test]
    fn beside_a_silent_request_no_more_are_made_than_retries_are() {
        in_virtual_time(|| {
            block_on(async {
                let hedge = Hedge::default();
                let (answer, took, made) = race_of(&hedge, silent(), [(0.0, unavailable())]).await;
                assert_eq!(answer.unwrap_err().kind(), ErrorKind::Unavailable);
                assert_eq!(made, RetryPolicy::default().max_attempts as usize);
                assert!(took < PATIENCE.1 + Duration::from_secs(8), "{took:?}");
                assert_eq!(hedge.permits.available_permits(), PERMITS - 1, "it did not help");
                Ok(())
            })
        })
        .unwrap();
    }
}
