//! Events that an operator should know of: each is declared once, with its name, its line in the log, and what it means
//! to a pager. Declared here, it is logged, counted in `litestream_events_total`, shown in `litestream_alarm` while it
//! lasts, and sent to webhooks.
//!
//! An event either happens at a moment or lasts. One that lasts is told once when it begins and once when it is over,
//! with the same id, however often its cause is met in between.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tracing::Level;

use crate::clock::{Clock, SystemClock, Timestamp};
use crate::fork::{self, PerProcess};
use crate::runtime;

/// Declaration of an event.
#[derive(Debug)]
pub struct Event {
    /// Its name, in webhooks, metrics and JSON lines of the log.
    pub name: &'static str,
    /// What it means, for the documentation.
    pub doc: &'static str,
    /// How important its line in the log is.
    level: Level,
    /// The line in the log; `{db}`, `{replica}` and `{error}` stand for what they are. Empty: another event or line says it.
    line: &'static str,
    /// The line when it is over. Empty: none, or it happens at a moment.
    end: &'static str,
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

/// Makes an event of each, and a list of all of them.
macro_rules! events {
    ($($name:ident = $text:literal, $level:ident, $line:literal, $end:literal, $doc:literal;)+) => {
        $(
            #[doc = $doc]
            pub static $name: Event =
                Event { name: $text, doc: $doc, level: Level::$level, line: $line, end: $end };
        )+
        /// Every event.
        pub static EVENTS: &[&Event] = &[$(&$name),+];
    };
}

events! {
    UPLOAD_FAILED = "upload_failed", WARN, "{db}: {error}; it is tried again", "{db}: replication goes on, to {replica}",
        "Publication to a replica fails and is tried again.";
    AUTH_FAILURE = "auth_failure", WARN, "", "",
        "A store refuses the credentials, or what they may do.";
    CIRCUIT_BREAKER_OPEN = "circuit_breaker_open", WARN, "", "",
        "A store has failed for so long that it is only asked every half a minute.";
    REPLICATION_STOPPED = "replication_stopped", ERROR, "{db}: {error}", "",
        "Replication ended until a user decides.";
    REPLICATION_RESUMED = "replication_resumed", INFO, "{db}: {replica}: {error}", "",
        "Replication that was stopped begins again.";
    HOLE_FOUND = "hole_found", ERROR, "{db}: {error}", "",
        "A replica lost files that lead to what was published; it is healed by a full copy, or replication stops.";
    CORRUPTION_DETECTED = "corruption_detected", WARN, "{replica}: {error}", "",
        "Files of a replica are damaged.";
    VERIFICATION_FAILED = "verification_failed", WARN, "{db}: {error}", "{db}: verification of {replica} finds nothing wrong now",
        "A verification found that a replica, or a part of it, cannot be restored.";
    LAG_HIGH = "lag_high", WARN, "{db}: {error}", "{db}: {replica} has caught up",
        "A commit has waited for longer than `max_lag`.";
    DISK_LOW = "disk_low", WARN, "{db}: {error}", "{db}: its disk has space again",
        "The disk of a database has less space than `disk_reserve`.";
    CLOSED_UNSENT = "closed_unsent", WARN, "{db}: {error}", "",
        "The last connection was closed while commits were not in a replica.";
    FOLLOW_FAILED = "follow_failed", WARN, "{db}: {error}; it is tried again", "{db}: the copy follows {replica} again",
        "A copy cannot follow its replica for now: the store, the disk, or a reader that stays in a transaction.";
    FOLLOW_STOPPED = "follow_stopped", ERROR, "{db}: {error}", "",
        "A copy follows its replica no more, until a user decides.";
}

/// What an event is of.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The database file.
    pub db: &'a Path,
    /// The URL of the replica, without secrets; empty if it is of the database as a whole.
    pub replica: &'a str,
}

/// Course of an occurrence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    /// It lasts.
    Lasts,
    /// It is over.
    Over,
    /// It happened at a moment, and has no end.
    Moment,
}

/// One occurrence of an event, or its end.
#[derive(Clone, Debug)]
pub struct Occurrence {
    /// Of which event.
    pub event: &'static Event,
    /// Its name: 16 hexadecimal digits, the same when it is over.
    pub id: String,
    /// The database file.
    pub db: PathBuf,
    /// The URL of the replica; empty if it is of the database as a whole.
    pub replica: String,
    /// What is wrong, and what to do about it. Carries no secret.
    pub error: String,
    /// When it began.
    pub since: Timestamp,
    /// When this was noted: the beginning, or the end.
    pub at: Timestamp,
    /// Whether it lasts.
    pub course: Course,
    /// How often its cause was met so far.
    pub attempts: u64,
}

/// Beginnings and ends that wait for who sends them, at most. The oldest go first.
const QUEUED: usize = 1024;

/// What was over lately, and is still shown.
const REMEMBERED: usize = 64;

type Key = (&'static str, PathBuf, String);

#[derive(Debug, Default)]
struct Inner {
    /// What lasts.
    lasting: BTreeMap<Key, Occurrence>,
    counts: BTreeMap<&'static str, u64>,
    /// Beginnings and ends so far.
    told: u64,
    /// What happened or was over, the oldest first.
    past: VecDeque<Occurrence>,
    /// For webhooks; `None` while nobody takes them.
    queue: Option<VecDeque<Occurrence>>,
    /// What was taken from there and is not handed over.
    taken: usize,
}

impl Inner {
    fn keep(&mut self) {
        if self.queue.is_none() {
            let happened = self.past.iter().filter(|occurrence| occurrence.course == Course::Moment);
            self.queue = Some(happened.chain(self.lasting.values()).cloned().collect());
        }
    }
}

/// The events of this process.
#[derive(Debug, Default)]
struct Events {
    inner: Mutex<Inner>,
    queued: Notify,
}

/// A forked child begins with none.
static EVENTS_HERE: PerProcess<Events> = PerProcess::new();

impl Events {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, inner: &mut Inner, occurrence: &Occurrence) {
        inner.told += 1;
        if occurrence.course != Course::Over {
            *inner.counts.entry(occurrence.event.name).or_default() += 1;
        }
        if occurrence.course != Course::Lasts {
            if inner.past.len() == REMEMBERED {
                inner.past.pop_front();
            }
            inner.past.push_back(occurrence.clone());
        }
        if let Some(queue) = &mut inner.queue {
            if queue.len() == QUEUED {
                queue.pop_front();
            }
            queue.push_back(occurrence.clone());
            self.queued.notify_one();
        }
    }

    /// Notes that `event` is met; what is to be logged, if it is new.
    fn begins(
        &self,
        event: &'static Event,
        subject: Subject<'_>,
        error: &str,
        now: Timestamp,
    ) -> Option<Occurrence> {
        let mut inner = self.lock();
        let key = (event.name, subject.db.to_path_buf(), subject.replica.to_owned());
        if let Some(lasting) = inner.lasting.get_mut(&key) {
            lasting.attempts += 1;
            error.clone_into(&mut lasting.error);
            return None;
        }
        let occurrence = new(event, subject, error, now);
        inner.lasting.insert(key, occurrence.clone());
        self.tell(&mut inner, &occurrence);
        Some(occurrence)
    }

    fn ends(&self, event: &'static Event, subject: Subject<'_>, now: Timestamp) -> Option<Occurrence> {
        let mut inner = self.lock();
        let key = (event.name, subject.db.to_path_buf(), subject.replica.to_owned());
        let mut occurrence = inner.lasting.remove(&key)?;
        (occurrence.course, occurrence.at) = (Course::Over, now);
        self.tell(&mut inner, &occurrence);
        Some(occurrence)
    }
}

fn new(event: &'static Event, subject: Subject<'_>, error: &str, now: Timestamp) -> Occurrence {
    Occurrence {
        event,
        id: format!("{:016x}", runtime::random_u64().unwrap_or_else(|_| now.as_millis() as u64)),
        db: subject.db.to_path_buf(),
        replica: subject.replica.to_owned(),
        error: error.to_owned(),
        since: now,
        at: now,
        course: Course::Lasts,
        attempts: 1,
    }
}

/// `event` lasts from now on, because of `error`: logged, counted and told once, until it [`ends`].
pub fn begins(event: &'static Event, subject: Subject<'_>, error: &str) {
    let _section = fork::section();
    if let Some(occurrence) = EVENTS_HERE.get().begins(event, subject, error, SystemClock.now()) {
        log(&occurrence, event.line);
    }
}

/// What `event` tells of is over, if it lasted.
pub fn ends(event: &'static Event, subject: Subject<'_>) {
    let _section = fork::section();
    if let Some(occurrence) = EVENTS_HERE.get().ends(event, subject, SystemClock.now()) {
        log(&occurrence, event.end);
    }
}

/// `event` happened, at this moment.
pub fn happened(event: &'static Event, subject: Subject<'_>, error: &str) {
    let _section = fork::section();
    let occurrence = Occurrence { course: Course::Moment, ..new(event, subject, error, SystemClock.now()) };
    let events = EVENTS_HERE.get();
    events.tell(&mut events.lock(), &occurrence);
    log(&occurrence, event.line);
}

/// The database `db` was closed: what lasted of it is over for this process.
pub fn closed(db: &Path) {
    let _section = fork::section();
    let events = EVENTS_HERE.get();
    let mut inner = events.lock();
    let (ended, lasting) =
        std::mem::take(&mut inner.lasting).into_iter().partition(|((_, of, _), _)| of == db);
    inner.lasting = lasting;
    let ended: BTreeMap<Key, Occurrence> = ended;
    for mut occurrence in ended.into_values() {
        (occurrence.course, occurrence.at) = (Course::Over, SystemClock.now());
        "the database was closed".clone_into(&mut occurrence.error);
        events.tell(&mut inner, &occurrence);
    }
}

/// What lasts now, and what happened or was over lately.
pub fn recent() -> Vec<Occurrence> {
    let _section = fork::section();
    let inner = EVENTS_HERE.get().lock();
    inner.lasting.values().chain(&inner.past).cloned().collect()
}

/// How often each event began or happened in this process, of those that ever did.
pub fn counts() -> BTreeMap<&'static str, u64> {
    let _section = fork::section();
    EVENTS_HERE.get().lock().counts.clone()
}

/// From now on beginnings and ends are kept for [`next`], and so is what lasts, or happened, since the process began.
pub fn keep() {
    let events = EVENTS_HERE.get();
    events.lock().keep();
    events.queued.notify_one();
}

/// Waits for the next beginning or end, after [`keep`].
pub async fn next() -> Occurrence {
    let events = EVENTS_HERE.get();
    loop {
        let queued = events.queued.notified();
        {
            let mut inner = events.lock();
            if let Some(occurrence) = inner.queue.as_mut().and_then(VecDeque::pop_front) {
                inner.taken += 1;
                return occurrence;
            }
        }
        queued.await;
    }
}

/// What [`next`] gave was handed over to all that want it.
pub fn handed_over() {
    let mut inner = EVENTS_HERE.get().lock();
    inner.taken = inner.taken.saturating_sub(1);
}

/// The number of beginnings and ends so far.
pub fn told() -> u64 {
    let _section = fork::section();
    EVENTS_HERE.get().lock().told
}

/// Whether anything waits to be handed over.
pub fn are_waiting() -> bool {
    let _section = fork::section();
    let inner = EVENTS_HERE.get().lock();
    inner.taken > 0 || inner.queue.as_ref().is_some_and(|queue| !queue.is_empty())
}

fn log(occurrence: &Occurrence, line: &str) {
    if line.is_empty() {
        return;
    }
    let (db, replica) = (occurrence.db.display(), &*occurrence.replica);
    let text = line
        .replace("{db}", &db.to_string())
        .replace("{replica}", replica)
        .replace("{error}", &occurrence.error);
    let event = occurrence.event.name;
    match occurrence.event.level {
        Level::ERROR => tracing::error!(event, %db, replica, "{text}"),
        Level::WARN => tracing::warn!(event, %db, replica, "{text}"),
        _ => tracing::info!(event, %db, replica, "{text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Timestamp = Timestamp::from_millis(1_000);

    #[test]
    fn names_are_unique() {
        for (i, a) in EVENTS.iter().enumerate() {
            assert!(EVENTS[..i].iter().all(|b| a.name != b.name), "{}", a.name);
        }
    }

    #[test]
    fn what_lasts_is_told_once_and_once_when_it_is_over() {
        let events = Events::default();
        events.lock().queue = Some(VecDeque::new());
        let subject = Subject { db: Path::new("/a.db"), replica: "s3://b/a" };
        let other = Subject { replica: "s3://b/other", ..subject };
        assert!(events.ends(&UPLOAD_FAILED, subject, AT).is_none());
        let first = events.begins(&UPLOAD_FAILED, subject, "no answer", AT).unwrap();
        assert!(events.begins(&UPLOAD_FAILED, subject, "refused", AT).is_none());
        assert!(events.begins(&AUTH_FAILURE, subject, "refused", AT).is_some());
        assert!(events.begins(&UPLOAD_FAILED, other, "no answer", AT).is_some());
        let over = events.ends(&UPLOAD_FAILED, subject, Timestamp::from_millis(2_000)).unwrap();
        assert_eq!((&over.id, over.attempts, &*over.error), (&first.id, 2, "refused"));
        assert_eq!((over.since.as_millis(), over.at.as_millis(), over.course), (1_000, 2_000, Course::Over));
        let inner = events.lock();
        let queued: Vec<_> = inner.queue.iter().flatten().map(|one| (one.event.name, one.course)).collect();
        assert_eq!(
            queued,
            [
                ("upload_failed", Course::Lasts),
                ("auth_failure", Course::Lasts),
                ("upload_failed", Course::Lasts),
                ("upload_failed", Course::Over)
            ]
        );
        assert_eq!(inner.counts["upload_failed"], 2);
        // Another occurrence has another id.
        drop(inner);
        assert_ne!(events.begins(&UPLOAD_FAILED, subject, "no answer", AT).unwrap().id, first.id);
    }

    #[test]
    fn what_lasts_already_is_told_to_who_comes_later() {
        let events = Events::default();
        let subject = Subject { db: Path::new("/a.db"), replica: "s3://b/a" };
        events.begins(&UPLOAD_FAILED, subject, "no answer", AT);
        events.ends(&UPLOAD_FAILED, subject, AT);
        events.begins(&REPLICATION_STOPPED, subject, "another database", AT);
        for _ in 0..2 {
            events.lock().keep();
        }
        let inner = events.lock();
        let queued: Vec<_> = inner.queue.iter().flatten().map(|one| (one.event.name, one.course)).collect();
        assert_eq!(queued, [("replication_stopped", Course::Lasts)]);
    }

    #[test]
    fn the_oldest_go_when_nobody_takes_them() {
        let events = Events::default();
        events.lock().queue = Some(VecDeque::new());
        for n in 0..QUEUED + 1 {
            let subject = Subject { db: Path::new("/a.db"), replica: &n.to_string() };
            events.begins(&LAG_HIGH, subject, "slow", AT);
        }
        let mut inner = events.lock();
        let queue = inner.queue.as_mut().unwrap();
        assert_eq!((queue.len(), &*queue[0].replica), (QUEUED, "1"));
    }
}
