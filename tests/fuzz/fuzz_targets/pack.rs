//! Any bytes as a pack, with a checksum that is right: what is accepted gives frames that are within it, and no others.
#![no_main]

mod heap;

use crc_fast::{CrcAlgorithm, checksum};
use libfuzzer_sys::fuzz_target;
use litestream_vfs::clock::Timestamp;
use litestream_vfs::ltx::{FileId, FileName, IndexEntry, Level, Txid};
use litestream_vfs::page::Pgno;
use litestream_vfs::replica::Pack;
use litestream_vfs::store::FileInfo;

fuzz_target!(init: heap::limit_until_panic(), |bytes: &[u8]| {
    let Some((ask, bytes)) = bytes.split_first_chunk::<16>() else { return };
    let n = |at: usize| u32::from_be_bytes([ask[at], ask[at + 1], ask[at + 2], ask[at + 3]]);
    let (Some(pgno), Some(max)) = (Pgno::new(n(0)), Txid::new(u64::from(n(4) % 16) + 1)) else { return };
    let name = FileName::new(Txid::ONE, max).expect("it is not before the first");
    let id = FileId::new(Level::SNAPSHOT, name);
    let file = FileInfo { id, size: u64::from(n(8)), timestamp: Timestamp::from_millis(0) };
    for bytes in [bytes.to_vec(), sealed(&file, bytes)] {
        if let Ok(pack) = Pack::parse(&file, bytes.into()) {
            let mut end = 0;
            for (entry, frame) in pack.frames() {
                assert!(entry.offset >= end && entry.offset + entry.size <= file.size);
                assert_eq!(entry.size, frame.len() as u64);
                assert_eq!(pack.frame(entry), Some(frame));
                end = entry.offset + entry.size;
            }
            pack.frame(IndexEntry { pgno, offset: n(12).into(), size: n(12).into() });
        }
    }
});

/// `bytes` behind a head that names `file`, and before the checksum of all that; the first four are the number of pages.
fn sealed(file: &FileInfo, bytes: &[u8]) -> Vec<u8> {
    let (count, rest) = bytes.split_at(bytes.len().min(4));
    let mut count: Vec<u8> = count.to_vec();
    count.resize(4, 0);
    // Few, so that they may fit.
    count[..2].fill(0);
    let pages = u64::from(u32::from_be_bytes([0, 0, count[2], count[3]])) * 16;
    let mut all = b"LSVPACK1".to_vec();
    all.extend(u32::from(file.id.level.get()).to_be_bytes());
    all.extend(count);
    let frames = (rest.len() as u64).saturating_sub(pages);
    for n in [file.id.name.min().get(), file.id.name.max().get(), file.size, 7, frames] {
        all.extend(n.to_be_bytes());
    }
    all.extend(rest);
    let sum = checksum(CrcAlgorithm::Crc64Nvme, &all);
    all.extend(sum.to_be_bytes());
    all
}
