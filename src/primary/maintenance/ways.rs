//! The files that lead to restore points and cost least.
//!
//! Points are looked at in their order. To each one leads the cheapest of: files that continue the point before it, and a
//! snapshot in between with files that continue that. Nothing cheaper leads to all of them: of files that lead to a point
//! from before the one that precedes it, those that end later continue that one too.
//!
//! What a restore takes of these files is always enough, whichever it prefers. It begins with the latest snapshot, from which files
//! that are kept lead on, point by point; and where some files lead on, taking the one that reaches furthest does.

use std::collections::BTreeMap;

use crate::ltx::{FileId, Level, Txid};
use crate::store::FileInfo;

/// The files of a way, in their order, and what they cost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Way {
    pub(super) files: Vec<FileId>,
    /// What the files that are no snapshots cost.
    pub(super) increments: u64,
}

/// The points that `files` lead to, in their order, each with the file that ends there and holds least. `files` are those of
/// all levels that are sound, in any order.
pub(super) fn points(files: &[FileInfo]) -> Vec<&FileInfo> {
    let mut files: Vec<&FileInfo> = files.iter().filter(|file| is_usable(file)).collect();
    files.sort_unstable_by_key(|file| (file.id.name.max(), file.id.name.min(), file.id.level));
    let mut reached = 0;
    let mut points = Vec::new();
    for same in files.chunk_by(|a, b| a.id.name.max() == b.id.name.max()) {
        let leads = |file: &&&FileInfo| file.id.name.min().get() <= reached + 1;
        if let Some(last) = same.iter().rev().find(leads) {
            points.push(*last);
            reached = last.id.name.max().get();
        }
    }
    points
}

/// The way to each of `points`, which ascend and which `files` lead to. `cost` says what it costs to keep a file.
pub(super) fn ways(
    files: &[FileInfo],
    points: &[Txid],
    cost: impl Fn(&FileInfo) -> u64,
) -> BTreeMap<Txid, Way> {
    let mut sorted: Vec<&FileInfo> = files.iter().filter(|file| is_usable(file)).collect();
    sorted.sort_unstable_by_key(|file| (file.id.name.max(), file.id.name.min(), file.id.level));
    let mut before = 0;
    let mut ways = BTreeMap::new();
    for point in points {
        let first = sorted.partition_point(|file| file.id.name.max().get() <= before);
        let end = sorted.partition_point(|file| file.id.name.max() <= *point);
        let way =
            cheapest(&sorted[first..end], before, *point, &cost).expect("BUG: no files lead to the point");
        ways.insert(*point, way);
        before = point.get();
    }
    ways
}

/// Whether a restore may take the file.
fn is_usable(file: &FileInfo) -> bool {
    file.id.level != Level::SNAPSHOT || file.id.name.is_snapshot()
}

/// The best way to the end of a file.
struct Best {
    reached: u64,
    cost: u64,
    /// The file before, if the way does not begin with this one.
    from: Option<usize>,
}

/// The cheapest way from `before` to `point`, by `files`, which end in between and are sorted by their ends.
fn cheapest(files: &[&FileInfo], before: u64, point: Txid, cost: impl Fn(&FileInfo) -> u64) -> Option<Way> {
    let mut best: Vec<Option<Best>> = Vec::with_capacity(files.len());
    // Ways to go on from: those that reach further cost more.
    let mut open: Vec<usize> = Vec::new();
    for (index, file) in files.iter().enumerate() {
        let (name, own) = (file.id.name, cost(file));
        let continued = |best: &[Option<Best>]| {
            let needed = name.min().get() - 1;
            let at = open.partition_point(|way| best[*way].as_ref().is_some_and(|way| way.reached < needed));
            open.get(at).copied()
        };
        let (total, from) = match continued(&best) {
            _ if file.id.level == Level::SNAPSHOT || name.min().get() <= before + 1 => (Some(own), None),
            Some(way) => (best[way].as_ref().map(|way| way.cost.saturating_add(own)), Some(way)),
            None => (None, None),
        };
        best.push(total.map(|cost| Best { reached: name.max().get(), cost, from }));
        if let Some(total) = total {
            while open.last().is_some_and(|way| best[*way].as_ref().is_some_and(|way| way.cost >= total)) {
                open.pop();
            }
            open.push(index);
        }
    }
    let ends =
        (0..files.len()).filter(|index| best[*index].as_ref().is_some_and(|way| way.reached == point.get()));
    let mut next = ends.min_by_key(|index| best[*index].as_ref().map(|way| way.cost));
    next?;
    let mut way = Way::default();
    while let Some(index) = next {
        let file = files[index];
        way.files.push(file.id);
        if file.id.level != Level::SNAPSHOT {
            way.increments = way.increments.saturating_add(cost(file));
        }
        next = best[index].as_ref().and_then(|way| way.from);
    }
    way.files.reverse();
    Some(way)
}
