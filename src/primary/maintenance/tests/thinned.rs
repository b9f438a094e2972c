//! Any files and any calendar: every point that the calendar keeps can be restored from what is left, what is left beside
//! leads to one of them, and nothing that costs less would do.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;

use super::world::{plan, settings};
use crate::clock::Timestamp;
use crate::ltx::{FileId, FileName, Level, Txid};
use crate::primary::maintenance::calendar::Period;
use crate::primary::maintenance::due::Due;
use crate::primary::maintenance::inventory::Inventory;
use crate::primary::maintenance::{Calendar, Settings};
use crate::replica::{Plan, RestorePoint};
use crate::store::FileInfo;

const MINUTE_MS: i64 = 60_000;
const FIRST_MS: i64 = 1_800_000_000_000;

fn id(level: u8, min: u64, max: u64) -> FileId {
    let name = FileName::new(Txid::new(min).unwrap(), Txid::new(max).unwrap()).unwrap();
    FileId::new(Level::new(level).unwrap(), name)
}

/// The last one of each of the latest periods with a point.
fn naive(points: &[u64], times: &BTreeMap<u64, Timestamp>, calendar: Calendar) -> BTreeSet<u64> {
    let mut expected = BTreeSet::new();
    for period in Period::ALL {
        let lasts: BTreeMap<Timestamp, u64> =
            points.iter().map(|txid| (period.start(times[txid]), *txid)).collect();
        expected.extend(lasts.into_values().rev().take(calendar.count(period) as usize));
    }
    expected
}

/// All points that `files` lead to.
fn points(files: &[FileInfo], last: u64) -> Vec<u64> {
    (1..=last).filter(|txid| plan(files, *txid).is_some()).collect()
}

/// What it costs to keep those of `files` that are `doomed`.
fn cost(files: &[&FileInfo]) -> u64 {
    let one = |file: &&FileInfo| match file.id.level {
        Level::SNAPSHOT => file.size / 4 * 3 + 1,
        _ => file.size + 1,
    };
    files.iter().map(one).sum()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn what_is_left_leads_to_every_point_that_is_kept_and_nothing_cheaper_does(
        list in prop::collection::vec((prop::sample::select(vec![0u8, 0, 1, 2, 9]), 1u64..24, 0u64..8, 1u64..500), 1..16),
        gaps in prop::collection::vec(1i64..2_000, 32),
        (hourly, daily, weekly, monthly) in (0u32..6, 0u32..4, 0u32..3, 0u32..3),
        (window, later) in (0u64..3_000, 0i64..5_000),
    ) {
        let calendar = Calendar { hourly, daily, weekly, monthly };
        let mut now = FIRST_MS;
        let times: BTreeMap<u64, Timestamp> = (1..=32).zip(&gaps).map(|(txid, gap)| {
            now += gap * MINUTE_MS;
            (txid, Timestamp::from_millis(now))
        }).collect();
        let mut inventory = Inventory::default();
        for (level, min, length, size) in list {
            let (min, max) = if level == 9 { (1, min + length) } else { (min, min + length) };
            let timestamp = times[&max];
            inventory.add(FileInfo { id: id(level, min, max), size, timestamp });
            inventory.learn(Txid::new(max).unwrap(), timestamp);
        }
        let minute = Duration::from_secs(60);
        let settings = Settings {
            snapshot_retention: minute * (window as u32 + 1),
            snapshot_interval: minute * 1_000_000,
            l0_retention: minute,
            calendar,
            ..settings()
        };
        let snapshots = settings.snapshot_windows("");
        let due = Due { inventory: &inventory, settings: &settings, snapshots, may_delete: true, sealed: None };
        let now = Timestamp::from_millis(now + later * MINUTE_MS);
        let files = inventory.all();
        let doomed = due.doomed(now);
        prop_assert_eq!(due.unknown(now), None);
        let retained = due.retained(&doomed).unwrap();
        let left: Vec<FileInfo> =
            files.iter().filter(|f| !doomed.contains(&f.id) || retained.keeps(f.id).is_some()).cloned().collect();
        let promised = naive(&points(&files, 32), &times, calendar);
        for txid in &promised {
            prop_assert!(plan(&left, *txid).is_some(), "{txid} cannot be restored");
            let ours = Plan::new(&left, RestorePoint::Txid(Txid::new(*txid).unwrap()));
            prop_assert!(ours.is_ok_and(|plan| plan.txid().get() == *txid), "{txid} cannot be restored by us");
            let by_time = Plan::new(&left, RestorePoint::Timestamp(times[txid]));
            prop_assert!(by_time.is_ok_and(|plan| plan.txid().get() == *txid), "not by time {txid}");
        }
        // Once more, with what is left: nothing changes.
        let mut again = inventory.clone();
        let gone: Vec<FileId> = files.iter().map(|f| f.id).filter(|id| !left.iter().any(|f| f.id == *id)).collect();
        again.remove(&gone);
        let due = Due { inventory: &again, ..due };
        prop_assert_eq!(naive(&points(&left, 32), &times, calendar), promised.clone());
        let more = due.doomed(now);
        let kept = due.retained(&more).unwrap();
        prop_assert!(more.iter().all(|id| kept.keeps(*id).is_some()), "{more:?} go a round later");
        // The oracle tries each choice of the files that are doomed.
        let doomed: Vec<&FileInfo> = files.iter().filter(|f| doomed.contains(&f.id)).collect();
        let others: Vec<FileInfo> = files.iter().filter(|f| !doomed.contains(f)).cloned().collect();
        let kept: Vec<&FileInfo> = doomed.iter().filter(|f| retained.keeps(f.id).is_some()).copied().collect();
        for choice in 0u32..1 << doomed.len() {
            let chosen: Vec<&FileInfo> =
                (0..doomed.len()).filter(|n| choice & (1 << n) != 0).map(|n| doomed[n]).collect();
            if cost(&chosen) < cost(&kept) {
                let files: Vec<FileInfo> = others.iter().chain(chosen).cloned().collect();
                let does = promised.iter().all(|txid| plan(&files, *txid).is_some());
                prop_assert!(!does, "{choice:b} of {doomed:?} costs less than {kept:?}");
            }
        }
    }
}
