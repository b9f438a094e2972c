//! What begins and ends when a replica is encrypted.

use std::time::Duration;

use super::bench::{Bench, defaulting_to, no_history};
use crate::clock::Timestamp;
use crate::error::ErrorKind;
use crate::ltx::sealing::sample_recipients;
use crate::ltx::{FileId, FileName, Level, Txid};
use crate::primary::HistorySettings;
use crate::runtime::block_on;
use crate::store::{Fault, Op, PutOptions};

#[test]
fn what_was_begun_to_be_sent_plain_is_given_up_when_encryption_is_turned_on() {
    let mut bench = Bench::synced(5);
    let (replica, name) = (bench.memory.replica(), FileName::single(Txid::new(2).unwrap()));
    let options = PutOptions { timestamp: Timestamp::from_millis(0), if_absent: true };
    // Its process was killed.
    let killed = block_on(async move {
        let mut upload = replica.upload(FileId::new(Level::new(1).unwrap(), name), options).await?;
        upload.part("pages".into()).await?;
        Ok(upload)
    });
    drop(killed.unwrap());
    bench.close();
    bench.open();
    bench.db.change(1);
    bench.sync();
    assert_eq!(bench.memory.unfinished(), 1, "nothing is given up of a replica that stays as it is");
    bench.close();
    bench.options.recipients = sample_recipients(&[0]);
    bench.open();
    bench.db.change(1);
    let last = bench.sync();
    assert_eq!(bench.memory.unfinished(), 0);
    assert!(bench.memory.bytes_of(FileId::single(last)).starts_with(b"LTX4"));
}

/// The clock stands: no level is due to be merged.
#[test]
fn a_snapshot_follows_at_once_when_encryption_is_turned_on_and_none_when_it_goes_on() {
    let mut bench = Bench::new(5);
    let levels = vec![Duration::from_secs(30)];
    bench.options.history = defaulting_to(HistorySettings { levels, retention: true, ..no_history() });
    bench.open();
    bench.db.change(1);
    bench.sync();
    bench.close();
    let before = bench.snapshots();
    bench.options.recipients = sample_recipients(&[0]);
    bench.open();
    bench.db.change(1);
    let first = bench.sync();
    bench.until("a snapshot", |bench| bench.snapshots().contains(&first.get()));
    let sealed = bench.snapshots();
    assert_eq!(sealed.len(), before.len() + 1);
    bench.db.change(1);
    bench.sync();
    bench.close();
    bench.open();
    bench.db.change(1);
    bench.sync();
    bench.close();
    assert_eq!(bench.snapshots(), sealed);
}

/// Whoever merges a file forgets its key: which pages it has is written down before.
#[test]
fn a_file_that_landed_before_a_kill_is_known_after_the_next_kill_without_its_key() {
    let mut bench = Bench::new(5);
    bench.options.recipients = sample_recipients(&[0]);
    bench.open();
    bench.sync();
    bench.store.often(Op::Put, 1000, Fault::LoseAnswer(ErrorKind::Unavailable));
    bench.db.change(3);
    bench.until("a file", |bench| bench.txids() == [1, 2]);
    bench.kill();
    bench.store.heal();
    let before = bench.puts();
    bench.store.next(Op::Put, Fault::Hang);
    bench.open();
    bench.until("a request", |bench| bench.puts() > before);
    bench.kill();
    std::fs::remove_file(bench.local("keys")).unwrap();
    bench.open();
    bench.db.change(1);
    bench.sync();
    assert_eq!(bench.copies(), 1, "the database was copied anew");
}
