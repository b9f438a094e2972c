//! Records in files: what was written is read, and nothing else; what is needed stays, and nothing else.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::world::Index;
use crate::files::state_folder;
use crate::page::{PageCount, PageSize, Pgno};
use crate::primary::PageSet;
use crate::primary::dirty::record::{Begin, End, Record};
use crate::primary::dirty::walk::{Walk, walk};
use crate::primary::dirty::{Cursor, Journal, Mark, Position, Recorder};
use crate::primary::file_fingerprint::Stamp;
use crate::primary::hooks::Measures;
use crate::wal::{Checksum, FrameNo, IndexHeader, Salts};

fn header(salt: u32, frame: u32, checksum: u32) -> IndexHeader {
    IndexHeader {
        change: checksum,
        page_size: PageSize::new(checksum).ok(),
        mx_frame: FrameNo(frame),
        page_count: PageCount::new(frame),
        frame_checksum: Checksum(checksum, 1),
        salts: Salts(salt, 2),
    }
}

fn end(salt: u32) -> Record {
    let index = header(salt, 9, salt * 10);
    Record::End(End {
        index,
        pages: PageSet::between(PageCount::new(0), PageCount::new(9)),
        seen: Vec::new(),
        recent: PageSet::default(),
        closed: None,
    })
}

fn begin(salt: u32) -> Record {
    Record::Begin(Begin { salts: Salts(salt, 2), before: header(77, 0, (salt - 1) * 10), file: None })
}

fn at(salt: u32) -> Cursor {
    Cursor::At(Position::end_of(&header(salt, 3, 3)))
}

fn journal() -> (tempfile::TempDir, PathBuf, Journal) {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("app.db");
    fs::write(&database, "").unwrap();
    fs::set_permissions(&database, fs::Permissions::from_mode(0o640)).unwrap();
    let state = state_folder(&database);
    let journal = Journal::new(&state);
    (folder, state.join("generations"), journal)
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn records() -> impl Strategy<Value = Record> {
    let index = (any::<[u32; 3]>(), prop::sample::select(vec![0, 512, 4096, 65536]));
    let index = index.prop_map(|([salt, frame, checksum], page_size)| IndexHeader {
        page_size: PageSize::new(page_size).ok(),
        ..header(salt, frame, checksum)
    });
    let stamp = || prop::option::of(any::<[u64; 5]>().prop_map(Stamp::from_words));
    let pages = prop::collection::vec(prop_oneof![1..9000_u32, 1..=u32::MAX], 0..300);
    let seen = prop::collection::vec(any::<[u32; 3]>(), 0..4);
    (index, stamp(), pages, seen, any::<[u32; 2]>(), any::<bool>()).prop_map(
        |(index, stamp, pages, seen, salts, is_end)| {
            if is_end {
                let pages = pages.into_iter().filter_map(Pgno::new).collect();
                let seen = seen.into_iter().map(|[frame, a, b]| (FrameNo(frame), Checksum(a, b))).collect();
                let recent = PageSet::between(PageCount::new(0), PageCount::new(3));
                Record::End(End { index, pages, seen, recent, closed: stamp })
            } else {
                Record::Begin(Begin { salts: Salts(salts[0], salts[1]), before: index, file: stamp })
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn records_are_read_as_they_were_written(written in prop::collection::vec(records(), 1..4), cut in any::<u16>()) {
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        for record in &written {
            record.encode(&mut bytes);
            ends.push(bytes.len());
        }
        let cut = usize::from(cut) % (bytes.len() + 1);
        let whole = ends.iter().filter(|end| **end <= cut).count();
        let mut rest = &bytes[..cut];
        let read: Vec<_> = std::iter::from_fn(|| Record::decode(&mut rest)).collect();
        prop_assert_eq!(&read[..], &written[..whole]);
    }

    #[test]
    fn a_damaged_record_is_none(record in records(), at in any::<u16>(), bit in 0..8_u8) {
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        let at = usize::from(at) % bytes.len();
        bytes[at] ^= 1 << bit;
        prop_assert_eq!(Record::decode(&mut bytes.as_slice()), None);
    }
}

#[test]
fn a_full_file_is_followed_by_another() {
    let (_folder, folder, journal) = journal();
    assert_eq!(journal.records().unwrap(), []);
    let written: Vec<Record> = (1..2000).map(end).collect();
    written.iter().for_each(|record| journal.append(record).unwrap());
    let files = files(&folder);
    assert!(files.len() > 1);
    for file in &files {
        let meta = fs::metadata(file).unwrap();
        assert!(meta.len() < 65 * 1024 && meta.permissions().mode() & 0o777 == 0o640);
    }
    let mut read = journal.records().unwrap();
    read.sort_by_key(|record| match record {
        Record::End(end) => end.index.salts.0,
        Record::Begin(_) => 0,
    });
    assert_eq!(read, written);
}

#[test]
fn what_is_no_record_ends_its_file_and_no_other() {
    let (_folder, folder, journal) = journal();
    journal.append(&end(1)).unwrap();
    let torn = files(&folder).remove(0);
    let bytes = fs::read(&torn).unwrap();
    fs::write(folder.join("1-torn.pages"), &bytes[..bytes.len() - 1]).unwrap();
    fs::write(folder.join("2-garbage.pages"), [7; 5000]).unwrap();
    fs::write(folder.join("3-empty.pages"), "").unwrap();
    let mut longer = bytes.clone();
    longer.extend([0xff; 40]);
    fs::write(folder.join("4-longer.pages"), longer).unwrap();
    fs::write(folder.join("positions"), &bytes).unwrap();
    fs::create_dir(folder.join("5-folder.pages")).unwrap();
    assert_eq!(journal.records().unwrap(), [end(1), end(1)]);
}

#[test]
fn a_file_that_cannot_be_written_costs_its_record_only() {
    let (_folder, folder, journal) = journal();
    crate::files::create_folders(folder.parent().unwrap()).unwrap();
    fs::write(&folder, "in the way").unwrap();
    let error = journal.append(&end(1)).unwrap_err().to_string();
    assert!(error.contains("generations"), "{error}");
    fs::remove_file(&folder).unwrap();
    journal.append(&end(2)).unwrap();
    // Deleted while it is open, by whoever took this process for gone.
    fs::remove_file(files(&folder).remove(0)).unwrap();
    journal.append(&end(3)).unwrap();
    assert_eq!(journal.records().unwrap(), [end(3)]);
}

#[test]
fn a_forked_child_writes_a_file_of_its_own() {
    let (_folder, folder, journal) = journal();
    journal.append(&end(1)).unwrap();
    journal.pretend_forked();
    journal.append(&end(2)).unwrap();
    assert_eq!((files(&folder).len(), journal.records().unwrap().len()), (2, 2));
}

#[test]
fn threads_write_whole_records() {
    let (_folder, _, journal) = journal();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (1..200).for_each(|salt| journal.append(&end(salt)).unwrap()));
        }
    });
    assert_eq!(journal.records().unwrap().len(), 4 * 199);
}

/// Files of processes that are gone, each with the end of one generation and the beginning of the next.
fn left(folder: &Path, generations: std::ops::Range<u32>) {
    for salt in generations {
        let other = Journal::new(folder.parent().unwrap());
        other.append(&end(salt)).unwrap();
        other.append(&begin(salt + 1)).unwrap();
    }
}

fn ends(journal: &Journal) -> Vec<u32> {
    let mut ends: Vec<u32> = journal
        .records()
        .unwrap()
        .iter()
        .filter_map(|record| match record {
            Record::End(end) => Some(end.index.salts.0),
            Record::Begin(_) => None,
        })
        .collect();
    ends.sort_unstable();
    ends
}

/// FATAL without the rule: the records of a cursor's generation stay, and those of the one before, which may be found in
/// the WAL again; and all that are later than the view.
#[test]
fn only_files_behind_every_cursor_are_deleted() {
    let (_folder, folder, journal) = journal();
    left(&folder, 1..7);
    let mark = journal.mark();
    left(&folder, 7..8);
    journal.delete_behind(&mark, &[]);
    journal.delete_behind(&mark, &[at(6), Cursor::File(Stamp::from_words([1; 5]))]);
    journal.delete_behind(&mark, &[Cursor::At(Position::end_of(&header(6, 0, 60)))]);
    journal.delete_behind(&Mark::default(), &[at(6)]);
    assert_eq!(ends(&journal), [1, 2, 3, 4, 5, 6, 7]);
    // Generation 3 is right before 4, and its beginning is in the file of the end of 2.
    journal.delete_behind(&mark, &[at(6), at(4)]);
    assert_eq!(ends(&journal), [2, 3, 4, 5, 6, 7]);
    journal.delete_behind(&mark, &[at(6)]);
    assert_eq!(ends(&journal), [4, 5, 6, 7]);
}

#[test]
fn a_file_that_is_written_stays() {
    let (_folder, folder, journal) = journal();
    journal.append(&end(1)).unwrap();
    let delete = || journal.delete_behind(&journal.mark(), &[at(50)]);
    delete();
    assert_eq!(ends(&journal), [1]);
    // Of a process that lives, which has written no other.
    left(&folder, 2..3);
    let ours = format!("{}-", std::process::id());
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    let own = journal.own_file().unwrap();
    let other = files(&folder).into_iter().find(|path| *path != own).unwrap();
    let of_parent =
        folder.join(name(&other).replace(&ours, &format!("{}-", std::os::unix::process::parent_id())));
    fs::rename(&other, &of_parent).unwrap();
    delete();
    assert_eq!(ends(&journal), [1, 2]);
    // It has begun another.
    let newer = of_parent.with_file_name(name(&of_parent).replace(".pages", "0.pages"));
    fs::write(&newer, "").unwrap();
    let later = fs::metadata(&of_parent).unwrap().modified().unwrap() + std::time::Duration::from_secs(1);
    fs::File::options().write(true).open(&newer).unwrap().set_modified(later).unwrap();
    delete();
    assert_eq!(ends(&journal), [1]);
    // Grown since the mark.
    left(&folder, 3..4);
    let grown = files(&folder).into_iter().find(|path| *path != own && *path != newer).unwrap();
    let mark = journal.mark();
    let bytes = fs::read(&grown).unwrap();
    fs::write(&grown, [bytes.as_slice(), &bytes].concat()).unwrap();
    journal.delete_behind(&mark, &[at(50)]);
    assert_eq!(ends(&journal)[..2], [1, 3]);
}

/// A checkpoint that finds the WAL emptied, without a commit, leaves the file as a cursor names it: the generation that begins
/// next is found from there. What was written since is still told.
#[test]
fn a_close_that_finds_nothing_new_leaves_the_stamp() {
    let emptied = IndexHeader { change: 0, frame_checksum: Checksum::default(), ..header(5, 0, 512) };
    for round in 0..20 {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("app.db");
        fs::write(&database, "one").unwrap();
        let recorder = Recorder::new(&state_folder(&database), &folder.path().join("app.db-wal"));
        let found = |cursor: Option<Stamp>| {
            let (now, records) = (Stamp::of(&database), recorder.journal().records().unwrap());
            walk(&emptied, now, &Cursor::File(cursor.unwrap()), &records)
        };
        let cursor = recorder.journal().seal(&emptied, &database);
        let mut index = Index { header: emptied, pages: Vec::new() };
        recorder.generation_closes(&mut index, &database);
        assert_eq!(found(cursor), Walk::Arrived(PageSet::default()), "round {round}");
        fs::write(&database, "two").unwrap();
        recorder.generation_closes(&mut index, &database);
        assert!(matches!(found(cursor), Walk::Broken(_)), "round {round}");
    }
}

/// A close that knew page size and size of the database says them of the file as it left it, and of no other. One that did
/// not know them, as after an open that only read, says nothing to the contrary.
#[test]
fn the_measures_of_a_file_are_those_of_its_close() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("app.db");
    fs::write(&database, [1; 3 * 512]).unwrap();
    let recorder = Recorder::new(&state_folder(&database), &folder.path().join("app.db-wal"));
    let measures = || recorder.journal().measures(&Stamp::of(&database).unwrap());
    let closes = |header: IndexHeader| {
        recorder.generation_closes(&mut Index { header, pages: Vec::new() }, &database);
    };
    let emptied = |pages: u32, page_size: Option<PageSize>| {
        let page_count = PageCount::new(pages);
        IndexHeader { page_size, page_count, ..header(5, 0, 7) }
    };
    closes(emptied(0, None));
    assert_eq!(measures(), None);
    let three = Measures { page_size: PageSize::MIN, pages: PageCount::new(3) };
    closes(emptied(3, Some(PageSize::MIN)));
    closes(emptied(0, None));
    assert_eq!(measures(), Some(three));
    fs::write(&database, [2; 3 * 512]).unwrap();
    assert_eq!(measures(), None, "somebody wrote it");
    closes(emptied(4, Some(PageSize::MIN)));
    assert_eq!(measures(), None, "it has another size");
    closes(emptied(3, Some(PageSize::MIN)));
    assert_eq!(measures(), None, "two records say two things");
}

#[test]
fn a_restored_file_has_its_pages() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("app.db");
    fs::write(&database, [1; 3 * 1024]).unwrap();
    let journal = Journal::new(&state_folder(&database));
    let restored = journal.seal_restored(&database, PageCount::new(3));
    let page_size = PageSize::new(1024).unwrap();
    let measures = || journal.measures(&Stamp::of(&database).unwrap());
    assert_eq!(restored, Stamp::of(&database));
    assert_eq!(measures(), Some(Measures { page_size, pages: PageCount::new(3) }));
    fs::write(&database, [1; 3 * 1024]).unwrap();
    assert_eq!(measures(), None);
    let _ = journal.seal_restored(&database, PageCount::new(5));
    assert_eq!(measures(), None);
}
