//! Litestream's sidecar published the database while we did not have it open. What it published and the database holds is
//! continued; nothing else is, and nothing is buried.

use std::fs;

use super::bench::{Bench, file_with, foreign_file, run};
use super::sqlite::{Db, digest};
use crate::clock::Timestamp;
use crate::error::ErrorKind;
use crate::ltx::{FileId, FileName, Header, Level, Txid};
use crate::page::{PageCount, PageSize};
use crate::primary::Phase;
use crate::wal::{FrameNo, Salts};

const SIDECAR: u64 = 0;

/// The sidecar publishes all that is committed now as `txid`. It writes each file with all pages, which it may.
fn sidecar(bench: &mut Bench, txid: u64) {
    let header = litestream_header(bench, txid);
    file_with(bench, header, &bench.db.pages);
}

/// The header of such a file, with the end of the WAL as it is now.
fn litestream_header(bench: &Bench, txid: u64) -> Header {
    let (name, time) = (FileName::single(Txid::new(txid).unwrap()), Timestamp::from_millis(1_500_000));
    let page_size = PageSize::MIN;
    let mut header = Header::new(page_size, PageCount::new(bench.db.pages.len() as u32), name, time);
    header.node_id = SIDECAR;
    header.wal_offset = 32;
    if let Some(wal) = &bench.db.wal {
        let Salts(salt1, salt2) = wal.salts;
        let size = FrameNo(wal.frames).end_offset(page_size) as i64 - 32;
        (header.wal_size, header.salt1, header.salt2) = (size, salt1, salt2);
    }
    header
}

/// A bench that published transaction 1 and was closed; then a program without the library committed, and the sidecar
/// published that as transaction 2.
fn handed_over() -> Bench {
    let mut bench = Bench::synced(5);
    bench.close();
    bench.db.change(2);
    bench.db.change(3);
    sidecar(&mut bench, 2);
    bench
}

fn forget_state(bench: &Bench) {
    fs::remove_dir_all(bench.state_folder()).unwrap();
}

/// What the open made of it: all of the database is in the replica, which has `txids` transactions.
fn assert_continues(bench: &mut Bench, txids: u64) {
    let copies = bench.copies();
    bench.open();
    assert_eq!(bench.sync().get(), txids);
    bench.assert_replica_is_current();
    let notice = bench.status().notice.expect("a notice");
    assert!(notice.contains("a Litestream sidecar published"), "{notice}");
    bench.db.change(4);
    assert_eq!(bench.sync().get(), txids + 1);
    bench.assert_replica_is_current();
    assert!(bench.copies() <= copies + 1, "what differs goes out once");
}

fn assert_stops(bench: &mut Bench, words: &[&str]) {
    let before = bench.memory.files();
    bench.open();
    let error = bench.try_sync().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    for word in words.iter().chain(&["memory:", "litestream_resume('force')"]) {
        assert!(error.to_string().contains(word), "'{word}' is not in '{error}'");
    }
    bench.db.change(1);
    assert!(bench.try_sync().is_err());
    assert_eq!(bench.status().phase, Phase::Stopped);
    assert_eq!(bench.memory.files(), before);
}

const SEEMS: &str = "sidecar seems to run";

#[test]
fn the_database_is_what_the_sidecar_published() {
    for has_state in [true, false] {
        for closes in [true, false] {
            let mut bench = handed_over();
            if closes {
                bench.db.close_last();
            }
            if !has_state {
                forget_state(&bench);
            }
            let copies = bench.copies();
            assert_continues(&mut bench, 2);
            assert_eq!(bench.copies(), copies, "all of it was there");
        }
    }
}

#[test]
fn a_program_committed_after_the_sidecar_stopped() {
    for has_state in [true, false] {
        let mut bench = handed_over();
        bench.db.change(5);
        bench.db.commit(&[2], 7);
        if !has_state {
            forget_state(&bench);
        }
        assert_continues(&mut bench, 3);
        assert_eq!(bench.pages_of(3), [1, 2, 5, 6, 7], "page 1 is always sent");
    }
}

#[test]
fn a_program_was_killed_after_the_sidecar_stopped() {
    let mut bench = handed_over();
    bench.db.change(5);
    bench.db.recover();
    assert_continues(&mut bench, 3);
}

#[test]
fn a_program_made_the_database_smaller_after_the_sidecar_stopped() {
    let mut bench = handed_over();
    bench.db.commit(&[1], 4);
    assert_continues(&mut bench, 3);
}

#[test]
fn we_published_up_to_a_position_that_the_wal_still_has() {
    // Killed, so that the WAL and our cursor in it stay.
    let mut bench = Bench::synced(5);
    bench.db.change(1);
    bench.sync();
    bench.kill();
    bench.db.change(2);
    sidecar(&mut bench, 3);
    bench.db.change(3);
    assert_continues(&mut bench, 4);
    assert_eq!(bench.pages_of(4), [1, 3]);
}

#[test]
fn the_wal_began_again_where_the_sidecar_stopped() {
    for merged in [false, true] {
        let mut bench = handed_over();
        bench.db.close_last();
        bench.db.change(5);
        bench.db.change(5);
        if merged {
            merge_sidecars_file(&bench);
        }
        assert_continues(&mut bench, 3);
    }
}

/// The file of level 0 is gone, and its level-1 file says nothing of the WAL.
fn merge_sidecars_file(bench: &Bench) {
    let of = |level| FileId::new(level, FileName::single(Txid::new(2).unwrap()));
    let memory = bench.memory.clone();
    run(async move {
        use crate::store::{ByteRange, PutOptions};
        let bytes = memory.get(of(Level::L0), ByteRange::All).await.unwrap().bytes().await.unwrap();
        let options = PutOptions { timestamp: Timestamp::from_millis(1_500_000), if_absent: true };
        memory.put(of(Level::new(1).unwrap()), bytes, options).await.unwrap();
    });
}

#[test]
fn several_files_of_the_sidecar_are_one_after_the_other() {
    let mut bench = handed_over();
    for txid in 3..=9 {
        bench.db.change(txid as u32 % 5 + 1);
        sidecar(&mut bench, txid);
        if txid == 6 {
            bench.db.checkpoint();
        }
    }
    bench.db.change(1);
    assert_continues(&mut bench, 10);
}

#[test]
fn there_and_back_ten_times() {
    let mut bench = Bench::synced(5);
    let mut last = 1;
    for round in 0..10 {
        bench.db.change(round % 5 + 1);
        last = bench.sync().get();
        bench.close();
        bench.db.change((round + 1) % 5 + 1);
        sidecar(&mut bench, last + 1);
        last += 1;
        if round % 2 == 0 {
            bench.db.change((round + 2) % 5 + 1);
            last += 1;
        }
        bench.open();
        assert_eq!(bench.sync().get(), last, "round {round}");
        bench.assert_replica_is_current();
    }
    assert_eq!(bench.txids(), (1..=last).collect::<Vec<_>>());
    assert_eq!(bench.copies(), 1 + 5, "one baseline, and what differs in each second round");
}

#[test]
fn yesterdays_copy_is_no_continuation() {
    for has_state in [true, false] {
        for commits in [false, true] {
            let mut bench = Bench::synced(5);
            bench.close();
            bench.db.change(1);
            let yesterday = (fs::read(&bench.db.path).unwrap(), fs::read(bench.db.wal_path()).unwrap());
            let pages = bench.db.pages.clone();
            bench.db.change(2);
            sidecar(&mut bench, 2);
            put_back(&mut bench, &yesterday, pages);
            if commits {
                // So that its WAL is as long as the sidecar's, and longer.
                bench.db.change(3);
                bench.db.change(4);
            }
            if !has_state {
                forget_state(&bench);
            }
            assert_stops(&mut bench, &[SEEMS]);
        }
    }
}

/// Puts the database file and the WAL back as they were with one commit in the WAL.
fn put_back(bench: &mut Bench, (file, wal): &(Vec<u8>, Vec<u8>), pages: Vec<Vec<u8>>) {
    fs::write(&bench.db.path, file).unwrap();
    fs::write(bench.db.wal_path(), wal).unwrap();
    let old = bench.db.wal.take().unwrap();
    let mut writer =
        crate::wal::tests::fixtures::Writer::new(crate::wal::ByteOrder::NATIVE, PageSize::MIN, old.salts);
    writer.frame(1, pages.len() as u32, &pages[0]);
    assert_eq!(writer.bytes, *wal);
    (bench.db.wal, bench.db.pages) = (Some(writer), pages);
    bench.db.recover();
}

#[test]
fn yesterdays_copy_that_was_checkpointed_is_no_continuation() {
    let mut bench = handed_over();
    // The page that differs is the one that is written, and its earlier content is overwritten.
    let theirs = bench.db.pages[2].clone();
    bench.db.pages[2] = vec![9; 512];
    let pages = bench.db.pages.clone();
    bench.db.close_last();
    fs::write(&bench.db.path, pages.concat()).unwrap();
    bench.db.change(3);
    assert_ne!(bench.db.pages[2], theirs);
    bench.db.checkpoint();
    assert_stops(&mut bench, &[SEEMS]);
}

#[test]
fn commits_whose_wal_is_gone_are_no_continuation() {
    let mut bench = handed_over();
    bench.db.change(5);
    bench.db.close_last();
    assert_stops(&mut bench, &[SEEMS, "litestream_resume()"]);
}

#[test]
fn a_wal_that_ends_before_the_sidecars_file_is_no_continuation() {
    let mut bench = handed_over();
    bench.db.change(5);
    let mut header = litestream_header(&bench, 3);
    header.wal_size += 536;
    let mut pages = bench.db.pages.clone();
    pages[1].fill(77);
    file_with(&bench, header, &pages);
    bench.db.change(1);
    bench.db.history.insert(digest(&pages), None);
    assert_stops(&mut bench, &[SEEMS]);
}

#[test]
fn another_primary_that_wrote_the_same_is_a_conflict() {
    for node_id in [1, 99, u64::MAX] {
        let mut bench = Bench::synced(5);
        bench.close();
        bench.db.change(2);
        let header = Header { node_id, ..litestream_header(&bench, 2) };
        file_with(&bench, header, &bench.db.pages);
        bench.db.change(3);
        bench.open();
        let error = bench.try_sync().unwrap_err().to_string();
        assert!(error.contains("ahead of this database") && !error.contains("sidecar"), "{error}");
        assert_eq!(bench.txids(), [1, 2]);
    }
}

#[test]
fn another_database_is_a_conflict() {
    let mut bench = handed_over();
    bench.db.close_last();
    bench.db = Db::new(&bench.db.path, PageSize::MIN, 6);
    bench.db.change(1);
    forget_state(&bench);
    assert_stops(&mut bench, &["another database", SEEMS]);
}

#[test]
fn a_sidecar_beside_us_is_named() {
    let mut bench = Bench::synced(5);
    let pages = bench.db.pages.clone();
    foreign_file(&bench, 2, SIDECAR, &pages);
    let files = bench.memory.files();
    bench.db.change(2);
    let error = bench.try_sync().unwrap_err().to_string();
    assert!(error.contains("a Litestream sidecar seems to run"), "{error}");
    assert_eq!(bench.memory.files(), files, "what it wrote is never adopted while we publish");
}

#[test]
fn the_sidecar_knew_one_of_two_replicas() {
    let mut bench = Bench::with_two_replicas(5);
    bench.open();
    bench.sync();
    bench.close();
    bench.db.change(2);
    sidecar(&mut bench, 2);
    bench.db.change(3);
    bench.open();
    bench.until("both", |bench| {
        bench.txids().len() == 3 && bench.second.as_ref().unwrap().0.files().len() == 2
    });
    bench.assert_replica_is_current();
    assert_eq!(bench.pages_of(3), [1, 3]);
    let pages: Vec<u32> = bench.read_second(2).1.into_iter().map(|(pgno, _)| pgno).collect();
    assert_eq!(pages, [1, 2, 3], "what it missed is sent to it");
}

#[test]
fn a_sidecar_between_two_requests_is_noticed() {
    let mut bench = Bench::synced(5);
    bench.close_for_a_moment();
    bench.db.change(2);
    sidecar(&mut bench, 2);
    bench.db.change(3);
    assert_continues(&mut bench, 3);
}
