//! Pages that are not what the primary wrote: in the store, and in the local file.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::{
    PAGE, assert_sees, bytes_to_complete, commit, folder, large, options, wait_until_complete,
    wait_until_recorded,
};
use crate::error::ErrorKind;
use crate::ltx::{FileId, FrameCodec, PageIndex, Shape, TailRead};
use crate::page::PageSize;
use crate::replica::tests::fixtures::{History, id, until};
use crate::replica::{Core, Options, View};

/// Changes a byte of `file` in the replica so that page `pgno` still decodes, and is another.
fn change_a_page(history: &History, file: FileId, pgno: u32) {
    let size = PageSize::new(PAGE as u32).unwrap();
    history.store.tamper(file, |bytes| {
        let TailRead::Index(index) = PageIndex::from_tail(bytes, bytes.len() as u64, Shape::PLAIN).unwrap()
        else {
            panic!("a whole file has its index")
        };
        let entry = index.iter().find(|entry| entry.pgno.get() == pgno).unwrap();
        let frame = entry.offset as usize..(entry.offset + entry.size) as usize;
        let decode = |bytes: &[u8]| {
            let mut page = vec![0; PAGE];
            FrameCodec::plain(size)
                .decode(bytes, &mut page)
                .is_ok_and(|found| found == entry.pgno)
                .then_some(page)
        };
        let good = decode(&bytes[frame.clone()]).unwrap();
        let changed = frame.clone().skip(10).find(|&at| {
            bytes[at] ^= 1;
            let is_another = decode(&bytes[frame.clone()]).is_some_and(|page| page != good);
            if !is_another {
                bytes[at] ^= 1;
            }
            is_another
        });
        assert!(changed.is_some(), "no byte of page {pgno} can be changed");
    });
}

fn read_page(core: &std::sync::Arc<Core>, pgno: u32) -> Result<Vec<u8>, crate::error::Error> {
    let mut page = vec![0; PAGE];
    View::new(core.clone()).read(&mut page, (u64::from(pgno) - 1) * PAGE as u64).map(|_| page)
}

/// Overwrites bytes of page `pgno` in the local file, as another program would.
fn overwrite(path: &Path, pgno: u64, bytes: &[u8]) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(bytes, (pgno - 1) * PAGE as u64 + 50).unwrap();
}

#[test]
fn a_file_that_decodes_and_fails_its_checksum_is_never_all_there_and_not_served() {
    let (_folder, path) = folder();
    let mut history = large(1500);
    let good = history.encode(1, 1);
    change_a_page(&history, id(9, 1, 1), 777);
    let core = Core::with_store(history.store(), &options(&path)).unwrap();
    let hydration = || core.status().hydration.unwrap();
    until("an error", || hydration().error.is_some());
    let error = hydration().error.unwrap();
    assert!(error.contains("fails its checksum") && error.contains(&id(9, 1, 1).to_string()), "{error}");
    assert!(hydration().per_mille < 100, "{}", hydration().per_mille);
    for pgno in [777, 778] {
        let error = read_page(&core, pgno).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains("fails its checksum"), "{error}");
    }
    // Connections read again what they had before that was known.
    until("another change counter", || core.snapshot().epoch == 1);
    // Pages of other files are served, and what is new.
    commit(&mut history, 1500, &[1, 777]);
    core.poll_now().unwrap();
    let image = history.image(7);
    assert!(read_page(&core, 777).unwrap() == image[776 * PAGE..777 * PAGE]);
    assert!(read_page(&core, 8).unwrap() == image[7 * PAGE..8 * PAGE]);
    assert!(read_page(&core, 778).is_err());
    // When the file is right again, so is all.
    history.store.tamper(id(9, 1, 1), |bytes| bytes.copy_from_slice(&good));
    wait_until_complete(&core);
    until("the end of the error", || hydration().error.is_none());
    assert_sees(&mut View::new(core.clone()), &history, 7);
}

#[test]
fn a_large_file_that_follows_is_checked_without_hydration_too() {
    let mut history = large(3000);
    let options = Options { hydration: None, ..options(Path::new("")) };
    let core = Core::with_store(history.store(), &options).unwrap();
    let all: Vec<u32> = (1..=1500).collect();
    let txid = history.commit(3000, &all);
    let file = history.put(0, txid, txid);
    change_a_page(&history, file, 700);
    core.poll_now().unwrap();
    let error = read_page(&core, 700).unwrap_err();
    assert!(error.to_string().contains("fails its checksum"), "{error}");
    assert!(read_page(&core, 2000).is_ok());
}

#[test]
fn what_is_changed_in_the_local_file_is_noticed_and_fetched_again() {
    let (_folder, path) = folder();
    let history = large(1500);
    let core = Core::with_store(history.store(), &options(&path)).unwrap();
    wait_until_complete(&core);
    let hydration = || core.status().hydration.unwrap();
    assert_eq!(hydration().notice, None);
    overwrite(&path, 777, b"another program was here");
    let mut view = View::new(core.clone());
    assert_sees(&mut view, &history, 6);
    let notice = hydration().notice.unwrap();
    assert!(notice.starts_with("1 pages read from") && notice.contains("hydration.db"), "{notice}");
    wait_until_complete(&core);
    assert!(fs::read(&path).unwrap() == history.image(6));
    // Cut off, and then all of it.
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(1000 * PAGE as u64).unwrap();
    assert_sees(&mut view, &history, 6);
    fs::OpenOptions::new().write(true).open(&path).unwrap().write_all_at(&vec![7; 1500 * PAGE], 0).unwrap();
    assert_sees(&mut view, &history, 6);
    wait_until_complete(&core);
    assert!(fs::read(&path).unwrap() == history.image(6));
}

#[test]
fn what_is_changed_between_two_processes_is_noticed_too() {
    let (_folder, path) = folder();
    let history = large(1500);
    bytes_to_complete(&history, &path);
    wait_until_recorded(&path, 6);
    overwrite(&path, 777, b"another program was here");
    let all = 2_000_000;
    assert!(bytes_to_complete(&history, &path) < all / 4, "more than the page was fetched again");
    wait_until_recorded(&path, 6);
    // The checksums themselves.
    let sums = path.with_file_name("hydration.db-sums");
    fs::write(&sums, vec![9; 1500 * 8]).unwrap();
    assert!(bytes_to_complete(&history, &path) > all);
    wait_until_recorded(&path, 6);
    fs::remove_file(&sums).unwrap();
    assert!(bytes_to_complete(&history, &path) > all);
}

#[test]
fn a_page_that_is_lost_is_not_taken_from_a_file_that_changed_meanwhile() {
    let (_folder, path) = folder();
    let history = large(1500);
    let core = Core::with_store(history.store(), &options(&path)).unwrap();
    wait_until_complete(&core);
    change_a_page(&history, id(9, 1, 1), 777);
    overwrite(&path, 777, b"another program was here");
    // Reading on demand cannot see it; what is downloaded is compared with what it was.
    let _ = read_page(&core, 777);
    until("an error", || core.status().hydration.unwrap().error.is_some());
    assert!(core.status().hydration.unwrap().per_mille < 1000);
    assert!(read_page(&core, 777).is_err());
    // All others are here, proven, and served.
    assert!(read_page(&core, 778).unwrap() == history.image(6)[777 * PAGE..778 * PAGE]);
}
