//! Where `tracing` events of all rooms go: one line each, to standard error or a file.
//!
//! Logging never waits for whoever reads the lines.
//!
//! Nothing is installed when the library is loaded; the first use of it calls [`install`].

mod out;

use std::fmt::{self, Write as _};
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, Once, PoisonError};
use std::time::Duration;

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span;
use tracing::{Event, Level, Metadata, Subscriber};

use crate::clock::{Clock, SystemClock, Timestamp};
use crate::fork;
use out::Out;

/// What is logged, and where to.
#[derive(Debug)]
pub struct Options {
    /// The least important events that are logged.
    pub level: LevelFilter,
    /// The file that lines are appended to; standard error if there is none.
    pub file: Option<PathBuf>,
    /// How each event is written.
    pub format: LogFormat,
    /// What was wrong with these options. Whoever gave them does not see the log that they hoped for: it is
    /// told on standard error, whatever is logged.
    pub complaints: Vec<String>,
}

/// How an event is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// A line of text.
    #[default]
    Text,
    /// A JSON object on a line, with the members `time`, `level`, `msg` and `system`, and those of [`KEYS`] that the event
    /// has.
    Json,
}

/// Fields of events that are members of their own in a JSON object. A line of text has them behind the message, unless that
/// says so already.
const KEYS: [&str; 6] = ["event", "db", "replica", "txid", "size_bytes", "duration_ms"];

/// Whether events go to standard error: nothing is logged before [`install`].
static TO_STDERR: AtomicBool = AtomicBool::new(false);

/// Starts logging with what `options` returns, the first time that it is called in this process.
pub fn install(options: impl FnOnce() -> Options) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let Options { level, file, format, mut complaints } = options();
        // A file that nothing is written to need not be there.
        let out = match file.filter(|_| level != LevelFilter::OFF).map(Out::file) {
            None => Out::Stderr,
            Some(Ok(file)) => file,
            Some(Err(complaint)) => {
                complaints.push(complaint);
                Out::Stderr
            }
        };
        TO_STDERR.store(matches!(out, Out::Stderr), Ordering::Relaxed);
        complaints.iter().for_each(|complaint| complain(complaint));
        // Only this library's own copy of `tracing` is set; a host's is another one.
        let _ = tracing::subscriber::set_global_default(Lines::new(level, format, out));
    });
}

/// Tells on standard error what is wrong with the log itself.
fn complain(complaint: &str) {
    show(&told(LogFormat::Text, &SystemClock, Level::WARN, &Said::plain(complaint)));
}

/// Writes to standard error what can be written there without waiting.
pub fn show(text: &str) {
    let _ = Out::Stderr.write(text.as_bytes());
}

/// Whether events go to a terminal, where a person reads them.
pub fn is_on_terminal() -> bool {
    TO_STDERR.load(Ordering::Relaxed) && std::io::stderr().is_terminal()
}

/// Writes one line for each event. Spans are not shown.
#[derive(Debug)]
struct Lines {
    level: LevelFilter,
    format: LogFormat,
    out: Out,
    written: Mutex<Written>,
}

/// What was written, as far as the next line depends on it.
#[derive(Debug, Default)]
struct Written {
    /// How many lines could not be written without waiting.
    lost: u64,
    /// The last line that was written has no end.
    cut: bool,
    /// It was told that the log file cannot be written.
    is_refused: bool,
    last: Repeats,
}

/// The last line, and how often it came again since.
#[derive(Debug, Default)]
struct Repeats {
    /// Level and message.
    message: String,
    /// When it was written, by the steady clock.
    at: Option<Timestamp>,
    times: u64,
}

/// A line that comes again within this time, with no other between, is only counted.
const REPEATS: Duration = Duration::from_secs(60);

impl Repeats {
    /// How often the last line came again before `message`, which is to be written; `None` if it is one more
    /// repetition.
    fn before(&mut self, message: &str, now: Timestamp) -> Option<u64> {
        let is_recent = |at: Timestamp| now.as_millis() - at.as_millis() < REPEATS.as_millis() as i64;
        if self.message == message && self.at.is_some_and(is_recent) {
            self.times += 1;
            return None;
        }
        let times = std::mem::take(&mut self.times);
        (self.message, self.at) = (message.to_owned(), Some(now));
        Some(times)
    }
}

impl Lines {
    fn new(level: LevelFilter, format: LogFormat, out: Out) -> Self {
        Self { level, format, out, written: Mutex::default() }
    }

    /// Writes a line. A log that nobody reads must not disturb the database: what it cannot take is counted.
    fn write(&self, clock: &dyn Clock, level: &Level, said: &Said) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(times) = written.last.before(&format!("{level} {}", said.message), clock.steady()) else {
            return;
        };
        let mut text = String::new();
        if written.cut {
            text.push('\n');
        }
        if written.lost > 0 {
            let missing = format!("{} lines are missing here: nobody read them", written.lost);
            text += &told(self.format, clock, Level::WARN, &Said::plain(&missing));
        }
        if times > 0 {
            let again = format!("the last line came {times} times more");
            text += &told(self.format, clock, Level::WARN, &Said::plain(&again));
        }
        text += &told(self.format, clock, *level, said);
        // One write, so that lines of several threads and processes do not mix.
        match self.out.write(text.as_bytes()) {
            Ok(len) if len > 0 => (written.lost, written.cut) = (0, len < text.len()),
            outcome => {
                written.lost += 1;
                if let Some(complaint) = outcome.err().and_then(|e| self.out.complaint(e))
                    && !std::mem::replace(&mut written.is_refused, true)
                {
                    complain(&complaint);
                }
            }
        }
    }
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let level = *metadata.level();
        if metadata.target().starts_with(env!("CARGO_PKG_NAME")) {
            return level <= self.level;
        }
        // Each failed attempt to connect is an error to this one, and then one of ours.
        if metadata.target().starts_with("async_nats") {
            return level <= Level::WARN && self.level >= LevelFilter::DEBUG;
        }
        // Libraries below us log too. What they warn of, an error of ours says in a user's words; what they say
        // at `info` and finer is of no use.
        level <= Level::ERROR && level <= self.level
            || level <= Level::WARN && self.level >= LevelFilter::INFO
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.level)
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let said = Said::of(event);
        let _section = fork::section();
        self.write(&SystemClock, event.metadata().level(), &said);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// `2026-01-31T12:00:00.123Z WARN litestream: message`, or a JSON object, and the end of the line.
fn told(format: LogFormat, clock: &dyn Clock, level: Level, said: &Said) -> String {
    match format {
        // A message with line breaks would look like several events.
        LogFormat::Text => {
            let message = said.message.clone() + &said.behind();
            format!("{} {level} litestream: {message}", clock.now()).replace(['\n', '\r'], " ") + "\n"
        }
        LogFormat::Json => {
            let (time, level) = (clock.now().to_string(), level.to_string());
            let mut event = serde_json::json!({
                "time": time, "level": level, "msg": said.message, "system": "litestream_vfs"
            });
            let members = said.members.iter().map(|(key, value)| ((*key).to_owned(), value.clone()));
            event.as_object_mut().expect("BUG: no object").extend(members);
            event.to_string() + "\n"
        }
    }
}

/// What an event says: `message key=value`, and the fields of [`KEYS`].
#[derive(Clone, Debug, Default)]
struct Said {
    message: String,
    members: Vec<(&'static str, serde_json::Value)>,
}

impl Said {
    fn plain(message: &str) -> Self {
        Self { message: message.to_owned(), members: Vec::new() }
    }

    /// What a line of text has behind the message: the name of an event is for programs.
    fn behind(&self) -> String {
        let mut behind = String::new();
        for (key, value) in self.members.iter().filter(|(key, _)| *key != "event") {
            if value.as_str().is_none_or(|text| !self.message.contains(text)) {
                write!(behind, " {key}={value}").expect("BUG: writing to a string failed");
            }
        }
        behind
    }

    fn of(event: &Event<'_>) -> Self {
        let mut fields = Fields::default();
        event.record(&mut fields);
        Self { message: fields.message + &fields.rest, members: fields.members }
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    rest: String,
    members: Vec<(&'static str, serde_json::Value)>,
}

impl Fields {
    /// Takes a field for a member of its own; whether it is one. What is empty is left out.
    fn member(&mut self, field: &Field, value: impl FnOnce() -> serde_json::Value) -> bool {
        let is_member = KEYS.contains(&field.name());
        if is_member {
            let value = value();
            if value != "" {
                self.members.push((field.name(), value));
            }
        }
        is_member
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        if !self.member(field, || value.into()) {
            self.record_debug(field, &value);
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if !self.member(field, || value.into()) {
            self.record_debug(field, &value);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if self.member(field, || format!("{value:?}").into()) {
            return;
        }
        let written = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.rest, " {name}={value:?}"),
        };
        written.expect("BUG: writing to a string failed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    /// Keeps the lines of the events that the real subscriber would write.
    struct Kept(Lines, Mutex<Vec<String>>);

    impl Subscriber for &'static Kept {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            self.0.enabled(metadata)
        }
        fn new_span(&self, attributes: &span::Attributes<'_>) -> span::Id {
            self.0.new_span(attributes)
        }
        fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
        fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
        fn event(&self, event: &Event<'_>) {
            let clock = ManualClock::new(Timestamp::from_millis(1_769_860_800_123));
            self.1.lock().unwrap().push(told(
                self.0.format,
                &clock,
                *event.metadata().level(),
                &Said::of(event),
            ));
        }
        fn enter(&self, _: &span::Id) {}
        fn exit(&self, _: &span::Id) {}
    }

    fn lines_of(level: LevelFilter, events: impl FnOnce()) -> Vec<String> {
        lines_as(LogFormat::Text, level, events)
    }

    fn lines_as(format: LogFormat, level: LevelFilter, events: impl FnOnce()) -> Vec<String> {
        let lines = Lines::new(level, format, Out::Stderr);
        let kept: &'static Kept = Box::leak(Box::new(Kept(lines, Mutex::default())));
        tracing::subscriber::with_default(kept, events);
        kept.1.lock().unwrap().clone()
    }

    #[test]
    fn an_event_is_one_line() {
        let lines = lines_of(LevelFilter::INFO, || {
            tracing::info!(pages = 7, path = "a b", "first\nsecond");
        });
        assert_eq!(lines, ["2026-01-31T12:00:00.123Z INFO litestream: first second pages=7 path=\"a b\"\n"]);
    }

    #[test]
    fn an_event_is_one_json_object() {
        let lines = lines_as(LogFormat::Json, LevelFilter::INFO, || tracing::info!("first\n\"second\""));
        let event: serde_json::Value = serde_json::from_str(lines[0].trim_end()).unwrap();
        assert_eq!(event["msg"], "first\n\"second\"");
        assert_eq!((&event["level"], &event["time"]), (&"INFO".into(), &"2026-01-31T12:00:00.123Z".into()));
        assert_eq!(lines[0].matches('\n').count(), 1);
    }

    #[test]
    fn stable_keys_are_members_and_text_says_them_once() {
        let event = || {
            let db = std::path::Path::new("/data/app.db").display();
            tracing::warn!(event = "lag_high", %db, replica = "", size_bytes = 7_u64, pages = 3, "slow");
        };
        let lines = lines_as(LogFormat::Json, LevelFilter::INFO, event);
        let json: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
        assert_eq!((&json["event"], &json["db"]), (&"lag_high".into(), &"/data/app.db".into()));
        assert_eq!((&json["size_bytes"], &json["msg"]), (&7.into(), &"slow pages=3".into()));
        assert!(json.get("replica").is_none());
        let lines = lines_of(LevelFilter::INFO, event);
        let text = "litestream: slow pages=3 db=\"/data/app.db\" size_bytes=7\n";
        assert!(lines[0].ends_with(text), "{lines:?}");
        let lines = lines_of(LevelFilter::INFO, || tracing::warn!(replica = "s3://b", "s3://b is slow"));
        assert!(lines[0].ends_with("litestream: s3://b is slow\n"), "{lines:?}");
    }

    #[test]
    fn less_important_events_and_other_libraries_are_left_out() {
        let lines = lines_of(LevelFilter::DEBUG, || {
            tracing::trace!("too fine");
            tracing::debug!("ours");
            tracing::debug!(target: "hyper", "chatter");
            tracing::warn!(target: "hyper", "trouble");
        });
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].ends_with("ours\n") && lines[1].ends_with("trouble\n"));
        assert_eq!(lines_of(LevelFilter::OFF, || tracing::error!("anything")), [""; 0]);
    }
    #[test]
    fn what_other_libraries_warn_of_is_for_who_wants_to_know_more() {
        let warns = || {
            tracing::warn!(target: "hyper", "trouble");
            tracing::error!(target: "hyper", "the end");
        };
        assert_eq!(lines_of(LevelFilter::WARN, warns).len(), 1);
        assert_eq!(lines_of(LevelFilter::INFO, warns).len(), 2);
    }

    #[test]
    fn a_line_that_comes_again_and_again_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let lines = Lines::new(LevelFilter::WARN, LogFormat::Text, Out::file(path.clone()).unwrap());
        let clock = ManualClock::new(Timestamp::from_millis(1_769_860_800_000));
        for message in ["full", "full", "full", "works", "full"] {
            lines.write(&clock, &Level::WARN, &Said::plain(message));
        }
        clock.set(Timestamp::from_millis(1_769_860_800_000 + REPEATS.as_millis() as i64));
        lines.write(&clock, &Level::WARN, &Said::plain("full"));
        let text = std::fs::read_to_string(&path).unwrap();
        let said: Vec<_> = text.lines().map(|line| line.rsplit(": ").next().unwrap()).collect();
        assert_eq!(said, ["full", "the last line came 2 times more", "works", "full", "full"]);
    }
}
