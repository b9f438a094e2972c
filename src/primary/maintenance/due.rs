//! What is to be done with the files of a replica, and when: decided from what is there alone, so that
//! it does not matter which process did the rest, or whether it was interrupted.
//!
//! A level takes up what its source level holds from windows of its interval that are over, as one
//! file. That is how Litestream 0.5.17 cuts them: it merges, at the end of each window, all that the
//! level below has. The order is: levels from below, the snapshot, deletions.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::ltx::{FileId, FileName, Level, Txid};
use crate::primary::maintenance::calendar::Unknown;
use crate::primary::maintenance::inventory::{Inventory, chain};
use crate::primary::maintenance::retained::Retained;
use crate::primary::maintenance::settings::{
    Settings, Windows, after, before, round_up, window_end, window_start,
};
use crate::store::FileInfo;

/// Files up to this size are read into memory whole.
pub(super) const SMALL: u64 = 64 * 1024;
/// As many bytes of small files go into one merge.
const MOST_SMALL: u64 = 8 * 1024 * 1024;
/// As many files that are not small go into one merge: each is a download that is under way.
const MOST_STREAMS: usize = 64;

/// A piece of work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Job {
    /// Several files become one.
    Merge(Merge),
    /// Files that need not be kept go.
    Delete(Vec<FileId>),
}

/// Several files become one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Merge {
    /// The file to write.
    pub(super) to: FileId,
    /// What it is made of, oldest first; at least one.
    pub(super) inputs: Vec<FileInfo>,
}

impl Merge {
    fn new(level: Level, inputs: Vec<FileInfo>) -> Option<Self> {
        let (first, last) = (inputs.first()?.id.name, inputs.last()?.id.name);
        let name = FileName::new(first.min(), last.max()).expect("BUG: the files of a chain ascend");
        Some(Self { to: FileId::new(level, name), inputs })
    }

    /// The latest time of its inputs.
    pub(super) fn timestamp(&self) -> Timestamp {
        self.inputs.iter().map(|f| f.timestamp).max().expect("BUG: a merge has inputs")
    }
}

/// The decisions for one state of a replica.
#[derive(Clone, Copy, Debug)]
pub(super) struct Due<'a> {
    pub(super) inventory: &'a Inventory,
    pub(super) settings: &'a Settings,
    /// At whose ends snapshots are made.
    pub(super) snapshots: Windows,
    /// Files may be deleted, as far as is known.
    pub(super) may_delete: bool,
    /// Where files are sealed: what can be merged of them. What cannot be read is left out.
    pub(super) sealed: Option<&'a Sealed>,
}

/// Which files of a sealed replica can be merged.
#[derive(Clone, Debug, Default)]
pub(super) struct Sealed {
    /// The files whose keys are kept.
    pub(super) with_keys: BTreeSet<FileId>,
    /// The first transaction that was sealed.
    pub(super) since: Option<Txid>,
}

impl Due<'_> {
    /// What is to be done `now`; time has passed until `certain` without doubt, which counts for deletions.
    pub(super) fn job(&self, now: Timestamp, certain: Timestamp) -> Option<Job> {
        if self.settings.levels.is_empty() {
            return None;
        }
        let merge =
            self.targets().find_map(|(source, to, interval)| self.compaction(source, to, interval, now));
        let merge = match self.sealed {
            None => merge.or_else(|| self.snapshot(now)).or_else(|| self.copy_of_oldest(certain)),
            // Snapshots are made from the database.
            Some(_) => merge,
        };
        merge.map(Job::Merge).or_else(|| self.deletion(certain))
    }

    /// Whether a snapshot is to be made from the database: it is due, there are files of which nothing can be made, or what
    /// is sealed does not begin with one yet.
    pub(super) fn wants_snapshot(&self, now: Timestamp) -> bool {
        let Some(sealed) = self.sealed.filter(|_| !self.settings.levels.is_empty()) else { return false };
        let full = self.inventory.last_full();
        let is_new =
            sealed.since.is_some_and(|since| full < Some(since) && self.inventory.last() >= Some(since));
        let is_left_out = |f: &FileInfo| {
            !self.can_be_read(f) && Some(f.id.name.max()) > full && !self.is_merged_above(f.id)
        };
        let leaves_out = |(source, _, _)| self.inventory.level(source).any(is_left_out);
        is_new || self.targets().any(leaves_out) || self.snapshot(now).is_some()
    }

    /// Whether something can be made of a file.
    fn can_be_read(&self, file: &FileInfo) -> bool {
        self.sealed.is_none_or(|sealed| sealed.with_keys.contains(&file.id))
    }

    /// The file the time of whose last commit must be known before anything can be deleted.
    pub(super) fn unknown(&self, now: Timestamp) -> Option<FileId> {
        let doomed = self.doomed(now);
        if doomed.is_empty() { None } else { self.retained(&doomed).err().map(|Unknown(id)| id) }
    }

    /// When there will be something to do, later than `now`, if nothing is published until then.
    pub(super) fn next(&self, now: Timestamp) -> Option<Timestamp> {
        let tick = *self.settings.levels.first()?;
        let levels = self.targets().filter_map(|(source, to, interval)| {
            let oldest = self.beyond(source, to).into_iter().find(|file| self.can_be_read(file));
            oldest.map(|file| window_end(file.timestamp, interval))
        });
        // Many files are deleted at once rather than each at its own time.
        let deletions = self.deletion_times(now).into_iter().map(|time| round_up(time, tick));
        levels.chain(self.snapshot_times()).chain(deletions).filter(|time| *time > now).min()
    }

    /// Each level that is merged, where to, and how often.
    fn targets(&self) -> impl Iterator<Item = (Level, Level, Duration)> {
        let level = |n: usize| Level::new(n as u8).expect("BUG: there are at most 8 levels");
        self.settings.levels.iter().enumerate().map(move |(n, interval)| (level(n), level(n + 1), *interval))
    }

    /// The files of `source` that hold more than `to` does.
    fn beyond(&self, source: Level, to: Level) -> Vec<&FileInfo> {
        let reached = self.inventory.last_of(to);
        self.inventory.level(source).filter(|f| Some(f.id.name.max()) > reached).collect()
    }

    fn compaction(&self, source: Level, to: Level, interval: Duration, now: Timestamp) -> Option<Merge> {
        let over = window_start(now, interval);
        let files = self.beyond(source, to).into_iter().take_while(|f| f.timestamp < over);
        let files: Vec<_> = files.filter(|f| self.can_be_read(f)).collect();
        // Where files are missing, or cannot be read, the level continues behind the gap.
        let before_first = files.first()?.id.name.min().get() - 1;
        let reached = self.inventory.last_of(to).map_or(0, Txid::get).max(before_first);
        Merge::new(to, limited(chain(files, reached)))
    }

    /// The snapshot that is due. The full copy that a replica begins with counts as one.
    fn snapshot(&self, now: Timestamp) -> Option<Merge> {
        let over = self.snapshots.start(now);
        let snapshot = self.snapshot_of(|file| file.timestamp < over)?;
        (Some(snapshot.to.name.max()) > self.inventory.last_full()).then_some(snapshot)
    }

    /// The snapshot of all that is there; `None` if it is there already.
    pub(super) fn snapshot_now(&self) -> Option<Merge> {
        self.snapshot_of(|_| true)
    }

    fn snapshot_of(&self, admits: impl Fn(&FileInfo) -> bool) -> Option<Merge> {
        let base = self.inventory.snapshots().pop();
        let reached = base.map_or(0, |base| base.id.name.max().get());
        let increments = self.inventory.increments().into_iter().filter(|f| admits(f));
        let later = chain(increments, reached);
        if later.is_empty() {
            return None;
        }
        let snapshot = Merge::new(Level::SNAPSHOT, base.cloned().into_iter().chain(later).collect());
        // One that is damaged keeps its name.
        snapshot.filter(|snapshot| !self.inventory.is_taken(snapshot.to))
    }

    /// When snapshots may become due.
    fn snapshot_times(&self) -> Vec<Timestamp> {
        let full = self.inventory.last_full();
        let later = self.inventory.increments().into_iter().filter(|f| Some(f.id.name.max()) > full);
        later.map(|f| self.snapshots.end(f.timestamp)).collect()
    }

    fn deletion(&self, now: Timestamp) -> Option<Job> {
        let doomed = self.doomed(now);
        let retained = self.retained(&doomed).ok()?;
        let ids: Vec<FileId> = doomed.into_iter().filter(|id| retained.keeps(*id).is_none()).collect();
        (!ids.is_empty()).then_some(Job::Delete(ids))
    }

    /// What need not be kept for states within the retention, nor for itself.
    pub(super) fn doomed(&self, now: Timestamp) -> BTreeSet<FileId> {
        if !self.deletes() {
            return BTreeSet::new();
        }
        let base = self.base(now);
        let mut ids: BTreeSet<FileId> = self.expired_l0(now, base).into_iter().collect();
        if let Some(base) = base {
            ids.extend(self.behind(base));
            let damaged = self.inventory.damaged().map(|file| file.id);
            ids.extend(damaged.filter(|id| id.name.max() < base.id.name.max()));
        }
        ids
    }

    /// What the calendar keeps of the files that are `doomed`.
    ///
    /// # Errors
    /// A time that must be known first.
    pub(super) fn retained(&self, doomed: &BTreeSet<FileId>) -> Result<Retained, Unknown> {
        Retained::of(self.inventory, self.settings.calendar, doomed)
    }

    /// The full copy of the oldest point that the calendar keeps, where that is better than what leads to it.
    fn copy_of_oldest(&self, now: Timestamp) -> Option<Merge> {
        if self.settings.calendar.is_empty() {
            return None;
        }
        let inputs = self.retained(&self.doomed(now)).ok()?.long_way(self.inventory)?;
        let copy = Merge::new(Level::SNAPSHOT, limited(inputs));
        copy.filter(|copy| copy.inputs.len() > 1 && !self.inventory.is_taken(copy.to))
    }

    fn deletes(&self) -> bool {
        self.settings.retention && self.may_delete
    }

    /// The snapshot that all states within the retention can be made from. Older ones can go.
    pub(super) fn base(&self, now: Timestamp) -> Option<&FileInfo> {
        let oldest = before(now, self.settings.snapshot_retention);
        self.inventory.snapshots().into_iter().rfind(|f| f.timestamp <= oldest)
    }

    /// The files of the levels above 0 that only lead to states before that of `base`. The last of each
    /// level stays, if the level is still used: it tells how far that is.
    fn behind(&self, base: &FileInfo) -> Vec<FileId> {
        let levels = Level::all().filter(|level| *level != Level::L0);
        let used =
            |level: Level| level == Level::SNAPSHOT || usize::from(level.get()) <= self.settings.levels.len();
        let files = levels.flat_map(|level| {
            let last = self.inventory.last_of(level).filter(|_| used(level));
            self.inventory.level(level).filter(move |f| Some(f.id.name.max()) != last)
        });
        files.map(|f| f.id).filter(|id| id.name.max() < base.id.name.max()).collect()
    }

    /// The oldest files of level 0, as far as they are part of another level and old enough. The last
    /// one stays.
    fn expired_l0(&self, now: Timestamp, base: Option<&FileInfo>) -> Vec<FileId> {
        let oldest = before(now, self.settings.l0_retention);
        let last = self.inventory.last_of(Level::L0);
        self.inventory
            .level(Level::L0)
            .take_while(|f| {
                !self.settings.keeps_l0() && f.timestamp <= oldest && Some(f.id.name.max()) != last
            })
            .map_while(|f| {
                let is_needless = base.is_some_and(|base| f.id.name.max() <= base.id.name.max())
                    || self.is_merged(f.id.name);
                // One that cannot be merged keeps no others.
                (is_needless || !self.can_be_read(f)).then_some((is_needless, f.id))
            })
            .filter_map(|(is_needless, id)| is_needless.then_some(id))
            .collect()
    }

    /// Whether a file of a level from 1 to 8 holds all transactions of `name`.
    fn is_merged(&self, name: FileName) -> bool {
        self.is_merged_above(FileId::new(Level::L0, name))
    }

    /// Whether a file of a level above that of `id`, and below the snapshots, holds all of its transactions.
    fn is_merged_above(&self, id: FileId) -> bool {
        let name = id.name;
        let levels = Level::all().filter(|level| *level > id.level && *level != Level::SNAPSHOT);
        let mut files = levels.flat_map(|level| self.inventory.level(level).rev());
        files.any(|f| f.id.name.min() <= name.min() && name.max() <= f.id.name.max())
    }

    /// When something may have to be deleted, later than `now`.
    fn deletion_times(&self, now: Timestamp) -> Vec<Timestamp> {
        if !self.deletes() {
            return Vec::new();
        }
        let last = self.inventory.last_of(Level::L0);
        // Those that could have been deleted are kept by the calendar.
        let is_young = |f: &&FileInfo| after(f.timestamp, self.settings.l0_retention) > now;
        let oldest_l0 = self.inventory.level(Level::L0).find(is_young);
        let l0 = oldest_l0
            .filter(|f| {
                !self.settings.keeps_l0() && Some(f.id.name.max()) != last && self.is_merged(f.id.name)
            })
            .map(|f| after(f.timestamp, self.settings.l0_retention));
        let snapshots = self.inventory.snapshots();
        let useful = snapshots.into_iter().filter(|base| !self.behind(base).is_empty());
        let bases = useful.map(|base| after(base.timestamp, self.settings.snapshot_retention));
        l0.into_iter().chain(bases).collect()
    }
}

/// As many of `files`, from the first on, as are merged at once.
fn limited(mut files: Vec<FileInfo>) -> Vec<FileInfo> {
    let (mut bytes, mut streams) = (0, 0);
    let mut fits = |file: &FileInfo| {
        if file.size <= SMALL {
            bytes += file.size;
        } else {
            streams += 1;
        }
        bytes <= MOST_SMALL && streams <= MOST_STREAMS
    };
    let count = files.iter().take_while(|file| fits(file)).count();
    files.truncate(count.max(1));
    files
}
