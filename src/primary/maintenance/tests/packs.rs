//! Packs come with large files, and go with them.

use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use super::world::{MINUTE, run, settings};
use crate::clock::{Clock as _, ManualClock, Timestamp};
use crate::error::ErrorKind;
use crate::ltx::{FileId, FrameCodec, IndexEntry, Level, PageIndex, Shape, TailRead, Txid};
use crate::page::Pgno;
use crate::primary::maintenance::compactor::Compactor;
use crate::primary::maintenance::{History, Settings};
use crate::primary::seals::Seals;
use crate::primary::time::Time;
use crate::replica::Pack;
use crate::replica::tests::fixtures::{self, id};
use crate::store::{ByteRange, Fault, Faults, FileInfo, Op};

const PAGES: u32 = 1200;
/// An interior page.
const ROOT: u32 = 700;

/// A database of more than a megabyte, and the compactor of its replica.
struct Large {
    pages: fixtures::History,
    store: Faults,
    clock: Arc<ManualClock>,
    history: Arc<History>,
    compactor: Compactor,
    _folder: TempDir,
}

impl Large {
    fn new(pack: bool, settings: Settings) -> Self {
        let mut pages = fixtures::History::new(4096, 9);
        pages.commit(PAGES, &[]);
        pages.begin_as_sqlite();
        pages.place(ROOT, &interior());
        pages.put(0, 1, 1);
        pages.commit(PAGES, &[5]);
        pages.put(0, 2, 2);
        let store = Faults::new(&pages.store, 1);
        let clock = Arc::new(ManualClock::new(pages.time(2)));
        let (history, folder) = (Arc::new(History::default()), tempfile::tempdir().unwrap());
        let time = Arc::new(Time::new(clock.clone(), store.replica()));
        history.begin(Txid::new(2), 7);
        let compactor = Compactor::new(
            store.replica(),
            (pack, Arc::new(Seals::none())),
            settings,
            time,
            Arc::clone(&history),
            folder.path().to_owned(),
        );
        Self { pages, store, clock, history, compactor, _folder: folder }
    }

    fn pass(&mut self, time: Duration) {
        self.clock.set(Timestamp::from_millis(self.clock.now().as_millis() + time.as_millis() as i64));
        run(self.compactor.round()).unwrap();
    }

    /// Publishes a change.
    fn commit(&mut self) {
        let txid = self.pages.commit(PAGES, &[5]);
        let file = self.pages.put(0, txid, txid);
        let file = run(self.store.replica().head(file)).unwrap();
        self.history.published(FileInfo { timestamp: self.clock.now(), ..file }, self.clock.now(), None);
    }

    /// Merges the first files into all levels, and makes a snapshot of them and one more.
    fn snapshot(&mut self) -> FileId {
        self.pass(MINUTE * 70);
        self.commit();
        self.pass(MINUTE * 30);
        id(9, 1, 3)
    }

    fn packs(&self) -> Vec<FileId> {
        run(self.pages.store.packs()).unwrap()
    }

    fn files(&self, level: u8) -> Vec<FileId> {
        let files = run(self.pages.store.list(Level::new(level).unwrap(), Txid::ONE)).unwrap();
        files.into_iter().map(|file| file.id).collect()
    }
}

/// An interior page of a table with two children.
fn interior() -> Vec<u8> {
    let mut page = vec![0; 4096];
    page[0] = 5;
    page[3..5].copy_from_slice(&1_u16.to_be_bytes());
    page[8..12].copy_from_slice(&(ROOT + 2).to_be_bytes());
    page[12..14].copy_from_slice(&2000_u16.to_be_bytes());
    page[2000..2004].copy_from_slice(&(ROOT + 1).to_be_bytes());
    page
}

#[test]
fn a_snapshot_gets_a_pack_of_its_own_frames() {
    let mut large = Large::new(true, settings());
    let snapshot = large.snapshot();
    assert!(large.packs().contains(&snapshot));
    let store = &large.pages.store;
    let info = run(store.head(snapshot)).unwrap();
    let bytes = run(async { store.get_pack(snapshot, ByteRange::All).await?.bytes().await }).unwrap();
    let (file, pack) = (
        store.bytes_of(snapshot),
        Pack::parse(&info, bytes, &FrameCodec::plain(large.pages.page_size)).unwrap(),
    );
    assert_eq!(file[file.len() - 8..], pack.checksum().to_be_bytes());
    let TailRead::Index(index) = PageIndex::from_tail(&file, info.size, Shape::PLAIN).unwrap() else {
        panic!("the whole file has its index")
    };
    let in_pack: Vec<IndexEntry> = index.iter().filter(|entry| pack.frame(*entry).is_some()).collect();
    assert_eq!(
        in_pack.iter().map(|entry| entry.pgno).collect::<Vec<_>>(),
        [1, ROOT].map(|n| Pgno::new(n).unwrap())
    );
    for entry in in_pack {
        let place = entry.offset as usize..(entry.offset + entry.size) as usize;
        assert_eq!(pack.frame(entry).unwrap(), &file[place]);
    }
}

#[test]
fn packs_go_with_their_files_and_so_do_those_that_others_left() {
    let mut large = Large::new(true, settings());
    large.pages.put_pack(id(9, 1, 77), vec![1, 2, 3].into());
    large.pages.store.put_raw("vfs/notes.txt", vec![1].into(), large.pages.time(1));
    let first = large.snapshot();
    assert!(!large.packs().contains(&id(9, 1, 77)), "it is one of no file");
    assert!(large.packs().contains(&first));
    for _ in 0..3 {
        large.commit();
        large.pass(MINUTE * 30);
    }
    assert!(!large.files(9).contains(&first) && !large.packs().contains(&first));
    let all: Vec<FileId> = (0..=9).flat_map(|level| large.files(level)).collect();
    assert!(large.packs().iter().all(|pack| all.contains(pack)), "{:?}", large.packs());
    assert!(large.pages.store.keys().contains(&"vfs/notes.txt".to_owned()), "it is not ours");
}

#[test]
fn without_packs_there_are_none() {
    let mut large = Large::new(false, settings());
    let snapshot = large.snapshot();
    assert_eq!((large.files(9), large.packs()), (vec![snapshot], vec![]));
}

#[test]
fn a_store_that_takes_no_packs_gets_all_else() {
    let mut large = Large::new(true, settings());
    // The files of levels go in parts; only a pack is put at once.
    large.store.often(Op::Put, 1000, Fault::Refuse(ErrorKind::Denied));
    let snapshot = large.snapshot();
    assert_eq!((large.files(9), large.packs()), (vec![snapshot], vec![]));
    let content = run(async { large.pages.store.get(snapshot, ByteRange::All).await?.bytes().await });
    assert!(content.unwrap().len() > 1 << 20);
}
