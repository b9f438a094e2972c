//! The whole database in a local file: while it is downloaded, while it follows, and after a restart.

mod damage;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::error::ErrorKind;
use crate::replica::tests::fixtures::{History, Hooked, id, until};
use crate::replica::{Core, HydrationOptions, Options, View};
use crate::store::{Fault, Faults, Op};

const PAGE: usize = 4096;

fn options(path: &Path) -> Options {
    Options {
        poll_interval: Duration::from_secs(3600),
        open_timeout: Duration::ZERO,
        cache_bytes: 0,
        hydration: Some(HydrationOptions { path: path.to_owned(), plain: false }),
        ..Options::default()
    }
}

/// A database whose snapshot does not come whole, with some transactions after it.
fn large(pages: u32) -> History {
    let mut history = History::new(PAGE as u32, 5);
    history.commit(pages, &[]);
    history.put(9, 1, 1);
    for n in 0..5 {
        let txid = history.commit(pages, &[1, 7 + n, 300 + n]);
        history.put(0, txid, txid);
    }
    history
}

fn commit(history: &mut History, size: u32, pages: &[u32]) {
    let txid = history.commit(size, pages);
    history.put(0, txid, txid);
}

fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep").join("hydration.db");
    (folder, path)
}

fn wait_until_complete(core: &Core) {
    until("all of the database", || core.status().hydration.unwrap().per_mille == 1000);
}

/// Waits until what the file has is written down, and nobody has it any more.
fn wait_until_recorded(path: &Path, txid: u64) {
    until("the end of its use", || fs::File::open(path).unwrap().try_lock().is_ok());
    assert_eq!(super::record::Record::read(path).unwrap().0.txid, txid);
}

/// Ends `core` when all that it has is written down.
fn end(core: Arc<Core>) {
    core.files.local().unwrap().record().unwrap();
}

/// The whole database as a view shows it, with page 1 as it is stored.
fn contents(view: &mut View, history: &History) -> Vec<u8> {
    let stored = history.image(view.snapshot().txid.get());
    let mut bytes = vec![0; view.bytes() as usize];
    for (n, page) in bytes.chunks_mut(PAGE).enumerate() {
        view.read(page, (n * PAGE) as u64).unwrap();
    }
    for place in [18..20, 24..32, 40..44, 92..96] {
        bytes[place.clone()].copy_from_slice(&stored[place]);
    }
    bytes
}

fn assert_sees(view: &mut View, history: &History, txid: u64) {
    assert_eq!(view.snapshot().txid.get(), txid);
    assert!(contents(view, history) == history.image(txid), "at TXID {txid}");
}

#[test]
fn when_all_is_there_nothing_is_asked_of_the_store() {
    let (_folder, path) = folder();
    let mut history = large(3000);
    let faults = Faults::new(&history.store(), 1);
    let core = Core::with_store(faults.replica(), &options(&path)).unwrap();
    let mut view = View::new(core.clone());
    wait_until_complete(&core);
    // In large ranges: 12 MB.
    assert!(faults.count(Op::Get) <= 6 + 2 + 10, "{} requests", faults.count(Op::Get));
    let before = faults.total();
    assert_sees(&mut view, &history, 6);
    assert_eq!(faults.total(), before);
    assert!(fs::read(&path).unwrap() == history.image(6));
    // What is new comes with the poll that finds it.
    for n in 0..20 {
        commit(&mut history, 3000 + n * 7 % 11, &[1, 50 + n, 2990]);
        let before = faults.total();
        core.poll_now().unwrap();
        assert_eq!(faults.total() - before, 2, "one listing, one file");
        assert_sees(&mut view, &history, history.last());
        assert_eq!(faults.total() - before, 2);
    }
    assert!(fs::read(&path).unwrap() == history.image(history.last()));
    assert_eq!(core.status().hydration.unwrap().error, None);
}

#[test]
fn queries_go_on_while_it_is_downloaded() {
    let (_folder, path) = folder();
    let mut history = large(3000);
    let faults = Faults::new(&history.store(), 1);
    faults.often(Op::Get, 500, Fault::Delay(Duration::from_millis(5)));
    let core = Core::with_store(faults.replica(), &options(&path)).unwrap();
    let mut views: Vec<View> = (0..8).map(|_| View::new(core.clone())).collect();
    for (n, view) in views.iter_mut().enumerate() {
        view.pin();
        assert_sees(view, &history, 6 + n as u64);
        commit(&mut history, 3000, &[1, 400 + n as u32, 2000 + n as u32]);
        core.poll_now().unwrap();
    }
    wait_until_complete(&core);
    let before = faults.count(Op::Get);
    // Each reader still sees its own state, out of what was preserved for it.
    for (n, view) in views.iter_mut().enumerate() {
        assert_sees(view, &history, 6 + n as u64);
    }
    drop(views);
    assert_sees(&mut View::new(core.clone()), &history, 14);
    assert!(faults.count(Op::Get) - before <= 8 * 8, "{}", faults.count(Op::Get) - before);
}

#[test]
fn a_state_that_is_read_for_long_stays_when_the_replica_no_longer_has_it() {
    let (_folder, path) = folder();
    let mut history = large(1500);
    let core = Core::with_store(history.store(), &options(&path)).unwrap();
    wait_until_complete(&core);
    let mut old = View::new(core.clone());
    old.pin();
    let all: Vec<u32> = (1..=1500).collect();
    for pages in all.chunks(100) {
        commit(&mut history, 1600, pages);
        core.poll_now().unwrap();
    }
    // A new snapshot takes the place of all files that the old state was read from.
    let last = history.last();
    history.put(9, 1, last);
    history.retire(9, 1, 1);
    history.retire(0, 1, last - 1);
    core.poll_now().unwrap();
    assert_sees(&mut old, &history, 6);
    old.unpin();
    assert_sees(&mut old, &history, last);
}

#[test]
fn merged_files_are_not_downloaded_again() {
    let (_folder, path) = folder();
    let mut history = large(3000);
    let faults = Faults::new(&history.store(), 1);
    let core = Core::with_store(faults.replica(), &options(&path)).unwrap();
    wait_until_complete(&core);
    commit(&mut history, 3000, &[9]);
    history.put(1, 2, 6);
    history.put(9, 1, 6);
    history.retire(0, 2, 6);
    history.retire(9, 1, 1);
    core.poll_now().unwrap();
    wait_until_complete(&core);
    let before = faults.total();
    assert_sees(&mut View::new(core.clone()), &history, 7);
    assert_eq!(faults.total(), before);
}

/// Opens the replica again and returns how many bytes of it were asked for until all was there.
fn bytes_to_complete(history: &History, path: &Path) -> u64 {
    let asked = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let counted = asked.clone();
    let store = Hooked::store(&history.store, move |_, range| {
        if let crate::store::ByteRange::Bounded { len, .. } = range {
            counted.fetch_add(len, std::sync::atomic::Ordering::SeqCst);
        }
    });
    let core = Core::with_store(store, &options(path)).unwrap();
    wait_until_complete(&core);
    assert_sees(&mut View::new(core.clone()), history, history.last());
    end(core);
    asked.load(std::sync::atomic::Ordering::SeqCst)
}

#[test]
fn a_restart_goes_on_where_it_was() {
    let (_folder, path) = folder();
    let mut history = large(3000);
    let all = bytes_to_complete(&history, &path);
    assert!(all > 3_000_000, "{all}");
    // Nothing is new: nothing is fetched but a header and what comes with it.
    const HEAD: u64 = 32 * 1024;
    wait_until_recorded(&path, 6);
    assert!(bytes_to_complete(&history, &path) <= HEAD);
    // Some pages are.
    commit(&mut history, 3010, &[1, 5, 2500]);
    assert!(bytes_to_complete(&history, &path) <= HEAD);
    wait_until_recorded(&path, 7);

    // A download that was broken off: half of the file, then the store is gone.
    fs::remove_file(&path).unwrap();
    let faults = Faults::new(&history.store(), 1);
    let core = Core::with_store(faults.replica(), &options(&path)).unwrap();
    faults.often(Op::Get, 1000, Fault::Refuse(ErrorKind::Unavailable));
    until("an error or the end", || {
        let hydration = core.status().hydration.unwrap();
        hydration.error.is_some() || hydration.per_mille == 1000
    });
    let had = core.status().hydration.unwrap().per_mille;
    end(core);
    wait_until_recorded(&path, 7);
    let rest = bytes_to_complete(&history, &path);
    assert!(rest <= all * (1001 - had) / 1000 + 600_000, "{rest} of {all} bytes after {had} per mille");
}

#[test]
fn what_the_file_lost_is_fetched_again() {
    let (_folder, path) = folder();
    let history = large(1500);
    bytes_to_complete(&history, &path);
    wait_until_recorded(&path, 6);
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(700 * PAGE as u64).unwrap();
    assert!(bytes_to_complete(&history, &path) > 1_000_000);
    wait_until_recorded(&path, 6);
    // Without a record nothing is believed.
    fs::write(path.with_file_name("hydration.db-record"), b"LSHYDR01 and then nonsense").unwrap();
    fs::write(&path, vec![7; 1500 * PAGE]).unwrap();
    assert!(bytes_to_complete(&history, &path) > 2_000_000);
}

#[test]
fn a_replica_that_was_reset_is_downloaded_anew() {
    let (_folder, path) = folder();
    let history = large(1500);
    let core = Core::with_store(history.store(), &options(&path)).unwrap();
    wait_until_complete(&core);
    let mut old = View::new(core.clone());
    old.pin();
    let reset = |seed| {
        history.delete(&history.store.files().into_iter().map(|(id, _)| id).collect::<Vec<_>>());
        let mut other = History::new(PAGE as u32, seed).with_store(&history.store);
        other.commit(1400, &[]);
        other.put(9, 1, 1);
        for _ in 0..9 {
            commit(&mut other, 1400, &[3]);
        }
        other
    };
    // While it is open.
    let other = reset(77);
    core.poll_now().unwrap();
    wait_until_complete(&core);
    assert_sees(&mut View::new(core.clone()), &other, 10);
    assert_sees(&mut old, &history, 6);
    drop(old);
    end(core);
    wait_until_recorded(&path, 10);
    // While it was closed.
    let third = reset(78);
    assert!(bytes_to_complete(&third, &path) > 1_000_000);
}

#[test]
fn another_core_with_the_same_file_reads_without_it_until_it_is_free() {
    let (_folder, path) = folder();
    let history = large(1500);
    let first = Core::with_store(history.store(), &options(&path)).unwrap();
    let second = Core::with_store(history.store(), &options(&path)).unwrap();
    let hydration = second.status().hydration.unwrap();
    assert_eq!(hydration.per_mille, 0);
    assert!(hydration.error.unwrap().contains("hydration.db is in use"));
    assert_sees(&mut View::new(second.clone()), &history, 6);
    wait_until_complete(&first);
    assert_sees(&mut View::new(first.clone()), &history, 6);
    end(first);
    wait_until_complete(&second);
    assert_sees(&mut View::new(second.clone()), &history, 6);
    until("the end of the error", || second.status().hydration.unwrap().error.is_none());
}

#[test]
fn damaged_bytes_are_fetched_again_and_then_named() {
    let (_folder, path) = folder();
    let history = large(1500);
    let good = history.encode(1, 1);
    let damage = |bytes: &mut Vec<u8>| {
        let end = bytes.len() - 100_000;
        bytes[200..end].fill(0xff);
    };
    let faults = Faults::new(&history.store(), 1);
    history.store.tamper(id(9, 1, 1), damage);
    let core = Core::with_store(faults.replica(), &options(&path)).unwrap();
    let error = || core.status().hydration.unwrap().error;
    until("an error", || error().is_some());
    let error = error().unwrap();
    assert!(error.contains(&id(9, 1, 1).to_string()), "{error}");
    history.store.tamper(id(9, 1, 1), |bytes| bytes.copy_from_slice(&good));
    wait_until_complete(&core);
    until("the end of the error", || core.status().hydration.unwrap().error.is_none());
    assert_sees(&mut View::new(core), &history, 6);
}

#[test]
fn a_place_that_cannot_be_written_is_named_when_the_replica_is_opened() {
    let (folder, _) = folder();
    let history = large(1500);
    let error = Core::with_store(history.store(), &options(folder.path())).unwrap_err();
    assert!(error.to_string().contains("is not a file"), "{error}");
    let below = folder.path().join("file");
    fs::write(&below, b"").unwrap();
    let error = Core::with_store(history.store(), &options(&below.join("x.db"))).unwrap_err();
    assert!(error.to_string().contains("cannot open"), "{error}");
}
