//! Encoder and decoder against each other and the oracle.

use proptest::prelude::*;

use super::oracle::{self, Form, FrameStyle};
use super::*;
use crate::ltx::{FrameCodec, HeaderFlags, IndexEntry, PageIndex, Shape, TailRead};

fn sizes() -> impl Strategy<Value = u32> {
    prop_oneof![4 => Just(512_u32), 2 => Just(1024), 2 => Just(4096), 1 => Just(65536)]
}

/// A file's header and pages: a snapshot of all pages, or some pages of a larger database.
pub(super) fn files() -> impl Strategy<Value = (Header, Pages)> {
    let fields = (any::<i64>(), any::<u64>(), 1..1000_u64, 0..5_u64);
    (sizes(), 1..24_u32, any::<u32>(), any::<u32>(), fields).prop_map(
        |(size, commit, seed, mask, (ms, node_id, min, more))| {
            let snapshot = mask % 3 == 0;
            let min = if snapshot { 1 } else { min + 1 };
            let chosen = (1..=commit).filter(|n| snapshot || mask >> (n % 32) & 1 == 1);
            let pages = chosen.map(|n| (n, sample_page(size, seed.wrapping_add(n * 7)))).collect();
            let timestamp = Timestamp::from_millis(ms);
            (Header { timestamp, node_id, ..header(size, commit, name(min, min + more)) }, pages)
        },
    )
}

pub(super) fn styles() -> impl Strategy<Value = FrameStyle> {
    (1..4_usize, any::<[bool; 4]>()).prop_map(
        |(blocks, [stored, block_checksum, content_size, content_checksum])| FrameStyle {
            blocks,
            stored,
            block_checksum,
            content_size,
            content_checksum,
        },
    )
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn what_is_written_is_read((header, pages) in files()) {
        let (bytes, written) = encode(&header, &pages).unwrap();
        prop_assert_eq!(&written.header, &header);
        prop_assert_eq!((written.size, written.pages), (bytes.len() as u64, pages.len() as u64));
        prop_assert_eq!(decode(&bytes).unwrap(), (pages, written));
    }

    #[test]
    fn what_is_stored_is_read_as_well((header, pages) in files()) {
        let (bytes, written) = encode_with(Encoder::new(Vec::new(), header).unwrap().stored(), &pages).unwrap();
        prop_assert_eq!(decode(&bytes).unwrap(), (pages, written));
    }

    #[test]
    fn the_encoder_writes_what_the_oracle_writes((header, pages) in files()) {
        let (bytes, _) = encode(&header, &pages).unwrap();
        prop_assert_eq!(bytes, oracle::encode(&header, &pages, Form::Block, 0));
    }

    #[test]
    fn lz4_frames_are_read((header, pages) in files(), style in styles()) {
        let bytes = oracle::encode(&header, &pages, Form::Frame(style), 0);
        prop_assert_eq!(decode(&bytes).unwrap().0, pages);
    }

    #[test]
    fn database_checksums_are_verified((header, pages) in files(), wrong in any::<bool>()) {
        let pre_apply_checksum = if header.is_snapshot() { 0 } else { 1 << 63 | 5 };
        let header = Header { flags: HeaderFlags::NONE, pre_apply_checksum, ..header };
        let post = oracle::database_checksum(&pages) ^ u64::from(wrong);
        let bytes = oracle::encode(&header, &pages, Form::Block, post);
        let expected_to_verify = !(wrong && header.is_snapshot());
        prop_assert_eq!(decode(&bytes).is_ok(), expected_to_verify);
    }

    #[test]
    fn an_index_survives(steps in prop::collection::vec((1..100_000_u32, 11..65_900_u64), 0..50)) {
        let mut entries = Vec::new();
        let (mut page, mut offset) = (0, 100);
        for (step, size) in steps {
            page += step;
            entries.push(IndexEntry { pgno: pgno(page), offset, size });
            offset += size;
        }
        let index = PageIndex::from_entries(Shape::PLAIN, entries.iter().copied()).unwrap();
        prop_assert_eq!(index.len(), entries.len());
        prop_assert!(index.iter().eq(entries));
        prop_assert_eq!(PageIndex::decode(&index.encode(), Shape::PLAIN).unwrap(), index);
    }

    #[test]
    fn every_tail_gives_the_index_or_asks_for_enough((header, pages) in files()) {
        let (bytes, written) = encode(&header, &pages).unwrap();
        let all = PageIndex::from_tail(&bytes, written.size, Shape::PLAIN).unwrap();
        prop_assert!(matches!(&all, TailRead::Index(index) if index.len() == pages.len()));
        for len in (0..bytes.len()).step_by(1 + bytes.len() / 500) {
            let tail = |len: usize| &bytes[bytes.len() - len..];
            match PageIndex::from_tail(tail(len), written.size, Shape::PLAIN).unwrap() {
                TailRead::NeedMore(n) => {
                    prop_assert!(n > len as u64 && n <= written.size);
                    match PageIndex::from_tail(tail(n as usize), written.size, Shape::PLAIN).unwrap() {
                        TailRead::NeedMore(more) => prop_assert!(more > n && more <= written.size),
                        index => prop_assert_eq!(&index, &all),
                    }
                }
                index => prop_assert_eq!(&index, &all),
            }
        }
    }

    #[test]
    fn arbitrary_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..300), cut in 0..300_u64) {
        prop_assert!(decode(&bytes).is_err());
        for shape in [Shape::PLAIN, Shape::new(1), Shape::new(u16::MAX)] {
            let _ = PageIndex::decode(&bytes, shape);
            let _ = PageIndex::from_tail(&bytes, bytes.len() as u64 + cut, shape);
        }
        let mut page = vec![0; 512];
        let _ = FrameCodec::plain(page_size(512)).decode(&bytes, &mut page);
        let after_a_good_header = [&header(512, 9, name(2, 3)).encode()[..], &bytes].concat();
        prop_assert!(decode(&after_a_good_header).is_err());
    }
}
