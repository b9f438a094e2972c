//! What encoder and decoder refuse, and how errors of reader and writer come through.

use std::io::{self, Write};

use super::oracle::{self, Form};
use super::*;
use crate::error::{Error, ErrorKind};
use crate::ltx::{FrameCodec, HeaderFlags, IndexEntry, PageIndex, Shape};

fn encoder(header: Header) -> Encoder<Vec<u8>> {
    Encoder::new(Vec::new(), header).unwrap()
}

#[test]
fn the_encoder_refuses_headers_that_it_cannot_keep() {
    let new = |header| Encoder::new(Vec::new(), header).map(drop).unwrap_err().kind();
    let tracked = Header { flags: HeaderFlags::NONE, ..header(512, 1, name(1, 1)) };
    assert_eq!(new(tracked), ErrorKind::Unsupported);
    assert_eq!(new(header(512, 0, name(1, 1))), ErrorKind::Corrupt);
    assert_eq!(new(Header { wal_size: -1, ..header(512, 1, name(1, 1)) }), ErrorKind::Corrupt);
}

#[test]
fn the_encoder_refuses_pages_out_of_place() {
    let mut encoder = encoder(header(65536, 20_000, name(2, 2)));
    let page = sample_page(65536, 3);
    encoder.page(pgno(5), &page).unwrap();
    for bad in [1, 5, 16_385, 20_001] {
        assert_eq!(encoder.page(pgno(bad), &page).unwrap_err().kind(), ErrorKind::Corrupt, "{bad}");
    }
    assert!(encoder.page(pgno(6), &page[1..]).is_err());
    encoder.page(pgno(20_000), &page).unwrap();
    let (bytes, summary) = encoder.finish().unwrap();
    assert_eq!(summary.pages, 2);
    assert_eq!(decode(&bytes).unwrap().0.into_keys().collect::<Vec<_>>(), [5, 20_000]);
}

#[test]
fn a_snapshot_without_a_page_is_refused_on_both_sides() {
    let header = header(512, 3, name(1, 4));
    let mut pages: Pages = (1..=3).map(|n| (n, sample_page(512, n))).collect();
    assert!(encode(&header, &pages).is_ok());
    for missing in 1..=3 {
        let page = pages.remove(&missing).unwrap();
        assert_eq!(encode(&header, &pages).unwrap_err().kind(), ErrorKind::Corrupt);
        let bytes = oracle::encode(&header, &pages, Form::Block, 0);
        assert_eq!(decode(&bytes).unwrap_err().kind(), ErrorKind::Corrupt);
        pages.insert(missing, page);
    }
}

#[test]
fn the_decoder_refuses_pages_out_of_place() {
    let good = header(65536, 20_000, name(2, 2));
    for bad in [16_385, 20_001] {
        let pages = Pages::from([(3, sample_page(65536, 0)), (bad, sample_page(65536, 0))]);
        let bytes = oracle::encode(&good, &pages, Form::Block, 0);
        assert_eq!(decode(&bytes).unwrap_err().kind(), ErrorKind::Corrupt, "{bad}");
    }
}

#[test]
fn an_index_that_disagrees_with_the_pages_is_refused() {
    let header = header(512, 9, name(2, 2));
    let pages: Pages = [2, 3].map(|n| (n, sample_page(512, n))).into();
    let good = oracle::encode(&header, &pages, Form::Block, 0);
    let size = u64::from_be_bytes(good[good.len() - 24..][..8].try_into().unwrap()) as usize;
    let varints = good.len() - 24 - size;
    let mut other = good.clone();
    assert_eq!(other[varints], 2, "the first entry's page number");
    other[varints] = 1;
    let error = decode(&other).unwrap_err();
    assert!(error.to_string().contains("page index"), "{error}");
}

#[test]
fn a_buffer_of_another_size_is_refused() {
    let bytes =
        encode(&header(512, 2, name(1, 1)), &(1..=2).map(|n| (n, sample_page(512, n))).collect()).unwrap().0;
    let mut decoder = Decoder::new(&bytes[..]).unwrap();
    assert!(decoder.next_page(&mut [0; 1024]).is_err());
    assert_eq!(decoder.next_page(&mut [0; 512]).unwrap(), Some(pgno(1)), "nothing was read");
    let codec = FrameCodec::plain(page_size(512));
    assert!(codec.decode(&bytes[100..], &mut [0; 1024]).is_err());
    assert!(codec.decode(&bytes[100..], &mut [0; 512]).is_err(), "more than a frame");
    assert!(codec.decode(&[0; 6], &mut [0; 512]).is_err(), "the end of the page block");
}

#[test]
fn a_size_that_no_page_needs_is_refused_before_it_is_read() {
    let codec = FrameCodec::plain(page_size(512));
    for size in [700_u32, u32::MAX] {
        let frame = [&[0, 0, 0, 1, 0, 1][..], &size.to_be_bytes()].concat();
        let error = codec.decode(&frame, &mut [0; 512]).unwrap_err();
        assert!(error.to_string().contains("more than a page can need"), "{error}");
    }
    let unknown = codec.decode(&[0, 0, 0, 1, 0, 2], &mut [0; 512]).unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::Unsupported);
}

#[test]
fn index_entries_that_break_a_rule_are_refused() {
    let entry = |n, offset, size| IndexEntry { pgno: pgno(n), offset, size };
    assert!(PageIndex::from_entries(Shape::PLAIN, [entry(1, 100, 50), entry(3, 150, 11)]).is_ok());
    for bad in [
        [entry(1, 101, 50), entry(3, 151, 11)],
        [entry(1, 100, 50), entry(3, 151, 11)],
        [entry(1, 100, 50), entry(1, 150, 11)],
        [entry(1, 100, 50), entry(2, 150, 10)],
        [entry(1, 100, 50), entry(2, 150, 70_000)],
    ] {
        let error = PageIndex::from_entries(Shape::PLAIN, bad).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{bad:?}");
    }
    assert!(PageIndex::decode(&[0], Shape::PLAIN).unwrap().is_empty());
    assert!(PageIndex::decode(&[], Shape::PLAIN).is_err());
    assert!(PageIndex::decode(&[0, 0], Shape::PLAIN).is_err());
}

/// Writes as much as it has room for.
struct Full(usize);

impl Write for Full {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0 = self
            .0
            .checked_sub(buf.len())
            .ok_or_else(|| io::Error::other(Error::new(ErrorKind::Unavailable, "the store is full")))?;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_writer_that_failed_is_not_written_to_again() {
    let page = sample_page(512, 3);
    let mut encoder = Encoder::new(Full(150), header(512, 9, name(2, 2))).unwrap();
    assert_eq!(encoder.page(pgno(1), &page).unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(encoder.page(pgno(2), &sample_page(512, 4)).unwrap_err().kind(), ErrorKind::Io);
    assert!(encoder.finish().is_err());
}
