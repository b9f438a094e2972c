use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::*;
use crate::error::ErrorKind;
use crate::ltx::sealing::{sample_keyring, sample_recipients};
use crate::ltx::{FileId, Outline, OutlineRead, Plain, varint};
use crate::replica::tests::fixtures::{History, Hooked, id};
use crate::replica::{Core, Options, View};
use crate::runtime;
use crate::store::ByteRange;

/// A reader that reads page indexes in blocks, and does nothing by itself.
fn in_blocks() -> Options {
    let hour = Duration::from_secs(3600);
    Options { poll_interval: hour, open_timeout: Duration::ZERO, in_blocks_from: 0, ..Options::default() }
}

const SIZE: u64 = 512;

/// A database of three blocks as one snapshot, with its pack.
fn three_blocks() -> (History, FileId) {
    let mut history = History::new(SIZE as u32, 3);
    history.commit(2 * PackedIndex::BLOCK as u32 + 1000, &[]);
    history.put_in_blocks(9, 1, 1);
    (history, id(9, 1, 1))
}

fn assert_shows(view: &mut View, history: &History, txid: u64, pages: impl IntoIterator<Item = u64>) {
    let image = history.image(txid);
    view.unpin();
    view.pin();
    assert_eq!(view.snapshot().txid.get(), txid);
    let mut page = vec![0; SIZE as usize];
    for n in pages {
        view.read(&mut page, n * SIZE).unwrap();
        assert!(page == image[(n * SIZE) as usize..][..SIZE as usize], "page {} at {txid}", n + 1);
    }
}

/// The index of the snapshot of [`three_blocks`], as it is when its blocks are more than come with the front of the pack.
fn far_blocks(history: &History, file: FileId) -> (Source, Blocks) {
    let source = Source::new(history.store());
    let listed = runtime::block_on({
        let store = history.store();
        async move { store.list(file.level, file.name.min()).await }
    });
    let info = listed.unwrap().into_iter().find(|info| info.id == file).unwrap();
    let pack =
        history.pack_with_blocks_from(0, file.level.get(), file.name.min().get(), file.name.max().get());
    let codec = FrameCodec::plain(history.page_size);
    let pack = FilePack::with_front_of(&info, pack, &codec);
    (source, Blocks::new(&info, codec, pack).unwrap())
}

fn pgno(n: usize) -> Pgno {
    Pgno::new(n as u32).unwrap()
}

/// Brings the block of each of `pages`, and compares what it says with the file's own index.
fn assert_finds(source: Source, blocks: Blocks, pages: &'static [usize]) -> (Source, Blocks) {
    runtime::block_on(async move {
        let (_, own) = read_tail(&source, &blocks.file, blocks.codec.shape()).await?;
        for page in pages.iter().map(|n| pgno(*n)) {
            if let Spot::Away(number) = blocks.find(page) {
                blocks.bring(&source, number).await?;
            }
            let found = own.iter().find(|entry| entry.pgno == page).map_or(Spot::Nowhere, Spot::At);
            assert_eq!(blocks.find(page), found, "{page}");
        }
        Ok((source, blocks))
    })
    .unwrap()
}

const BLOCK: usize = PackedIndex::BLOCK;

#[test]
fn each_block_comes_once_and_only_when_it_is_wanted() {
    let (history, file) = three_blocks();
    let (source, blocks) = far_blocks(&history, file);
    assert_eq!(blocks.find(pgno(BLOCK)), Spot::Away(0));
    assert_eq!(blocks.find(pgno(BLOCK + 1)), Spot::Away(1));
    assert_eq!(blocks.find(pgno(2 * BLOCK + 1001)), Spot::Nowhere, "it is beyond the end");
    let before = source.requests();
    let (source, blocks) = assert_finds(source, blocks, &[5, 6, BLOCK, 64, 65, 128]);
    assert_eq!(source.requests(), before + 1 + OWN);
    assert_eq!(blocks.find(pgno(2 * BLOCK + 7)), Spot::Away(2));
    let before = source.requests();
    let (source, _) = assert_finds(source, blocks, &[2 * BLOCK + 1, 2 * BLOCK + 1000, BLOCK + 1]);
    assert_eq!(source.requests(), before + 2 + OWN);
}

/// Requests with which [`assert_finds`] reads the file's own index.
const OWN: u64 = 2;

#[test]
fn of_blocks_that_are_used_in_turn_the_latest_stay() {
    let (history, file) = three_blocks();
    let (source, blocks) = far_blocks(&history, file);
    blocks.held().resize(NonZeroUsize::new(2).unwrap());
    let (_, blocks) = assert_finds(source, blocks, &[1, BLOCK + 1, 2, 2 * BLOCK + 1]);
    assert!(matches!(blocks.find(pgno(3)), Spot::At(_)));
    assert_eq!(blocks.find(pgno(BLOCK + 2)), Spot::Away(1));
}

#[test]
fn without_its_pack_the_files_own_page_index_is_read() {
    let (history, file) = three_blocks();
    let mut damaged = history.pack_with_blocks_from(0, 9, 1, 1).to_vec();
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    let cut = damaged[..last - 40_000].to_vec();
    for pack in [None, Some(damaged), Some(cut)] {
        let (source, blocks) = far_blocks(&history, file);
        match pack {
            Some(bytes) => history.put_pack(file, bytes.into()),
            None => history.delete_pack(file),
        }
        let (source, blocks) = assert_finds(source, blocks, &[2 * BLOCK + 3]);
        let before = source.requests();
        let (source, _) = assert_finds(source, blocks, &[1, BLOCK + 3, 2 * BLOCK + 1000]);
        assert_eq!(source.requests(), before + OWN, "neither is asked for again");
    }
}

/// The last page is said to be the one after it: it would read as zeros.
#[test]
fn the_own_page_index_of_a_sealed_file_is_proven_too() {
    let mut history = History::new(SIZE as u32, 3);
    history.recipients = sample_recipients(&[0]);
    history.commit(2 * BLOCK as u32 + 1000, &[]);
    let (file, pack) = (id(9, 1, 1), history.put_packed(9, 1, 1));
    let (whole, keyring) = (history.store.bytes_of(file), sample_keyring(&[0], Plain::None));
    let read = Outline::read(&whole, &whole, whole.len() as u64, &keyring).unwrap();
    let OutlineRead::Outline(outline) = read else { panic!("all of it is not enough") };
    let mut last = Vec::new();
    varint::put(&mut last, u64::from(outline.index.last().unwrap().get()));
    history.store.tamper(file, |bytes| {
        let at = bytes.windows(last.len()).rposition(|bytes| bytes == last).unwrap();
        bytes[at] += 1;
    });
    let store = Arc::new(history.store().read_with(keyring));
    let found = runtime::block_on(async move {
        let listed = store.list(file.level, file.name.min()).await?;
        let info = listed.into_iter().find(|info| info.id == file).unwrap();
        let pack = FilePack::with_front_of(&info, pack, &outline.codec);
        let blocks = Blocks::new(&info, outline.codec, pack).unwrap();
        // There is no pack.
        Ok(blocks.bring(&Source::new(store), 2).await)
    });
    assert_eq!(found.unwrap().unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn an_open_reads_no_page_index() {
    let (mut history, _) = three_blocks();
    let read = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&read);
    let store = Hooked::store(&history.store, move |_, range| *counted.lock().unwrap() += asked(range));
    let core = Core::with_store(store, &in_blocks()).unwrap();
    assert!(*read.lock().unwrap() < 10_000);
    let mut view = View::new(core.clone());
    assert_shows(&mut view, &history, 1, [1, BLOCK as u64, 2 * BLOCK as u64 + 999]);
    // What later files have needs no block, and what they leave alone is where it was.
    let last = history.commit(2 * BLOCK as u32 + 1200, &[2, BLOCK as u32 + 3]);
    history.put(0, last, last);
    core.poll_now().unwrap();
    let block = BLOCK as u64;
    assert_shows(&mut view, &history, last, [1, block + 2, block + 3, 2 * block + 1100, 5]);
}

#[test]
fn the_index_of_a_sealed_snapshot_is_read_from_its_sealed_pack_and_no_other() {
    let opened = |pack: fn(&History) -> bytes::Bytes| {
        let mut history = History::new(SIZE as u32, 3);
        history.recipients = sample_recipients(&[0]);
        history.commit(2 * BLOCK as u32 + 1000, &[]);
        let pack = pack(&history);
        history.put_pack(id(9, 1, 1), pack);
        let read = Arc::new(Mutex::new(0));
        let counted = Arc::clone(&read);
        let store = Hooked::store(&history.store, move |_, range| *counted.lock().unwrap() += asked(range));
        let sealed = store.read_with(sample_keyring(&[0], Plain::None));
        let core = Core::with_store(Arc::new(sealed), &in_blocks()).unwrap();
        let opened = *read.lock().unwrap();
        assert_shows(&mut View::new(core), &history, 1, [1, BLOCK as u64, 2 * BLOCK as u64 + 999]);
        opened
    };
    let its_own = opened(|history| history.put_packed(9, 1, 1));
    let of_the_same_pages_sealed_before = opened(|history| {
        let pack = history.put_packed(9, 1, 1);
        history.put_packed(9, 1, 1);
        pack
    });
    assert!(its_own < 10_000, "{its_own}");
    assert!(of_the_same_pages_sealed_before > 100_000, "{of_the_same_pages_sealed_before}");
}

/// The most bytes that a request for `range` of a file brings.
fn asked(range: ByteRange) -> u64 {
    match range {
        ByteRange::Bounded { len, .. } | ByteRange::Suffix { len } | ByteRange::Prefix { len } => len,
        ByteRange::All => u64::MAX / 2,
    }
}

#[test]
fn a_pack_that_is_not_there_is_asked_for_once() {
    let (history, file) = three_blocks();
    history.delete_pack(file);
    let requests = |in_blocks_from| {
        let options = Options { in_blocks_from, ..in_blocks() };
        Core::with_store(history.store(), &options).unwrap().status().requests
    };
    // Header and end of the file come twice, at the same time as the answer that there is no pack.
    assert_eq!(requests(0), requests(u64::MAX) + 2);
}

#[test]
fn pages_that_were_cut_off_do_not_come_back() {
    let (mut history, _) = three_blocks();
    let core = Core::with_store(history.store(), &in_blocks()).unwrap();
    let block = PackedIndex::BLOCK as u32;
    for (size, pages) in [(block + 10, vec![2]), (2 * block, vec![2, 2 * block])] {
        let txid = history.commit(size, &pages);
        // All that is new was written: what was cut off would show.
        history.put(0, txid, txid);
    }
    core.poll_now().unwrap();
    let mut view = View::new(core);
    let pages = [1, u64::from(block) + 9, u64::from(block) + 10, 2 * u64::from(block) - 1];
    assert_shows(&mut view, &history, 3, pages);
    // A page that came into being and that nobody wrote is zeros, whatever was there before.
    let sparse = history.last() + 1;
    history.put_sparse(sparse, 2 * block + 500, 1, &history.image(3)[..SIZE as usize]);
    view.core().poll_now().unwrap();
    view.unpin();
    view.pin();
    let mut page = vec![1; SIZE as usize];
    view.read(&mut page, u64::from(2 * block + 400) * SIZE).unwrap();
    assert!(page.iter().all(|byte| *byte == 0));
}

#[test]
fn a_reader_goes_on_when_its_snapshot_is_replaced() {
    let (mut history, snapshot) = three_blocks();
    let core = Core::with_store(history.store(), &in_blocks()).unwrap();
    let mut view = View::new(core.clone());
    assert_shows(&mut view, &history, 1, [1]);
    let block = PackedIndex::BLOCK as u64;
    let last = history.commit(2 * block as u32 + 1000, &[2, 9]);
    history.put(0, last, last);
    history.put_in_blocks(9, 1, last);
    history.delete(&[snapshot]);
    core.poll_now().unwrap();
    assert_shows(&mut view, &history, last, [1, 8, 9, block, 2 * block + 3]);
}
