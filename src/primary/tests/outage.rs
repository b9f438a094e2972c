//! The replica cannot be reached for a while. Commits go on, their order stays, and all of it is there
//! in the end.

use std::fs;
use std::time::Duration;

use super::bench::Bench;
use crate::clock::Timestamp;
use crate::error::ErrorKind;
use crate::primary::Phase;
use crate::store::{Fault, Op};

const OPS: [Op; 6] = [Op::List, Op::Get, Op::Put, Op::Upload, Op::Part, Op::Complete];

fn outage(bench: &Bench, kind: ErrorKind) {
    for op in OPS {
        bench.store.often(op, 1000, Fault::Refuse(kind));
    }
}

#[test]
fn from_the_first_open_on() {
    let mut bench = Bench::new(5);
    outage(&bench, ErrorKind::Unavailable);
    bench.open();
    bench.db.change(1);
    let error = bench.primary().sync(Duration::from_millis(200), &|| false).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("injected failure"), "{error}");
    assert_eq!(bench.status().phase, Phase::Retrying);
    bench.db.truncate();
    bench.db.change(2);
    bench.store.heal();
    bench.sync();
    bench.assert_replica_is_current();
    assert!(bench.status().error.is_none());
}

#[test]
fn every_kind_of_failure_is_got_over() {
    for kind in [ErrorKind::Unavailable, ErrorKind::Denied, ErrorKind::NotFound, ErrorKind::NoSpace] {
        let mut bench = Bench::synced(5);
        outage(&bench, kind);
        for round in 0..20 {
            bench.db.commit(&[1 + round % 5], 5 + round % 3);
            if round % 4 == 0 {
                bench.db.truncate();
            }
        }
        bench.primary().sync(Duration::from_millis(20), &|| false).unwrap_err();
        bench.store.heal();
        bench.sync();
        bench.assert_replica_is_current();
        assert_eq!(bench.copies(), 1);
    }
}

#[test]
fn each_point_in_time_of_an_outage_survives() {
    let mut bench = Bench::synced(5);
    let before = bench.txids().len() as u64;
    outage(&bench, ErrorKind::Unavailable);
    for second in 1..=20 {
        bench.clock.set(Timestamp::from_millis(1_000_000 + second * 1000));
        bench.db.change(1 + second as u32 % 5);
        bench.primary().capture();
    }
    bench.store.heal();
    bench.sync();
    bench.assert_replica_is_current();
    let times: Vec<i64> =
        (1..=20).map(|n| bench.header(before + n).timestamp.as_millis() / 1000 - 1000).collect();
    assert_eq!(times, (1..=20).collect::<Vec<_>>());
    assert_eq!(bench.copies(), 1);
}

#[test]
fn a_full_copy_that_fails_half_way_is_made_again() {
    let mut bench = Bench::new(200);
    bench.store.next(Op::Part, Fault::Refuse(ErrorKind::Unavailable));
    bench.store.next(Op::Complete, Fault::Refuse(ErrorKind::Unavailable));
    bench.open();
    bench.db.change(3);
    bench.sync();
    bench.db.change(4);
    bench.sync();
    bench.assert_replica_is_current();
    assert_eq!(bench.copies(), 3);
    assert_eq!(bench.db.views(), 0, "a view was left open");
}

#[test]
fn commits_during_a_full_copy_follow_it() {
    let mut bench = Bench::new(200);
    bench.store.next(Op::Complete, Fault::Delay(Duration::from_millis(200)));
    bench.open();
    bench.until("the end of the copy", |bench| bench.store.count(Op::Complete) == 1);
    bench.db.commit(&[1, 7], 201);
    // The view is gone by now: the WAL may restart while the copy is on its way.
    bench.until("the end of the view", |bench| bench.db.views() == 0);
    bench.db.truncate();
    bench.db.commit(&[9], 150);
    bench.sync();
    bench.assert_replica_is_current();
    assert_eq!(bench.copies(), 1);
}

#[test]
fn lag_is_the_age_of_the_oldest_commit_that_waits() {
    let mut bench = Bench::synced(5);
    assert_eq!(bench.status().lag, Duration::ZERO);
    outage(&bench, ErrorKind::Unavailable);
    bench.clock.set(Timestamp::from_millis(2_000_000));
    bench.db.change(1);
    bench.clock.set(Timestamp::from_millis(2_007_000));
    bench.db.change(2);
    bench.clock.set(Timestamp::from_millis(2_009_000));
    assert_eq!(bench.status().lag, Duration::from_secs(9));
    bench.store.heal();
    bench.sync();
    assert_eq!(bench.status().lag, Duration::ZERO);
}

/// Another file took the database's place, and its local state that of this one: its waiting files have the same names.
#[test]
fn what_waits_for_another_file_of_that_name_is_left_alone() {
    let mut bench = Bench::synced(5);
    bench.database.close_timeout = Duration::from_millis(10);
    bench.store.often(Op::Put, 1000, Fault::Refuse(ErrorKind::Unavailable));
    bench.db.change(1);
    bench.until("a failure", |bench| bench.status().error.is_some());
    let other = bench.db.path.with_extension("other");
    fs::copy(&bench.db.path, &other).unwrap();
    fs::rename(&other, &bench.db.path).unwrap();
    let theirs = ["spool/0000000000000002.ltx", "vfs.json"].map(|name| bench.local(name));
    for path in &theirs {
        fs::write(path, b"theirs").unwrap();
    }
    bench.close();
    for path in &theirs {
        assert_eq!(fs::read(path).unwrap(), b"theirs", "{}", path.display());
    }
}
