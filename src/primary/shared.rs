//! What the committing threads, the publisher and the SQL functions share of one database.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::clock::{Clock, Timestamp};
use crate::error::{Error, ErrorKind, Result};
use crate::ltx::Txid;
use crate::page::PageSize;
use crate::primary::capture::Capture;
use crate::primary::commits::{CommitSeq, Commits, Signal};
use crate::primary::host::Host;
use crate::primary::options::Options;
use crate::primary::state;
use crate::store::Store;

/// What the publisher is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It has not looked at the replica yet.
    Starting,
    /// Another process publishes this database.
    Standby,
    /// The database has no pages yet.
    Empty,
    /// The whole database is being copied.
    Copying,
    /// A file is on its way.
    Publishing,
    /// All that was committed is in the replica.
    Idle,
    /// The last attempt failed; it is repeated.
    Retrying,
    /// Replication ended: somebody must decide.
    Stopped,
}

impl Phase {
    /// The word for it in a status row.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Standby => "standby",
            Self::Empty => "empty",
            Self::Copying => "copying",
            Self::Publishing => "publishing",
            Self::Idle => "idle",
            Self::Retrying => "retrying",
            Self::Stopped => "stopped",
        }
    }
}

/// How far the replica is.
#[derive(Debug)]
pub(super) struct Progress {
    pub(super) phase: Phase,
    /// Whether the replica was looked at.
    resumed: bool,
    /// The last transaction in the replica.
    pub(super) txid: Option<Txid>,
    /// The last commit in the replica.
    acked: CommitSeq,
    /// When the last transaction in the replica was committed.
    pub(super) time: Option<Timestamp>,
    /// The last commit that was noted before the database was seen to have no pages.
    empty_as_of: CommitSeq,
    /// Since when the oldest commit waits of those that are on their way.
    on_the_way_since: Option<Timestamp>,
    /// The failure of the last attempt, if it failed, or what ended replication.
    pub(super) error: Option<Error>,
}

pub(super) struct Shared {
    pub(super) path: PathBuf,
    pub(super) wal_path: PathBuf,
    pub(super) options: Options,
    pub(super) store: Arc<dyn Store>,
    pub(super) host: Arc<dyn Host>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) commits: Commits,
    pub(super) signal: Signal,
    /// A connection of this process holds the WRITE lock of the WAL.
    pub(super) write_locked: AtomicBool,
    /// The database had no pages when it was opened.
    pub(super) was_empty: bool,
    /// `None` while another process publishes. Never locked while `progress` is.
    publishing: Mutex<Option<Publishing>>,
    progress: Mutex<Progress>,
    progressed: Condvar,
}

/// What only the publishing process has.
struct Publishing {
    capture: Capture,
    /// Locked for as long as this process publishes.
    _lock: File,
}

impl Shared {
    pub(super) fn new(
        path: &Path,
        options: Options,
        store: Arc<dyn Store>,
        host: Arc<dyn Host>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let mut wal_path = path.as_os_str().to_owned();
        wal_path.push("-wal");
        Self {
            path: path.to_path_buf(),
            wal_path: wal_path.into(),
            options,
            store,
            host,
            commits: Commits::new(Arc::clone(&clock)),
            clock,
            signal: Signal::default(),
            write_locked: AtomicBool::new(false),
            was_empty: std::fs::metadata(path).map_or(true, |meta| meta.len() == 0),
            publishing: Mutex::new(None),
            progress: Mutex::new(Progress {
                phase: Phase::Starting,
                resumed: false,
                txid: None,
                acked: CommitSeq::default(),
                time: None,
                empty_as_of: CommitSeq::default(),
                on_the_way_since: None,
                error: None,
            }),
            progressed: Condvar::new(),
        }
    }

    fn publishing(&self) -> MutexGuard<'_, Option<Publishing>> {
        self.publishing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Progress)) {
        change(&mut self.progress());
        self.progressed.notify_all();
    }

    /// Takes the lock by which one process publishes a database, and what an earlier one left.
    /// `false` if another process has it.
    ///
    /// # Errors
    /// `Io`, `Denied`, `NoSpace` on the folder of local state.
    pub(super) fn become_publisher(&self) -> Result<bool> {
        let mut publishing = self.publishing();
        if publishing.is_some() {
            return Ok(true);
        }
        let folder = state::folder(&self.path);
        let named = |e| Error::io(format_args!("cannot use {}", folder.display()), e);
        std::fs::create_dir_all(&folder).map_err(named)?;
        let lock = File::create(folder.join("vfs.lock")).map_err(named)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => {
                drop(publishing);
                self.set_phase(Phase::Standby);
                return Ok(false);
            }
            Err(std::fs::TryLockError::Error(e)) => return Err(named(e)),
        }
        let capture = Capture::open(&self.path, &self.wal_path, &folder, &self.store.url())?;
        *publishing = Some(Publishing { capture, _lock: lock });
        drop(publishing);
        self.set_phase(Phase::Starting);
        Ok(true)
    }

    /// Works on the capture state.
    ///
    /// # Errors
    /// `Busy` if another process publishes.
    pub(super) fn with_capture<T>(&self, work: impl FnOnce(&mut Capture) -> T) -> Result<T> {
        match &mut *self.publishing() {
            Some(publishing) => Ok(work(&mut publishing.capture)),
            None => Err(Error::new(
                ErrorKind::Busy,
                format!("{} is published by another process", self.path.display()),
            )),
        }
    }

    /// Captures what is committed.
    pub(super) fn capture_now(&self) -> Result<()> {
        self.with_capture(|capture| {
            let noted = self.commits.last();
            noted.end.map_or(Ok(()), |end| capture.catch_up(end, noted.time))
        })?
    }

    /// Asks for a capture in the background if it is `frames` behind. Never waits.
    pub(super) fn capture_if_behind(&self, frames: u32) {
        let Ok(mut publishing) = self.publishing.try_lock() else { return };
        if let Some(publishing) = &mut *publishing
            && publishing.capture.frames_behind(&self.commits.last()) >= frames
        {
            self.signal.capture();
        }
    }

    /// Puts on disk what is only in memory and gives up publishing.
    pub(super) fn finish(&self) -> Result<()> {
        match self.publishing().take() {
            Some(mut publishing) => publishing.capture.settle(),
            None => Ok(()),
        }
    }

    /// Keeps the local files that wait few.
    pub(super) fn tidy(&self) -> Result<()> {
        self.with_capture(Capture::tidy)?
    }

    /// Notes the commits that are in the database already, and returns its page size.
    pub(super) fn look_at_database(&self) -> Result<Option<PageSize>> {
        let Some(view) = self.host.read_view()? else { return Ok(None) };
        if let Some(header) = view.header() {
            self.commits.agree_with(header);
        }
        Ok(Some(view.page_size()))
    }

    pub(super) fn is_resumed(&self) -> bool {
        self.progress().resumed
    }

    pub(super) fn resumed(&self, last: Option<Txid>) {
        self.change(|p| {
            p.resumed = true;
            p.txid = last;
        });
    }

    pub(super) fn next_txid(&self) -> Txid {
        self.progress().txid.map_or(Txid::ONE, Txid::next)
    }

    pub(super) fn set_phase(&self, phase: Phase) {
        self.change(|p| p.phase = phase);
    }

    /// Commits that waited since `since` are on their way.
    pub(super) fn on_the_way(&self, since: Option<Timestamp>) {
        let mut progress = self.progress();
        progress.on_the_way_since = progress.on_the_way_since.or(since);
    }

    /// `txid` is in the replica and holds every commit up to `covers`.
    pub(super) fn published(&self, txid: Txid, covers: CommitSeq, time: Timestamp) {
        self.change(|p| {
            p.phase = Phase::Idle;
            p.txid = Some(txid);
            p.acked = p.acked.max(covers);
            p.time = Some(time);
            p.on_the_way_since = None;
        });
    }

    /// `txid` is in the replica from an earlier life; what is to be sent takes the next.
    pub(super) fn skip_to(&self, txid: Txid) {
        self.change(|p| p.txid = Some(txid));
    }

    /// Every commit up to `seq` is in the replica.
    pub(super) fn all_published(&self, seq: CommitSeq) {
        self.change(|p| {
            p.acked = p.acked.max(seq);
            p.on_the_way_since = None;
        });
    }

    /// The last round succeeded.
    pub(super) fn recovered(&self) {
        let before = self.progress().error.take();
        if before.is_some() {
            tracing::info!("{}: replication goes on", self.path.display());
        }
        self.change(|p| {
            if !matches!(p.phase, Phase::Standby | Phase::Empty) {
                p.phase = Phase::Idle;
            }
        });
    }

    /// The last round failed and will be repeated.
    pub(super) fn failed(&self, error: Error) {
        if self.progress().error.is_none() {
            tracing::warn!("{}: {error}", self.path.display());
        }
        self.change(|p| {
            p.phase = Phase::Retrying;
            p.error = Some(error);
        });
    }

    pub(super) fn has_failed(&self) -> bool {
        self.progress().error.is_some()
    }

    /// The database has no pages, and was looked at after `noted`.
    pub(super) fn empty(&self, noted: CommitSeq) {
        self.change(|p| {
            p.phase = Phase::Empty;
            p.empty_as_of = noted;
        });
    }

    /// Replication ends: somebody else is on the replica.
    pub(super) fn stop(&self, error: Error) {
        tracing::error!("{}: {error}", self.path.display());
        if let Some(publishing) = &mut *self.publishing() {
            publishing.capture.stop();
        }
        self.change(|p| {
            p.phase = Phase::Stopped;
            p.error = Some(error);
        });
    }

    /// Waits until every commit noted so far is in the replica; returns the last transaction there.
    ///
    /// # Errors
    /// `Timeout` with the cause as far as it is known; `Conflict` if replication stopped; `Busy` in a
    /// process that does not publish; `NotFound` if the database is empty; `Interrupted`.
    pub(super) fn wait(&self, timeout: Duration, interrupted: &dyn Fn() -> bool) -> Result<Txid> {
        const LOOK: Duration = Duration::from_millis(100);
        let deadline = Instant::now() + timeout;
        let mut goal = None;
        let mut progress = self.progress();
        loop {
            if progress.resumed && goal.is_none() {
                // Not before: what an earlier process left in the WAL is noted by the first look.
                goal = Some(self.commits.last().seq);
            }
            if let Some(outcome) = self.outcome(&progress, goal) {
                return outcome;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(self.timed_out(&progress, timeout));
            }
            if interrupted() {
                return Err(Error::new(ErrorKind::Interrupted, "the wait for the replica was interrupted"));
            }
            progress = self
                .progressed
                .wait_timeout(progress, left.min(LOOK))
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn outcome(&self, progress: &Progress, goal: Option<CommitSeq>) -> Option<Result<Txid>> {
        match (progress.phase, progress.txid) {
            (Phase::Stopped, _) => progress.error.clone().map(Err),
            (Phase::Standby, _) => Some(Err(Error::new(
                ErrorKind::Busy,
                format!(
                    "{} is published by another process: call litestream_sync there",
                    self.path.display()
                ),
            ))),
            (Phase::Empty, _) if goal.is_none_or(|goal| goal <= progress.empty_as_of) => {
                Some(Err(Error::new(
                    ErrorKind::NotFound,
                    format!("{} is empty: there is nothing to replicate yet", self.path.display()),
                )))
            }
            (Phase::Starting | Phase::Copying, _) => None,
            (_, Some(txid)) if goal.is_some_and(|goal| progress.acked >= goal) => Some(Ok(txid)),
            _ => None,
        }
    }

    fn timed_out(&self, progress: &Progress, timeout: Duration) -> Error {
        let cause = match &progress.error {
            Some(error) => format!(": {error}"),
            None => format!("; it is still {}", progress.phase.name()),
        };
        Error::new(
            ErrorKind::Timeout,
            format!("not everything is in {} after {timeout:?}{cause}", self.store.url()),
        )
    }

    /// How long the oldest commit waits that is not in the replica; zero if none does.
    pub(super) fn lag(&self) -> Duration {
        let since = self.progress().on_the_way_since.or_else(|| self.commits.waiting_since());
        let millis = since.map_or(0, |since| self.clock.now().as_millis() - since.as_millis());
        Duration::from_millis(millis.max(0) as u64)
    }
}
