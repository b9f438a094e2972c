//! What the committing threads, the publisher and the SQL functions share of one database.

mod others;
mod wait;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::{Clock, Timestamp};
use crate::error::{Error, ErrorKind, Result};
use crate::ltx::Txid;
use crate::page::PageSize;
use crate::primary::capture::Capture;
use crate::primary::commits::{CommitSeq, Commits, Signal};
use crate::primary::generations::Generations;
use crate::primary::host::Host;
use crate::primary::line::{self, Ear};
use crate::primary::options::Options;
use crate::primary::role::{PublisherLock, Publishing, Role};
use crate::primary::standby::Requests;
use crate::primary::state;
use crate::primary::watch::Watch;
use crate::store::Store;
use crate::wal::Position;

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
    /// Counts the publisher's rounds.
    round: u64,
    /// The round that found that there is nothing to publish here: another process does, or the
    /// database is empty.
    nothing_here: u64,
    /// Whether the replica was looked at.
    resumed: bool,
    /// Nothing was published since. Until then a file that a killed process had sent may still land.
    may_land: bool,
    /// The last transaction in the replica.
    pub(super) txid: Option<Txid>,
    /// The last commit in the replica.
    acked: CommitSeq,
    /// When the last transaction in the replica was committed.
    pub(super) time: Option<Timestamp>,
    /// Since when the oldest commit waits of those that are on their way.
    on_the_way_since: Option<Timestamp>,
    /// What was found and repaired last, and when.
    pub(super) notice: Option<(Timestamp, String)>,
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
    pub(super) generations: Arc<Generations>,
    pub(super) signal: Signal,
    /// A connection of this process holds the WRITE lock of the WAL.
    pub(super) write_locked: AtomicBool,
    /// What the files looked like at the last look.
    pub(super) watch: Watch,
    /// What other processes ask of this one, if it publishes.
    pub(super) requests: Requests,
    /// Hears other processes while this one publishes.
    ear: Mutex<Option<Ear>>,
    /// The database had no pages when this process began to publish it.
    was_empty: AtomicBool,
    /// Never locked while `progress` is.
    publishing: Mutex<Role>,
    progress: Mutex<Progress>,
    progressed: Condvar,
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
        let wal_path = PathBuf::from(wal_path);
        let generations = Arc::new(Generations::new(&wal_path, &state::folder(path)));
        Self {
            path: path.to_path_buf(),
            wal_path,
            generations,
            options,
            store,
            host,
            commits: Commits::new(Arc::clone(&clock)),
            clock,
            signal: Signal::default(),
            write_locked: AtomicBool::new(false),
            watch: Watch::default(),
            requests: Requests::default(),
            ear: Mutex::new(None),
            was_empty: AtomicBool::new(false),
            publishing: Mutex::new(Role::Standby),
            progress: Mutex::new(Progress {
                phase: Phase::Starting,
                round: 0,
                nothing_here: 0,
                resumed: false,
                may_land: false,
                txid: None,
                acked: CommitSeq::default(),
                time: None,
                on_the_way_since: None,
                notice: None,
                error: None,
            }),
            progressed: Condvar::new(),
        }
    }

    fn publishing(&self) -> MutexGuard<'_, Role> {
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
    /// `Io`, `Denied`, `NoSpace` on the folder of local state; `Interrupted` after the last close.
    pub(super) fn become_publisher(&self) -> Result<bool> {
        let mut publishing = self.publishing();
        match &*publishing {
            Role::Publisher(_) => return Ok(true),
            // The next open publishes; it must not find the lock taken.
            Role::Ended => return Err(self.closed()),
            Role::Standby => {}
        }
        let folder = state::folder(&self.path);
        let Some(lock) = PublisherLock::take(&folder)? else {
            drop(publishing);
            self.nothing_here(Phase::Standby);
            return Ok(false);
        };
        let limit = self.options.spool_limit;
        let capture = {
            let generations = Arc::clone(&self.generations);
            Capture::open(&self.path, &self.wal_path, &folder, &self.store.url(), generations, limit)?
        };
        let is_empty = std::fs::metadata(&self.path).map_or(true, |meta| meta.len() == 0);
        self.was_empty.store(is_empty, Ordering::Relaxed);
        *publishing = Role::Publisher(Box::new(Publishing { capture, _lock: lock }));
        drop(publishing);
        self.set_phase(Phase::Starting);
        Ok(true)
    }

    fn ear(&self) -> MutexGuard<'_, Option<Ear>> {
        self.ear.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works on the capture state.
    ///
    /// # Errors
    /// `Busy` if another process publishes; `Interrupted` after the last close.
    pub(super) fn with_capture<T>(&self, work: impl FnOnce(&mut Capture) -> T) -> Result<T> {
        match &mut *self.publishing() {
            Role::Publisher(publishing) => Ok(work(&mut publishing.capture)),
            Role::Standby => Err(Error::new(
                ErrorKind::Busy,
                format!("{} is published by another process", self.path.display()),
            )),
            Role::Ended => Err(self.closed()),
        }
    }

    fn closed(&self) -> Error {
        Error::new(ErrorKind::Interrupted, format!("{} was closed", self.path.display()))
    }

    /// Captures what is committed. Committing threads that wait for the capture state wait for one
    /// generation of the WAL at most.
    pub(super) fn capture_now(&self) -> Result<()> {
        while self.with_capture(Capture::catch_up_kept)?? {
            std::thread::yield_now();
        }
        self.with_capture(|capture| capture.catch_up(&self.commits))?
    }

    /// SQLite is about to restart the WAL, after which commits go on at `next`: keeps what is needed of
    /// it. `false` if that could not be done, or is not how to do it.
    pub(super) fn keep_generation(&self, next: Position) -> bool {
        while self.generations.is_full() {
            if !matches!(self.with_capture(Capture::catch_up_kept), Ok(Ok(true))) {
                break;
            }
        }
        self.generations.keep(&self.commits, next).unwrap_or_else(|e| {
            tracing::debug!("{e}");
            false
        })
    }

    /// Puts on disk what is only in memory and gives up publishing.
    pub(super) fn finish(&self) -> Result<()> {
        *self.ear() = None;
        match std::mem::replace(&mut *self.publishing(), Role::Ended) {
            Role::Publisher(mut publishing) => {
                // While the lock is still held: the next publisher listens there.
                line::close(&state::folder(&self.path));
                publishing.capture.settle()
            }
            Role::Standby | Role::Ended => Ok(()),
        }
    }

    /// Gives up publishing, and what is only in memory with it.
    #[cfg(test)]
    pub(super) fn abandon(&self) {
        *self.ear() = None;
        *self.publishing() = Role::Ended;
    }

    /// Keeps the local files that wait few. Takes the time that it needs: committing threads do not
    /// wait for it.
    pub(super) fn tidy(&self) -> Result<()> {
        while let Some(merge) = self.with_capture(|capture| capture.merge())? {
            let merged = merge.run()?;
            self.with_capture(|capture| capture.merged_waiting(&merge, merged))??;
        }
        Ok(())
    }

    /// Notes the commits that are in the database already, and returns its page size.
    pub(super) fn look_at_database(&self) -> Result<Option<PageSize>> {
        self.with_capture(|capture| {
            // Hooks wait for these locks, so that no restart of the WAL falls between view and note.
            let passage = self.generations.lock();
            let Some(view) = self.host.read_view()? else { return Ok(None) };
            let header = view.header();
            if let Some(header) = header {
                self.commits.agree_with(header);
            }
            drop(passage);
            if let Some(header) = header {
                capture.look(&header)?;
                if capture.anchor_reason().is_some() {
                    self.commits.note_other();
                }
            }
            Ok(Some(view.page_size()))
        })?
    }

    pub(super) fn is_standby(&self) -> bool {
        self.progress().phase == Phase::Standby
    }

    pub(super) fn is_resumed(&self) -> bool {
        self.progress().resumed
    }

    pub(super) fn resumed(&self, last: Option<Txid>) {
        self.change(|p| {
            p.resumed = true;
            p.may_land = true;
            p.txid = last;
        });
    }

    /// The last transaction in the replica.
    pub(super) fn progress_txid(&self) -> Option<Txid> {
        self.progress().txid
    }

    pub(super) fn next_txid(&self) -> Txid {
        self.progress().txid.map_or(Txid::ONE, Txid::next)
    }

    pub(super) fn set_phase(&self, phase: Phase) {
        self.change(|p| p.phase = phase);
    }

    /// The publisher begins a round.
    pub(super) fn begin_round(&self) {
        self.progress().round += 1;
    }

    /// This round found that there is nothing to publish here, because of `phase`.
    pub(super) fn nothing_here(&self, phase: Phase) {
        self.change(|p| {
            p.phase = phase;
            p.nothing_here = p.round;
        });
    }

    /// Whether a file that a killed process had sent may still land as the next transaction.
    pub(super) fn may_land(&self) -> bool {
        self.progress().may_land
    }

    /// Commits that waited since `since` are on their way.
    pub(super) fn on_the_way(&self, since: Option<Timestamp>) {
        let mut progress = self.progress();
        progress.on_the_way_since = progress.on_the_way_since.or(since);
    }

    /// `txid` is in the replica and holds every commit up to `covers`.
    pub(super) fn published(&self, txid: Txid, covers: CommitSeq, time: Timestamp) {
        self.change(|p| {
            self.works_again(p);
            p.phase = Phase::Idle;
            p.txid = Some(txid);
            p.may_land = false;
            p.acked = p.acked.max(covers);
            p.time = Some(time);
            p.on_the_way_since = None;
        });
    }

    /// `txid` is in the replica from an earlier life; what is to be sent takes the next.
    pub(super) fn skip_to(&self, txid: Txid) {
        self.change(|p| {
            p.txid = Some(txid);
            p.may_land = false;
        });
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
        self.change(|p| {
            self.works_again(p);
            if !matches!(p.phase, Phase::Standby | Phase::Empty) {
                p.phase = Phase::Idle;
            }
        });
    }

    fn works_again(&self, progress: &mut Progress) {
        if progress.error.take().is_some() {
            tracing::info!("{}: replication goes on", self.path.display());
        }
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

    /// Replication ends: somebody else is on the replica.
    pub(super) fn stop(&self, error: Error) {
        tracing::error!("{}: {error}", self.path.display());
        if let Role::Publisher(publishing) = &mut *self.publishing() {
            publishing.capture.stop();
        }
        self.change(|p| {
            p.phase = Phase::Stopped;
            p.error = Some(error);
        });
    }

    /// How long the oldest commit waits that is not in the replica; zero if none does.
    pub(super) fn lag(&self) -> Duration {
        let since = self.progress().on_the_way_since.or_else(|| self.commits.waiting_since());
        let millis = since.map_or(0, |since| self.clock.now().as_millis() - since.as_millis());
        Duration::from_millis(millis.max(0) as u64)
    }
}
