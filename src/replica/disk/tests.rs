//! What is on disk is what was kept, or nothing.

mod restarts;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::thread;

use proptest::prelude::*;

use super::segment::SEGMENT;
use super::*;
use crate::clock::Timestamp;
use crate::error::ErrorKind;
use crate::ltx::sealing::{keyring, seal};
use crate::ltx::{Header, IndexEntry, Keyring, Outline, OutlineRead, PageIndex, Plain};
use crate::page::{PageSize, Pgno};
use crate::replica::tests::fixtures::{History, id};

const MIB: u64 = 1024 * 1024;
const HOUR: Duration = Duration::from_secs(3600);

fn options(folder: &Path, bytes: u64) -> DiskOptions {
    DiskOptions { folder: folder.to_owned(), bytes }
}

fn open(folder: &Path) -> Arc<Disk> {
    Disk::open(&options(folder, 64 * MIB), "s3://bucket/app").unwrap()
}

fn info(max: u64, size: u64) -> FileInfo {
    FileInfo { id: id(0, 1, max), size, timestamp: Timestamp::from_millis(max as i64) }
}

/// An LTX file of `pages` pages.
struct Sample {
    bytes: Vec<u8>,
    info: FileInfo,
    index: PageIndex,
    page_size: PageSize,
    image: Vec<u8>,
    outline: Outline,
    /// What opens it.
    keyring: Keyring,
}

impl Sample {
    fn new(page_size: u32, pages: u32) -> Self {
        let mut history = History::new(page_size, u64::from(pages));
        history.commit(pages, &[]);
        Self::of(&history, history.encode(1, 1).to_vec(), Keyring::default())
    }

    /// The same file, sealed.
    fn sealed(page_size: u32, pages: u32) -> Self {
        let mut history = History::new(page_size, u64::from(pages));
        history.commit(pages, &[]);
        Self::of(&history, seal(&history.encode(1, 1), &[1, 2]), keyring(&[2], Plain::None))
    }

    fn of(history: &History, bytes: Vec<u8>, keyring: Keyring) -> Self {
        let info = info(1, bytes.len() as u64);
        let OutlineRead::Outline(outline) = Outline::read(&bytes, &bytes, info.size, &keyring).unwrap()
        else {
            panic!("no index")
        };
        let (index, outline) = (outline.index.clone(), *outline);
        Self { info, index, page_size: history.page_size, image: history.image(1), bytes, outline, keyring }
    }

    fn entries(&self) -> Vec<IndexEntry> {
        self.index.iter().collect()
    }

    fn page(&self, pgno: Pgno) -> &[u8] {
        &self.image[pgno.index() * self.page_size.bytes()..][..self.page_size.bytes()]
    }

    /// Header and page index, as they are to be.
    fn known(&self) -> (Header, PageIndex) {
        (self.outline.header, self.index.clone())
    }

    fn keep_outline(&self, file: &DiskFile) {
        file.keep_outline(&self.outline, &self.bytes, &self.bytes, self.info.size);
    }

    /// Header and page index, as they are on disk.
    fn kept(&self, file: &DiskFile) -> Option<(Header, PageIndex)> {
        let outline = file.outline(self.info.size, &self.keyring)?;
        Some((outline.header, outline.index))
    }

    /// Keeps all frames of which `which` says so, as they would arrive: from somewhere in the file on.
    fn keep(&self, file: &DiskFile, which: impl Fn(&IndexEntry) -> bool) {
        let entries: Vec<_> = self.entries().into_iter().filter(which).collect();
        let Some(start) = entries.first().map(|entry| entry.offset) else { return };
        file.keep(entries, start, &self.bytes[start as usize..]);
    }

    /// Whether the page is on disk; it must then be right.
    fn has(&self, file: &DiskFile, entry: IndexEntry) -> bool {
        let mut page = vec![0xee; self.page_size.bytes()];
        let found = file.read(entry, &self.outline.codec, &mut page);
        assert!(!found || page == self.page(entry.pgno), "page {}", entry.pgno);
        found
    }
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files_below(&path)) } else { found.push(path) }
    }
    found
}

fn taken(folder: &Path) -> u64 {
    files_below(folder).iter().map(|path| path.metadata().unwrap().blocks() * 512).sum()
}

#[test]
fn what_was_kept_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let sample = Sample::new(4096, 4000);
    assert!(sample.info.size > 2 * SEGMENT - SEGMENT / 4, "{}", sample.info.size);
    let file = open(folder.path()).file(&sample.info);
    assert!(sample.kept(&file).is_none());
    sample.keep_outline(&file);
    sample.keep(&file, |entry| entry.pgno.get() % 3 != 0);

    let file = open(folder.path()).file(&sample.info);
    assert_eq!(sample.kept(&file), Some(sample.known()));
    for entry in sample.entries() {
        assert_eq!(sample.has(&file, entry), entry.pgno.get() % 3 != 0, "page {}", entry.pgno);
    }
    sample.keep(&file, |entry| entry.pgno.get() % 3 == 0);
    assert!(sample.entries().into_iter().all(|entry| sample.has(&file, entry)));
}

#[test]
fn nobody_else_can_look_into_it() {
    let folder = tempfile::tempdir().unwrap();
    let sample = Sample::new(512, 20);
    let file = open(folder.path()).file(&sample.info);
    sample.keep_outline(&file);
    sample.keep(&file, |_| true);
    for path in files_below(folder.path()) {
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{path:?}");
        assert_eq!(path.parent().unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o700);
    }
    assert_eq!(files_below(folder.path()).len(), 2, "no temporary file is left");
}

#[test]
fn another_file_is_not_taken_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let sample = Sample::new(512, 20);
    let file = open(folder.path()).file(&sample.info);
    sample.keep_outline(&file);
    sample.keep(&file, |_| true);
    let other_place = Disk::open(&options(folder.path(), 64 * MIB), "s3://bucket/other").unwrap();
    let later = FileInfo { timestamp: Timestamp::from_millis(2), ..sample.info.clone() };
    let longer = FileInfo { size: sample.info.size + 1, ..sample.info.clone() };
    let others =
        [other_place.file(&sample.info), open(folder.path()).file(&later), open(folder.path()).file(&longer)];
    for other in others {
        assert!(sample.kept(&other).is_none() && !sample.has(&other, sample.entries()[3]));
        // Not even if its content gets into the wrong folder.
        create_folder(&other.folder).unwrap();
        for path in files_below(&file.folder) {
            fs::copy(&path, other.folder.join(path.file_name().unwrap())).unwrap();
        }
        assert!(sample.kept(&other).is_none() && !sample.has(&other, sample.entries()[3]));
    }
    // A frame that is at the place of another one is not taken for that one either.
    let (first, second) = (sample.entries()[0], sample.entries()[1]);
    let moved = IndexEntry { offset: second.offset, ..first };
    assert!(!file.read(moved, &sample.outline.codec, &mut [0; 512]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    /// Any damage is a miss, and what is not damaged is found.
    #[test]
    fn damage_is_a_miss(at in 0.0..1.0f64, mask in 1u8.., cut: bool) {
        let folder = tempfile::tempdir().unwrap();
        let sample = Sample::new(512, 30);
        let file = open(folder.path()).file(&sample.info);
        sample.keep_outline(&file);
        sample.keep(&file, |_| true);
        let entries = sample.entries();
        let (first, last) = (entries[0].offset as usize, entries[29].offset as usize);
        for path in files_below(folder.path()) {
            let is_index = path.ends_with("index");
            let mut bytes = fs::read(&path).unwrap();
            let low = if is_index { 0 } else { first };
            let place = low + ((bytes.len() - low) as f64 * at) as usize;
            if cut { bytes.truncate(place) } else { bytes[place] ^= mask }
            fs::write(&path, &bytes).unwrap();
            if is_index {
                prop_assert!(sample.kept(&file).is_none());
                continue;
            }
            prop_assert!(place <= last + entries[29].size as usize);
            for entry in &entries {
                let (start, end) = (entry.offset as usize, (entry.offset + entry.size) as usize);
                let hurt = if cut { end > place } else { (start..end).contains(&place) };
                prop_assert_eq!(sample.has(&file, *entry), !hurt);
            }
        }
        // It is repaired by keeping it again.
        sample.keep_outline(&file);
        sample.keep(&file, |_| true);
        prop_assert!(sample.kept(&file).is_some());
        prop_assert!(entries.iter().all(|entry| sample.has(&file, *entry)));
    }
}

#[test]
fn the_size_is_kept_and_what_was_not_used_for_long_goes_first() {
    let folder = tempfile::tempdir().unwrap();
    let size = 64 * MIB;
    let disk = Disk::open(&options(folder.path(), size), "place").unwrap();
    let sample = Sample::new(4096, 1500);
    let part = taken_by(&sample);
    let count = 3 * size / part;
    for n in 1..=count {
        let file = disk.file(&info(n, sample.info.size));
        sample.keep_outline(&file);
        sample.keep(&file, |_| true);
        assert!(taken(folder.path()) <= size, "{} bytes after {n} files", taken(folder.path()));
        // Long ago, but the first is used all the time.
        for path in files_below(&file.folder) {
            let then = SystemTime::now() - HOUR * 24 + Duration::from_secs(n);
            File::open(path).unwrap().set_modified(then).unwrap();
        }
        assert!(sample.has(&disk.file(&info(1, sample.info.size)), sample.entries()[7]), "after {n} files");
    }
    let kept: Vec<u64> =
        (1..=count).filter(|n| sample.kept(&disk.file(&info(*n, sample.info.size))).is_some()).collect();
    assert_eq!(kept[0], 1, "the index stays with its pages");
    assert!(kept[1..].iter().copied().eq(count + 2 - kept.len() as u64..=count), "{kept:?}");
    assert!(taken(folder.path()) >= size / 2, "more was removed than needed");
    let folders = fs::read_dir(&disk.replica).unwrap().count();
    assert!(folders <= kept.len() + 1, "{folders} folders for {} files", kept.len());
}

/// What a file takes on disk.
fn taken_by(sample: &Sample) -> u64 {
    let folder = tempfile::tempdir().unwrap();
    let file = open(folder.path()).file(&sample.info);
    sample.keep_outline(&file);
    sample.keep(&file, |_| true);
    taken(folder.path())
}

#[test]
fn what_is_too_large_for_the_cache_is_not_kept() {
    let folder = tempfile::tempdir().unwrap();
    let sample = Sample::new(512, 20);
    let disk = Disk::open(&options(folder.path(), 10_000), "place").unwrap();
    let file = disk.file(&sample.info);
    sample.keep_outline(&file);
    sample.keep(&file, |_| true);
    assert!(sample.kept(&file).is_none() && files_below(folder.path()).is_empty());
}

#[test]
fn several_writers_readers_and_sweepers_do_not_disturb_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let sample = Arc::new(Sample::new(4096, 600));
    let workers: Vec<_> = (0..4u64)
        .map(|worker| {
            let (folder, sample) = (folder.path().to_owned(), sample.clone());
            thread::spawn(move || {
                // Each is like a process of its own; the size makes them sweep again and again.
                let disk = Disk::open(&options(&folder, 8 * MIB), "place").unwrap();
                let mut hits = 0;
                for round in 0..30 {
                    let file = disk.file(&info(1 + (round + worker) % 9, sample.info.size));
                    sample.keep_outline(&file);
                    sample.keep(&file, |entry| u64::from(entry.pgno.get()) % 4 != worker);
                    hits += sample.entries().iter().filter(|entry| sample.has(&file, **entry)).count();
                    if let Some(index) = sample.kept(&file) {
                        assert_eq!(index, sample.known());
                    }
                }
                hits
            })
        })
        .collect();
    for worker in workers {
        assert!(worker.join().unwrap() > 0);
    }
}

#[test]
fn a_folder_that_cannot_be_used_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    fs::write(&path, "").unwrap();
    let error = Disk::open(&options(&path, 64 * MIB), "place").unwrap_err();
    assert!(error.to_string().contains(&format!("cache_dir={}", path.display())), "{error}");
    assert_ne!(error.kind(), ErrorKind::Corrupt);
}

#[test]
fn a_cache_that_is_taken_away_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let sample = Sample::new(512, 20);
    let file = open(folder.path()).file(&sample.info);
    sample.keep(&file, |_| true);
    fs::remove_dir_all(folder.path()).unwrap();
    assert!(!sample.has(&file, sample.entries()[0]));
    sample.keep(&file, |_| true);
    assert!(sample.has(&file, sample.entries()[0]));
    // Where nothing can be written, nothing is kept, and nothing fails.
    fs::remove_dir_all(folder.path()).unwrap();
    fs::write(folder.path(), "in the way").unwrap();
    sample.keep(&file, |_| true);
    sample.keep_outline(&file);
    assert!(!sample.has(&file, sample.entries()[0]));
    fs::remove_file(folder.path()).unwrap();
}

#[test]
fn what_is_sealed_is_kept_as_it_came_and_opened_whenever_it_is_read() {
    let (folder, sample) = (tempfile::tempdir().unwrap(), Sample::sealed(512, 40));
    let file = open(folder.path()).file(&sample.info);
    sample.keep_outline(&file);
    sample.keep(&file, |_| true);
    assert_eq!(sample.kept(&file), Some(sample.known()));
    assert!(sample.entries().into_iter().all(|entry| sample.has(&file, entry)));
    for other in [Keyring::default(), keyring(&[3], Plain::None)] {
        assert!(file.outline(sample.info.size, &other).is_none(), "{other:?}");
    }
    let kept: Vec<u8> = files_below(folder.path()).iter().flat_map(|path| fs::read(path).unwrap()).collect();
    // The tag of the first page is what the header says of its TXIDs, in clear.
    for entry in sample.entries().into_iter().skip(1) {
        // Where each page says which one it is, unlike any other.
        let tag = &sample.page(entry.pgno)[100..116];
        assert!(!kept.windows(tag.len()).any(|bytes| bytes == tag), "page {}", entry.pgno);
    }
    // Whoever writes to the folder makes the checksum of the cache hold, and no more.
    let path = file.folder.join(index::NAME);
    let sound = fs::read(&path).unwrap();
    for at in (8..sound.len()).step_by(5) {
        let mut forged = sound.clone();
        forged[at] ^= 1;
        let sum = checksum(&[&file.identity.to_be_bytes(), &forged[8..]]);
        forged[..8].copy_from_slice(&sum.to_be_bytes());
        fs::write(&path, &forged).unwrap();
        if let Some(known) = sample.kept(&file) {
            assert_eq!(known, sample.known(), "byte {at}");
        }
    }
}
