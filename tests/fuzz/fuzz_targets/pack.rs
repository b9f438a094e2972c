//! Any bytes as a pack, with checksums that are right: what is accepted gives frames that are within it, and no others, and
//! blocks of a page index that ascends and has no gap.
#![no_main]

mod heap;

use crc_fast::{CrcAlgorithm, checksum};
use libfuzzer_sys::fuzz_target;
use litestream_vfs::clock::Timestamp;
use litestream_vfs::ltx::{FileId, FileName, FrameCodec, IndexEntry, Level, Txid};
use litestream_vfs::page::{PageSize, Pgno};
use litestream_vfs::replica::{Pack, PackedIndex};
use litestream_vfs::store::{ByteRange, FileInfo};

/// What precedes the pages, what is said of each, and what the table has of a block.
const HEAD: usize = 72;
const ENTRY: usize = 16;
const BLOCK_ENTRY: usize = 24;

fuzz_target!(init: heap::limit_until_panic(), |bytes: &[u8]| {
    let Some((ask, bytes)) = bytes.split_first_chunk::<16>() else { return };
    let n = |at: usize| u32::from_be_bytes([ask[at], ask[at + 1], ask[at + 2], ask[at + 3]]);
    let (Some(pgno), Some(max)) = (Pgno::new(n(0)), Txid::new(u64::from(n(4) % 16) + 1)) else { return };
    let name = FileName::new(Txid::ONE, max).expect("it is not before the first");
    let id = FileId::new(Level::SNAPSHOT, name);
    let file = FileInfo { id, size: u64::from(n(8)), timestamp: Timestamp::from_millis(0) };
    for bytes in [bytes.to_vec(), named(&file, bytes)] {
        if let Ok(pack) = Pack::parse(&file, bytes.clone().into(), &FrameCodec::plain(PageSize::MAX)) {
            let mut end = 0;
            for (entry, frame) in pack.frames() {
                assert!(entry.offset >= end && entry.offset + entry.size <= file.size);
                assert_eq!(entry.size, frame.len() as u64);
                assert_eq!(pack.frame(entry), Some(frame));
                end = entry.offset + entry.size;
            }
            pack.frame(IndexEntry { pgno, offset: n(12).into(), size: n(12).into() });
            if let Some(index) = pack.index() {
                read(index, &bytes, &file);
            }
        }
    }
});

/// Reads all blocks of `index`, of the pack `bytes`.
fn read(index: &PackedIndex, bytes: &[u8], file: &FileInfo) {
    let (mut last, mut end, mut pages) = (None, 100, 0);
    for n in 0..index.blocks() {
        let block = match index.range(n) {
            Some(ByteRange::Bounded { offset, len }) => &bytes[offset as usize..(offset + len) as usize],
            _ => &[],
        };
        assert_eq!(index.came(n), Some(block));
        let Ok(entries) = index.read(n, block) else { return };
        for entry in &entries {
            assert!(Some(entry.pgno) > last && entry.offset == end && index.of(entry.pgno) == Some(n));
            (last, end) = (Some(entry.pgno), end + entry.size);
        }
        pages += entries.len() as u64;
    }
    assert!(last == Some(index.last()) && end < file.size && pages == index.pages());
}

/// `bytes` behind a head that names `file`, with the checksums of all that. The first twelve say how many pages and blocks there
/// are, which is the last page, and how many bytes there are of blocks.
fn named(file: &FileInfo, bytes: &[u8]) -> Vec<u8> {
    let (said, rest) = bytes.split_at(bytes.len().min(12));
    let at = |n: usize| said.get(n).copied().unwrap_or(0);
    // Few, so that they may fit.
    let (pages, blocks) = (usize::from(at(0) % 8), usize::from(at(1) % 4));
    let last = u32::from_be_bytes([0, at(2), at(3), at(4)]);
    let end = u64::from(u32::from_be_bytes([0, at(5), at(6), at(7)]));
    let (mut front, of_blocks) = {
        let (front, of_blocks) = rest.split_at(rest.len().saturating_sub(usize::from(at(8))));
        (front.to_vec(), of_blocks)
    };
    let listed = pages * ENTRY + blocks * BLOCK_ENTRY;
    front.resize(front.len().max(listed), 0);
    let mut rest = of_blocks;
    for block in front[pages * ENTRY..listed].chunks_exact_mut(BLOCK_ENTRY) {
        let size = u32::from_be_bytes([0, 0, 0, block[15]]) as usize;
        let (own, others) = rest.split_at(size.min(rest.len()));
        block[12..16].copy_from_slice(&(own.len() as u32).to_be_bytes());
        block[16..24].copy_from_slice(&checksum(CrcAlgorithm::Crc64Nvme, own).to_be_bytes());
        rest = others;
    }
    let mut all = b"LSVPACK1".to_vec();
    all.extend(((HEAD + front.len() + 8) as u32).to_be_bytes());
    all.extend(u32::from(file.id.level.get()).to_be_bytes());
    for n in [file.id.name.min().get(), file.id.name.max().get(), file.size, 7, end] {
        all.extend(n.to_be_bytes());
    }
    for n in [last, pages as u32, blocks as u32, (front.len() - listed) as u32] {
        all.extend(n.to_be_bytes());
    }
    all.extend(front);
    let sum = checksum(CrcAlgorithm::Crc64Nvme, &all);
    all.extend(sum.to_be_bytes());
    all.extend(&of_blocks[..of_blocks.len() - rest.len()]);
    all
}
