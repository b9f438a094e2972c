//! Somebody else is on the replica, or it is not what we left. Nothing is overwritten, `sync` says what
//! is wrong and what to do, and the database goes on.

use std::fs;

use super::bench::{Bench, foreign_file, message, run};
use super::sqlite::{Db, digest};
use crate::error::ErrorKind;
use crate::ltx::FileId;
use crate::page::PageSize;
use crate::primary::{Phase, Rewound};
use crate::store::{Fault, Op};

/// The next sync fails with a conflict that says all of `words`, and later commits change nothing.
fn assert_stopped(bench: &mut Bench, words: &[&str]) {
    let before = bench.memory.files();
    let error = bench.try_sync().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    for word in words.iter().chain(&["memory:"]) {
        assert!(error.to_string().contains(word), "'{word}' is not in '{error}'");
    }
    bench.db.commit(&[1], bench.db.pages.len() as u32 + 1);
    bench.db.truncate();
    bench.db.change(1);
    let again = message(bench.try_sync());
    assert_eq!(again, error.to_string());
    assert_eq!(bench.memory.files(), before);
    assert_eq!(bench.status().phase, Phase::Stopped);
}

fn forget(bench: &Bench, from: u64) {
    let ids: Vec<FileId> =
        bench.memory.files().iter().map(|(id, _)| *id).filter(|id| id.name.max().get() >= from).collect();
    let memory = bench.memory.clone();
    run(async move { memory.delete(&ids).await }).unwrap();
}

#[test]
fn another_writer_took_our_transaction() {
    let mut bench = Bench::synced(5);
    let pages = bench.db.pages.clone();
    foreign_file(&bench, 2, 99, &pages);
    bench.db.change(2);
    assert_stopped(&mut bench, &["another primary", "0000000000000002"]);
    assert_eq!(bench.header(2).node_id, 99);
}

#[test]
fn a_copy_of_ourselves_took_our_transaction() {
    let mut bench = Bench::synced(5);
    bench.db.change(1);
    bench.sync();
    // A machine that was cloned has our node id.
    let (node_id, pages) = (bench.header(1).node_id, bench.db.pages.clone());
    foreign_file(&bench, 3, node_id, &pages);
    bench.db.change(2);
    assert_stopped(&mut bench, &["another primary", "0000000000000003"]);
}

#[test]
fn another_writer_took_the_transaction_of_a_full_copy() {
    let mut bench = Bench::synced(5);
    let pages = bench.db.pages.clone();
    foreign_file(&bench, 2, 99, &pages);
    bench.primary().left_wal_mode();
    bench.db.change(2);
    assert_stopped(&mut bench, &["another primary"]);
}

#[test]
fn the_replica_was_wiped() {
    let mut bench = Bench::synced(5);
    bench.options.auto_recover = false;
    bench.close();
    forget(&bench, 0);
    bench.open();
    assert_stopped(&mut bench, &["lost transactions", "it is empty", "another replica URL"]);
}

#[test]
fn the_replica_lost_its_end() {
    let mut bench = Bench::synced(5);
    bench.options.auto_recover = false;
    bench.db.change(1);
    bench.sync();
    bench.close();
    forget(&bench, 2);
    bench.open();
    assert_stopped(&mut bench, &["lost transactions", "it ends at 0000000000000001"]);
}

/// A bench whose database was closed, and whose replica another writer took over then.
fn overtaken() -> Bench {
    let mut bench = Bench::synced(5);
    bench.close();
    let mut pages = bench.db.pages.clone();
    pages[1].fill(77);
    bench.db.history.insert(digest(&pages), Some(digest(&bench.db.pages)));
    foreign_file(&bench, 2, 99, &pages);
    bench
}

#[test]
fn another_writer_went_on_while_we_were_away_and_we_follow() {
    let mut bench = overtaken();
    bench.open();
    assert_eq!(bench.sync().get(), 2);
    bench.assert_replica_is_current();
    let notice = bench.status().notice.unwrap();
    assert!(notice.contains("brought forward to 0000000000000002"), "{notice}");
    bench.db.change(3);
    assert_eq!(bench.sync().get(), 3);
    bench.assert_replica_is_current();
}

#[test]
fn another_writer_went_on_while_we_were_away_and_we_are_not_to_follow() {
    let mut bench = overtaken();
    bench.options.rewound = Rewound::Stop;
    bench.open();
    assert_stopped(&mut bench, &["0000000000000001", "an earlier state", "rewound=stop", "force"]);
}

#[test]
fn another_writer_went_on_while_we_were_away_and_so_did_we() {
    let mut bench = overtaken();
    bench.db.change(4);
    bench.open();
    assert_stopped(&mut bench, &["ahead of this database", "0000000000000002"]);
}

#[test]
fn a_database_that_was_read_already_is_not_brought_forward() {
    let mut bench = overtaken();
    bench.store.often(Op::List, 1000, Fault::Refuse(ErrorKind::Unavailable));
    bench.open();
    bench.until("a failure", |bench| bench.status().phase == Phase::Retrying);
    bench.store.heal();
    assert_stopped(&mut bench, &["0000000000000001", "an earlier state", "opened again", "force"]);
}

#[test]
fn the_replica_has_another_page_size() {
    let mut bench = Bench::synced(5);
    bench.close();
    bench.db = Db::new(&bench.db.path, PageSize::new(1024).unwrap(), 3);
    bench.open();
    assert_stopped(&mut bench, &["page size 512", "1024"]);
}

#[test]
fn a_new_empty_database_does_not_bury_a_replica() {
    for state_is_left in [false, true] {
        let mut bench = Bench::synced(5);
        bench.close();
        if !state_is_left {
            fs::remove_dir_all(bench.state_folder()).unwrap();
        }
        bench.db = Db::new(&bench.db.path, PageSize::MIN, 0);
        bench.open();
        let error = message(bench.try_sync());
        assert!(error.contains("new and empty") && error.contains("litestream_restore"), "{error}");
        // The file is there by now.
        assert!(error.contains("{\"force\": true}"), "{error}");
        bench.db.fill(3);
        bench.primary().entered_wal_mode();
        assert_stopped(&mut bench, &["restore"]);
    }
}

#[test]
fn the_database_goes_on_at_another_url() {
    let mut bench = Bench::synced(5);
    bench.close();
    bench.memory = crate::store::MemoryStore::new();
    bench.store = crate::store::Faults::new(&bench.memory, 1);
    // The same address with nothing behind it is a wiped replica; a new address is a new replica.
    let path = bench.local("vfs.json");
    let state = fs::read_to_string(&path).unwrap().replace("memory:", "memory:elsewhere");
    fs::write(&path, state).unwrap();
    bench.open();
    assert_eq!(bench.sync().get(), 1);
    bench.db.change(2);
    bench.sync();
    bench.assert_replica_is_current();
}
