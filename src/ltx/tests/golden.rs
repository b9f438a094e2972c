//! Files that real Litestream wrote; `tests/golden/ltx/make.py` makes them.

use std::fs;
use std::path::{Path, PathBuf};

use super::*;
use crate::ltx::{FrameCodec, PageIndex, Shape, TailRead, merge};

const FOLDERS: [&str; 3] = ["page-512", "page-4096", "lz4-frames"];

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/ltx").join(name)
}

/// The files of a level by name, oldest first.
fn level(folder_name: &str, level: u32) -> Vec<(FileName, Vec<u8>)> {
    let entries = fs::read_dir(folder(folder_name).join(level.to_string())).unwrap();
    let mut files: Vec<_> = entries
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().to_str().unwrap().parse().unwrap(), fs::read(entry.path()).unwrap()))
        .collect();
    files.sort();
    files
}

fn all_files() -> Vec<(FileName, Vec<u8>)> {
    let files: Vec<_> =
        FOLDERS.iter().flat_map(|folder| [0, 1, 9].into_iter().flat_map(|n| level(folder, n))).collect();
    assert!(files.len() >= 20, "golden files are missing");
    files
}

/// The database that Litestream restored at `txid`, by page.
fn database(folder_name: &str, txid: Txid, size: PageSize) -> Pages {
    let bytes = fs::read(folder(folder_name).join(format!("{txid}.db"))).unwrap();
    (1..).zip(bytes.chunks(size.bytes()).map(<[u8]>::to_vec)).collect()
}

/// The database that a chain of files makes.
fn merged(files: &[(FileName, Vec<u8>)]) -> (Pages, Summary) {
    let inputs: Vec<_> = files.iter().map(|(_, bytes)| Decoder::new(&bytes[..]).unwrap()).collect();
    let (first, last) = (*inputs[0].header(), *inputs[inputs.len() - 1].header());
    let header =
        Header { min: first.min, ..Header::new(last.page_size, last.commit, last.name(), last.timestamp) };
    let (bytes, summary) = merge(inputs, Encoder::new(Vec::new(), header).unwrap(), |_, _, _| ()).unwrap();
    assert_eq!(bytes.len() as u64, summary.size);
    decode(&bytes).unwrap()
}

#[test]
fn every_file_verifies_and_says_what_its_name_says() {
    for (name, bytes) in all_files() {
        let (pages, summary) = decode(&bytes).unwrap();
        assert_eq!(summary.header.name(), name);
        assert_eq!(summary.header.encode(), bytes[..Header::SIZE]);
        assert_eq!(summary.trailer.encode(), bytes[bytes.len() - 16..]);
        assert_eq!((summary.size, summary.pages), (bytes.len() as u64, pages.len() as u64));
        assert_eq!(Decoder::new(&bytes[..]).unwrap().finish().unwrap(), summary, "without reading pages");
    }
}

#[test]
fn the_folders_hold_both_forms_of_frames() {
    for folder in FOLDERS {
        for (_, bytes) in level(folder, 0) {
            assert_eq!(bytes[104..106], if folder == "lz4-frames" { [0, 0] } else { [0, 1] });
        }
    }
}

#[test]
fn the_page_index_locates_every_page() {
    for (_, bytes) in all_files() {
        let (pages, summary) = decode(&bytes).unwrap();
        let TailRead::Index(index) = PageIndex::from_tail(&bytes, summary.size, Shape::PLAIN).unwrap() else {
            panic!("the whole file is enough");
        };
        assert_eq!(index.len(), pages.len());
        let codec = FrameCodec::plain(summary.header.page_size);
        let mut page = vec![0; summary.header.page_size.bytes()];
        for (entry, (n, content)) in index.iter().zip(&pages) {
            let frame = &bytes[entry.offset as usize..][..entry.size as usize];
            assert_eq!(codec.decode(frame, &mut page).unwrap(), pgno(*n));
            assert_eq!((entry.pgno, &page), (pgno(*n), content));
        }
    }
}

#[test]
fn merged_files_are_the_database_that_litestream_restores() {
    for folder in FOLDERS {
        let l0 = level(folder, 0);
        for n in 1..=l0.len() {
            let (pages, summary) = merged(&l0[..n]);
            assert_eq!(pages, database(folder, l0[n - 1].0.max(), summary.header.page_size), "{folder} {n}");
        }
        for chain in [level(folder, 1), level(folder, 9)] {
            let (pages, summary) = merged(&chain);
            assert_eq!(pages, database(folder, summary.header.max, summary.header.page_size), "{folder}");
        }
    }
}

#[test]
fn a_file_may_begin_before_the_one_before_it_ends() {
    let chain = [level("page-512", 9), level("page-512", 1)].concat();
    assert!(chain[1].0.min() <= chain[0].0.max(), "the files overlap");
    let (pages, summary) = merged(&chain);
    assert_eq!(pages, database("page-512", summary.header.max, summary.header.page_size));
}

#[test]
fn what_is_encoded_anew_decodes_to_the_same() {
    for (_, bytes) in all_files() {
        let (pages, summary) = decode(&bytes).unwrap();
        let (again, written) = encode(&summary.header, &pages).unwrap();
        assert_eq!(decode(&again).unwrap(), (pages, written.clone()));
        assert_eq!(written.header, summary.header);
    }
}
