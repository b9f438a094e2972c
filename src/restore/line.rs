//! A line on the terminal: how far a restore is.

use std::io::{self, IsTerminal as _};
use std::time::{Duration, Instant};

use super::Standing;
use crate::logging;

/// A restore that is shorter than this needs no line.
const PATIENCE: Duration = Duration::from_millis(500);
/// How often the line changes.
const REFRESH: Duration = Duration::from_millis(200);

/// The line on standard error that tells how far a restore is, if that is a terminal.
#[derive(Debug)]
pub struct Line {
    shown: Option<Instant>,
    terminal: bool,
}

impl Line {
    /// A line that is shown if standard error is a terminal.
    pub fn new() -> Self {
        Self { shown: None, terminal: io::stderr().is_terminal() }
    }

    /// Shows how far it is, now and then.
    pub fn update(&mut self, standing: impl FnOnce() -> Standing) {
        if !self.terminal || self.shown.is_some_and(|at| at.elapsed() < REFRESH) {
            return;
        }
        let standing = standing();
        if standing.took >= PATIENCE {
            logging::show(&format!("\r{}\x1b[K", line(&standing)));
            self.shown = Some(Instant::now());
        }
    }
}

impl Default for Line {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if self.shown.is_some() {
            logging::show("\r\x1b[K");
        }
    }
}

/// `restoring app.db: 42 % of 1.2 GB, 95 MB/s, 8 s left`
fn line(standing: &Standing) -> String {
    let name = standing.path.file_name().unwrap_or_default().to_string_lossy();
    let (bytes, done) = standing.bytes;
    let mut line = format!("{} {name}", standing.phase.name());
    if let Some(percent) = (done * 100).checked_div(bytes) {
        let rate = done as f64 / standing.took.as_secs_f64().max(0.001);
        line += &format!(": {percent} % of {}, {}/s", size(bytes as f64), size(rate));
        if done > 0 && done < bytes {
            line += &format!(", {:.0} s left", (bytes - done) as f64 / rate);
        }
    }
    line
}

/// A number of bytes as a person reads it.
fn size(bytes: f64) -> String {
    match bytes {
        b if b >= 1e9 => format!("{:.1} GB", b / 1e9),
        b if b >= 1e6 => format!("{:.0} MB", b / 1e6),
        b => format!("{:.0} kB", b / 1e3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::restore::Phase;

    #[test]
    fn the_line_tells_what_is_left() {
        let mut standing = Standing {
            url: "file:///r".to_owned(),
            path: "/data/app.db".into(),
            phase: Phase::Restoring,
            txid: None,
            files: (3, 1),
            bytes: (1_200_000_000, 300_000_000),
            started: Timestamp::from_millis(0),
            took: Duration::from_secs(3),
            error: None,
        };
        assert_eq!(line(&standing), "restoring app.db: 25 % of 1.2 GB, 100 MB/s, 9 s left");
        standing.bytes = (0, 0);
        standing.phase = Phase::Planning;
        assert_eq!(line(&standing), "planning app.db");
    }
}
