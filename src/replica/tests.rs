//! What readers of a replica see while files come, are merged, and go.

pub(crate) mod fixtures;
mod sealed;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use proptest::prelude::*;

use self::fixtures::{History, Hooked, id, txid, until};
use super::*;
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind};
use crate::ltx::Lineage;
use crate::page::Pgno;
use crate::store::{ByteRange, Fault, Faults, MemoryStore, Op};

/// Options under which nothing happens by itself.
fn still() -> Options {
    Options { poll_interval: Duration::from_secs(3600), open_timeout: Duration::ZERO, ..Options::default() }
}

fn open_history(history: &History) -> Arc<Core> {
    Core::with_store(history.store(), &still()).unwrap()
}

/// The whole database as a view shows it, with page 1 as it is stored.
fn contents(view: &mut View, history: &History) -> Vec<u8> {
    let txid = view.snapshot().txid.get();
    let mut bytes = vec![0; view.bytes() as usize];
    let size = history.page_size.bytes();
    for (n, page) in bytes.chunks_mut(size).enumerate() {
        assert_eq!(view.read(page, (n * size) as u64).unwrap(), size);
    }
    let stored = history.image(txid);
    for place in [18..20, 24..32, 40..44, 92..96] {
        bytes[place.clone()].copy_from_slice(&stored[place]);
    }
    bytes
}

fn assert_sees(view: &mut View, history: &History, txid: u64) {
    assert_eq!(view.snapshot().txid.get(), txid);
    assert!(contents(view, history) == history.image(txid), "at TXID {txid}");
}

/// A database of `pages` pages and some transactions, the first in a snapshot.
fn small(pages: u32) -> History {
    let mut history = History::new(512, 11);
    history.commit(pages, &[]);
    history.put(9, 1, 1);
    history.grow(6);
    history
}

#[test]
fn the_latest_state_is_read_and_followed() {
    let mut history = small(40);
    let core = open_history(&history);
    let mut view = View::new(core.clone());
    assert_sees(&mut view, &history, 6);
    for last in 7..30 {
        history.grow(last);
        core.poll_now().unwrap();
        assert_sees(&mut view, &history, last);
    }
    assert_eq!(core.snapshot().timestamp, history.time(29));
}

#[test]
fn a_pinned_state_does_not_change() {
    let mut history = small(40);
    let core = open_history(&history);
    let (mut old, mut new) = (View::new(core.clone()), View::new(core.clone()));
    old.pin();
    history.grow(12);
    core.poll_now().unwrap();
    new.pin();
    assert_sees(&mut old, &history, 6);
    assert_sees(&mut new, &history, 12);
    assert_sees(&mut old, &history, 6);
    old.unpin();
    old.pin();
    assert_sees(&mut old, &history, 12);
}

#[test]
fn files_that_were_merged_are_found_for_old_and_new_states() {
    let mut history = small(60);
    let core = Core::with_store(history.store(), &Options { cache_bytes: 0, ..still() }).unwrap();
    let (mut old, mut new) = (View::new(core.clone()), View::new(core.clone()));
    old.pin();
    history.grow(14);
    core.poll_now().unwrap();
    history.put(1, 2, 6);
    history.put(1, 7, 13);
    history.retire(0, 2, 13);
    assert_sees(&mut old, &history, 6);
    assert_sees(&mut new, &history, 14);
    // A new snapshot takes the place of all that is before it. The state of 14 needs nothing else; the
    // files that the one of 6 needs were small and have been kept.
    history.put(9, 1, 14);
    history.retire(9, 1, 1);
    history.retire(1, 1, 13);
    assert_sees(&mut new, &history, 14);
    assert_sees(&mut old, &history, 6);
    old.unpin();
    assert_sees(&mut old, &history, 14);
}

/// A core that keeps no page in memory.
fn without_cache(history: &History) -> Arc<Core> {
    Core::with_store(history.store(), &Options { cache_bytes: 0, ..still() }).unwrap()
}

/// A snapshot that does not come whole, and transactions of a few pages.
fn large_with(transactions: u64) -> History {
    let mut history = large();
    for n in 0..transactions as u32 {
        let txid = history.commit(LARGE as u32, &[1, 10 + n, 500 + n % 3]);
        history.put(0, txid, txid);
    }
    history
}

#[test]
fn an_old_state_is_read_from_what_is_merged_and_from_what_was_kept() {
    let mut history = large_with(5);
    let core = without_cache(&history);
    let mut old = View::new(core.clone());
    old.pin();
    // Files that the old state needs are merged with later ones, and gone at once.
    for round in 0..4 {
        let first = history.last() + 1;
        for n in 0..10 {
            let txid = history.commit(LARGE as u32, &[1, 10 + n, 600 + round]);
            history.put(0, txid, txid);
        }
        core.poll_now().unwrap();
        history.put(1, if round == 0 { 2 } else { first }, history.last());
        history.retire(0, 1, history.last());
    }
    assert_sees(&mut old, &history, 6);
    core.poll_now().unwrap();
    assert_sees(&mut View::new(core.clone()), &history, 46);
    // The large snapshot is merged with all of it: what did not change since is found there.
    history.put(9, 1, 46);
    history.retire(9, 1, 1);
    history.retire(1, 1, 45);
    core.poll_now().unwrap();
    let image = history.image(6);
    let mut page = vec![0; 4096];
    let mut gone = 0;
    for n in 1..LARGE {
        match old.read(&mut page, n * 4096) {
            Ok(_) => assert!(page == image[n as usize * 4096..][..4096], "page {}", n + 1),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::NotFound);
                assert!(error.to_string().contains("TXID 0000000000000006"), "{error}");
                assert!(error.to_string().contains("begin it again"), "{error}");
                gone += 1;
            }
        }
    }
    // Those that transactions wrote since, whose only older version was in the large file.
    assert_eq!(gone, 5 + 4);
    old.unpin();
    assert_sees(&mut old, &history, 46);
}

#[test]
fn a_transaction_too_large_to_come_whole_is_kept_too() {
    let mut history = large_with(5);
    let core = without_cache(&history);
    let pages: Vec<u32> = (1..=LARGE as u32).collect();
    let txid = history.commit(LARGE as u32, &pages);
    let id = history.put(0, txid, txid);
    assert!(history.encode(txid, txid).len() > 1024 * 1024);
    core.poll_now().unwrap();
    let mut old = View::new(core.clone());
    old.pin();
    // It is merged with the next transactions, which write the same pages, and gone at once.
    history.commit(LARGE as u32, &pages);
    history.put(1, txid, history.last());
    history.delete(&[id]);
    assert_sees(&mut old, &history, txid);
    core.poll_now().unwrap();
    assert_sees(&mut old, &history, txid);
    assert_sees(&mut View::new(core), &history, txid + 1);
}

#[test]
fn a_state_that_loses_a_file_before_it_is_kept_is_passed_over() {
    let mut history = large_with(5);
    let pages: Vec<u32> = (1..=LARGE as u32).collect();
    let txid = history.commit(LARGE as u32, &pages);
    history.commit(LARGE as u32, &pages);
    let (merging, merged) = (history.clone(), AtomicBool::new(false));
    let merge = move || {
        merging.put(1, txid, txid + 1);
        merging.delete(&[id(0, txid, txid)]);
    };
    let store = Hooked::store(&history.store, move |file, range| {
        // Its page index was read before.
        if file == id(0, txid, txid) && range == ByteRange::All && !merged.swap(true, Ordering::SeqCst) {
            thread::scope(|scope| scope.spawn(&merge).join()).unwrap();
        }
    });
    let core = Core::with_store(store, &Options { cache_bytes: 0, ..still() }).unwrap();
    history.put(0, txid, txid);
    core.poll_now().unwrap();
    assert_sees(&mut View::new(core), &history, txid + 1);
}

#[test]
fn a_state_whose_files_are_gone_altogether_says_what_to_do() {
    let history = large_with(5);
    let core = without_cache(&history);
    let mut old = View::new(core.clone());
    old.pin();
    let other = reset(&history, 3, 9);
    let error = old.read(&mut [0; 4096], 300 * 4096).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("begin it again"), "{error}");
    // Where the state was chosen, the next transaction reads it again.
    assert!(error.to_string().contains("litestream_set_time('latest')"), "{error}");
    old.unpin();
    core.poll_now().unwrap();
    assert_sees(&mut old, &other, 9);
}

#[test]
fn states_that_nobody_reads_are_let_go() {
    let mut history = large_with(5);
    let core = without_cache(&history);
    let mut old = View::new(core.clone());
    old.pin();
    let states: Vec<_> = (0..50)
        .map(|n| {
            let txid = history.commit(LARGE as u32, &[1, 10 + n]);
            history.put(0, txid, txid);
            core.poll_now().unwrap();
            Arc::downgrade(&core.snapshot())
        })
        .collect();
    let alive = states.iter().filter(|state| state.strong_count() > 0).count();
    assert_eq!(alive, 1, "the latest");
    assert_eq!(core.older().len(), 1, "the one that is read");
    assert_sees(&mut old, &history, 6);
}

#[test]
fn a_file_that_arrives_damaged_is_read_once_more() {
    let mut history = small(10);
    let core = open_history(&history);
    history.grow(7);
    let good = history.encode(7, 7);
    let reads = Arc::new(AtomicUsize::new(0));
    let (store, count) = (history.store.clone(), reads.clone());
    let store = Hooked::store(&history.store, move |file, _| {
        if file == id(0, 7, 7) {
            let first = count.fetch_add(1, Ordering::SeqCst) == 0;
            store.tamper(file, |bytes| {
                bytes.copy_from_slice(&good);
                bytes[150] ^= u8::from(first);
            });
        }
    });
    drop(core);
    let core = Core::with_store(store, &still()).unwrap();
    assert_eq!(reads.load(Ordering::SeqCst), 2);
    assert_sees(&mut View::new(core), &history, 7);
}

#[test]
fn polls_that_are_asked_for_at_the_same_time_are_one() {
    const ASKING: usize = 50;
    let mut history = small(20);
    let faults = Faults::new(&history.store(), 1);
    let core = Core::with_store(faults.replica(), &still()).unwrap();
    history.grow(8);
    let before = faults.count(Op::List);
    faults.often(Op::List, 1000, Fault::Delay(Duration::from_millis(200)));
    let barrier = Arc::new(Barrier::new(ASKING));
    let asking: Vec<_> = (0..ASKING)
        .map(|_| {
            let (core, barrier) = (core.clone(), barrier.clone());
            thread::spawn(move || {
                barrier.wait();
                core.poll_now().unwrap();
                assert_eq!(core.snapshot().txid, txid(8));
            })
        })
        .collect();
    asking.into_iter().for_each(|asking| asking.join().unwrap());
    let listings = faults.count(Op::List) - before;
    assert!(listings <= 3, "{listings} listings");
}

#[test]
fn who_reads_after_a_rest_sees_what_is_new() {
    let mut history = small(20);
    let faults = Faults::new(&history.store(), 1);
    let core = Core::with_store(faults.replica(), &still()).unwrap();
    let before = faults.count(Op::List);
    history.grow(9);
    // Usually it is the poller that looks.
    assert_sees(&mut View::new(core.clone()), &history, 6);
    core.poller.rest();
    assert_sees(&mut View::new(core.clone()), &history, 9);
    history.grow(10);
    assert_sees(&mut View::new(core.clone()), &history, 9);
    assert_eq!(faults.count(Op::List) - before, 1);
    // A replica that does not answer is read as it is known.
    core.poller.rest();
    faults.often(Op::List, 1000, Fault::Refuse(ErrorKind::Unavailable));
    assert_sees(&mut View::new(core.clone()), &history, 9);
}

#[test]
fn a_follower_that_slept_through_compaction_catches_up() {
    let mut history = small(40);
    let core = open_history(&history);
    let mut view = View::new(core.clone());
    history.grow(20);
    history.put(1, 2, 9);
    history.put(1, 10, 19);
    history.retire(0, 2, 19);
    core.poll_now().unwrap();
    assert_sees(&mut view, &history, 20);
    // Now even the merged files are gone: only a newer snapshot is there.
    history.grow(30);
    history.put(9, 1, 30);
    history.retire(0, 1, 29);
    history.retire(1, 1, 29);
    history.retire(9, 1, 1);
    core.poll_now().unwrap();
    assert_sees(&mut view, &history, 30);
    assert_eq!(core.status().last_error, None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    /// Steps of a primary and of readers in any order: every read is of the state that was pinned.
    #[test]
    fn any_order_of_events_shows_states_of_the_database(
        seed: u64,
        ours: bool,
        in_blocks: bool,
        steps in prop::collection::vec(0u8..10, 1..60),
        cache in prop_oneof![Just(0usize), Just(4000), Just(1 << 20)],
    ) {
        let mut history = History::new(512, seed);
        if ours {
            (history.lineage, history.writer) = (Lineage::new(seed | 1), 7);
        }
        history.commit(12, &[]);
        history.put(0, 1, 1);
        let in_blocks_from = if in_blocks { 0 } else { u64::MAX };
        let options = Options { cache_bytes: cache, in_blocks_from, ..still() };
        let core = Core::with_store(history.store(), &options).unwrap();
        let (mut first, mut second) = (View::new(core.clone()), View::new(core.clone()));
        let mut merged = 0;
        for step in steps {
            match step {
                0..=2 => history.grow(history.last() + 1),
                3 => core.poll_now().unwrap(),
                4 => {
                    first.unpin();
                    first.pin();
                }
                5 => {
                    let txid = first.snapshot().txid.get();
                    // Merging may have swallowed the very state; it must not be shown wrongly.
                    let pages = first.bytes() / 512;
                    let mut page = vec![0; 512];
                    for n in 0..pages {
                        match first.read(&mut page, n * 512) {
                            Ok(_) => prop_assert_eq!(&page[100..116], &history.image(txid)[(n * 512 + 100) as usize..][..16]),
                            Err(e) => prop_assert_eq!(e.kind(), ErrorKind::NotFound),
                        }
                    }
                }
                6 => {
                    let last = history.last();
                    if last > merged + 1 {
                        history.put(1, merged + 1, last);
                        merged = last;
                    }
                }
                7 => history.retire(0, 1, merged.min(history.last() - 1)),
                8 => {
                    let core = core.clone();
                    crate::runtime::block_on(async move { core.poll(by_name::Look::Cheaply).await }).unwrap();
                }
                _ => {
                    history.put_in_blocks(9, 1, history.last());
                }
            }
        }
        core.poll_now().unwrap();
        second.pin();
        let last = history.last();
        assert_sees(&mut second, &history, last);
        prop_assert_eq!(core.status().last_error, None);
    }
}

#[test]
fn a_gap_is_reported_and_readers_go_on() {
    let mut history = small(40);
    let core = open_history(&history);
    let mut view = View::new(core.clone());
    history.grow(9);
    history.delete(&[id(0, 8, 8)]);
    let error = core.poll_now().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(core.status().last_error.unwrap().contains("0000000000000008 is missing"));
    assert_sees(&mut view, &history, 6);
    history.put(0, 8, 8);
    core.poll_now().unwrap();
    assert_sees(&mut view, &history, 9);
    assert_eq!(core.status().last_error, None);
}

#[test]
fn a_full_copy_at_a_later_transaction_needs_no_snapshot() {
    let mut history = small(40);
    let core = open_history(&history);
    let pages: Vec<u32> = (1..=200).collect();
    let last = history.commit(50, &pages);
    history.put(0, last, last);
    core.poll_now().unwrap();
    assert_sees(&mut View::new(core), &history, last);
}

/// Another database takes over the URL.
fn reset(history: &History, seed: u64, last: u64) -> History {
    history.delete(&history.store.files().into_iter().map(|(id, _)| id).collect::<Vec<_>>());
    let mut other = History::new(512, seed).with_store(&history.store);
    other.commit(25, &[]);
    other.put(9, 1, 1);
    other.put(0, 1, 1);
    other.grow(last);
    other
}

#[test]
fn a_reader_stays_with_its_history_when_files_of_another_come() {
    let mut history = small(40);
    history.lineage = Lineage::new(0xa);
    history.put(0, history.last(), history.last());
    let core = open_history(&history);
    let mut view = View::new(core.clone());
    let last = history.last();
    let mut other = History::new(512, 99).with_store(&history.store);
    other.lineage = Lineage::new(0xb);
    while other.last() <= last {
        other.any_commit();
    }
    let intruder = other.put(0, last + 1, last + 1);
    for _ in 0..2 {
        let error = core.poll_now().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert!(error.to_string().contains("two histories lie in one replica"), "{error}");
        assert_sees(&mut view, &history, last);
    }
    assert!(core.status().last_error.unwrap().contains("lineage 000000000000000b"));
    let fresh = Core::with_store(history.store(), &still()).unwrap_err();
    assert!(fresh.to_string().contains("two histories lie in one replica"), "{fresh}");
    // When it is gone, the reader continues.
    history.delete(&[intruder]);
    history.grow(last + 1);
    core.poll_now().unwrap();
    assert_sees(&mut view, &history, last + 1);
}

#[test]
fn a_replica_that_was_reset_is_read_anew() {
    for last in [3, 6, 7, 30] {
        let history = small(40);
        let core = open_history(&history);
        let mut view = View::new(core.clone());
        assert_sees(&mut view, &history, 6);
        let before = view.snapshot().change_counter();
        // The new one has files of the same names with other content.
        let other = reset(&history, 99 + last, last);
        core.poll_now().unwrap();
        assert_sees(&mut view, &other, last);
        assert_ne!(view.snapshot().change_counter(), before);
        core.poll_now().unwrap();
        assert_sees(&mut view, &other, last);
    }
}

#[test]
fn an_empty_replica_says_so_and_one_that_comes_in_time_is_opened() {
    let error = Core::with_store(MemoryStore::new().replica(), &still()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("the replica is empty"), "{error}");

    let begun = std::time::Instant::now();
    let brief = Options { open_timeout: Duration::from_millis(50), ..still() };
    assert!(Core::with_store(MemoryStore::new().replica(), &brief).is_err());
    assert!(begun.elapsed() >= Duration::from_millis(50));

    let history = small(10);
    let late = history.with_store(&MemoryStore::new());
    let store = Faults::new(&late.store(), 1);
    let options = Options {
        poll_interval: Duration::from_millis(1),
        open_timeout: Duration::from_secs(600),
        ..Options::default()
    };
    let opening = {
        let store = store.clone();
        thread::spawn(move || Core::with_store(store.replica(), &options).unwrap())
    };
    until("another look", || store.count(Op::List) >= 20);
    late.put(9, 1, 1);
    assert!(opening.join().unwrap().snapshot().txid >= txid(1));
}

#[test]
fn a_corrupt_file_is_named_when_the_replica_is_opened() {
    for flip in [0, 20, 99, 140, 400] {
        let history = small(10);
        history.store.tamper(id(0, 4, 4), |bytes| {
            let at = flip % bytes.len();
            bytes[at] ^= 4;
        });
        let error = Core::with_store(history.store(), &still()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert!(error.to_string().contains(&id(0, 4, 4).to_string()), "{error}");
    }
    let history = small(10);
    history.put_bytes(id(0, 4, 4), history.encode(5, 5), 4);
    let error = Core::with_store(history.store(), &still()).unwrap_err();
    assert!(error.to_string().contains("wrong name"), "{error}");
    let history = small(10);
    history.store.tamper(id(0, 4, 4), |bytes| bytes.truncate(60));
    let error = Core::with_store(history.store(), &still()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
}

/// A core for the state at `point`, which is all that it must read.
fn open_at(history: &History, point: RestorePoint) -> Result<(Arc<Core>, View), Error> {
    let core = Core::at_place(history.store(), "memory:", &still(), point)?;
    let view = View::new(core.clone());
    view.seen().choose(point)?;
    Ok((core, view))
}

#[test]
fn an_earlier_state_is_read_where_the_latest_is_damaged_or_lacks_a_file() {
    let damages: [fn(&History); 3] = [
        |history| history.store.tamper(id(0, 5, 5), |bytes| bytes[200] ^= 4),
        |history| history.store.tamper(id(0, 6, 6), |bytes| bytes.truncate(60)),
        |history| history.delete(&[id(0, 5, 5)]),
    ];
    for damage in damages {
        let mut history = small(10);
        damage(&history);
        let latest = Core::with_store(history.store(), &still()).unwrap_err().to_string();
        for point in [RestorePoint::Txid(txid(3)), RestorePoint::Timestamp(history.time(3))] {
            let (core, mut view) = open_at(&history, point).unwrap();
            assert_sees(&mut view, &history, 3);
            let status = core.status();
            assert_eq!((status.last_error, status.as_of), (Some(latest.clone()), history.time(3)));
            // Others can be chosen too, but not the latest, and nothing changes then.
            let error = view.seen().choose(RestorePoint::Latest).unwrap_err();
            assert!(error.to_string().contains(&latest), "{error} is not {latest}");
            assert_sees(&mut view, &history, 3);
            view.seen().choose(RestorePoint::Txid(txid(4))).unwrap();
            assert_sees(&mut view, &history, 4);
        }
        // What is asked for must be sound.
        assert!(open_at(&history, RestorePoint::Txid(txid(6))).is_err());
        assert!(open_at(&history, RestorePoint::Timestamp(history.time(7))).is_err());
        // A new snapshot mends it.
        let (core, mut view) = open_at(&history, RestorePoint::Txid(txid(3))).unwrap();
        history.commit(12, &[1, 4]);
        history.put(9, 1, 7);
        view.seen().choose(RestorePoint::Latest).unwrap();
        assert_sees(&mut view, &history, 7);
        let status = core.status();
        assert_eq!((status.last_error, status.notice), (None, None));
    }
}

#[test]
fn that_an_earlier_state_is_the_last_of_level_0_does_not_make_it_the_latest() {
    let history = small(10);
    history.put(9, 1, 3);
    let merged = history.put(1, 4, 6);
    history.retire(0, 1, 6);
    history.store.tamper(merged, |bytes| bytes[200] ^= 4);
    let (core, mut view) = open_at(&history, RestorePoint::Txid(txid(3))).unwrap();
    for _ in 0..3 {
        assert!(core.poll_now().is_err());
        let error = view.seen().choose(RestorePoint::Latest).unwrap_err();
        assert!(error.to_string().contains(&merged.to_string()), "{error}");
        assert_sees(&mut view, &history, 3);
    }
    history.put(1, 4, 6);
    view.seen().choose(RestorePoint::Latest).unwrap();
    assert_sees(&mut view, &history, 6);
}

#[test]
fn connections_of_which_one_reads_an_earlier_state_share_what_is_known_of_the_latest() {
    let folder = tempfile::tempdir().unwrap();
    let (place, store) = (fixtures::at_folder(folder.path()), fixtures::in_folder(folder.path()));
    let history = small(10);
    let file = |n: u64| folder.path().join(format!("ltx/0/{n:016x}-{n:016x}.ltx"));
    for (id, _) in history.store.files() {
        let (store, bytes) = (store.clone(), history.store.bytes_of(id));
        let options = crate::store::PutOptions { timestamp: history.time(1), if_absent: false };
        crate::runtime::block_on(async move { store.put(id, bytes, options).await }).unwrap();
    }
    let fifth = std::fs::read(file(5)).unwrap();
    std::fs::remove_file(file(5)).unwrap();
    let past = RestorePoint::Txid(txid(3));
    let core = open(&place, &still(), past).unwrap();
    let error = open(&place, &still(), RestorePoint::Latest).unwrap_err();
    assert!(error.to_string().contains("TXID 0000000000000005 is missing"), "{error}");
    std::fs::write(file(5), fifth).unwrap();
    let latest = open(&place, &still(), RestorePoint::Latest).unwrap();
    assert!(Arc::ptr_eq(&core, &latest));
    assert_sees(&mut View::new(latest), &history, 6);
}

/// Pages of a snapshot that is too large to come whole.
const LARGE: u64 = 1200;

/// Reads of an open of it: its beginning, its page index, and its pack, which it does not have.
const OPEN: u64 = 3;

/// A snapshot that is too large to come whole.
fn large() -> History {
    let mut history = History::new(4096, 5);
    history.commit(LARGE as u32, &[]);
    history.put(9, 1, 1);
    history
}

#[test]
fn requests_are_few() {
    let mut history = small(40);
    let faults = Faults::new(&history.store(), 1);
    let core = Core::with_store(faults.replica(), &still()).unwrap();
    // One listing a level, one read a file.
    assert_eq!((faults.count(Op::List), faults.count(Op::Get)), (10, 6));
    assert_eq!(core.status().requests, 16);
    // All pages came with their files.
    contents(&mut View::new(core.clone()), &history);
    assert_eq!(faults.count(Op::Get), 6);
    // A poll is one listing, and one read for what is new.
    core.poll_now().unwrap();
    assert_eq!((faults.count(Op::List), faults.count(Op::Get)), (11, 6));
    history.grow(7);
    core.poll_now().unwrap();
    assert_eq!((faults.count(Op::List), faults.count(Op::Get)), (12, 7));
    contents(&mut View::new(core), &history);
    assert_eq!(faults.count(Op::Get), 7);
}

#[test]
fn a_scan_reads_many_pages_at_once() {
    let history = large();
    let size = history.encode(1, 1).len();
    let faults = Faults::new(&history.store(), 1);
    let core = Core::with_store(faults.replica(), &still()).unwrap();
    assert_eq!(faults.count(Op::Get), OPEN);
    let mut view = View::new(core);
    assert!(contents(&mut view, &history) == history.image(1));
    // 64, 128, 256 ... KiB, then 1 MiB each.
    let reads = faults.count(Op::Get) - OPEN;
    assert!(reads as usize <= 6 + size / (1024 * 1024), "{reads} reads for {size} bytes");
    assert!(contents(&mut view, &history) == history.image(1));
    assert_eq!(faults.count(Op::Get) - OPEN, reads);
}

#[test]
fn a_scan_from_the_end_reads_many_pages_at_once_too() {
    let history = large();
    let size = history.encode(1, 1).len();
    let faults = Faults::new(&history.store(), 1);
    let core = Core::with_store(faults.replica(), &still()).unwrap();
    let mut view = View::new(core);
    let image = history.image(1);
    let mut page = vec![0; 4096];
    for n in (1..LARGE).rev() {
        view.read(&mut page, n * 4096).unwrap();
        assert!(page == image[n as usize * 4096..][..4096]);
    }
    let reads = faults.count(Op::Get) - OPEN;
    assert!(reads as usize <= 7 + size / (1024 * 1024), "{reads} reads for {size} bytes");
}

#[test]
fn one_request_serves_all_who_want_a_page() {
    const READERS: usize = 8;
    let history = large();
    let faults = Faults::new(&history.store(), 1);
    let core = Core::with_store(faults.replica(), &still()).unwrap();
    faults.often(Op::Get, 1000, Fault::Delay(Duration::from_millis(30)));
    let before = faults.count(Op::Get);
    let barrier = Arc::new(Barrier::new(READERS));
    let readers: Vec<_> = (0..READERS)
        .map(|_| {
            let (core, barrier, image) = (core.clone(), barrier.clone(), history.image(1));
            thread::spawn(move || {
                let mut page = vec![0; 4096];
                barrier.wait();
                View::new(core).read(&mut page, 200 * 4096).unwrap();
                assert!(page == image[200 * 4096..201 * 4096]);
            })
        })
        .collect();
    readers.into_iter().for_each(|reader| reader.join().unwrap());
    assert_eq!(faults.count(Op::Get) - before, 1);
}

#[test]
fn all_who_wait_for_a_request_hear_that_it_failed() {
    let history = large();
    let faults = Faults::new(&history.store(), 1);
    let core = Core::with_store(faults.replica(), &still()).unwrap();
    faults.often(Op::Get, 1000, Fault::Refuse(ErrorKind::Denied));
    let readers: Vec<_> = (0..4)
        .map(|_| {
            let core = core.clone();
            thread::spawn(move || View::new(core).read(&mut [0; 4096], 200 * 4096).unwrap_err().kind())
        })
        .collect();
    for reader in readers {
        assert_eq!(reader.join().unwrap(), ErrorKind::Denied);
    }
    faults.heal();
    View::new(core).read(&mut [0; 4096], 200 * 4096).unwrap();
}

#[test]
fn wrong_bytes_are_fetched_once_more_and_then_reported() {
    let history = large();
    let pgno = Pgno::new(201).unwrap();
    let reads = Arc::new(AtomicUsize::new(0));
    let broken = Arc::new(AtomicBool::new(false));
    let (store, count, lasting) = (history.store.clone(), reads.clone(), broken.clone());
    let good = history.encode(1, 1);
    let file = id(9, 1, 1);
    let core = Core::with_store(
        Hooked::store(&history.store, move |_, _| {
            let n = count.fetch_add(1, Ordering::SeqCst);
            // The first read after opening sees damaged bytes, later ones do if it lasts.
            let damaged = n == 2 || (n > 2 && lasting.load(Ordering::SeqCst));
            store.tamper(file, |bytes| {
                bytes.copy_from_slice(&good);
                if damaged {
                    bytes[100..1000].fill(0xff);
                    let end = bytes.len() - 8000;
                    bytes[1000..end].fill(0);
                }
            });
        }),
        &still(),
    )
    .unwrap();
    assert_eq!(reads.load(Ordering::SeqCst), 2);
    let mut view = View::new(core);
    let mut page = vec![0; 4096];
    view.read(&mut page, u64::from(pgno.get() - 1) * 4096).unwrap();
    assert!(page == history.image(1)[200 * 4096..201 * 4096]);
    assert_eq!(reads.load(Ordering::SeqCst), 4);

    broken.store(true, Ordering::SeqCst);
    let error = view.read(&mut page, 300 * 4096).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(error.to_string().contains(&file.to_string()), "{error}");
    assert!(error.to_string().contains("page 301"), "{error}");
    assert_eq!(reads.load(Ordering::SeqCst), 6);
}

#[test]
fn page_1_is_shown_as_sqlite_needs_it() {
    let mut history = History::new(4096, 5);
    history.commit(3, &[]);
    history.put(9, 1, 1);
    let core = open_history(&history);
    let mut view = View::new(core.clone());
    let mut whole = vec![0; 4096];
    view.read(&mut whole, 0).unwrap();
    let stored = history.image(1);
    let shown = 18..20;
    assert_eq!(whole[shown], [1, 1]);
    assert_eq!(whole[24..28], whole[92..96]);
    assert_eq!(whole[28..32], 3u32.to_be_bytes());
    for (at, byte) in whole.iter().enumerate() {
        if ![18..20, 24..32, 92..96].iter().any(|place| place.contains(&at)) {
            assert_eq!(*byte, stored[at], "byte {at}");
        }
    }
    // Any part of it is the part of the whole.
    for (from, len) in [(24, 16), (0, 100), (16, 4), (25, 2), (90, 4), (95, 1), (96, 100), (4000, 96)] {
        let mut part = vec![0; len];
        assert_eq!(view.read(&mut part, from as u64).unwrap(), len);
        assert_eq!(part, whole[from..from + len]);
    }
    // What is read across the end of the page, and of the database.
    let mut across = vec![0xee; 4096];
    view.read(&mut across, 2048).unwrap();
    assert_eq!(across[..2048], whole[2048..]);
    assert_eq!(across[2048..], stored[4096..6144]);
    assert_eq!(view.read(&mut across, 3 * 4096 - 10).unwrap(), 10);
    assert!(across[10..].iter().all(|b| *b == 0));
    assert_eq!(view.read(&mut across, 3 * 4096).unwrap(), 0);
    assert_eq!(view.bytes(), 3 * 4096);

    // The counter changes with the database and not otherwise.
    let counter = |view: &mut View| {
        let mut bytes = [0; 4];
        view.read(&mut bytes, 24).unwrap();
        u32::from_be_bytes(bytes)
    };
    let before = counter(&mut view);
    core.poll_now().unwrap();
    assert_eq!(counter(&mut view), before);
    history.grow(2);
    core.poll_now().unwrap();
    assert_ne!(counter(&mut view), before);
}

#[test]
fn the_lock_page_and_pages_nobody_wrote_are_zeros() {
    let size = crate::page::PageSize::MAX;
    let lock = size.lock_page().get();
    let mut history = History::new(size.get(), 1);
    history.commit(1, &[]);
    history.put(9, 1, 1);
    history.put_sparse(2, lock + 1, lock + 1, &vec![7; size.bytes()]);
    let mut view = View::new(open_history(&history));
    assert_eq!(view.bytes(), u64::from(lock + 1) * 65536);
    let mut page = vec![1; size.bytes()];
    for (pgno, byte) in [(2, 0), (lock, 0), (lock + 1, 7)] {
        view.read(&mut page, u64::from(pgno - 1) * 65536).unwrap();
        assert!(page.iter().all(|b| *b == byte), "page {pgno}");
    }
}

#[test]
fn what_was_cut_off_does_not_come_back() {
    let mut history = History::new(512, 1);
    history.commit(10, &[]);
    history.put(9, 1, 1);
    history.commit(5, &[1]);
    history.put(0, 2, 2);
    history.put_sparse(3, 8, 8, &[7; 512]);
    let mut view = View::new(open_history(&history));
    let mut rest = vec![1; 8 * 512];
    view.read(&mut rest, 0).unwrap();
    assert!(rest[1024..5 * 512] == history.image(2)[1024..]);
    assert!(rest[5 * 512..] == [vec![0; 1024], vec![7; 512]].concat());
}

#[test]
fn connections_of_a_process_share_and_the_last_one_ends_it() {
    let folder = tempfile::tempdir().unwrap();
    let history = small(20);
    let files = fixtures::in_folder(folder.path());
    for (id, _) in history.store.files() {
        let body = history.encode(id.name.min().get(), id.name.max().get());
        let (files, time) = (files.clone(), history.time(id.name.max().get()));
        crate::runtime::block_on(async move {
            files.put(id, body, crate::store::PutOptions { timestamp: time, if_absent: true }).await
        })
        .unwrap();
    }
    let target = fixtures::at_folder(folder.path());
    let openers: Vec<_> = (0..4)
        .map(|_| {
            let target = target.clone();
            thread::spawn(move || open(&target, &still(), RestorePoint::Latest).unwrap())
        })
        .collect();
    let mut cores: Vec<Arc<Core>> = openers.into_iter().map(|o| o.join().unwrap()).collect();
    assert!(cores.iter().all(|core| Arc::ptr_eq(core, &cores[0])));
    let other = open(&target, &Options { cache_bytes: 1, ..still() }, RestorePoint::Latest).unwrap();
    assert!(!Arc::ptr_eq(&other, &cores[0]));
    assert_sees(&mut View::new(cores[0].clone()), &history, 6);
    let weak = Arc::downgrade(&cores[0]);
    cores.clear();
    assert!(weak.upgrade().is_none());
}

#[test]
fn who_waits_for_an_open_that_fails_gets_its_error() {
    const OPENERS: u32 = 60;
    let folder = tempfile::tempdir().unwrap();
    let target = fixtures::at_folder(folder.path());
    let options = Options {
        open_timeout: Duration::from_millis(300),
        poll_interval: Duration::from_millis(10),
        ..still()
    };
    let begun = std::time::Instant::now();
    let openers: Vec<_> = (0..OPENERS)
        .map(|_| {
            let (target, options) = (target.clone(), options.clone());
            thread::spawn(move || open(&target, &options, RestorePoint::Latest).unwrap_err().kind())
        })
        .collect();
    for opener in openers {
        assert_eq!(opener.join().unwrap(), ErrorKind::NotFound);
    }
    assert!(begun.elapsed() < Duration::from_millis(300) * OPENERS / 2, "they waited one after the other");
}

#[test]
fn the_poller_follows_by_itself_and_survives_errors() {
    let mut history = small(20);
    let faults = Faults::new(&history.store(), 1);
    let brief = Duration::from_millis(1);
    let options = Options { poll_interval: brief, poll_idle_interval: brief, ..still() };
    let core = Core::with_store(faults.replica(), &options).unwrap();
    faults.often(Op::List, 1000, Fault::Refuse(ErrorKind::Unavailable));
    until("an error", || core.status().last_error.is_some());
    assert_sees(&mut View::new(core.clone()), &history, 6);
    faults.heal();
    history.grow(8);
    until("what is new", || core.snapshot().txid >= txid(8));
    assert_sees(&mut View::new(core.clone()), &history, 8);
    until("a poll that succeeds", || core.status().last_error.is_none());
}

#[test]
fn the_status_tells_how_the_replica_is_doing() {
    let history = small(20);
    let core = open_history(&history);
    let status = core.status();
    assert_eq!((status.txid, status.timestamp), (txid(6), history.time(6)));
    assert_eq!(u64::from(status.pages.get()) * u64::from(status.page_size), core.snapshot().bytes());
    assert!(status.cache_bytes > 0 && status.requests == 16);
    assert_eq!(status.url, history.store.url());
}

#[test]
fn a_view_sees_the_state_that_was_chosen_and_then_the_latest_again() {
    let mut history = small(40);
    history.grow(12);
    let core = open_history(&history);
    let (mut past, mut now) = (View::new(core.clone()), View::new(core.clone()));
    for n in [3, 9, 1, 12] {
        past.seen().choose(RestorePoint::Txid(txid(n))).unwrap();
        assert!(past.seen().is_past());
        assert_sees(&mut past, &history, n);
    }
    let between = Timestamp::from_millis(history.time(4).as_millis() + 999);
    past.seen().choose(RestorePoint::Timestamp(between)).unwrap();
    assert_sees(&mut past, &history, 4);
    let early = RestorePoint::Timestamp(Timestamp::from_millis(history.time(1).as_millis() - 1));
    let refused = past.seen().choose(early).unwrap_err();
    assert!(refused.to_string().contains(&history.time(12).to_string()), "{refused}");
    assert_sees(&mut past, &history, 4);

    past.pin();
    assert_eq!(past.seen().choose(RestorePoint::Latest).unwrap_err().kind(), ErrorKind::Busy);
    past.unpin();
    history.grow(15);
    core.poll_now().unwrap();
    assert_sees(&mut past, &history, 4);
    assert_sees(&mut now, &history, 15);
    past.seen().choose(RestorePoint::Latest).unwrap();
    assert_sees(&mut past, &history, 15);
}

#[test]
fn views_of_one_past_state_share_it_and_find_it_after_compaction() {
    let mut history = small(40);
    history.grow(12);
    let core = open_history(&history);
    let mut views = [View::new(core.clone()), View::new(core.clone())];
    for view in &views {
        view.seen().choose(RestorePoint::Txid(txid(8))).unwrap();
    }
    assert!(Arc::ptr_eq(&views[0].snapshot(), &views[1].snapshot()));
    history.put(1, 2, 8);
    history.retire(0, 2, 8);
    assert_sees(&mut views[0], &history, 8);
    assert_sees(&mut views[1], &history, 8);
    // Merged with what follows it is in no file by itself.
    history.put(2, 2, 12);
    history.retire(0, 9, 12);
    history.retire(1, 2, 8);
    let refused = View::new(core).seen().choose(RestorePoint::Txid(txid(8))).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotFound);
    assert!(refused.to_string().contains(&txid(12).to_string()), "{refused}");
}
