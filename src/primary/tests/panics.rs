//! A background task has a bug: that is an error in status, not an endless retry and not silence.

use std::time::Duration;

use super::bench::{Bench, PATIENCE};
use crate::primary::Asked;
use crate::primary::Phase;
use crate::store::{Fault, Op};

/// The error of a task that panicked in a request of kind `op`.
fn is_told(error: &str, op: Op) -> bool {
    error.contains("a bug in litestream_vfs, please report it")
        && error.contains(&format!("injected panic of {op:?}"))
}

#[test]
fn the_publisher_stops_until_it_is_told_to_go_on() {
    let mut bench = Bench::synced(5);
    bench.store.next(Op::Put, Fault::Panic);
    bench.db.change(1);
    let error = bench.try_sync().unwrap_err().to_string();
    assert!(is_told(&error, Op::Put) && error.contains("litestream_resume()"), "{error}");
    let status = bench.status();
    assert_eq!((status.phase, status.error.unwrap().to_string()), (Phase::Stopped, error));
    let requests = bench.store.total();
    for _ in 0..5 {
        bench.db.change(1);
        bench.try_sync().unwrap_err();
    }
    assert_eq!(bench.store.total(), requests);
    bench.primary().resume(Asked::All, false, PATIENCE, &|| false).unwrap();
    bench.assert_replica_is_current();
    assert!(bench.status().error.is_none());
}

#[test]
fn work_off_the_asynchronous_threads_counts_too() {
    let mut bench = Bench::new(5);
    bench.db.during_next_view(|| panic!("injected panic of a view, expected in a test"));
    bench.open();
    let error = bench.try_sync().unwrap_err().to_string();
    assert!(error.contains("injected panic of a view"), "{error}");
    bench.close();
    bench.open();
    bench.sync();
    bench.assert_replica_is_current();
}

#[test]
fn without_its_keeper_the_database_replicates_and_says_what_is_missing() {
    let mut bench = Bench::synced(5);
    bench.db.change(1);
    bench.sync();
    bench.store.next(Op::Upload, Fault::Panic);
    let error = bench.primary().snapshot(Asked::All, PATIENCE, &|| false).unwrap_err().to_string();
    assert!(is_told(&error, Op::Upload), "{error}");
    bench.db.change(2);
    bench.sync();
    bench.assert_replica_is_current();
    let error = bench.status().error.unwrap().to_string();
    assert!(is_told(&error, Op::Upload) && error.contains("until the next open"), "{error}");
    // It is not waited for either.
    bench.primary().snapshot(Asked::All, Duration::from_secs(5), &|| false).unwrap_err();
    bench.close();
    bench.open();
    bench.primary().snapshot(Asked::All, PATIENCE, &|| false).unwrap();
}

#[test]
fn a_verification_with_a_bug_is_told() {
    let mut bench = Bench::new(5);
    bench.options.verify_interval = Duration::from_millis(50);
    bench.open();
    bench.sync();
    // Each of them, as the next one that succeeds takes the error out of the status.
    bench.store.often(Op::List, 1000, Fault::Panic);
    // The first copy may be verified already.
    bench.db.change(2);
    bench.sync();
    let is_known = |bench: &Bench| bench.status().error.is_some_and(|e| is_told(&e.to_string(), Op::List));
    bench.until("the bug is told", is_known);
    bench.store.heal();
    bench.db.change(1);
    bench.sync();
    bench.assert_replica_is_current();
    bench.until("a proof without the error", |bench| {
        let status = bench.status();
        status.error.is_none() && status.verified.is_some()
    });
}
