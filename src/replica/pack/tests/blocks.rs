//! The page index in blocks: against an oracle, two bytes a page, damage and lies of each kind, and who gets it.

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::super::index::IndexWriter;
use super::super::slot::{FilePack, Packs};
use super::*;
use crate::ltx::varint;
use crate::replica::source::Source;
use crate::runtime;
use crate::store::ByteRange;

const BLOCK: usize = PackedIndex::BLOCK;
const FIRST_FRAME: u64 = Header::SIZE as u64;
/// Large enough for the frames of any of these tests.
const HUGE: u64 = 1 << 50;

fn huge() -> FileInfo {
    FileInfo { size: HUGE, ..file() }
}

/// The entries of pages with these numbers and sizes of frames.
fn entries(pages: impl IntoIterator<Item = (u32, u64)>) -> Vec<IndexEntry> {
    let mut end = FIRST_FRAME;
    let entry = |(n, size): (u32, u64)| {
        let offset = end;
        end += size;
        IndexEntry { pgno: pgno(n), offset, size }
    };
    pages.into_iter().map(entry).collect()
}

fn blocks(entries: &[IndexEntry]) -> Option<Blocks> {
    let mut writer = IndexWriter::new(FIRST_FRAME);
    entries.iter().for_each(|entry| writer.push(*entry));
    writer.finish()
}

/// The pack that has nothing but the blocks of these entries.
fn packed(entries: &[IndexEntry]) -> Bytes {
    encode(&Identity { size: HUGE, ..identity() }, &[], blocks(entries), None).into()
}

fn parsed(bytes: &Bytes) -> Result<Pack> {
    parse(&huge(), bytes.slice(..bytes.len().min(LARGEST)))
}

/// The bytes of block `n` of the pack.
fn block_of(pack: &Bytes, index: &PackedIndex, n: usize) -> Bytes {
    match index.range(n) {
        Some(ByteRange::Bounded { offset, len }) => pack.slice(offset as usize..(offset + len) as usize),
        None => Bytes::new(),
        other => panic!("{other:?}"),
    }
}

/// Pages in several blocks, some of which have none.
fn some_entries() -> Vec<IndexEntry> {
    let dense = (1..=40).map(|n| (n, 100 + u64::from(n)));
    let sparse = (0..30).map(|n| (2 * BLOCK as u32 + 5 + n * n, 4000));
    entries(dense.chain(sparse).chain([(4 * BLOCK as u32, 11), (4 * BLOCK as u32 + 1, 16_000)]))
}

/// Ascending pages: each some after the one before it, mostly the next one.
fn pages() -> impl Strategy<Value = Vec<(u32, u64)>> {
    let step = prop_oneof![8 => Just(1_u32), 2 => 2..500_u32, 1 => 15_000..60_000_u32];
    prop::collection::vec((step, FRAME_SIZES), 1..300).prop_map(|all| {
        let mut last = 0;
        let page = |(step, size)| {
            last += step;
            (last, size)
        };
        all.into_iter().map(page).collect()
    })
}

proptest! {
    #[test]
    fn all_entries_are_read_back_block_by_block(pages in pages()) {
        let all = entries(pages);
        let pack = packed(&all);
        let read = parsed(&pack).unwrap();
        let index = read.index().unwrap();
        prop_assert_eq!(index.pages(), all.len() as u64);
        prop_assert_eq!(index.last(), all.last().unwrap().pgno);
        let mut found = Vec::new();
        for n in 0..index.blocks() {
            let bytes = block_of(&pack, index, n);
            prop_assert_eq!(index.came(n), Some(&bytes[..]));
            let entries = index.read(n, &bytes).unwrap();
            prop_assert!(entries.iter().all(|entry| index.of(entry.pgno) == Some(n)));
            prop_assert_eq!(entries.is_empty(), index.range(n).is_none());
            found.extend(entries);
        }
        prop_assert_eq!(&found, &all);
        let lacks = |n: u32| Pgno::new(n).is_none_or(|pgno| index.of(pgno).is_none());
        prop_assert!(lacks(index.last().get() + 1) && lacks(u32::MAX));
        prop_assert!(index.range(index.blocks()).is_none() && index.read(index.blocks(), &[]).is_err());
    }

    #[test]
    fn any_bytes_of_a_block_are_read_without_harm(
        bytes in prop::collection::vec(prop_oneof![4 => 0..20_u8, 1 => any::<u8>()], 0..200),
        (count, end) in (1..80_u32, 0..5000_u64),
        last in 1..100_u32,
    ) {
        let one = Lie { pages: count, bytes: bytes.clone(), end: FIRST_FRAME + end, last };
        if let Ok(found) = parsed(&one.pack()).and_then(|pack| pack.index().unwrap().read(0, &bytes)) {
            prop_assert_eq!(found.len(), count as usize);
            prop_assert_eq!(&entries(found.iter().map(|e| (e.pgno.get(), e.size))), &found);
            prop_assert!(found.is_sorted_by(|a, b| a.pgno < b.pgno));
            let ends = found.last().map(|e| (e.pgno.get(), e.offset + e.size));
            prop_assert_eq!(ends, Some((last, FIRST_FRAME + end)));
            prop_assert!(found.iter().all(|entry| FRAME_SIZES.contains(&entry.size)));
        }
    }
}

/// A pack of one block, with checksums that are right, whatever it says.
struct Lie {
    pages: u32,
    bytes: Vec<u8>,
    end: u64,
    last: u32,
}

impl Lie {
    /// Three pages: 1, 2 and 5, of 20, 30 and 40 bytes.
    fn truth() -> Self {
        Self { pages: 3, bytes: vec![0, 2, 2, 1, 20, 30, 40], end: FIRST_FRAME + 90, last: 5 }
    }

    fn pack(&self) -> Bytes {
        let true_one = packed(&entries([(1, 11)]));
        let mut bytes = true_one[..HEAD + BLOCK_ENTRY + CHECKSUM].to_vec();
        bytes[48..56].copy_from_slice(&self.end.to_be_bytes());
        bytes[56..60].copy_from_slice(&self.last.to_be_bytes());
        let table = &mut bytes[HEAD..];
        table[8..12].copy_from_slice(&self.pages.to_be_bytes());
        table[12..16].copy_from_slice(&(self.bytes.len() as u32).to_be_bytes());
        table[16..24].copy_from_slice(&checksum(&self.bytes).to_be_bytes());
        bytes.extend_from_slice(&self.bytes);
        forged(bytes)
    }

    fn read(&self) -> Result<Vec<IndexEntry>> {
        parsed(&self.pack())?.index().unwrap().read(0, &self.bytes)
    }
}

#[test]
fn a_block_that_lies_is_not_believed() {
    assert_eq!(Lie::truth().read().unwrap(), entries([(1, 20), (2, 30), (5, 40)]));
    let long = |bytes: &[u8]| {
        let mut all = bytes.to_vec();
        varint::put(&mut all, 1 << 40);
        all.extend([1, 20, 30, 40]);
        all
    };
    for (what, lie) in [
        ("a run of none", Lie { bytes: vec![0, 0, 0, 3, 20, 30, 40], ..Lie::truth() }),
        ("a run beyond its pages", Lie { bytes: vec![0, 2, 2, 2, 20, 30, 40], ..Lie::truth() }),
        ("a page beyond the last", Lie { bytes: vec![0, 2, 3, 1, 20, 30, 40], ..Lie::truth() }),
        ("another last page", Lie { bytes: vec![0, 2, 1, 1, 20, 30, 40], ..Lie::truth() }),
        ("pages that overflow", Lie { bytes: long(&[0, 2]), ..Lie::truth() }),
        ("a frame that is too small", Lie { bytes: vec![0, 2, 2, 1, 10, 40, 40], ..Lie::truth() }),
        ("frames that end before", Lie { bytes: vec![0, 2, 2, 1, 20, 30, 39], ..Lie::truth() }),
        ("frames that end behind", Lie { bytes: vec![0, 2, 2, 1, 20, 30, 41], ..Lie::truth() }),
        ("bytes behind it", Lie { bytes: vec![0, 2, 2, 1, 20, 30, 40, 0], ..Lie::truth() }),
        ("a size less", Lie { bytes: vec![0, 2, 2, 1, 20, 70], ..Lie::truth() }),
        ("a number that does not end", Lie { bytes: vec![0, 2, 2, 1, 20, 30, 0x80 | 40], ..Lie::truth() }),
        ("fewer pages", Lie { pages: 2, ..Lie::truth() }),
        ("more pages", Lie { pages: 4, ..Lie::truth() }),
        ("more pages than a block has", Lie { pages: BLOCK as u32 + 1, ..Lie::truth() }),
        ("no pages", Lie { pages: 0, bytes: Vec::new(), end: FIRST_FRAME, ..Lie::truth() }),
        ("no last page", Lie { last: 0, ..Lie::truth() }),
        ("a last page of another block", Lie { last: BLOCK as u32 + 1, ..Lie::truth() }),
        ("frames beyond the file", Lie { end: HUGE, ..Lie::truth() }),
        ("no frames", Lie { end: 0, ..Lie::truth() }),
        ("more bytes than its pages take", Lie { bytes: vec![0; 28], ..Lie::truth() }),
    ] {
        let e = lie.read().expect_err(what);
        assert!(e.to_string().contains("no pack"), "{what}: {e}");
    }
}

#[test]
fn a_block_beyond_its_own_pages_is_not_believed() {
    // By its bytes block 0 ends with the first page of block 1; the table is right.
    let last = BLOCK as u32;
    let all = entries([(last - 1, 20), (last, 20), (last + 1, 20)]);
    let mut bytes = packed(&all).to_vec();
    let mut block = Vec::new();
    varint::put(&mut block, BLOCK as u64 - 1);
    block.extend([2, 20, 20]);
    let at = HEAD + 2 * BLOCK_ENTRY + CHECKSUM;
    bytes[at..at + block.len()].copy_from_slice(&block);
    bytes[HEAD + 16..HEAD + 24].copy_from_slice(&checksum(&block).to_be_bytes());
    let pack = parsed(&forged(bytes)).unwrap();
    let e = pack.index().unwrap().read(0, &block).unwrap_err();
    assert!(e.to_string().contains("not what its table says"), "{e}");
}

#[test]
fn frames_end_within_the_file() {
    let all = entries([(1, 50), (2, 60)]);
    for (size, is_taken) in [(FIRST_FRAME + 110, false), (FIRST_FRAME + 111, true)] {
        let pack = encode(&Identity { size, ..identity() }, &[], blocks(&all), None);
        assert_eq!(parse(&FileInfo { size, ..file() }, pack.into()).is_ok(), is_taken, "{size}");
    }
    let none = Lie { pages: 0, bytes: Vec::new(), end: FIRST_FRAME, ..Lie::truth() };
    assert!(parsed(&none.pack()).is_err(), "the last block has no page");
}

#[test]
fn a_table_that_lies_is_not_believed() {
    let good = packed(&some_entries());
    assert_eq!(parsed(&good).unwrap().index().unwrap().blocks(), 5);
    for (what, block, place, value) in [
        ("a first frame elsewhere", 0, 0, &99_u64.to_be_bytes()[..]),
        ("a block that begins before the one before it", 2, 0, &100_u64.to_be_bytes()),
        ("a block that begins behind the next", 2, 0, &(HUGE - 1).to_be_bytes()),
        ("pages in a block that has none", 1, 8, &1_u32.to_be_bytes()),
        ("more pages than its frames have room for", 0, 8, &16_000_u32.to_be_bytes()),
        ("bytes of a block without pages", 1, 12, &1_u32.to_be_bytes()),
        ("more bytes than its pages take", 0, 12, &u32::MAX.to_be_bytes()),
    ] {
        let mut bytes = good.to_vec();
        let at = HEAD + block * BLOCK_ENTRY + place;
        bytes[at..at + value.len()].copy_from_slice(value);
        assert!(parsed(&forged(bytes)).is_err(), "{what}");
    }
}

#[test]
fn a_block_with_a_bit_that_is_another_is_none() {
    let good = packed(&some_entries());
    let pack = parsed(&good).unwrap();
    let index = pack.index().unwrap();
    for n in [0, 2, 3, 4] {
        let block = block_of(&good, index, n);
        assert!(index.read(n, &block).is_ok());
        for bit in 0..block.len() * 8 {
            let mut bytes = block.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(index.read(n, &bytes).is_err(), "bit {bit} of block {n}");
        }
        for len in 0..block.len() {
            assert!(index.read(n, &block[..len]).is_err(), "block {n} cut to {len}");
        }
        assert!(index.read(n, &[&block[..], &[0]].concat()).is_err());
        assert!(index.read((n + 1) % 5, &block).is_err());
    }
    // Whatever is cut off, or added: it is not the pack that its front tells of.
    for len in 0..good.len() {
        assert!(parsed(&good.slice(..len)).is_err(), "cut to {len}");
    }
    assert!(parsed(&[&good[..], &[0]].concat().into()).is_err());
    for byte in 0..good.len() {
        let mut bytes = good.to_vec();
        bytes[byte] ^= 0x41;
        let Ok(pack) = parsed(&bytes.into()) else { continue };
        let index = pack.index().unwrap();
        let wrong = (0..5).filter(|n| index.read(*n, index.came(*n).unwrap()).is_err()).count();
        assert_eq!(wrong, 1, "byte {byte}");
    }
}

#[test]
fn a_page_takes_two_bytes() {
    let snapshot =
        (1..=3 * BLOCK as u32 - 100).filter(|n| *n != 20_000).map(|n| (n, 500 + u64::from(n % 3500)));
    let all = entries(snapshot);
    let pack = packed(&all);
    let per_page = pack.len() as f64 / all.len() as f64;
    assert!(per_page < 2.01, "{per_page}");
    let every_other = entries((1..=BLOCK as u32).map(|n| (2 * n, 2000)));
    assert!(packed(&every_other).len() < 5 * BLOCK);
}

#[test]
fn what_is_beyond_the_front_comes_by_its_range() {
    // More blocks than come with the front.
    let all = entries((0..4_500_000_u32).map(|n| (n + 1, 900 + u64::from(n) % 900)));
    let pack = packed(&all);
    assert!(pack.len() > LARGEST);
    let parsed = parsed(&pack).unwrap();
    let index = parsed.index().unwrap();
    assert!(index.came(0).is_some() && index.came(index.blocks() - 1).is_none());
    for n in [0, index.blocks() - 2, index.blocks() - 1] {
        let found = index.read(n, &block_of(&pack, index, n)).unwrap();
        assert_eq!(found, all[n * BLOCK..all.len().min((n + 1) * BLOCK)], "block {n}");
    }
}

/// The pack of a file with these pages, of which the first has the content `first` and page 2 is interior, and which is
/// `size` bytes large.
fn built(first: &[u8], room: usize, size: u64) -> Option<Pack> {
    let (page_size, commit) = (PageSize::new(4096).unwrap(), PageCount::new(9999));
    let header = Header::new(page_size, commit, name(1, 1), Timestamp::from_millis(0));
    let mut builder = builder(&header).with_room(room).with_blocks_from(FILE_SIZE);
    let contents = [first.to_vec(), table(&[3, 4], &[9]), leaf()];
    for (entry, page) in entries((1..).zip([100; 3])).iter().zip(&contents) {
        builder.page(page, *entry, &page[..100]);
    }
    let (_, summary) = {
        let mut encoder = Encoder::new(Vec::new(), Header { commit: PageCount::new(1), ..header }).unwrap();
        encoder.page(Pgno::ONE, &[0; 4096]).unwrap();
        encoder.finish().unwrap()
    };
    let bytes = builder.finish(&Summary { size, ..summary })?.bytes;
    Some(parse(&FileInfo { id: id(0, 1, 1), size, ..file() }, bytes).unwrap())
}

#[test]
fn large_files_get_blocks_whatever_their_pages_are() {
    let about =
        |pack: Option<Pack>| pack.map(|pack| (pack.frames().count(), pack.index().map(PackedIndex::pages)));
    let mut encrypted = first(&[]);
    encrypted[0] = b'?';
    let below = FILE_SIZE - 1;
    assert_eq!(about(built(&first(&[]), ROOM_FOR_ALL, FILE_SIZE)), Some((2, Some(3))));
    assert_eq!(about(built(&first(&[]), ROOM_FOR_ALL, below)), Some((2, None)));
    assert_eq!(about(built(&encrypted, ROOM_FOR_ALL, FILE_SIZE)), Some((0, Some(3))));
    assert_eq!(about(built(&encrypted, ROOM_FOR_ALL, below)), None);
    assert_eq!(about(built(&first(&[]), 50, FILE_SIZE)), Some((0, Some(3))), "no room for pages");
    assert_eq!(about(built(&first(&[]), 50, below)), None);
}

/// The pack of the large file of `history`, as its reader gets it, whose trailer has `checksum`.
fn asked(history: &History, checksum: u64) -> FilePack {
    let source = Arc::new(Source::new(history.store()));
    let codec = FrameCodec::plain(history.page_size);
    runtime::block_on(async move {
        let file = source.list(crate::ltx::Level::SNAPSHOT, crate::ltx::Txid::ONE).await?.remove(0);
        Ok(Packs::new(true, 0).ask(&source, &file).unwrap().of(checksum, &codec).await)
    })
    .unwrap()
}

#[test]
fn a_reader_gets_the_table_with_the_front_and_each_block_by_its_range() {
    let (history, _) = trees();
    let file = id(9, 1, 1);
    let pack = history.pack_with_blocks_from(0, 9, 1, 1);
    history.put_pack(file, pack.clone());
    let bytes = history.store.bytes_of(file);
    let checksum = u64::from_be_bytes(*bytes.last_chunk().unwrap());
    assert!(asked(&history, checksum ^ 1).index().is_none(), "the index of another file");
    let pack = asked(&history, checksum);
    let index = pack.index().unwrap();
    let range = index.range(0).unwrap();
    let source = Source::new(history.store());
    let block = runtime::block_on(source.pack(file, range)).unwrap();
    let size = bytes.len() as u64;
    let of_file = match crate::ltx::PageIndex::from_tail(&bytes, size, crate::ltx::Shape::PLAIN).unwrap() {
        crate::ltx::TailRead::Index(index) => index.iter().collect::<Vec<_>>(),
        crate::ltx::TailRead::NeedMore(n) => panic!("{n}"),
    };
    assert_eq!(index.read(0, &block).unwrap(), of_file);
    assert_eq!(source.requests(), 1);
    let beyond = ByteRange::Bounded { offset: 1 << 30, len: 10 };
    assert!(runtime::block_on(source.pack(file, beyond)).is_err());
}
