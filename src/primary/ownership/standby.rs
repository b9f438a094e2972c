//! What a process does while another one publishes the database: it tells that one of its commits, saves
//! what the WAL is about to lose, and waits to take over.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::Ownership;
use super::asker::Mailbox as Asking;
use crate::error::{Error, ErrorKind, Result};
use crate::ltx::Txid;
use crate::primary::hooks::Signal;
use crate::primary::ownership::control_socket::{self, Answer, Mailbox, Message};
use crate::primary::ownership::role::PublisherLock;
use crate::primary::shipper::state::State;
use crate::primary::shipper::{Asker, Goal, Shipper, after};
use crate::runtime;

/// How often a standby looks whether the publisher is gone.
const LOOK_FOR_LOCK: Duration = Duration::from_secs(1);
/// The publisher hears of commits at most once in this time.
const TELL_EVERY: Duration = Duration::from_millis(20);
/// Who waits for the publisher asks again after this.
const ASK_AGAIN: Duration = Duration::from_millis(300);
/// Who asks for force asks again and again; who has not done so for this long is gone.
const FORCE_LASTS: Duration = Duration::from_secs(2);
/// How soon an interrupt is noticed.
const LOOK: Duration = Duration::from_millis(50);

/// Request of another process for force.
#[derive(Default)]
pub(super) struct Forced {
    /// When one of them last said that replication shall go on with force.
    at: Mutex<Option<Instant>>,
    asked: Notify,
}

impl Forced {
    fn renew(&self) {
        *self.at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        self.asked.notify_one();
    }

    /// Whether the one who said that replication shall go on with force seems to be gone.
    fn is_over(&self) -> bool {
        let at = self.at.lock().unwrap_or_else(PoisonError::into_inner);
        at.is_none_or(|asked| asked.elapsed() >= FORCE_LASTS)
    }
}

/// What the publisher is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::primary) enum Question {
    /// All that is committed is to be in the replicas.
    Sync,
    /// The same, for a commit that waits.
    Commit,
    /// The same, in its time: no upload is asked for.
    Wait,
    /// Replication that stopped shall go on, by force or not: to all replicas, or to the one of this shipper.
    Resume { force: bool, shipper: Option<usize> },
}

/// Rests until the publisher seems to be gone, or a caller in this process waits.
pub(super) async fn rest(owner: &Ownership) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK_FOR_LOCK) => {
                // Held for a moment only: it is taken again when this process takes over.
                if owner.db.is_open()
                    && (!matches!(PublisherLock::take(&owner.db.folder), Ok(None))
                        || !owner.db.others_have_it_open())
                {
                    return;
                }
            }
            hurried = owner.signal.next() => {
                if !owner.db.is_open() {
                    owner.db.until_open().await;
                    continue;
                }
                if hurried || !owner.db.others_have_it_open() || owner.tell_of_commits().is_err() {
                    return;
                }
                tokio::time::sleep(TELL_EVERY).await;
            }
        }
    }
}

/// Ends what another process said with force when that one does not ask for it any more.
pub(super) async fn watch_force(owner: &Ownership) {
    loop {
        owner.forced.asked.notified().await;
        while !owner.forced.is_over() {
            tokio::time::sleep(FORCE_LASTS / 4).await;
        }
        owner.shippers.iter().for_each(|shipper| shipper.withdraw_force());
    }
}

impl Ownership {
    /// Another process said something to this one, which publishes.
    pub(super) fn heard(self: &Arc<Self>, message: Message) {
        if self.gives_way() {
            return;
        }
        // Who only asks has committed nothing.
        if !matches!(message, Message::Status(_)) {
            self.shippers.iter().for_each(|shipper| shipper.requests.look());
        }
        match message {
            Message::Committed => {
                for shipper in &self.shippers {
                    shipper.requests.look_for_commit(self.db.clock.steady());
                    shipper.signal.commit();
                }
            }
            Message::Status(mailbox) => {
                let owner = Arc::clone(self);
                tokio::spawn(runtime::blocking(move || {
                    owner.answer_with_reports(&mailbox);
                    Ok(())
                }));
            }
            Message::Sync(mailbox) => self.waits(mailbox, Signal::hurry),
            Message::Wait(mailbox) => self.waits(mailbox, Signal::commit),
            Message::Resume(force, mailbox) => {
                self.shippers.iter().for_each(|shipper| self.resume(shipper, force));
                self.waits(mailbox, Signal::hurry);
            }
            Message::ResumeOne(force, mailbox, id) => {
                let named = self.shippers.iter().filter(|shipper| shipper.id.as_str() == id);
                named.for_each(|shipper| self.resume(shipper, force));
                self.waits(mailbox, Signal::hurry);
            }
            Message::Withdraw => self.shippers.iter().for_each(|shipper| shipper.withdraw_force()),
            Message::CommitsWait => self.db.wal_sync.comes_first(),
        }
    }

    fn resume(&self, shipper: &Shipper, force: bool) {
        if let Err(e) = shipper.go_on(force) {
            tracing::warn!(db = %self.db.path.display(), "{}: {e}", self.db.path.display());
        }
        if force {
            self.forced.renew();
        }
    }

    /// Who reads this mailbox waits for the replicas, whose shippers are woken.
    fn waits(&self, mailbox: String, wake: fn(&Signal)) {
        let asker: Arc<dyn Asker> =
            Arc::new(Asking::new(self.db.folder.clone(), mailbox, self.ids().cloned()));
        for shipper in &self.shippers {
            shipper.requests.wait(Arc::clone(&asker));
            wake(&shipper.signal);
        }
    }

    /// Tells the publisher at once that there are commits.
    ///
    /// # Errors
    /// Whatever says that nobody listens.
    pub(in crate::primary) fn tell_of_commits(&self) -> std::io::Result<()> {
        let seq = self.db.commits.last().seq.0;
        match control_socket::tell(&self.db.folder, &Message::Committed) {
            // It is behind with what it was told: the same is in there, or it finds the commits when it looks by itself.
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
            told => told?,
        }
        self.told.fetch_max(seq, Ordering::Relaxed);
        Ok(())
    }

    /// Whether the publisher was told of all commits of this process.
    pub(in crate::primary) fn has_told_all(&self) -> bool {
        self.told.load(Ordering::Relaxed) >= self.db.commits.last().seq.0
    }

    /// Tells the publisher that what this process said with force is not to be done any more.
    pub(in crate::primary) fn withdraw_elsewhere(&self) {
        let _ = control_socket::tell(&self.db.folder, &Message::Withdraw);
    }

    /// Asks the process that publishes, and waits for its answers until `goal` is reached. `None` if this process may
    /// publish now, and is to look itself.
    ///
    /// # Errors
    /// `Conflict` if replication stopped there; `NotFound` if the database is empty; `Timeout`;
    /// `Interrupted`; `Busy` if it cannot be asked.
    pub(in crate::primary) fn ask_publisher(
        &self,
        question: Question,
        goal: &Goal,
        timeout: Duration,
        interrupted: &dyn Fn() -> bool,
    ) -> Result<Option<Option<Txid>>> {
        let mailbox = Mailbox::open(&self.db.folder).map_err(|e| self.unreachable(&e))?;
        let asked = (self.db.commits.last().seq, self.db.clock.steady());
        let deadline = Instant::now() + timeout;
        let mut answers = Answers::new(self);
        let mut next_question = Instant::now();
        while self.is_standby() {
            if Instant::now() >= next_question {
                if matches!(question, Question::Commit) {
                    let _ = control_socket::tell(&self.db.folder, &Message::CommitsWait);
                }
                let is_heard =
                    control_socket::tell(&self.db.folder, &self.message(question, &mailbox.name)).is_ok();
                next_question = Instant::now() + if is_heard { ASK_AGAIN } else { LOOK };
                if !is_heard {
                    // Perhaps it is gone.
                    self.signal.hurry();
                }
            }
            if let Some(answer) = mailbox.wait(LOOK) {
                answers.take(answer)?;
            }
            if let Some(verdict) = goal.verdict(&answers.outcomes) {
                for shipper in self.shippers.iter().filter(|shipper| answers.is_done(shipper)) {
                    self.db.commits.confirm(shipper.number, asked, Duration::ZERO);
                }
                return verdict.map(Some);
            }
            if interrupted() {
                return Err(Error::new(ErrorKind::Interrupted, "the wait for the replica was interrupted"));
            }
            if Instant::now() >= deadline {
                return Err(answers.timed_out(goal, timeout));
            }
        }
        Ok(None)
    }

    fn message(&self, question: Question, mailbox: &str) -> Message {
        let mailbox = mailbox.to_owned();
        match question {
            Question::Sync | Question::Commit => Message::Sync(mailbox),
            Question::Wait => Message::Wait(mailbox),
            Question::Resume { force, shipper: Some(number) } if self.shippers.len() > 1 => {
                Message::ResumeOne(force, mailbox, self.shippers[number].id.as_str().to_owned())
            }
            Question::Resume { force, .. } => Message::Resume(force, mailbox),
        }
    }

    /// The shipper of the replica that a process of version 0.1.0 publishes to, as its own state says.
    ///
    /// # Errors
    /// `Conflict` if that is none of this process's.
    pub(super) fn of_older_version(&self) -> Result<&Arc<Shipper>> {
        let url = State::load(&self.db.folder)?.url;
        self.shippers.iter().find(|shipper| shipper.store.url() == url).ok_or_else(|| {
            let ours: Vec<String> = self.shippers.iter().map(|shipper| shipper.store.url()).collect();
            let message = format!(
                "{} is published by another process, and not to {}: end that process, or open the database with the \
                 replica URL that it has",
                self.db.path.display(),
                ours.join(" and "),
            );
            Error::new(ErrorKind::Conflict, message)
        })
    }

    fn unreachable(&self, e: &std::io::Error) -> Error {
        let message =
            format!("{} is published by another process, which cannot be asked: {e}", self.db.path.display());
        Error::new(ErrorKind::Busy, message)
    }
}

/// Answers of the process that publishes.
struct Answers<'a> {
    owner: &'a Ownership,
    /// By shipper.
    outcomes: Vec<Option<Result<Txid>>>,
    /// By shipper, why it is not done yet.
    causes: Vec<String>,
    /// It answers for each replica: it is not of version 0.1.0.
    is_ours: bool,
}

impl<'a> Answers<'a> {
    fn new(owner: &'a Ownership) -> Self {
        let count = owner.shippers.len();
        let cause = "the process that publishes it has not answered".to_owned();
        Self { owner, outcomes: vec![None; count], causes: vec![cause; count], is_ours: false }
    }

    fn is_done(&self, shipper: &Shipper) -> bool {
        matches!(self.outcomes[shipper.number], Some(Ok(_)))
    }

    fn take(&mut self, answer: Answer) -> Result<()> {
        let (number, answer) = match answer {
            Answer::Report(..) => return Ok(()),
            Answer::Of(id, answer) => {
                self.is_ours = true;
                let Some(number) = self.owner.ids().position(|ours| ours.as_str() == id) else {
                    return Ok(());
                };
                (number, *answer)
            }
            _ if self.is_ours => return Ok(()),
            answer => (self.owner.of_older_version()?.number, answer),
        };
        match answer {
            Answer::Done(txid) => self.outcomes[number] = Txid::new(txid).map(Ok),
            Answer::Stopped(why) => self.outcomes[number] = Some(Err(Error::new(ErrorKind::Conflict, why))),
            Answer::Empty(why) => self.outcomes[number] = Some(Err(Error::new(ErrorKind::NotFound, why))),
            Answer::Failing(why) => self.causes[number] = why,
            Answer::Of(..) | Answer::Report(..) => {}
        }
        Ok(())
    }

    fn timed_out(&self, goal: &Goal, timeout: Duration) -> Error {
        let lacking = goal.replicas().filter(|number| self.outcomes[*number].is_none());
        let each = lacking.map(|number| {
            let url = self.owner.shippers[number].store.url();
            format!("not everything is in {url}{}: {}", after(timeout), self.causes[number])
        });
        Error::new(ErrorKind::Timeout, each.collect::<Vec<_>>().join("; "))
    }
}
