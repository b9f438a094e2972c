//! A close waits for the replica, but not for ever. What is not there stays on local disk and goes out at
//! the next open, in whatever order opens and closes come.

use std::sync::mpsc;
use std::time::Duration;

use tokio::time::Instant;

use super::bench::{Bench, PATIENCE};
use crate::error::{Error, ErrorKind};
use crate::primary::Phase;
use crate::store::{Fault, Op};

#[test]
fn a_close_brings_all_to_the_replica() {
    let mut bench = Bench::new(5);
    bench.options.sync_interval = Duration::from_secs(3600);
    bench.open();
    bench.sync();
    bench.db.change(1);
    bench.db.change(2);
    bench.close();
    bench.assert_replica_is_current();
    bench.open();
    bench.close();
    assert_eq!(bench.copies(), 1);
}

#[test]
fn a_store_that_hangs_holds_up_a_close_for_close_timeout() {
    let mut bench = Bench::new(5);
    bench.database.close_timeout = Duration::from_millis(100);
    bench.open();
    bench.sync();
    bench.store.often(Op::Put, 1000, Fault::Delay(Duration::from_secs(3600)));
    bench.db.change(1);
    bench.until("a request", |bench| bench.puts() == 1);
    bench.db.change(2);
    let began = Instant::now();
    bench.close();
    assert!(began.elapsed() < PATIENCE);
    bench.store.heal();
    bench.open();
    bench.sync();
    bench.assert_replica_is_current();
    assert_eq!(bench.copies(), 1);
}

#[test]
fn a_full_copy_that_hangs_holds_up_a_close_for_close_timeout() {
    let mut bench = Bench::new(200);
    bench.database.close_timeout = Duration::from_millis(100);
    bench.store.often(Op::Part, 1000, Fault::Delay(Duration::from_secs(3600)));
    bench.open();
    bench.db.change(1);
    bench.until("a part", |bench| bench.store.count(Op::Part) == 1);
    bench.close();
    bench.store.heal();
    bench.open();
    bench.sync();
    bench.assert_replica_is_current();
    bench.until("the end of the first copy's view", |bench| bench.db.views() == 0);
}

#[test]
fn an_open_while_the_last_close_waits_goes_on_with_the_same_publisher() {
    let mut bench = Bench::synced(5);
    bench.store.next(Op::Put, Fault::Delay(Duration::from_millis(300)));
    bench.db.change(1);
    bench.until("a request", |bench| bench.puts() == 1);
    let first = std::sync::Arc::clone(bench.primary());
    let (done, closed) = mpsc::channel();
    let closing = std::thread::spawn(move || {
        first.close(Instant::now(), PATIENCE);
        done.send(()).unwrap();
    });
    // The close has begun when the connection count is down; opening again is right at any time.
    std::thread::sleep(Duration::from_millis(50));
    bench.open();
    closed.recv_timeout(PATIENCE).unwrap();
    closing.join().unwrap();
    bench.db.change(2);
    bench.sync();
    bench.assert_replica_is_current();
    assert_eq!(bench.copies(), 1);
}

#[test]
fn a_close_in_an_outage_and_an_open_in_the_same_outage() {
    let mut bench = Bench::synced(5);
    bench.database.close_timeout = Duration::from_millis(10);
    bench.close();
    for op in [Op::List, Op::Put] {
        bench.store.often(op, 1000, Fault::Refuse(ErrorKind::Unavailable));
    }
    for page in 1..=5 {
        bench.open();
        bench.db.change(page);
        bench.close();
    }
    bench.store.heal();
    bench.open();
    bench.sync();
    bench.assert_replica_is_current();
    assert_eq!(bench.copies(), 1);
}

#[test]
fn the_wal_of_a_close_that_was_not_the_last_is_taken_up() {
    let mut bench = Bench::synced(5);
    bench.db.change(1);
    // Another process has the database open: the WAL stays.
    bench.db.primary.take().unwrap().close(Instant::now(), PATIENCE);
    bench.assert_replica_is_current();
    bench.db.change(2);
    bench.open();
    bench.db.change(3);
    bench.sync();
    bench.assert_replica_is_current();
    assert_eq!(bench.copies(), 1);
}

/// The round was under way while the connections came and went. Whoever looks at the status next has all in the replica.
#[test]
fn a_round_that_a_close_ended_is_no_failure_of_a_database_that_is_open_again() {
    let mut bench = Bench::new(5);
    bench.options.sync_interval = Duration::from_secs(3600);
    // A round that ends now is no failure any more.
    bench.open_and_rest();
    let shipper = &bench.primary().shippers()[0];
    shipper.failed(Error::new(ErrorKind::Interrupted, "app.db was closed"));
    let status = bench.status();
    assert_eq!((status.phase, status.error.map(|e| e.to_string())), (Phase::Idle, None));
    shipper.failed(Error::new(ErrorKind::Unavailable, "the store is away"));
    assert!(bench.status().error.is_some());
}
