//! Any bytes as the tail of a file, or as the varints of an index: what is accepted keeps the rules
//! and survives being written and read.
#![no_main]

mod heap;

use libfuzzer_sys::fuzz_target;
use litestream_vfs::ltx::{PageIndex, TailRead};

fuzz_target!(init: heap::limit_until_panic(), |bytes: &[u8]| {
    if let Ok(index) = PageIndex::decode(bytes) {
        assert_eq!(index.encode(), bytes);
        check(&index);
    }
    tail(bytes, bytes.len() as u64);
    if let Some((file_size, bytes)) = bytes.split_first_chunk() {
        tail(bytes, u64::from_be_bytes(*file_size));
        tail(bytes, u64::from(u16::from_be_bytes([file_size[6], file_size[7]])));
    }
});

fn tail(bytes: &[u8], file_size: u64) {
    match PageIndex::from_tail(bytes, file_size) {
        Ok(TailRead::Index(index)) => check(&index),
        Ok(TailRead::NeedMore(n)) => assert!(n > bytes.len() as u64 && n <= file_size),
        Err(_) => {}
    }
}

fn check(index: &PageIndex) {
    let mut next = 100;
    for entry in index.iter() {
        assert_eq!(entry.offset, next);
        next += entry.size;
    }
    assert!(index.iter().is_sorted_by(|a, b| a.pgno < b.pgno));
    assert_eq!(index.iter().count(), index.len());
    assert_eq!(&PageIndex::from_entries(index.iter()).expect("its own entries make it"), index);
}
