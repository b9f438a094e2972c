//! Frames that are cut off and decoded elsewhere give what the decoder gives, also of a damaged file.

use proptest::prelude::*;

use super::oracle::{self, Form, FrameStyle};
use super::properties::{files, styles};
use super::*;
use crate::ltx::HeaderFlags;

/// The pages that come of a file, in their order, and what is said of the whole or of what is wrong first.
type Found = (Vec<(Pgno, Vec<u8>)>, std::result::Result<Summary, String>);

/// One page after the other.
fn one_by_one(mut decoder: Decoder<&[u8]>) -> Found {
    let mut pages = Vec::new();
    let mut page = vec![0; decoder.header().page_size.bytes()];
    loop {
        match decoder.next_page(&mut page) {
            Ok(Some(pgno)) => pages.push((pgno, page.clone())),
            Ok(None) => return (pages, decoder.finish().map_err(|e| e.to_string())),
            Err(e) => return (pages, Err(e.to_string())),
        }
    }
}

/// About `most` bytes of frames at a time. All are cut off before the first is decoded.
fn in_frames(mut decoder: Decoder<&[u8]>, most: usize) -> Found {
    let mut page = vec![0; decoder.header().page_size.bytes()];
    let (mut pages, mut batches) = (Vec::new(), Vec::new());
    let cut = loop {
        match decoder.next_frames(most, vec![7; 100]) {
            Ok(Some(frames)) => batches.push(frames),
            Ok(None) => break Ok(()),
            Err(e) => break Err(e.to_string()),
        }
    };
    for frames in batches {
        let mut decoded = frames.pages();
        loop {
            match decoded.next_page(&mut page) {
                Ok(Some(pgno)) => pages.push((pgno, page.clone())),
                Ok(None) => break,
                Err(e) => return (pages, Err(e.to_string())),
            }
        }
        decoder.join(decoded.finish());
    }
    (pages, cut.and_then(|()| decoder.finish().map_err(|e| e.to_string())))
}

/// Fails unless both ways say the same of the file `bytes`.
fn agree(bytes: &[u8], most: usize) {
    agree_on(|| Decoder::new(bytes), most);
}

/// The same of what `open` opens.
pub(in crate::ltx) fn agree_on<'a>(open: impl Fn() -> Result<Decoder<&'a [u8]>>, most: usize) {
    let (Ok(one), Ok(other)) = (open(), open()) else { return };
    let ((pages, said), (of_frames, said_of_frames)) = (one_by_one(one), in_frames(other, most));
    assert_eq!(said, said_of_frames);
    assert!(pages == of_frames);
}

fn forms() -> impl Strategy<Value = Form> {
    prop_oneof![3 => Just(Form::Block), 1 => styles().prop_map(Form::Frame)]
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn they_give_the_same_pages_and_checksums(
        (header, pages) in files(),
        form in forms(),
        most in 1..100_000_usize,
        tracked: bool,
        wrong: bool,
    ) {
        let (header, post) = if tracked {
            let pre_apply_checksum = if header.is_snapshot() { 0 } else { 1 << 63 | 5 };
            let header = Header { flags: HeaderFlags::NONE, pre_apply_checksum, ..header };
            (header, oracle::database_checksum(&pages) ^ u64::from(wrong))
        } else {
            (header, 0)
        };
        agree(&oracle::encode(&header, &pages, form, post), most);
    }

    #[test]
    fn they_find_what_is_wrong_first(
        (header, pages) in files(),
        form in forms(),
        most in 1..10_000_usize,
        damage in prop::collection::vec((any::<prop::sample::Index>(), 0..8_u8), 0..3),
        cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
    ) {
        let mut bytes = oracle::encode(&header, &pages, form, 0);
        for (at, bit) in damage {
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        agree(&bytes, most);
    }
}

#[test]
fn they_find_a_flipped_bit_of_a_small_file_wherever_it_is() {
    let pages: Pages = (1..=4).map(|n| (n, sample_page(512, n))).collect();
    let style = FrameStyle {
        blocks: 1,
        stored: false,
        block_checksum: false,
        content_size: false,
        content_checksum: true,
    };
    for form in [Form::Block, Form::Frame(style)] {
        let bytes = oracle::encode(&header(512, 4, name(1, 6)), &pages, form, 0);
        for bit in (0..bytes.len() * 8).step_by(3) {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            agree(&flipped, 300);
        }
    }
}

#[test]
fn what_was_not_joined_fails_the_checksum() {
    let pages: Pages = (1..=9).map(|n| (n, sample_page(512, n))).collect();
    let (bytes, _) = encode(&header(512, 9, name(1, 6)), &pages).unwrap();
    let sums = |decoder: &mut Decoder<&[u8]>| {
        let mut sums = Vec::new();
        while let Some(frames) = decoder.next_frames(600, Vec::new()).unwrap() {
            let mut pages = frames.pages();
            while pages.next_page(&mut [0; 512]).unwrap().is_some() {}
            sums.push(pages.finish());
        }
        sums
    };
    for (order, is_right) in [([0, 1, 2], true), ([1, 0, 2], false), ([0, 1, 1], false)] {
        let mut decoder = Decoder::new(&bytes[..]).unwrap();
        let sums = sums(&mut decoder);
        order.iter().filter_map(|n| sums.get(*n)).chain(&sums[3..]).for_each(|sum| decoder.join(*sum));
        assert_eq!(decoder.finish().is_ok(), is_right, "{order:?} of {}", sums.len());
    }
}
