//! Any bytes as the tail of a file, or as the varints of an index: what is accepted keeps the rules
//! and survives being written and read.
#![no_main]

mod heap;

use libfuzzer_sys::fuzz_target;
use litestream_vfs::ltx::{PageIndex, Shape, TailRead};

/// A plain file, and sealed ones.
const RECIPIENTS: [u16; 3] = [0, 1, u16::MAX];

fuzz_target!(init: heap::limit_until_panic(), |bytes: &[u8]| {
    for shape in RECIPIENTS.map(Shape::new) {
        if let Ok(index) = PageIndex::decode(bytes, shape) {
            assert_eq!(index.encode(), bytes);
            check(&index, shape);
        }
        tail(bytes, bytes.len() as u64, shape);
        if let Some((file_size, bytes)) = bytes.split_first_chunk() {
            tail(bytes, u64::from_be_bytes(*file_size), shape);
            tail(bytes, u64::from(u16::from_be_bytes([file_size[6], file_size[7]])), shape);
        }
    }
});

fn tail(bytes: &[u8], file_size: u64, shape: Shape) {
    match PageIndex::from_tail(bytes, file_size, shape) {
        Ok(TailRead::Index(index)) => check(&index, shape),
        Ok(TailRead::NeedMore(n)) => assert!(n > bytes.len() as u64 && n <= file_size),
        Err(_) => {}
    }
}

fn check(index: &PageIndex, shape: Shape) {
    let mut next = shape.first_frame();
    for entry in index.iter() {
        assert_eq!(entry.offset, next);
        next += entry.size;
    }
    assert!(index.iter().is_sorted_by(|a, b| a.pgno < b.pgno));
    assert_eq!(index.iter().count(), index.len());
    assert_eq!(&PageIndex::from_entries(shape, index.iter()).expect("its own entries make it"), index);
}
