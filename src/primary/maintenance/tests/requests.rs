//! What is asked of the store, and what is not.

use std::sync::Arc;
use std::time::Duration;

use super::world::{MINUTE, World, run, settings};
use crate::error::ErrorKind;
use crate::ltx::{FileId, FileName, Header, Level, Txid};
use crate::page::{PageCount, PageSize};
use crate::primary::maintenance::Settings;
use crate::store::{Fault, FileInfo, Op, PutOptions};

/// A replica with `n` commits that were not merged.
fn with_commits(n: u64, settings: Settings) -> World {
    let mut world = World::new(1, settings);
    for _ in 0..n {
        world.commit();
    }
    world.round();
    world
}

#[test]
fn an_idle_database_costs_nothing() {
    let mut world = with_commits(20, settings());
    world.run_down();
    assert_eq!(world.compactor.due(), None, "there is no timer");
    let total = world.store.total();
    world.pass(MINUTE * 100_000);
    world.round();
    assert_eq!(world.store.total(), total);
}

#[test]
fn what_is_published_while_other_files_are_merged_is_merged_as_well() {
    let mut world = with_commits(5, settings());
    world.pass(MINUTE);
    world.store.next(Op::Complete, Fault::Delay(Duration::from_millis(1)));
    // The merge takes past the end of the window in which another file is published.
    world.round_beside(|world| {
        assert!(world.files(1).is_empty(), "it is under way");
        world.commit();
        world.pass(MINUTE);
    });
    let reached = |world: &World| world.files(1).last().map(|file| file.id.name.max().get());
    assert_eq!(reached(&world), Some(5));
    world.round();
    assert_eq!(reached(&world), Some(6));
    world.assert_restores();
    world.assert_tidy();
}

#[test]
fn what_is_in_memory_is_not_fetched() {
    let mut world = with_commits(20, settings());
    world.pass(MINUTE);
    world.round();
    assert_eq!(world.files(1).len(), 1);
    assert_eq!(world.store.count(Op::Get), 0);
    // One look whether somebody else publishes.
    assert_eq!(world.store.count(Op::List), 1);
}

#[test]
fn what_another_process_published_is_fetched() {
    let mut world = with_commits(20, settings());
    world.restart();
    world.pass(MINUTE);
    world.round();
    assert_eq!(world.store.count(Op::Get), 20);
    world.assert_restores();
    world.assert_tidy();
}

#[test]
fn credentials_that_may_not_delete_do_not_stop_the_rest() {
    let mut world = with_commits(5, settings());
    world.store.often(Op::Delete, 1000, Fault::Refuse(ErrorKind::Denied));
    for _ in 0..200 {
        world.pass(MINUTE / 2);
        world.commit();
        world.round();
    }
    assert_eq!(world.store.count(Op::Delete), 1, "it is not tried again and again");
    let message = world.history.take_refusal().unwrap().to_string();
    assert!(message.contains("retention=off"), "{message}");
    assert!(world.history.error().is_none(), "whoever asks for errors may start the process anew for one");
    assert!(world.files(3).len() == 1 && world.files(9).len() > 4);
    world.assert_restores();
    // Locks of objects end: a day later it is tried again.
    world.store.heal();
    world.pass(MINUTE * 60 * 24);
    world.commit();
    world.pass(MINUTE);
    world.round();
    assert!(world.files(9).len() <= 2 && world.history.take_refusal().is_none());
    world.assert_restores();
}

#[test]
fn another_writer_is_noticed_although_its_first_files_are_gone() {
    let mut world = with_commits(5, settings());
    // It published 6 to 9, merged them, and deleted all but the last.
    let id = FileId::new(Level::L0, FileName::single(Txid::new(9).unwrap()));
    let options = PutOptions { timestamp: world.now(), if_absent: true };
    run(world.memory.put(id, bytes::Bytes::from_static(b"theirs"), options)).unwrap();
    world.pass(MINUTE);
    assert_eq!(world.try_round().unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(world.history.take_conflict().unwrap().kind(), ErrorKind::Conflict);
    assert!(world.files(1).is_empty());
}

#[test]
fn a_sidecar_that_writes_too_is_named() {
    let mut world = with_commits(5, settings());
    let name = FileName::single(Txid::new(9).unwrap());
    let header = Header::new(PageSize::MIN, PageCount::new(1), name, world.now());
    let options = PutOptions { timestamp: world.now(), if_absent: true };
    let bytes = bytes::Bytes::copy_from_slice(&header.encode());
    run(world.memory.put(FileId::new(Level::L0, name), bytes, options)).unwrap();
    world.pass(MINUTE);
    let error = world.try_round().unwrap_err().to_string();
    assert!(error.contains("Litestream sidecar seems to run"), "{error}");
    assert!(world.files(1).is_empty());
}

#[test]
fn a_failure_is_told_until_it_is_made_good() {
    let mut world = with_commits(5, settings());
    world.store.next(Op::Complete, Fault::Refuse(ErrorKind::Unavailable));
    world.pass(MINUTE);
    world.try_round().unwrap_err();
    assert!(world.history.error().is_some());
    world.clock.set(world.compactor.due().expect("it is done again"));
    world.round();
    assert!(world.history.error().is_none());
    world.assert_restores();
    assert_eq!(world.files(1).len(), 1);
}

#[test]
fn many_small_files_and_large_ones_are_merged_a_part_at_a_time() {
    let mut world = World::new(1, settings());
    for _ in 0..300 {
        world.commit();
    }
    // As a process of another version would have left them.
    world.restart();
    world.pass(MINUTE);
    world.round();
    world.assert_restores();
    assert_eq!(world.files(1).len(), 1);
}

#[test]
fn a_snapshot_is_made_when_asked_for_and_only_once() {
    let mut world = with_commits(5, settings());
    for _ in 0..2 {
        let history = Arc::clone(&world.history);
        let asked = std::thread::spawn(move || history.snapshot(&|| false));
        while !asked.is_finished() {
            world.round();
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(asked.join().unwrap().unwrap().get(), 5);
    }
    assert_eq!(world.store.count(Op::Complete), 1);
    assert_eq!(world.files(9).len(), 1);
    world.assert_restores();
}

fn l0(txid: u64) -> FileId {
    FileId::new(Level::L0, FileName::single(Txid::new(txid).unwrap()))
}

fn spans(files: &[FileInfo]) -> Vec<(u64, u64)> {
    files.iter().map(|file| (file.id.name.min().get(), file.id.name.max().get())).collect()
}

fn damage(world: &World, id: FileId) {
    world.memory.tamper(id, |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    });
}

#[test]
fn a_broken_file_is_missing_from_the_merge_that_finds_it_on() {
    let mut world = with_commits(5, settings());
    world.restart();
    damage(&world, l0(3));
    world.pass(MINUTE);
    world.round();
    assert_eq!(spans(&world.files(1)), [(1, 2), (4, 5)]);
    assert!(world.history.take_doubt(), "the publisher is told");
    assert_eq!(world.history.damaged().into_iter().collect::<Vec<_>>(), [l0(3)]);
    // Nothing goes that may be of use, until the files lead to the newest state.
    world.pass(MINUTE * 10);
    world.round();
    assert_eq!(world.files(0).len(), 5);
    let gets = world.store.count(Op::Get);
    world.pass(MINUTE * 10);
    world.round();
    assert_eq!(world.store.count(Op::Get), gets, "it is not read again and again");
}

#[test]
fn a_file_that_is_gone_stops_deletions_and_is_told() {
    let mut world = with_commits(5, settings());
    world.pass(MINUTE);
    world.round();
    assert_eq!(spans(&world.files(1)), [(1, 5)]);
    assert!(!world.history.take_doubt());
    run(world.memory.delete(&[world.files(1)[0].id])).unwrap();
    world.pass(MINUTE * 6);
    world.round();
    // What it held was still in level 0, and was merged once more before that went.
    world.assert_restores();
    assert!(!world.history.take_doubt());
    world.commit();
    world.pass(MINUTE);
    world.round();
    for level in [1, 2] {
        let gone: Vec<FileId> = world.files(level).into_iter().map(|file| file.id).collect();
        run(world.memory.delete(&gone[..1])).unwrap();
    }
    let before = world.all_files();
    world.pass(MINUTE * 30);
    world.round();
    assert!(world.history.take_doubt(), "the publisher is told");
    assert!(before.iter().all(|file| world.all_files().contains(file)), "something was deleted");
}

#[test]
fn a_snapshot_that_is_damaged_is_made_no_second_time() {
    let mut world = with_commits(5, settings());
    let ask = |world: &mut World| {
        let history = Arc::clone(&world.history);
        let asked = std::thread::spawn(move || history.snapshot(&|| false));
        while !asked.is_finished() {
            let _ = world.try_round();
            std::thread::sleep(Duration::from_millis(1));
        }
        asked.join().unwrap()
    };
    ask(&mut world).unwrap();
    damage(&world, world.files(9)[0].id);
    // The name is taken: only another transaction can have a snapshot.
    assert_eq!(ask(&mut world).unwrap_err().kind(), ErrorKind::Corrupt);
    world.commit();
    assert_eq!(ask(&mut world).unwrap().get(), 6);
    assert_eq!(spans(&world.files(9)), [(1, 5), (1, 6)]);
}
