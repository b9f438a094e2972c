//! `litestream_sync` returns only when every commit made before it is in the replica, and does not say
//! that there is nothing while there is something.

use std::sync::mpsc;
use std::time::Duration;

use super::bench::{Bench, PATIENCE};
use crate::error::ErrorKind;
use crate::store::{Fault, Op};

/// Commits while the publisher has pinned a view and not looked at it yet.
fn commit_during_view(bench: &mut Bench, start: impl FnOnce(&mut Bench)) {
    let (reached, wait_for_view) = mpsc::channel();
    let (go_on, wait_for_commit) = mpsc::channel();
    bench.db.during_next_view(move || {
        reached.send(()).unwrap();
        wait_for_commit.recv_timeout(PATIENCE).unwrap();
    });
    start(bench);
    wait_for_view.recv_timeout(PATIENCE).unwrap();
    bench.db.change(1);
    go_on.send(()).unwrap();
}

#[test]
fn a_commit_during_the_first_look_is_waited_for() {
    let mut bench = Bench::synced(5);
    bench.db.change(2);
    bench.sync();
    let killed = std::sync::Arc::clone(bench.primary());
    bench.kill();
    // An open of this process waits for the look; another process's commits do not.
    commit_during_view(&mut bench, |bench| bench.db.primary = Some(killed.beside().unwrap()));
    bench.sync();
    bench.assert_replica_is_current();
}

#[test]
fn a_commit_while_a_full_copy_begins_is_waited_for() {
    let mut bench = Bench::synced(5);
    bench.db.change(2);
    bench.sync();
    // Waits for the view that the last round may still have.
    bench.primary().left_wal_mode();
    commit_during_view(&mut bench, |bench| bench.db.change(3));
    bench.sync();
    bench.assert_replica_is_current();
}

#[test]
fn a_database_that_was_just_filled_is_not_called_empty() {
    for _ in 0..20 {
        let mut bench = Bench::new(0);
        bench.open();
        let error = bench.try_sync().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        bench.db.fill(3);
        bench.primary().entered_wal_mode();
        assert_eq!(bench.sync().get(), 1);
        bench.assert_replica_is_current();
    }
}

#[test]
fn every_sync_covers_the_commit_before_it() {
    let mut bench = Bench::synced(5);
    bench.store.often(Op::Put, 100, Fault::LoseAnswer(ErrorKind::Unavailable));
    for i in 0..200_u32 {
        bench.db.change(i % 5 + 1);
        match i % 11 {
            3 => assert!(bench.db.truncate()),
            5 => assert!(bench.db.checkpoint()),
            7 => bench.db.roll_back(),
            _ => {}
        }
        let txid = bench.sync().get();
        assert_eq!(txid, *bench.txids().last().unwrap());
        let (_, replica) = bench.replay();
        assert!(replica == bench.db.pages, "commit {i} is not in the replica");
    }
    bench.assert_replica_is_current();
}

#[test]
fn an_interrupted_sync_returns() {
    let mut bench = Bench::synced(5);
    bench.store.often(Op::Put, 1000, Fault::Delay(Duration::from_secs(3600)));
    bench.db.change(1);
    let error = bench.primary().sync(PATIENCE, &|| true).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Interrupted);
}

#[test]
fn another_process_publishes() {
    let mut bench = Bench::new(5);
    let lock = crate::primary::ownership::PublisherLock::take(&bench.state_folder()).unwrap();
    bench.open();
    bench.db.change(1);
    let error = bench.primary().sync(Duration::from_millis(200), &|| false).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert!(error.to_string().contains("the process that publishes it"), "{error}");
    drop(lock);
    bench.db.change(2);
    bench.until("the other process's place", |bench| bench.try_sync().is_ok());
    bench.assert_replica_is_current();
}
