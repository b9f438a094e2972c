//! What is fetched for a page, and what comes with it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::error::ErrorKind;
use crate::ltx::FileId;
use crate::replica::btree::tests::table;
use crate::replica::tests::fixtures::{History, Hooked, id, until};
use crate::replica::{Core, Options, View};
use crate::store::{ByteRange, Fault, Faults, Op};

const PAGES: u32 = 8000;
const SIZE: u64 = 4096;
/// The interior page of a table.
const ROOT: u32 = 2;
const CHILDREN: u32 = 100;

fn still() -> Options {
    Options { poll_interval: Duration::from_secs(3600), open_timeout: Duration::ZERO, ..Options::default() }
}

/// A database whose page 2 is an interior page with children in an order that is not the file's, and far
/// from each other; and the image of the database before that. Child n has the row n.
fn scattered() -> (History, Vec<u32>, Vec<u8>) {
    let mut history = History::new(4096, 7);
    history.commit(PAGES, &[]);
    history.put(9, 1, 1);
    let mut free: Vec<u32> = (0..CHILDREN).map(|n| 400 + n * 75).collect();
    let children: Vec<u32> =
        (0..CHILDREN).map(|_| free.swap_remove(history.below(free.len() as u64) as usize)).collect();
    let rowids: Vec<u8> = (0..CHILDREN as u8 - 1).collect();
    history.put_sparse(2, PAGES, ROOT, &table(&children, &rowids));
    let image = history.image(1);
    (history, children, image)
}

/// A core, and the ranges of the snapshot that were read since it was opened.
fn recorded(history: &History) -> (Arc<Core>, Arc<Mutex<Vec<ByteRange>>>) {
    let ranges = Arc::new(Mutex::new(Vec::new()));
    let record = ranges.clone();
    let store = Hooked::store(&history.store, move |file: FileId, range| {
        if file == id(9, 1, 1) {
            record.lock().unwrap().push(range);
        }
    });
    let core = Core::with_store(store, &still()).unwrap();
    ranges.lock().unwrap().clear();
    (core, ranges)
}

fn read(view: &mut View, pgno: u32) -> Vec<u8> {
    let mut page = vec![0; SIZE as usize];
    assert_eq!(view.read(&mut page, u64::from(pgno - 1) * SIZE).unwrap(), SIZE as usize);
    page
}

/// Reads page `pgno` and checks that it is what was stored in transaction 1.
fn check(view: &mut View, image: &[u8], pgno: u32) {
    let place = (u64::from(pgno - 1) * SIZE) as usize;
    assert!(read(view, pgno) == image[place..place + SIZE as usize], "page {pgno}");
}

fn len(range: &ByteRange) -> u64 {
    match range {
        ByteRange::Bounded { len, .. } | ByteRange::Prefix { len } | ByteRange::Suffix { len } => *len,
        ByteRange::All => u64::MAX,
    }
}

#[test]
fn a_page_of_a_tree_that_continues_nothing_comes_alone() {
    let (history, children, image) = scattered();
    let (core, ranges) = recorded(&history);
    let mut view = View::new(core);
    read(&mut view, ROOT);
    for n in [50, 10, 90, 30, 70] {
        check(&mut view, &image, children[n]);
    }
    let ranges = ranges.lock().unwrap();
    assert_eq!(ranges.len(), 5);
    assert!(ranges.iter().all(|range| len(range) <= SIZE + 100), "{ranges:?}");
}

/// A database with a root whose `count` children, far from each other, are interior pages with three leaves each.
fn two_levels(count: u32) -> (History, Vec<u32>, Vec<u8>) {
    let mut history = History::new(4096, 7);
    history.commit(PAGES, &[]);
    let children: Vec<u32> = (0..count).map(|n| 100 + n * (PAGES - 200) / count).collect();
    let rowids: Vec<u8> = (1..count as u8).collect();
    history.place(ROOT, &table(&children, &rowids));
    for child in &children {
        history.place(*child, &table(&[child + 1, child + 2, child + 3], &[1, 2]));
    }
    history.put(9, 1, 1);
    let image = history.image(1);
    (history, children, image)
}

#[test]
fn the_second_interior_page_that_is_missing_brings_those_beside_it() {
    let (history, children, image) = two_levels(60);
    let (core, ranges) = recorded(&history);
    let mut view = View::new(core);
    read(&mut view, ROOT);
    // One after another is a scan: it brings what comes next, and no more.
    check(&mut view, &image, children[10]);
    check(&mut view, &image, children[11]);
    let before = ranges.lock().unwrap().len();
    check(&mut view, &image, children[40]);
    until("those beside it", || ranges.lock().unwrap().len() >= before + children.len() - 2);
    children.iter().for_each(|child| check(&mut view, &image, *child));
    assert_eq!(ranges.lock().unwrap().len(), before + children.len() - 2, "a page was asked for twice");
}

#[test]
fn of_many_interior_pages_the_nearest_come_and_the_others_when_more_are_missing() {
    const AT_ONCE: usize = 128;
    let (history, children, image) = two_levels(160);
    let (core, ranges) = recorded(&history);
    let mut view = View::new(core);
    read(&mut view, ROOT);
    check(&mut view, &image, children[5]);
    check(&mut view, &image, children[150]);
    until("the nearest", || ranges.lock().unwrap().len() >= 2 + AT_ONCE);
    let nearest = &children[160 - AT_ONCE - 1..];
    nearest.iter().for_each(|child| check(&mut view, &image, *child));
    assert!(ranges.lock().unwrap().len() <= 2 + AT_ONCE, "more than may come at once");
    check(&mut view, &image, children[10]);
    until("the others", || ranges.lock().unwrap().len() >= children.len());
    children.iter().for_each(|child| check(&mut view, &image, *child));
    assert_eq!(ranges.lock().unwrap().len(), children.len());
}

#[test]
fn a_scan_follows_the_tree_where_the_order_of_the_file_is_another() {
    let (history, children, image) = scattered();
    for backwards in [false, true] {
        let (core, ranges) = recorded(&history);
        let mut view = View::new(core);
        read(&mut view, ROOT);
        let mut order = children.clone();
        if backwards {
            order.reverse();
        }
        // When the requests begin is decided on other threads.
        let (first, rest) = order.split_at(order.len() / 2);
        first.iter().for_each(|child| check(&mut view, &image, *child));
        until("20 pages early", || ranges.lock().unwrap().len() >= first.len() + 20);
        rest.iter().for_each(|child| check(&mut view, &image, *child));
        assert!(ranges.lock().unwrap().len() <= children.len());
    }
}

#[test]
fn a_scan_of_a_table_that_was_filled_in_order_stops_where_the_table_does() {
    // SQLite puts an interior page among its leaves.
    const INTERIOR: [u32; 3] = [120, 220, 320];
    let leaves_of = |page: u32| (page - 20..page).chain(page + 1..page + 80);
    let mut history = History::new(4096, 7);
    history.commit(PAGES, &[]);
    history.put(9, 1, 1);
    history.put_sparse(2, PAGES, ROOT, &table(&INTERIOR, &[1, 2]));
    let rowids: Vec<u8> = (0..98).collect();
    for (txid, page) in (3..).zip(INTERIOR) {
        let leaves: Vec<u32> = leaves_of(page).collect();
        history.put_sparse(txid, PAGES, page, &table(&leaves, &rowids));
    }
    let image = history.image(1);
    let (core, ranges) = recorded(&history);
    let mut view = View::new(core);
    read(&mut view, ROOT);
    for page in INTERIOR {
        read(&mut view, page);
        leaves_of(page).for_each(|leaf| check(&mut view, &image, leaf));
    }
    let before = ranges.lock().unwrap().len();
    assert!(before <= 6, "{before} requests");
    check(&mut view, &image, 450);
    assert_eq!(ranges.lock().unwrap().len(), before + 1, "what is beyond the table came with it");
}

#[test]
fn pages_that_were_split_off_come_together_where_their_parents_are_here() {
    const INTERIOR: [u32; 3] = [120, 220, 320];
    let mut history = History::new(4096, 7);
    history.commit(PAGES, &[]);
    history.put(9, 1, 1);
    history.put_sparse(2, PAGES, ROOT, &table(&INTERIOR, &[1, 2]));
    // Each has a leaf far away among the others.
    let leaves_of = |page: u32| (page - 20..page).chain([page + 5000]).chain(page + 1..page + 80);
    let rowids: Vec<u8> = (0..99).collect();
    for (txid, page) in (3..).zip(INTERIOR) {
        history.put_sparse(txid, PAGES, page, &table(&leaves_of(page).collect::<Vec<_>>(), &rowids));
    }
    let image = history.image(1);
    let (core, ranges) = recorded(&history);
    let mut view = View::new(core);
    read(&mut view, ROOT);
    for page in [120, 220] {
        read(&mut view, page);
        leaves_of(page).for_each(|leaf| check(&mut view, &image, leaf));
    }
    read(&mut view, 320);
    (300..320).for_each(|leaf| check(&mut view, &image, leaf));
    // When the request for the last one begins is decided on another thread.
    let is_far =
        |range: &&ByteRange| matches!(range, ByteRange::Bounded { offset, .. } if *offset > 400 * SIZE);
    until("the last one", || ranges.lock().unwrap().iter().filter(is_far).count() == INTERIOR.len());
    check(&mut view, &image, 5320);
}

#[test]
fn rows_that_an_index_names_come_early() {
    let (mut history, children, image) = scattered();
    let rows: Vec<u8> = (0..CHILDREN).map(|n| (n * 37 % CHILDREN) as u8).collect();
    let mut leaf = vec![0; SIZE as usize];
    leaf[0] = 10;
    leaf[4] = CHILDREN as u8;
    for (n, row) in rows.iter().enumerate() {
        let at = 4000 - 8 * n;
        leaf[8 + 2 * n..][..2].copy_from_slice(&(at as u16).to_be_bytes());
        leaf[at..at + 6].copy_from_slice(&[5, 3, 1, 1, n as u8 / 10, *row]);
    }
    history.commit(PAGES, &[ROOT]);
    history.put_sparse(3, PAGES, 3, &leaf);
    let (core, ranges) = recorded(&history);
    let mut view = View::new(core);
    read(&mut view, ROOT);
    assert!(read(&mut view, 3) == leaf);
    // When the requests begin is decided on other threads.
    let requests = || ranges.lock().unwrap().len();
    let before = requests();
    check(&mut view, &image, children[usize::from(rows[0])]);
    until("those that begin with the same value", || requests() == before + 10);
    check(&mut view, &image, children[usize::from(rows[10])]);
    until("the next 8", || requests() == before + 10 + 1 + 8);
    for row in &rows {
        check(&mut view, &image, children[usize::from(*row)]);
    }
    let offsets: BTreeSet<String> = ranges.lock().unwrap().iter().map(|range| format!("{range:?}")).collect();
    assert_eq!(ranges.lock().unwrap().len(), offsets.len(), "a page was asked for twice");
}

#[test]
fn an_interrupt_ends_a_wait_and_the_next_read_works() {
    let (history, children, image) = scattered();
    let faults = Faults::new(&history.store(), 1);
    let core = Core::with_store(faults.replica(), &still()).unwrap();
    let (mut interrupted, mut other) = (View::new(core.clone()), View::new(core));
    interrupted.ask_for_interrupts(|| true);
    faults.next(Op::Get, Fault::Delay(Duration::from_secs(3600)));
    let page = &mut [0; SIZE as usize];
    let error = interrupted.read(page, u64::from(children[5] - 1) * SIZE).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Interrupted);
    check(&mut other, &image, children[60]);
}

#[test]
fn a_request_that_fails_early_is_made_again_by_who_wants_the_page() {
    let (history, children, image) = scattered();
    let faults = Faults::new(&history.store(), 1);
    let core = Core::with_store(faults.replica(), &still()).unwrap();
    let mut view = View::new(core);
    read(&mut view, ROOT);
    check(&mut view, &image, children[0]);
    check(&mut view, &image, children[1]);
    faults.often(Op::Get, 500, Fault::Refuse(ErrorKind::Unavailable));
    for child in &children[2..] {
        let mut page = vec![0; SIZE as usize];
        while view.read(&mut page, u64::from(child - 1) * SIZE).is_err() {}
        let place = (u64::from(child - 1) * SIZE) as usize;
        assert!(page == image[place..place + SIZE as usize]);
    }
}
