//! What a process does while another one publishes the database: it tells that one of its commits, saves
//! what the WAL is about to lose, and waits to take over.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::ltx::Txid;
use crate::primary::line::{self, Answer, Mailbox, Message};
use crate::primary::role::PublisherLock;
use crate::primary::shared::{Phase, Shared};
use crate::primary::state::{self, State};
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

/// Why the publisher is to look at the database for commits of other processes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Look {
    /// Since when one of them has a commit, by the steady clock, if it said so.
    pub(super) committed_since: Option<Timestamp>,
}

/// What other processes ask of the publisher.
#[derive(Default)]
pub(super) struct Requests {
    /// The database is to be looked at.
    look: Mutex<Option<Look>>,
    /// The mailboxes of those who wait for the replica.
    waiting: Mutex<Vec<String>>,
    /// When one of them last said that replication shall go on with force.
    forced: Mutex<Option<Instant>>,
    force_asked: Notify,
}

impl Requests {
    fn wanted(&self) -> MutexGuard<'_, Option<Look>> {
        self.look.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The database is to be looked at for commits of other processes.
    pub(super) fn look(&self) {
        self.wanted().get_or_insert_default();
    }

    /// As [`Requests::look`], because another process committed something at `now`, by the steady clock.
    fn look_for_commit(&self, now: Timestamp) {
        self.wanted().get_or_insert_default().committed_since.get_or_insert(now);
    }

    /// Whether it is, once.
    pub(super) fn take_look(&self) -> Option<Look> {
        self.wanted().take()
    }

    /// What was taken is still to be done.
    pub(super) fn look_again(&self, Look { committed_since }: Look) {
        let mut wanted = self.wanted();
        let look = wanted.get_or_insert_default();
        look.committed_since = committed_since.or(look.committed_since);
    }

    /// Since when another process has a commit, by the steady clock, for which the database was not looked at.
    pub(super) fn committed_since(&self) -> Option<Timestamp> {
        self.wanted().as_ref()?.committed_since
    }

    fn renew_force(&self) {
        *self.forced.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        self.force_asked.notify_one();
    }

    /// Whether the one who said that replication shall go on with force seems to be gone.
    fn is_force_over(&self) -> bool {
        let forced = self.forced.lock().unwrap_or_else(PoisonError::into_inner);
        forced.is_none_or(|asked| asked.elapsed() >= FORCE_LASTS)
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<String>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether one of them waits for the replica.
    pub(super) fn is_awaited(&self) -> bool {
        !self.waiting().is_empty()
    }

    /// Those who wait for the replica now.
    pub(super) fn take_waiting(&self) -> Vec<String> {
        std::mem::take(&mut self.waiting())
    }

    /// Those who were taken wait on.
    pub(super) fn wait_again(&self, mailboxes: Vec<String>) {
        mailboxes.into_iter().for_each(|mailbox| self.wait(mailbox));
    }

    fn wait(&self, mailbox: String) {
        let mut waiting = self.waiting();
        if !waiting.contains(&mailbox) {
            waiting.push(mailbox);
        }
    }
}

/// Rests until the publisher seems to be gone, or somebody of this process waits.
pub(super) async fn rest(shared: &Shared) {
    let folder = state::folder(&shared.path);
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK_FOR_LOCK) => {
                // Held for a moment only: the round that follows takes it again.
                if !matches!(PublisherLock::take(&folder), Ok(None)) {
                    return;
                }
            }
            hurried = shared.signal.next() => {
                if hurried || shared.tell_of_commits().is_err() {
                    return;
                }
                tokio::time::sleep(TELL_EVERY).await;
            }
        }
    }
}

/// Ends what another process said with force when that one does not ask for it any more.
pub(super) async fn watch_force(shared: &Shared) {
    loop {
        shared.requests.force_asked.notified().await;
        while !shared.requests.is_force_over() {
            tokio::time::sleep(FORCE_LASTS / 4).await;
        }
        shared.withdraw_force();
    }
}

/// Answers who asks, until somebody decides that replication shall go on.
pub(super) async fn until_told(shared: &Shared) {
    while let Some(error) = shared.stopped() {
        shared.answer(shared.requests.take_waiting(), Err(&error));
        shared.signal.hurried(|| true).await;
    }
}

impl Shared {
    /// Another process said something to this one, which publishes.
    pub(super) fn heard(self: &Arc<Self>, message: Message) {
        // Who only asks has committed nothing.
        if !matches!(message, Message::Status(_)) {
            self.requests.look();
        }
        match message {
            Message::Committed => {
                self.requests.look_for_commit(self.clock.steady());
                self.signal.commit();
            }
            Message::Status(mailbox) => {
                let shared = Arc::clone(self);
                tokio::spawn(runtime::blocking(move || {
                    shared.answer_with_report(&mailbox);
                    Ok(())
                }));
            }
            Message::Sync(mailbox) => {
                self.requests.wait(mailbox);
                self.signal.hurry();
            }
            Message::Resume(force, mailbox) => {
                self.requests.wait(mailbox);
                if let Err(e) = self.go_on(force) {
                    tracing::warn!("{}: {e}", self.path.display());
                }
                if force {
                    self.requests.renew_force();
                }
                self.signal.hurry();
            }
            Message::Withdraw => self.withdraw_force(),
        }
    }

    /// Answers the other processes that waited for a round, which came to `outcome`.
    pub(super) fn answer(&self, waiting: Vec<String>, outcome: Result<(), &Error>) {
        let answer = match outcome {
            Err(e) if e.kind() == ErrorKind::Conflict => Answer::Stopped(e.to_string()),
            Err(e) => Answer::Failing(e.to_string()),
            Ok(()) => {
                let progress = self.progress();
                match (progress.phase, progress.txid) {
                    (Phase::Standby, _) => return,
                    (Phase::Empty, _) | (_, None) => Answer::Empty(self.empty().to_string()),
                    (_, Some(txid)) => Answer::Done(txid.get()),
                }
            }
        };
        let folder = state::folder(&self.path);
        for mailbox in waiting {
            let is_heard = line::answer(&folder, &mailbox, &answer);
            if is_heard && matches!(answer, Answer::Failing(_)) {
                self.requests.wait(mailbox);
            }
        }
    }

    /// Asks the process that publishes, and waits for its answer. `None` if this process may publish
    /// now, and is to look itself.
    ///
    /// # Errors
    /// `Conflict` if replication stopped there; `NotFound` if the database is empty; `Timeout`;
    /// `Interrupted`; `Busy` if it cannot be asked.
    pub(super) fn ask_publisher(
        &self,
        message: impl Fn(String) -> Message,
        timeout: Duration,
        interrupted: &dyn Fn() -> bool,
    ) -> Result<Option<Txid>> {
        let folder = state::folder(&self.path);
        let mailbox = Mailbox::open(&folder).map_err(|e| self.unreachable(&e))?;
        let asked = (self.commits.last().seq, self.clock.steady());
        let deadline = Instant::now() + timeout;
        let mut cause = "the process that publishes it has not answered".to_owned();
        let mut next_question = Instant::now();
        while self.progress().phase == Phase::Standby {
            if Instant::now() >= next_question {
                next_question = Instant::now() + ASK_AGAIN;
                if line::tell(&folder, &message(mailbox.name.clone())).is_err() {
                    // Perhaps it is gone.
                    self.signal.hurry();
                }
            }
            match mailbox.wait(LOOK) {
                Some(Answer::Done(txid)) => {
                    let txid = self.published_here(txid)?;
                    self.commits.confirm(asked, Duration::ZERO);
                    return Ok(Some(txid));
                }
                Some(Answer::Stopped(message)) => return Err(Error::new(ErrorKind::Conflict, message)),
                Some(Answer::Empty(message)) => return Err(Error::new(ErrorKind::NotFound, message)),
                Some(Answer::Failing(message)) => cause = message,
                Some(Answer::Report(_)) | None => {}
            }
            if interrupted() {
                return Err(Error::new(ErrorKind::Interrupted, "the wait for the replica was interrupted"));
            }
            if Instant::now() >= deadline {
                let url = self.store.url();
                let message = format!("not everything is in {url} after {timeout:?}: {cause}");
                return Err(Error::new(ErrorKind::Timeout, message));
            }
        }
        Ok(None)
    }

    /// The transaction `txid`, with which the process that publishes says that its replica ends.
    ///
    /// # Errors
    /// `Conflict` if that is another replica than this process's.
    fn published_here(&self, txid: u64) -> Result<Txid> {
        // The two agreed on it when they opened the database, unless the other is of version 0.1.0.
        let known = self.remembered_txid();
        Txid::new(txid).filter(|_| known.is_some()).ok_or_else(|| {
            let message = format!(
                "{} is published by another process, and not to {}: end that process, or open the database with the \
                 replica URL that it has",
                self.path.display(),
                self.store.url()
            );
            Error::new(ErrorKind::Conflict, message)
        })
    }

    fn unreachable(&self, e: &std::io::Error) -> Error {
        let message =
            format!("{} is published by another process, which cannot be asked: {e}", self.path.display());
        Error::new(ErrorKind::Busy, message)
    }

    /// The last transaction in the replica, as the process that publishes remembers it.
    pub(super) fn remembered_txid(&self) -> Option<Txid> {
        State::load(&state::folder(&self.path)).ok()?.txid(&self.store.url())
    }
}
