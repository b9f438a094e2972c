//! Local state is believed only as far as the files on disk, the replica and this boot of the machine
//! bear it out. What is not believed costs a comparison of pages: a database that is the newest state, or
//! exactly an earlier one, goes on, and what may be anything else stops.

use std::fs;
use std::time::Duration;

use super::bench::Bench;
use crate::error::ErrorKind;
use crate::ltx::{Header, Txid};
use crate::primary::Phase;
use crate::primary::file_fingerprint::Identity;
use crate::primary::shipper::state::State;
use crate::store::{Fault, Op};

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
    bench.db.lock_readers_out();
    bench.kill();
    assert!(!reopen(&mut bench));
    bench.db.change(4);
    bench.db.begin_to_delete_wal();
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

/// Puts a copy in the place of the database file.
fn replace_by_copy(bench: &Bench) {
    let copy = bench.db.path.with_extension("copy");
    fs::copy(&bench.db.path, &copy).unwrap();
    fs::rename(&copy, &bench.db.path).unwrap();
}

#[test]
fn a_copied_folder_is_compared_and_costs_no_copy() {
    let mut bench = Bench::synced(5);
    bench.db.change(2);
    bench.sync();
    let node_id = bench.header(2).node_id;
    bench.kill();
    replace_by_copy(&bench);
    bench.open();
    bench.sync();
    assert_eq!(bench.txids(), [1, 2], "nothing was committed, and nothing is published");
    bench.kill();
    assert!(!reopen(&mut bench));
    assert_ne!(bench.header(3).node_id, node_id, "a copy is another writer");
}

#[test]
fn a_copied_folder_with_changes_of_its_own_stops() {
    let mut bench = Bench::synced(5);
    bench.db.change(2);
    bench.sync();
    bench.kill();
    replace_by_copy(&bench);
    bench.db.change(2);
    bench.open();
    assert_stops(&mut bench, "another state of this one");
}

/// The next sync fails with a conflict that says `what`, and the replica stays as it is.
fn assert_stops(bench: &mut Bench, what: &str) {
    let before = bench.memory.files();
    bench.db.change(1);
    let error = bench.try_sync().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert!(error.to_string().contains(what), "{error}");
    assert_eq!(bench.memory.files(), before);
}

#[test]
fn the_replica_may_be_one_file_ahead_of_what_a_killed_process_knew() {
    let mut bench = Bench::synced(5);
    bench.db.change(2);
    bench.sync();
    bench.store.next(Op::Put, Fault::Delay(Duration::from_millis(50)));
    bench.db.change(3);
    bench.until("a request", |bench| bench.puts() == 2);
    let state = fs::read(bench.local("vfs.json")).unwrap();
    bench.sync();
    bench.kill();
    fs::write(bench.local("vfs.json"), state).unwrap();
    assert!(!reopen(&mut bench));
}

#[test]
fn a_folder_that_was_reverted_in_place_is_brought_forward() {
    let mut bench = Bench::synced(5);
    bench.db.change(2);
    bench.close();
    let (state, pages) = (fs::read(bench.local("vfs.json")).unwrap(), bench.db.pages.clone());
    let modified = fs::metadata(&bench.db.path).unwrap().modified().unwrap();
    bench.open();
    bench.db.change(3);
    bench.db.change(4);
    bench.close();
    let newest = bench.txids();
    // As a file system does that goes back to a snapshot: the same files, with the times of then.
    fs::write(&bench.db.path, pages.concat()).unwrap();
    fs::File::options().write(true).open(&bench.db.path).unwrap().set_modified(modified).unwrap();
    fs::write(bench.local("vfs.json"), state).unwrap();
    bench.db.pages = pages;
    bench.open();
    bench.sync();
    assert_eq!(bench.txids(), newest, "nothing was committed, and nothing is published");
    bench.assert_replica_is_current();
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
fn after_a_power_failure_what_the_disk_lost_comes_back_from_the_replica() {
    let mut bench = lost_the_last_commit();
    bench.open();
    bench.sync();
    assert_eq!(bench.txids(), [1, 2, 3], "nothing was committed, and nothing is published");
    bench.assert_replica_is_current();
    assert!(!reopen(&mut bench));
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
    bench.open();
    assert_stops(&mut bench, "ahead of this database");
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
    // It came back alone, or the disk had no room for a later one.
    fs::write(bench.local("vfs.json"), &state).unwrap();
    let newest = bench.txids();
    bench.open();
    bench.sync();
    assert_eq!(bench.txids(), newest, "the pages are those of the replica");
    bench.kill();
    // The WAL shows that it was the newest, and what came after.
    fs::write(bench.local("vfs.json"), &state).unwrap();
    bench.db.change(4);
    bench.open();
    assert_eq!(bench.sync().get(), newest.len() as u64 + 1);
    bench.assert_replica_is_current();
    assert_eq!(bench.pages_of(newest.len() as u64 + 1), [1, 4], "only what differs was sent");
    bench.kill();
    // Nothing does without that.
    fs::write(bench.local("vfs.json"), state).unwrap();
    bench.db.change(2);
    bench.db.truncate();
    bench.open();
    assert_stops(&mut bench, "ahead of this database");
}

#[test]
fn a_state_that_cannot_be_read_costs_a_comparison_and_nothing_else() {
    for broken in ["", "{", "{\"node_id\":0,\"url\":\"memory:\"}"] {
        let mut bench = Bench::synced(5);
        bench.kill();
        fs::write(bench.local("vfs.json"), broken).unwrap();
        assert!(!reopen(&mut bench));
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
    assert!(!reopen(&mut bench), "the state is older than the replica, and the pages are those of it");
}

#[test]
fn a_spool_that_cannot_be_written_loses_nothing() {
    let mut bench = Bench::synced(5);
    bench.store.often(Op::Put, 1000, Fault::Refuse(ErrorKind::Unavailable));
    fs::remove_dir(bench.local("spool")).unwrap();
    bench.db.change(2);
    bench.primary().sync(Duration::from_millis(30), &|| false).unwrap_err();
    bench.db.truncate();
    bench.db.change(3);
    bench.primary().sync(Duration::from_millis(30), &|| false).unwrap_err();
    fs::create_dir(bench.local("spool")).unwrap();
    bench.store.heal();
    bench.sync();
    bench.assert_replica_is_current();
    assert_eq!(bench.copies(), 1, "the database has the pages");
}

#[test]
fn a_copy_that_landed_before_it_was_noted_is_known_though_all_changed_since() {
    let mut bench = Bench::new(5);
    bench.store.next(Op::Complete, Fault::Delay(Duration::from_millis(50)));
    bench.open();
    bench.until("the end of a copy", |bench| bench.store.count(Op::Complete) == 1);
    // As the state was before the copy landed.
    let state = fs::read(bench.local("vfs.json")).unwrap();
    bench.sync();
    bench.kill();
    fs::write(bench.local("vfs.json"), state).unwrap();
    (1..=5).for_each(|page| bench.db.change(page));
    bench.open();
    assert_eq!(bench.sync().get(), 2);
    bench.assert_replica_is_current();
}

/// A file that is sent again, as the answer of its upload was lost, holds what the one before it does. The process is killed
/// before it has noted the digest of the second.
#[test]
fn a_database_that_is_two_transactions_is_the_later_one() {
    let mut bench = Bench::synced(5);
    bench.store.next(Op::Put, Fault::LoseAnswer(ErrorKind::Unavailable));
    bench.store.often(Op::Get, 1000, Fault::Refuse(ErrorKind::Unavailable));
    bench.db.change(2);
    bench.until("a file whose answer was lost", |bench| bench.txids() == [1, 2]);
    bench.kill();
    bench.store.heal();
    bench.open();
    bench.sync();
    assert_eq!((bench.pages_of(2), bench.pages_of(3)), (vec![2], vec![2]));
    bench.until("both digests", |bench| slot(bench, 3).iter().any(|byte| *byte != 0));
    bench.kill();
    assert!(slot(&bench, 2).iter().any(|byte| *byte != 0));
    let past = bench.local("pages.past");
    let mut digests = fs::read(&past).unwrap();
    digests[3 * SLOT..4 * SLOT].fill(0);
    fs::write(&past, digests).unwrap();
    // What was written since is not known, as after a WAL that was restarted by another program.
    edit(&bench, |state| {
        ["position", "previous", "closed"].iter().for_each(|field| drop(state.remove(*field)))
    });
    bench.open();
    bench.db.change(1);
    bench.sync();
    bench.assert_replica_is_current();
}

/// Another process that published meanwhile removes what it takes for left behind.
#[test]
fn a_survey_whose_file_is_gone_is_made_again() {
    let mut bench = Bench::synced(5);
    bench.kill();
    fs::remove_file(bench.local("vfs.json")).unwrap();
    bench.store.often(Op::List, 1000, Fault::Refuse(ErrorKind::Unavailable));
    bench.open();
    bench.until("a failure", |bench| bench.status().phase == Phase::Retrying);
    let is_new = |path: &std::path::PathBuf| path.extension().is_some_and(|extension| extension == "new");
    let names = fs::read_dir(bench.local("")).unwrap().map(|entry| entry.unwrap().path());
    let surveys: Vec<_> = names.filter(is_new).collect();
    assert_eq!(surveys.len(), 1, "{surveys:?}");
    fs::remove_file(&surveys[0]).unwrap();
    bench.store.heal();
    bench.sync();
    bench.assert_replica_is_current();
    assert_eq!(bench.txids(), [1]);
}

/// The size of a slot of `pages.past`.
const SLOT: usize = 40;

fn slot(bench: &Bench, txid: usize) -> Vec<u8> {
    let digests = fs::read(bench.local("pages.past")).unwrap_or_default();
    digests.get(txid * SLOT..(txid + 1) * SLOT).unwrap_or_default().to_vec()
}

/// Of two commits that one file has, the WAL lost the second: the database is no transaction that digests know, and shares
/// most pages with the newest.
#[test]
fn a_wal_that_lost_published_commits_stops_replication() {
    let mut bench = Bench::new(5);
    bench.options.sync_interval = Duration::from_secs(3600);
    bench.open();
    bench.sync();
    bench.db.change(1);
    bench.db.change(2);
    bench.sync();
    let before = bench.txids();
    bench.kill();
    bench.db.fail_power(1);
    bench.open();
    bench.db.change(3);
    assert_eq!(bench.try_sync().unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(bench.txids(), before);
}

/// A process is killed after its file landed and before it knows. Then the WAL is removed, or an older copy of the database
/// takes its place: it is not what the file was made of any more.
#[test]
fn an_older_file_does_not_bury_what_landed_unanswered() {
    for between in [0, 1] {
        let mut bench = Bench::synced(5);
        bench.db.change(2);
        bench.sync();
        bench.db.truncate();
        let older = bench.db.pages.clone();
        for _ in 0..between {
            bench.db.change(3);
            bench.sync();
        }
        bench.store.next(Op::Put, Fault::LoseAnswer(ErrorKind::Unavailable));
        bench.store.next(Op::Put, Fault::Hang);
        let before = bench.txids().len();
        bench.db.change(4);
        bench.until("the file", |bench| bench.txids().len() > before);
        bench.kill();
        fs::remove_file(bench.db.wal_path()).unwrap();
        fs::write(&bench.db.path, older.concat()).unwrap();
        (bench.db.wal, bench.db.pages) = (None, older);
        bench.db.recover();
        bench.store.heal();
        bench.open();
        assert_stops(&mut bench, "it was the newest before");
    }
}

/// A copy whose answer was lost is not made again where the database turns out to be the transaction before. It may be there
/// all the same.
#[test]
fn a_file_that_may_have_landed_is_remembered_until_its_transaction_is_known() {
    let mut bench = Bench::synced(5);
    bench.db.change(2);
    bench.sync();
    bench.kill();
    let folder = bench.local("vfs.json").parent().unwrap().to_owned();
    let (cursor, _) = State::load(&folder).unwrap().cursor(&bench.db.path).unwrap();
    let [last, next, after] = [2, 3, 4].map(|n| Txid::new(n).unwrap());
    let header = Header { min: next, max: next, ..bench.header(2) };
    let remembered_after = |found: Txid| {
        let mut state = State::load(&folder).unwrap();
        state.sends(&header, cursor);
        state.found(found);
        state.sent(&bench.db.wal_path(), Identity::of(&bench.db.path))
    };
    assert_eq!(remembered_after(last), [header]);
    assert_eq!(remembered_after(next), []);
    assert_eq!(remembered_after(after), []);
    // What a power failure took is nothing that the database has.
    after_a_reboot(&bench);
    assert_eq!(remembered_after(last), []);
}
