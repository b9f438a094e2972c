//! The WAL loses what it holds - a writer restarts it, a checkpoint truncates it, the last close deletes
//! it - while the replica cannot be reached. No commit is lost with it.

use std::time::{Duration, Instant};

use super::bench::{Bench, PATIENCE};
use super::sqlite::Db;
use crate::clock::Timestamp;
use crate::error::ErrorKind;
use crate::page::PageSize;
use crate::runtime::simulated::{self, simulate};
use crate::store::{Fault, Op};

const DOWN: Fault = Fault::Refuse(ErrorKind::Unavailable);

type Way = (&'static str, fn(&mut Db));

/// The ways in which a WAL loses what it holds.
const WAYS: [Way; 3] = [
    ("restart", |db| assert!(db.checkpoint())),
    ("truncate", |db| assert!(db.truncate())),
    ("delete", |db| assert!(db.close_last())),
];

fn outage(bench: &Bench) {
    for op in [Op::Put, Op::Upload] {
        bench.store.often(op, 1000, DOWN);
    }
}

#[test]
fn commits_of_an_outage_survive_every_way() {
    for (way, lose) in WAYS {
        let mut bench = Bench::synced(5);
        outage(&bench);
        for round in 0..5 {
            bench.db.change(1 + round % 5);
            bench.db.commit(&[2, 3], 5 + round);
            lose(&mut bench.db);
        }
        bench.db.change(1);
        bench.store.heal();
        bench.sync();
        bench.assert_replica_is_current();
        assert_eq!(bench.copies(), 1, "{way}: the database was copied anew");
    }
}

#[test]
fn and_survive_a_crash_right_after() {
    for (way, lose) in WAYS {
        let mut bench = Bench::synced(5);
        outage(&bench);
        bench.db.commit(&[1, 3], 7);
        bench.db.change(2);
        lose(&mut bench.db);
        bench.kill();
        bench.store.heal();
        bench.open();
        bench.db.change(5);
        bench.sync();
        bench.assert_replica_is_current();
        assert_eq!(bench.copies(), 1, "{way}: the database was copied anew");
    }
}

#[test]
fn what_is_under_way_is_kept_and_stays_the_oldest() {
    let mut bench = Bench::synced(5);
    bench.store.next(Op::Put, Fault::Delay(Duration::from_secs(3600)));
    bench.db.change(1);
    bench.until("a request", |bench| bench.puts() == 1);
    for _ in 0..2 {
        bench.db.change(1);
        bench.primary().capture();
        bench.db.truncate();
    }
    assert_eq!(bench.spooled().len(), 3);
    bench.kill();
    bench.open();
    bench.sync();
    bench.assert_replica_is_current();
    assert_eq!(bench.copies(), 1);
}

#[test]
fn rolled_back_frames_never_count() {
    let mut bench = Bench::synced(5);
    for _ in 0..3 {
        bench.db.roll_back();
        bench.sync();
        bench.db.change(2);
        bench.db.roll_back();
        bench.db.checkpoint();
        bench.db.roll_back();
        bench.db.roll_back();
        bench.sync();
        bench.assert_replica_is_current();
        bench.db.change(3);
        bench.db.truncate();
        bench.sync();
        bench.assert_replica_is_current();
    }
    assert_eq!(bench.copies(), 1);
}

#[test]
fn a_database_that_shrinks_and_grows_has_no_old_pages() {
    let mut bench = Bench::synced(9);
    outage(&bench);
    bench.db.commit(&[8, 9], 9);
    bench.db.commit(&[1], 4);
    bench.db.truncate();
    bench.db.commit(&[2], 3);
    bench.db.truncate();
    bench.db.commit(&[1], 7);
    bench.store.heal();
    bench.sync();
    bench.assert_replica_is_current();
}

#[test]
fn a_transaction_that_memory_should_not_hold_goes_through_the_disk() {
    let mut bench = Bench::with_page_size(PageSize::MAX, 2);
    bench.open();
    bench.sync();
    outage(&bench);
    bench.db.change(1);
    bench.db.commit(&[1], 100);
    bench.primary().sync(Duration::from_millis(300), &|| false).unwrap_err();
    bench.until("a waiting file", |bench| !bench.spooled().is_empty());
    bench.db.change(2);
    bench.db.truncate();
    bench.db.change(100);
    bench.store.heal();
    bench.sync();
    bench.assert_replica_is_current();
    bench.until("an empty spool", |bench| bench.spooled().is_empty());
}

#[test]
fn a_file_bears_the_time_of_its_last_commit() {
    let mut bench = Bench::synced(5);
    outage(&bench);
    bench.clock.set(Timestamp::from_millis(2_000_000));
    bench.db.change(1);
    bench.db.truncate();
    bench.clock.set(Timestamp::from_millis(9_000_000));
    bench.store.heal();
    let txid = bench.sync();
    assert_eq!(bench.header(txid.get()).timestamp, Timestamp::from_millis(2_000_000));
}

#[test]
fn without_an_index_the_last_commit_frame_counts() {
    let mut bench = Bench::synced(5);
    bench.db.exclusive = true;
    for round in 0..4 {
        bench.db.change(1);
        bench.db.roll_back();
        bench.sync();
        bench.assert_replica_is_current();
        outage(&bench);
        bench.db.commit(&[2], 6 + round);
        bench.db.truncate();
        bench.db.change(3);
        bench.db.checkpoint();
        bench.store.heal();
    }
    bench.db.change(4);
    bench.sync();
    bench.assert_replica_is_current();
    assert_eq!(bench.copies(), 1);
}

/// Whenever a process is killed while its first copy lands, the next one knows the database for a later state of it, whatever
/// the WAL lost meanwhile.
#[test]
fn a_kill_while_the_first_copy_lands_stops_nothing() {
    for seed in 0..60 {
        simulate(seed, || {
            let mut bench = Bench::new(5);
            bench.open();
            let simulation = simulated::current().expect("a simulation");
            simulation.pass(Duration::from_millis(simulation.below(12)));
            bench.kill();
            bench.db.without_shim(|db| {
                db.change(3);
                db.truncate();
                db.change(1);
            });
            bench.open();
            bench.sync();
            bench.assert_replica_is_current();
        });
    }
}

/// A process that is killed right then leaves no state that the next one could not follow.
#[test]
fn the_state_names_a_first_copy_only_when_its_checksums_are_there() {
    for _ in 0..20 {
        let mut bench = Bench::new(5);
        bench.open();
        let (state, sums) = (bench.local("vfs.json"), bench.local("pages.sums"));
        // Without a pause: the moment between the two is short.
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = std::fs::read_to_string(&state).unwrap_or_default();
            let (is_named, is_summed) = (text.contains("\"txid\":"), sums.exists());
            assert!(!is_named || is_summed, "a kill now would leave a copy without checksums");
            if is_named {
                break;
            }
            assert!(Instant::now() < deadline, "there is no first copy");
        }
        bench.sync();
        bench.assert_replica_is_current();
    }
}
