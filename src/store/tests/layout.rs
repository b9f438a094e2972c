//! How a replica lies in a folder, and what the stores make of files that are not theirs.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use super::s3_server::S3Server;
use super::{TIME, body, id, listed, options};
use crate::clock::Timestamp;
use crate::error::ErrorKind;
use crate::ltx::{Level, Txid};
use crate::runtime::block_on;
use crate::store::{ByteRange, Layout, Location, MemoryStore, Replica};

fn in_folder(path: impl AsRef<Path>) -> Arc<Replica> {
    let url = format!("file://{}", path.as_ref().display());
    Location::parse(&url, &|_: &str| None).unwrap().connect()
}

#[test]
fn file_replicas_have_litestreams_layout() {
    let folder = TempDir::new().unwrap();
    let root = folder.path().join("deep/replica");
    let store = in_folder(&root);
    block_on(async move {
        store.put(id(9, 1, 0x2a), body(5), options(true)).await?;
        let path = root.join("ltx/9/0000000000000001-000000000000002a.ltx");
        assert_eq!(fs::read(&path).unwrap(), body(5));
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        let since = modified.duration_since(std::time::UNIX_EPOCH).unwrap();
        assert_eq!(since.as_millis() as i64, TIME.as_millis());
        assert_eq!(store.list(Level::SNAPSHOT, Txid::ONE).await?[0].timestamp, TIME);

        let upload = store.upload(id(9, 1, 0x2b), options(true)).await?;
        let names: Vec<String> = fs::read_dir(root.join("ltx/9"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| *name != "0000000000000001-000000000000002a.ltx")
            .collect();
        assert!(names.len() == 1 && names[0].starts_with('.') && names[0].ends_with(".tmp"), "{names:?}");
        drop(upload);
        assert_eq!(fs::read_dir(root.join("ltx/9")).unwrap().count(), 1);
        Ok(())
    })
    .unwrap();
}

#[test]
fn what_is_no_ltx_file_is_not_there() {
    let folder = TempDir::new().unwrap();
    let level = folder.path().join("ltx/0");
    fs::create_dir_all(level.join("0000000000000002-0000000000000002.ltx")).unwrap();
    for name in [
        "README",
        "0000000000000001-0000000000000001.ltx.tmp",
        "1-1.ltx",
        "0000000000000003-0000000000000002.ltx",
    ] {
        fs::write(level.join(name), "x").unwrap();
    }
    let store = in_folder(folder.path());
    block_on(async move {
        assert_eq!(listed(&store, 0, 1).await?, []);
        assert_eq!(store.head(id(0, 2, 2)).await.unwrap_err().kind(), ErrorKind::NotFound);
        Ok(())
    })
    .unwrap();
}

#[test]
fn what_is_no_ltx_file_is_listed_raw() {
    let folder = TempDir::new().unwrap();
    let server = S3Server::shared();
    let path = server.fresh_path();
    let in_s3 = server.folder(&path);
    for (root, store) in
        [(folder.path().to_owned(), in_folder(folder.path())), (in_s3, server.target(&path).connect())]
    {
        for (name, len) in [("a/b/c/deep.lz4", 3), ("a/b/top", 70_000), ("a/b2/beside", 1), ("root", 1)] {
            fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
            fs::write(root.join(name), body(len)).unwrap();
        }
        let before = Timestamp::from_millis(1_600_000_000_000);
        block_on(async move {
            let found = store.list_raw("a/b").await?;
            assert!(found.iter().all(|raw| raw.timestamp > before), "{found:?}");
            let found: Vec<(&str, u64)> = found.iter().map(|raw| (raw.path.as_str(), raw.size)).collect();
            assert_eq!(found, [("a/b/c/deep.lz4", 3), ("a/b/top", 70_000)], "{}", store.url());
            assert_eq!(store.get_raw("a/b/top", ByteRange::All).await?.bytes().await?, body(70_000));
            Ok(())
        })
        .unwrap();
    }
}

#[test]
fn a_replica_in_a_place_that_cannot_be_written_says_so() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("file"), "x").unwrap();
    let store = in_folder(folder.path().join("file/replica"));
    let e = block_on(async move { store.put(id(0, 1, 1), body(1), options(true)).await }).unwrap_err();
    assert!(e.to_string().contains("file/replica/ltx/0"), "{e}");
}

#[test]
fn what_a_crashed_upload_left_is_removed_after_a_day() {
    let folder = TempDir::new().unwrap();
    let level = folder.path().join("ltx/9");
    fs::create_dir_all(&level).unwrap();
    for (name, hours) in [(".old.tmp", 25), (".new.tmp", 1), ("kept.tmp", 25)] {
        let file = fs::File::create(level.join(name)).unwrap();
        file.set_modified(std::time::SystemTime::now() - Duration::from_secs(hours * 3600)).unwrap();
    }
    let store = in_folder(folder.path());
    block_on(async move { store.upload(id(9, 1, 1), options(true)).await?.abort().await }).unwrap();
    let mut left: Vec<String> = fs::read_dir(&level)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, [".new.tmp", "kept.tmp"]);
}

/// A replica at a bucket's root, with one file under each of `keys`.
fn at_the_root(keys: &[&str]) -> MemoryStore {
    let store = MemoryStore::with_layout(Layout::Numbered);
    for key in keys {
        store.put_raw(key, body(7), TIME);
    }
    store
}

#[test]
fn every_form_of_a_buckets_root_is_found_and_continued() {
    const FIRST: &str = "0000/0000000000000001-0000000000000001.ltx";
    const SECOND: &str = "0000/0000000000000002-0000000000000002.ltx";
    for form in ["", "./", "/"] {
        let store = at_the_root(&[&format!("{form}{FIRST}"), "0000-not-ours"]);
        let replica = store.replica();
        block_on(async move {
            assert_eq!(listed(&replica, 0, 1).await?, [id(0, 1, 1)], "{form}");
            assert_eq!(replica.head(id(0, 1, 1)).await?.size, 7);
            assert_eq!(replica.list_raw("0000").await?[0].path, FIRST);
            replica.put(id(0, 2, 2), body(1), options(true)).await
        })
        .unwrap();
        assert!(store.keys().contains(&format!("{form}{SECOND}")), "{form}: {:?}", store.keys());
    }
}

#[test]
fn of_two_forms_the_one_with_the_newest_transaction_is_used() {
    let old = "./0000/0000000000000001-0000000000000001.ltx";
    let new = "/0000/0000000000000001-0000000000000009.ltx";
    let replica = at_the_root(&[old, new]).replica();
    assert_eq!(block_on(async move { listed(&replica, 0, 1).await }).unwrap(), [id(0, 1, 9)]);
}

#[test]
fn an_empty_root_takes_the_form_of_whoever_writes_first() {
    let store = at_the_root(&[]);
    let replica = store.replica();
    let list = |replica: Arc<Replica>| block_on(async move { listed(&replica, 0, 1).await }).unwrap();
    assert_eq!(list(replica.clone()), []);
    store.put_raw("/0000/0000000000000001-0000000000000001.ltx", body(7), TIME);
    assert_eq!(list(replica), [id(0, 1, 1)]);

    let store = at_the_root(&[]);
    let replica = store.replica();
    block_on(async move { replica.put(id(0, 1, 1), body(1), options(true)).await }).unwrap();
    assert_eq!(store.keys(), ["0000/0000000000000001-0000000000000001.ltx"]);
}

#[test]
fn a_path_is_that_of_a_file_only_where_a_file_would_be() {
    for layout in [Layout::Numbered, Layout::Ltx] {
        for file in [id(0, 1, 1), id(9, 1, 0xab), id(3, 7, 8)] {
            let path = layout.path(file);
            assert_eq!(layout.file(&path), Some(file));
            assert!(path.starts_with(layout.prefix_of_all()));
            for other in
                [format!("x/{path}"), format!("/{path}"), format!("{path}.tmp"), path.replace('/', "")]
            {
                assert_eq!(layout.file(&other), None, "{other}");
            }
        }
    }
    assert_eq!(Layout::Numbered.file("+000/0000000000000001-0000000000000001.ltx"), None);
    assert_eq!(Layout::Ltx.file("ltx/00/0000000000000001-0000000000000001.ltx"), None);
}
