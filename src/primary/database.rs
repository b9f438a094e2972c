//! A primary: one per database and process, shared by all its connections.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::clock::{Clock, Timestamp};
use crate::error::{Error, ErrorKind, Result};
use crate::fork::PerProcess;
use crate::ltx::Txid;
use crate::primary::history::{self, Agreement};
use crate::primary::holes::{Asked, Look};
use crate::primary::host::Host;
use crate::primary::line::Message;
use crate::primary::options::Options;
use crate::primary::proof;
use crate::primary::publisher;
use crate::primary::report::Report;
use crate::primary::shared::{Phase, Shared};
use crate::primary::state;
use crate::primary::turn::Turn;
use crate::store::{Fencing, ReplicaIdentity, Store, Target};

/// The primaries of this process by path. A forked child begins with none.
static OPEN: PerProcess<Mutex<HashMap<PathBuf, Entry>>> = PerProcess::new();

/// How long an open waits at most for a store that does not answer.
const LOOK_PATIENCE: Duration = Duration::from_secs(3);

struct Entry {
    primary: Arc<Primary>,
    connections: usize,
}

/// One replicated database. The shim tells it what SQLite does; a background task publishes.
pub struct Primary {
    pub(super) shared: Arc<Shared>,
    target: Target,
    task: JoinHandle<()>,
    history: JoinHandle<()>,
    proof: Option<JoinHandle<()>>,
}

/// Position of the replica, and by how much it is behind.
struct Standing {
    txid: Option<Txid>,
    time: Option<Timestamp>,
    lag: Duration,
}

/// How replication of one database stands.
#[derive(Clone, Debug)]
pub struct Status {
    /// The database file.
    pub path: PathBuf,
    /// The replica.
    pub url: String,
    /// What the publisher is doing.
    pub phase: Phase,
    /// The last transaction in the replica.
    pub txid: Option<Txid>,
    /// When that was committed.
    pub time: Option<Timestamp>,
    /// How long the oldest commit waits that is not in the replica.
    pub lag: Duration,
    /// Local files that wait for the replica.
    pub waiting_files: usize,
    /// Their size in bytes.
    pub waiting_bytes: u64,
    /// How well the store keeps two writers apart.
    pub fencing: Fencing,
    /// What was found and repaired last.
    pub notice: Option<String>,
    /// The last transaction that is proven restorable, and when that was proven.
    pub verified: Option<(Txid, Timestamp)>,
    /// What is wrong now; also if it is another process that publishes.
    pub error: Option<Error>,
}

fn open_primaries() -> MutexGuard<'static, HashMap<PathBuf, Entry>> {
    OPEN.get().lock().unwrap_or_else(PoisonError::into_inner)
}

impl Primary {
    /// A connection opens the database `path`. Each call is ended by one call of [`Primary::close`].
    ///
    /// `connect` and `host` are asked only by the first connection of the process.
    ///
    /// # Errors
    /// `Config` if the database is replicated to another URL already, or with another history, by this
    /// process or another; those of the folder of local state, and of `connect`.
    pub fn open(
        path: &Path,
        target: &Target,
        options: Options,
        clock: Arc<dyn Clock>,
        connect: impl FnOnce() -> Result<Arc<dyn Store>>,
        host: impl FnOnce() -> Arc<dyn Host>,
    ) -> Result<Arc<Self>> {
        // Which process publishes, and what becomes of the database, is decided by one after the other.
        let _turn = if Self::find(path).is_none() { Some(Turn::wait(path)?) } else { None };
        let primary = Self::join(path, target, options, clock, connect, host)?;
        // It is the same path: whether it is the same file is for replication to say.
        let _ = primary.shared.stop_without_file();
        // Before the program reads: the database may be an earlier state of its replica.
        primary.shared.wait_for_decision(LOOK_PATIENCE, || primary.task.is_finished());
        Ok(primary)
    }

    fn join(
        path: &Path,
        target: &Target,
        options: Options,
        clock: Arc<dyn Clock>,
        connect: impl FnOnce() -> Result<Arc<dyn Store>>,
        host: impl FnOnce() -> Arc<dyn Host>,
    ) -> Result<Arc<Self>> {
        let mut open = open_primaries();
        if let Some(entry) = open.get_mut(path) {
            if entry.primary.target != *target {
                let theirs = ReplicaIdentity::from(&entry.primary.target);
                history::check_replica(path, &ReplicaIdentity::from(target), &theirs)?;
                return Err(Error::config(format!(
                    "{} is replicated to {} already, with other credentials or other settings of its objects: open it \
                     with the same replica settings everywhere",
                    path.display(),
                    entry.primary.shared.store.url()
                )));
            }
            history::check(path, &options.history.named, &entry.primary.shared.agreement.settings)?;
            entry.connections += 1;
            return Ok(Arc::clone(&entry.primary));
        }
        // Before anything is made of the primary.
        crate::runtime::handle()?;
        let store = connect()?;
        let replica = ReplicaIdentity::from(target);
        let agreement = Agreement::enter(path, &store.url(), &replica, &options.history)?;
        let shared = Shared::new(path, options, agreement, store, host(), clock);
        if let Some(notice) = &shared.agreement.notice {
            shared.notice(notice.clone());
        }
        let primary = Arc::new(Self::begin(Arc::new(shared), target)?);
        let version = env!("CARGO_PKG_VERSION");
        tracing::info!("{}: a primary of {replica}, by litestream_vfs {version}", path.display());
        open.insert(path.to_path_buf(), Entry { primary: Arc::clone(&primary), connections: 1 });
        Ok(primary)
    }

    fn begin(shared: Arc<Shared>, target: &Target) -> Result<Self> {
        shared.become_publisher()?;
        let runtime = crate::runtime::handle()?;
        let task = runtime.spawn(publisher::run(Arc::clone(&shared)));
        let history = runtime.spawn(history::run(Arc::clone(&shared)));
        let verifies = !shared.options.verify_interval.is_zero();
        let proof = verifies.then(|| runtime.spawn(proof::run(Arc::clone(&shared))));
        Ok(Self { shared, target: target.clone(), task, history, proof })
    }

    /// The primary of another process, as far as this one can be another. It ends with a kill.
    #[cfg(test)]
    pub(crate) fn beside(&self) -> Result<Arc<Self>> {
        let Shared { path, options, agreement, store, host, clock, .. } = &*self.shared;
        let agreement = agreement.beside();
        let (store, host, clock) = (Arc::clone(store), Arc::clone(host), Arc::clone(clock));
        let shared = Shared::new(path, options.clone(), agreement, store, host, clock);
        Self::begin(Arc::new(shared), &self.target).map(Arc::new)
    }

    /// The primary that connections of this process have open for the database `path`.
    pub fn find(path: &Path) -> Option<Arc<Self>> {
        open_primaries().get(path).map(|entry| Arc::clone(&entry.primary))
    }

    /// The primaries that connections of this process have open, by path.
    pub fn all() -> Vec<Arc<Self>> {
        let mut all: Vec<Arc<Self>> =
            open_primaries().values().map(|entry| Arc::clone(&entry.primary)).collect();
        all.sort_by(|a, b| a.shared.path.cmp(&b.shared.path));
        all
    }

    /// A connection closed. The last one waits for the replica until `close_timeout` has passed since its close
    /// `began`; what is not there then stays on local disk and goes out at the next open.
    pub fn close(&self, began: Instant) {
        let path = &self.shared.path;
        {
            let mut open = open_primaries();
            let Some(entry) = open.get_mut(path) else { return };
            entry.connections -= 1;
            if entry.connections > 0 {
                return;
            }
        }
        let deadline = began + self.shared.options.close_timeout;
        let left = || deadline.saturating_duration_since(Instant::now());
        let synced = self.shared.wait_at_close(left());
        if synced.is_ok() {
            // A process that lives for a second must get its history done some time.
            self.shared.history.settle(left());
        }
        let mut open = open_primaries();
        // Another thread may have opened it while we waited.
        if open.get(path).is_some_and(|entry| entry.connections == 0) {
            open.remove(path);
            self.end(synced.err());
        }
    }

    /// Ends as kill -9 would: what is only in memory is gone.
    #[cfg(test)]
    pub(crate) fn kill(&self) {
        let path = &self.shared.path;
        let mut open = open_primaries();
        if open.get(path).is_some_and(|entry| Arc::ptr_eq(&entry.primary.shared, &self.shared)) {
            open.remove(path);
        }
        drop(open);
        self.task.abort();
        self.history.abort();
        self.stop_proof();
        self.shared.abandon();
        self.shared.agreement.leave();
    }

    /// Whether the publisher does nothing until its time has come or somebody waits.
    #[cfg(test)]
    pub(crate) fn is_at_rest(&self) -> bool {
        self.shared.signal.is_at_rest()
    }

    /// Captures into the spool what was committed, as the publisher does now and then while the replica cannot be reached.
    #[cfg(test)]
    pub(crate) fn capture(&self) {
        self.shared.capture_into_spool().expect("the database can be read");
    }

    /// Does `work` while nothing is captured.
    #[cfg(test)]
    pub(crate) fn without_capture<T>(&self, work: impl FnOnce() -> T) -> T {
        self.shared.with_capture(|_| work()).expect("this process publishes")
    }

    fn stop_proof(&self) {
        self.shared.proof.stop();
        if let Some(task) = &self.proof {
            task.abort();
        }
    }

    fn end(&self, unsynced: Option<Error>) {
        self.task.abort();
        self.history.abort();
        self.stop_proof();
        let folder = state::folder(&self.shared.path);
        self.shared.history.remember(&folder, &self.shared.store.url());
        let settled = self.shared.finish();
        self.shared.agreement.leave();
        if let Err(e) = settled {
            tracing::warn!("{}: {e}", self.shared.path.display());
        }
        if let Some(e) = unsynced {
            self.tell_unsent(&e);
        }
    }

    /// Tells what the last close leaves unsent, because of `error`.
    fn tell_unsent(&self, error: &Error) {
        let path = self.shared.path.display();
        let waits = !self.shared.lag().is_zero();
        match error.kind() {
            // Who gives it no time does not expect it, unless nothing could have been sent.
            ErrorKind::Timeout
                if self.shared.options.close_timeout.is_zero() && !self.shared.has_failed() =>
            {
                tracing::info!(
                    "{path}: {error}; the rest stays on local disk and is sent after the next open"
                );
            }
            ErrorKind::Timeout => {
                tracing::warn!(
                    "{path}: {error}; the rest stays on local disk and is sent after the next open"
                );
            }
            ErrorKind::Conflict if waits => {
                let url = self.shared.store.url();
                tracing::warn!("{path}: closed with commits that are not in {url}: replication is stopped");
            }
            _ => {}
        }
    }

    /// The database is about to leave WAL mode, in which alone commits can be captured.
    pub fn left_wal_mode(&self) {
        let _ = self.shared.with_capture(|capture| capture.lost("the database left WAL mode"));
    }

    /// The database was just put into WAL mode: there is something to copy.
    pub fn entered_wal_mode(&self) {
        self.shared.commits.note();
        self.shared.signal.commit();
    }

    /// Waits until every commit made before the call is in the replica; returns the last transaction
    /// there. `interrupted` is asked now and then whether to give up.
    ///
    /// # Errors
    /// `Timeout`, naming what is wrong as far as it is known; `Conflict`; `Busy` if another process
    /// publishes that cannot be asked; `NotFound` while the database is empty; `Interrupted`.
    pub fn sync(&self, timeout: Duration, interrupted: &dyn Fn() -> bool) -> Result<Txid> {
        self.shared.stop_without_file()?;
        // Commits of other processes count too, and nothing has shown them to this one yet.
        self.shared.commits.ask();
        self.wait(Message::Sync, timeout, interrupted)
    }

    /// Waits here if this process publishes, and else says `message` to the one that does.
    fn wait(
        &self,
        message: impl Fn(String) -> Message,
        timeout: Duration,
        interrupted: &dyn Fn() -> bool,
    ) -> Result<Txid> {
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.shared.wait(left, interrupted) {
                Err(e) if e.kind() == ErrorKind::Busy => {}
                other => return other,
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if let Some(txid) = self.shared.ask_publisher(&message, left, interrupted)? {
                return Ok(txid);
            }
        }
    }

    /// Replication that stopped because of what it found in the replica looks again, and goes on with a
    /// full copy if that is gone. With `force` it goes on after whatever the replica holds now. Waits
    /// as [`Primary::sync`] does.
    ///
    /// # Errors
    /// As [`Primary::sync`].
    pub fn resume(&self, force: bool, timeout: Duration, interrupted: &dyn Fn() -> bool) -> Result<Txid> {
        self.shared.stop_without_file()?;
        match self.shared.go_on(force) {
            Err(e) if e.kind() != ErrorKind::Busy => return Err(e),
            _ => {}
        }
        let resumed = self.wait(|mailbox| Message::Resume(force, mailbox), timeout, interrupted);
        if force && resumed.is_err() {
            // What was answered with an error is not carried out later.
            self.shared.withdraw_force();
        }
        resumed
    }

    /// Makes a snapshot of every commit made before the call, unless there is one that is sound; returns its
    /// transaction. Where the files of the replica do not lead there, it is made of the database. `timeout` is for
    /// the commits to get to the replica.
    ///
    /// # Errors
    /// Those of [`Primary::sync`]; those of the store; `Busy` if another process publishes.
    pub fn snapshot(&self, timeout: Duration, interrupted: &dyn Fn() -> bool) -> Result<Txid> {
        self.sync(timeout, interrupted)?;
        if self.shared.progress().phase == Phase::Standby {
            return Err(Error::new(
                ErrorKind::Busy,
                format!(
                    "{} is published by another process, which is the one to ask for a snapshot; see role in \
                     litestream_status",
                    self.shared.path.display()
                ),
            ));
        }
        match self.shared.history.snapshot(interrupted) {
            Err(e) if matches!(e.kind(), ErrorKind::Corrupt | ErrorKind::NotFound) => {
                tracing::warn!("{}: {e}", self.shared.path.display());
                self.copy_whole(timeout, interrupted)
            }
            made => made,
        }
    }

    /// Has a full copy of the database made the snapshot that the files of the replica do not lead to.
    fn copy_whole(&self, timeout: Duration, interrupted: &dyn Fn() -> bool) -> Result<Txid> {
        self.shared.ask_look(Asked { look: Look::Copy, by_user: true });
        let last = self.wait(Message::Sync, timeout, interrupted)?;
        Ok(self.shared.holes.last_healed().unwrap_or(last))
    }

    /// The last transaction in the replica.
    pub fn txid(&self) -> Option<Txid> {
        self.standing().txid
    }

    /// When the last transaction in the replica was committed.
    pub fn time(&self) -> Option<Timestamp> {
        self.standing().time
    }

    /// How long the oldest commit waits that is not in the replica.
    pub fn lag(&self) -> Duration {
        self.standing().lag
    }

    /// Position and lag as the process that publishes knows them.
    fn standing(&self) -> Standing {
        if let Some(report) = self.shared.report() {
            return Standing { txid: report.txid(), time: report.time(), lag: report.lag() };
        }
        let lag = self.shared.lag();
        let progress = self.shared.progress();
        Standing { txid: progress.txid, time: progress.time, lag }
    }

    /// How replication stands, as far as the process that publishes says so.
    pub fn status(&self) -> Status {
        let _ = self.shared.stop_without_file();
        match self.shared.report() {
            Some(report) => self.status_by(&report),
            None => self.own_status(),
        }
    }

    fn status_by(&self, report: &Report) -> Status {
        let error = report.error.as_ref().map(|text| Error::new(ErrorKind::Unavailable, text.clone()));
        let progress = self.shared.progress();
        Status {
            path: self.shared.path.clone(),
            url: self.shared.store.url(),
            phase: progress.phase,
            txid: report.txid(),
            time: report.time(),
            lag: report.lag(),
            waiting_files: report.waiting_files,
            waiting_bytes: report.waiting_bytes,
            fencing: self.shared.store.fencing(),
            notice: progress.shown_notice().or_else(|| report.notice.clone()),
            verified: report.verified(),
            error,
        }
    }

    fn own_status(&self) -> Status {
        let (waiting_files, waiting_bytes) = self.shared.waiting_files();
        let lag = self.shared.lag();
        let verified = self.shared.proof.verified().proven;
        let progress = self.shared.settled_progress();
        Status {
            path: self.shared.path.clone(),
            url: self.shared.store.url(),
            phase: progress.phase,
            txid: progress.txid,
            time: progress.time,
            lag,
            waiting_files,
            waiting_bytes,
            fencing: self.shared.store.fencing(),
            notice: progress.shown_notice(),
            verified,
            error: self.shared.trouble(&progress),
        }
    }
}
