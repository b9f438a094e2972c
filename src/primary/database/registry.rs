//! The databases that this process has open, by path, and those that it had open a moment ago.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::fork::PerProcess;
use crate::primary::database::Primary;
use crate::primary::file_fingerprint::Identity;
use crate::primary::ownership::Left;
use crate::primary::shipper::{ReplicaId, Silence};
use crate::runtime;

/// How long a database lingers after its last close.
pub(super) const LINGERS: Duration = Duration::from_secs(30);

/// How often it is looked at meanwhile.
const LOOK: Duration = Duration::from_secs(1);

/// How long who opened the database again does not hear others: a short request is over by then, and whoever comes next may
/// publish.
const REQUEST: Duration = Duration::from_millis(100);

/// The databases of this process. A forked child begins with none.
static SLOTS: PerProcess<Mutex<HashMap<PathBuf, Arc<Slot>>>> = PerProcess::new();

/// The place of one database.
#[derive(Default)]
pub(super) struct Slot {
    /// Held while the first connection opens the database, and while the last one leaves it: file access, but no request.
    turn: Mutex<()>,
    /// Held for a moment. Taken after `turn` by who holds both.
    now: Mutex<Now>,
    /// The task that ends what outlives the last connection is on its way. Changed by who has the `turn`.
    is_watched: AtomicBool,
}

/// What this process is to a database.
#[derive(Default)]
pub(super) enum Now {
    /// Nothing.
    #[default]
    Closed,
    /// It has it open. Without connections, the last one is being closed.
    Open { primary: Arc<Primary>, connections: usize },
    /// It had it open, until `since`.
    Lingering { primary: Arc<Primary>, left: Left, since: Instant },
    /// It had it open, until `since`, and nothing of that is left but that stores said nothing.
    Silent { silences: Silences, since: Instant },
}

/// The replicas of a database whose stores said nothing.
#[derive(Default)]
pub(super) struct Silences {
    /// The database file.
    pub(super) file: Option<Identity>,
    pub(super) replicas: Vec<(ReplicaId, Silence)>,
}

impl Silences {
    /// The silence of the replica `id` of the database `path`; none if another file has taken its place, which may have to
    /// be compared with the replica before a program reads it.
    pub(super) fn of(&self, id: &ReplicaId, path: &Path) -> Option<Silence> {
        let file = self.file?;
        let (_, silence) = self.replicas.iter().find(|(of, _)| of == id)?;
        Identity::of(path).is_some_and(|now| now.is(&file)).then(|| silence.clone())
    }
}

impl Slot {
    /// That of the database `path`.
    pub(super) fn of(path: &Path) -> Arc<Self> {
        let mut slots = slots();
        if let Some(slot) = slots.get(path) {
            return Arc::clone(slot);
        }
        let slot = Arc::<Self>::default();
        slots.insert(path.to_path_buf(), Arc::clone(&slot));
        slot
    }

    pub(super) fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The primary, if a connection has it open.
    fn open(&self) -> Option<Arc<Primary>> {
        match &*self.now() {
            Now::Open { primary, .. } => Some(Arc::clone(primary)),
            Now::Closed | Now::Lingering { .. } | Now::Silent { .. } => None,
        }
    }

    /// What `left` says outlives the last connection to the database `path`, for a while.
    pub(super) fn outlives(&self, path: &Path, left: Now) {
        *self.now() = left;
        if !self.is_watched.swap(true, Ordering::SeqCst)
            && let Ok(runtime) = runtime::handle()
        {
            runtime.spawn(watch(path.to_path_buf()));
        }
    }

    /// The stores that said nothing a moment ago, of a database of which nothing else is known.
    pub(super) fn take_silences(&self) -> Silences {
        let mut now = self.now();
        match std::mem::take(&mut *now) {
            Now::Silent { silences, since } if since.elapsed() < LINGERS => silences,
            Now::Silent { .. } => Silences::default(),
            other => {
                *now = other;
                Silences::default()
            }
        }
    }

    /// A connection of this process is closed; whether it was the last one.
    pub(super) fn leave(&self, primary: &Primary) -> bool {
        match &mut *self.now() {
            Now::Open { primary: open, connections } if open.is(primary) => {
                *connections -= 1;
                *connections == 0
            }
            _ => false,
        }
    }

    /// The primary, to be ended, unless a connection has it open by now.
    pub(super) fn take_closed(&self, primary: &Primary) -> Option<Arc<Primary>> {
        let mut now = self.now();
        match &*now {
            Now::Open { primary: open, connections: 0 } if open.is(primary) => {}
            _ => return None,
        }
        match std::mem::take(&mut *now) {
            Now::Open { primary, .. } => Some(primary),
            Now::Closed | Now::Lingering { .. } | Now::Silent { .. } => None,
        }
    }
}

fn slots() -> MutexGuard<'static, HashMap<PathBuf, Arc<Slot>>> {
    SLOTS.get().lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes the slot of `path` if nobody uses it.
pub(super) fn forget(path: &Path, slot: &Arc<Slot>) {
    let mut slots = slots();
    // Here, in the map, and nowhere else.
    if Arc::strong_count(slot) == 2 && matches!(*slot.now(), Now::Closed) {
        slots.remove(path);
    }
}

/// The primaries that connections of this process have open, at its end: none if that cannot be told at once.
pub(super) fn open_at_exit() -> Vec<Arc<Primary>> {
    let Ok(slots) = SLOTS.get().try_lock() else { return Vec::new() };
    let open = slots.values().filter_map(|slot| match &*slot.now.try_lock().ok()? {
        Now::Open { primary, .. } => Some(Arc::clone(primary)),
        Now::Closed | Now::Lingering { .. } | Now::Silent { .. } => None,
    });
    open.collect()
}

/// The primary that connections of this process have open for the database `path`.
pub(super) fn find(path: &Path) -> Option<Arc<Primary>> {
    let slot = slots().get(path).map(Arc::clone)?;
    slot.open()
}

/// The primaries that connections of this process have open.
pub(super) fn all() -> Vec<Arc<Primary>> {
    let slots: Vec<Arc<Slot>> = slots().values().map(Arc::clone).collect();
    slots.iter().filter_map(|slot| slot.open()).collect()
}

/// Looks after the database `path`, of which something lingers, until it is opened again for longer than a request, or
/// its time has come.
pub(super) async fn watch(path: PathBuf) {
    loop {
        tokio::time::sleep(LOOK).await;
        let path = path.clone();
        match runtime::blocking(move || Ok(look_after(&path))).await {
            Ok(Watched::Lingers) => {}
            Ok(Watched::Not) | Err(_) => return,
        }
    }
}

/// Lets the database `path`, which was opened again, hear other processes if it is open after the time of a request. Until
/// then they would be kept waiting by a publisher that does not answer; after each short request the next one may publish.
pub(super) async fn be_heard(path: PathBuf) {
    tokio::time::sleep(REQUEST).await;
    let heard = runtime::blocking(move || {
        let Some(slot) = slots().get(&path).map(Arc::clone) else { return Ok(()) };
        let turn = slot.turn();
        let found = match &*slot.now() {
            Now::Open { primary, .. } => Some((Arc::clone(primary), true)),
            Now::Lingering { primary, .. } => Some((Arc::clone(primary), false)),
            Now::Closed | Now::Silent { .. } => None,
        };
        if let Some((primary, is_open)) = found {
            primary.request_is_over(is_open);
        }
        drop(turn);
        forget(&path, &slot);
        Ok(())
    });
    // Whoever asks says what it cannot reach.
    let _ = heard.await;
}

/// Whether something lingers of a database.
enum Watched {
    Lingers,
    Not,
}

fn look_after(path: &Path) -> Watched {
    let Some(slot) = slots().get(path).map(Arc::clone) else { return Watched::Not };
    let turn = slot.turn();
    let watched = slot.look_after();
    if matches!(watched, Watched::Not) {
        slot.is_watched.store(false, Ordering::SeqCst);
    }
    drop(turn);
    forget(path, &slot);
    watched
}

impl Slot {
    /// Ends what outlived the last connection, if its time has come. The caller has the `turn`.
    fn look_after(&self) -> Watched {
        let mut now = self.now();
        match &*now {
            Now::Lingering { primary, since, .. } if since.elapsed() < LINGERS => {
                let primary = Arc::clone(primary);
                drop(now);
                primary.lingers();
                return Watched::Lingers;
            }
            Now::Silent { since, .. } if since.elapsed() < LINGERS => return Watched::Lingers,
            Now::Open { primary, .. } => {
                let primary = Arc::clone(primary);
                drop(now);
                primary.stays_open();
                return Watched::Not;
            }
            Now::Lingering { .. } | Now::Silent { .. } | Now::Closed => {}
        }
        let outlived = std::mem::take(&mut *now);
        drop(now);
        if let Now::Lingering { primary, .. } = outlived {
            primary.end_lingering();
        }
        Watched::Not
    }
}
