//! What Litestream 0.3.13 wrote is restored as it restores it; what is damaged or missing is named.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tempfile::TempDir;

use super::*;
use crate::clock::Timestamp;
use crate::ltx::{Identities, Keyring, Plain};
use crate::replica::tests::fixtures::{History, in_folder};
use crate::restore::{Cancel, Options, restore};
use crate::runtime;
use crate::store::{Fault, Faults, MemoryStore, Op, Replica};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/litestream-0.3").join(name)
}

fn keyring(plain: Plain) -> Keyring {
    Keyring::new(Identities::parse(&fs::read_to_string(golden("identity")).unwrap()).unwrap(), plain)
}

/// The objects of a golden replica in order of path, snapshots before the WAL.
fn objects(name: &str) -> Vec<(String, Bytes)> {
    let store = in_folder(golden(name));
    let listed = runtime::block_on(async move { store.list_raw(FOLDER).await }).unwrap();
    let read = |path: String| (path.clone(), Bytes::from(fs::read(golden(name).join(path)).unwrap()));
    listed.into_iter().map(|raw| read(raw.path)).collect()
}

/// When the object at `path` of a test's replica was stored: the higher its index and offset, the later.
fn time_of(path: &str) -> Timestamp {
    let ms = match name::Name::parse(path).unwrap().part {
        name::Part::Snapshot { index } => u64::from(index) * 1_000_000,
        name::Part::Segment { index, offset } => u64::from(index) * 1_000_000 + offset + 1,
    };
    Timestamp::from_millis(1_600_000_000_000 + ms as i64)
}

fn replica(objects: &[(String, Bytes)]) -> MemoryStore {
    let store = MemoryStore::new();
    for (path, body) in objects {
        store.put_raw(path, body.clone(), time_of(path));
    }
    store
}

fn options(point: RestorePoint) -> Options {
    Options { point, ..Options::default() }
}

/// The database that a restore makes; an error leaves nothing.
fn restored(store: Arc<Replica>, options: &Options) -> Result<Vec<u8>> {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("r.db");
    let report = restore(store, &path, options);
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, if report.is_ok() { vec!["r.db".into()] } else { Vec::<std::ffi::OsString>::new() });
    report.map(|_| fs::read(path).unwrap())
}

fn latest(store: MemoryStore) -> Result<Vec<u8>> {
    let store = store.replica().read_with(keyring(Plain::Any));
    restored(Arc::new(store), &options(RestorePoint::Latest))
}

#[test]
fn what_litestream_wrote_is_restored_as_litestream_restores_it() {
    for name in ["plain", "age"] {
        let expected = fs::read(golden(name).join("database")).unwrap();
        assert!(latest(replica(&objects(name))).unwrap() == expected, "{name}");
    }
}

#[test]
fn a_report_tells_generation_time_and_size() {
    let objects = objects("plain");
    let folder = TempDir::new().unwrap();
    let store = replica(&objects).replica();
    let report = restore(store, &folder.path().join("r.db"), &options(RestorePoint::Latest)).unwrap();
    let (last, _) = objects.last().unwrap();
    assert_eq!(report.txid, None);
    assert_eq!(report.generation.as_deref(), last.split('/').nth(1));
    assert_eq!(report.timestamp, time_of(last));
    assert_eq!(report.bytes, u64::from(report.pages.get()) * 512);
    assert!(report.files > 1 && report.files < objects.len(), "from the last snapshot on");
}

#[test]
fn an_earlier_time_takes_what_was_there_by_then() {
    let objects = objects("plain");
    let segments: Vec<&str> =
        objects.iter().map(|(path, _)| path.as_str()).filter(|p| p.contains("/wal/")).collect();
    let mut last = 0;
    for (n, path) in segments.iter().enumerate() {
        let point = RestorePoint::Timestamp(time_of(path));
        let then = restored(replica(&objects).replica(), &options(point)).unwrap();
        // The same as if nothing more had ever been written.
        let written: Vec<_> =
            objects.iter().filter(|(path, _)| time_of(path) <= time_of(segments[n])).cloned().collect();
        assert!(then == latest(replica(&written)).unwrap(), "{path}");
        assert!(then.len() >= last, "the database only grows");
        last = then.len();
    }
    let early = RestorePoint::Timestamp(Timestamp::from_millis(1));
    let e = restored(replica(&objects).replica(), &options(early)).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::NotFound);
    assert!(e.to_string().contains("it covers 2020-09-13T"), "{e}");
}

#[test]
fn damage_is_an_error_or_makes_no_difference() {
    for name in ["plain", "age"] {
        let sound = objects(name);
        let expected = fs::read(golden(name).join("database")).unwrap();
        let used: Vec<usize> = (0..sound.len()).filter(|n| sound[*n].0.contains("00000003")).collect();
        for n in used {
            let size = sound[n].1.len();
            for at in (0..size).step_by(size / 40 + 1).chain(size - 24..size) {
                let mut damaged = sound.clone();
                let mut bytes = damaged[n].1.to_vec();
                bytes[at] ^= 4;
                damaged[n].1 = bytes.into();
                if let Ok(found) = latest(replica(&damaged)) {
                    assert!(found == expected, "byte {at} of {}", sound[n].0);
                }
                damaged[n].1 = sound[n].1.slice(..at);
                let e = latest(replica(&damaged)).expect_err(&format!("{at} bytes of {}", sound[n].0));
                assert_eq!(e.kind(), ErrorKind::Corrupt, "{e}");
                assert!(e.to_string().contains(&sound[n].0), "{e}");
            }
        }
    }
}

#[test]
fn what_is_missing_is_named() {
    let sound = objects("plain");
    let last = sound.last().unwrap().0.clone();
    for (path, _) in sound.iter().filter(|(path, _)| path.contains("/wal/00000003") && *path != last) {
        let rest: Vec<_> = sound.iter().filter(|(other, _)| other != path).cloned().collect();
        let e = latest(replica(&rest)).unwrap_err();
        assert!(e.to_string().contains("is missing"), "without {path}: {e}");
    }
    let without_snapshots: Vec<_> =
        sound.iter().filter(|(path, _)| !path.contains("/snap")).cloned().collect();
    assert_eq!(latest(replica(&without_snapshots)).unwrap_err().kind(), ErrorKind::NotFound);
    let first_only: Vec<_> =
        sound.iter().filter(|(path, _)| !path.contains("00000003.snap")).cloned().collect();
    let expected = fs::read(golden("plain").join("database")).unwrap();
    assert!(latest(replica(&first_only)).unwrap() == expected, "an earlier snapshot does as well");
}

#[test]
fn an_encrypted_replica_needs_its_identity() {
    let store = || replica(&objects("age")).replica();
    let e = restored(store(), &Options::default()).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Denied);
    assert!(e.to_string().contains("age_identity"), "{e}");
    let opened = restored(Arc::new(store().read_with(keyring(Plain::None))), &Options::default()).unwrap();
    assert!(opened == fs::read(golden("age").join("database")).unwrap());
}

#[test]
fn a_plain_replica_is_not_taken_for_an_encrypted_one() {
    let store = || replica(&objects("plain")).replica();
    for limit in [Plain::None, Plain::UpTo(crate::ltx::Txid::ONE)] {
        let e = restored(Arc::new(store().read_with(keyring(limit))), &Options::default()).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Denied);
        assert!(e.to_string().contains("snapshot.lz4 is not encrypted"), "{e}");
    }
    assert!(restored(Arc::new(store().read_with(keyring(Plain::Any))), &Options::default()).is_ok());
}

#[test]
fn the_format_that_was_written_last_is_restored() {
    let objects = objects("plain");
    let expected = fs::read(golden("plain").join("database")).unwrap();
    let mut history = History::new(512, 3);
    history.commit(10, &[]);
    let old = |history: &History| {
        for (path, body) in &objects {
            history.store.put_raw(path, body.clone(), time_of(path));
        }
    };
    // The times of a history are later than those of the objects.
    history.put(0, 1, 1);
    old(&history);
    assert!(restored(history.store(), &Options::default()).unwrap() == history.image(1));
    let before = RestorePoint::Timestamp(time_of(&objects.last().unwrap().0));
    assert!(restored(history.store(), &options(before)).unwrap() == expected);
    let after = RestorePoint::Timestamp(history.time(1));
    assert!(restored(history.store(), &options(after)).unwrap() == history.image(1));
    // And the other way round.
    for (path, body) in &objects {
        let later = time_of(path).as_millis() + 200_000_000_000;
        history.store.put_raw(path, body.clone(), Timestamp::from_millis(later));
    }
    assert!(restored(history.store(), &Options::default()).unwrap() == expected);
    let txid = RestorePoint::Txid(crate::ltx::Txid::ONE);
    assert!(restored(history.store(), &options(txid)).unwrap() == history.image(1));
}

#[test]
fn errors_of_the_store_and_cancelling_leave_nothing() {
    for op in [Op::Get, Op::List] {
        let faults = Faults::new(&replica(&objects("plain")), 1);
        faults.often(op, 1000, Fault::Refuse(ErrorKind::Denied));
        let e = restored(faults.replica(), &Options::default()).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Denied, "{op:?}");
    }
    for asked in [1, 3, 6] {
        let left = AtomicUsize::new(asked);
        let cancel = Cancel::when(move || {
            left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_err()
        });
        let given_up = Options { cancel, ..Options::default() };
        let e = restored(replica(&objects("plain")).replica(), &given_up).map(drop).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Interrupted);
    }
}
