//! Which process publishes a database, and how the others that have it open reach it.
//!
//! | file | what it is |
//! | --- | --- |
//! | `role` | the publisher lock |
//! | `turn` | one process after the other opens a database for the first time |
//! | `agreement` | the replicas and settings that all processes agree on, and their memory |
//! | `folder` | the folder of local state: its format, and the folders of replicas in it |
//! | `control_socket` | how other processes reach the one that publishes |
//! | `ear` | how that one hears them |
//! | `asker` | one who waits in another process |
//! | `linger` | what becomes of a database after its last close |
//! | `standby` | what a process does that does not publish |
//! | `report` | how replication stands, as the one tells the others |
//! | `watch` | whether the database was written without our knowing |

mod agreement;
mod asker;
mod control_socket;
mod ear;
mod folder;
mod linger;
mod report;
mod role;
mod standby;
mod turn;
mod watch;

use std::panic::AssertUnwindSafe;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;

use self::ear::Ear;
use self::report::Elsewhere;
use self::role::{Former, Publishing, Role};
use self::standby::Forced;
use crate::error::{ErrorKind, Result};
use crate::primary::context::Context;
use crate::primary::hooks::Signal;
use crate::primary::options::Options;
use crate::primary::shipper::{Phase, ReplicaId, Shipper};
use crate::runtime;

pub use agreement::remembered;
pub(in crate::primary) use agreement::{Agreement, Wanted, check, check_replicas};
pub(in crate::primary) use folder::forget_older_version;
pub(in crate::primary) use linger::{Again, Left};
pub(in crate::primary) use report::Report;
pub(in crate::primary) use role::PublisherLock;
pub(in crate::primary) use standby::Question;
pub(in crate::primary) use turn::Turn;

/// The wait after a first failure to take over; it doubles up to `BACKOFF_MAX`.
const BACKOFF_MIN: Duration = Duration::from_millis(250);
const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// What this process is to one database, and its shippers.
pub(in crate::primary) struct Ownership {
    pub(in crate::primary) db: Arc<Context>,
    pub(in crate::primary) shippers: Vec<Arc<Shipper>>,
    pub(in crate::primary) options: Options,
    pub(in crate::primary) agreement: Agreement,
    /// Wakes a standby.
    pub(in crate::primary) signal: Signal,
    /// The last commit of which the process that publishes was told.
    told: AtomicU64,
    /// The last reports of the process that publishes.
    elsewhere: Elsewhere,
    /// What another process said with force.
    forced: Forced,
    role: Mutex<Role>,
}

impl Ownership {
    pub(in crate::primary) fn new(
        db: Arc<Context>,
        shippers: Vec<Arc<Shipper>>,
        options: Options,
        agreement: Agreement,
    ) -> Self {
        Self {
            elsewhere: Elsewhere::new(shippers.len()),
            db,
            shippers,
            options,
            agreement,
            signal: Signal::default(),
            told: AtomicU64::new(0),
            forced: Forced::default(),
            role: Mutex::new(Role::Standby),
        }
    }

    fn role(&self) -> MutexGuard<'_, Role> {
        self.role.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The ids of the replicas.
    fn ids(&self) -> impl Iterator<Item = &ReplicaId> {
        self.shippers.iter().map(|shipper| &shipper.id)
    }

    /// Whether another process publishes, as far as is known.
    pub(in crate::primary) fn is_standby(&self) -> bool {
        // Not by the role, whose lock is held while files are read.
        self.shippers[0].progress().phase == Phase::Standby
    }

    /// Takes the lock by which one process publishes a database, and what an earlier one left; `false` if another process
    /// has it.
    ///
    /// # Errors
    /// `Io`, `Denied`, `NoSpace` on the folder of local state; `Interrupted` after the last close.
    pub(in crate::primary) fn take_over(&self) -> Result<bool> {
        let mut role = self.role();
        match &*role {
            Role::Publisher(_) => return Ok(true),
            // The next open publishes; it must not find the lock taken.
            Role::Lingering(_) | Role::Ended => return Err(self.db.closed()),
            Role::Standby => {}
        }
        let Some(lock) = self.take_lock()? else {
            drop(role);
            self.shippers.iter().for_each(|shipper| shipper.stand_by());
            return Ok(false);
        };
        let replicas = self.shippers.iter().map(|shipper| (&shipper.id, shipper.store.url()));
        folder::prepare(&self.db.folder, &replicas.collect::<Vec<_>>())?;
        self.db.look_whether_empty();
        if let Err(e) = self.shippers.iter().try_for_each(|shipper| shipper.take_over()) {
            self.shippers.iter().for_each(|shipper| shipper.step_back());
            return Err(e);
        }
        *role = Role::Publisher(Publishing { ear: None, _lock: lock });
        Ok(true)
    }

    /// Listens for other processes, which tell of their commits. Without it those are noticed by
    /// `watch_interval`.
    fn listen(self: &Arc<Self>) {
        Self::listen_with(self, &mut self.role());
    }

    fn listen_with(self: &Arc<Self>, role: &mut Role) {
        if let Role::Publisher(publishing) | Role::Lingering(Former::Publisher(Some(publishing))) = role
            && publishing.ear.is_none()
            && let Ok(runtime) = runtime::handle()
        {
            let _inside = runtime.enter();
            match Ear::open(self) {
                Ok(open) => publishing.ear = Some(open),
                Err(e) => {
                    tracing::debug!("{}: no socket for other processes: {e}", self.db.path.display());
                }
            }
        }
    }

    /// Puts on disk what is only in memory and gives up publishing.
    ///
    /// # Errors
    /// The first one of a shipper's files.
    pub(in crate::primary) fn finish(&self) -> Result<()> {
        let ended = std::mem::replace(&mut *self.role(), Role::Ended);
        self.db.closes();
        let mut publishing = match ended {
            Role::Publisher(publishing) | Role::Lingering(Former::Publisher(Some(publishing))) => {
                Some(publishing)
            }
            Role::Standby | Role::Lingering(_) | Role::Ended => None,
        };
        if let Some(publishing) = &mut publishing {
            self.close_ear(publishing);
        }
        let finished: Vec<Result<()>> = self.shippers.iter().map(|shipper| shipper.finish()).collect();
        finished.into_iter().collect()
    }

    /// Gives up publishing, and what is only in memory with it.
    #[cfg(test)]
    pub(in crate::primary) fn abandon(&self) {
        self.shippers.iter().for_each(|shipper| shipper.abandon());
        *self.role() = Role::Ended;
    }
}

/// Takes over when the process that publishes is gone, until the task is aborted. A bug stops replication, with an error in
/// status.
pub(in crate::primary) async fn run(owner: Arc<Ownership>) {
    if let Err(panic) = AssertUnwindSafe(take_part(&owner)).catch_unwind().await {
        let remedy = "replication stopped, which the next open of the database begins again";
        let error = runtime::bug(&*panic).context(remedy);
        owner.shippers.iter().for_each(|shipper| shipper.stop(error.clone()));
    }
}

async fn take_part(owner: &Arc<Ownership>) {
    let mut backoff = BACKOFF_MIN;
    loop {
        let taking = Arc::clone(owner);
        match runtime::blocking(move || taking.take_over()).await {
            Ok(true) => {
                owner.listen();
                tokio::join!(watch::run(owner), standby::watch_force(owner));
            }
            Ok(false) => {
                backoff = BACKOFF_MIN;
                standby::rest(owner).await;
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => owner.db.until_open().await,
            Err(e) => {
                owner.shippers.iter().for_each(|shipper| shipper.failed(e.clone()));
                tokio::time::sleep(backoff).await;
                backoff = (backoff * 2).min(BACKOFF_MAX);
            }
        }
    }
}
