//! Which files make the database at a point in time, in the order in which they are applied.
//!
//! The rule is that of Litestream 0.5.17's `CalcRestorePlan`: the latest snapshot at or before the
//! point, then again and again the file, of any lower level, that continues what is there and
//! reaches furthest. A file may begin before the end of its predecessor: it then holds newer
//! versions of pages that are there already. A replica without snapshot works as long as some file
//! starts at transaction 1; a full copy that was stored at a later transaction is a file like any
//! other.
//!
//! Two deliberate differences. A commit *at* the time asked for is part of the result: Litestream
//! leaves it out, so that the time which it shows for a transaction is one millisecond too early to
//! restore it. And where a clock was set back, so that times run backwards, transactions decide: none
//! counts as earlier than one before it, so that no row shows up that came later than the time.

use std::borrow::Cow;
use std::cmp::Reverse;

use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::ltx::{Level, Txid};
use crate::store::{FileInfo, Replica};

/// The state of the database that is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RestorePoint {
    /// All that the replica holds.
    #[default]
    Latest,
    /// Right after this transaction.
    Txid(Txid),
    /// After the last transaction that was committed at this time or earlier.
    Timestamp(Timestamp),
}

impl RestorePoint {
    /// Whether a file may be used: it holds nothing that is later than the point.
    fn admits(self, file: &FileInfo) -> bool {
        match self {
            Self::Latest => true,
            Self::Txid(txid) => file.id.name.max() <= txid,
            Self::Timestamp(time) => file.timestamp <= time,
        }
    }
}

/// The files that make a database, in the order in which they are applied.
///
/// Invariants: there is at least one; each continues its predecessor (`min <= previous max + 1`) and
/// reaches further (`max > previous max`); the first starts at transaction 1 unless the plan
/// continues a database that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    files: Vec<FileInfo>,
}

impl Plan {
    /// The plan for `point`, from the files of all levels in any order.
    ///
    /// For a point in time the files' timestamps must be those of their last commits.
    ///
    /// # Errors
    /// `NotFound` if the replica is empty or does not reach the point, with the range that it
    /// covers; `Corrupt` if files are missing.
    pub fn new(files: &[FileInfo], point: RestorePoint) -> Result<Self> {
        if files.is_empty() {
            return Err(empty());
        }
        let files = &*in_order(files, point);
        let base = latest_snapshot(files, point);
        let mut plan: Vec<FileInfo> = base.cloned().into_iter().collect();
        extend(&mut plan, files, point, 0);
        let reached = reach(&plan, 0);
        check(files, point, reached)?;
        if plan.is_empty() {
            return Err(no_beginning());
        }
        Ok(Self { files: plan })
    }

    /// The plan that continues a database which holds everything up to `after`; `None` if there is
    /// nothing to add.
    ///
    /// # Errors
    /// `Corrupt` if files are missing in between.
    pub fn after(files: &[FileInfo], point: RestorePoint, after: Txid) -> Result<Option<Self>> {
        let files = &*in_order(files, point);
        let mut plan = Vec::new();
        extend(&mut plan, files, point, after.get());
        let reached = reach(&plan, after.get());
        if reached == after.get() && !files.iter().any(|f| f.id.name.max() > after) {
            return Ok(None);
        }
        check(files, point, reached)?;
        Ok((!plan.is_empty()).then_some(Self { files: plan }))
    }

    /// The files.
    pub fn files(&self) -> &[FileInfo] {
        &self.files
    }

    /// The transaction that the plan leads to.
    pub fn txid(&self) -> Txid {
        self.last().id.name.max()
    }

    /// The last file.
    pub fn last(&self) -> &FileInfo {
        self.files.last().expect("BUG: a plan has at least one file")
    }
}

/// The error about a replica that has no files.
pub(crate) fn empty() -> Error {
    Error::new(
        ErrorKind::NotFound,
        "the replica is empty: nothing has been replicated to this URL yet, or the URL is wrong",
    )
}

/// The error about a replica that has no files but those of Litestream 0.3, if it is one.
pub(crate) async fn only_old(store: &Replica) -> Option<Error> {
    if store.list_raw("generations").await.ok()?.is_empty() {
        return None;
    }
    for level in Level::all() {
        if !store.list(level, Txid::ONE).await.ok()?.is_empty() {
            return None;
        }
    }
    let message = "Litestream 0.3 wrote the replica, which counts no transactions: it cannot be read in place, only restored \
                   to its latest state or to that of a time, by litestream_restore";
    Some(Error::new(ErrorKind::NotFound, message))
}

/// The error about snapshots that are none, and nothing else.
fn no_beginning() -> Error {
    Error::corrupt(
        "the replica has no file that begins at TXID 1: let the primary write a new snapshot, or look whether \
         files were renamed",
    )
}

/// The files with times that do not run backwards, if `point` is a time: each at least that of the increments
/// that end before it. A snapshot may bear the time at which it was made, and delays nothing.
fn in_order(files: &[FileInfo], point: RestorePoint) -> Cow<'_, [FileInfo]> {
    let RestorePoint::Timestamp(_) = point else { return Cow::Borrowed(files) };
    let mut files = files.to_vec();
    files.sort_unstable_by_key(|file| file.id.name.max());
    let mut latest = None;
    for same in files.chunk_by_mut(|a, b| a.id.name.max() == b.id.name.max()) {
        let before = latest;
        for file in same {
            file.timestamp = before.map_or(file.timestamp, |before| file.timestamp.max(before));
            if file.id.level != Level::SNAPSHOT {
                latest = latest.max(Some(file.timestamp));
            }
        }
    }
    Cow::Owned(files)
}

/// The latest snapshot that `point` admits.
fn latest_snapshot(files: &[FileInfo], point: RestorePoint) -> Option<&FileInfo> {
    files
        .iter()
        .filter(|f| f.id.level == Level::SNAPSHOT && f.id.name.is_snapshot() && point.admits(f))
        .max_by_key(|f| f.id.name.max())
}

/// Adds the files that `point` admits and that continue `plan`, which holds all up to `start` or its
/// own last transaction.
fn extend(plan: &mut Vec<FileInfo>, files: &[FileInfo], point: RestorePoint, start: u64) {
    let mut reached = reach(plan, start);
    let mut candidates: Vec<&FileInfo> = increments(files).filter(|f| point.admits(f)).collect();
    candidates.sort_unstable_by_key(|f| f.id.name.min());
    let mut candidates = candidates.into_iter().peekable();
    let mut best: Option<&FileInfo> = None;
    loop {
        while let Some(file) = candidates.next_if(|f| f.id.name.min().get() <= reached.saturating_add(1)) {
            if best.is_none_or(|b| preference(file) > preference(b)) {
                best = Some(file);
            }
        }
        match best.take() {
            Some(file) if file.id.name.max().get() > reached => {
                reached = file.id.name.max().get();
                plan.push(file.clone());
            }
            _ => return,
        }
    }
}

/// What makes a file the better one to go on with: the greater, the better.
fn preference(file: &FileInfo) -> impl Ord {
    let name = file.id.name;
    (name.max(), Reverse(name.min()), file.id.level, Reverse(file.timestamp))
}

/// The files of all levels below the snapshots.
fn increments(files: &[FileInfo]) -> impl Iterator<Item = &FileInfo> {
    files.iter().filter(|f| f.id.level != Level::SNAPSHOT)
}

/// The transaction that `plan` leads to, or `start`.
fn reach(plan: &[FileInfo], start: u64) -> u64 {
    plan.last().map_or(start, |f| f.id.name.max().get())
}

/// Whether having everything up to `reached` answers `point`.
fn check(files: &[FileInfo], point: RestorePoint, reached: u64) -> Result<()> {
    match point {
        RestorePoint::Latest => match first_beyond(files, point, reached) {
            Some(next) => Err(gap(reached, next)),
            None => Ok(()),
        },
        RestorePoint::Timestamp(time) => check_time(files, time, reached),
        RestorePoint::Txid(txid) => check_txid(files, txid, reached),
    }
}

fn check_txid(files: &[FileInfo], txid: Txid, reached: u64) -> Result<()> {
    if reached >= txid.get() {
        return Ok(());
    }
    if let Some(file) = increments(files).find(|f| continues(f, reached) && f.id.name.max() > txid) {
        return Err(Error::new(
            ErrorKind::NotFound,
            format!(
                "TXID {txid} cannot be restored by itself: the replica holds it only inside {}; \
                 choose {} or {}",
                file.id,
                file.id.name.max(),
                Txid::new(reached).map_or("a later one".to_owned(), |t| format!("TXID {t}")),
            ),
        ));
    }
    let covered = covered(files)?;
    match first_beyond(files, RestorePoint::Txid(txid), reached) {
        Some(next) if reached > 0 => Err(gap(reached, next)),
        _ => Err(Error::new(ErrorKind::NotFound, format!("TXID {txid} is not in the replica; {covered}"))),
    }
}

fn check_time(files: &[FileInfo], time: Timestamp, reached: u64) -> Result<()> {
    if reached == 0 {
        let covered = covered(files)?;
        return Err(Error::new(
            ErrorKind::NotFound,
            format!("the replica holds no state of {time} or earlier; {covered}"),
        ));
    }
    // A file that is later than the point but continues what is there is no gap: compaction has
    // merged the transactions around the point.
    match first_beyond(files, RestorePoint::Timestamp(time), reached) {
        Some(next) if !increments(files).any(|f| continues(f, reached)) => Err(gap(reached, next)),
        _ => Ok(()),
    }
}

/// Whether `file` adds to a database that holds everything up to `reached`.
fn continues(file: &FileInfo, reached: u64) -> bool {
    let name = file.id.name;
    name.min().get() <= reached.saturating_add(1) && name.max().get() > reached
}

/// The first transaction that `point` admits but `reached` cannot be continued to.
fn first_beyond(files: &[FileInfo], point: RestorePoint, reached: u64) -> Option<Txid> {
    increments(files)
        .filter(|f| point.admits(f))
        .map(|f| f.id.name.min())
        .filter(|min| min.get() > reached.saturating_add(1))
        .min()
}

fn gap(reached: u64, next: Txid) -> Error {
    let first = Txid::new(reached.saturating_add(1)).unwrap_or(Txid::ONE);
    let last = Txid::new(next.get() - 1).unwrap_or(first);
    let missing = if first == last {
        format!("TXID {first} is missing")
    } else {
        format!("TXIDs {first} to {last} are missing")
    };
    let remedy = match Txid::new(reached) {
        Some(reached) => format!("restore up to TXID {reached}, or let the primary write a new snapshot"),
        None => "there is no snapshot to start from: let the primary write a new one".to_owned(),
    };
    Error::corrupt(format!("the replica has a gap: {missing}; {remedy}"))
}

/// Says which states can be restored.
fn covered(files: &[FileInfo]) -> Result<String> {
    let [first, last] = ends(files)?;
    Ok(format!(
        "it covers TXID {} ({}) to TXID {} ({})",
        first.id.name.max(),
        first.timestamp,
        last.id.name.max(),
        last.timestamp
    ))
}

/// The files that lead to the first and to the latest state, whose times the error about a point tells that is out of reach.
///
/// # Errors
/// Those of [`Plan::new`].
pub(super) fn ends(files: &[FileInfo]) -> Result<[FileInfo; 2]> {
    let latest = Plan::new(files, RestorePoint::Latest)?;
    let first = files
        .iter()
        .filter(|f| f.id.name.is_snapshot())
        .min_by_key(|f| f.id.name.max())
        .expect("BUG: a plan starts with a snapshot");
    Ok([first.clone(), latest.last().clone()])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ltx::{FileId, FileName};

    fn file(level: u8, min: u64, max: u64) -> FileInfo {
        let name = FileName::new(Txid::new(min).unwrap(), Txid::new(max).unwrap()).unwrap();
        let timestamp = Timestamp::from_millis(max as i64 * 1000);
        FileInfo { id: FileId::new(Level::new(level).unwrap(), name), size: 100, timestamp }
    }

    fn files(list: &[(u8, u64, u64)]) -> Vec<FileInfo> {
        list.iter().map(|&(level, min, max)| file(level, min, max)).collect()
    }

    fn txid(n: u64) -> RestorePoint {
        RestorePoint::Txid(Txid::new(n).unwrap())
    }

    fn time(ms: i64) -> RestorePoint {
        RestorePoint::Timestamp(Timestamp::from_millis(ms))
    }

    fn planned(list: &[(u8, u64, u64)], point: RestorePoint) -> Vec<(u8, u64, u64)> {
        shape(Plan::new(&files(list), point).unwrap().files())
    }

    fn shape(files: &[FileInfo]) -> Vec<(u8, u64, u64)> {
        files.iter().map(|f| (f.id.level.get(), f.id.name.min().get(), f.id.name.max().get())).collect()
    }

    fn refused(list: &[(u8, u64, u64)], point: RestorePoint) -> (ErrorKind, String) {
        let error = Plan::new(&files(list), point).unwrap_err();
        (error.kind(), error.to_string())
    }

    const REPLICA: &[(u8, u64, u64)] =
        &[(9, 1, 1), (9, 1, 7), (2, 1, 3), (2, 4, 12), (1, 10, 12), (1, 13, 15), (0, 13, 13), (0, 16, 16)];

    #[test]
    fn latest_is_the_last_snapshot_and_then_what_reaches_furthest() {
        assert_eq!(planned(REPLICA, RestorePoint::Latest), [(9, 1, 7), (2, 4, 12), (1, 13, 15), (0, 16, 16)]);
    }

    #[test]
    fn a_point_uses_nothing_that_is_later() {
        assert_eq!(planned(REPLICA, txid(3)), [(9, 1, 1), (2, 1, 3)]);
        assert_eq!(planned(REPLICA, txid(7)), [(9, 1, 7)]);
        assert_eq!(planned(REPLICA, txid(13)), [(9, 1, 7), (2, 4, 12), (0, 13, 13)]);
        assert_eq!(planned(REPLICA, time(13_000)), [(9, 1, 7), (2, 4, 12), (0, 13, 13)]);
        assert_eq!(planned(REPLICA, time(12_999)), [(9, 1, 7), (2, 4, 12)]);
        assert_eq!(planned(REPLICA, time(99_000)), planned(REPLICA, RestorePoint::Latest));
    }

    /// Files with times of their own, in seconds.
    fn timed(list: &[(u8, u64, u64, i64)]) -> Vec<FileInfo> {
        let one = |&(level, min, max, s): &(u8, u64, u64, i64)| FileInfo {
            timestamp: Timestamp::from_millis(s * 1000),
            ..file(level, min, max)
        };
        list.iter().map(one).collect()
    }

    #[test]
    fn where_times_run_backwards_no_later_transaction_shows_up() {
        // Transactions 3 to 5 were made while the clock stood at its beginning.
        let list = [(9, 1, 1, 100), (0, 2, 2, 200), (0, 3, 3, 5), (0, 4, 4, 6), (0, 5, 5, 7), (0, 6, 6, 300)];
        let at = |list: &[(u8, u64, u64, i64)], s: i64| {
            Plan::new(&timed(list), time(s * 1000)).map(|plan| plan.txid().get()).map_err(|e| e.kind())
        };
        for (s, txid) in [(100, 1), (150, 1), (199, 1), (200, 5), (299, 5), (300, 6)] {
            assert_eq!(at(&list, s), Ok(txid), "{s}");
        }
        assert_eq!(at(&list, 50), Err(ErrorKind::NotFound));
        // The same merged, by whom the time of the last one counted.
        let merged =
            [(9, 1, 1, 100), (1, 2, 3, 5), (0, 2, 2, 200), (0, 3, 3, 5), (1, 4, 5, 7), (1, 6, 6, 300)];
        for (s, txid) in [(150, 1), (199, 1), (200, 5), (300, 6)] {
            assert_eq!(at(&merged, s), Ok(txid), "{s}");
        }
        // A snapshot of what came later, that bears the time of its last transaction.
        let snapshot = [(9, 1, 1, 100), (0, 2, 2, 200), (9, 1, 3, 5), (0, 4, 4, 300)];
        for (s, txid) in [(150, 1), (250, 3), (300, 4)] {
            assert_eq!(at(&snapshot, s), Ok(txid), "{s}");
        }
        // One in the future, and times that are right again: nothing after it is earlier.
        let future = [(9, 1, 1, 100), (0, 2, 2, 9_999), (0, 3, 3, 200)];
        for (s, txid) in [(250, 1), (9_998, 1), (9_999, 3)] {
            assert_eq!(at(&future, s), Ok(txid), "{s}");
        }
    }

    #[test]
    fn no_snapshot_is_needed_when_a_file_starts_at_one() {
        assert_eq!(planned(&[(0, 1, 1), (0, 2, 2), (1, 1, 2)], RestorePoint::Latest), [(1, 1, 2)]);
        assert_eq!(planned(&[(0, 2, 2), (0, 1, 1)], RestorePoint::Latest), [(0, 1, 1), (0, 2, 2)]);
    }

    #[test]
    fn errors_name_what_is_missing_and_what_is_there() {
        assert_eq!(refused(&[], RestorePoint::Latest).0, ErrorKind::NotFound);
        assert!(refused(&[], txid(1)).1.contains("the replica is empty"));

        let holed = &[(9, 1, 2), (0, 3, 3), (0, 6, 6)];
        let (kind, text) = refused(holed, RestorePoint::Latest);
        assert_eq!(kind, ErrorKind::Corrupt);
        assert!(text.contains("TXIDs 0000000000000004 to 0000000000000005 are missing"), "{text}");
        assert!(text.contains("restore up to TXID 0000000000000003"), "{text}");
        assert_eq!(refused(holed, txid(6)).0, ErrorKind::Corrupt);
        assert_eq!(refused(holed, time(6000)).0, ErrorKind::Corrupt);
        assert_eq!(planned(holed, txid(3)), [(9, 1, 2), (0, 3, 3)]);

        let (kind, text) = refused(&[(0, 5, 5)], RestorePoint::Latest);
        assert_eq!(kind, ErrorKind::Corrupt);
        assert!(text.contains("TXIDs 0000000000000001 to 0000000000000004 are missing"), "{text}");

        let (kind, text) = refused(REPLICA, txid(17));
        assert_eq!(kind, ErrorKind::NotFound);
        assert!(
            text.contains("it covers TXID 0000000000000001 (1970-01-01T00:00:01Z) to TXID 0000000000000010")
        );
        let (kind, text) = refused(REPLICA, time(999));
        assert_eq!(kind, ErrorKind::NotFound);
        assert!(text.contains("1970-01-01T00:00:16Z"), "{text}");

        let (kind, text) = refused(REPLICA, txid(14));
        assert_eq!(kind, ErrorKind::NotFound);
        assert!(text.contains("choose 000000000000000f or TXID 000000000000000d"), "{text}");
    }

    #[test]
    fn transactions_merged_around_a_time_are_no_gap() {
        // Compaction merged 4..6 and retention removed 4; the time asked for is that of 5.
        let list = &[(9, 1, 3), (1, 4, 6), (0, 5, 5), (0, 6, 6)];
        assert_eq!(planned(list, time(5000)), [(9, 1, 3)]);
    }

    #[test]
    fn a_plan_continues_what_is_there() {
        let after = |list: &[(u8, u64, u64)], n| {
            Plan::after(&files(list), RestorePoint::Latest, Txid::new(n).unwrap())
                .map(|p| p.map(|p| shape(p.files())))
        };
        assert_eq!(after(REPLICA, 12).unwrap(), Some(vec![(1, 13, 15), (0, 16, 16)]));
        assert_eq!(after(REPLICA, 16).unwrap(), None);
        assert_eq!(after(REPLICA, 40).unwrap(), None);
        assert_eq!(after(&[(0, 20, 20)], 16).unwrap_err().kind(), ErrorKind::Corrupt);
        assert_eq!(after(&[], 16).unwrap(), None);
    }

    /// `CalcRestorePlan` as literally as possible: look at all files for every step.
    fn oracle(files: &[FileInfo], point: RestorePoint) -> Vec<FileInfo> {
        let ok = |f: &&FileInfo| match point {
            RestorePoint::Latest => true,
            RestorePoint::Txid(t) => f.id.name.max() <= t,
            RestorePoint::Timestamp(t) => f.timestamp <= t,
        };
        let mut plan: Vec<FileInfo> = Vec::new();
        let snapshots = files.iter().filter(|f| f.id.level.get() == 9).filter(ok);
        plan.extend(snapshots.max_by_key(|f| f.id.name).cloned());
        loop {
            let at = plan.last().map_or(0, |f| f.id.name.max().get());
            let mut next: Option<&FileInfo> = None;
            for f in files.iter().filter(|f| f.id.level.get() < 9).filter(ok) {
                let (min, max) = (f.id.name.min().get(), f.id.name.max().get());
                if min > at + 1 || max <= at {
                    continue;
                }
                let better = next.is_none_or(|n| {
                    let (nmin, nmax) = (n.id.name.min().get(), n.id.name.max().get());
                    if max != nmax {
                        max > nmax
                    } else if min != nmin {
                        min < nmin
                    } else {
                        f.id.level > n.id.level
                    }
                });
                if better {
                    next = Some(f);
                }
            }
            match next {
                Some(f) => plan.push(f.clone()),
                None => return plan,
            }
        }
    }

    /// Whether Litestream would refuse: it looks for files beyond the plan for the latest state
    /// only, and whether the transaction was reached.
    fn oracle_refuses(files: &[FileInfo], point: RestorePoint, plan: &[FileInfo]) -> bool {
        let Some(last) = plan.last() else { return true };
        let at = last.id.name.max();
        match point {
            RestorePoint::Latest => {
                files.iter().any(|f| f.id.level.get() < 9 && f.id.name.min().get() > at.get() + 1)
            }
            RestorePoint::Txid(t) => at < t,
            RestorePoint::Timestamp(_) => false,
        }
    }

    fn any_files() -> impl Strategy<Value = Vec<FileInfo>> {
        let one = (0u8..=9, 1u64..20, 0u64..8).prop_map(|(level, min, len)| {
            let min = if level == 9 { 1 } else { min };
            file(level, min, min + len)
        });
        prop::collection::btree_map(0u32..60, one, 0..25).prop_map(|files| {
            let mut files: Vec<_> = files.into_values().collect();
            files.sort_by_key(|f| f.id);
            files.dedup_by_key(|f| f.id);
            files
        })
    }

    fn any_point() -> impl Strategy<Value = RestorePoint> {
        prop_oneof![Just(RestorePoint::Latest), (1u64..30).prop_map(txid), (0i64..30_000).prop_map(time)]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]
        #[test]
        fn plans_are_litestreams(list in any_files(), point in any_point()) {
            let expected = oracle(&list, point);
            match Plan::new(&list, point) {
                Ok(plan) => {
                    prop_assert!(!oracle_refuses(&list, point, &expected));
                    prop_assert_eq!(plan.files(), expected);
                }
                // The only refusal of ours that is not Litestream's: a real gap before a time.
                Err(e) if matches!(point, RestorePoint::Timestamp(_)) && !expected.is_empty() => {
                    prop_assert_eq!(e.kind(), ErrorKind::Corrupt);
                    let at = expected.last().unwrap().id.name.max().get();
                    let stuck = |f: &FileInfo| f.id.level.get() == 9 || f.id.name.max().get() <= at || f.id.name.min().get() > at + 1;
                    prop_assert!(list.iter().all(stuck));
                }
                Err(_) => prop_assert!(oracle_refuses(&list, point, &expected)),
            }
        }
    }
}
