//! How replication stands, as the process that publishes a database tells it to the others that have it open.
//!
//! It is asked for only when a user asks for the status, so that it costs nothing otherwise: the publisher answers at
//! once, also while its store does not.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::ltx::Txid;
use crate::primary::ownership::Ownership;
use crate::primary::ownership::control_socket::{self, Answer, Mailbox, Message};
use crate::primary::shipper::Shipper;
use crate::primary::shipper::state::State;

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
pub(in crate::primary) struct Report {
    /// The process.
    pub(in crate::primary) pid: u32,
    /// The last transaction in the replica.
    pub(in crate::primary) txid: Option<u64>,
    /// When that was committed, in milliseconds since the Unix epoch.
    pub(in crate::primary) time: Option<i64>,
    /// How long the oldest commit waits that is not in the replica, of whatever process, in milliseconds.
    pub(in crate::primary) lag: u64,
    /// Local files that wait for the replica.
    pub(in crate::primary) waiting_files: usize,
    /// Their size in bytes.
    pub(in crate::primary) waiting_bytes: u64,
    /// What was found and repaired last.
    pub(in crate::primary) notice: Option<String>,
    /// The last transaction that is proven restorable, and when that was proven.
    pub(in crate::primary) verified: Option<(u64, i64)>,
    /// What is wrong now.
    pub(in crate::primary) error: Option<String>,
    /// What its shipper does, as [`Phase::name`] says it; empty of a version that does not tell.
    ///
    /// [`Phase::name`]: crate::primary::Phase::name
    pub(in crate::primary) phase: String,
    /// Since when each attempt fails, in milliseconds since the Unix epoch.
    pub(in crate::primary) failing_since: Option<i64>,
    /// The files do not lead to what was published.
    pub(in crate::primary) has_hole: bool,
    /// The last verification found that it cannot be restored.
    pub(in crate::primary) fails_verification: bool,
}

impl Report {
    /// The last transaction in the replica.
    pub(in crate::primary) fn txid(&self) -> Option<Txid> {
        self.txid.and_then(Txid::new)
    }

    /// When that was committed.
    pub(in crate::primary) fn time(&self) -> Option<Timestamp> {
        self.time.map(Timestamp::from_millis)
    }

    /// The last transaction that is proven restorable, and when that was proven.
    pub(in crate::primary) fn verified(&self) -> Option<(Txid, Timestamp)> {
        let (txid, at) = self.verified?;
        Some((Txid::new(txid)?, Timestamp::from_millis(at)))
    }

    /// How long the oldest commit waits.
    pub(in crate::primary) const fn lag(&self) -> Duration {
        Duration::from_millis(self.lag)
    }
}

/// The last reports that came from the process that publishes, by shipper.
#[derive(Debug)]
pub(super) struct Elsewhere(Mutex<Vec<Report>>);

impl Elsewhere {
    /// No report came yet; `shippers` is their count.
    pub(super) fn new(shippers: usize) -> Self {
        Self(Mutex::new(vec![Report::default(); shippers]))
    }

    fn last(&self) -> MutexGuard<'_, Vec<Report>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a question came to.
enum Outcome {
    /// Reports by shipper, as far as they came.
    Told(Vec<Option<Report>>),
    /// A process publishes, and does not answer.
    Silent,
    /// No process can be reached that publishes.
    Gone,
    /// This process publishes.
    Ours,
}

const SILENT: &str = "does not answer: it is stopped, or hangs. When it ends, another process takes over";
const GONE: &str = "cannot be reached: if it is gone, another takes over within two seconds";
const OLDER: &str =
    "is of version 0.1.0 and publishes to one replica only: end it, so that another process takes over";

impl Ownership {
    /// The reports of the process that publishes, by shipper; `None` if this one does. Waits half a second at most: of a
    /// publisher that is stopped or gone it is the last report that came here.
    pub(in crate::primary) fn reports(&self) -> Option<Vec<Report>> {
        let asked = (self.db.commits.last().seq, self.db.clock.steady());
        let (told, why) = match self.ask_for_reports() {
            Outcome::Ours => return None,
            Outcome::Told(told) => (told, if self.is_of_older_version() { OLDER } else { SILENT }),
            Outcome::Silent => (vec![None; self.shippers.len()], SILENT),
            Outcome::Gone => (vec![None; self.shippers.len()], GONE),
        };
        let mut reports = Vec::new();
        for (shipper, told) in self.shippers.iter().zip(told) {
            reports.push(match told {
                Some(report) => {
                    self.db.commits.confirm(shipper.number, asked, report.lag());
                    self.elsewhere.last()[shipper.number] = report.clone();
                    report
                }
                None => self.report_of_silence(shipper, why),
            });
        }
        Some(reports)
    }

    /// Whether the state of version 0.1.0 is there, which its publisher alone writes while another version has it open.
    fn is_of_older_version(&self) -> bool {
        State::load(&self.db.folder).is_ok_and(|state| !state.url.is_empty())
    }

    fn ask_for_reports(&self) -> Outcome {
        let Ok(mailbox) = Mailbox::open(&self.db.folder) else { return Outcome::Gone };
        let mut told: Vec<Option<Report>> = vec![None; self.shippers.len()];
        let began = Instant::now();
        let mut next_question = began;
        let mut is_heard = false;
        while self.is_standby() {
            let now = Instant::now();
            if now >= began + PATIENCE {
                let is_any = told.iter().any(Option::is_some);
                return match is_heard {
                    _ if is_any => Outcome::Told(told),
                    true => Outcome::Silent,
                    false => Outcome::Gone,
                };
            }
            if now >= next_question {
                next_question = now + ASK_AGAIN;
                is_heard = self.put_question(&mailbox, now - began).is_ok();
                if !is_heard {
                    // This process takes over, unless another does.
                    self.signal.hurry();
                }
            }
            if let Some(answer) = mailbox.wait(LOOK) {
                let is_older = !matches!(answer, Answer::Report(..) | Answer::Of(..));
                self.take_report(answer, &mut told);
                if is_older || told.iter().all(Option::is_some) {
                    return Outcome::Told(told);
                }
            }
        }
        Outcome::Ours
    }

    /// Takes the report that `answer` is, or comes to.
    fn take_report(&self, answer: Answer, told: &mut [Option<Report>]) {
        let (shipper, report) = match answer {
            Answer::Report(id, report) => {
                (self.shippers.iter().find(|shipper| shipper.id.as_str() == id), report)
            }
            Answer::Of(..) => return,
            // The only one, of a version that says only that.
            answer => {
                let shipper = self.of_older_version().ok();
                let txid = shipper.and_then(|shipper| remembered_txid(shipper)).map(Txid::get);
                let lag = shipper.map_or(0, |shipper| millis(shipper.lag()));
                let report = match answer {
                    Answer::Done(txid) => Report { txid: Some(txid), ..Report::default() },
                    Answer::Stopped(error) | Answer::Failing(error) => {
                        Report { txid, lag, error: Some(error), ..Report::default() }
                    }
                    _ => Report::default(),
                };
                (shipper, report)
            }
        };
        if let Some(shipper) = shipper {
            told[shipper.number] = Some(report);
        }
    }

    /// Asks how replication stands. A publisher that has not answered `since` the first question may be of version
    /// 0.1.0, which answers only whether all is in the replica.
    fn put_question(&self, mailbox: &Mailbox, since: Duration) -> io::Result<()> {
        // What was committed here is heard of before the question.
        if !self.has_told_all() {
            self.tell_of_commits()?;
        }
        let mailbox = mailbox.name.clone();
        let question = if since < OLDER_VERSION { Message::Status(mailbox) } else { Message::Sync(mailbox) };
        control_socket::tell(&self.db.folder, &question)
    }

    /// The last report about the replica of `shipper`, of a publisher that is silent because of `why`.
    fn report_of_silence(&self, shipper: &Shipper, why: &str) -> Report {
        let last = self.elsewhere.last()[shipper.number].clone();
        let txid = remembered_txid(shipper);
        let who = match last.pid {
            0 => "another process".to_owned(),
            pid => format!("process {pid}"),
        };
        let path = self.db.path.display();
        Report {
            time: last.time.filter(|_| last.txid() == txid),
            txid: txid.map(Txid::get),
            lag: millis(shipper.lag()),
            error: Some(format!(
                "{path} is published by {who}, which {why}. What is shown is the last that is known"
            )),
            ..last
        }
    }

    /// Sends the reports of this process, which publishes, to a mailbox.
    pub(super) fn answer_with_reports(&self, mailbox: &str) {
        for shipper in &self.shippers {
            let report = Answer::Report(shipper.id.as_str().to_owned(), own_report(shipper));
            control_socket::answer(&self.db.folder, mailbox, &report);
        }
    }
}

/// The last transaction in the replica of `shipper`, as the process that publishes remembers it.
fn remembered_txid(shipper: &Shipper) -> Option<Txid> {
    let older = State::load(&shipper.db.folder).ok()?.txid(&shipper.store.url());
    older.or_else(|| State::load(&shipper.folder).ok()?.txid(&shipper.store.url()))
}

/// The report of a shipper of this process, which publishes.
fn own_report(shipper: &Shipper) -> Report {
    let (waiting_files, waiting_bytes) = shipper.waiting_files();
    let hinted = shipper.requests.committed_since();
    let hinted = hinted.map_or(0, |since| shipper.db.clock.steady().as_millis() - since.as_millis());
    let lag = millis(shipper.lag()).max(hinted.max(0) as u64);
    let verified = shipper.proof.verified().proven;
    let standing = shipper.standing();
    let progress = shipper.progress();
    Report {
        pid: std::process::id(),
        txid: progress.txid.map(Txid::get),
        time: progress.time.map(Timestamp::as_millis),
        lag,
        waiting_files,
        waiting_bytes,
        notice: progress.shown_notice().map(cut),
        verified: verified.map(|(txid, at)| (txid.get(), at.as_millis())),
        error: shipper.trouble(&progress).map(|error| cut(error.to_string())),
        phase: standing.state,
        failing_since: standing.failing_since,
        has_hole: standing.has_hole,
        fails_verification: standing.verification_error.is_some(),
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
    use crate::primary::hooks::Commits;

    #[test]
    fn a_commit_waits_no_longer_than_the_publisher_says() {
        let at = |seconds: i64| Timestamp::from_millis(1000 * seconds);
        let clock = Arc::new(ManualClock::new(at(0)));
        let commits = Commits::new(Arc::<ManualClock>::clone(&clock), 1);
        let asked = |commits: &Commits| (commits.last().seq, clock.steady());
        commits.note();
        clock.set(at(60));
        // What it knows is younger; what it does not know is as old as it was.
        commits.confirm(0, asked(&commits), Duration::from_secs(10));
        assert_eq!(commits.waiting_since(0), Some(at(50)));
        commits.confirm(0, asked(&commits), Duration::from_secs(300));
        assert_eq!(commits.waiting_since(0), Some(at(50)));
        // A commit after the question is not in the answer.
        let before = asked(&commits);
        clock.set(at(70));
        commits.note();
        commits.confirm(0, before, Duration::ZERO);
        assert_eq!(commits.waiting_since(0), Some(at(60)));
        commits.confirm(0, asked(&commits), Duration::ZERO);
        assert_eq!(commits.waiting_since(0), None);
        commits.confirm(0, asked(&commits), Duration::from_secs(10));
        assert_eq!(commits.waiting_since(0), None);
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
            phase: "verifying".to_owned(),
            failing_since: Some(i64::MIN),
            has_hole: true,
            fails_verification: true,
        };
        let bytes = serde_json::to_vec(&Answer::Report("0123456789abcdef".to_owned(), report)).unwrap();
        assert!(bytes.len() <= control_socket::MESSAGE_SIZE, "{}", bytes.len());
    }
}
