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

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span;
use tracing::{Event, Metadata, Subscriber};

use crate::clock::{Clock, SystemClock};
use crate::fork;
use out::Out;

/// What is logged, and where to.
#[derive(Debug)]
pub struct Options {
    /// The least important events that are logged.
    pub level: LevelFilter,
    /// The file that lines are appended to; standard error if there is none.
    pub file: Option<PathBuf>,
    /// What was wrong with these options: becomes the first line.
    pub complaint: Option<String>,
}

/// The level that `name` means: `off`, `error`, `warn`, `info`, `debug` or `trace`.
///
/// # Panics
/// For any other name.
pub fn level(name: &str) -> LevelFilter {
    name.parse().expect("BUG: a level that tracing does not know")
}

/// Whether events go to standard error: nothing is logged before [`install`].
static TO_STDERR: AtomicBool = AtomicBool::new(false);

/// Starts logging with what `options` returns, the first time that it is called in this process.
pub fn install(options: impl FnOnce() -> Options) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let Options { level, file, mut complaint } = options();
        let out = match file.map(|path| (out::open(&path), path)) {
            None => Out::Stderr,
            Some((Ok(file), _)) => Out::File(file),
            Some((Err(e), path)) => {
                complaint = Some(format!("cannot open the log file {}: {e}", path.display()));
                Out::Stderr
            }
        };
        TO_STDERR.store(matches!(out, Out::Stderr), Ordering::Relaxed);
        // Only this library's own copy of `tracing` is set; a host's is another one.
        if tracing::subscriber::set_global_default(Lines::new(level, out)).is_ok()
            && let Some(complaint) = complaint
        {
            tracing::warn!("{complaint}");
        }
    });
}

/// Writes to standard error what can be written there without waiting.
pub fn show(text: &str) {
    Out::Stderr.write(text.as_bytes());
}

/// Whether events go to a terminal, where a person reads them.
pub fn is_on_terminal() -> bool {
    TO_STDERR.load(Ordering::Relaxed) && std::io::stderr().is_terminal()
}

/// Writes one line for each event. Spans are not shown.
#[derive(Debug)]
struct Lines {
    level: LevelFilter,
    out: Out,
    lost: Mutex<Lost>,
}

/// What could not be written without waiting.
#[derive(Debug, Default)]
struct Lost {
    lines: u64,
    /// The last line that was written has no end.
    cut: bool,
}

impl Lines {
    fn new(level: LevelFilter, out: Out) -> Self {
        Self { level, out, lost: Mutex::default() }
    }

    /// Writes a line. A log that nobody reads must not disturb the database: what it cannot take is counted.
    fn write(&self, line: &str) {
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        if lost.cut {
            text.push('\n');
        }
        if lost.lines > 0 {
            let now = SystemClock.now();
            text +=
                &format!("{now} WARN litestream: {} lines are missing here: nobody read them\n", lost.lines);
        }
        text += line;
        // One write, so that lines of several threads and processes do not mix.
        match self.out.write(text.as_bytes()) {
            0 => lost.lines += 1,
            written => *lost = Lost { lines: 0, cut: written < text.len() },
        }
    }
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // Libraries below us log too; what they say at `info` and finer is of no use to a user.
        let ours = metadata.target().starts_with(env!("CARGO_PKG_NAME"));
        *metadata.level() <= self.level && (ours || *metadata.level() <= tracing::Level::WARN)
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
        let line = line(&SystemClock, event);
        let _section = fork::section();
        self.write(&line);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// `2026-01-31T12:00:00.123Z WARN litestream: message key=value`
fn line(clock: &dyn Clock, event: &Event<'_>) -> String {
    let mut fields = Fields::default();
    event.record(&mut fields);
    let Fields { message, rest } = fields;
    let line = format!("{} {} litestream: {message}{rest}", clock.now(), event.metadata().level());
    // A message with line breaks would look like several events.
    line.replace(['\n', '\r'], " ") + "\n"
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
    use crate::clock::{ManualClock, Timestamp};

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
            self.1.lock().unwrap().push(line(&clock, event));
        }
        fn enter(&self, _: &span::Id) {}
        fn exit(&self, _: &span::Id) {}
    }

    fn lines_of(level: LevelFilter, events: impl FnOnce()) -> Vec<String> {
        let kept: &'static Kept = Box::leak(Box::new(Kept(Lines::new(level, Out::Stderr), Mutex::default())));
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
}
