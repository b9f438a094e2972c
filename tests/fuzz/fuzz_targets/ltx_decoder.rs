//! Any bytes: decoding them does not panic, and what verifies can be written and read again.
#![no_main]

mod heap;

use libfuzzer_sys::fuzz_target;
use litestream_vfs::error::Result;
use litestream_vfs::ltx::{Decoder, Encoder, FrameCodec, Summary};
use litestream_vfs::page::{PageSize, Pgno};

type Pages = Vec<(Pgno, Vec<u8>)>;

fuzz_target!(init: heap::limit_until_panic(), |bytes: &[u8]| {
    if let Ok((pages, summary)) = decode(bytes) {
        assert_eq!((pages.len() as u64, bytes.len() as u64), (summary.pages, summary.size));
        rewrite(&pages, &summary);
    }
    let mut page = [0; 512];
    let _ = FrameCodec::plain(PageSize::MIN).decode(bytes, &mut page);
});

fn decode(bytes: &[u8]) -> Result<(Pages, Summary)> {
    let mut decoder = Decoder::new(bytes)?;
    let mut page = vec![0; decoder.header().page_size.bytes()];
    let mut pages = Pages::new();
    while let Some(pgno) = decoder.next_page(&mut page)? {
        pages.push((pgno, page.clone()));
    }
    Ok((pages, decoder.finish()?))
}

fn rewrite(pages: &Pages, summary: &Summary) {
    let Ok(mut encoder) = Encoder::new(Vec::new(), summary.header.clone()) else {
        return; // With database checksums, or without pages: read, not written.
    };
    for (pgno, page) in pages {
        encoder.page(*pgno, page).expect("a page that was read is written");
    }
    let (bytes, written) = encoder.finish().expect("a file that was read is written");
    let (again, read) = decode(&bytes).expect("a file that was written is read");
    assert!(&again == pages && read == written);
}
