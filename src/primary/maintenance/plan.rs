//! What retention would keep of a replica's files and what it would delete, and why.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::clock::Timestamp;
use crate::error::Result;
use crate::ltx::{FileId, Level};
use crate::primary::maintenance::due::Due;
use crate::primary::maintenance::inventory::Inventory;
use crate::primary::maintenance::named::text;
use crate::primary::maintenance::retained::Retained;
use crate::primary::maintenance::settings::Settings;
use crate::replica::{self, Source};
use crate::store::{FileInfo, Replica};

/// A file, and what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// The file. Its time is when it was stored.
    pub file: FileInfo,
    /// What becomes of it.
    pub fate: Fate,
}

/// What becomes of a file, and why, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It stays.
    Keep(String),
    /// It is deleted.
    Delete(String),
}

/// What retention by `settings` makes of the files of `store` at the time `now`, by level and transaction.
///
/// # Errors
/// Those of the store; `Corrupt` naming a file; `NotFound` if the replica is empty.
pub async fn retention_plan(
    store: Arc<Replica>,
    settings: &Settings,
    now: Timestamp,
) -> Result<Vec<Planned>> {
    let mut inventory = Inventory::list(store.as_ref(), now, settings.calendar).await?;
    if inventory.all().is_empty() {
        return Err(replica::only_old(&store).await.unwrap_or_else(replica::empty));
    }
    loop {
        let due = due(&inventory, settings, &store);
        match due.unknown(now) {
            None => return Ok(planned(&due, now)),
            Some(id) => {
                let committed = committed(&store, &inventory, id).await?;
                inventory.learn(id.name.max(), committed);
            }
        }
    }
}

/// When the last transaction of the file `id` was committed: its header says so.
///
/// # Errors
/// Those of the store; `NotFound` if the file is gone; `Corrupt`.
pub(super) async fn committed(store: &Arc<Replica>, files: &Inventory, id: FileId) -> Result<Timestamp> {
    let file = files.get(id).expect("BUG: a file is asked about that is not there");
    Source::new(Arc::clone(store)).header(file).await.map(|header| header.timestamp)
}

fn due<'a>(inventory: &'a Inventory, settings: &'a Settings, store: &Replica) -> Due<'a> {
    Due {
        inventory,
        settings,
        snapshots: settings.snapshot_windows(&store.url()),
        may_delete: true,
        sealed: None,
    }
}

fn planned(due: &Due<'_>, now: Timestamp) -> Vec<Planned> {
    let doomed = due.doomed(now);
    let retained = due.retained(&doomed).unwrap_or_default();
    let files = due.inventory.all().into_iter();
    files.map(|file| Planned { fate: fate(due, now, &doomed, &retained, &file), file }).collect()
}

fn fate(
    due: &Due<'_>,
    now: Timestamp,
    doomed: &BTreeSet<FileId>,
    retained: &Retained,
    file: &FileInfo,
) -> Fate {
    let kept = text(due.settings.snapshot_retention);
    let base = due.base(now).map(|base| base.id);
    let is_old = base.is_some_and(|base| file.id.name.max() < base.name.max());
    if doomed.contains(&file.id) {
        return match retained.keeps(file.id) {
            Some(promise) => Fate::Keep(promise.to_string()),
            None if is_old => Fate::Delete(format!("it leads only to states that are older than {kept}")),
            None => Fate::Delete(format!(
                "it was merged into a higher level, and l0_retention={} is over",
                text(due.settings.l0_retention)
            )),
        };
    }
    Fate::Keep(match retained.keeps(file.id) {
        _ if !due.settings.retention => "retention is off: nothing is deleted".to_owned(),
        Some(promise) if is_old => promise.to_string(),
        _ if Some(file.id) == base => format!("every state within {kept} can be made from it"),
        _ if is_old => "it is the last one of its level, and says how far that is".to_owned(),
        _ if base.is_none() => format!("no later snapshot is older than {kept} yet"),
        _ if file.id.level == Level::L0 => "it leads to a state of late".to_owned(),
        _ => format!("it leads to states within {kept}"),
    })
}
