//! Files of the replica are gone or damaged. That is noticed, and healed by a full copy at the next transaction that
//! is a snapshot too.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::bench::{Bench, foreign_file, message, run};
use crate::clock::{Clock as _, Timestamp};
use crate::error::{Error, ErrorKind};
use crate::ltx::sealing::sample_recipients;
use crate::ltx::{FileId, FileName, Level, Recipients, Txid};
use crate::primary::Asked;
use crate::primary::Phase;
use crate::primary::hooks::CommitSeq;
use crate::primary::shipper::{Asked as AskedLook, ReplicaLook, Waiter};
use crate::store::{Fault, Layout, Op};

const PATIENCE: Duration = Duration::from_secs(30);

fn l0(txid: u64) -> FileId {
    FileId::new(Level::L0, FileName::single(Txid::new(txid).unwrap()))
}

/// A replica of five transactions.
fn five() -> Bench {
    let mut bench = Bench::synced(5);
    for page in [2, 3, 1, 4] {
        bench.db.change(page);
        bench.sync();
    }
    assert_eq!(bench.txids(), [1, 2, 3, 4, 5]);
    bench
}

fn remove(bench: &Bench, txids: impl IntoIterator<Item = u64>) {
    let ids: Vec<FileId> = txids.into_iter().map(l0).collect();
    let memory = bench.memory.clone();
    run(async move { memory.delete(&ids).await }).unwrap();
}

fn damage(bench: &Bench, txid: u64) {
    bench.memory.tamper(l0(txid), |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    });
}

/// The same, of which one file is gone and nobody decided yet.
fn stopped_at_a_hole() -> Bench {
    let mut bench = five();
    bench.options.auto_recover = false;
    bench.close();
    remove(&bench, [3]);
    bench.open();
    bench.try_sync().unwrap_err();
    bench
}

/// Somebody asks for a full copy, which gets through, and its snapshot does not.
fn copy_without_snapshot(bench: &Bench) {
    bench.store.next(Op::Upload, Fault::Delay(Duration::from_millis(1)));
    (0..100).for_each(|_| bench.store.next(Op::Upload, Fault::Refuse(ErrorKind::Unavailable)));
    bench.primary().resume(Asked::All, true, Duration::from_millis(300), &|| false).unwrap_err();
}

/// The newest state is the database's, and begins with the snapshot of `txid`.
fn assert_healed(bench: &Bench, txid: u64) {
    assert_healed_as(bench, txid, "had lost transactions");
}

/// The same, of which the notice says `words`.
fn assert_healed_as(bench: &Bench, txid: u64, words: &str) {
    assert_eq!(bench.snapshots(), [txid]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("restored.db");
    let store = bench.memory.replica();
    crate::restore::restore(store, &path, &crate::restore::Options::default()).unwrap();
    assert!(std::fs::read(&path).unwrap() == bench.db.pages.concat(), "another state is restored");
    let notice = bench.status().notice.unwrap();
    assert!(notice.contains(words), "{notice}");
    assert!(bench.status().error.is_none(), "{:?}", bench.status().error);
}

#[test]
fn whatever_is_gone_is_noticed_at_the_next_open() {
    for gone in [vec![1], vec![3], vec![5], vec![4, 5], vec![1, 2, 3, 4, 5]] {
        let mut bench = five();
        bench.close();
        remove(&bench, gone.clone());
        bench.open();
        assert_eq!(bench.sync().get(), 6, "{gone:?}");
        assert_healed(&bench, 6);
        // Once is enough.
        bench.close();
        bench.open();
        bench.db.change(2);
        assert_eq!(bench.sync().get(), 7);
        assert_eq!(bench.snapshots(), [6]);
    }
}

#[test]
fn one_listing_an_hour_while_commits_are_published() {
    let mut bench = five();
    let before = bench.store.count(Op::List);
    for page in [1, 2, 3] {
        bench.db.change(page);
        bench.sync();
    }
    assert_eq!(bench.store.count(Op::List), before);
    remove(&bench, [3]);
    let pass = |bench: &Bench, minutes: i64| {
        bench.clock.set(Timestamp::from_millis(bench.clock.now().as_millis() + minutes * 60_000));
    };
    pass(&bench, 59);
    bench.db.change(2);
    assert_eq!(bench.sync().get(), 9);
    pass(&bench, 2);
    // Nobody commits.
    assert_eq!(bench.sync().get(), 9);
    assert!(bench.snapshots().is_empty());
    assert_eq!(bench.store.count(Op::List), before);
    bench.db.change(2);
    assert_eq!(bench.sync().get(), 10);
    assert_healed(&bench, 10);
}

#[test]
fn an_operator_asks_for_a_look() {
    for (force, damaged) in [(false, false), (true, false), (true, true)] {
        let bench = five();
        if damaged {
            damage(&bench, 3)
        } else {
            remove(&bench, [3])
        }
        assert_eq!(bench.primary().resume(Asked::All, force, PATIENCE, &|| false).unwrap().unwrap().get(), 6);
        assert_healed(&bench, 6);
        assert_eq!(
            bench.primary().resume(Asked::All, force, PATIENCE, &|| false).unwrap().unwrap().get(),
            6,
            "once is enough"
        );
    }
    // What is sound is read, and stays as it is.
    let mut bench = five();
    let before = bench.memory.files();
    assert_eq!(bench.primary().resume(Asked::All, true, PATIENCE, &|| false).unwrap().unwrap().get(), 5);
    assert_eq!(bench.memory.files(), before);
    bench.close();
}

#[test]
fn a_snapshot_that_is_asked_for_is_made_of_the_database() {
    for (auto_recover, damaged) in [(true, false), (true, true), (false, false), (false, true)] {
        let mut bench = five();
        bench.close();
        bench.options.auto_recover = auto_recover;
        bench.open();
        bench.sync();
        if damaged {
            damage(&bench, 3)
        } else {
            remove(&bench, [3])
        }
        assert_eq!(bench.primary().snapshot(Asked::All, PATIENCE, &|| false).unwrap().unwrap().get(), 6);
        assert_healed(&bench, 6);
        assert_eq!(bench.primary().snapshot(Asked::All, PATIENCE, &|| false).unwrap().unwrap().get(), 6);
    }
}

#[test]
fn without_auto_recover_replication_stops_until_a_user_decides() {
    let mut bench = five();
    bench.options.auto_recover = false;
    bench.close();
    remove(&bench, [3]);
    bench.open();
    let error = bench.try_sync().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    for words in ["lost transactions", "0000000000000003", "litestream_resume('force')", "auto_recover"] {
        assert!(error.to_string().contains(words), "{error}");
    }
    assert_eq!(bench.status().phase, Phase::Stopped);
    assert_eq!(message(bench.primary().resume(Asked::All, false, PATIENCE, &|| false)), error.to_string());
    bench.primary().resume(Asked::All, true, PATIENCE, &|| false).unwrap();
    assert_eq!(bench.txids(), [1, 2, 4, 5, 6]);
    assert_eq!(bench.snapshots(), [6]);
}

#[test]
fn nobody_is_told_that_all_is_there_before_the_snapshot_is() {
    let mut bench = five();
    bench.close();
    remove(&bench, 1..=5);
    bench.open();
    bench.sync();
    let mut bench = five();
    bench.close();
    remove(&bench, [2]);
    // The copy gets through and the snapshot does not.
    bench.store.next(Op::Get, Fault::Delay(Duration::from_millis(1)));
    bench.store.next(Op::Get, Fault::Refuse(ErrorKind::Unavailable));
    bench.open();
    bench.sync();
    assert_healed(&bench, 6);
}

#[test]
fn killed_while_it_heals_it_begins_again() {
    let mut bench = five();
    bench.close();
    remove(&bench, [1]);
    bench.store.often(Op::Upload, 1000, Fault::Refuse(ErrorKind::Unavailable));
    bench.open();
    bench.primary().sync(Duration::from_millis(50), &|| false).unwrap_err();
    let error = bench.status().error.unwrap().to_string();
    assert!(!error.is_empty(), "{error}");
    bench.kill();
    bench.store.heal();
    bench.open();
    bench.sync();
    assert_healed(&bench, 6);
}

/// The names of the files lead to the copy, and one before it is damaged: only the snapshot can be restored, and nothing but local
/// state says that it is missing.
#[test]
fn killed_between_the_copy_and_its_snapshot_it_begins_again() {
    let mut bench = five();
    damage(&bench, 3);
    copy_without_snapshot(&bench);
    bench.until("the copy", |bench| bench.txids() == [1, 2, 3, 4, 5, 6]);
    assert!(bench.snapshots().is_empty());
    bench.kill();
    bench.store.heal();
    bench.open();
    assert_eq!(bench.sync().get(), 7);
    assert_healed_as(&bench, 7, "begun before");
    bench.close();
    bench.open();
    bench.db.change(2);
    assert_eq!(bench.sync().get(), 8, "once is enough");
    assert_eq!(bench.snapshots(), [7]);
}

/// A user decided on the copy that was begun: it is not asked for again.
#[test]
fn killed_before_the_snapshot_that_a_user_asked_for_it_goes_on_without_auto_recover() {
    let mut bench = stopped_at_a_hole();
    copy_without_snapshot(&bench);
    bench.until("the copy", |bench| bench.txids() == [1, 2, 4, 5, 6]);
    bench.kill();
    bench.store.heal();
    bench.open();
    assert_eq!(bench.sync().get(), 7);
    assert_healed(&bench, 7);
}

/// Maintenance finds the hole that a user decided on, before the copy is there that leads around it.
#[test]
fn a_doubt_does_not_end_a_copy_that_was_asked_for() {
    let bench = stopped_at_a_hole();
    bench.store.next(Op::List, Fault::Delay(Duration::from_millis(300)));
    let asked = bench.store.count(Op::List);
    std::thread::scope(|scope| {
        let resumed = scope.spawn(|| bench.primary().resume(Asked::All, true, PATIENCE, &|| false));
        bench.until("the look", |bench| bench.store.count(Op::List) > asked);
        bench.primary().shippers()[0].doubt_replica();
        assert_eq!(resumed.join().unwrap().unwrap().unwrap().get(), 6);
    });
    assert_healed(&bench, 6);
}

/// A look at the names is under way, which would not have seen it.
#[test]
fn what_is_asked_for_while_the_replica_is_looked_at_is_not_answered_by_that() {
    let bench = five();
    damage(&bench, 3);
    bench.store.next(Op::List, Fault::Delay(Duration::from_millis(300)));
    let asked = bench.store.count(Op::List);
    bench.primary().shippers()[0].doubt_replica();
    bench.until("the look", |bench| bench.store.count(Op::List) > asked);
    assert_eq!(bench.primary().resume(Asked::All, true, PATIENCE, &|| false).unwrap().unwrap().get(), 6);
    assert_healed(&bench, 6);
}

/// Until it has stopped, nobody is told that all is there, though what it knows of the replica is forgotten.
#[test]
fn who_waits_while_replication_stops_is_not_told_that_it_works() {
    let bench = five();
    let shipper = &bench.primary().shippers()[0];
    shipper.holes.ask(AskedLook { look: ReplicaLook::Names, by_user: false });
    let mut waiter = Waiter::of_commit(shipper, CommitSeq(0));
    assert!(waiter.outcome().is_none());
    std::thread::scope(|scope| {
        let stopping = shipper.with_capture(|_| {
            let error = Error::new(ErrorKind::Conflict, "another primary writes to it");
            let stopping = scope.spawn(|| shipper.stop(error));
            // It waits for what this thread holds.
            for _ in 0..50 {
                assert!(waiter.outcome().is_none(), "it has not stopped");
                crate::runtime::nap(Duration::from_millis(2));
            }
            stopping
        });
        stopping.unwrap().join().unwrap();
    });
    assert_eq!(waiter.outcome().unwrap().unwrap_err().kind(), ErrorKind::Conflict);
}

/// Who asked for a copy and was told that it failed decides again, also in the next process.
#[test]
fn a_copy_that_was_asked_for_in_vain_is_not_sent_later() {
    for reopens in [false, true] {
        let mut bench = stopped_at_a_hole();
        bench.store.often(Op::Upload, 1000, Fault::Refuse(ErrorKind::Unavailable));
        bench.store.often(Op::Put, 1000, Fault::Refuse(ErrorKind::Unavailable));
        bench.primary().resume(Asked::All, true, Duration::from_millis(300), &|| false).unwrap_err();
        bench.store.heal();
        let error = if reopens {
            bench.close();
            bench.open();
            bench.try_sync().unwrap_err().to_string()
        } else {
            message(bench.primary().resume(Asked::All, false, PATIENCE, &|| false))
        };
        assert!(error.contains("lost transactions"), "{error}");
        assert_eq!(bench.txids(), [1, 2, 4, 5]);
    }
}

/// What landed without an answer is known for ours as long as the database is open, also where replication stopped meanwhile
/// and the WAL was restarted.
#[test]
fn a_file_that_landed_is_known_after_replication_stopped() {
    for recipients in [Recipients::default(), sample_recipients(&[0])] {
        let mut bench = Bench::new(5);
        bench.options.auto_recover = false;
        bench.options.recipients = recipients;
        bench.open();
        bench.sync();
        bench.db.change(1);
        bench.sync();
        let first = bench.memory.bytes_of(l0(1));
        bench.store.often(Op::Put, 1000, Fault::LoseAnswer(ErrorKind::Unavailable));
        bench.db.change(3);
        bench.until("a file", |bench| bench.txids() == [1, 2, 3]);
        remove(&bench, [1]);
        let stopped = message(bench.primary().resume(Asked::All, false, PATIENCE, &|| false));
        assert!(stopped.contains("lost transactions"), "{stopped}");
        bench.store.heal();
        bench.memory.put_raw(&Layout::Ltx.path(l0(1)), first, Timestamp::from_millis(0));
        bench.db.change(2);
        assert!(bench.db.truncate());
        bench.db.change(4);
        bench.primary().resume(Asked::All, false, PATIENCE, &|| false).unwrap();
        bench.sync();
        assert_eq!(bench.copies(), 1, "the database was copied anew");
    }
}

/// A cache, or a mirror, lists what was there before: nothing is lost, and there is nothing to decide.
#[test]
fn a_list_from_before_is_waited_out() {
    for auto_recover in [true, false] {
        let mut bench = five();
        bench.options.auto_recover = auto_recover;
        bench.close();
        bench.memory.unlist(Some(l0(5)));
        bench.open();
        let error = bench.primary().sync(Duration::from_millis(100), &|| false).unwrap_err().to_string();
        assert!(error.contains("ends at 0000000000000004 by its list of files"), "{error}");
        bench.memory.unlist(None);
        bench.db.change(1);
        assert_eq!(bench.sync().get(), 6);
        assert_eq!(bench.txids(), [1, 2, 3, 4, 5, 6]);
        assert!(bench.snapshots().is_empty());
    }
}

/// Whatever is said of the pages that the replica has: work of a round that was given up may say it after they are forgotten.
#[test]
fn a_full_copy_is_sent_though_the_pages_are_said_to_be_there() {
    let bench = five();
    damage(&bench, 3);
    let sums = bench.local("pages.sums");
    let said = std::fs::read(&sums).unwrap();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let again = sums.with_extension("again");
            while !is_over.load(Ordering::SeqCst) {
                std::fs::write(&again, &said).and_then(|()| std::fs::rename(&again, &sums)).unwrap();
            }
        });
        let resumed = bench.primary().resume(Asked::All, true, PATIENCE, &|| false);
        is_over.store(true, Ordering::SeqCst);
        assert_eq!(resumed.unwrap().unwrap().get(), 6);
    });
    assert_healed(&bench, 6);
}

/// Names between ours and its lead nowhere: nothing that is published before it can be restored.
#[test]
fn a_later_file_of_another_writer_ends_replication_at_each_look() {
    for force in [false, true] {
        let mut bench = five();
        foreign_file(&bench, 9, 77, &bench.db.pages.clone());
        let error = message(bench.primary().resume(Asked::All, force, PATIENCE, &|| false));
        assert!(error.contains("another primary wrote transaction 0000000000000009"), "{error}");
        assert_eq!(bench.status().phase, Phase::Stopped);
        bench.db.change(2);
        assert_eq!(bench.primary().resume(Asked::All, true, PATIENCE, &|| false).unwrap().unwrap().get(), 10);
        assert_eq!(bench.snapshots(), [10]);
    }
}

#[test]
fn an_older_file_does_not_become_the_newest_state_of_a_replica_with_a_hole() {
    let mut bench = five();
    let older = std::fs::read(&bench.db.path).unwrap();
    bench.close();
    let newer = std::fs::read(&bench.db.path).unwrap();
    assert!(older != newer, "the test needs a file that is another one");
    remove(&bench, [3]);
    // It takes the place of the database, as `cp` does it.
    std::fs::write(&bench.db.path, older).unwrap();
    bench.open();
    let error = bench.try_sync().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert!(error.to_string().contains("an earlier state"), "{error}");
    assert!(bench.snapshots().is_empty());
}
