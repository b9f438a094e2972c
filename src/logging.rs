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
    /// A JSON object on a line, with the members `time`, `level`, `msg` and `system`.
    Json,
}

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
    show(&told(LogFormat::Text, &SystemClock, Level::WARN, complaint));
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
    fn write(&self, clock: &dyn Clock, level: &Level, message: &str) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(times) = written.last.before(&format!("{level} {message}"), clock.steady()) else { return };
        let mut text = String::new();
        if written.cut {
            text.push('\n');
        }
        if written.lost > 0 {
            let missing = format!("{} lines are missing here: nobody read them", written.lost);
            text += &told(self.format, clock, Level::WARN, &missing);
        }
        if times > 0 {
            text += &told(self.format, clock, Level::WARN, &format!("the last line came {times} times more"));
        }
        text += &told(self.format, clock, *level, message);
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
        let message = message(event);
        let _section = fork::section();
        self.write(&SystemClock, event.metadata().level(), &message);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// `2026-01-31T12:00:00.123Z WARN litestream: message`, or a JSON object, and the end of the line.
fn told(format: LogFormat, clock: &dyn Clock, level: Level, message: &str) -> String {
    match format {
        // A message with line breaks would look like several events.
        LogFormat::Text => {
            format!("{} {level} litestream: {message}", clock.now()).replace(['\n', '\r'], " ") + "\n"
        }
        LogFormat::Json => {
            let (time, level) = (clock.now().to_string(), level.to_string());
            let event =
                serde_json::json!({"time": time, "level": level, "msg": message, "system": "litestream_vfs"});
            event.to_string() + "\n"
        }
    }
}

/// `message key=value`
fn message(event: &Event<'_>) -> String {
    let mut fields = Fields::default();
    event.record(&mut fields);
    fields.message + &fields.rest
}

#[derive(Default)]
struct Fields {
    message: String,
    rest: String,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
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
                &message(event),
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
            tracing::info!(txid = 7, path = "a b", "first\nsecond");
        });
        assert_eq!(lines, ["2026-01-31T12:00:00.123Z INFO litestream: first second txid=7 path=\"a b\"\n"]);
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
            lines.write(&clock, &Level::WARN, message);
        }
        clock.set(Timestamp::from_millis(1_769_860_800_000 + REPEATS.as_millis() as i64));
        lines.write(&clock, &Level::WARN, "full");
        let text = std::fs::read_to_string(&path).unwrap();
        let said: Vec<_> = text.lines().map(|line| line.rsplit(": ").next().unwrap()).collect();
        assert_eq!(said, ["full", "the last line came 2 times more", "works", "full", "full"]);
    }
}
