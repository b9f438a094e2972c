//! Requests to stores, counted: those of one replica, and those of the whole process by kind of store.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::error::{Error, ErrorKind, Result};
use crate::fork::PerProcess;
use crate::metrics::{Counter, Histogram, HistogramValue};

use super::provider::PROVIDERS;

/// What a request does, under the names that Litestream counts them by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// An object is written, or a part of one.
    Put,
    /// Content is read.
    Get,
    /// Objects are deleted.
    Delete,
    /// Names are listed.
    List,
    /// The metadata of an object is read.
    Head,
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Put, Self::Get, Self::Delete, Self::List, Self::Head];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Put => "PUT",
            Self::Get => "GET",
            Self::Delete => "DELETE",
            Self::List => "LIST",
            Self::Head => "HEAD",
        }
    }

    /// How stores bill it: class `A` costs about twelve times class `B`.
    pub const fn price_class(self) -> &'static str {
        match self {
            Self::Put | Self::List => "A",
            Self::Get | Self::Head => "B",
            Self::Delete => "free",
        }
    }
}

/// The kinds of error that a request can fail with. That there is no such object, or that there is one already, is an
/// answer.
const FAILURES: [(ErrorKind, &str); 10] = [
    (ErrorKind::Unavailable, "unavailable"),
    (ErrorKind::Timeout, "timeout"),
    (ErrorKind::Denied, "denied"),
    (ErrorKind::WrongAnswer, "wrong_answer"),
    (ErrorKind::Config, "config"),
    (ErrorKind::NoBucket, "no_bucket"),
    (ErrorKind::Corrupt, "corrupt"),
    (ErrorKind::NoSpace, "no_space"),
    (ErrorKind::Io, "io"),
    (ErrorKind::Unsupported, "other"),
];

/// The place of `error` in [`FAILURES`]; `None` if it is an answer.
fn failure(error: &Error) -> Option<usize> {
    let kind = error.kind();
    if matches!(kind, ErrorKind::NotFound | ErrorKind::AlreadyExists | ErrorKind::Interrupted) {
        return None;
    }
    Some(FAILURES.iter().position(|(known, _)| *known == kind).unwrap_or(FAILURES.len() - 1))
}

/// Counts of one operation.
#[derive(Debug, Default)]
struct Counts {
    requests: Counter,
    bytes: Counter,
    seconds: Histogram,
    failures: [Counter; FAILURES.len()],
}

/// The requests to one replica, or to all stores of a kind.
#[derive(Debug, Default)]
pub struct Requests {
    counts: [Counts; Operation::ALL.len()],
    unanswered: Mutex<Unanswered>,
}

/// A body may take as long as it does at this many bytes a second, before who waits for the answer takes the store for silent.
const SLOW_LINK: f64 = (64 << 10) as f64;

/// What ended without an answer, and is asked again within this time, counts as one request.
const AGAIN: Duration = Duration::from_secs(2);

/// The requests that are under way.
#[derive(Debug, Default)]
struct Unanswered {
    count: usize,
    /// The bytes of their bodies.
    bytes: usize,
    /// Since when they are under way, or since the last answer.
    since: Option<Instant>,
    /// When the last one ended without an answer.
    given_up: Option<Instant>,
}

impl Unanswered {
    fn begins(&mut self, now: Instant, bytes: usize) {
        let is_waiting = self.count > 0 || self.given_up.is_some_and(|at| now - at < AGAIN);
        if !is_waiting || self.since.is_none() {
            self.since = Some(now);
        }
        self.count += 1;
        self.bytes += bytes;
    }

    fn ends(&mut self, now: Instant, bytes: usize, is_answered: bool) {
        self.count -= 1;
        self.bytes -= bytes;
        if is_answered {
            self.since = (self.count > 0).then_some(now);
        }
        self.given_up = (!is_answered).then_some(now);
    }

    fn silence(&self, now: Instant) -> Duration {
        let is_waiting = self.count > 0 || self.given_up.is_some_and(|at| now - at < AGAIN);
        let silent = self.since.filter(|_| is_waiting).map_or(Duration::ZERO, |since| now - since);
        silent.saturating_sub(Duration::from_secs_f64(self.bytes as f64 / SLOW_LINK))
    }
}

/// What was counted of one operation.
#[derive(Clone, Debug, PartialEq)]
pub struct Counted {
    /// The operation.
    pub operation: Operation,
    /// Requests, each attempt by itself.
    pub requests: u64,
    /// Bytes that they sent or received.
    pub bytes: u64,
    /// Time from each request to its answer.
    pub seconds: HistogramValue,
    /// Those that failed, by the name of the kind of error.
    pub failures: Vec<(&'static str, u64)>,
}

impl Requests {
    /// Notes a request that took `time` and ended with `error`, if it failed.
    fn note(&self, operation: Operation, time: Duration, error: Option<&Error>) {
        let counts = &self.counts[operation as usize];
        counts.requests.one();
        counts.seconds.note(time);
        if let Some(at) = error.and_then(failure) {
            counts.failures[at].one();
        }
    }

    fn moved(&self, operation: Operation, bytes: usize) {
        self.counts[operation as usize].bytes.add(bytes as u64);
    }

    /// What was counted, by operation, without those that never were made.
    pub fn counted(&self) -> Vec<Counted> {
        let counted = Operation::ALL.iter().zip(&self.counts).map(|(operation, counts)| Counted {
            operation: *operation,
            requests: counts.requests.get(),
            bytes: counts.bytes.get(),
            seconds: counts.seconds.get(),
            failures: failures(counts),
        });
        counted.filter(|counted| counted.requests > 0).collect()
    }

    /// How many did what was asked, or were told that there is nothing, or something already.
    pub fn succeeded(&self) -> u64 {
        let failed = |counts: &Counts| counts.failures.iter().map(Counter::get).sum::<u64>();
        // Failures first: one that is counted meanwhile is no success.
        self.counts
            .iter()
            .map(|counts| (failed(counts), counts.requests.get()))
            .map(|(f, n)| n - f.min(n))
            .sum()
    }

    /// For how long the store has answered nothing, though it was asked. While a body may still be on its way, that is no
    /// silence. Any answer ends it, also that something failed.
    pub fn silence(&self) -> Duration {
        self.unanswered().silence(Instant::now())
    }

    fn unanswered(&self) -> MutexGuard<'_, Unanswered> {
        self.unanswered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that is under way. Who drops it does not wait for the answer any more.
#[derive(Debug)]
pub(in crate::store) struct Asking {
    replica: Arc<Requests>,
    begun: Instant,
    /// The size of its body.
    bytes: usize,
    is_answered: bool,
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.replica.unanswered().ends(Instant::now(), self.bytes, self.is_answered);
    }
}

fn failures(counts: &Counts) -> Vec<(&'static str, u64)> {
    let failures = FAILURES.iter().zip(&counts.failures).map(|((_, name), count)| (*name, count.get()));
    failures.filter(|(_, count)| *count > 0).collect()
}

/// No fewer than there are providers.
const MOST: usize = 16;

/// The requests of this process, by the place of the provider in [`PROVIDERS`]. A forked child begins with none.
static ALL: PerProcess<[Requests; MOST]> = PerProcess::new();

/// What this process asked of stores, by the name of the provider; without those that were asked nothing.
pub fn of_process() -> Vec<(&'static str, Vec<Counted>)> {
    let all = PROVIDERS.iter().zip(ALL.get()).map(|(provider, requests)| (provider.name, requests.counted()));
    all.filter(|(_, counted)| !counted.is_empty()).collect()
}

/// Where the requests of a bucket are counted.
#[derive(Clone, Debug)]
pub(in crate::store) struct Tally {
    replica: Arc<Requests>,
    /// The place of the provider; `None` of one that is in no list.
    provider: Option<usize>,
}

impl Tally {
    /// That of a replica in a store of this `kind`.
    pub(in crate::store) fn new(replica: Arc<Requests>, kind: &str) -> Self {
        Self { replica, provider: PROVIDERS.iter().position(|provider| provider.name == kind) }
    }

    fn each(&self, note: impl Fn(&Requests)) {
        note(&self.replica);
        if let Some(of_kind) = self.provider.and_then(|at| ALL.get().get(at)) {
            note(of_kind);
        }
    }

    /// A request begins, with a body of `bytes`.
    pub(in crate::store) fn asks(&self, bytes: usize) -> Asking {
        let begun = Instant::now();
        self.replica.unanswered().begins(begun, bytes);
        Asking { replica: Arc::clone(&self.replica), begun, bytes, is_answered: false }
    }

    /// Notes the `outcome` of a request.
    pub(in crate::store) fn note<T>(
        &self,
        operation: Operation,
        mut asking: Asking,
        outcome: Result<T>,
    ) -> Result<T> {
        let time = asking.begun.elapsed();
        asking.is_answered = outcome.as_ref().err().is_none_or(|e| e.kind() != ErrorKind::Timeout);
        drop(asking);
        self.each(|requests| requests.note(operation, time, outcome.as_ref().err()));
        outcome
    }

    /// Notes that a request moved `bytes`.
    pub(in crate::store) fn moved(&self, operation: Operation, bytes: usize) {
        self.each(|requests| requests.moved(operation, bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_provider_has_a_place() {
        assert!(PROVIDERS.len() <= MOST);
    }

    #[test]
    fn that_there_is_nothing_is_an_answer_and_no_failure() {
        let requests = Requests::default();
        let error = |kind| Error::new(kind, "x");
        requests.note(Operation::Get, Duration::ZERO, Some(&error(ErrorKind::NotFound)));
        requests.note(Operation::Get, Duration::ZERO, Some(&error(ErrorKind::Denied)));
        requests.note(Operation::Get, Duration::ZERO, Some(&error(ErrorKind::Busy)));
        requests.moved(Operation::Get, 7);
        let counted = requests.counted();
        assert_eq!(counted.len(), 1);
        assert_eq!((counted[0].operation, counted[0].requests, counted[0].bytes), (Operation::Get, 3, 7));
        assert_eq!(counted[0].failures, [("denied", 1), ("other", 1)]);
    }

    #[test]
    fn silence_lasts_from_the_first_request_to_the_next_answer() {
        let begun = Instant::now();
        let at = |millis| begun + Duration::from_millis(millis);
        let mut unanswered = Unanswered::default();
        let silence = |unanswered: &Unanswered, millis| unanswered.silence(at(millis)).as_millis();
        assert_eq!(silence(&unanswered, 0), 0);
        unanswered.begins(at(0), 0);
        unanswered.begins(at(3000), 0);
        assert_eq!(silence(&unanswered, 5000), 5000);
        unanswered.ends(at(5000), 0, true);
        assert_eq!(silence(&unanswered, 6000), 1000, "the other one waits on");
        unanswered.ends(at(7000), 0, false);
        assert_eq!(silence(&unanswered, 8000), 3000, "it is tried again");
        unanswered.begins(at(8000), 0);
        assert_eq!(silence(&unanswered, 9000), 4000);
        unanswered.ends(at(9000), 0, false);
        assert_eq!(silence(&unanswered, 20_000), 0, "nobody asks");
        unanswered.begins(at(20_000), 1 << 20);
        assert_eq!(silence(&unanswered, 30_000), 0, "the body is on its way");
        assert_eq!(silence(&unanswered, 40_000), 4000);
        unanswered.ends(at(40_000), 1 << 20, true);
        assert_eq!(silence(&unanswered, 50_000), 0);
    }
}
