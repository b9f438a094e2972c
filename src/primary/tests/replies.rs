//! A request is done, and its answer is lost. What landed is recognised: nothing is sent twice, nothing
//! is left out, and the next file takes the next transaction.

use std::time::Duration;

use super::bench::{Bench, file_with, sent_header};
use crate::error::ErrorKind;
use crate::store::{Fault, Op};

const LOST: Fault = Fault::LoseAnswer(ErrorKind::Unavailable);

#[test]
fn a_put_that_landed_is_recognised() {
    let mut bench = Bench::synced(5);
    for _ in 0..3 {
        bench.store.next(Op::Put, LOST);
        bench.db.change(2);
        bench.sync();
    }
    assert_eq!(bench.txids(), [1, 2, 3, 4]);
    bench.assert_replica_is_current();
}

#[test]
fn commits_made_meanwhile_take_the_next_transaction() {
    let mut bench = Bench::synced(5);
    bench.store.next(Op::Put, LOST);
    bench.db.change(2);
    bench.until("a request", |bench| bench.puts() >= 1);
    bench.db.change(3);
    bench.db.truncate();
    bench.db.change(4);
    bench.sync();
    assert_eq!(bench.pages_of(2), [2]);
    assert_eq!(*bench.txids().last().unwrap(), bench.txids().len() as u64);
    bench.assert_replica_is_current();
}

#[test]
fn a_full_copy_that_landed_is_recognised_behind_a_store_that_tries_again() {
    let mut bench = Bench::new(5);
    bench.retries = true;
    bench.store.next(Op::Complete, LOST);
    bench.open();
    bench.sync();
    assert_eq!((bench.txids(), bench.copies()), (vec![1], 1));
    bench.db.change(1);
    bench.sync();
    bench.assert_replica_is_current();
    assert_eq!(bench.txids(), [1, 2]);
}

#[test]
fn a_full_copy_whose_fate_is_unknown_is_made_again() {
    let mut bench = Bench::new(5);
    bench.store.next(Op::Complete, LOST);
    bench.open();
    bench.sync();
    // Somebody without the shim may have written between the two: the first copy proves nothing.
    assert_eq!(bench.txids(), [1, 2]);
    bench.assert_replica_is_current();
}

#[test]
fn a_put_of_a_killed_process_that_lands_late_is_one_transaction_of_ours() {
    let mut bench = Bench::synced(5);
    bench.db.change(2);
    bench.sync();
    // It reaches the store after the next process has looked there.
    bench.store.next(Op::Put, Fault::Delay(Duration::from_secs(3600)));
    bench.db.change(3);
    bench.until("a request", |bench| bench.puts() == 2);
    let late = sent_header(&bench);
    let pages = bench.db.pages.clone();
    bench.kill();
    bench.store.next(Op::Put, Fault::Delay(Duration::from_secs(1)));
    bench.open();
    bench.until("a request of the next process", |bench| bench.puts() == 3);
    file_with(&bench, late, &pages);
    bench.db.change(4);
    // Without anybody who waits and hurries.
    bench.until("the next transaction", |bench| bench.txids() == [1, 2, 3, 4]);
    bench.sync();
    bench.assert_replica_is_current();
    assert_eq!(bench.copies(), 1);
}

/// SQLite up to 3.40 does not seal every frame: commits that were read and published may be lost with their process.
#[test]
fn what_the_wal_lost_of_a_file_that_lands_late_goes_out_again() {
    for (changed, size) in [(&[3, 6, 7][..], 7), (&[3], 3)] {
        let mut bench = Bench::synced(5);
        bench.db.change(2);
        bench.sync();
        bench.store.next(Op::Put, Fault::Delay(Duration::from_secs(3600)));
        bench.db.commit(changed, size);
        bench.until("a request", |bench| bench.puts() == 2);
        let late = sent_header(&bench);
        let pages = bench.db.pages.clone();
        bench.kill();
        bench.db.fail_power(1);
        bench.store.next(Op::Put, Fault::Delay(Duration::from_secs(1)));
        bench.open();
        bench.db.change(4);
        bench.until("a request of the next process", |bench| bench.puts() == 3);
        file_with(&bench, late, &pages);
        bench.sync();
        bench.assert_replica_is_current();
        assert_eq!(bench.copies(), 1);
    }
}

/// As above, of a file that landed: before the next process could look at the replica, it made a waiting file of what followed
/// in the WAL. Without the pages that the WAL lost, that would make a state that never was.
#[test]
fn what_the_wal_lost_of_a_file_that_landed_goes_out_with_what_waits() {
    let mut bench = Bench::synced(5);
    bench.db.change(2);
    bench.sync();
    bench.store.next(Op::Put, LOST);
    bench.store.next(Op::Put, Fault::Hang);
    bench.db.commit(&[3, 4], 5);
    bench.until("the file", |bench| bench.txids() == [1, 2, 3]);
    bench.kill();
    bench.db.fail_power(1);
    bench.store.heal();
    bench.store.often(Op::List, 1000, Fault::Refuse(ErrorKind::Unavailable));
    bench.open();
    bench.db.change(5);
    bench.primary().capture();
    assert_eq!(bench.spooled().len(), 1);
    bench.store.heal();
    bench.sync();
    bench.assert_replica_is_current();
    assert_eq!(bench.copies(), 1);
}
