//! One core per replica, settings and process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::core::Core;
use super::options::Options;
use super::plan::RestorePoint;
use crate::error::{Error, Result};
use crate::fork::PerProcess;
use crate::store::{Location, ReplicaIdentity};

/// What must be equal for two connections to share a core.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    target: Location,
    options: Options,
}

/// The place of a core, also while it is being opened.
#[derive(Debug, Default)]
struct Place {
    core: Weak<Core>,
    /// How often opening it failed, and the last reason.
    failures: u64,
    error: Option<Error>,
}

type Places = HashMap<Key, Arc<Mutex<Place>>>;

/// Threads do not survive `fork`, so a child does not share with its parent.
static PLACES: PerProcess<Mutex<Places>> = PerProcess::new();

/// Opens the replica at `target`, or joins the connections of this process that have it open with the
/// same options. Waits up to [`Options::open_timeout`] for a replica that is still empty. Whoever wants another `point`
/// than the latest state, and chooses it, does not need that one.
///
/// # Errors
/// Those of the store; `NotFound` if the replica stays empty; `Corrupt`. Who waited for another's
/// attempt that fails gets the same error.
pub fn open(target: &Location, options: &Options, point: RestorePoint) -> Result<Arc<Core>> {
    let key = Key { target: target.clone(), options: options.clone() };
    let place = place(key);
    let failures = match place.try_lock() {
        Ok(place) => place.failures,
        // Somebody is opening it. What fails from now on fails for us too.
        Err(_) => u64::MAX,
    };
    let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(core) = place.core.upgrade() {
        if point == RestorePoint::Latest {
            core.reach_latest(|| false)?;
        }
        return Ok(core);
    }
    if place.failures != failures
        && let Some(error) = &place.error
    {
        return Err(error.clone());
    }
    match Core::at_place(target.connect(), &place_of(target), options, point) {
        Ok(core) => {
            place.core = Arc::downgrade(&core);
            place.error = None;
            Ok(core)
        }
        Err(e) => {
            place.failures += 1;
            place.error = Some(e.clone());
            Err(e)
        }
    }
}

/// The replicas that connections of this process have open, by URL; without one that is being opened.
pub fn all() -> Vec<Arc<Core>> {
    let places = PLACES.get().lock().unwrap_or_else(PoisonError::into_inner);
    let mut all: Vec<(String, Arc<Core>)> = places
        .iter()
        .filter_map(|(key, place)| Some((place_of(&key.target), place.try_lock().ok()?.core.upgrade()?)))
        .collect();
    all.sort_by(|(a, _), (b, _)| a.cmp(b));
    all.into_iter().map(|(_, core)| core).collect()
}

/// What tells the replica at `target` from all others.
fn place_of(target: &Location) -> String {
    ReplicaIdentity::from(target).to_string()
}

fn place(key: Key) -> Arc<Mutex<Place>> {
    let mut places = PLACES.get().lock().unwrap_or_else(PoisonError::into_inner);
    // A place that nobody looks at and whose core is gone is of no use.
    places.retain(|_, place| {
        Arc::strong_count(place) > 1 || place.try_lock().is_ok_and(|p| p.core.strong_count() > 0)
    });
    places.entry(key).or_default().clone()
}
