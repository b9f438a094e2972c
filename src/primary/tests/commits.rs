//! Commits that wait: what a redeemed ticket promises, what it costs, and what a commit comes to that is not confirmed.

use std::time::Duration;

use tokio::time::Instant;

use super::bench::{Bench, PATIENCE};
use crate::error::{ErrorKind, Result};
use crate::ltx::Txid;
use crate::primary::{Primary, SyncReplicas, Ticket};
use crate::runtime::nap;
use crate::runtime::simulated::in_virtual_time;
use crate::store::{Fault, Op};

const HOUR: Duration = Duration::from_secs(3600);
const SECOND: Duration = Duration::from_secs(1);

/// The ticket of the last commit.
fn ticket(bench: &Bench, timeout: Duration) -> Ticket {
    bench.primary().draw_ticket(SyncReplicas::All, timeout)
}

fn redeem(primary: &Primary, ticket: &Ticket) -> Result<()> {
    primary.redeem(ticket, true, &|| false)
}

/// Commits a change of `page`, and waits.
fn commit(bench: &mut Bench, page: u32) -> Result<()> {
    bench.db.change(page);
    redeem(bench.primary(), &ticket(bench, SECOND))
}

#[test]
fn who_waits_is_served_at_once_and_all_together() {
    in_virtual_time(|| {
        let mut bench = Bench::new(5);
        bench.options.sync_interval = HOUR;
        bench.open_and_rest();
        let before = (bench.puts(), Instant::now());
        for page in [1, 2, 3] {
            commit(&mut bench, page).unwrap();
            assert_eq!(bench.txids().len() as u32, 2 + page);
        }
        let tickets: Vec<Ticket> = (1..=5)
            .map(|page| {
                bench.db.change(page);
                ticket(&bench, SECOND)
            })
            .collect();
        tickets.iter().for_each(|ticket| redeem(bench.primary(), ticket).unwrap());
        assert_eq!(bench.puts() - before.0, 4, "those who wait at the same time share an upload");
        assert!(before.1.elapsed() < SECOND, "nobody waits for sync_interval");
        let status = bench.status();
        assert_eq!(status.waits.unwrap().count, 8);
        assert_eq!(status.commits_per_upload, Some(2.0));
        bench.assert_replica_is_current();
    });
}

#[test]
fn those_who_wait_in_turn_come_to_share_uploads() {
    in_virtual_time(|| {
        let mut bench = Bench::new(5);
        bench.options.sync_interval = HOUR;
        bench.open_and_rest();
        bench.store.often(Op::Put, 1000, Fault::Delay(SECOND / 10));
        let before = bench.puts();
        let commit = |bench: &mut Bench, page| {
            bench.db.change(page);
            ticket(bench, SECOND)
        };
        let mut first = commit(&mut bench, 1);
        nap(SECOND / 50);
        // An upload is under way: without a moment's pause after it the two would go on in turn.
        let mut second = commit(&mut bench, 2);
        for _ in 0..5 {
            redeem(bench.primary(), &first).unwrap();
            first = commit(&mut bench, 1);
            redeem(bench.primary(), &second).unwrap();
            second = commit(&mut bench, 2);
        }
        redeem(bench.primary(), &first).unwrap();
        redeem(bench.primary(), &second).unwrap();
        assert_eq!(
            bench.puts() - before,
            7,
            "twelve commits: the first one alone, then two each time, the last one alone"
        );
        bench.assert_replica_is_current();
    });
}

#[test]
fn who_waits_where_all_is_there_waits_for_nothing() {
    in_virtual_time(|| {
        let mut bench = Bench::new(5);
        bench.options.sync_interval = HOUR;
        bench.open_and_rest();
        commit(&mut bench, 1).unwrap();
        let before = Instant::now();
        let wait = |bench: &Bench| bench.primary().wait_for(None, SECOND, &|| false);
        assert_eq!(wait(&bench).unwrap(), Txid::new(3));
        assert!(before.elapsed() < SECOND / 10, "{:?}", before.elapsed());
        // What another program committed is seen all the same.
        bench.db.without_shim(|db| db.change(2));
        assert_eq!(wait(&bench).unwrap_err().kind(), ErrorKind::Timeout);
    });
}

#[test]
fn without_a_ticket_nothing_hurries() {
    in_virtual_time(|| {
        let mut bench = Bench::new(5);
        bench.options.sync_interval = HOUR;
        bench.open_and_rest();
        commit(&mut bench, 1).unwrap();
        let before = (bench.puts(), Instant::now());
        bench.db.change(2);
        let last = bench.primary().wait_for(None, HOUR * 3, &|| false).unwrap();
        assert_eq!((last, bench.puts()), (Txid::new(4), before.0 + 1));
        assert!(before.1.elapsed() > HOUR / 2, "{:?}", before.1.elapsed());
        assert_eq!(bench.primary().wait_for(last, SECOND, &|| false).unwrap(), last);
        let later = bench.primary().wait_for(Txid::new(9), SECOND, &|| false);
        assert_eq!(later.unwrap_err().kind(), ErrorKind::Timeout);
        bench.assert_replica_is_current();
    });
}

#[test]
fn a_commit_that_is_not_confirmed_is_confirmed_with_a_later_one() {
    in_virtual_time(|| {
        let mut bench = Bench::synced(5);
        bench.store.often(Op::Put, 1000, Fault::Refuse(ErrorKind::Unavailable));
        let began = Instant::now();
        let error = commit(&mut bench, 1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!((SECOND..SECOND * 2).contains(&began.elapsed()), "{:?}", began.elapsed());
        let message = error.to_string();
        assert!(message.contains("is committed here and not confirmed"), "{message}");
        bench.store.heal();
        commit(&mut bench, 2).unwrap();
        bench.assert_replica_is_current();
    });
}

#[test]
fn replication_that_stopped_fails_at_once() {
    let mut bench = Bench::synced(5);
    bench.store.often(Op::Put, 1000, Fault::Refuse(ErrorKind::Conflict));
    bench.db.change(1);
    for _ in 0..2 {
        let error = redeem(bench.primary(), &ticket(&bench, PATIENCE)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
    }
}

#[test]
fn an_interrupt_ends_the_wait() {
    let mut bench = Bench::synced(5);
    bench.store.often(Op::Put, 1000, Fault::Refuse(ErrorKind::Unavailable));
    bench.db.change(1);
    let error = bench.primary().redeem(&ticket(&bench, PATIENCE), true, &|| true).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Interrupted);
}

#[test]
fn as_many_replicas_are_enough_as_were_asked_for() {
    in_virtual_time(|| {
        let mut bench = Bench::with_two_replicas(5);
        bench.options.sync_interval = HOUR;
        bench.open();
        bench.primary().sync(PATIENCE, &|| false).unwrap();
        let second = bench.second.as_ref().unwrap().1.clone();
        second.often(Op::Put, 1000, Fault::Refuse(ErrorKind::Unavailable));
        for page in 1..=4 {
            bench.db.change(page);
            let ticket = bench.primary().draw_ticket(SyncReplicas::AtLeast(1), SECOND);
            redeem(bench.primary(), &ticket).unwrap();
        }
        let tries = second.count(Op::Put);
        assert_eq!(commit(&mut bench, 5).unwrap_err().kind(), ErrorKind::Timeout);
        assert!(second.count(Op::Put) > tries, "the one that fails is tried when it is needed");
        second.heal();
        commit(&mut bench, 1).unwrap();
        bench.assert_replica_is_current();
    });
}

#[test]
fn a_standby_waits_through_the_publisher_and_through_its_heir() {
    let mut bench = Bench::synced(5);
    let publisher = bench.db.primary.take().unwrap();
    bench.db.primary = Some(publisher.beside().unwrap());
    for page in 1..=3 {
        bench.db.change(page);
        redeem(bench.primary(), &ticket(&bench, PATIENCE)).unwrap();
        bench.assert_replica_is_current();
    }
    bench.db.change(4);
    let last = ticket(&bench, PATIENCE);
    publisher.kill();
    redeem(bench.primary(), &last).unwrap();
    bench.assert_replica_is_current();
}
