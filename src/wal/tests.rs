//! The WAL reader against a naive oracle, and against bytes that a hostile disk may hold.

pub(crate) mod fixtures;

use std::collections::BTreeMap;
use std::io::Write;

use proptest::prelude::*;

use self::fixtures::Writer;
use super::*;
use crate::page::{PageCount, PageSize, Pgno};

const PAGE: usize = 512;

fn writer(order: ByteOrder, salts: Salts) -> Writer {
    Writer::new(order, PageSize::MIN, salts)
}

fn frame(writer: &mut Writer, pgno: u32, commit: u32, fill: u8) {
    writer.frame(pgno, commit, &[fill; PAGE]);
}

fn file(bytes: &[u8]) -> std::fs::File {
    let mut f = tempfile::tempfile().unwrap();
    f.write_all(bytes).unwrap();
    f
}

fn start(bytes: &[u8]) -> Position {
    Position::start_of(&WalHeader::decode(bytes[..32].try_into().unwrap()).unwrap())
}

#[derive(Clone, Debug)]
struct Frame {
    pgno: u32,
    commit: u32,
    fill: u8,
}

fn frames() -> impl Strategy<Value = Vec<Frame>> {
    let frame = (1u32..20, prop_oneof![Just(0), 1u32..25], any::<u8>());
    prop::collection::vec(frame.prop_map(|(pgno, commit, fill)| Frame { pgno, commit, fill }), 0..60)
}

/// What a reader must find: applied frame by frame, the naive way.
fn oracle(frames: &[Frame], after: usize) -> Option<(u32, u32, BTreeMap<u32, u32>)> {
    let last = (after..frames.len()).rev().find(|&i| frames[i].commit != 0)?;
    let commit = frames[last].commit;
    let mut pages = BTreeMap::new();
    for (i, frame) in frames.iter().enumerate().take(last + 1).skip(after) {
        pages.insert(frame.pgno, i as u32 + 1);
    }
    pages.retain(|pgno, _| *pgno <= commit);
    Some((last as u32 + 1, commit, pages))
}

proptest! {
    #[test]
    fn the_scan_finds_what_the_oracle_finds(frames in frames(), big in any::<bool>(), cut in 0usize..60) {
        let order = if big { ByteOrder::Big } else { ByteOrder::Little };
        let mut writer = writer(order, Salts(5, 99));
        let mut positions = vec![start(&writer.bytes)];
        for f in &frames {
            frame(&mut writer, f.pgno, f.commit, f.fill);
            positions.push(writer.position());
        }
        let after = cut.min(frames.len());
        let found = scan(&file(&writer.bytes), positions[after], End::LastCommit).unwrap();
        match (oracle(&frames, after), found) {
            (None, Scan::Nothing) => {}
            (Some((last, commit, pages)), Scan::Committed(c)) => {
                prop_assert_eq!(c.to, positions[last as usize]);
                prop_assert_eq!(c.commit.get(), commit);
                let got: BTreeMap<u32, u32> = c.pages.iter().map(|(p, f)| (p.get(), f.0)).collect();
                prop_assert_eq!(got, pages);
            }
            (want, got) => prop_assert!(false, "want {want:?}, got {got:?}"),
        }
    }

    #[test]
    fn a_changed_byte_is_never_taken_for_committed(frames in frames(), at in any::<prop::sample::Index>(), xor in 1u8..) {
        let mut writer = writer(ByteOrder::NATIVE, Salts(5, 99));
        for f in &frames {
            frame(&mut writer, f.pgno, f.commit, f.fill);
        }
        frame(&mut writer, 1, 3, 0);
        let from = start(&writer.bytes);
        let mut bytes = writer.bytes.clone();
        let at = at.index(bytes.len());
        bytes[at] ^= xor;
        match scan(&file(&bytes), from, End::Index(writer.index(1))) {
            Err(_) | Ok(Scan::OtherGeneration) => {}
            Ok(other) => {
                // The checkpoint sequence number is the only field that no reader uses, and it is
                // under the header's checksum.
                prop_assert!(false, "byte {at} changed, and the scan returned {other:?}");
            }
        }
    }

    #[test]
    fn arbitrary_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..4096)) {
        let position = Position { salts: Salts(1, 2), frame: FrameNo(0), checksum: Checksum(3, 4) };
        let _ = scan(&file(&bytes), position, End::LastCommit);
    }
}

#[test]
fn frames_beyond_the_index_are_not_committed() {
    let mut writer = writer(ByteOrder::NATIVE, Salts(1, 2));
    frame(&mut writer, 1, 2, 1);
    let index = writer.index(1);
    frame(&mut writer, 2, 2, 2);
    let Scan::Committed(c) = scan(&file(&writer.bytes), start(&writer.bytes), End::Index(index)).unwrap()
    else {
        panic!("one commit")
    };
    assert_eq!(c.pages.keys().copied().collect::<Vec<_>>(), [Pgno::ONE]);
    assert!(matches!(scan(&file(&writer.bytes), c.to, End::Index(index)).unwrap(), Scan::Nothing));
}

/// SQLite 3.40: `ROLLBACK TO` after a spill, then a commit.
#[test]
fn unsealed_frames_are_taken_on_the_word_of_the_index() {
    let mut writer = writer(ByteOrder::NATIVE, Salts(1, 2));
    frame(&mut writer, 1, 2, 1);
    let before = Position { salts: writer.salts, frame: FrameNo(1), checksum: writer.chain };
    let start_of_unsealed = writer.bytes.len();
    frame(&mut writer, 2, 0, 2);
    let second = writer.bytes.len();
    frame(&mut writer, 1, 2, 3);
    for at in [start_of_unsealed, second] {
        writer.bytes[at + 8..at + 24].fill(0);
    }
    // The chain goes on from a value that stands in no frame.
    writer.chain = Checksum(0xdead, 0xbeef);
    let first_commit = writer.index(2);
    let found = scan(&file(&writer.bytes), before, End::Index(first_commit)).unwrap();
    let Scan::Committed(c) = found else { panic!("{found:?}") };
    assert_eq!((c.to.frame, c.to.checksum), (FrameNo(3), writer.chain));
    assert_eq!(c.pages.len(), 2);

    frame(&mut writer, 2, 2, 4);
    for from in [c.to, before] {
        let found = scan(&file(&writer.bytes), from, End::Index(writer.index(2))).unwrap();
        assert!(
            matches!(found, Scan::Committed(c) if c.to.checksum == writer.chain && c.to.frame == FrameNo(4))
        );
    }
    // Recovery would not take them, and without the index neither do we.
    assert!(matches!(scan(&file(&writer.bytes), before, End::LastCommit).unwrap(), Scan::Nothing));
}

#[test]
fn a_restarted_wal_is_another_generation() {
    let old = {
        let mut writer = writer(ByteOrder::NATIVE, Salts(1, 2));
        frame(&mut writer, 1, 1, 1);
        writer.position()
    };
    let mut writer = writer(ByteOrder::NATIVE, Salts(2, 77));
    frame(&mut writer, 1, 1, 2);
    let found = scan(&file(&writer.bytes), old, End::Index(writer.index(1))).unwrap();
    assert!(matches!(found, Scan::OtherGeneration));
}

#[test]
fn a_short_file_under_a_valid_index_is_corrupt() {
    let mut writer = writer(ByteOrder::NATIVE, Salts(1, 2));
    frame(&mut writer, 1, 1, 1);
    frame(&mut writer, 1, 1, 2);
    let cut = &writer.bytes[..writer.bytes.len() - 1];
    assert!(scan(&file(cut), start(&writer.bytes), End::Index(writer.index(1))).is_err());
}

#[test]
fn an_index_header_is_read_and_verified() {
    let mut bytes = [0u8; IndexHeader::SIZE];
    bytes[0..4].copy_from_slice(&3_007_000u32.to_ne_bytes());
    bytes[8..12].copy_from_slice(&9u32.to_ne_bytes());
    bytes[12] = 1;
    bytes[14..16].copy_from_slice(&1u16.to_ne_bytes());
    bytes[16..20].copy_from_slice(&3u32.to_ne_bytes());
    bytes[20..24].copy_from_slice(&10u32.to_ne_bytes());
    bytes[32..36].copy_from_slice(&5u32.to_be_bytes());
    bytes[36..40].copy_from_slice(&6u32.to_be_bytes());
    let sum = Checksum::default().update(ByteOrder::NATIVE, &bytes[..40]);
    bytes[40..44].copy_from_slice(&sum.0.to_ne_bytes());
    bytes[44..48].copy_from_slice(&sum.1.to_ne_bytes());
    let header = IndexHeader::decode(&bytes).unwrap();
    assert_eq!((header.mx_frame, header.page_count), (FrameNo(3), PageCount::new(10)));
    assert_eq!((header.page_size.unwrap().get(), header.salts), (65536, Salts(5, 6)));
    bytes[20] ^= 1;
    assert_eq!(IndexHeader::decode(&bytes), None);
}
