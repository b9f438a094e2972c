//! The first commit after quiet goes out at once, then at most one file per `sync_interval`. Without
//! commits there are no requests.

use std::time::Duration;

use tokio::time::Instant;

use super::bench::Bench;
use crate::primary::hooks::Signal;
use crate::runtime::nap;
use crate::runtime::simulated::in_virtual_time;

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn commits_of_one_interval_go_out_together_unless_somebody_waits() {
    let mut bench = Bench::new(5);
    bench.options.sync_interval = HOUR;
    bench.open_and_rest();
    for page in 1..=5 {
        bench.db.change(page);
    }
    assert_eq!(bench.txids(), [1, 2], "a file went out before its time");
    assert_eq!(bench.sync().get(), 3);
    assert_eq!(bench.pages_of(3), [1, 2, 3, 4, 5]);
    bench.assert_replica_is_current();
}

#[test]
fn the_first_commit_after_quiet_goes_out_at_once() {
    let mut bench = Bench::new(5);
    bench.options.sync_interval = Duration::from_millis(50);
    bench.open();
    bench.until("the copy", |bench| bench.txids() == [1]);
    bench.db.change(1);
    bench.until("a file", |bench| bench.txids() == [1, 2]);
    bench.db.change(1);
    bench.until("a file", |bench| bench.txids() == [1, 2, 3]);
}

#[test]
fn under_load_there_is_at_most_one_file_in_an_interval() {
    in_virtual_time(|| under_load(Duration::from_millis(100)));
}

#[test]
fn under_load_there_is_at_most_one_file_in_a_long_interval() {
    in_virtual_time(|| under_load(HOUR));
}

fn under_load(interval: Duration) {
    let mut bench = Bench::new(5);
    bench.options.sync_interval = interval;
    bench.open_and_rest();
    let (before, began) = (bench.puts(), Instant::now());
    while bench.puts() < before + 5 {
        bench.db.change(1);
        nap(interval / 100);
    }
    // Between five files lie four intervals.
    let took = began.elapsed();
    assert!((interval * 4..=interval * 5).contains(&took), "five files in {took:?}");
    bench.sync();
    bench.assert_replica_is_current();
}

#[test]
fn without_commits_there_are_no_requests() {
    in_virtual_time(no_commits);
}

fn no_commits() {
    let mut bench = Bench::synced(5);
    bench.db.change(1);
    bench.db.truncate();
    bench.sync();
    bench.sync();
    let before = bench.store.total();
    nap(HOUR / 2);
    bench.sync();
    assert_eq!(bench.store.total(), before);
}

#[test]
fn who_hurries_the_publisher_and_does_not_wait_is_heard_after_the_pause() {
    let signal = Signal::default();
    signal.hurry();
    let work = async {
        let pause = tokio::time::timeout(Duration::from_millis(1), signal.hurried(|| false));
        assert!(pause.await.is_err(), "nobody waits");
        tokio::time::timeout(Duration::from_secs(10), signal.next()).await.expect("it is forgotten");
    };
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work);
}
