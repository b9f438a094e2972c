//! A shipper takes the commits of a database to one of its replicas. Each replica has one, with a lineage, a cursor, a
//! dirty set, waiting files, errors and a history of its own; what they share is the [`Context`].
//!
//! | file | what it is |
//! | --- | --- |
//! | `publish` | the background task: rounds, pacing, outages |
//! | `progress`, `wait` | how far the replica is, and who waits for it |
//! | `asks` | what other processes ask |
//! | `capture` | dirty pages leave the database, for a file to be sent or for one that waits |
//! | `spool` | local LTX files that wait for the replica |
//! | `outgoing`, `send` | the file that is on its way |
//! | `state` | what is remembered across processes |
//! | `begin`, `resume` | how the database stands to the replica when replication begins |
//! | `forward` | a database that is an earlier state of its replica is brought forward |
//! | `baseline`, `copy` | the full copy that later files build on |
//! | `sealing` | whether the replica may be sealed to whom it is to be sealed |
//! | `snapshot` | a snapshot of a sealed replica, which is made from the database |
//! | `sums`, `past` | checksums of the pages that the replica has, and digests of earlier states |
//! | `survey` | the pages of the database as it was opened, compared with the replica |
//! | `holes`, `heal` | what the replica lacks of what was published |
//! | `place` | which folder a replica is in, so that an unmounted disk is noticed |
//! | `keep`, `scheduled_verify` | the background tasks that keep the history, and verify |
//! | `copying` | how far a copy of the database came |
//! | `silence` | a store that says nothing |
//! | `linger` | after the last close: what waits is sent |
//! | `figures` | what is counted of it |
//! | `id` | which replica it is |

mod asks;
mod baseline;
mod begin;
mod capture;
mod copy;
mod copying;
mod figures;
mod forward;
mod gather;
mod heal;
mod holes;
mod id;
mod keep;
mod linger;
mod misfit;
mod newest;
mod open;
mod others;
mod outgoing;
mod past;
mod place;
mod progress;
mod publish;
mod resume;
mod scheduled_verify;
mod sealing;
mod send;
mod sidecar;
mod silence;
mod snapshot;
mod spool;
pub(in crate::primary) mod state;
pub(in crate::primary) mod sums;
mod survey;
pub(in crate::primary) mod unfinished;
mod wait;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::task::JoinHandle;

use self::progress::Progress;
use crate::error::Result;
use crate::ltx::{Keyring, Plain, Txid};
use crate::primary::context::Context;
use crate::primary::hooks::Signal;
use crate::primary::maintenance::{History, Settings};
use crate::primary::options::ReplicaOptions;
use crate::primary::seals::Seals;
use crate::primary::time::{Time, Witness};
use crate::runtime;
use crate::store::{Replica, in_local_state};

pub(in crate::primary) use asks::{Asker, Outcome, Requests};
pub(in crate::primary) use capture::Capture;
use capture::Look;
pub use figures::ReplicaFigures;
pub(in crate::primary) use holes::{Asked, Look as ReplicaLook};
pub(in crate::primary) use id::ReplicaId;
pub(in crate::primary) use silence::Silence;
pub(in crate::primary) use wait::{Goal, Waiter, after, timed_out};

/// State of a shipper, as a status row shows it.
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
    /// Replication to this replica ended: a user must decide.
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

/// The shipper of one replica.
pub(in crate::primary) struct Shipper {
    pub(in crate::primary) db: Arc<Context>,
    /// Its place among the shippers of the database; the first one's is 0.
    pub(in crate::primary) number: usize,
    pub(in crate::primary) id: ReplicaId,
    /// URL and endpoint of the replica.
    place: String,
    /// The folder of local state of this replica.
    pub(in crate::primary) folder: PathBuf,
    pub(in crate::primary) options: ReplicaOptions,
    /// The settings of the history that all processes agreed on.
    pub(in crate::primary) settings: Settings,
    pub(in crate::primary) store: Arc<Replica>,
    /// How files are sealed.
    pub(in crate::primary) seals: Arc<Seals>,
    /// The state of the database of which a snapshot is to be made.
    snapshot_view: Mutex<Option<snapshot::SnapshotView>>,
    pub(in crate::primary) time: Arc<Time>,
    pub(in crate::primary) signal: Signal,
    pub(in crate::primary) history: Arc<History>,
    pub(in crate::primary) rounds: figures::Rounds,
    pub(in crate::primary) proof: scheduled_verify::Proof,
    /// What the replica lacks.
    pub(in crate::primary) holes: holes::Holes,
    /// The folder that the replica is in, if it is in one.
    places: place::Places,
    /// How many threads wait for the replica.
    waiting: AtomicUsize,
    /// The last commit that waits for the replica, or did.
    awaited_commit: AtomicU64,
    /// The number of commits that waited, or wait, for the replica.
    tickets: AtomicU64,
    /// How far a copy of the database came.
    pub(in crate::primary) copying: Arc<copying::Copying>,
    /// What other processes ask of this one, if it publishes.
    pub(in crate::primary) requests: Requests,
    /// Whether the store keeps the condition of a write is being found out, or was.
    proving_fencing: AtomicBool,
    /// The database as it was opened, until it is decided how it stands to its replica.
    surveyed: Mutex<Option<Arc<survey::Survey>>>,
    /// What is being done by force is not to be done any more.
    withdrawn: Notify,
    /// This process publishes again what it published before.
    publishes: Notify,
    /// The history of the replica is kept from the first file on that this process publishes.
    history_waits: AtomicBool,
    /// Until when the replica is trusted to be what this process left there, in milliseconds of the steady clock.
    trusted_until: AtomicI64,
    /// Never locked while `progress` is.
    desk: Mutex<Desk>,
    progress: Mutex<Progress>,
}

/// What a shipper captures with.
enum Desk {
    /// Another process publishes the database, as far as is known.
    Closed,
    /// This process publishes.
    Open(Box<Capture>),
    /// No connection of this process has the database open, and another one may publish.
    Shelved(Box<Capture>),
    /// The last connection was closed.
    Ended,
}

/// What a shipper is made of.
pub(in crate::primary) struct Parts {
    pub(in crate::primary) id: ReplicaId,
    pub(in crate::primary) place: String,
    pub(in crate::primary) options: ReplicaOptions,
    pub(in crate::primary) settings: Settings,
    pub(in crate::primary) store: Arc<Replica>,
}

impl Shipper {
    pub(in crate::primary) fn new(db: Arc<Context>, number: usize, parts: Parts) -> Self {
        let Parts { id, place, options, settings, store } = parts;
        let folder = id.folder(&db.folder);
        let time = Arc::new(Time::new(Arc::clone(&db.clock), Arc::clone(&store)));
        let seals = Arc::new(Seals::new(options.recipients.clone(), &folder, settings.levels.len()));
        let store = if seals.are_on() { as_turned_on(&store, &folder) } else { store };
        Self {
            number,
            id,
            place,
            options,
            settings,
            store,
            seals,
            snapshot_view: Mutex::default(),
            time,
            signal: Signal::default(),
            history: Arc::default(),
            rounds: figures::Rounds::default(),
            proof: scheduled_verify::Proof::default(),
            holes: holes::Holes::default(),
            places: place::Places::new(&folder),
            waiting: AtomicUsize::new(0),
            awaited_commit: AtomicU64::new(0),
            tickets: AtomicU64::new(0),
            copying: Arc::default(),
            requests: Requests::default(),
            proving_fencing: AtomicBool::new(false),
            surveyed: Mutex::default(),
            withdrawn: Notify::new(),
            publishes: Notify::new(),
            history_waits: AtomicBool::new(false),
            trusted_until: AtomicI64::new(i64::MIN),
            desk: Mutex::new(Desk::Closed),
            progress: Mutex::new(Progress::new()),
            folder,
            db,
        }
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(in crate::primary) fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether `text` names the replica: its URL as the status shows it, or as it was given.
    pub(in crate::primary) fn is_called(&self, text: &str) -> bool {
        let (url, query) = text.split_once('?').unwrap_or((text, ""));
        let endpoint = query.split('&').find_map(|pair| pair.strip_prefix("endpoint="));
        let is_there = |endpoint: &str| {
            let endpoint = percent_encoding::percent_decode_str(endpoint).decode_utf8_lossy();
            self.place.ends_with(&format!("={}", endpoint.trim_end_matches('/')))
        };
        in_local_state(&self.store.url()) == in_local_state(url).trim_end_matches('/')
            && endpoint.is_none_or(is_there)
    }

    /// Name of database and replica in a line of the log.
    pub(in crate::primary) fn name(&self) -> String {
        format!("{}: {}", self.db.path.display(), self.store.url())
    }

    /// Takes up what an earlier publisher left: this process publishes from now on.
    ///
    /// # Errors
    /// `Io`, `Denied`, `NoSpace` on the folder of local state; `Interrupted` after the last close.
    pub(in crate::primary) fn take_over(&self) -> Result<()> {
        let mut desk = self.desk();
        match *desk {
            Desk::Open(_) => return Ok(()),
            Desk::Shelved(_) | Desk::Ended => return Err(self.db.closed()),
            Desk::Closed => {}
        }
        *desk = Desk::Open(Box::new(Capture::open(self)?));
        drop(desk);
        self.set_phase(Phase::Starting);
        self.signal.hurry();
        Ok(())
    }

    /// This process does not publish after all.
    pub(in crate::primary) fn step_back(&self) {
        self.drop_snapshot_view();
        self.forget_survey();
        let mut desk = self.desk();
        if matches!(*desk, Desk::Open(_)) {
            *desk = Desk::Closed;
        }
    }

    /// Whether this process publishes.
    fn is_open(&self) -> bool {
        matches!(*self.desk(), Desk::Open(_))
    }

    /// Works on the capture state.
    ///
    /// # Errors
    /// `Busy` if another process publishes; `Interrupted` after the last close.
    pub(in crate::primary) fn with_capture<T>(&self, work: impl FnOnce(&mut Capture) -> T) -> Result<T> {
        match &mut *self.desk() {
            Desk::Open(capture) => Ok(work(capture)),
            Desk::Closed => Err(self.db.published_elsewhere()),
            Desk::Shelved(_) | Desk::Ended => Err(self.db.closed()),
        }
    }

    /// Captures into the spool what was committed since the last capture.
    ///
    /// # Errors
    /// Those of the view and of the spool; `Busy` if another process publishes.
    pub(in crate::primary) fn capture_into_spool(&self) -> Result<()> {
        let time = |noted| self.published_time(noted, Witness::Here);
        let taken = self.with_capture(|capture| capture.take_changes(&self.db, time))?;
        self.note_what_was_given_up();
        taken
    }

    /// Puts it into the status if more waited than may.
    fn note_what_was_given_up(&self) {
        if self.with_capture(Capture::take_given_up).unwrap_or_default() {
            self.notice(
                "more waited for the replica than spool_limit: points in time since its last transaction are given up"
                    .to_owned(),
            );
        }
    }

    /// Puts on disk what is only in memory and gives up publishing.
    pub(in crate::primary) fn finish(&self) -> Result<()> {
        self.drop_snapshot_view();
        match std::mem::replace(&mut *self.desk(), Desk::Ended) {
            Desk::Open(mut capture) => capture.settle(),
            Desk::Closed | Desk::Shelved(_) | Desk::Ended => Ok(()),
        }
    }

    /// Gives up publishing, and what is only in memory with it.
    #[cfg(test)]
    pub(in crate::primary) fn abandon(&self) {
        *self.desk() = Desk::Ended;
    }

    /// Keeps the local files that wait few. Takes the time that it needs: committing threads do not
    /// wait for it.
    fn tidy(&self) -> Result<()> {
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
    fn first_look(&self) -> Result<Look> {
        self.with_capture(|capture| capture.first_look(&self.db))?
    }
}

/// The replica, of which files may be verified that were written before it was sealed.
fn as_turned_on(store: &Arc<Replica>, folder: &Path) -> Arc<Replica> {
    let keyring = store.keyring();
    if keyring.plain() != Plain::None {
        return Arc::clone(store);
    }
    let since = state::State::read(folder).and_then(|state| state.sealed).map(|sealed| sealed.since);
    let plain = match since {
        // It is turned on now: nothing is sealed yet.
        None => Plain::Any,
        Some(since) => Txid::new(since - 1).map_or(Plain::None, Plain::UpTo),
    };
    Arc::new(store.read_with(Keyring::new(keyring.identities().clone(), plain)))
}

/// The background tasks of one shipper.
pub(in crate::primary) struct Tasks {
    publish: JoinHandle<()>,
    keep: JoinHandle<()>,
    proof: Option<JoinHandle<()>>,
}

impl Tasks {
    /// Starts them.
    pub(in crate::primary) fn start(shipper: &Arc<Shipper>, runtime: &tokio::runtime::Handle) -> Self {
        let verifies = !shipper.options.verify_interval.is_zero();
        Self {
            publish: runtime.spawn(publish::run(Arc::clone(shipper))),
            keep: runtime.spawn(keep::run(Arc::clone(shipper))),
            proof: verifies.then(|| runtime.spawn(scheduled_verify::run(Arc::clone(shipper)))),
        }
    }

    /// Whether nothing is published any more.
    pub(in crate::primary) fn is_finished(&self) -> bool {
        self.publish.is_finished()
    }

    /// Ends those of `shipper`.
    pub(in crate::primary) fn end(&self, shipper: &Shipper) {
        self.publish.abort();
        self.keep.abort();
        shipper.proof.stop();
        if let Some(task) = &self.proof {
            task.abort();
        }
    }
}

/// Runs `work`, which waits for files and locks, off the asynchronous threads.
async fn blocking<T: Send + 'static>(
    shipper: &Arc<Shipper>,
    work: impl FnOnce(&Shipper) -> Result<T> + Send + 'static,
) -> Result<T> {
    let shipper = Arc::clone(shipper);
    runtime::blocking(move || work(&shipper)).await
}

/// The same for `work` that waits for the store.
async fn long_blocking<T: Send + 'static>(
    shipper: &Arc<Shipper>,
    work: impl FnOnce(&Shipper) -> Result<T> + Send + 'static,
) -> Result<T> {
    let shipper = Arc::clone(shipper);
    runtime::long_blocking(move || work(&shipper)).await
}
