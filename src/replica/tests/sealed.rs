//! Sealed replicas are read page by page; nothing of them is on disk as it is.

use std::fs;
use std::path::Path;

use super::fixtures::in_folder;
use super::*;
use crate::ltx::sealing::{Sealing, for_a_crowd, keyring, pair, sample, sample_keyring, seal, with_parts_of};
use crate::ltx::{FileId, Keyring, Plain};
use crate::store::Replica;

/// A database with a file that does not come whole and some that do, sealed.
fn large() -> History {
    let mut history = History::new(4096, 21);
    history.commit(1200, &[]);
    history.put(9, 1, 1);
    history.grow(5);
    seal_all(&history);
    history
}

fn seal_all(history: &History) {
    for (file, _) in history.store.files() {
        history.store.tamper(file, |bytes| *bytes = seal(bytes, &[1, 2]));
    }
}

fn grow_sealed(history: &mut History, last: u64) {
    while history.last() < last {
        let txid = history.any_commit();
        let bytes = seal(&history.encode(txid, txid), &[1, 2]);
        history.put_bytes(id(0, txid, txid), bytes.into(), txid);
    }
}

fn with(store: &Replica, keyring: Keyring) -> Arc<Replica> {
    Arc::new(store.read_with(keyring))
}

fn ours() -> Keyring {
    keyring(&[2], Plain::None)
}

fn open(history: &History, keyring: Keyring, options: &Options) -> crate::error::Result<Arc<Core>> {
    Core::with_store(with(&history.store(), keyring), options)
}

/// All bytes of all files below `folder`.
fn bytes_below(folder: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        bytes.extend(if path.is_dir() { bytes_below(&path) } else { fs::read(path).unwrap() });
    }
    bytes
}

#[test]
fn every_sample_is_read_as_a_replica() {
    for (name, places, plain, last) in [
        ("one-recipient-4096", &[0][..], Plain::None, 5),
        ("three-recipients-512", &[1], Plain::None, 5),
        ("turned-on-at-3-4096", &[1], Plain::UpTo(txid(2)), 5),
        ("key-changed-at-4-65536", &[0, 1], Plain::None, 5),
        ("with-checksums-4096", &[1], Plain::None, 1),
    ] {
        let store = with(&in_folder(sample(name)), sample_keyring(places, plain));
        let core = Core::with_store(store, &still()).unwrap();
        for n in 1..=last {
            let mut view = View::new(core.clone());
            view.seen().choose(RestorePoint::Txid(txid(n))).unwrap();
            let expected = fs::read(sample(name).join(format!("at-{n}.db"))).unwrap();
            let size = core.snapshot().page_size.bytes();
            let mut bytes = vec![0; view.bytes() as usize];
            for (at, page) in bytes.chunks_mut(size).enumerate() {
                view.read(page, (at * size) as u64).unwrap();
            }
            for place in [18..20, 24..32, 92..96] {
                bytes[place.clone()].copy_from_slice(&expected[place]);
            }
            assert!(bytes == expected, "{name} at {n}");
        }
    }
}

#[test]
fn a_replica_is_opened_only_by_whom_it_was_sealed_to() {
    let history = large();
    for (keyring, words) in
        [(Keyring::default(), "set age_identity_file"), (keyring(&[3], Plain::None), "none of theirs")]
    {
        let e = open(&history, keyring, &still()).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Denied);
        assert!(e.to_string().contains(words) && e.to_string().contains("0000000000000001.ltx"), "{e}");
    }
    let mut plain = small(40);
    let e = open(&plain, ours(), &still()).unwrap_err();
    assert!(e.to_string().contains("it is not sealed"), "{e}");
    // A plain file after sealed ones is not shown, and what was is.
    seal_all(&plain);
    let core = open(&plain, ours(), &still()).unwrap();
    let before = plain.last();
    plain.grow(before + 1);
    let e = core.poll_now().unwrap_err();
    assert!(e.to_string().contains("it is not sealed"), "{e}");
    let mut view = View::new(core);
    assert_sees(&mut view, &plain, before);
}

#[test]
fn it_is_followed_and_kept_sealed_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let disk = DiskOptions { folder: folder.path().to_owned(), bytes: 64 << 20 };
    let options = Options { disk: Some(disk), cache_bytes: 0, ..still() };
    let mut history = large();
    let read_all = |history: &History| {
        let core = open(history, ours(), &options).unwrap();
        let mut view = View::new(core.clone());
        assert_sees(&mut view, history, history.last());
        core
    };
    let core = read_all(&history);
    grow_sealed(&mut history, 9);
    core.poll_now().unwrap();
    assert_sees(&mut View::new(core.clone()), &history, 9);
    drop(core);
    let image = history.image(9);
    let kept = bytes_below(folder.path());
    assert!(kept.len() > 100_000, "the pages are there");
    for page in image.chunks(4096).step_by(150) {
        // What is in the page of a history that no other has.
        let token = &page[100..116];
        assert!(token.iter().all(|byte| *byte == 0) || !kept.windows(16).any(|bytes| bytes == token));
    }
    // From the disk, with nothing but the listing.
    let reads = Arc::new(AtomicUsize::new(0));
    let counted = reads.clone();
    let hooked = Hooked::store(&history.store, move |_, _| {
        counted.fetch_add(1, Ordering::SeqCst);
    });
    let warm = Core::with_store(with(&hooked, ours()), &options).unwrap();
    assert_sees(&mut View::new(warm), &history, 9);
    assert_eq!(reads.load(Ordering::SeqCst), 0);
    let e = open(&history, keyring(&[3], Plain::None), &options).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Denied, "what is on the disk needs the identity too");
}

/// The offset of the header's time, and of its last TXID.
const TIMES: [usize; 2] = [39, 31];

#[test]
fn a_header_counts_only_when_a_frame_opened_with_it() {
    for place in TIMES {
        let history = large();
        let newest = FileId::single(txid(5));
        for file in [id(9, 1, 1), newest] {
            let damaged = history.with_store(&MemoryStore::new());
            for (other, _) in history.store.files() {
                let mut bytes = Vec::new();
                history.store.tamper(other, |from| bytes.clone_from(from));
                if other == file {
                    bytes[place] ^= 1;
                }
                damaged.put_bytes(other, bytes.into(), other.name.max().get());
            }
            assert!(open(&damaged, ours(), &still()).is_err(), "byte {place} of {file}");
        }
    }
}

#[test]
fn a_damaged_page_is_an_error_and_never_another_page() {
    let history = large();
    let size = history.store.files().into_iter().find(|(file, _)| *file == id(9, 1, 1)).unwrap().1;
    for at in (300..size).step_by(size / 15) {
        let damaged = large();
        damaged.store.tamper(id(9, 1, 1), |bytes| bytes[at] ^= 4);
        let Ok(core) = open(&damaged, ours(), &still()) else { continue };
        let mut view = View::new(core);
        let expected = history.image(5);
        let mut page = vec![0; 4096];
        for (n, right) in expected.chunks(4096).enumerate().skip(1) {
            if view.read(&mut page, (n * 4096) as u64).is_ok() {
                assert!(page == right, "byte {at}, page {}", n + 1);
            }
        }
    }
}

#[test]
fn a_forged_index_is_refused() {
    let mut history = History::new(512, 3);
    history.commit(4000, &[]);
    let plain = history.encode(1, 1);
    let mut forged = Sealing::of(&plain, &[pair(2).1]);
    let tag = forged.own_tag();
    // Not the last one, which is opened, nor a page that the snapshot lacks then.
    forged.frames.swap(10, 11);
    let (a, b) = (forged.frames[10].0, forged.frames[11].0);
    (forged.frames[10].0, forged.frames[11].0) = (b, a);
    forged.tag = Some(tag);
    history.put_bytes(id(9, 1, 1), forged.file().into(), 1);
    let e = open(&history, ours(), &still()).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Corrupt);
}

#[test]
fn hydration_needs_a_word_that_the_file_may_be_plain() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hydration.db");
    let options = |plain| Options {
        hydration: Some(HydrationOptions { path: path.clone(), plain }),
        cache_bytes: 0,
        ..still()
    };
    let history = large();
    let e = open(&history, ours(), &options(false)).unwrap_err();
    assert!(e.to_string().contains("hydrate=plain"), "{e}");
    assert!(!path.exists());
    let core = open(&history, ours(), &options(true)).unwrap();
    until("all of the database", || core.status().hydration.unwrap().per_mille == 1000);
    assert_sees(&mut View::new(core.clone()), &history, 5);
    assert!(fs::read(&path).unwrap() == history.image(5));
    drop(core);
    assert!(
        open(&history, Keyring::default(), &options(true)).is_err(),
        "nobody else is served from the file"
    );
    // A replica that is sealed while it is read.
    let mut turned = small(40);
    let open_plain = keyring(&[2], Plain::Any);
    let other = folder.path().join("turned.db");
    let hydration = Some(HydrationOptions { path: other, plain: false });
    let core = open(&turned, open_plain, &Options { hydration, ..still() }).unwrap();
    let before = turned.last();
    grow_sealed(&mut turned, before + 1);
    let e = core.poll_now().unwrap_err();
    assert!(e.to_string().contains("hydrate=plain"), "{e}");
}

#[test]
fn listings_and_histories_need_no_key() {
    let history = large();
    let (store, listed) = (history.store(), history.store());
    let files = crate::runtime::block_on(async move { points(listed).await }).unwrap();
    assert_eq!(files.len(), 5);
    let described = crate::runtime::block_on(async move {
        let wanted = Wanted { time: true, pages: true };
        let only_pages = Wanted { pages: true, ..Wanted::default() };
        Ok((
            describe(store.clone(), &files, wanted).await?,
            describe(store.clone(), &files, only_pages).await?,
            sealed(store, &files).await?,
        ))
    });
    let (all, pages, seals) = described.unwrap();
    assert_eq!(all.last().unwrap().pages, Some(1200));
    assert_eq!(all[0].time, Some(history.time(5)));
    let counts = |points: &[HistoryPoint]| points.iter().map(|point| point.pages).collect::<Vec<_>>();
    assert_eq!(counts(&all), counts(&pages));
    assert_eq!(seals, [Some(true); 5]);
}

/// [`History::tiny`], sealed.
fn tiny() -> History {
    let history = History::tiny();
    seal_all(&history);
    history
}

/// Reads a replica that somebody changed: each page is an error, or what it is. Returns whether any was an error.
fn is_noticed(history: &History, what: &str) -> bool {
    let Ok(core) = open(history, ours(), &still()) else { return true };
    let last = core.status().txid.get();
    assert_eq!(last, history.last(), "{what}");
    let mut view = View::new(core);
    let mut right = history.image(last);
    // A replica shows itself as a database with a rollback journal, and counts the changes by transactions.
    let mut noticed = false;
    for (n, right) in right.chunks_mut(512).enumerate() {
        let mut page = vec![0; 512];
        if view.read(&mut page, (n * 512) as u64).is_err() {
            noticed = true;
            continue;
        }
        for made in if n == 0 { vec![18..20, 24..32, 92..96] } else { Vec::new() } {
            right[made.clone()].copy_from_slice(&page[made]);
        }
        assert!(page == right, "{what}: page {}", n + 1);
    }
    noticed
}

#[test]
fn whatever_byte_is_flipped_and_wherever_a_file_ends_no_page_is_another() {
    let history = tiny();
    assert!(!is_noticed(&history, "nothing"));
    let mut count = 0;
    for file in [id(9, 1, 1), id(0, 2, 2), id(0, 3, 3)] {
        let bytes = history.store.bytes_of(file).to_vec();
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            for (how, bytes) in [("flipped", flipped), ("cut", bytes[..at].to_vec())] {
                count += u32::from(is_noticed(
                    &history.with_file(file, bytes),
                    &format!("{file} is {how} at {at}"),
                ));
            }
        }
    }
    assert!(count > 1000, "{count} are noticed");
}

#[test]
fn parts_of_another_file_give_no_other_page() {
    let history = tiny();
    let parts = |txid| Sealing::of(&history.encode(txid, txid), &[pair(2).1]);
    let file = id(0, 3, 3);
    for (part, bytes) in with_parts_of(&parts(3), &parts(2)) {
        assert!(is_noticed(&history.with_file(file, bytes), part), "the {part} of another file");
    }
}

#[test]
fn plain_files_are_refused_in_every_place_and_so_is_a_file_for_a_crowd() {
    let history = tiny();
    let files: Vec<FileId> = history.store.files().into_iter().map(|(file, _)| file).collect();
    for file in &files {
        let plain = history.encode(file.name.min().get(), file.name.max().get());
        let e = open(&history.with_file(*file, plain.to_vec()), ours(), &still()).unwrap_err();
        assert!(e.to_string().contains("not sealed"), "{file}: {e}");
    }
    for file in files {
        let plain = history.encode(file.name.min().get(), file.name.max().get());
        history.store.tamper(file, |bytes| *bytes = plain.to_vec());
    }
    let e = open(&history, ours(), &still()).unwrap_err();
    assert!(e.to_string().contains("not sealed"), "all of them: {e}");
    let history = tiny();
    let crowd = for_a_crowd(&history.encode(3, 3));
    assert!(open(&history.with_file(id(0, 3, 3), crowd), ours(), &still()).is_err());
}
