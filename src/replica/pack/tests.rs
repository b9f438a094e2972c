//! The format against an oracle, damage of each kind, what a builder keeps, and readers that meet packs of all sorts.

mod blocks;
mod sealed;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::clock::Timestamp;
use crate::ltx::sealing::sample_keyring;
use crate::ltx::{Encoder, Header, Plain, Summary};
use crate::page::{PageCount, PageSize};
use crate::replica::btree::tests::table;
use crate::replica::tests::fixtures::{History, Hooked, id, name};
use crate::replica::{Core, DiskOptions, Options, View};

const FILE_SIZE: u64 = 5_000_000;
const OF_FILE: u64 = 0x8000_0000_1234_5678;

fn file() -> FileInfo {
    FileInfo { id: id(9, 1, 42), size: FILE_SIZE, timestamp: Timestamp::from_millis(0) }
}

fn identity() -> Identity {
    Identity { id: file().id, size: FILE_SIZE, checksum: OF_FILE }
}

/// Reads `bytes` as the pack of the plain file `file`.
fn parse(file: &FileInfo, bytes: Bytes) -> Result<Pack> {
    Pack::parse(file, bytes, &FrameCodec::plain(PageSize::new(4096).unwrap()))
}

fn pgno(n: u32) -> Pgno {
    Pgno::new(n).unwrap()
}

/// Pages by the offset of their frames.
type Frames = BTreeMap<u64, (u32, Vec<u8>)>;

fn frames() -> impl Strategy<Value = Frames> {
    let one = (0..50_000_u64, 1..1000_u32, prop::collection::vec(any::<u8>(), SMALLEST_FRAME..200));
    prop::collection::vec(one, 0..60).prop_map(|all| {
        let mut end = Header::SIZE as u64;
        let place = |(gap, pgno, frame): (u64, u32, Vec<u8>)| {
            let offset = end + gap;
            end = offset + frame.len() as u64;
            (offset, (pgno, frame))
        };
        all.into_iter().map(place).collect()
    })
}

const SMALLEST_FRAME: usize = *FRAME_SIZES.start() as usize;

fn encoded(frames: &Frames) -> Bytes {
    let entry = |(offset, (n, frame)): (&u64, &(u32, Vec<u8>))| IndexEntry {
        pgno: pgno(*n),
        offset: *offset,
        size: frame.len() as u64,
    };
    let all: Vec<_> = frames.iter().map(|all| (entry(all), all.1.1.as_slice())).collect();
    encode(&identity(), &all, None, None).into()
}

/// With the checksum that its front has.
fn forged(mut bytes: Vec<u8>) -> Bytes {
    let front = u32::from_be_bytes(bytes[8..12].try_into().unwrap()) as usize;
    if let Some(end) = front.checked_sub(CHECKSUM).filter(|_| front <= bytes.len()) {
        let sum = checksum(&bytes[..end]);
        bytes[end..front].copy_from_slice(&sum.to_be_bytes());
    }
    bytes.into()
}

fn some_frames() -> Frames {
    (1..50_u32).map(|n| (u64::from(n) * 1000, (n, vec![n as u8; 100 + n as usize]))).collect()
}

pub(super) fn any_pack() -> Pack {
    parse(&file(), encoded(&some_frames())).unwrap()
}

proptest! {
    #[test]
    fn a_frame_is_given_for_just_its_page_offset_and_size(frames in frames(), other in any::<(u32, u16, u8)>()) {
        let pack = parse(&file(), encoded(&frames)).unwrap();
        prop_assert_eq!(pack.checksum(), OF_FILE);
        let found: Frames = pack.frames().map(|(e, frame)| (e.offset, (e.pgno.get(), frame.to_vec()))).collect();
        prop_assert_eq!(&found, &frames);
        let oracle = |entry: IndexEntry| {
            let (n, frame) = frames.get(&entry.offset)?;
            (*n == entry.pgno.get() && frame.len() as u64 == entry.size).then_some(frame.as_slice())
        };
        let near = frames.iter().flat_map(|(offset, (n, frame))| {
            let (n, size) = (pgno(*n), frame.len() as u64);
            let right = IndexEntry { pgno: n, offset: *offset, size };
            [
                right,
                IndexEntry { pgno: pgno(n.get() + 1), ..right },
                IndexEntry { offset: offset + 1, ..right },
                IndexEntry { size: size - 1, ..right },
            ]
        });
        let any = IndexEntry { pgno: pgno(other.0.max(1)), offset: other.1.into(), size: other.2.into() };
        for entry in near.chain([any]) {
            prop_assert_eq!(pack.frame(entry), oracle(entry));
        }
    }

    #[test]
    fn any_bytes_are_read_without_harm(head in prop::collection::vec(any::<u8>(), 0..300), named: bool) {
        let mut bytes = head;
        if named && bytes.len() > HEAD + CHECKSUM {
            bytes[..48].copy_from_slice(&encoded(&Frames::new())[..48]);
            let front = bytes.len() as u32;
            bytes[8..12].copy_from_slice(&front.to_be_bytes());
            bytes = forged(bytes).to_vec();
        }
        if let Ok(pack) = parse(&file(), bytes.into()) {
            pack.frames().for_each(drop);
        }
    }
}

#[test]
fn a_bit_that_is_another_makes_it_no_pack() {
    let good = encoded(&some_frames());
    let mut random = History::new(512, 11);
    for _ in 0..1000 {
        let mut bytes = good.to_vec();
        let at = random.below(bytes.len() as u64) as usize;
        bytes[at] ^= 1 << random.below(8);
        assert!(parse(&file(), bytes.clone().into()).is_err(), "byte {at}");
        // Were its checksum right, nothing worse than a wrong frame could come of it.
        if let Ok(pack) = parse(&file(), forged(bytes)) {
            pack.frames().for_each(drop);
        }
    }
    for len in 0..good.len() {
        assert!(parse(&file(), good.slice(..len)).is_err(), "cut to {len}");
    }
    assert!(parse(&file(), [&good[..], &[0]].concat().into()).is_err());
}

#[test]
fn a_pack_of_another_file_or_version_is_none() {
    let good = encoded(&some_frames());
    assert!(parse(&file(), good.clone()).is_ok());
    for other in [
        FileInfo { id: id(8, 1, 42), ..file() },
        FileInfo { id: id(9, 1, 43), ..file() },
        FileInfo { size: FILE_SIZE + 1, ..file() },
    ] {
        assert!(parse(&other, good.clone()).is_err(), "{other:?}");
    }
    let mut later = good.to_vec();
    later[7] = b'2';
    assert!(parse(&file(), forged(later)).is_err());
}

#[test]
fn numbers_that_lie_are_not_believed() {
    let lie = |place: usize, value: &[u8]| {
        let mut bytes = encoded(&some_frames()).to_vec();
        bytes[place..place + value.len()].copy_from_slice(value);
        parse(&file(), forged(bytes)).unwrap_err().to_string()
    };
    for (what, place, value) in [
        ("a front that is none", 8, &0_u32.to_be_bytes()[..]),
        ("a front that is larger", 8, &u32::MAX.to_be_bytes()),
        ("more pages than there is room for", 60, &u32::MAX.to_be_bytes()),
        ("more pages than are there", 60, &50_u32.to_be_bytes()),
        ("more blocks than there is room for", 64, &u32::MAX.to_be_bytes()),
        ("blocks that are not there", 64, &1_u32.to_be_bytes()),
        ("more bytes than are there", 68, &u32::MAX.to_be_bytes()),
        ("page 0", HEAD, &0_u32.to_be_bytes()),
        ("a frame beyond the pack", HEAD + 4, &u32::MAX.to_be_bytes()),
        ("a frame beyond the file", HEAD + 8, &FILE_SIZE.to_be_bytes()),
        ("a frame that overflows", HEAD + 8, &u64::MAX.to_be_bytes()),
        ("frames out of order", HEAD + 8, &3000_u64.to_be_bytes()),
    ] {
        assert!(lie(place, value).contains("no pack"), "{what}");
    }
}

fn builder(header: &Header) -> PackBuilder {
    PackBuilder::new(id(0, 1, 1), &Encoder::new(Vec::new(), *header).unwrap()).unwrap().unwrap()
}

/// What a builder with `room` makes of `pages`, each as its own frame: the pages that it keeps.
fn kept(pages: &[(u32, Vec<u8>)], room: usize) -> Option<Vec<u32>> {
    let header = Header::new(
        PageSize::new(4096).unwrap(),
        PageCount::new(9999),
        name(1, 1),
        Timestamp::from_millis(0),
    );
    let mut builder = builder(&header).with_room(room);
    let mut offset = Header::SIZE as u64;
    for (n, page) in pages {
        builder.page(page, IndexEntry { pgno: pgno(*n), offset, size: 100 }, &page[..100]);
        offset += 100;
    }
    let (_, summary): (_, Summary) = {
        let mut encoder = Encoder::new(Vec::new(), Header { commit: PageCount::new(1), ..header }).unwrap();
        encoder.page(Pgno::ONE, &[0; 4096]).unwrap();
        encoder.finish().unwrap()
    };
    let large = Summary { size: FILE_SIZE, ..summary };
    let info = FileInfo { id: id(0, 1, 1), ..file() };
    let pack = parse(&info, builder.finish(&large)?.bytes).unwrap();
    Some(pack.frames().map(|(entry, _)| entry.pgno.get()).collect())
}

fn leaf() -> Vec<u8> {
    let mut page = vec![0; 4096];
    page[0] = 13;
    page
}

/// Page 1 of a database; with `children` its schema has leaves of its own.
fn first(children: &[u32]) -> Vec<u8> {
    let mut page = vec![0; 4096];
    page[..16].copy_from_slice(b"SQLite format 3\0");
    if let [child, last] = children {
        page[100] = 5;
        page[103..105].copy_from_slice(&1_u16.to_be_bytes());
        page[108..112].copy_from_slice(&last.to_be_bytes());
        page[112..114].copy_from_slice(&2000_u16.to_be_bytes());
        page[2000..2004].copy_from_slice(&child.to_be_bytes());
    }
    page
}

#[test]
fn a_pack_has_the_interior_pages_and_the_schema() {
    let mut garbage = table(&[3, 4], &[9]);
    garbage[8..12].copy_from_slice(&u32::MAX.to_be_bytes());
    let pages = [
        (1, first(&[7, 8])),
        (2, table(&[3, 4], &[9])),
        (3, leaf()),
        (5, garbage),
        (7, leaf()),
        (8, leaf()),
        (9, table(&[2, 10], &[9])),
    ];
    assert_eq!(kept(&pages, ROOM_FOR_ALL), Some(vec![1, 2, 7, 8, 9]));
    assert_eq!(kept(&[(1, first(&[])), (3, leaf())], ROOM_FOR_ALL), None, "nothing that saves a round trip");
    let mut encrypted = first(&[]);
    encrypted[0] = b'?';
    assert_eq!(kept(&[(1, encrypted), (2, table(&[3, 4], &[9]))], ROOM_FOR_ALL), None);
}

const ROOM_FOR_ALL: usize = 1 << 20;

#[test]
fn without_room_for_all_the_pages_above_leaves_go() {
    // Each group of ten has a page above nine that are above leaves, before them or after them.
    let mut pages = vec![(1, first(&[]))];
    let mut upper = vec![1];
    for group in 1..=40_u32 {
        let start = group * 100;
        let top = if group % 2 == 0 { start } else { start + 50 };
        upper.push(top);
        let mut own: Vec<(u32, Vec<u8>)> =
            (1..10).map(|n| (start + n, table(&[start + 60, start + 61], &[1]))).collect();
        own.push((top, table(&[start + 1, start + 2], &[1])));
        own.extend([(start + 60, leaf()), (start + 61, leaf())]);
        own.sort_by_key(|(n, _)| *n);
        pages.extend(own);
    }
    assert_eq!(kept(&pages, ROOM_FOR_ALL).unwrap().len(), 1 + 40 * 10);
    let room = 200 * (100 + ENTRY);
    let found = kept(&pages, room).unwrap();
    assert!(upper.iter().all(|page| found.contains(page)), "{found:?}");
    assert!(found.len() * (100 + ENTRY) <= room);
    assert_eq!(kept(&pages, 50 * (100 + ENTRY)), None, "not even those");
}

const PAGES: u32 = 3000;
const SIZE: usize = 4096;
const ROOT: u32 = 1500;

/// A database whose root has children far from each other, which are interior pages; and all its interior pages.
fn trees() -> (History, Vec<u32>) {
    let mut history = History::new(SIZE as u32, 5);
    history.commit(PAGES, &[]);
    history.begin_as_sqlite();
    let children: Vec<u32> = (0..60).map(|n| 100 + n * 45).collect();
    history.place(ROOT, &table(&children, &(1..60).collect::<Vec<u8>>()));
    for child in &children {
        history.place(*child, &table(&[child + 1, child + 2, child + 3], &[1, 2]));
    }
    let file = history.put(9, 1, 1);
    assert!(history.store.bytes_of(file).len() as u64 > WHOLE);
    let interior = [vec![ROOT], children].concat();
    (history, interior)
}

/// How many reads of the snapshot it takes to read `pages`, each of which must be as it was written.
fn reads(history: &History, pages: &[u32], options: &Options) -> usize {
    let count = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&count);
    let store = Hooked::store(&history.store, move |_, _| *counted.lock().unwrap() += 1);
    let store = store.read_with(sample_keyring(&[0], Plain::Any));
    let core = Core::with_store(Arc::new(store), options).unwrap();
    *count.lock().unwrap() = 0;
    let (mut view, image) = (View::new(core), history.image(history.last()));
    let mut page = vec![0; SIZE];
    for n in pages {
        let place = (*n as usize - 1) * SIZE;
        view.read(&mut page, place as u64).unwrap();
        assert!(page == image[place..place + SIZE], "page {n}");
    }
    *count.lock().unwrap()
}

fn still() -> Options {
    let poll_interval = std::time::Duration::from_secs(3600);
    Options { poll_interval, open_timeout: std::time::Duration::ZERO, ..Options::default() }
}

#[test]
fn pages_of_a_pack_need_no_request_and_others_one_each() {
    let (history, interior) = trees();
    assert!(reads(&history, &interior, &still()) > 10, "without a pack");
    history.put_pack(id(9, 1, 1), history.pack(9, 1, 1));
    assert_eq!(reads(&history, &interior, &still()), 0);
    let leaves: Vec<u32> = [5, 50, 20].iter().flat_map(|n| [interior[*n], interior[*n] + 2]).collect();
    assert_eq!(reads(&history, &[&[ROOT], &leaves[..]].concat(), &still()), 3);
    let off = Options { pack: false, ..still() };
    assert!(reads(&history, &interior, &off) > 10, "pack=off");
    // Whatever the cache holds, the pack is beside it.
    assert_eq!(reads(&history, &interior, &Options { cache_bytes: 0, ..still() }), 0);
}

#[test]
fn a_pack_that_does_not_fit_costs_time_only() {
    let (history, interior) = trees();
    let good = history.pack(9, 1, 1);
    // The same names, sizes and places of pages, and another content.
    let mut other = history.clone();
    let mut forged_page = table(&[7, 8, 9], &[1, 2]);
    forged_page[4000..].fill(0xee);
    other.place(interior[3], &forged_page);
    let of_other = other.pack(9, 1, 1);
    let mut random = History::new(512, 3);
    let mut flipped = good.to_vec();
    flipped[random.below(good.len() as u64) as usize] ^= 4;
    let larger = [&good[..], &vec![0; LARGEST]].concat();
    for (what, pack) in [
        ("of another file", of_other),
        ("a bit is another", flipped.into()),
        ("cut", good.slice(..good.len() / 2)),
        ("empty", Bytes::new()),
        ("too large", larger.into()),
    ] {
        history.put_pack(id(9, 1, 1), pack);
        assert!(reads(&history, &interior, &still()) > 10, "{what}");
    }
}

/// The pack says that it is of this very file, and has another content: this is what the checksum of the file is for.
#[test]
fn a_pack_of_a_file_of_the_same_size_is_told_by_the_checksum_of_the_file() {
    let (history, interior) = trees();
    let size = history.store.bytes_of(id(9, 1, 1)).len() as u64;
    let good = parse(&FileInfo { id: id(9, 1, 1), size, ..file() }, history.pack(9, 1, 1)).unwrap();
    let frames: Vec<_> = good.frames().collect();
    let stale = |checksum| encode(&Identity { id: id(9, 1, 1), size, checksum }, &frames, None, None).into();
    history.put_pack(id(9, 1, 1), stale(good.checksum()));
    assert_eq!(reads(&history, &interior, &still()), 0);
    history.put_pack(id(9, 1, 1), stale(good.checksum() ^ 1));
    assert!(reads(&history, &interior, &still()) > 10);
}

#[test]
fn a_page_that_was_written_since_is_not_taken_from_the_pack() {
    let (mut history, interior) = trees();
    history.put_pack(id(9, 1, 1), history.pack(9, 1, 1));
    history.commit(PAGES, &[interior[5]]);
    history.put(0, 2, 2);
    assert_eq!(reads(&history, &interior, &still()), 0);
}

#[test]
fn a_disk_cache_has_what_the_pack_had() {
    let (history, interior) = trees();
    let file = id(9, 1, 1);
    history.put_pack(file, history.pack(9, 1, 1));
    let folder = tempfile::tempdir().unwrap();
    let disk = DiskOptions { folder: folder.path().to_owned(), bytes: 64 << 20 };
    let options = Options { disk: Some(disk), ..still() };
    assert_eq!(reads(&history, &[ROOT], &options), 0);
    history.put_pack(file, Bytes::new());
    assert_eq!(reads(&history, &interior, &options), 0);
}
