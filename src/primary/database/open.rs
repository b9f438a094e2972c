//! The primaries of this process, and how a connection opens one.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Primary;
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::fork::PerProcess;
use crate::primary::context::Context;
use crate::primary::hooks::Host;
use crate::primary::options::{Options, ReplicaConfig};
use crate::primary::ownership::{self, Agreement, Ownership, Turn, Wanted};
use crate::primary::shipper::{Parts, ReplicaId, Shipper, Tasks};
use crate::store::{Location, Replica, ReplicaIdentity};

/// The primaries of this process by path. A forked child begins with none. The lock is held for a moment: what takes
/// longer is done under that of one [`Place`].
static OPEN: PerProcess<Mutex<HashMap<PathBuf, Arc<Place>>>> = PerProcess::new();

/// How long an open waits at most for a store that does not answer.
const LOOK_PATIENCE: Duration = Duration::from_secs(3);

/// The place of one database in this process. Its lock is held while the first connection opens it or the last one ends it.
#[derive(Default)]
pub(super) struct Place(Mutex<Option<Entry>>);

pub(super) struct Entry {
    pub(super) primary: Arc<Primary>,
    pub(super) connections: usize,
}

impl Place {
    pub(super) fn entry(&self) -> MutexGuard<'_, Option<Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The primary, unless it is just being opened or ended.
    fn now(&self) -> Option<Arc<Primary>> {
        self.0.try_lock().ok()?.as_ref().map(|entry| Arc::clone(&entry.primary))
    }
}

fn places() -> MutexGuard<'static, HashMap<PathBuf, Arc<Place>>> {
    OPEN.get().lock().unwrap_or_else(PoisonError::into_inner)
}

/// The place of the database `path`.
pub(super) fn place_of(path: &Path) -> Arc<Place> {
    let mut places = places();
    // One that nobody uses is of no use.
    places.retain(|_, place| {
        Arc::strong_count(place) > 1 || place.0.try_lock().map_or(true, |entry| entry.is_some())
    });
    Arc::clone(places.entry(path.to_path_buf()).or_default())
}

impl Primary {
    /// A connection opens the database `path`, which has these `replicas`, at least one. Each call is ended by one call of
    /// [`Primary::close`].
    ///
    /// `connect` and `host` are asked only by the first connection of the process.
    ///
    /// # Errors
    /// `Config` if the database is replicated to other URLs already, or with other settings, by this
    /// process or another; those of the folder of local state, and of `connect`.
    pub fn open(
        path: &Path,
        replicas: &[ReplicaConfig],
        options: &Options,
        clock: Arc<dyn Clock>,
        connect: impl Fn(&Location) -> Result<Arc<Replica>>,
        host: impl FnOnce() -> Arc<dyn Host>,
    ) -> Result<Arc<Self>> {
        // Which process publishes, and what becomes of the database, is decided by one after the other.
        let _turn = if Self::find(path).is_none() { Some(Turn::wait(path)?) } else { None };
        let primary = Self::join(path, replicas, options, clock, connect, host)?;
        // It is the same path: whether it is the same file is for replication to say.
        let _ = primary.stop_without_file();
        // Before the program reads: the database may be an earlier state of its replica.
        primary.wait_for_decision();
        Ok(primary)
    }

    fn join(
        path: &Path,
        replicas: &[ReplicaConfig],
        options: &Options,
        clock: Arc<dyn Clock>,
        connect: impl Fn(&Location) -> Result<Arc<Replica>>,
        host: impl FnOnce() -> Arc<dyn Host>,
    ) -> Result<Arc<Self>> {
        let place = place_of(path);
        let mut slot = place.entry();
        if let Some(entry) = slot.as_mut() {
            entry.primary.may_be_joined(replicas, options)?;
            entry.connections += 1;
            return Ok(Arc::clone(&entry.primary));
        }
        // Before anything is made of the primary.
        crate::runtime::handle()?;
        let stores = replicas.iter().map(|replica| connect(&replica.target)).collect::<Result<Vec<_>>>()?;
        let agreement = agree(path, replicas, &stores)?;
        let db = Arc::new(Context::new(path, replicas.len(), host(), clock));
        let primary = Arc::new(Self::begin(db, replicas, options.clone(), &stores, agreement)?);
        let version = env!("CARGO_PKG_VERSION");
        let names: Vec<String> = identities(replicas).iter().map(ToString::to_string).collect();
        tracing::info!(
            "{}: a primary of {}, by litestream_vfs {version}",
            path.display(),
            names.join(" and ")
        );
        *slot = Some(Entry { primary: Arc::clone(&primary), connections: 1 });
        Ok(primary)
    }

    fn begin(
        db: Arc<Context>,
        replicas: &[ReplicaConfig],
        options: Options,
        stores: &[Arc<Replica>],
        agreement: Agreement,
    ) -> Result<Self> {
        let mut shippers = Vec::new();
        for (number, replica) in replicas.iter().enumerate() {
            let agreed = &agreement.replicas[number];
            let identity = ReplicaIdentity::from(&replica.target);
            let parts = Parts {
                id: ReplicaId::of(&identity),
                place: identity.place(),
                options: replica.options.clone(),
                settings: agreed.settings.clone(),
                store: Arc::clone(&stores[number]),
            };
            let shipper = Arc::new(Shipper::new(Arc::clone(&db), number, parts));
            if let Some(notice) = &agreed.notice {
                shipper.notice(notice.clone());
            }
            shippers.push(shipper);
        }
        let owner = Arc::new(Ownership::new(Arc::clone(&db), shippers, options, agreement));
        owner.take_over()?;
        let runtime = crate::runtime::handle()?;
        let tasks = owner.shippers.iter().map(|shipper| Tasks::start(shipper, &runtime)).collect();
        let owner_task = runtime.spawn(ownership::run(Arc::clone(&owner)));
        Ok(Self { db, owner, replicas: replicas.to_vec(), tasks, owner_task })
    }

    /// Waits until it is decided how the database stands to its replicas. Stores that cannot be reached keep it no longer
    /// than [`LOOK_PATIENCE`]: then the decision is made when they are back.
    fn wait_for_decision(&self) {
        let is_over = |number: usize| self.tasks[number].is_finished();
        let all = |known: fn(&Shipper) -> bool| {
            self.shippers().iter().all(|shipper| known(shipper) || is_over(shipper.number))
        };
        self.db.bell.wait_for_decision(
            LOOK_PATIENCE,
            || all(Shipper::is_decided),
            || all(Shipper::is_local_known),
        );
    }

    /// Whether a further connection may have these replicas and options.
    ///
    /// # Errors
    /// `Config`, with both values of the first setting that is another.
    fn may_be_joined(&self, replicas: &[ReplicaConfig], options: &Options) -> Result<()> {
        let path = self.path();
        ownership::check_replicas(path, &identities(replicas), &identities(&self.replicas))?;
        for ours in replicas {
            let identity = ReplicaIdentity::from(&ours.target);
            let same = |theirs: &&ReplicaConfig| ReplicaIdentity::from(&theirs.target) == identity;
            let Some((number, theirs)) = self.replicas.iter().enumerate().find(|(_, theirs)| same(theirs))
            else {
                continue;
            };
            if theirs.target != ours.target {
                return Err(Error::config(format!(
                    "{} is replicated to {} already, with other credentials or other settings of its objects: open it \
                     with the same replica settings everywhere",
                    path.display(),
                    self.shippers()[number].store.url()
                )));
            }
            ownership::check(path, &ours.options.history.named, &self.shippers()[number].settings)?;
            refuse_other(path, ours.options.difference(&theirs.options))?;
        }
        refuse_other(path, options.difference(self.options()))
    }

    /// The primary of another process, as far as this one can be another. It ends with a kill.
    #[cfg(test)]
    pub(crate) fn beside(&self) -> Result<Arc<Self>> {
        let (host, clock) = (Arc::clone(&self.db.host), Arc::clone(&self.db.clock));
        let db = Arc::new(Context::new(self.path(), self.replicas.len(), host, clock));
        let stores: Vec<_> = self.shippers().iter().map(|shipper| Arc::clone(&shipper.store)).collect();
        let agreement = self.owner.agreement.beside();
        Self::begin(db, &self.replicas, self.options().clone(), &stores, agreement).map(Arc::new)
    }

    /// The primary that connections of this process have open for the database `path`.
    pub fn find(path: &Path) -> Option<Arc<Self>> {
        let place = places().get(path).map(Arc::clone)?;
        let entry = place.entry();
        entry.as_ref().map(|entry| Arc::clone(&entry.primary))
    }

    /// The primaries that connections of this process have open, by path.
    pub fn all() -> Vec<Arc<Self>> {
        let mut all: Vec<Arc<Self>> = places().values().filter_map(|place| place.now()).collect();
        all.sort_by(|a, b| a.path().cmp(b.path()));
        all
    }
}

fn identities(replicas: &[ReplicaConfig]) -> Vec<ReplicaIdentity> {
    replicas.iter().map(|replica| ReplicaIdentity::from(&replica.target)).collect()
}

fn agree(path: &Path, replicas: &[ReplicaConfig], stores: &[Arc<Replica>]) -> Result<Agreement> {
    let urls: Vec<String> = stores.iter().map(|store| store.url()).collect();
    let identities = identities(replicas);
    let wanted = replicas.iter().zip(&urls).zip(&identities).map(|((replica, url), identity)| Wanted {
        url,
        identity,
        history: &replica.options.history,
    });
    Agreement::enter(path, &wanted.collect::<Vec<_>>())
}

/// Refuses two replicas that are one, however they are written.
///
/// # Errors
/// `Config` that names it.
pub fn refuse_twins(replicas: &[ReplicaConfig]) -> Result<()> {
    for (number, replica) in replicas.iter().enumerate() {
        let whereabouts = replica.target.whereabouts();
        if replicas[..number].iter().any(|earlier| earlier.target.whereabouts() == whereabouts) {
            return Err(Error::config(format!(
                "replica: {} is given twice: each replica of a database has a URL of its own",
                replica.target
            )));
        }
    }
    Ok(())
}

fn refuse_other(path: &Path, difference: Option<(&'static str, String, String)>) -> Result<()> {
    let Some((name, ours, theirs)) = difference else { return Ok(()) };
    Err(Error::config(format!(
        "{name}={ours} is asked for, but this process has {} open with {name}={theirs}: leave {name} out of the URI and the \
         environment, give the same value, or close the database everywhere in this process first",
        path.display()
    )))
}
