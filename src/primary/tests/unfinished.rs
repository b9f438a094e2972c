//! What arrived of a copy that broke off, when it is of no use any more. That it is of use, tests of the store show.

use std::time::Duration;

use super::bench::Bench;
use crate::clock::{Clock as _, Timestamp};
use crate::error::ErrorKind;
use crate::ltx::sealing::sample_recipients;
use crate::primary::file_fingerprint::Identity;
use crate::store::{Fault, Op};

const DAY_MS: i64 = 24 * 3_600_000;

/// As a process leaves it that was killed while it copied, at the time of the bench.
fn leave_an_upload(bench: &Bench) -> std::path::PathBuf {
    let path = bench.local("upload.parts");
    let begun = bench.clock.now().as_millis();
    let subject = Identity::of(&bench.db.path).unwrap();
    let name = format!(
        "{{\"key\":\"ltx/0/file\",\"id\":\"up\",\"part_size\":4096,\"settings\":\"\",\"subject\":\"{subject}\",\"begun\":{begun}}}\n"
    );
    std::fs::write(&path, name).unwrap();
    path
}

/// A database whose copy was refused, and still is, with an upload that was left.
fn after_a_failed_copy() -> (Bench, std::path::PathBuf) {
    let mut bench = Bench::new(20);
    bench.database.close_timeout = Duration::ZERO;
    bench.store.often(Op::Part, 1000, Fault::Refuse(ErrorKind::Denied));
    bench.open();
    bench.until("fails", |bench| bench.store.count(Op::Part) > 0);
    bench.close();
    let path = leave_an_upload(&bench);
    (bench, path)
}

#[test]
fn it_is_given_up_after_a_week() {
    let (mut bench, path) = after_a_failed_copy();
    for (days, is_kept) in [(6, true), (2, false)] {
        let (now, before) = (bench.clock.now().as_millis(), bench.store.count(Op::Part));
        bench.clock.set(Timestamp::from_millis(now + days * DAY_MS));
        bench.open();
        bench.until("fails again", |bench| bench.store.count(Op::Part) > before);
        assert_eq!(path.exists(), is_kept, "{days}");
        bench.close();
    }
}

#[test]
fn it_is_given_up_when_nothing_differs_from_the_replica() {
    let mut bench = Bench::synced(5);
    bench.close();
    let path = leave_an_upload(&bench);
    // Nothing is known of what the replica has.
    std::fs::remove_file(bench.local("vfs.json")).unwrap();
    bench.open();
    bench.sync();
    assert!(!path.exists());
}

#[test]
fn it_is_given_up_when_encryption_is_turned_on() {
    let (mut bench, path) = after_a_failed_copy();
    bench.store.heal();
    bench.options.recipients = sample_recipients(&[0]);
    bench.open();
    bench.sync();
    assert!(!path.exists());
}

#[test]
fn a_store_that_keeps_nothing_gets_all_of_it_again_and_the_status_says_so() {
    let mut bench = Bench::new(20);
    bench.database.close_timeout = Duration::from_millis(50);
    bench.store.next(Op::Part, Fault::Hang);
    bench.open();
    bench.until("copies", |bench| bench.store.hung() == 1);
    bench.close();
    bench.store.next(Op::Part, Fault::Hang);
    bench.open();
    bench.until("copies", |bench| bench.store.hung() == 2);
    let notice = bench.status().notice.unwrap();
    let text =
        "had come to 0 % when it was closed, and was given up; another one has begun: keep the database open";
    assert!(notice.contains(text), "{notice}");
}

/// A state folder that was copied with its database, while the first of the two copies.
#[test]
fn that_of_another_database_is_neither_taken_up_nor_given_up() {
    let mut bench = Bench::synced(5);
    bench.close();
    let path = leave_an_upload(&bench);
    let ours = std::fs::read_to_string(&path).unwrap();
    let subject = Identity::of(&bench.db.path).unwrap().to_string();
    std::fs::write(&path, ours.replace(&subject, "inode 1 of 2.3")).unwrap();
    std::fs::remove_file(bench.local("vfs.json")).unwrap();
    bench.open();
    bench.sync();
    assert!(path.exists());
}
