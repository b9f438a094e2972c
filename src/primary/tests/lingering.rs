//! After the last close a database is remembered for a while: opening it again asks the store for nothing, what waits in
//! files is sent meanwhile, and nothing is believed that changed since.

use std::fs;
use std::time::Duration;

use super::bench::{Bench, PATIENCE};
use crate::error::ErrorKind;
use crate::files::DatabaseLock;
use crate::primary::Primary;
use crate::primary::ownership::PublisherLock;
use crate::store::{Fault, Op};

const OPS: [Op; 9] =
    [Op::List, Op::Head, Op::Get, Op::Put, Op::Upload, Op::Part, Op::Complete, Op::Abort, Op::Delete];

fn requests(bench: &Bench) -> u64 {
    OPS.iter().map(|op| bench.store.count(*op)).sum()
}

fn refuse(bench: &Bench) {
    for op in OPS {
        bench.store.often(op, 1000, Fault::Refuse(ErrorKind::Unavailable));
    }
}

/// A database that was published, written while the store was away, and closed.
fn closed_in_an_outage() -> Bench {
    let mut bench = Bench::synced(5);
    bench.database.close_timeout = Duration::from_millis(10);
    refuse(&bench);
    bench.db.change(1);
    bench.until("a failure", |bench| bench.status().error.is_some());
    bench.db.change(2);
    // Nothing lingers while the history is at work, and a close in an outage does not wait for that.
    bench.primary().shippers().iter().for_each(|shipper| shipper.history.settle(PATIENCE));
    bench.close_for_a_moment();
    bench
}

#[test]
fn a_database_that_is_opened_again_asks_for_nothing() {
    let mut bench = Bench::synced(5);
    bench.close_for_a_moment();
    let asked = requests(&bench);
    for _ in 0..5 {
        bench.open();
        bench.close_for_a_moment();
    }
    assert_eq!(requests(&bench), asked);
    for page in 1..=3 {
        bench.open();
        bench.db.change(page);
        bench.close_for_a_moment();
        bench.assert_replica_is_current();
    }
    assert_eq!((requests(&bench), bench.copies()), (asked + 3, 1));
}

/// As a program does that opens the database for each request: nobody waits for its commits.
#[test]
fn commits_after_an_open_go_out_by_themselves() {
    let mut bench = Bench::new(5);
    bench.options.sync_interval = Duration::from_millis(5);
    bench.open();
    bench.sync();
    for _ in 0..200 {
        // The close waits for it.
        bench.db.change(1);
        bench.close_for_a_moment();
        bench.open();
        let before = bench.txids().len();
        bench.db.change(3);
        bench.until("a commit in the replica", |bench| bench.txids().len() > before);
    }
    bench.sync();
    bench.assert_replica_is_current();
}

#[test]
fn what_waits_is_sent_though_no_connection_has_it_open() {
    let mut bench = closed_in_an_outage();
    assert!(!bench.spooled().is_empty());
    let views = bench.db.views();
    bench.store.heal();
    bench.until("the rest", |bench| bench.txids().len() > 1 && bench.spooled().is_empty());
    bench.assert_replica_is_current();
    assert_eq!(bench.db.views(), views);
    bench.open();
    bench.db.change(3);
    bench.sync();
    bench.assert_replica_is_current();
    assert_eq!(bench.copies(), 1);
}

#[test]
fn a_database_that_is_opened_again_in_an_outage_goes_on() {
    let mut bench = closed_in_an_outage();
    for page in 1..=5 {
        bench.open();
        bench.db.change(page);
        bench.close_for_a_moment();
    }
    bench.store.heal();
    bench.open();
    bench.sync();
    bench.assert_replica_is_current();
    assert_eq!(bench.copies(), 1);
}

#[test]
fn a_folder_that_is_removed_stays_so() {
    let bench = closed_in_an_outage();
    fs::remove_dir_all(bench.state_folder()).unwrap();
    bench.store.heal();
    std::thread::sleep(Duration::from_millis(400));
    assert!(!bench.state_folder().exists());
    assert_eq!(bench.txids(), [1]);
}

#[test]
fn what_was_written_meanwhile_is_sent() {
    let mut bench = Bench::synced(5);
    bench.close_for_a_moment();
    // By a program that does not use the library.
    bench.db.without_shim(|db| db.change(3));
    bench.open();
    bench.sync();
    bench.assert_replica_is_current();
}

#[test]
fn nothing_is_locked_unless_something_waits() {
    let mut bench = Bench::synced(5);
    bench.close_for_a_moment();
    assert!(PublisherLock::take(&bench.state_folder()).unwrap().is_some());
    let bench = closed_in_an_outage();
    // In this process it counts as its own.
    assert!(DatabaseLock::Publish.is_ours(&bench.state_folder()));
}

#[test]
fn who_outlives_its_half_minute_is_opened_as_for_the_first_time() {
    let mut bench = closed_in_an_outage();
    bench.store.heal();
    bench.until("the rest", |bench| bench.spooled().is_empty());
    Primary::outlive(&bench.db.path);
    let asked = requests(&bench);
    bench.open();
    assert!(requests(&bench) > asked);
    bench.assert_replica_is_current();
}
