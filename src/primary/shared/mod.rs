//! What the committing threads, the publisher and the SQL functions share of one database.

mod open;
mod others;
mod progress;
mod wait;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use self::progress::Progress;
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::primary::capture::{Capture, Look};
use crate::primary::commits::{Commits, Signal};
use crate::primary::dirty::Recorder;
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
use crate::primary::time::{Time, Witness};
use crate::primary::watch::Watch;
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
    /// Records page numbers before the WAL index loses them.
    pub(super) recorder: Recorder,
    pub(super) signal: Signal,
    pub(super) history: Arc<History>,
    pub(super) proof: Proof,
    /// What the replica lacks.
    pub(super) holes: Holes,
    /// The folder that the replica is in, if it is in one.
    pub(super) places: Places,
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
        let recorder = Recorder::new(&state::folder(path), &wal_path);
        Self {
            path: path.to_path_buf(),
            wal_path,
            recorder,
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
        let (url, limit) = (self.store.url(), self.options.spool_limit);
        let journal = Arc::clone(self.recorder.journal());
        let capture = Capture::open(&self.path, &self.wal_path, &folder, &url, journal, limit)?;
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

    /// Captures into the spool what was committed since the last capture.
    ///
    /// # Errors
    /// Those of the view and of the spool; `Busy` if another process publishes.
    pub(super) fn capture_into_spool(&self) -> Result<()> {
        let time = |noted| self.published_time(noted, Witness::Here);
        let taken =
            self.with_capture(|capture| capture.take_changes(self.host.as_ref(), &self.commits, time))?;
        self.note_what_was_given_up();
        taken
    }

    /// Puts it into the status if more waited than may.
    pub(super) fn note_what_was_given_up(&self) {
        if self.with_capture(Capture::take_given_up).unwrap_or_default() {
            self.notice(
                "more waited for the replica than spool_limit: points in time since its last transaction are given up"
                    .to_owned(),
            );
        }
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

    /// Looks at the database for the first time.
    ///
    /// # Errors
    /// Those of the view; `Busy`.
    pub(super) fn first_look(&self) -> Result<Look> {
        self.with_capture(|capture| capture.first_look(self.host.as_ref(), &self.commits))?
    }
}
