//! How replication stands, as the process that publishes a database tells it to the others that have it open.
//!
//! It is asked for only when somebody asks for the status, so that it costs nothing otherwise: the publisher answers at
//! once, also while its store does not.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::ltx::Txid;
use crate::primary::line::{self, Answer, Mailbox, Message};
use crate::primary::shared::Shared;
use crate::primary::state;

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_millis(500);
/// From then on the question is one that version 0.1.0 understands.
const OLDER_VERSION: Duration = Duration::from_millis(200);
/// The question is put again after this: the publisher may be another process by now.
const ASK_AGAIN: Duration = Duration::from_millis(50);
/// How soon it is noticed that this process publishes.
const LOOK: Duration = Duration::from_millis(10);
/// A longer text is cut: a report is one message.
const LONGEST_TEXT: usize = 900;

/// Report of the process that publishes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Report {
    /// The process.
    pub(super) pid: u32,
    /// The last transaction in the replica.
    pub(super) txid: Option<u64>,
    /// When that was committed, in milliseconds since the Unix epoch.
    pub(super) time: Option<i64>,
    /// How long the oldest commit waits that is not in the replica, of whatever process, in milliseconds.
    pub(super) lag: u64,
    /// Local files that wait for the replica.
    pub(super) waiting_files: usize,
    /// Their size in bytes.
    pub(super) waiting_bytes: u64,
    /// What was found and repaired last.
    pub(super) notice: Option<String>,
    /// The last transaction that is proven restorable, and when that was proven.
    pub(super) verified: Option<(u64, i64)>,
    /// What is wrong now.
    pub(super) error: Option<String>,
}

impl Report {
    /// The last transaction in the replica.
    pub(super) fn txid(&self) -> Option<Txid> {
        self.txid.and_then(Txid::new)
    }

    /// When that was committed.
    pub(super) fn time(&self) -> Option<Timestamp> {
        self.time.map(Timestamp::from_millis)
    }

    /// The last transaction that is proven restorable, and when that was proven.
    pub(super) fn verified(&self) -> Option<(Txid, Timestamp)> {
        let (txid, at) = self.verified?;
        Some((Txid::new(txid)?, Timestamp::from_millis(at)))
    }

    /// How long the oldest commit waits.
    pub(super) const fn lag(&self) -> Duration {
        Duration::from_millis(self.lag)
    }
}

/// What this process knows of the one that publishes, and that one of this.
#[derive(Debug, Default)]
pub(super) struct Elsewhere {
    /// The last report that came.
    last: Mutex<Report>,
    /// The last commit of this process of which the other was told.
    told: AtomicU64,
}

impl Elsewhere {
    fn last(&self) -> MutexGuard<'_, Report> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a question came to.
enum Outcome {
    Told(Report),
    /// A process publishes, and does not answer.
    Silent,
    /// No process can be reached that publishes.
    Gone,
    /// This process publishes.
    Ours,
}

impl Shared {
    /// The report of the process that publishes; `None` if this one does. Waits half a second at most: of a
    /// publisher that is stopped or gone it is what is known here.
    pub(super) fn report(&self) -> Option<Report> {
        let asked = (self.commits.last().seq, self.clock.steady());
        let why = match self.ask_for_report() {
            Outcome::Ours => return None,
            Outcome::Told(report) => {
                self.commits.confirm(asked, report.lag());
                *self.elsewhere.last() = report.clone();
                return Some(report);
            }
            Outcome::Silent => {
                "does not answer: it is stopped, or hangs. When it ends, another process takes over"
            }
            Outcome::Gone => "cannot be reached: if it is gone, another takes over within two seconds",
        };
        Some(self.report_of_silence(why))
    }

    fn ask_for_report(&self) -> Outcome {
        let folder = state::folder(&self.path);
        let Ok(mailbox) = Mailbox::open(&folder) else { return Outcome::Gone };
        let began = Instant::now();
        let mut next_question = began;
        let mut is_heard = false;
        while self.is_standby() {
            let now = Instant::now();
            if now >= began + PATIENCE {
                return if is_heard { Outcome::Silent } else { Outcome::Gone };
            }
            if now >= next_question {
                next_question = now + ASK_AGAIN;
                is_heard = self.put_question(&folder, &mailbox, now - began).is_ok();
                if !is_heard {
                    // This process takes over, unless another does.
                    self.signal.hurry();
                }
            }
            if let Some(answer) = mailbox.wait(LOOK) {
                return Outcome::Told(self.report_of(answer));
            }
        }
        Outcome::Ours
    }

    /// The report that `answer` is, or comes to.
    fn report_of(&self, answer: Answer) -> Report {
        let txid = self.remembered_txid().map(Txid::get);
        match answer {
            Answer::Report(report) => report,
            Answer::Done(txid) => Report { txid: Some(txid), ..Report::default() },
            Answer::Empty(_) => Report::default(),
            Answer::Stopped(error) | Answer::Failing(error) => {
                Report { txid, lag: millis(self.lag()), error: Some(error), ..Report::default() }
            }
        }
    }

    /// Tells the publisher at once that there are commits.
    ///
    /// # Errors
    /// Whatever says that nobody listens.
    pub(super) fn tell_of_commits(&self) -> io::Result<()> {
        let seq = self.commits.last().seq.0;
        line::tell(&state::folder(&self.path), &Message::Committed)?;
        self.elsewhere.told.fetch_max(seq, Ordering::Relaxed);
        Ok(())
    }

    /// Asks how replication stands. A publisher that has not answered `since` the first question may be of version
    /// 0.1.0, which answers only whether all is in the replica.
    fn put_question(&self, folder: &Path, mailbox: &Mailbox, since: Duration) -> io::Result<()> {
        // What was committed here is heard of before the question.
        if self.commits.last().seq.0 > self.elsewhere.told.load(Ordering::Relaxed) {
            self.tell_of_commits()?;
        }
        let mailbox = mailbox.name.clone();
        let question = if since < OLDER_VERSION { Message::Status(mailbox) } else { Message::Sync(mailbox) };
        line::tell(folder, &question)
    }

    /// What is known of a publisher that says nothing, because of `why`.
    fn report_of_silence(&self, why: &str) -> Report {
        let last = self.elsewhere.last().clone();
        let txid = self.remembered_txid();
        let who = match last.pid {
            0 => "another process".to_owned(),
            pid => format!("process {pid}"),
        };
        let path = self.path.display();
        Report {
            time: last.time.filter(|_| last.txid() == txid),
            txid: txid.map(Txid::get),
            lag: millis(self.lag()),
            error: Some(format!(
                "{path} is published by {who}, which {why}. What is shown is the last that is known"
            )),
            ..last
        }
    }

    /// The report of this process, which publishes.
    fn own_report(&self) -> Report {
        let (waiting_files, waiting_bytes) = self.waiting_files();
        let hinted = self.requests.committed_since();
        let hinted = hinted.map_or(0, |since| self.clock.steady().as_millis() - since.as_millis());
        let lag = millis(self.lag()).max(hinted.max(0) as u64);
        let verified = self.proof.verified().proven;
        let progress = self.progress();
        Report {
            pid: std::process::id(),
            txid: progress.txid.map(Txid::get),
            time: progress.time.map(Timestamp::as_millis),
            lag,
            waiting_files,
            waiting_bytes,
            notice: progress.shown_notice().map(cut),
            verified: verified.map(|(txid, at)| (txid.get(), at.as_millis())),
            error: self.trouble(&progress).map(|error| cut(error.to_string())),
        }
    }

    /// Sends the report of this process to a mailbox.
    pub(super) fn answer_with_report(&self, mailbox: &str) {
        line::answer(&state::folder(&self.path), mailbox, &Answer::Report(self.own_report()));
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// `text` as far as it fits in a report.
fn cut(mut text: String) -> String {
    if text.len() > LONGEST_TEXT {
        text.truncate(text.floor_char_boundary(LONGEST_TEXT));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::{Clock as _, ManualClock};
    use crate::primary::commits::Commits;

    #[test]
    fn a_commit_waits_no_longer_than_the_publisher_says() {
        let at = |seconds: i64| Timestamp::from_millis(1000 * seconds);
        let clock = Arc::new(ManualClock::new(at(0)));
        let commits = Commits::new(Arc::<ManualClock>::clone(&clock));
        let asked = |commits: &Commits| (commits.last().seq, clock.steady());
        commits.note();
        clock.set(at(60));
        // What it knows is younger; what it does not know is as old as it was.
        commits.confirm(asked(&commits), Duration::from_secs(10));
        assert_eq!(commits.waiting_since(), Some(at(50)));
        commits.confirm(asked(&commits), Duration::from_secs(300));
        assert_eq!(commits.waiting_since(), Some(at(50)));
        // A commit after the question is not in the answer.
        let before = asked(&commits);
        clock.set(at(70));
        commits.note();
        commits.confirm(before, Duration::ZERO);
        assert_eq!(commits.waiting_since(), Some(at(60)));
        commits.confirm(asked(&commits), Duration::ZERO);
        assert_eq!(commits.waiting_since(), None);
        commits.confirm(asked(&commits), Duration::from_secs(10));
        assert_eq!(commits.waiting_since(), None);
    }

    #[test]
    fn a_report_with_long_texts_is_one_message() {
        let text = cut("\u{1}é\"".repeat(LONGEST_TEXT));
        assert!(text.ends_with('…'));
        let report = Report {
            pid: u32::MAX,
            txid: Some(u64::MAX),
            time: Some(i64::MIN),
            lag: u64::MAX,
            waiting_files: usize::MAX,
            waiting_bytes: u64::MAX,
            notice: Some(cut("é\n".repeat(LONGEST_TEXT))),
            verified: Some((u64::MAX, i64::MIN)),
            error: Some(cut("\"x".repeat(LONGEST_TEXT))),
        };
        let bytes = serde_json::to_vec(&Answer::Report(report)).unwrap();
        assert!(bytes.len() <= line::MESSAGE_SIZE, "{}", bytes.len());
    }
}
