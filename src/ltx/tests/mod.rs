//! Tests of the codec as a whole: files of real Litestream, properties against a naive oracle, damage.

mod damage;
pub(super) mod frames;
mod golden;
mod merging;
pub(super) mod oracle;
mod properties;
mod rules;

use std::collections::BTreeMap;

use proptest::prelude::ProptestConfig;

use super::{Decoder, Encoder, FileName, Header, Summary, Txid};
use crate::clock::Timestamp;
use crate::error::Result;
use crate::page::{PageCount, PageSize, Pgno};

/// Failing inputs are printed, and kept as tests by hand.
fn config() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
}

/// Pages by number.
type Pages = BTreeMap<u32, Vec<u8>>;

fn page_size(bytes: u32) -> PageSize {
    PageSize::new(bytes).unwrap()
}

fn pgno(n: u32) -> Pgno {
    Pgno::new(n).unwrap()
}

fn name(min: u64, max: u64) -> FileName {
    FileName::new(Txid::new(min).unwrap(), Txid::new(max).unwrap()).unwrap()
}

fn header(size: u32, commit: u32, name: FileName) -> Header {
    Header::new(page_size(size), PageCount::new(commit), name, Timestamp::from_millis(1_700_000_000_123))
}

fn encode(header: &Header, pages: &Pages) -> Result<(Vec<u8>, Summary)> {
    encode_with(Encoder::new(Vec::new(), *header)?, pages)
}

fn encode_with(mut encoder: Encoder<Vec<u8>>, pages: &Pages) -> Result<(Vec<u8>, Summary)> {
    for (n, page) in pages {
        encoder.page(pgno(*n), page)?;
    }
    encoder.finish()
}

/// Everything that a file says, if it verifies.
fn decode(bytes: &[u8]) -> Result<(Pages, Summary)> {
    let mut decoder = Decoder::new(bytes)?;
    let mut page = vec![0; decoder.header().page_size.bytes()];
    let mut pages = Pages::new();
    while let Some(pgno) = decoder.next_page(&mut page)? {
        pages.insert(pgno.get(), page.clone());
    }
    Ok((pages, decoder.finish()?))
}

/// A page whose content depends on `seed`: empty, regular, text or noise.
fn sample_page(size: u32, seed: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
    let mut noise = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    };
    (0..size)
        .map(|i| match seed % 4 {
            0 => 0,
            1 => (i % (seed % 50 + 2)) as u8,
            2 if i % 16 < 12 => b'a',
            _ => noise(),
        })
        .collect()
}
