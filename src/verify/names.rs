//! What the names of the files tell.
//!
//! Files of different levels hold the same transactions: that is compaction. Within a level they follow
//! one another without gap or overlap, but for the snapshots, which all begin at transaction 1.

use super::finding::{Finding, Problem, Severity};
use crate::clock::Timestamp;
use crate::ltx::{FileId, Level, Txid};
use crate::store::FileInfo;

/// A range of transactions.
type Range = (Txid, Txid);

/// What is wrong with `files`, which are ordered by level and transaction. With `thinned`, files are missing on purpose before the
/// newest snapshot of a state from that time or earlier, and those of single levels where others lead on.
pub(super) fn findings(files: &[FileInfo], thinned: Option<Timestamp>) -> Vec<Finding> {
    let ids: Vec<FileId> = files.iter().map(|file| file.id).collect();
    let is_base = |file: &&FileInfo| {
        file.id.level == Level::SNAPSHOT && thinned.is_some_and(|since| file.timestamp <= since)
    };
    let base = files.iter().filter(is_base).map(|file| file.id.name.max()).max();
    let is_meant = |gap: &Range| base.is_some_and(|base| gap.1 <= base) || is_left(*gap, &ids);
    let mut findings = Vec::new();
    let (left, gaps): (Vec<Range>, Vec<Range>) = gaps(&ids, &mut findings).into_iter().partition(is_meant);
    findings.extend(gaps.iter().map(|gap| missing(*gap, newest_snapshot(&ids))));
    let gaps = [left, gaps].concat();
    for level in Level::all().filter(|level| *level != Level::SNAPSHOT) {
        let level: Vec<FileId> = ids.iter().copied().filter(|id| id.level == level).collect();
        within_level(&level, &gaps, thinned.is_some(), &mut findings);
    }
    let misplaced = |id: &&FileId| id.level == Level::SNAPSHOT && !id.name.is_snapshot();
    findings.extend(
        ids.iter().filter(misplaced).map(|id| {
            Finding::of(Problem::Name, *id, "it is among the snapshots and does not begin at TXID 1")
        }),
    );
    findings
}

/// The transactions that no file brings to a database that has all before them.
fn gaps(ids: &[FileId], findings: &mut Vec<Finding>) -> Vec<Range> {
    let mut increments: Vec<FileId> = ids.iter().copied().filter(|id| id.level != Level::SNAPSHOT).collect();
    increments.sort_unstable_by_key(|id| (id.name.min(), id.name.max()));
    let snapshots = ids.iter().filter(|id| id.name.is_snapshot()).map(|id| id.name.max());
    let Some(oldest) = snapshots.min() else {
        findings.extend(no_snapshot(&increments));
        return Vec::new();
    };
    let newest = newest_snapshot(ids);
    let (mut reached, mut gaps) = (oldest, Vec::new());
    for id in increments {
        if id.name.min() > reached.next() {
            gaps.push((reached.next(), before(id.name.min())));
        }
        reached = reached.max(id.name.max());
    }
    // A snapshot beyond the increments leaves the states between them out.
    if newest > reached.next() {
        gaps.push((reached.next(), before(newest)));
    }
    gaps
}

/// The last transaction of which there is a full copy.
fn newest_snapshot(ids: &[FileId]) -> Txid {
    let snapshots = ids.iter().filter(|id| id.name.is_snapshot()).map(|id| id.name.max());
    snapshots.max().unwrap_or(Txid::ONE)
}

/// Whether a gap is what retention leaves: before it there is nothing but the last file of a level or some,
/// which stays to tell how far the level is, and a snapshot leads beyond it.
fn is_left(gap: Range, ids: &[FileId]) -> bool {
    let before: Vec<Level> = ids.iter().filter(|id| id.name.max() < gap.0).map(|id| id.level).collect();
    let one_each = before.windows(2).all(|pair| pair[0] != pair[1]);
    let beyond = |id: &FileId| id.level == Level::SNAPSHOT && id.name.max() >= gap.1;
    let is_merged = |level: &Level| !matches!(*level, Level::L0 | Level::SNAPSHOT);
    one_each && before.iter().all(is_merged) && ids.iter().any(beyond)
}

fn no_snapshot(increments: &[FileId]) -> Option<Finding> {
    let first = increments.first()?.name.min();
    let gap = (Txid::ONE, before(first));
    let message = "there is no snapshot to start from: let the primary write a new one".to_owned();
    Some(Finding::gap(Severity::Error, gap, message))
}

fn missing(gap: Range, newest: Txid) -> Finding {
    let (first, last) = gap;
    let which = if first == last {
        format!("TXID {first} is missing")
    } else {
        format!("TXIDs {first} to {last} are missing")
    };
    let follows = if newest > last {
        format!("states from there to the snapshot of TXID {newest} cannot be restored")
    } else {
        "no later state can be restored until the primary writes a new snapshot".to_owned()
    };
    Finding::gap(Severity::Error, gap, format!("{which}: {follows}"))
}

/// Gaps that other levels fill, unless they are meant, and overlaps.
fn within_level(ids: &[FileId], gaps: &[Range], are_meant: bool, findings: &mut Vec<Finding>) {
    let mut furthest: Option<FileId> = None;
    for &id in ids {
        match furthest {
            Some(last) if id.name.min() <= last.name.max() => {
                let message =
                    format!("it holds transactions that {last} has too: two writers, or a wrong name");
                findings.push(Finding::of(Problem::Overlap, id, message));
            }
            Some(last) if id.name.min() > last.name.max().next() && !are_meant => {
                findings.extend(filled(last, id, gaps));
            }
            _ => {}
        }
        furthest = furthest.filter(|last| last.name.max() >= id.name.max()).or(Some(id));
    }
}

/// The finding about a gap between two files of a level, unless it is told already.
fn filled(last: FileId, next: FileId, gaps: &[Range]) -> Option<Finding> {
    let (first, end) = (last.name.max().next(), before(next.name.min()));
    if gaps.iter().any(|gap| gap.0 <= end && first <= gap.1) {
        return None;
    }
    let message = format!(
        "level {} lacks TXIDs {first} to {end}, between {} and {}; other levels have them",
        last.level, last.name, next.name
    );
    Some(Finding::gap(Severity::Warning, (first, end), message))
}

/// The transaction before `txid`, which is not the first.
fn before(txid: Txid) -> Txid {
    Txid::new(txid.get() - 1).unwrap_or(Txid::ONE)
}
