//! Local state is believed only as far as the files on disk, the replica and this boot of the machine
//! bear it out. What is not believed costs a full copy.

use std::fs;
use std::time::Duration;

use super::bench::Bench;
use crate::error::ErrorKind;
use crate::store::{Fault, Op};
use crate::wal::tests::fixtures::Writer;
use crate::wal::{ByteOrder, Salts};

/// Changes a field of the state file.
fn edit(bench: &Bench, change: impl FnOnce(&mut serde_json::Map<String, serde_json::Value>)) {
    let path = bench.local("vfs.json");
    let mut state: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(state.as_object_mut().unwrap());
    fs::write(&path, state.to_string()).unwrap();
}

fn after_a_reboot(bench: &Bench) {
    edit(bench, |state| {
        state.insert("boot".to_owned(), "another".into());
    });
}

/// Opens, commits, and says whether the database was copied anew for it.
fn reopen(bench: &mut Bench) -> bool {
    let before = bench.copies();
    bench.open();
    bench.db.change(1);
    bench.sync();
    bench.assert_replica_is_current();
    bench.copies() > before
}

#[test]
fn a_position_in_the_wal_is_believed() {
    let mut bench = Bench::synced(5);
    bench.db.change(2);
    bench.sync();
    bench.db.change(3);
    bench.kill();
    assert!(!reopen(&mut bench));
}

#[test]
fn a_position_in_a_restarted_wal_is_not() {
    let mut bench = Bench::synced(5);
    bench.db.change(2);
    bench.sync();
    bench.kill();
    bench.db.checkpoint();
    bench.db.change(3);
    assert!(reopen(&mut bench));
}

#[test]
fn the_position_before_a_restart_that_did_not_happen_is_believed() {
    let mut bench = Bench::synced(5);
    bench.db.change(2);
    bench.sync();
    bench.db.change(4);
    let next = Writer::new(ByteOrder::NATIVE, crate::page::PageSize::MIN, Salts(77, 78));
    bench.primary().before_wal_restart(&next.bytes);
    bench.kill();
    assert!(!reopen(&mut bench));
    bench.db.change(4);
    bench.primary().before_wal_is_emptied();
    bench.kill();
    assert!(!reopen(&mut bench));
}

#[test]
fn a_clean_close_is_believed_while_the_database_file_is_unchanged() {
    let mut bench = Bench::synced(5);
    bench.db.change(2);
    bench.close();
    assert!(!reopen(&mut bench));
    bench.close();
    bench.db.change(2);
    bench.db.close_last();
    assert!(reopen(&mut bench), "somebody wrote the database while it was closed");
}

#[test]
fn a_write_right_after_the_close_is_seen_however_coarse_file_times_are() {
    for _ in 0..5 {
        let mut bench = Bench::synced(5);
        bench.db.change(2);
        bench.close();
        bench.db.change(2);
        bench.db.close_last();
        assert!(reopen(&mut bench));
    }
}

#[test]
fn a_copied_folder_is_not_believed() {
    let mut bench = Bench::synced(5);
    bench.db.change(2);
    bench.sync();
    bench.kill();
    let copy = bench.db.path.with_extension("copy");
    fs::copy(&bench.db.path, &copy).unwrap();
    fs::rename(&copy, &bench.db.path).unwrap();
    assert!(reopen(&mut bench));
}

#[test]
fn the_replica_may_be_one_file_ahead_of_what_a_killed_process_knew() {
    let mut bench = Bench::synced(5);
    bench.db.change(2);
    bench.sync();
    let state = fs::read(bench.local("vfs.json")).unwrap();
    bench.db.change(3);
    bench.sync();
    bench.kill();
    fs::write(bench.local("vfs.json"), state).unwrap();
    assert!(!reopen(&mut bench));
}

/// A bench whose last commit is in the replica, and nothing of it on the disk after a power failure.
fn lost_the_last_commit() -> Bench {
    let mut bench = Bench::synced(5);
    bench.db.change(2);
    bench.sync();
    let (wal, pages) = (bench.db.wal.clone(), bench.db.pages.clone());
    let state = fs::read(bench.local("vfs.json")).unwrap();
    bench.db.change(3);
    bench.sync();
    bench.kill();
    // Neither the commit of page 3 nor what we wrote after it reached the disk.
    (bench.db.wal, bench.db.pages) = (wal, pages);
    bench.db.recover();
    fs::write(bench.db.wal_path(), &bench.db.wal.as_ref().unwrap().bytes).unwrap();
    fs::write(bench.local("vfs.json"), state).unwrap();
    after_a_reboot(&bench);
    bench
}

#[test]
fn after_a_power_failure_what_is_ahead_may_be_what_the_disk_lost() {
    let mut bench = lost_the_last_commit();
    assert!(reopen(&mut bench));
}

#[test]
fn a_power_failure_is_remembered_until_the_replica_was_seen() {
    let mut bench = lost_the_last_commit();
    for _ in 0..2 {
        bench.store.often(Op::List, 1000, Fault::Refuse(ErrorKind::Unavailable));
        bench.open();
        bench.db.change(4);
        assert!(bench.db.checkpoint());
        bench.kill();
    }
    bench.store.heal();
    assert!(reopen(&mut bench));
}

#[test]
fn a_power_failure_that_cost_nothing_costs_no_copy() {
    let mut bench = Bench::synced(5);
    bench.db.change(2);
    bench.sync();
    bench.db.change(3);
    bench.sync();
    bench.kill();
    after_a_reboot(&bench);
    assert!(!reopen(&mut bench));
}

#[test]
fn a_commit_during_a_request_does_not_leave_the_position_behind() {
    let mut bench = Bench::synced(5);
    bench.store.next(Op::Put, Fault::Delay(Duration::from_millis(100)));
    bench.db.change(2);
    bench.until("a request", |bench| bench.puts() == 1);
    bench.db.change(3);
    // A capture into memory: the next position, which is not in the replica yet.
    for _ in 0..300 {
        bench.db.change(4);
    }
    bench.until("an answer", |bench| bench.txids().len() >= 2);
    bench.until("a further request", |bench| bench.puts() >= 2);
    bench.sync();
    bench.kill();
    after_a_reboot(&bench);
    assert!(!reopen(&mut bench));
}

#[test]
fn an_older_state_is_not_believed() {
    let mut bench = Bench::synced(5);
    bench.db.change(2);
    bench.sync();
    let state = fs::read(bench.local("vfs.json")).unwrap();
    for _ in 0..3 {
        bench.db.change(3);
        bench.sync();
    }
    bench.kill();
    // A backup of the whole folder came back.
    fs::write(bench.local("vfs.json"), state).unwrap();
    assert!(reopen(&mut bench));
}

#[test]
fn a_state_that_cannot_be_read_costs_a_copy_and_nothing_else() {
    for broken in ["", "{", "{\"node_id\":0,\"url\":\"memory:\"}"] {
        let mut bench = Bench::synced(5);
        bench.kill();
        fs::write(bench.local("vfs.json"), broken).unwrap();
        assert!(reopen(&mut bench));
    }
}

#[test]
fn a_state_that_cannot_be_written_is_no_reason_to_stop() {
    let mut bench = Bench::synced(5);
    let _ = fs::remove_file(bench.local("vfs.json.tmp"));
    fs::create_dir(bench.local("vfs.json.tmp")).unwrap();
    bench.db.change(2);
    bench.sync();
    bench.db.truncate();
    bench.db.change(3);
    bench.sync();
    bench.assert_replica_is_current();
    bench.kill();
    fs::remove_dir(bench.local("vfs.json.tmp")).unwrap();
    assert!(reopen(&mut bench), "the state is older than the replica");
}

#[test]
fn a_spool_that_cannot_be_written_leads_to_a_full_copy() {
    let mut bench = Bench::synced(5);
    bench.store.often(Op::Put, 1000, Fault::Refuse(ErrorKind::Unavailable));
    fs::remove_dir(bench.local("spool")).unwrap();
    bench.db.change(2);
    bench.db.truncate();
    fs::create_dir(bench.local("spool")).unwrap();
    bench.db.change(3);
    bench.store.heal();
    bench.sync();
    bench.assert_replica_is_current();
    assert_eq!(bench.copies(), 2);
}

#[test]
fn a_copy_that_landed_before_it_was_noted_is_known_though_all_changed_since() {
    let mut bench = Bench::synced(5);
    bench.kill();
    // As the state was before the copy landed.
    edit(&bench, |state| state.retain(|field, _| ["node_id", "url", "boot"].contains(&field.as_str())));
    (1..=5).for_each(|page| bench.db.change(page));
    bench.open();
    assert_eq!(bench.sync().get(), 2);
    bench.assert_replica_is_current();
}
