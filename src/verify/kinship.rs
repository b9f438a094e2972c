//! Whether the files are of one history.
//!
//! Files of ours carry a lineage. Of others only what contradicts itself shows: two files that end with the same
//! transaction must agree on the database then, and what is later must follow what is earlier. Nothing is inferred
//! from what changes by right: the salts of the WAL, node ids, sizes of the database.

use std::collections::{BTreeMap, HashMap};

use super::Seen;
use super::finding::{Finding, Problem};
use crate::clock::Timestamp;
use crate::ltx::{FileId, Level, Lineage, Txid};
use crate::page::PageCount;
use crate::replica::Beside;
use crate::store::FileInfo;

/// In milliseconds: clocks are set back by some seconds every now and then.
const STEP: i64 = 60_000;
/// The size of the header of a WAL in bytes; the first frame is behind it.
const WAL_HEADER: i64 = 32;

/// Those of `files`, which are ordered by level, that are the lowest of several which end with the same transaction:
/// the pages of one are in all the others.
pub(super) fn lowest(files: &[FileInfo]) -> BTreeMap<Txid, FileId> {
    let mut ends: BTreeMap<Txid, (FileId, usize)> = BTreeMap::new();
    for file in files {
        ends.entry(file.id.name.max()).or_insert((file.id, 0)).1 += 1;
    }
    ends.into_iter().filter(|(_, (_, count))| *count > 1).map(|(txid, (id, _))| (txid, id)).collect()
}

/// The contradiction between `file`, which leaves `commit` pages, and the one beside it, if there is one.
pub(super) fn of_pages(beside: &Beside, file: FileId, commit: PageCount) -> Option<Finding> {
    let pgno = beside.differing(commit)?;
    Some(contradiction(file, beside.lower, format_args!("page {pgno}")))
}

fn contradiction(file: FileId, lower: FileId, what: std::fmt::Arguments<'_>) -> Finding {
    let message = format!(
        "it ends where {lower} does, and {what} is not the same: files of two histories lie in one replica, or two \
         writers used it. What is restored may be a mixture: move the files of one away, or let the primary begin a \
         replica of its own"
    );
    Finding::of(Problem::Mixed, file, message)
}

/// What the headers say.
pub(super) fn findings(seen: &[Seen]) -> Vec<Finding> {
    let mut seen: Vec<&Seen> = seen.iter().collect();
    seen.sort_unstable_by_key(|seen| seen.id);
    let mut findings = of_lineages(&seen);
    if findings.is_empty() {
        findings.extend(of_ends(&seen));
        findings.extend(seen.windows(2).filter_map(|pair| of_successors(pair[0], pair[1])));
    }
    findings
}

/// What is said of a lineage.
struct Summary {
    files: usize,
    first: Txid,
    last: Txid,
    time: Timestamp,
}

/// Files of all lineages but the one that was written to last.
fn of_lineages(seen: &[&Seen]) -> Vec<Finding> {
    let mut lineages: BTreeMap<Lineage, Summary> = BTreeMap::new();
    for Seen { header, .. } in seen {
        let Some(lineage) = header.lineage else { continue };
        let (min, max, time) = (header.min, header.max, header.timestamp);
        let all = lineages.entry(lineage).or_insert(Summary { files: 0, first: min, last: max, time });
        all.files += 1;
        (all.first, all.last) = (all.first.min(min), all.last.max(max));
        all.time = all.time.max(time);
    }
    let Some((newest, _)) = lineages.iter().max_by_key(|(_, all)| all.time) else { return Vec::new() };
    let describe = |lineage: &Lineage| {
        let Summary { files, first, last, time } = &lineages[lineage];
        format!("lineage {lineage} ({files} files, TXIDs {first} to {last}, the last commit at {time})")
    };
    let finding = |seen: &&Seen| {
        let lineage = seen.header.lineage.filter(|lineage| lineage != newest)?;
        let message = format!(
            "it is of {}, the newest files are of {}: two histories lie in one replica, and what is restored from \
             both was never a state of either. Move the files of one away",
            describe(&lineage),
            describe(newest)
        );
        Some(Finding::of(Problem::Mixed, seen.id, message))
    };
    seen.iter().filter_map(finding).collect()
}

/// Files that end with the same transaction and do not agree on the database then.
fn of_ends(seen: &[&Seen]) -> Vec<Finding> {
    let mut ends: HashMap<Txid, &Seen> = HashMap::new();
    let mut findings = Vec::new();
    for &this in seen {
        let lower = *ends.entry(this.header.max).or_insert(this);
        if lower.header.commit != this.header.commit {
            findings.push(contradiction(this.id, lower.id, format_args!("the size of the database")));
        }
    }
    findings
}

/// What contradicts that two files of level 0 follow each other.
fn of_successors(before: &Seen, after: &Seen) -> Option<Finding> {
    let follow = after.header.min == before.header.max.next();
    if before.id.level != Level::L0 || after.id.level != Level::L0 || !follow {
        return None;
    }
    if reads_wal_again(before, after) {
        let message = format!(
            "it holds a part of the WAL that {} holds too: two writers used this replica, and what is restored may \
             be a mixture",
            before.id
        );
        return Some(Finding::warning(Problem::Mixed, after.id, message));
    }
    let (earlier, later) = (before.header.timestamp, after.header.timestamp);
    (earlier.as_millis() - later.as_millis() > STEP).then(|| {
        let message = format!(
            "its last commit is of {later}, that of {} before it is of {earlier}: the clock of the primary was set \
             back, or files of two histories lie in one replica",
            before.id
        );
        Finding::warning(Problem::Mixed, after.id, message)
    })
}

/// Whether the frames of the second file begin before those of the first end, in the same WAL. A copy of the database,
/// or of what differs in it, begins where the WAL does.
fn reads_wal_again(before: &Seen, after: &Seen) -> bool {
    let (a, b) = (&before.header, &after.header);
    let same_wal = (a.salt1, a.salt2) == (b.salt1, b.salt2) && (a.salt1, a.salt2) != (0, 0);
    let is_copy = b.wal_offset <= WAL_HEADER;
    same_wal && !is_copy && a.wal_size > 0 && b.wal_size > 0 && b.wal_offset < a.wal_offset + a.wal_size
}
