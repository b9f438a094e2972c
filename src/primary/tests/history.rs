//! A primary keeps the history of what it publishes.

use std::time::Duration;

use super::bench::{Bench, defaulting_to};
use crate::clock::{Clock as _, Timestamp};
use crate::error::ErrorKind;
use crate::ltx::Level;
use crate::primary::Asked;
use crate::primary::{Calendar, HistorySettings, SnapshotAt};
use crate::store::{Fault, Op};

fn keep_history(bench: &mut Bench) {
    let minute = Duration::from_secs(60);
    bench.options.history = defaulting_to(HistorySettings {
        levels: vec![minute / 2, minute * 5],
        snapshot_interval: minute * 60,
        snapshot_at: SnapshotAt::Anytime,
        snapshot_retention: minute * 60,
        l0_retention: minute * 5,
        retention: true,
        calendar: Calendar::default(),
    });
}

fn pass(bench: &Bench, time: Duration) {
    bench.clock.set(Timestamp::from_millis(bench.clock.now().as_millis() + time.as_millis() as i64));
}

fn count(bench: &Bench, level: u8) -> usize {
    bench.memory.files().iter().filter(|(id, _)| id.level == Level::new(level).unwrap()).count()
}

#[test]
fn a_primary_that_is_opened_for_a_moment_compacts_in_the_end() {
    let mut bench = Bench::new(5);
    keep_history(&mut bench);
    for _ in 0..150 {
        bench.open();
        bench.db.change(3);
        bench.close();
        pass(&bench, Duration::from_secs(10));
    }
    // 150 files of level 0 in 25 minutes.
    let levels = [0, 1, 2].map(|level| count(&bench, level));
    assert!(levels[0] < 40 && (40..=51).contains(&levels[1]) && (4..=6).contains(&levels[2]), "{levels:?}");
}

#[test]
fn a_snapshot_is_that_of_the_last_commit() {
    let mut bench = Bench::synced(5);
    bench.db.change(2);
    let txid = bench.primary().snapshot(Asked::All, Duration::from_secs(60), &|| false).unwrap().unwrap();
    assert_eq!((txid, count(&bench, 9)), (bench.sync(), 1));
    let snapshot = bench.memory.files().pop().unwrap().0;
    assert_eq!((snapshot.name.min().get(), snapshot.name.max()), (1, txid));
}

#[test]
fn a_snapshot_that_is_not_waited_for_is_interrupted() {
    let bench = Bench::synced(5);
    bench.store.often(Op::List, 1000, Fault::Delay(Duration::from_secs(60)));
    let error = bench.primary().snapshot(Asked::All, Duration::from_secs(60), &|| true).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Interrupted);
}

#[test]
fn nobody_keeps_the_history_of_a_replica_that_somebody_else_writes() {
    let mut bench = Bench::synced(5);
    super::bench::foreign_file(&bench, 2, 99, &bench.db.pages.clone());
    bench.db.change(1);
    assert_eq!(bench.try_sync().unwrap_err().kind(), ErrorKind::Conflict);
    let error = bench.primary().snapshot(Asked::All, Duration::from_secs(60), &|| false).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(count(&bench, 9), 0);
}
