//! The files of a replica as its only writer knows them: listed once, and kept up to date since.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::future;

use crate::clock::Timestamp;
use crate::error::Result;
use crate::ltx::{FileId, FileName, Level, Txid};
use crate::primary::maintenance::calendar::{Calendar, Point};
use crate::primary::maintenance::figures::{Kept, KeptLevel};
use crate::primary::maintenance::{Published, ways};
use crate::store::{FileInfo, Replica};

/// The files of a replica. The time of each is when it was stored, by the clock of the store.
#[derive(Clone, Debug, Default)]
pub(super) struct Inventory {
    files: BTreeMap<FileId, FileInfo>,
    /// Those of them that are damaged. Nothing is made of them, but their names are taken.
    damaged: BTreeSet<FileId>,
    totals: [Total; LEVELS],
    /// When transactions with which files end were committed, as far as that is known.
    committed: BTreeMap<Txid, Timestamp>,
    /// The time of the oldest file that was published since all was done that was due.
    unworked: Option<Timestamp>,
}

/// Levels 0 to 9.
const LEVELS: usize = 10;

/// The files of one level together.
#[derive(Clone, Copy, Debug, Default)]
struct Total {
    files: u64,
    bytes: u64,
}

impl Inventory {
    /// Lists all levels at the time `now`. Clocks that were wrong have left their times; those that
    /// cannot be true are corrected:
    /// - what was stored in the future was stored before what follows it in its level, or just now;
    /// - nothing is older than what came before it: else a clock that was wrong for a moment would make
    ///   all that is older than that moment look as if it need not be kept.
    ///
    /// With a `calendar`, full copies are made of states that are long over: those are not younger than what follows them.
    ///
    /// # Errors
    /// Those of the store.
    pub(super) async fn list(store: &Replica, now: Timestamp, calendar: Calendar) -> Result<Self> {
        let levels = Level::all().map(|level| store.list_stored(level, Txid::ONE));
        let mut inventory = Self::default();
        for mut files in future::try_join_all(levels).await? {
            files.sort_unstable_by_key(|file| (file.id.name.max(), file.id.name.min()));
            if !calendar.is_empty() && files.first().is_some_and(|file| file.id.level == Level::SNAPSHOT) {
                inventory.bound(&mut files);
            }
            correct(&mut files, now);
            files.into_iter().for_each(|file| inventory.add(file));
        }
        inventory.correct_snapshots();
        Ok(inventory)
    }

    /// Bounds the times of `snapshots`, in their order, by those of the files that begin after them.
    fn bound(&self, snapshots: &mut [FileInfo]) {
        let mut later: Vec<_> =
            self.files.values().map(|file| (file.id.name.min(), file.timestamp)).collect();
        later.sort_unstable();
        let mut earliest = None;
        for snapshot in snapshots.iter_mut().rev() {
            while let Some((_, time)) = later.pop_if(|(min, _)| *min > snapshot.id.name.max()) {
                earliest = Some(earliest.map_or(time, |earliest: Timestamp| earliest.min(time)));
            }
            snapshot.timestamp =
                earliest.map_or(snapshot.timestamp, |earliest| earliest.min(snapshot.timestamp));
        }
    }

    /// A snapshot is not older than any file that leads to an earlier state.
    fn correct_snapshots(&mut self) {
        let mut increments: Vec<_> =
            self.increments().iter().map(|f| (f.id.name.max(), f.timestamp)).collect();
        increments.sort_unstable();
        let snapshots: Vec<FileId> = self.level(Level::SNAPSHOT).map(|f| f.id).collect();
        for id in snapshots {
            let before = increments.iter().take_while(|(max, _)| *max < id.name.max());
            let latest = before.map(|(_, time)| *time).max();
            if let (Some(file), Some(latest)) = (self.files.get_mut(&id), latest) {
                file.timestamp = file.timestamp.max(latest);
            }
        }
    }

    /// Of `files`, whatever their times.
    pub(super) fn of(files: &[FileInfo]) -> Self {
        let mut inventory = Self::default();
        files.iter().for_each(|file| inventory.add(file.clone()));
        inventory
    }

    /// Those of `ids` that are there are damaged.
    pub(super) fn exclude(&mut self, ids: &BTreeSet<FileId>) {
        self.damaged.extend(ids.iter().filter(|id| self.files.contains_key(id)));
    }

    /// The files that are damaged.
    pub(super) fn damaged(&self) -> impl Iterator<Item = &FileInfo> {
        self.damaged.iter().filter_map(|id| self.files.get(id))
    }

    /// Whether there is a file of this name, sound or not.
    pub(super) fn is_taken(&self, id: FileId) -> bool {
        self.files.contains_key(&id)
    }

    /// All names that are taken.
    pub(super) fn ids(&self) -> BTreeSet<FileId> {
        self.files.keys().copied().collect()
    }

    /// The last transaction that a restore can get to.
    pub(super) fn leads_to(&self) -> Option<Txid> {
        let base = self.snapshots().pop().map(|file| file.id.name.max());
        let later = chain(self.increments(), base.map_or(0, Txid::get));
        later.last().map(|file| file.id.name.max()).or(base)
    }

    /// A file was written.
    pub(super) fn add(&mut self, file: FileInfo) {
        if let Entry::Vacant(entry) = self.files.entry(file.id) {
            let total = &mut self.totals[usize::from(file.id.level.get())];
            (total.files, total.bytes) = (total.files + 1, total.bytes + file.size);
            entry.insert(file);
        }
    }

    /// A file was published.
    pub(super) fn publish(&mut self, new: Published) {
        let time = new.file.timestamp;
        self.unworked = Some(self.unworked.map_or(time, |unworked| unworked.min(time)));
        self.learn(new.file.id.name.max(), new.committed);
        self.add(new.file);
    }

    /// The time of the oldest file that was published since all was done that was due.
    pub(super) fn unworked(&self) -> Option<Timestamp> {
        self.unworked
    }

    /// All was done that is due with the files that are there.
    pub(super) fn note_worked(&mut self) {
        self.unworked = None;
    }

    /// Files were deleted.
    pub(super) fn remove(&mut self, ids: &[FileId]) {
        for id in ids {
            if let Some(file) = self.files.remove(id) {
                let total = &mut self.totals[usize::from(id.level.get())];
                (total.files, total.bytes) = (total.files - 1, total.bytes - file.size);
            }
            self.damaged.remove(id);
        }
    }

    /// Transaction `txid`, with which a file ends, was committed at `time`.
    pub(super) fn learn(&mut self, txid: Txid, time: Timestamp) {
        self.committed.insert(txid, time);
    }

    /// Forgets the times of transactions with which no file ends any more.
    pub(super) fn forget_times(&mut self) {
        let ends: BTreeSet<Txid> = self.files.keys().map(|id| id.name.max()).collect();
        self.committed.retain(|txid, _| ends.contains(txid));
    }

    /// The sound files, by level and name.
    pub(super) fn sound(&self) -> Vec<FileInfo> {
        self.files.values().filter(|file| self.is_sound(file)).cloned().collect()
    }

    /// The points that the sound files lead to, in their order.
    pub(super) fn points(&self) -> Vec<Point> {
        let sound = self.sound();
        let point = |file: &&FileInfo| {
            let txid = file.id.name.max();
            let committed = self.committed.get(&txid).copied();
            Point { txid, file: file.id, committed, stored: file.timestamp }
        };
        ways::points(&sound).iter().map(point).collect()
    }

    /// The file `id`, if it is there.
    pub(super) fn get(&self, id: FileId) -> Option<&FileInfo> {
        self.files.get(&id)
    }

    /// What the files come to, at the time `now`, if those of level 0 stay for `l0_retention`.
    pub(super) fn kept(&self, now: Timestamp, l0_retention: Duration) -> Kept {
        let levels = self.totals.iter().enumerate().filter(|(_, total)| total.files > 0);
        let levels = levels.map(|(level, total)| KeptLevel {
            level: level as u8,
            files: total.files,
            bytes: total.bytes,
        });
        let full = self.level(Level::SNAPSHOT).chain(self.first_full()).map(|file| file.timestamp).min();
        let merged = Level::new(1).and_then(|level| self.last_of(level));
        let mut kept = Kept { levels: levels.collect(), oldest: full, ..Kept::default() };
        for file in self.level(Level::L0) {
            let age = now.as_millis() - file.timestamp.as_millis();
            let count = if Some(file.id.name.max()) > merged {
                &mut kept.l0_not_compacted
            } else if age < i64::try_from(l0_retention.as_millis()).unwrap_or(i64::MAX) {
                &mut kept.l0_too_recent
            } else {
                &mut kept.l0_eligible
            };
            *count += 1;
        }
        kept
    }

    /// The full copies that begin a level below the snapshots.
    fn first_full(&self) -> impl Iterator<Item = &FileInfo> {
        let first = Level::all().take(LEVELS - 1).filter_map(|level| self.level(level).next());
        first.filter(|file| file.id.name.is_snapshot())
    }

    /// All files, by level and name.
    pub(super) fn all(&self) -> Vec<FileInfo> {
        self.files.values().cloned().collect()
    }

    /// The sound files of one level, by first transaction.
    pub(super) fn level(&self, level: Level) -> impl DoubleEndedIterator<Item = &FileInfo> {
        self.taken(level).filter(|file| self.is_sound(file))
    }

    fn taken(&self, level: Level) -> impl DoubleEndedIterator<Item = &FileInfo> {
        let first = FileId::new(level, FileName::single(Txid::ONE));
        let last = FileId::new(level, FileName::single(Txid::new(u64::MAX).expect("BUG: not zero")));
        self.files.range(first..=last).map(|(_, file)| file)
    }

    fn is_sound(&self, file: &FileInfo) -> bool {
        !self.damaged.contains(&file.id)
    }

    /// The sound files of all levels but the snapshots, by first transaction.
    pub(super) fn increments(&self) -> Vec<&FileInfo> {
        let is_increment = |f: &&FileInfo| f.id.level != Level::SNAPSHOT && self.is_sound(f);
        let mut files: Vec<_> = self.files.values().filter(is_increment).collect();
        files.sort_by_key(|f| (f.id.name, f.id.level));
        files
    }

    /// The last transaction of `level`, also of a file that is damaged: its name is taken.
    pub(super) fn last_of(&self, level: Level) -> Option<Txid> {
        self.taken(level).map(|f| f.id.name.max()).max()
    }

    /// The last transaction that the replica holds.
    pub(super) fn last(&self) -> Option<Txid> {
        self.files.keys().map(|id| id.name.max()).max()
    }

    /// The last transaction that a sound full copy holds.
    pub(super) fn last_full(&self) -> Option<Txid> {
        let full = self.files.values().filter(|file| file.id.name.is_snapshot() && self.is_sound(file));
        full.map(|file| file.id.name.max()).max()
    }

    /// The sound snapshots, oldest state first.
    pub(super) fn snapshots(&self) -> Vec<&FileInfo> {
        let mut snapshots: Vec<_> = self.level(Level::SNAPSHOT).filter(|f| f.id.name.is_snapshot()).collect();
        snapshots.sort_by_key(|f| f.id.name.max());
        snapshots
    }
}

/// Corrects the times of the files of one level, in order, that cannot be true.
fn correct(files: &mut [FileInfo], now: Timestamp) {
    let mut following = now;
    for file in files.iter_mut().rev() {
        if file.timestamp > now {
            file.timestamp = following;
        }
        following = file.timestamp;
    }
    for i in 1..files.len() {
        files[i].timestamp = files[i].timestamp.max(files[i - 1].timestamp);
    }
}

/// The files that lead on from transaction `reached`, each the one that reaches furthest of those that
/// continue what is there. `files` are sorted by first transaction.
pub(super) fn chain<'a>(files: impl IntoIterator<Item = &'a FileInfo>, mut reached: u64) -> Vec<FileInfo> {
    let mut files = files.into_iter().peekable();
    let mut chain = Vec::new();
    let mut best: Option<&FileInfo> = None;
    loop {
        while let Some(file) = files.next_if(|f| f.id.name.min().get() <= reached.saturating_add(1)) {
            if best.is_none_or(|best| file.id.name.max() > best.id.name.max()) {
                best = Some(file);
            }
        }
        match best.take() {
            Some(file) if file.id.name.max().get() > reached => {
                reached = file.id.name.max().get();
                chain.push(file.clone());
            }
            _ => return chain,
        }
    }
}
