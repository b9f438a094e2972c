//! Waiting files outlive their process. What is broken, stale or unclaimed among them is never sent,
//! and what is missing leads to a full copy, never to a gap.

use std::fs;
use std::time::Duration;

use super::bench::Bench;
use crate::error::ErrorKind;
use crate::page::PageSize;
use crate::runtime::simulated::in_virtual_time;
use crate::store::{Fault, Op};

/// A closed database whose last commits wait in `files` local files.
fn waiting(files: usize) -> Bench {
    let mut bench = Bench::synced(5);
    bench.database.close_timeout = Duration::ZERO;
    bench.close();
    bench.open();
    bench.db.change(4);
    bench.sync();
    bench.store.often(Op::Put, 1000, Fault::Refuse(ErrorKind::Unavailable));
    for i in 1..=files as u32 {
        bench.db.commit(&[1, i % 5 + 1], 5 + i % 3);
        bench.primary().capture();
        bench.db.truncate();
    }
    bench.close();
    bench.store.heal();
    assert_eq!(bench.spooled().len(), files);
    bench
}

#[test]
fn waiting_files_go_out_at_the_next_open() {
    let mut bench = waiting(3);
    bench.open();
    bench.sync();
    bench.assert_replica_is_current();
    assert_eq!(bench.copies(), 1, "the database was copied anew");
    bench.until("an empty spool", |bench| bench.spooled().is_empty());
}

#[test]
fn what_was_being_written_when_the_process_died_is_ignored() {
    let mut bench = waiting(2);
    fs::write(bench.local("spool/0000000000000004.tmp"), b"LTX1").unwrap();
    let whole = fs::read(bench.local("spool/0000000000000003.ltx")).unwrap();
    fs::write(bench.local("spool/0000000000000004.ltx"), &whole[..whole.len() - 1]).unwrap();
    bench.open();
    bench.sync();
    bench.assert_replica_is_current();
    assert_eq!(bench.copies(), 1, "the database was copied anew");
    bench.until("an empty spool", |bench| bench.spooled().is_empty());
}

#[test]
fn a_claimed_file_that_is_broken_or_missing_leads_to_a_full_copy() {
    for name in ["0000000000000002", "0000000000000003", "0000000000000004"] {
        for cut in [true, false] {
            let mut bench = waiting(3);
            let path = bench.local(&format!("spool/{name}.ltx"));
            if cut {
                // As a power failure leaves a file that was renamed but not synced.
                fs::write(&path, b"").unwrap();
            } else {
                fs::remove_file(&path).unwrap();
            }
            bench.open();
            bench.db.change(5);
            bench.sync();
            bench.assert_replica_is_current();
            assert_eq!(bench.copies(), 2, "{name}");
        }
    }
}

#[test]
fn a_delivered_file_that_was_not_removed_is_not_sent_over_newer_content() {
    let mut bench = waiting(1);
    let stale = bench.local("spool/0000000000000002.ltx");
    let content = fs::read(&stale).unwrap();
    bench.open();
    bench.sync();
    bench.db.commit(&[1, 2], 6);
    bench.sync();
    bench.kill();
    fs::write(&stale, content).unwrap();
    bench.open();
    bench.db.change(5);
    bench.sync();
    bench.assert_replica_is_current();
    assert_eq!(bench.copies(), 1, "the database was copied anew");
}

#[test]
fn a_file_that_the_state_does_not_claim_is_not_trusted() {
    let mut bench = waiting(2);
    let unclaimed = fs::read(bench.local("spool/0000000000000003.ltx")).unwrap();
    let state = fs::read(bench.local("vfs.json")).unwrap();
    bench.open();
    bench.sync();
    bench.close();
    let now = fs::read(bench.local("vfs.json")).unwrap();
    assert_ne!(now, state);
    fs::write(bench.local("spool/0000000000000003.ltx"), unclaimed).unwrap();
    bench.open();
    bench.sync();
    bench.db.change(2);
    bench.sync();
    bench.assert_replica_is_current();
}

#[test]
fn a_copy_that_did_not_finish_leaves_no_trust_in_what_was_before() {
    let mut bench = waiting(2);
    bench.open();
    bench.store.often(Op::Put, 1000, Fault::Refuse(ErrorKind::Unavailable));
    bench.store.often(Op::Upload, 1000, Fault::Refuse(ErrorKind::Unavailable));
    bench.db.change(1);
    // The generation stays in the WAL, but it is no base any more.
    bench.primary().left_wal_mode();
    let began = bench.copies();
    bench.primary().sync(Duration::from_millis(1), &|| false).unwrap_err();
    bench.until("a copy", |bench| bench.copies() > began);
    bench.until("its failure", |bench| bench.status().error.is_some());
    bench.kill();
    bench.store.heal();
    bench.open();
    bench.sync();
    bench.assert_replica_is_current();
}

#[test]
fn many_waiting_files_become_few_and_end_in_the_same_state() {
    let mut bench = waiting(5);
    bench.open();
    bench.store.often(Op::Put, 1000, Fault::Refuse(ErrorKind::Unavailable));
    for i in 0..400_u32 {
        bench.db.commit(&[i % 7 + 1], 7 + i % 5);
        bench.primary().capture();
        bench.db.truncate();
        if i % 50 == 49 {
            bench.primary().sync(Duration::from_millis(20), &|| false).unwrap_err();
        }
    }
    let few = |bench: &Bench| {
        let _ = bench.primary().sync(Duration::from_millis(1), &|| false);
        // At most 64 on their way, and as many that wait for a merge.
        bench.spooled().iter().filter(|name| name.ends_with(".ltx")).count() <= 130
    };
    bench.until("a merge", few);
    bench.kill();
    bench.open();
    bench.until("a merge", few);
    bench.store.heal();
    bench.sync();
    bench.assert_replica_is_current();
    assert_eq!(bench.copies(), 1, "the database was copied anew");
}

#[test]
fn a_transaction_that_is_larger_than_what_may_wait_is_sent() {
    let mut bench = Bench::with_page_size(PageSize::MAX, 2);
    bench.options.spool_limit = 1 << 20;
    bench.open();
    bench.sync();
    // More than is sent from memory.
    let pages: Vec<u32> = (2..=150).collect();
    for round in 0..3 {
        bench.db.commit(&pages, 150);
        bench.sync();
        bench.assert_replica_is_current();
        assert_eq!(bench.pages_of(2 + round).len(), 149);
    }
    // It is kept as numbers of pages while the replica cannot be reached.
    bench.store.often(Op::Put, 1000, Fault::Refuse(ErrorKind::Unavailable));
    bench.store.often(Op::Upload, 1000, Fault::Refuse(ErrorKind::Unavailable));
    bench.db.commit(&pages, 150);
    bench.primary().sync(Duration::from_millis(50), &|| false).unwrap_err();
    bench.primary().capture();
    bench.store.heal();
    bench.sync();
    bench.assert_replica_is_current();
    bench.until("an empty spool", |bench| bench.spooled().is_empty());
}

/// Waiting files are compressed while they are sent, and each attempt makes the same file of them.
#[test]
fn what_is_too_large_for_memory_is_on_disk_once() {
    let mut bench = Bench::with_page_size(PageSize::MAX, 150);
    bench.options.sync_interval = Duration::from_secs(3600);
    bench.open();
    bench.sync();
    let pages: Vec<u32> = (2..=150).collect();
    let (refuse, lose) = (Fault::Refuse(ErrorKind::Unavailable), Fault::LoseAnswer(ErrorKind::Unavailable));
    let faults = [(Op::Upload, refuse), (Op::Part, refuse), (Op::Complete, refuse), (Op::Complete, lose)];
    for (round, (op, fault)) in (2..).zip(faults) {
        bench.store.often(op, 1000, fault);
        bench.db.commit(&pages, 150);
        bench.primary().sync(Duration::from_millis(300), &|| false).unwrap_err();
        let files = fs::read_dir(bench.local("spool")).unwrap().count();
        assert_eq!((files, bench.spooled().len()), (1, 1), "{op:?}");
        bench.store.heal();
        assert_eq!(bench.sync().get(), round);
        bench.assert_replica_is_current();
        assert_eq!(bench.pages_of(round).len(), 149);
        bench.until("an empty spool", |bench| bench.spooled().is_empty());
    }
    // The checksums of its pages are there: a comparison sends what differs, and page 1.
    bench.close();
    bench.db.without_shim(|db| {
        db.commit(&[7], 150);
        db.truncate();
    });
    bench.open();
    assert_eq!(bench.sync().get(), 6);
    bench.assert_replica_is_current();
    assert_eq!(bench.pages_of(6), [1, 7]);
}

#[test]
fn a_large_waiting_file_that_is_broken_leads_to_a_full_copy() {
    let mut bench = Bench::with_page_size(PageSize::MAX, 150);
    bench.options.sync_interval = Duration::from_secs(3600);
    bench.open();
    bench.sync();
    bench.store.often(Op::Complete, 1000, Fault::LoseAnswer(ErrorKind::Unavailable));
    bench.db.commit(&(2..=150).collect::<Vec<u32>>(), 150);
    bench.primary().sync(Duration::from_millis(300), &|| false).unwrap_err();
    let waits = bench.local("spool").join(bench.spooled().pop().unwrap());
    let whole = fs::read(&waits).unwrap();
    fs::write(&waits, &whole[..whole.len() / 2]).unwrap();
    bench.store.heal();
    bench.db.change(3);
    bench.until("a copy", |bench| bench.try_sync().is_ok());
    bench.assert_replica_is_current();
}

#[test]
fn scratch_files_do_not_pile_up() {
    let mut bench = Bench::with_page_size(PageSize::MAX, 2);
    bench.open();
    bench.sync();
    bench.db.commit(&[1], 150);
    bench.sync();
    bench.db.change(1);
    bench.sync();
    bench.assert_replica_is_current();
    bench.until("an empty spool", |bench| bench.spooled().is_empty());
}

/// What exceeds `spool_limit` at the very moment in which it is to be sent is only noted as dirty pages, and a sync must not
/// take that for sent.
#[test]
fn what_is_given_up_while_it_is_sent_is_sent_all_the_same() {
    for limit in (0..2000).step_by(50) {
        in_virtual_time(|| {
            let mut bench = Bench::new(5);
            bench.options.spool_limit = limit;
            bench.open();
            bench.sync();
            bench.store.often(Op::Put, 1000, Fault::Refuse(ErrorKind::Unavailable));
            bench.db.change(4);
            bench.primary().sync(Duration::from_millis(1), &|| false).unwrap_err();
            bench.primary().capture();
            bench.db.commit(&[1, 2, 3], 5);
            bench.store.heal();
            bench.sync();
            bench.assert_replica_is_current();
        });
    }
}

/// A process without the library restarts the WAL while files wait. They are not all that was committed, and a sync must not
/// take them for that.
#[test]
fn waiting_files_are_not_all_where_the_chain_is_broken() {
    in_virtual_time(|| {
        let mut bench = Bench::new(5);
        bench.options.sync_interval = Duration::from_secs(1);
        bench.open_and_rest();
        bench.store.often(Op::Put, 1000, Fault::Refuse(ErrorKind::Unavailable));
        bench.db.change(4);
        bench.primary().sync(Duration::from_millis(1), &|| false).unwrap_err();
        bench.db.change(5);
        bench.primary().capture();
        assert!(!bench.spooled().is_empty());
        bench.db.without_shim(|db| {
            db.change(2);
            db.truncate();
        });
        bench.db.change(3);
        bench.store.heal();
        bench.sync();
        bench.assert_replica_is_current();
    });
}
