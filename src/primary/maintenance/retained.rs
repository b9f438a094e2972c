//! What retention by calendar keeps of the files that would be deleted without it.

use std::collections::{BTreeMap, BTreeSet};

use crate::ltx::{FileId, Level, Txid};
use crate::primary::maintenance::calendar::{Calendar, Promise, Unknown, promised};
use crate::primary::maintenance::inventory::Inventory;
use crate::primary::maintenance::ways::{Way, ways};
use crate::replica::{Plan, RestorePoint};
use crate::store::FileInfo;

/// The restore points that are kept, and the files that lead to them.
#[derive(Debug, Default)]
pub(super) struct Retained {
    promises: Vec<Promise>,
    ways: BTreeMap<Txid, Way>,
    /// For each file on a way the point that it leads to, by its place in `promises`.
    files: BTreeMap<FileId, usize>,
}

impl Retained {
    /// What `calendar` keeps where the files that are `doomed` would be deleted: the others are there anyway, and cost
    /// nothing.
    ///
    /// # Errors
    /// A time that must be known first.
    pub(super) fn of(
        inventory: &Inventory,
        calendar: Calendar,
        doomed: &BTreeSet<FileId>,
    ) -> Result<Self, Unknown> {
        if calendar.is_empty() {
            return Ok(Self::default());
        }
        let promises = promised(&inventory.points(), calendar)?;
        let points: Vec<Txid> = promises.iter().map(|promise| promise.txid).collect();
        let ways = ways(&inventory.sound(), &points, |file| cost(file, doomed));
        let numbered = points.iter().enumerate();
        let files =
            numbered.flat_map(|(number, point)| ways[point].files.iter().map(move |id| (*id, number)));
        Ok(Self { files: files.collect(), promises, ways })
    }

    /// The point for which the file `id` is kept.
    pub(super) fn keeps(&self, id: FileId) -> Option<&Promise> {
        self.files.get(&id).map(|number| &self.promises[*number])
    }

    /// The files that lead to the oldest point, if a full copy of it were better: without it, what once led to points that
    /// are kept no more would stay for ever, and become more.
    pub(super) fn long_way(&self, inventory: &Inventory) -> Option<Vec<FileInfo>> {
        let oldest = self.promises.first()?;
        let plan = Plan::new(&inventory.sound(), RestorePoint::Txid(oldest.txid)).ok()?;
        let base = plan.files().first().filter(|base| base.id.name.is_snapshot())?;
        (self.ways[&oldest.txid].increments > base.size).then(|| plan.files().to_vec())
    }
}

/// What it costs to keep a file, in bytes. A snapshot counts for less, since a restore that begins with it asks for less; and
/// of equal ways the one of fewer files is better.
fn cost(file: &FileInfo, doomed: &BTreeSet<FileId>) -> u64 {
    match file.id.level {
        _ if !doomed.contains(&file.id) => 0,
        Level::SNAPSHOT => (file.size / 4).saturating_mul(3).saturating_add(1),
        _ => file.size.saturating_add(1),
    }
}
