//! What the committing threads, the publisher and the SQL functions share of one database.

mod open;
mod others;
mod progress;
mod wait;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use self::progress::Progress;
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::page::PageSize;
use crate::primary::capture::{Capture, Look};
use crate::primary::commits::{Commits, Signal};
use crate::primary::generations::Generations;
use crate::primary::history::{Agreement, History};
use crate::primary::holes::Holes;
use crate::primary::host::Host;
use crate::primary::line;
use crate::primary::options::Options;
use crate::primary::place::Places;
use crate::primary::proof::Proof;
use crate::primary::report::Elsewhere;
use crate::primary::role::{PublisherLock, Publishing, Role};
use crate::primary::stamp::Identity;
use crate::primary::standby::Requests;
use crate::primary::state;
use crate::primary::survey::Survey;
use crate::primary::time::Time;
use crate::primary::watch::Watch;
use crate::store::Store;
use crate::wal::Position;

/// Whoever resets the index of the WAL leaves word of what it held within this time, if it is one of us.
const RESET_TIME: Duration = Duration::from_secs(1);
/// The time from one look to the next while somebody may be about to leave word.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

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

pub(super) struct Shared {
    pub(super) path: PathBuf,
    pub(super) wal_path: PathBuf,
    pub(super) options: Options,
    pub(super) agreement: Agreement,
    pub(super) store: Arc<dyn Store>,
    pub(super) host: Arc<dyn Host>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) time: Arc<Time>,
    pub(super) commits: Commits,
    pub(super) generations: Arc<Generations>,
    pub(super) signal: Signal,
    pub(super) history: Arc<History>,
    pub(super) proof: Proof,
    /// What the replica lacks.
    pub(super) holes: Holes,
    /// The folder that the replica is in, if it is in one.
    pub(super) places: Places,
    /// A connection of this process holds the WRITE lock of the WAL.
    pub(super) write_locked: AtomicBool,
    /// How many threads wait for the replica.
    waiting: AtomicUsize,
    /// What the files looked like at the last look.
    pub(super) watch: Watch,
    /// What other processes ask of this one, if it publishes.
    pub(super) requests: Requests,
    /// The process that publishes, while it is another one.
    pub(super) elsewhere: Elsewhere,
    /// Whether the store keeps the condition of a write is being found out, or was.
    pub(super) proving_fencing: AtomicBool,
    /// The database had no pages when this process began to publish it.
    was_empty: AtomicBool,
    /// Which file the database is; `None` if there was none.
    file: Option<Identity>,
    /// The database as it was opened, until it is decided how it stands to its replica.
    surveyed: Mutex<Option<Arc<Survey>>>,
    /// What the publisher is doing by force is not to be done any more.
    pub(super) withdrawn: Notify,
    /// The history of the replica is kept from the first file on that this process publishes.
    history_waits: AtomicBool,
    /// Never locked while `progress` is.
    publishing: Mutex<Role>,
    progress: Mutex<Progress>,
    progressed: Condvar,
}

impl Shared {
    pub(super) fn new(
        path: &Path,
        options: Options,
        agreement: Agreement,
        store: Arc<dyn Store>,
        host: Arc<dyn Host>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let mut wal_path = path.as_os_str().to_owned();
        wal_path.push("-wal");
        let wal_path = PathBuf::from(wal_path);
        let time = Arc::new(Time::new(Arc::clone(&clock), Arc::clone(&store)));
        let generations = Arc::new(Generations::new(&wal_path, &state::folder(path)));
        Self {
            path: path.to_path_buf(),
            wal_path,
            generations,
            options,
            agreement,
            store,
            host,
            proof: Proof::default(),
            holes: Holes::default(),
            places: Places::new(&state::folder(path)),
            commits: Commits::new(Arc::clone(&clock)),
            time,
            clock,
            signal: Signal::default(),
            history: Arc::default(),
            write_locked: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
            watch: Watch::default(),
            requests: Requests::default(),
            elsewhere: Elsewhere::default(),
            proving_fencing: AtomicBool::new(false),
            was_empty: AtomicBool::new(false),
            file: Identity::of(path),
            surveyed: Mutex::default(),
            withdrawn: Notify::new(),
            history_waits: AtomicBool::new(false),
            publishing: Mutex::new(Role::Standby),
            progress: Mutex::new(Progress::new()),
            progressed: Condvar::new(),
        }
    }

    fn publishing(&self) -> MutexGuard<'_, Role> {
        self.publishing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
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
            Capture::open(
                &self.path,
                &self.wal_path,
                &folder,
                &self.store.url(),
                generations,
                &self.commits.last(),
                limit,
            )?
        };
        let is_empty = std::fs::metadata(&self.path).map_or(true, |meta| meta.len() == 0);
        self.was_empty.store(is_empty, Ordering::Relaxed);
        *publishing = Role::Publisher(Box::new(Publishing { capture, ear: None, _lock: lock }));
        drop(publishing);
        self.set_phase(Phase::Starting);
        Ok(true)
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
        self.capture_kept()?;
        self.with_capture(|capture| capture.catch_up(&self.commits))?
    }

    /// Like [`Shared::capture_now`], and puts all that is captured on disk.
    pub(super) fn put_on_disk(&self) -> Result<()> {
        self.capture_kept()?;
        self.with_capture(|capture| capture.put_on_disk(&self.commits))?
    }

    fn capture_kept(&self) -> Result<()> {
        while self.with_capture(Capture::catch_up_kept)?? {
            std::thread::yield_now();
        }
        Ok(())
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
        match std::mem::replace(&mut *self.publishing(), Role::Ended) {
            Role::Publisher(mut publishing) => {
                // While the lock is still held: the next publisher listens there.
                publishing.ear = None;
                line::close(&state::folder(&self.path));
                publishing.capture.settle()
            }
            Role::Standby | Role::Ended => Ok(()),
        }
    }

    /// Gives up publishing, and what is only in memory with it.
    #[cfg(test)]
    pub(super) fn abandon(&self) {
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
        let deadline = Instant::now() + RESET_TIME;
        loop {
            let (look, page_size) = self.with_capture(|capture| self.look_once(capture))??;
            if look == Look::Clear {
                return Ok(page_size);
            }
            if Instant::now() >= deadline {
                self.with_capture(Capture::reset_by_stranger)?;
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    fn look_once(&self, capture: &mut Capture) -> Result<(Look, Option<PageSize>)> {
        // Hooks wait for these locks, so that no restart of the WAL falls between view and note.
        let passage = self.generations.lock();
        let Some(view) = self.host.read_view()? else { return Ok((Look::Clear, None)) };
        let header = view.header();
        if let Some(header) = header {
            self.commits.agree_with(header);
        }
        drop(passage);
        let mut look = Look::Clear;
        if let Some(header) = header {
            let writing = self.write_locked.load(Ordering::Acquire);
            look = capture.look(&header, &self.commits.last(), writing)?;
            // What others handed over is no commit that was noted here: who waits, waits for it too.
            if capture.anchor_reason().is_some() || capture.has_waiting() {
                self.commits.note_other();
            }
        }
        Ok((look, Some(view.page_size())))
    }
}
