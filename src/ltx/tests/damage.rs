//! Damaged files are noticed, wherever the damage is.

use super::oracle::{self, Form, FrameStyle};
use super::*;
use crate::ltx::{PageIndex, Shape, TailRead};

const PLAIN_FRAME: FrameStyle = FrameStyle {
    blocks: 1,
    stored: false,
    block_checksum: false,
    content_size: false,
    content_checksum: true,
};

/// Small files of both forms, one of them a snapshot.
fn samples() -> Vec<Vec<u8>> {
    let some: Pages = [2, 3, 7].map(|n| (n, sample_page(512, n))).into();
    let all: Pages = (1..=4).map(|n| (n, sample_page(512, n))).collect();
    let (update, snapshot) = (header(512, 9, name(5, 6)), header(512, 4, name(1, 6)));
    vec![
        oracle::encode(&update, &some, Form::Block, 0),
        oracle::encode(&snapshot, &all, Form::Block, 0),
        oracle::encode(&update, &some, Form::Frame(PLAIN_FRAME), 0),
    ]
}

#[test]
fn a_file_cut_at_any_length_is_refused() {
    for bytes in samples() {
        decode(&bytes).unwrap();
        for len in 0..bytes.len() {
            assert!(decode(&bytes[..len]).is_err(), "{len} of {} bytes", bytes.len());
            let skipped = Decoder::new(&bytes[..len]).and_then(Decoder::finish);
            assert!(skipped.is_err(), "{len} of {} bytes, pages not read", bytes.len());
        }
        assert!(decode(&[&bytes[..], &[0]].concat()).is_err(), "a byte too many");
    }
}

/// A flipped bit within an LZ4 block may describe the very same page in another way (a match at
/// another offset with the same bytes): that is no damage. Everything else is noticed.
#[test]
fn a_flipped_bit_is_noticed_or_changes_nothing() {
    for bytes in samples() {
        let (pages, summary) = decode(&bytes).unwrap();
        let mut harmless = 0;
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            if let Ok((other_pages, other)) = decode(&flipped) {
                assert_eq!((&other_pages, &other), (&pages, &summary), "bit {bit}");
                harmless += 1;
            }
        }
        assert!(harmless * 50 < bytes.len() * 8, "{harmless} of {} bits", bytes.len() * 8);
    }
}

/// What random reads trust: index and size field. (The trailer is for those who read all.)
#[test]
fn a_flipped_bit_in_the_index_is_noticed() {
    for bytes in samples() {
        let size = bytes.len() as u64;
        let TailRead::Index(index) = PageIndex::from_tail(&bytes, size, Shape::PLAIN).unwrap() else {
            panic!("the whole file is enough");
        };
        let end = bytes.len() - 16;
        let start = end - 8 - index.encode().len();
        for bit in start * 8..end * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            if let Ok(TailRead::Index(other)) = PageIndex::from_tail(&flipped, size, Shape::PLAIN) {
                // Only which page it is cannot be seen from the index; the frame says it too.
                let places = |index: &PageIndex| index.iter().map(|e| (e.offset, e.size)).collect::<Vec<_>>();
                assert_eq!(places(&other), places(&index), "bit {bit}");
            }
        }
    }
}

#[test]
fn nothing_is_trusted_after_an_error() {
    let mut bytes = samples().remove(0);
    bytes[104] = 0xff;
    let mut decoder = Decoder::new(&bytes[..]).unwrap();
    let mut page = vec![0; 512];
    for _ in 0..2 {
        assert!(decoder.next_page(&mut page).is_err());
    }
    assert!(decoder.finish().is_err());
}
