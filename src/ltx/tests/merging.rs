//! Merging against a plain overlay of maps.

use proptest::prelude::*;

use super::*;
use crate::error::ErrorKind;
use crate::ltx::{Merger, merge};

/// What one file does to a database of 512-byte pages: its new size, and which pages it writes.
#[derive(Clone, Debug)]
struct Step {
    commit: u32,
    mask: u32,
    seed: u32,
    txids: u64,
    /// How many transactions of the file before it the file has too.
    overlap: u64,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (1..20_u32, any::<u32>(), any::<u32>(), 1..4_u64, 0..3_u64)
        .prop_map(|(commit, mask, seed, txids, overlap)| Step { commit, mask, seed, txids, overlap });
    prop::collection::vec(step, 1..6)
}

/// The files, and the pages that their overlay has.
fn play(steps: &[Step], first_txid: u64) -> (Vec<Vec<u8>>, Header, Pages) {
    let (mut files, mut overlay, mut before, mut next) = (Vec::new(), Pages::new(), 0, first_txid);
    for (i, step) in steps.iter().enumerate() {
        let min = next.saturating_sub(step.overlap).max(if i == 0 { next } else { 2.max(first_txid) });
        let max = next + step.txids - 1;
        let writes = |n: &u32| *n > before || min == 1 || step.mask >> n & 1 == 1;
        let pages: Pages =
            (1..=step.commit).filter(writes).map(|n| (n, sample_page(512, step.seed ^ n))).collect();
        files.push(encode(&header(512, step.commit, name(min, max)), &pages).unwrap().0);
        overlay.extend(pages);
        overlay.retain(|n, _| *n <= step.commit);
        (before, next) = (step.commit, max + 1);
    }
    (files, header(512, before, name(first_txid, next - 1)), overlay)
}

fn decoders(files: &[Vec<u8>]) -> Vec<Decoder<&[u8]>> {
    files.iter().map(|bytes| Decoder::new(&bytes[..]).unwrap()).collect()
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_newest_page_wins(steps in steps(), first_txid in 1..3_u64) {
        let (files, header, overlay) = play(&steps, first_txid);
        let (bytes, summary) = merge(decoders(&files), Encoder::new(Vec::new(), header).unwrap(), |_, _, _| ()).unwrap();
        prop_assert_eq!(decode(&bytes).unwrap(), (overlay, summary));
    }

    #[test]
    fn damage_beyond_the_last_page_is_seen_too(steps in steps(), which in any::<usize>(), back in 1..17_usize) {
        let (mut files, header, _) = play(&steps, 1);
        let damaged = which % files.len();
        let at = files[damaged].len() - back;
        files[damaged][at] ^= 0x40;
        let error = merge(decoders(&files), Encoder::new(Vec::new(), header).unwrap(), |_, _, _| ()).unwrap_err();
        prop_assert_eq!(error.kind(), ErrorKind::Corrupt);
        let name = Decoder::new(&files[damaged][..]).unwrap().header().name();
        prop_assert!(error.to_string().contains(&name.to_string()), "{error}");
    }
}

fn file(size: u32, min: u64, max: u64) -> Vec<u8> {
    let pages = Pages::from([(1, sample_page(size, 1))]);
    encode(&header(size, 1, name(min, max)), &pages).unwrap().0
}

#[test]
fn files_that_do_not_go_on_are_refused() {
    let refused = |files: &[Vec<u8>]| {
        Merger::new(decoders(files)).is_err_and(|error| error.kind() == ErrorKind::Corrupt)
    };
    assert!(refused(&[]));
    assert!(refused(&[file(512, 2, 3), file(512, 5, 6)]), "gap");
    assert!(refused(&[file(512, 4, 5), file(512, 2, 3)]), "out of order");
    assert!(refused(&[file(512, 2, 5), file(512, 3, 5)]), "adds nothing");
    assert!(refused(&[file(512, 2, 3), file(1024, 4, 4)]), "page size");
    assert!(!refused(&[file(512, 2, 3), file(512, 4, 4)]));
}

#[test]
fn a_header_that_does_not_fit_the_inputs_is_refused() {
    let files = [file(512, 2, 3), file(512, 4, 6)];
    let merged = |header| merge(decoders(&files), Encoder::new(Vec::new(), header)?, |_, _, _| ());
    assert!(merged(header(512, 1, name(2, 6))).is_ok());
    for wrong in [
        header(512, 1, name(2, 5)),
        header(512, 1, name(3, 6)),
        header(512, 2, name(2, 6)),
        header(1024, 1, name(2, 6)),
    ] {
        assert_eq!(merged(wrong).unwrap_err().kind(), ErrorKind::Corrupt);
    }
}

#[test]
fn a_merger_gives_pages_and_verifies() {
    let files = [file(512, 2, 3), file(512, 4, 6)];
    let mut merger = Merger::new(decoders(&files)).unwrap();
    assert_eq!(merger.next_page().unwrap(), Some((pgno(1), &sample_page(512, 1)[..])));
    assert_eq!(merger.next_page().unwrap(), None);
    assert_eq!(merger.next_page().unwrap(), None);
    merger.finish().unwrap();
}
