//! What all stores do alike, and the server that tests of S3 run against.

pub(super) mod conformance;
pub(super) mod emulator;
mod layout;
pub(super) mod recorder;
pub(super) mod s3_server;

use bytes::Bytes;

use super::{ByteRange, PutOptions, Replica};
use crate::clock::Timestamp;
use crate::error::Result;
use crate::ltx::{FileId, FileName, Level, Txid};

const TIME: Timestamp = Timestamp::from_millis(1_700_000_000_123);

fn txid(n: u64) -> Txid {
    Txid::new(n).unwrap()
}

fn id(level: u8, min: u64, max: u64) -> FileId {
    FileId::new(Level::new(level).unwrap(), FileName::new(txid(min), txid(max)).unwrap())
}

fn options(if_absent: bool) -> PutOptions {
    PutOptions { timestamp: TIME, if_absent }
}

fn body(len: usize) -> Bytes {
    (0..len).map(|i| (i * 7 + i / 251) as u8).collect()
}

async fn read(store: &Replica, id: FileId, range: ByteRange) -> Result<Bytes> {
    store.get(id, range).await?.bytes().await
}

async fn listed(store: &Replica, level: u8, from: u64) -> Result<Vec<FileId>> {
    let files = store.list(Level::new(level).unwrap(), txid(from)).await?;
    Ok(files.into_iter().map(|file| file.id).collect())
}

/// What one answer has of all levels, and the rest from one answer for each level.
async fn listed_at_once(store: &Replica) -> Result<Vec<FileId>> {
    let listing = store.list_at_once().await?;
    let mut files: Vec<FileId> = listing.files.into_iter().map(|file| file.id).collect();
    if let Some((first, from)) = listing.rest {
        for level in first.get()..=Level::SNAPSHOT.get() {
            let from = if level == first.get() { from.get() } else { 1 };
            files.extend(listed(store, level, from).await?);
        }
    }
    Ok(files)
}
