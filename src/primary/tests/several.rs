//! A database has two replicas: each gets every commit, whatever becomes of the other.

use std::time::Duration;

use super::bench::{Bench, PATIENCE};
use crate::error::ErrorKind;
use crate::primary::{Phase, SyncReplicas};
use crate::store::{Fault, Op};

fn sync(bench: &Bench) {
    bench.primary().sync(PATIENCE, &|| false).unwrap();
}

/// The last file of the second replica has the content that the database has now, of the pages that it holds.
fn assert_second_is_current(bench: &Bench) {
    let last = bench.second.as_ref().unwrap().0.files().len() as u64;
    let mut pages = vec![Vec::new(); bench.db.pages.len()];
    for txid in 1..=last {
        for (pgno, page) in bench.read_second(txid).1 {
            if let Some(at) = pages.get_mut(pgno as usize - 1) {
                *at = page;
            }
        }
    }
    assert!(pages == bench.db.pages, "the second replica ends in another state");
}

#[test]
fn a_page_that_both_get_is_compressed_once() {
    let mut bench = Bench::with_two_replicas(20);
    bench.open();
    sync(&bench);
    // Each of them sends a file, so that both are known to take part.
    bench.db.change(1);
    sync(&bench);
    let before = bench.primary().compressed_pages();
    for round in 1..=30 {
        bench.db.commit(&[2, 3, 4, 5 + round % 10], 20);
        sync(&bench);
        assert_eq!(bench.primary().compressed_pages() - before, 4 * u64::from(round));
    }
    bench.assert_replica_is_current();
    assert_second_is_current(&bench);
}

#[test]
fn one_that_fails_or_stops_holds_the_other_up_in_nothing() {
    let mut bench = Bench::with_two_replicas(5);
    bench.database.sync_replicas = SyncReplicas::AtLeast(1);
    bench.open();
    bench.primary().sync(PATIENCE, &|| false).unwrap();
    let second = bench.second.as_ref().unwrap().1.clone();
    for kind in [ErrorKind::Unavailable, ErrorKind::Denied, ErrorKind::Conflict] {
        for op in [Op::Put, Op::Upload] {
            second.often(op, 1000, Fault::Refuse(kind));
        }
        for round in 0..10 {
            bench.db.change(1 + round % 5);
            bench.db.truncate();
            bench.primary().sync(PATIENCE, &|| false).unwrap();
            bench.until("the first replica", |bench| bench.status().lag == Duration::ZERO);
            bench.assert_replica_is_current();
        }
        second.heal();
        if kind == ErrorKind::Conflict {
            bench.until("the end of the second", |bench| bench.primary().status()[1].phase == Phase::Stopped);
        } else {
            bench.until("the second replica", |bench| bench.primary().status()[1].lag == Duration::ZERO);
            assert_second_is_current(&bench);
        }
        assert!(bench.status().error.is_none());
    }
    assert_eq!(bench.copies(), 1);
}
