//! Records as they cannot be, or hardly.

use crate::page::{PageCount, PageSize, Pgno};
use crate::primary::PageSet;
use crate::primary::dirty::record::{Begin, End, Record};
use crate::primary::dirty::walk::{Walk, walk};
use crate::primary::dirty::{Cursor, Position};
use crate::primary::file_fingerprint::Stamp;
use crate::wal::{Checksum, FrameNo, IndexHeader, Salts};

fn header(salt: u32, frame: u32, checksum: u32, change: u32) -> IndexHeader {
    IndexHeader {
        change,
        page_size: Some(PageSize::MIN),
        mx_frame: FrameNo(frame),
        page_count: PageCount::new(10),
        frame_checksum: Checksum(checksum, 0),
        salts: Salts(salt, 0),
    }
}

fn stamp(n: u64) -> Stamp {
    Stamp::from_words([n; 5])
}

fn end(index: IndexHeader, page: u32, seen: &[(u32, u32)], closed: Option<Stamp>) -> Record {
    let seen = seen.iter().map(|(frame, checksum)| (FrameNo(*frame), Checksum(*checksum, 0))).collect();
    Record::End(End { index, pages: set(&[page]), seen, recent: set(&[page]), closed })
}

fn begin(salt: u32, before: IndexHeader, file: u64) -> Record {
    Record::Begin(Begin { salts: Salts(salt, 0), before, file: Some(stamp(file)) })
}

fn set(pages: &[u32]) -> PageSet {
    pages.iter().filter_map(|page| Pgno::new(*page)).collect()
}

/// A cursor in generation 1.
fn cursor() -> Cursor {
    Cursor::At(Position::end_of(&header(1, 5, 55, 5)))
}

/// Generation 1 ended with frame 9, and 2 began upon it.
fn two() -> Vec<Record> {
    vec![end(header(1, 9, 99, 9), 7, &[(5, 55)], None), begin(2, header(11, 0, 99, 9), 1)]
}

fn from_two(records: &[Record]) -> Walk {
    walk(&header(2, 3, 33, 12), None, &cursor(), records)
}

fn is_broken(walk: &Walk) -> bool {
    matches!(walk, Walk::Broken(_))
}

#[test]
fn a_link_needs_checksum_and_counter_and_the_frame_of_the_cursor() {
    assert_eq!(from_two(&two()), Walk::Arrived(set(&[7])));
    for index in [header(1, 9, 98, 9), header(1, 9, 99, 8)] {
        assert!(is_broken(&from_two(&[end(index, 7, &[(5, 55)], None), two().remove(1)])));
    }
    for seen in [&[][..], &[(5, 54)], &[(4, 55)]] {
        assert!(is_broken(&from_two(&[end(header(1, 9, 99, 9), 7, seen, None), two().remove(1)])));
    }
    assert!(is_broken(&from_two(&two()[..1])) && is_broken(&from_two(&two()[1..])));
}

/// The rule: a checksum of 0 proves nothing.
#[test]
fn a_checksum_of_zero_links_nothing() {
    let records = [end(header(1, 9, 0, 0), 7, &[(5, 55), (5, 0)], None), begin(2, header(11, 0, 0, 0), 1)];
    assert!(is_broken(&from_two(&records)));
    let at_nothing = Cursor::At(Position::end_of(&header(11, 5, 0, 0)));
    assert!(is_broken(&walk(&header(2, 3, 33, 12), None, &at_nothing, &records)));
    assert!(is_broken(&walk(&header(11, 0, 0, 0), None, &at_nothing, &[])));
}

#[test]
fn records_that_lead_round_in_a_circle_end() {
    let circle =
        [begin(2, header(3, 0, 0, 0), 1), begin(3, header(4, 0, 0, 0), 1), begin(4, header(2, 0, 0, 0), 1)];
    assert!(is_broken(&from_two(&circle)));
    assert!(is_broken(&from_two(&[begin(2, header(2, 0, 0, 0), 1)])));
    let circle = [end(header(2, 9, 99, 9), 7, &[], None), begin(2, header(11, 0, 99, 9), 1)];
    assert!(is_broken(&from_two(&circle)));
}

#[test]
fn salts_that_repeat_are_told_apart_or_not_believed() {
    let mut records = two();
    records.push(begin(2, header(12, 0, 77, 7), 1));
    assert!(is_broken(&from_two(&records)));
    // Written again after its transaction was rolled back, or after a recovery.
    let mut records = two();
    records.extend([two().remove(1), begin(2, header(2, 0, 0, 0), 5)]);
    assert_eq!(from_two(&records), Walk::Arrived(set(&[7])));
    // Another generation with the same end cannot be.
    let mut records = two();
    records.push(end(header(8, 9, 99, 9), 6, &[(5, 55)], None));
    assert!(is_broken(&from_two(&records)));
}

/// The rule: a recovery that found no commit is believed only where none is known.
#[test]
fn a_generation_that_had_commits_is_not_passed_as_empty() {
    let mut records = two();
    let view = header(2, 0, 0, 0);
    assert_eq!(walk(&view, None, &cursor(), &records), Walk::Arrived(set(&[7])));
    records.push(end(header(2, 3, 33, 12), 8, &[], None));
    assert!(is_broken(&walk(&view, None, &cursor(), &records)));
}

/// The rule: the cursor's own generation may have gone on with frames that SQLite did not seal, after a recovery began to
/// count again: to the same checksum and counter.
#[test]
fn an_end_beyond_the_cursor_with_its_checksum_and_counter_is_not_the_cursor() {
    let records = [end(header(1, 9, 55, 5), 7, &[(5, 55)], None), begin(2, header(11, 0, 55, 5), 1)];
    assert_eq!(from_two(&records), Walk::Arrived(set(&[7])));
}

#[test]
fn without_a_stamp_a_close_links_nothing() {
    let closed = |closed| end(header(1, 9, 99, 9), 7, &[(5, 55)], closed);
    let view = header(0, 0, 0, 0);
    let look = |record, file| walk(&view, file, &cursor(), &[record]);
    assert_eq!(look(closed(Some(stamp(1))), Some(stamp(1))), Walk::Arrived(set(&[7])));
    assert!(is_broken(&look(closed(Some(stamp(1))), Some(stamp(2)))));
    assert!(is_broken(&look(closed(None), None)) && is_broken(&look(closed(None), Some(stamp(1)))));
}

#[test]
fn a_cursor_at_the_file_is_where_the_file_had_its_stamp_and_no_commit_was() {
    let from = |n| Cursor::File(stamp(n));
    let records = [end(header(1, 9, 99, 9), 7, &[], None), begin(1, header(0, 0, 0, 0), 1), two().remove(1)];
    let view = header(2, 3, 33, 12);
    assert_eq!(walk(&view, None, &from(1), &records), Walk::Arrived(set(&[7])));
    assert!(is_broken(&walk(&view, None, &from(2), &records)));
    assert_eq!(walk(&header(0, 0, 0, 0), Some(stamp(1)), &from(1), &[]), Walk::Arrived(set(&[])));
    assert!(is_broken(&walk(&header(0, 0, 99, 9), Some(stamp(1)), &from(1), &[])));
}

/// A checkpoint that finds no WAL gives the index salts that no generation has.
#[test]
fn an_index_whose_salts_nobody_wrote_is_upon_the_file() {
    let closed = || end(header(1, 9, 99, 9), 7, &[(5, 55)], Some(stamp(1)));
    let view = header(6, 0, 0, 0);
    let look = |file| walk(&view, file, &cursor(), &[closed()]);
    assert_eq!(look(Some(stamp(1))), Walk::Arrived(set(&[7])));
    assert!(is_broken(&look(Some(stamp(2)))) && is_broken(&look(None)));
    assert_eq!(from_two(&[closed(), begin(2, view, 1)]), Walk::Arrived(set(&[7])));
    assert!(is_broken(&from_two(&[closed(), begin(2, view, 2)])));
    // It had commits once, and lost them.
    let records = [closed(), end(header(6, 3, 33, 12), 8, &[], None)];
    assert!(is_broken(&walk(&view, Some(stamp(1)), &cursor(), &records)));
}

/// The file was looked at twice while the WAL had no commit: under a generation that began upon the cursor's, whose WAL is
/// gone, and under the salts that a checkpoint then gave the index, with which the next generation began.
#[test]
fn a_look_at_the_file_under_salts_that_began_upon_it_does_not_hide_an_earlier_one() {
    let looked = |salt| end(header(salt, 0, 0, 0), 6, &[], Some(stamp(1)));
    let mut records = two();
    records.extend([looked(2), looked(3), begin(3, header(3, 0, 0, 0), 1)]);
    let found = walk(&header(3, 4, 44, 1), None, &cursor(), &records);
    assert_eq!(found, Walk::Arrived(set(&[6, 7])));
    records.extend([end(header(3, 4, 44, 1), 8, &[], None), begin(4, header(4, 0, 44, 1), 2)]);
    let view = header(4, 2, 22, 2);
    assert_eq!(walk(&view, None, &cursor(), &records), Walk::Arrived(set(&[6, 7, 8])));
    // Whether that generation had commits before the file was looked at is not known.
    records.push(end(header(2, 3, 33, 12), 5, &[], None));
    assert!(is_broken(&walk(&view, None, &cursor(), &records)));
}

/// SQLite did not seal the last frame: the record names no commit, and has the pages.
#[test]
fn a_look_at_the_file_does_not_hide_the_end_of_a_generation_with_frames() {
    let looked = end(header(2, 0, 0, 0), 6, &[], Some(stamp(1)));
    let ended = end(header(4, 3, 0, 0), 8, &[], Some(stamp(1)));
    let mut records = two();
    records.extend([looked, ended, begin(4, header(3, 0, 0, 0), 9), begin(5, header(5, 0, 0, 0), 1)]);
    let found = walk(&header(5, 4, 44, 1), None, &cursor(), &records);
    assert!(is_broken(&found), "{found:?}");
}
