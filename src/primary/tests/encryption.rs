//! What begins and ends when a replica is encrypted.

use super::bench::Bench;
use crate::clock::Timestamp;
use crate::ltx::sealing::sample_recipients;
use crate::ltx::{FileId, FileName, Level, Txid};
use crate::runtime::block_on;
use crate::store::PutOptions;

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
