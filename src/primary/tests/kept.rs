//! A writer restarts the WAL before it was captured: what it held is kept as it was, and captured later,
//! even if the process dies first.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::bench::Bench;
use super::sqlite::Db;
use crate::error::ErrorKind;
use crate::primary::state_folder;
use crate::store::{Fault, Op};

const DOWN: Fault = Fault::Refuse(ErrorKind::Unavailable);

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            copy_folder(&entry.path(), &to);
        } else if kind.is_file() {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// The complete kept generations.
fn kept(folder: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(folder.join("wal")).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|suffix| suffix == "wal")).collect()
}

/// A database that was killed after `restarts` restarts of the WAL that no capture has seen, the last one
/// by `last`, while the replica could not be reached.
fn killed_after(restarts: u32, last: fn(&mut Db)) -> Bench {
    let mut bench = Bench::synced(5);
    bench.db.change(1);
    bench.sync();
    bench.store.often(Op::Put, 1000, DOWN);
    let folder = state_folder(&bench.db.path);
    let as_killed = folder.with_extension("killed");
    let primary = bench.primary().clone();
    primary.without_capture(|| {
        for i in 0..restarts {
            bench.db.commit(&[2, 3], 5 + i);
            bench.db.change(1 + i);
            assert!(bench.db.checkpoint());
        }
        last(&mut bench.db);
        copy_folder(&folder, &as_killed);
    });
    drop(primary);
    bench.kill();
    // Work that the kill did not end in time may still be writing there.
    fs::rename(&folder, folder.with_extension("left")).unwrap();
    fs::rename(&as_killed, &folder).unwrap();
    assert_eq!(kept(&folder).len(), restarts as usize);
    bench.store.heal();
    bench
}

#[test]
fn it_is_taken_up_after_a_kill() {
    for restarts in 1..4 {
        let mut bench = killed_after(restarts, |db| db.change(4));
        bench.open();
        bench.db.change(2);
        bench.sync();
        bench.assert_replica_is_current();
        assert_eq!(bench.copies(), 1, "{restarts} restarts: the database was copied anew");
    }
}

#[test]
fn it_is_taken_up_though_no_commit_follows_it() {
    // As a process leaves it that is killed between the header of a generation and its first commit.
    let mut bench = killed_after(2, Db::roll_back);
    bench.open();
    bench.sync();
    bench.assert_replica_is_current();
    assert_eq!(bench.copies(), 1, "the database was copied anew");
}

#[test]
fn nothing_is_taken_for_done_if_it_leads_to_no_wal() {
    let mut bench = killed_after(2, |db| db.change(4));
    // A process without the shim committed and emptied the WAL.
    bench.db.change(2);
    assert!(bench.db.truncate());
    bench.open();
    bench.sync();
    bench.assert_replica_is_current();
    assert_eq!(bench.copies(), 2);
}

#[test]
fn one_that_is_missing_or_broken_leads_to_a_full_copy() {
    let harm: [fn(&Path); 3] = [
        |path| fs::remove_file(path).unwrap(),
        |path| fs::write(path, b"").unwrap(),
        |path| {
            let mut bytes = fs::read(path).unwrap();
            // The last page of what was committed; recycled files may be longer.
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
            fs::write(path, bytes).unwrap();
        },
    ];
    for harm in harm {
        for which in 0..2 {
            let mut bench = killed_after(2, |db| db.change(4));
            let mut files = kept(&state_folder(&bench.db.path));
            files.sort();
            harm(&files[which]);
            bench.open();
            bench.db.change(2);
            bench.sync();
            bench.assert_replica_is_current();
            assert_eq!(bench.copies(), 2, "it was believed");
        }
    }
}

#[test]
fn one_that_does_not_lead_to_the_wal_is_not_believed() {
    let mut bench = killed_after(1, |db| db.change(4));
    // A process without the shim restarted the WAL once more.
    assert!(bench.db.checkpoint());
    bench.db.change(3);
    bench.open();
    bench.db.change(2);
    bench.sync();
    bench.assert_replica_is_current();
    assert_eq!(bench.copies(), 2);
}

#[test]
fn where_none_can_be_kept_the_commits_go_to_the_spool() {
    let mut bench = Bench::synced(5);
    bench.db.change(1);
    bench.sync();
    fs::remove_dir_all(bench.local("wal")).unwrap();
    fs::write(bench.local("wal"), b"in the way").unwrap();
    bench.store.often(Op::Put, 1000, DOWN);
    for i in 0..3 {
        bench.db.change(1 + i);
        assert!(bench.db.checkpoint());
    }
    bench.db.change(4);
    bench.store.heal();
    bench.sync();
    bench.assert_replica_is_current();
    assert_eq!(bench.copies(), 1, "the database was copied anew");
}

#[test]
fn only_the_last_frame_is_kept_if_capture_was_done_during_the_checkpoint() {
    let mut bench = Bench::new(100);
    bench.options.sync_interval = Duration::from_secs(3600);
    bench.open_and_rest();
    (1..=80).for_each(|page| bench.db.change(page));
    let primary = bench.primary().clone();
    primary.checkpoint_begins();
    bench.until("the spool", |bench| !bench.spooled().is_empty());
    primary.without_capture(|| {
        assert!(bench.db.checkpoint());
        bench.db.change(1);
        let [file] = &kept(&state_folder(&bench.db.path))[..] else { panic!("one generation is kept") };
        let file = file.metadata().unwrap();
        assert!(file.blocks() * 512 < file.len() / 2, "{} blocks of {} bytes", file.blocks(), file.len());
    });
    bench.sync();
    bench.assert_replica_is_current();
    assert_eq!(bench.copies(), 1, "the database was copied anew");
}

#[test]
fn nothing_is_left_when_all_is_replicated_and_closed() {
    let mut bench = Bench::synced(5);
    for i in 0..5 {
        bench.db.change(1 + i);
        assert!(bench.db.checkpoint());
    }
    bench.close();
    assert_eq!(fs::read_dir(bench.local("wal")).unwrap().count(), 0);
}
