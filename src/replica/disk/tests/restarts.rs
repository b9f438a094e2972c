//! A process ends and another one opens the same replica with the same cache folder.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::DiskOptions;
use crate::replica::tests::fixtures::History;
use crate::replica::{Core, Options, View};
use crate::store::{Faults, Op};

fn options(folder: &Path, cache_bytes: usize) -> Options {
    let still = Options {
        poll_interval: Duration::from_secs(3600),
        open_timeout: Duration::ZERO,
        ..Options::default()
    };
    let disk = DiskOptions { folder: folder.to_owned(), bytes: 64 << 20 };
    Options { cache_bytes, disk: Some(disk), ..still }
}

/// Opens the replica as a new process would, and counts what it asks for.
fn start(history: &History, options: &Options) -> (Arc<Core>, Faults) {
    let store = Faults::new(&history.store(), 1);
    (Core::with_store(store.replica(), options).unwrap(), store)
}

/// Reads all pages and compares them with the state that is seen.
fn assert_right(core: &Arc<Core>, history: &History) {
    let mut view = View::new(core.clone());
    view.pin();
    let image = history.image(view.snapshot().txid.get());
    let size = history.page_size.bytes();
    let mut page = vec![0; size];
    for n in 1..image.len() / size {
        view.read(&mut page, (n * size) as u64).unwrap();
        assert!(page == image[n * size..][..size], "page {}", n + 1);
    }
}

/// A large snapshot and some small files.
fn history() -> History {
    let mut history = History::new(4096, 3);
    history.commit(1200, &[]);
    history.put(9, 1, 1);
    history.grow(8);
    history
}

#[test]
fn a_replica_without_news_is_opened_with_the_listing_only() {
    let folder = tempfile::tempdir().unwrap();
    let history = history();
    let options = options(folder.path(), 32 << 20);
    let (core, store) = start(&history, &options);
    assert!(store.count(Op::Get) >= 9);
    assert_right(&core, &history);
    drop(core);

    let (core, store) = start(&history, &options);
    assert_eq!(store.count(Op::Get), 0);
    assert_right(&core, &history);
    assert_eq!(store.count(Op::Get), 0);
}

#[test]
fn only_what_is_new_is_fetched() {
    let folder = tempfile::tempdir().unwrap();
    let mut history = history();
    let options = options(folder.path(), 32 << 20);
    let (core, _) = start(&history, &options);
    assert_right(&core, &history);
    drop(core);
    history.grow(10);
    let (core, store) = start(&history, &options);
    assert_eq!(store.count(Op::Get), 2);
    assert_right(&core, &history);
    assert_eq!(store.count(Op::Get), 2);
    // What a follower saw is there too.
    history.grow(13);
    core.poll_now().unwrap();
    drop(core);
    let (core, store) = start(&history, &options);
    assert_right(&core, &history);
    assert_eq!(store.count(Op::Get), 0);
}

#[test]
fn what_memory_has_no_room_for_comes_from_disk() {
    let folder = tempfile::tempdir().unwrap();
    let history = history();
    let (core, store) = start(&history, &options(folder.path(), 64 << 10));
    assert_right(&core, &history);
    let before = store.count(Op::Get);
    assert_right(&core, &history);
    assert_eq!(store.count(Op::Get), before);
}

#[test]
fn files_of_the_same_name_after_a_reset_are_not_mixed_up() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(folder.path(), 32 << 20);
    let first = history();
    let (core, _) = start(&first, &options);
    assert_right(&core, &first);
    drop(core);
    let mut other = History::new(4096, 77);
    other.commit(1200, &[]);
    other.put(9, 1, 1);
    other.grow(8);
    let (core, store) = start(&other, &options);
    assert!(store.count(Op::Get) > 0);
    assert_right(&core, &other);
}

#[test]
fn a_cache_that_is_damaged_all_over_costs_requests_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let history = history();
    let options = options(folder.path(), 32 << 20);
    for round in 0..6 {
        let (core, _) = start(&history, &options);
        assert_right(&core, &history);
        drop(core);
        for (n, path) in files_below(folder.path()).into_iter().enumerate() {
            damage(&path, round, n);
        }
    }
    let (core, store) = start(&history, &options);
    assert_right(&core, &history);
    assert!(store.count(Op::Get) > 0);
}

fn damage(path: &Path, round: usize, n: usize) {
    let mut bytes = fs::read(path).unwrap();
    match (round + n) % 5 {
        0 => fs::remove_file(path).unwrap(),
        1 => fs::write(path, "").unwrap(),
        2 => fs::write(path, &bytes[..bytes.len() / 2]).unwrap(),
        3 => {
            bytes.iter_mut().step_by(97).for_each(|byte| *byte ^= 0x10);
            fs::write(path, bytes).unwrap();
        }
        _ => {
            bytes.rotate_left(1);
            fs::write(path, bytes).unwrap();
        }
    }
}

fn files_below(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    /// Commits, compaction, removal of old files, polls and restarts in any order: what is read is
    /// always the state that is seen.
    #[test]
    fn any_order_of_events_shows_states_of_the_database(
        seed: u64,
        steps in prop::collection::vec(0u8..8, 1..50),
        cache in prop_oneof![Just(0usize), Just(4000), Just(1 << 20)],
    ) {
        let folder = tempfile::tempdir().unwrap();
        let options = options(folder.path(), cache);
        let mut history = History::new(512, seed);
        history.commit(12, &[]);
        history.put(0, 1, 1);
        let (mut core, _) = start(&history, &options);
        let mut merged = 0;
        for step in steps {
            match step {
                0..=2 => history.grow(history.last() + 1),
                3 => core.poll_now().unwrap(),
                4 => core = start(&history, &options).0,
                5 if history.last() > merged + 1 => {
                    history.put(1, merged + 1, history.last());
                    merged = history.last();
                }
                6 => history.retire(0, 1, merged.min(history.last() - 1)),
                _ => {
                    core.poll_now().unwrap();
                    assert_right(&core, &history);
                }
            }
        }
        core = start(&history, &options).0;
        assert_right(&core, &history);
    }
}

#[test]
fn two_processes_share_a_folder_and_each_other_s_pages() {
    let folder = tempfile::tempdir().unwrap();
    let history = history();
    let options = options(folder.path(), 0);
    let (first, _) = start(&history, &options);
    let (second, store) = start(&history, &options);
    assert_eq!(store.count(Op::Get), 0);
    assert_right(&first, &history);
    assert_right(&second, &history);
    assert_eq!(store.count(Op::Get), 0);
}
