//! The primaries of this process, and how a connection opens one.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::time::Instant;

use super::Primary;
use super::registry::{self, LINGERS, Now, Silences, Slot};
use super::{Checkpoints, Waits};
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::primary::context::Context;
use crate::primary::hooks::Host;
use crate::primary::options::{Options, ReplicaConfig};
use crate::primary::ownership::{self, Again, Agreement, Left, Ownership, Turn, Wanted};
use crate::primary::shipper::{Parts, ReplicaId, Shipper, Tasks};
use crate::store::{Location, Replica, ReplicaIdentity};

/// How long an open waits at most for a store that does not answer.
const LOOK_PATIENCE: Duration = Duration::from_secs(3);

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
        let slot = Slot::of(path);
        let turn = slot.turn();
        if let Some(primary) = Self::join(&slot, replicas, options)? {
            drop(turn);
            primary.wait_for_decision();
            return Ok(primary);
        }
        // Which process publishes, and what becomes of the database, is decided by one after the other.
        let process_turn = Turn::wait(path)?;
        let primary = Self::open_first(&slot, path, replicas, options, clock, connect, host)?;
        drop(turn);
        primary.wait_for_decision();
        drop(process_turn);
        Ok(primary)
    }

    /// The primary, if connections of this process have it open.
    fn join(slot: &Slot, replicas: &[ReplicaConfig], options: &Options) -> Result<Option<Arc<Self>>> {
        let mut now = slot.now();
        let Now::Open { primary, connections } = &mut *now else { return Ok(None) };
        primary.may_be_joined(replicas, options)?;
        *connections += 1;
        Ok(Some(Arc::clone(primary)))
    }

    /// The primary of the first connection of this process.
    fn open_first(
        slot: &Slot,
        path: &Path,
        replicas: &[ReplicaConfig],
        options: &Options,
        clock: Arc<dyn Clock>,
        connect: impl Fn(&Location) -> Result<Arc<Replica>>,
        host: impl FnOnce() -> Arc<dyn Host>,
    ) -> Result<Arc<Self>> {
        // Before anything is made of the primary.
        crate::runtime::handle()?;
        let before = Lingering::take(slot, replicas, options);
        let mut silences = match &before {
            Some(before) => before.primary.silences(),
            None => slot.take_silences(),
        };
        let stores = match &before {
            Some(before) => before.stores(),
            None => replicas.iter().map(|replica| connect(&replica.target)).collect::<Result<Vec<_>>>()?,
        };
        let agreement = match agree(path, replicas, &stores) {
            Ok(agreement) => agreement,
            Err(e) => {
                before.iter().for_each(Lingering::end);
                return Err(e);
            }
        };
        let mut trusted = before.as_ref();
        if let Some(before) = &before {
            match before.primary.owner.open_again(before.left, &agreement) {
                Ok(Again::Same) => {
                    *slot.now() = Now::Open { primary: Arc::clone(&before.primary), connections: 1 };
                    before.primary.opened_again();
                    return Ok(Arc::clone(&before.primary));
                }
                Ok(Again::Written) => (trusted, silences) = (None, Silences::default()),
                Ok(Again::Other) | Err(_) => {}
            }
            before.end();
        }
        let db = Arc::new(Context::new(path, replicas.len(), host(), clock));
        let primary =
            Arc::new(Self::begin(db, replicas, options.clone(), &stores, agreement, trusted, &silences)?);
        if before.is_none() {
            let version = env!("CARGO_PKG_VERSION");
            let names: Vec<String> = identities(replicas).iter().map(ToString::to_string).collect();
            tracing::info!(
                "{}: a primary of {}, by litestream_vfs {version}",
                path.display(),
                names.join(" and ")
            );
        }
        *slot.now() = Now::Open { primary: Arc::clone(&primary), connections: 1 };
        Ok(primary)
    }

    fn begin(
        db: Arc<Context>,
        replicas: &[ReplicaConfig],
        options: Options,
        stores: &[Arc<Replica>],
        agreement: Agreement,
        before: Option<&Lingering>,
        silences: &Silences,
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
            if let Some(before) = before {
                shipper.trust_replica(&before.primary.shippers()[number], before.lasts());
            }
            if let Some(silence) = silences.of(&shipper.id, &db.path) {
                shipper.expects(silence);
            }
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
        Ok(Self {
            db,
            owner,
            replicas: replicas.to_vec(),
            tasks,
            owner_task,
            is_to_be_heard: AtomicBool::new(false),
            waits: Waits::default(),
            checkpoints: Checkpoints::default(),
        })
    }

    /// Waits until it is decided how the database stands to its replicas. Stores that cannot be reached keep it no longer
    /// than [`LOOK_PATIENCE`]: then the decision is made when they are back.
    fn wait_for_decision(&self) {
        // It is the same path: whether it is the same file is for replication to say.
        let _ = self.stop_without_file();
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
        let (host, clock) = (self.db.own_host(), Arc::clone(&self.db.clock));
        let db = Arc::new(Context::new(self.path(), self.replicas.len(), host, clock));
        let stores: Vec<_> = self.shippers().iter().map(|shipper| Arc::clone(&shipper.store)).collect();
        let agreement = self.owner.agreement.beside();
        Self::begin(
            db,
            &self.replicas,
            self.options().clone(),
            &stores,
            agreement,
            None,
            &Silences::default(),
        )
        .map(Arc::new)
    }

    /// The primary that connections of this process have open for the database `path`.
    pub fn find(path: &Path) -> Option<Arc<Self>> {
        registry::find(path)
    }

    /// The primaries that connections of this process have open, by path.
    pub fn all() -> Vec<Arc<Self>> {
        let mut all = registry::all();
        all.sort_by(|a, b| a.path().cmp(b.path()));
        all
    }
}

/// What this process has in memory of a database that it had open a moment ago.
struct Lingering {
    primary: Arc<Primary>,
    left: Left,
    since: Instant,
}

impl Lingering {
    /// Takes it, for an open with these `replicas` and `options`. Of another database it is of no use.
    fn take(slot: &Slot, replicas: &[ReplicaConfig], options: &Options) -> Option<Self> {
        let mut now = slot.now();
        let (primary, left, since) = match std::mem::take(&mut *now) {
            Now::Lingering { primary, left, since } => (primary, left, since),
            other => {
                *now = other;
                return None;
            }
        };
        drop(now);
        let lingering = Self { primary, left, since };
        // Each connection has its own.
        let same = Options { close_timeout: lingering.primary.options().close_timeout, ..options.clone() };
        if lingering.primary.replicas == replicas && *lingering.primary.options() == same {
            return Some(lingering);
        }
        lingering.end();
        None
    }

    fn stores(&self) -> Vec<Arc<Replica>> {
        self.primary.shippers().iter().map(|shipper| Arc::clone(&shipper.store)).collect()
    }

    /// How long the replicas are still what this process left there.
    fn lasts(&self) -> Duration {
        LINGERS.saturating_sub(self.since.elapsed())
    }

    fn end(&self) {
        self.primary.end_lingering();
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
        "{name}={ours} is asked for, but this process has {} open with {name}={theirs}: leave {name} out of the URI, the \
         environment and the configuration file, give the same value, or close the database everywhere in this process first",
        path.display()
    )))
}
