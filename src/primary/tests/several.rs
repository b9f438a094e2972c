//! A database has two replicas: each gets every commit, whatever becomes of the other.

use super::bench::{Bench, PATIENCE};
use crate::error::ErrorKind;
use crate::primary::{Phase, SyncReplicas};
use crate::store::{Fault, Op};

fn sync(bench: &Bench) {
    bench.primary().sync(PATIENCE, &|| false).unwrap();
}

/// Whether the files of the second replica end in the state that the database has now.
fn second_is_current(bench: &Bench) -> bool {
    let last = bench.second.as_ref().unwrap().0.files().len() as u64;
    let mut pages = vec![Vec::new(); bench.db.pages.len()];
    for txid in 1..=last {
        for (pgno, page) in bench.read_second(txid).1 {
            if let Some(at) = pages.get_mut(pgno as usize - 1) {
                *at = page;
            }
        }
    }
    pages == bench.db.pages
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
    assert!(second_is_current(&bench));
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
            bench.until("the first replica", |bench| bench.replay().1 == bench.db.pages);
        }
        second.heal();
        if kind == ErrorKind::Conflict {
            bench.until("the end of the second", |bench| bench.primary().status()[1].phase == Phase::Stopped);
        } else {
            bench.until("the second replica", second_is_current);
        }
        assert!(bench.status().error.is_none());
    }
    assert_eq!(bench.copies(), 1);
}

/// The next process has heard nothing of the second replica yet, and the first has moved on: whoever restarts the WAL then is
/// to bear in mind where the second is, or all pages would have to be compared with it.
#[test]
fn positions_of_one_that_is_not_heard_of_stay_until_it_is() {
    let mut bench = Bench::with_two_replicas(5);
    bench.database.sync_replicas = SyncReplicas::AtLeast(1);
    bench.open();
    bench.db.change(1);
    sync(&bench);
    bench.until("the second replica", second_is_current);
    bench.until("rest", |bench| bench.primary().status().iter().all(|replica| replica.phase == Phase::Idle));
    let of_second = bench.primary().positions().pop().unwrap();
    let second = bench.second.as_ref().unwrap().1.clone();
    bench.kill();
    for op in [Op::List, Op::Get, Op::Head, Op::Put, Op::Upload] {
        // One that fails would make waiting files meanwhile.
        second.often(op, 1000, Fault::Hang);
    }
    bench.open();
    for pgno in 1..=3 {
        bench.db.change(pgno);
        bench.until("the first replica", |bench| bench.replay().1 == bench.db.pages);
    }
    let now = bench.primary().positions();
    assert!(now.contains(&of_second) && now[0] != of_second, "{of_second:?}, then {now:?}");
    bench.kill();
    second.heal();
    bench.open();
    bench.until("the second replica", second_is_current);
}
