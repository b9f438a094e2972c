//! A restored file is the database at the point asked for, or there is no file.

mod crew;
mod links;
mod sealed;

use std::fs;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, symlink};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use proptest::prelude::*;

use super::*;
use crate::replica::tests::fixtures::{History, Hooked, id, in_folder, txid};
use crate::store::{MemoryStore, Replica};

fn latest() -> Options {
    Options::default()
}

fn to(point: RestorePoint) -> Options {
    Options { point, ..Options::default() }
}

/// Nobody else has a file open.
fn nobody() -> Exclusion {
    Exclusion::by(|_| Ok(Box::new(())))
}

fn force() -> Options {
    Options { force: Some(nobody()), ..Options::default() }
}

fn at(n: u64) -> RestorePoint {
    RestorePoint::Txid(txid(n))
}

/// The names in a folder, of all that is in it.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Ten transactions: snapshot of 4, merged 5 to 7, and all of level 0.
fn ten() -> History {
    let mut history = History::new(512, 7);
    history.commit(30, &[]);
    history.put(0, 1, 1);
    history.grow(10);
    history.put(9, 1, 4);
    history.put(1, 5, 7);
    history
}

#[test]
fn every_state_can_be_restored() {
    let history = ten();
    let folder = tempfile::tempdir().unwrap();
    for n in 1..=10 {
        for point in [at(n), RestorePoint::Timestamp(history.time(n))] {
            let path = folder.path().join(format!("{n}-{point:?}.db"));
            let report = restore(history.store(), &path, &to(point)).unwrap();
            assert!(fs::read(&path).unwrap() == history.image(n), "{point:?}");
            assert_eq!((report.txid, report.timestamp), (Some(txid(n)), history.time(n)));
            assert_eq!(report.bytes, history.image(n).len() as u64);
            assert_eq!(u64::from(report.pages.get()) * 512, report.bytes);
        }
    }
    let path = folder.path().join("latest.db");
    assert_eq!(restore(history.store(), &path, &latest()).unwrap().files, 5);
    assert!(fs::read(&path).unwrap() == history.image(10));
    let between = Timestamp::from_millis(history.time(6).as_millis() + 999);
    let path = folder.path().join("between.db");
    assert_eq!(
        restore(history.store(), &path, &to(RestorePoint::Timestamp(between))).unwrap().txid,
        Some(txid(6))
    );
}

#[test]
fn what_litestream_wrote_is_restored_byte_for_byte() {
    for page_size in ["page-512", "page-4096"] {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/ltx").join(page_size);
        let folder = tempfile::tempdir().unwrap();
        for level in fs::read_dir(&golden).unwrap().map(|e| e.unwrap()).filter(|e| e.path().is_dir()) {
            let copy = folder.path().join("replica/ltx").join(level.file_name());
            fs::create_dir_all(&copy).unwrap();
            for file in fs::read_dir(level.path()).unwrap().map(|e| e.unwrap()) {
                fs::copy(file.path(), copy.join(file.file_name())).unwrap();
            }
        }
        let store = in_folder(folder.path().join("replica"));
        for n in 1..=5 {
            let path = folder.path().join(format!("{n}.db"));
            restore(store.clone(), &path, &to(at(n))).unwrap();
            let expected = fs::read(golden.join(format!("{n:016x}.db"))).unwrap();
            assert!(fs::read(&path).unwrap() == expected, "{page_size} {n}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn any_history_in_any_files_restores(
        seed: u64,
        last in 1u64..25,
        merged in prop::collection::vec((1u8..=8, 1u64..25, 0u64..12), 0..8),
        snapshots in prop::collection::vec(1u64..25, 0..3),
        parallelism in 1usize..4,
    ) {
        let mut history = History::new(1024, seed);
        history.commit(8, &[]);
        history.put(0, 1, 1);
        history.grow(last);
        // Compaction makes no files that overlap on one level.
        let mut merges: Vec<(u8, u64, u64)> = Vec::new();
        for (level, min, len) in merged {
            let max = min + len;
            let overlaps = merges.iter().any(|(l, a, b)| *l == level && min <= *b && *a <= max);
            if max <= last && !overlaps {
                merges.push((level, min, max));
                history.put(level, min, max);
                history.retire(0, min, max);
            }
        }
        for max in snapshots.into_iter().filter(|max| *max <= last) {
            history.put(9, 1, max);
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.db");
        let options = |point, force| Options { point, force, parallelism, ..Options::default() };
        let report = restore(history.store(), &path, &options(RestorePoint::Latest, None)).unwrap();
        prop_assert_eq!(report.txid, Some(txid(last)));
        prop_assert!(fs::read(&path).unwrap() == history.image(last));
        for n in 1..=last {
            match restore(history.store(), &path, &options(at(n), Some(nobody()))) {
                Ok(_) => prop_assert!(fs::read(&path).unwrap() == history.image(n)),
                Err(e) => prop_assert_eq!(e.kind(), ErrorKind::NotFound),
            }
        }
    }
}

#[test]
fn a_page_that_nobody_wrote_is_zeros_and_the_lock_page_is_one() {
    let size = crate::page::PageSize::MAX;
    let lock = size.lock_page().get();
    let mut history = History::new(size.get(), 1);
    history.commit(1, &[]);
    history.put(0, 1, 1);
    history.put_sparse(2, lock + 1, lock + 1, &vec![7; size.bytes()]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.db");
    restore(history.store(), &path, &latest()).unwrap();
    let file = fs::File::open(&path).unwrap();
    assert_eq!(file.metadata().unwrap().len(), u64::from(lock + 1) * 65536);
    let mut found = vec![1; size.bytes()];
    for (pgno, byte) in [(2, 0), (lock, 0), (lock + 1, 7)] {
        file.read_exact_at(&mut found, u64::from(pgno - 1) * 65536).unwrap();
        assert!(found.iter().all(|b| *b == byte), "page {pgno}");
    }
}

#[test]
fn what_was_cut_off_does_not_come_back() {
    let mut history = History::new(512, 1);
    history.commit(10, &[]);
    history.put(0, 1, 1);
    history.commit(5, &[1]);
    history.put(0, 2, 2);
    history.put_sparse(3, 8, 8, &[7; 512]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    restore(history.store(), &path, &latest()).unwrap();
    let expected = [history.image(2), vec![0; 1024], vec![7; 512]].concat();
    assert!(fs::read(&path).unwrap() == expected);
}

/// Restores into a folder that is empty before and must be empty after, and returns the error.
fn refused(store: Arc<Replica>, options: &Options) -> Error {
    let folder = tempfile::tempdir().unwrap();
    let error = restore(store, &folder.path().join("new/folders/app.db"), options).unwrap_err();
    assert_eq!(names(folder.path()), [""; 0], "{error}");
    error
}

#[test]
fn any_flipped_bit_is_noticed_and_the_file_named() {
    let mut history = History::new(512, 3);
    history.commit(4, &[]);
    history.commit(5, &[1, 3]);
    let size = history.encode(2, 2).len();
    let mut unnoticed = 0;
    for at in 0..size {
        let history = history.with_store(&MemoryStore::new());
        history.put(0, 1, 1);
        let file = history.put(0, 2, 2);
        history.store.tamper(file, |bytes| bytes[at] ^= 1 << (at % 8));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.db");
        match restore(history.store(), &path, &latest()) {
            // In a run of equal bytes LZ4 may copy from one place or another.
            Ok(_) => {
                assert!(fs::read(&path).unwrap() == history.image(2), "byte {at}");
                unnoticed += 1;
            }
            Err(e) => {
                // An unknown flag may also be that of a later version.
                assert!(matches!(e.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported), "byte {at}: {e}");
                assert!(e.to_string().contains(&file.to_string()), "byte {at}: {e}");
                assert_eq!(names(folder.path()), [""; 0]);
            }
        }
    }
    assert!(unnoticed < size / 100, "{unnoticed} of {size} went unnoticed");
}

/// Restores all that the replica holds, which must be the state of ten; returns what was left out.
fn left_out(store: Arc<Replica>, point: RestorePoint, history: &History, n: u64) -> Vec<FileId> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    let report = restore(store, &path, &to(point)).unwrap();
    assert_eq!(names(folder.path()), ["app.db"]);
    assert_eq!(report.txid, Some(txid(n)));
    assert!(fs::read(&path).unwrap() == history.image(n), "{point:?}");
    report.left_out
}

#[test]
fn a_damaged_file_is_left_out_where_others_lead_to_the_same_state() {
    let damages: [fn(&mut Vec<u8>); 6] = [
        |bytes| bytes[20] ^= 1,
        |bytes| bytes[105] ^= 1,
        |bytes| *bytes.last_mut().unwrap() ^= 1,
        |bytes| bytes.truncate(bytes.len() / 2),
        |bytes| bytes.clear(),
        // Another version of the format.
        |bytes| bytes[3] = b'9',
    ];
    for damage in damages {
        let history = ten();
        assert_eq!(left_out(history.store(), RestorePoint::Latest, &history, 10), []);
        history.store.tamper(id(1, 5, 7), damage);
        for (point, n) in [(RestorePoint::Latest, 10), (at(7), 7), (at(10), 10)] {
            assert_eq!(left_out(history.store(), point, &history, n), [id(1, 5, 7)]);
        }
        assert_eq!(left_out(history.store(), at(6), &history, 6), []);
        history.store.tamper(id(9, 1, 4), damage);
        let both = left_out(history.store(), RestorePoint::Latest, &history, 10);
        assert_eq!(both, [id(9, 1, 4), id(1, 5, 7)]);
        assert_eq!(left_out(history.store(), at(4), &history, 4), [id(9, 1, 4)]);
    }
    let history = ten();
    history.put_bytes(id(1, 5, 7), history.encode(8, 10), 7);
    assert_eq!(left_out(history.store(), RestorePoint::Latest, &history, 10), [id(1, 5, 7)]);
    let history = ten();
    let time = RestorePoint::Timestamp(Timestamp::from_millis(history.time(10).as_millis() + 500));
    history.store.tamper(id(9, 1, 4), |bytes| bytes[105] ^= 1);
    assert_eq!(left_out(history.store(), time, &history, 10).len(), 1);
}

#[test]
fn nothing_of_a_file_that_is_left_out_is_in_the_database() {
    let history = ten();
    // Whole pages of another database, many more than it should have, and only then a checksum that is wrong.
    let mut other = history.back_to(4);
    for _ in 5..=7 {
        other.commit(200, &(1..=200).collect::<Vec<u32>>());
    }
    let mut bytes = other.encode(5, 7).to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    history.put_bytes(id(1, 5, 7), bytes.into(), 7);
    assert_eq!(left_out(history.store(), RestorePoint::Latest, &history, 10), [id(1, 5, 7)]);
}

#[test]
fn nothing_of_a_file_that_came_damaged_is_in_the_database() {
    let mut history = History::new(512, 7);
    history.commit(30, &[]);
    history.put(9, 1, 1);
    history.commit(30, &[1, 20]);
    let file = history.put(0, 2, 2);
    // The number of its first page, once.
    let (copy, reads) = (history.clone(), AtomicUsize::new(0));
    let store = Hooked::store(&history.store, move |read, _| {
        if read == file && reads.fetch_add(1, Ordering::SeqCst) < 2 {
            copy.store.tamper(file, |bytes| bytes[103] ^= 1 ^ 5);
        }
    });
    assert_eq!(left_out(store, RestorePoint::Latest, &history, 2), []);
}

#[test]
fn a_damaged_file_without_others_in_its_place_is_named_with_what_can_be_done() {
    for (file, words) in [
        (
            id(0, 8, 8),
            "without it the replica has a gap: TXID 0000000000000008 is missing; restore up to TXID 0000000000000007",
        ),
        (id(0, 10, 10), "without it the replica leads to TXID 0000000000000009 only: restore up to that one"),
    ] {
        let history = ten();
        history.store.tamper(file, |bytes| bytes[105] ^= 1);
        let error = refused(history.store(), &latest());
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(
            error.to_string().contains(&file.to_string()) && error.to_string().contains(words),
            "{error}"
        );
    }
    let mut history = History::new(512, 7);
    history.commit(30, &[]);
    let only = history.put(9, 1, 1);
    history.store.tamper(only, |bytes| bytes[105] ^= 1);
    let error = refused(history.store(), &latest());
    assert!(error.to_string().contains("without it nothing can be restored"), "{error}");
}

#[test]
fn truncated_files_are_named() {
    let history = ten();
    history.delete(&[id(0, 3, 3)]);
    let file = id(9, 1, 4);
    let size = history.encode(1, 4).len();
    for keep in [0, 1, 50, 99, 100, 101, 500, size / 2, size - 17, size - 1] {
        history.put(9, 1, 4);
        history.store.tamper(file, |bytes| bytes.truncate(keep));
        let error = refused(history.store(), &latest());
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{keep}: {error}");
        assert!(error.to_string().contains(&file.to_string()), "{keep}: {error}");
    }
}

#[test]
fn misnamed_files_are_named() {
    let history = ten();
    history.put_bytes(id(0, 8, 8), history.encode(9, 9), 8);
    let error = refused(history.store(), &latest());
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains(&id(0, 8, 8).to_string()), "{error}");
    assert!(error.to_string().contains("wrong name"), "{error}");
}

#[test]
fn a_misnamed_file_beside_what_is_restored_says_nothing_of_it() {
    let history = ten();
    history.put(9, 1, 10);
    history.put_bytes(id(0, 10, 10), history.encode(9, 9), 10);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    assert_eq!(restore(history.store(), &path, &latest()).unwrap().txid, Some(txid(10)));
    assert!(fs::read(&path).unwrap() == history.image(10));
}

#[test]
fn files_of_two_databases_are_told_apart() {
    let history = ten();
    let mut other = History::new(1024, 9);
    other.commit(3, &[]);
    other.grow(10);
    history.put_bytes(id(0, 10, 10), other.encode(10, 10), 10);
    let error = refused(history.store(), &latest());
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("pages of 1024 bytes"), "{error}");
    assert!(error.to_string().contains(&id(0, 10, 10).to_string()), "{error}");
}

#[test]
fn an_empty_replica_and_points_out_of_reach_are_refused() {
    let error = refused(MemoryStore::new().replica(), &latest());
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("empty"), "{error}");
    let error = refused(ten().store(), &to(at(11)));
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let early = Timestamp::from_millis(ten().time(1).as_millis() - 1);
    let error = refused(ten().store(), &to(RestorePoint::Timestamp(early)));
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains(&ten().time(10).to_string()), "{error}");
}

#[test]
fn cancelling_at_any_moment_leaves_nothing() {
    for allowed in 0..12 {
        let asked = AtomicUsize::new(0);
        let cancel = Cancel::when(move || asked.fetch_add(1, Ordering::SeqCst) >= allowed);
        let options = Options { cancel, parallelism: 1, ..Options::default() };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/app.db");
        match restore(ten().store(), &path, &options) {
            Ok(_) => assert!(allowed > 5),
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::Interrupted);
                assert_eq!(names(folder.path()), [""; 0]);
            }
        }
    }
}

#[test]
fn what_killed_restores_left_is_removed_and_what_others_write_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let make = |name: &str, age: u64| {
        let file = fs::File::create(folder.path().join(name)).unwrap();
        file.set_modified(std::time::SystemTime::now() - Duration::from_secs(age)).unwrap();
        file
    };
    drop(make(".litestream-restore-left", 3600));
    drop(make(".litestream-restore-young", 1));
    drop(make("litestream-restore-other", 3600));
    let written = make(".litestream-restore-written", 3600);
    written.try_lock().unwrap();
    restore(ten().store(), &folder.path().join("app.db"), &latest()).unwrap();
    let left =
        [".litestream-restore-written", ".litestream-restore-young", "app.db", "litestream-restore-other"];
    assert_eq!(names(folder.path()), left);
}

#[test]
fn a_read_that_never_ends_can_be_cancelled() {
    let history = ten();
    let stuck = crate::store::Faults::new(&history.store(), 1);
    stuck.often(crate::store::Op::Get, 1000, crate::store::Fault::Delay(Duration::from_secs(3600)));
    let reached = Arc::new(AtomicUsize::new(0));
    let cancel = Cancel::when(move || reached.fetch_add(1, Ordering::SeqCst) > 2);
    let error = refused(stuck.replica(), &Options { cancel, ..Options::default() });
    assert_eq!(error.kind(), ErrorKind::Interrupted);
}

#[test]
fn errors_of_the_store_leave_nothing_and_keep_their_kind() {
    use crate::store::{Fault, Faults, Op};
    for get in 0..5 {
        let store = Faults::new(&ten().store(), 1);
        for _ in 0..get {
            store.next(Op::Get, Fault::Delay(Duration::ZERO));
        }
        store.next(Op::Get, Fault::Refuse(ErrorKind::Denied));
        let error = refused(store.replica(), &Options { parallelism: 1, ..Options::default() });
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    }
}

#[test]
fn large_files_come_in_pieces_or_in_one_request() {
    let mut history = History::new(65536, 3);
    history.commit(400, &[]);
    history.put(9, 1, 1);
    history.grow(3);
    let size = history.store.files().into_iter().map(|(_, size)| size).max().unwrap();
    let pieces = size.div_ceil(2 << 20) as u64;
    assert!(pieces > 4);
    // A store that takes its time to begin sends the rest at once: first piece, rest, two small files.
    for (delay, parallelism, gets) in [(Duration::ZERO, 4096, pieces + 2), (Duration::from_millis(600), 2, 4)]
    {
        let store = crate::store::Faults::new(&history.store(), 1);
        store.often(crate::store::Op::Get, 1000, crate::store::Fault::Delay(delay));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.db");
        let options = Options { parallelism, ..Options::default() };
        restore(store.replica(), &path, &options).unwrap();
        assert!(fs::read(&path).unwrap() == history.image(3));
        assert_eq!(store.count(crate::store::Op::Get), gets);
    }
}

#[test]
fn a_listing_that_tells_only_when_files_were_stored_is_enough_for_a_time() {
    let history = History::new(512, 7);
    let copy = ten().with_store(&history.store);
    for n in 1..=10 {
        let bytes = copy.encode(n, n);
        // All were stored at the same, much later moment.
        copy.put_bytes(id(0, n, n), bytes, 1000);
    }
    copy.put_bytes(id(9, 1, 4), copy.encode(1, 4), 1000);
    let folder = tempfile::tempdir().unwrap();
    for n in 1..=10 {
        let path = folder.path().join(format!("{n}.db"));
        let point = RestorePoint::Timestamp(Timestamp::from_millis(copy.time(n).as_millis() + 500));
        assert_eq!(restore(copy.store(), &path, &to(point)).unwrap().txid, Some(txid(n)));
        assert!(fs::read(&path).unwrap() == copy.image(n));
    }
    let early = RestorePoint::Timestamp(Timestamp::from_millis(copy.time(1).as_millis() - 1));
    for beyond in [to(early), to(at(99))] {
        let error = refused(copy.store(), &beyond).to_string();
        let covered = format!("TXID {} ({}) to TXID {} ({})", txid(1), copy.time(1), txid(10), copy.time(10));
        assert!(error.contains(&covered), "{error}");
    }
}

#[test]
fn files_that_compaction_removes_meanwhile_are_found_in_their_new_place() {
    let history = ten();
    let meddled = AtomicBool::new(false);
    let copy = history.clone();
    let store = Hooked::store(&history.store, move |file, _| {
        if file == id(0, 9, 9) && !meddled.swap(true, Ordering::SeqCst) {
            // Called on a thread of the runtime: the memory store needs none.
            futures_util::FutureExt::now_or_never(async {
                let options = crate::store::PutOptions { timestamp: copy.time(10), if_absent: false };
                copy.store.put(id(2, 8, 10), copy.encode(8, 10), options).await.unwrap();
                copy.store.delete(&[id(0, 8, 8), id(0, 9, 9), id(0, 10, 10)]).await.unwrap();
            })
            .unwrap();
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    let report = restore(store, &path, &Options { parallelism: 1, ..Options::default() }).unwrap();
    assert_eq!((report.txid, report.files), (Some(txid(10)), 4));
    assert!(fs::read(&path).unwrap() == history.image(10));
}

#[test]
fn a_file_that_is_listed_and_never_there_ends_the_restore() {
    let history = ten();
    let copy = history.clone();
    let put = copy.encode(1, 4);
    let store = Hooked::store(&history.store, move |file, _| {
        if file == id(9, 1, 4) {
            // Replaced by one of another size each time it is read.
            copy.store.tamper(file, |bytes| {
                bytes.push(0);
                let _ = &put;
            });
        }
    });
    let error = refused(store, &latest());
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("vanish"), "{error}");
}

#[test]
fn parent_folders_are_created() {
    let history = ten();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a/b/c/app.db");
    assert_eq!(restore(history.store(), &path, &latest()).unwrap().path, path);
    assert!(fs::read(&path).unwrap() == history.image(10));
    assert_eq!(names(path.parent().unwrap()), ["app.db"]);
}

#[test]
fn an_existing_target_is_kept_unless_forced() {
    let history = ten();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    fs::write(&path, "precious").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let error = restore(history.store(), &path, &latest()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert!(error.to_string().contains("app.db") && error.to_string().contains("force"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), b"precious");

    // A forced restore that fails changes nothing either.
    let error = restore(MemoryStore::new().replica(), &path, &force()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(fs::read(&path).unwrap(), b"precious");

    for suffix in ["-wal", "-shm", "-journal"] {
        fs::write(folder.path().join(format!("app.db{suffix}")), "of the old one").unwrap();
    }
    assert_eq!(restore(history.store(), &path, &force()).unwrap().path, path);
    assert!(fs::read(&path).unwrap() == history.image(10));
    assert_eq!(names(folder.path()), ["app.db"]);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
}

#[test]
fn a_leftover_log_is_not_put_beside_the_restored_database() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    for suffix in ["-wal", "-journal"] {
        let leftover = folder.path().join(format!("app.db{suffix}"));
        fs::write(&leftover, "of a database that was removed").unwrap();
        let error = restore(ten().store(), &path, &latest()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert!(error.to_string().contains(&format!("app.db{suffix}")), "{error}");
        assert_eq!(names(folder.path()), [format!("app.db{suffix}")]);
        restore(ten().store(), &path, &force()).unwrap();
        assert_eq!(names(folder.path()), ["app.db"]);
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_target_that_appears_meanwhile_is_kept() {
    let history = ten();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    let target = path.clone();
    let store = Hooked::store(&history.store, move |_, _| fs::write(&target, "somebody else's").unwrap());
    let error = restore(store, &path, &latest()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(fs::read(&path).unwrap(), b"somebody else's");
    assert_eq!(names(folder.path()), ["app.db"]);
}

#[test]
fn a_log_that_appears_meanwhile_is_not_put_beside_the_database() {
    let history = ten();
    let folder = tempfile::tempdir().unwrap();
    let leftover = folder.path().join("app.db-wal");
    let store = Hooked::store(&history.store, move |_, _| fs::write(&leftover, "somebody else's").unwrap());
    let error = restore(store, &folder.path().join("app.db"), &latest()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(names(folder.path()), ["app.db-wal"]);
}

#[test]
fn a_link_stays_and_what_it_leads_to_is_replaced() {
    let history = ten();
    let folder = tempfile::tempdir().unwrap();
    let real = folder.path().join("real/app.db");
    fs::create_dir(folder.path().join("real")).unwrap();
    fs::write(&real, "old").unwrap();
    let link = folder.path().join("link.db");
    symlink(&real, &link).unwrap();
    restore(history.store(), &link, &force()).unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert!(fs::read(&real).unwrap() == history.image(10));
}

#[test]
fn what_is_no_file_is_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    for path in [folder.path(), Path::new("/dev/null"), Path::new("/"), Path::new("")] {
        assert!(restore(ten().store(), path, &force()).is_err(), "{}", path.display());
    }
    let error = restore(ten().store(), Path::new("/proc/nowhere/app.db"), &latest()).unwrap_err();
    assert!(error.to_string().contains("/proc"), "{error}");
}

#[test]
fn files_of_one_level_that_overlap_are_refused() {
    let history = ten();
    history.put(0, 8, 9);
    history.put(0, 9, 10);
    history.delete(&[id(0, 8, 8), id(0, 9, 9), id(0, 10, 10)]);
    let error = refused(history.store(), &latest());
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    for file in [id(0, 8, 9), id(0, 9, 10)] {
        assert!(error.to_string().contains(&file.to_string()), "{error}");
    }
    let planned = runtime::block_on(plan(history.store(), RestorePoint::Latest)).unwrap_err();
    assert_eq!(planned.to_string(), error.to_string());
    let folder = tempfile::tempdir().unwrap();
    let before = restore(history.store(), &folder.path().join("app.db"), &to(at(9))).unwrap();
    assert_eq!(before.txid, Some(txid(9)));
}

#[test]
fn missing_files_and_snapshots_that_are_none_are_refused() {
    let history = ten();
    history.delete(&[id(0, 9, 9)]);
    let error = refused(history.store(), &latest());
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("TXID 0000000000000009 is missing"), "{error}");

    let history = ten().with_store(&MemoryStore::new());
    history.put_bytes(id(9, 2, 4), history.encode(2, 4), 4);
    let error = refused(history.store(), &latest());
    assert!(error.to_string().contains("begins at TXID 1"), "{error}");
}

#[test]
fn a_snapshot_that_lacks_pages_is_refused() {
    let mut history = History::new(512, 7);
    history.commit(30, &[]);
    history.commit(30, &[1, 5, 7]);
    // Header bytes 16 to 32 are the first and the last transaction: the file now claims to be the first.
    let one = [1u64.to_be_bytes(), 1u64.to_be_bytes()].concat();
    let mut bytes = history.encode(2, 2).to_vec();
    bytes[16..32].copy_from_slice(&one);
    history.put_bytes(id(9, 1, 1), bytes.into(), 1);
    let error = refused(history.store(), &latest());
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("the snapshot has 3 pages instead of 30"), "{error}");
    assert!(error.to_string().contains(&id(9, 1, 1).to_string()), "{error}");
}

#[test]
fn what_the_check_refuses_gets_no_name() {
    let history = ten();
    let seen = Arc::new(AtomicUsize::new(0));
    let looked = seen.clone();
    let expected = history.image(10);
    let check = Check::that(move |path| {
        assert!(fs::read(path).unwrap() == expected);
        looked.fetch_add(1, Ordering::SeqCst);
        Err(Error::corrupt("not sound"))
    });
    let error = refused(history.store(), &Options { check: Some(check), ..Options::default() });
    assert_eq!((error.to_string().as_str(), seen.load(Ordering::SeqCst)), ("not sound", 1));
}

#[test]
fn a_dry_run_writes_nothing_and_reads_one_header() {
    let history = ten();
    let store = crate::store::Faults::new(&history.store(), 1);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new/app.db");
    let told = dry_run(store.replica(), &path, &latest()).unwrap();
    assert_eq!(store.count(crate::store::Op::Get), 1);
    assert_eq!(names(folder.path()), [""; 0]);
    let done = restore(history.store(), &path, &latest()).unwrap();
    let Steps::Ltx(plan) = runtime::block_on(plan(history.store(), RestorePoint::Latest)).unwrap() else {
        panic!("there are only LTX files")
    };
    assert_eq!((told.txid, told.timestamp, told.files), (done.txid, done.timestamp, done.files));
    assert_eq!((told.pages, told.bytes), (Some(done.pages), Some(done.bytes)));
    assert_eq!(told.download, plan.files().iter().map(|file| file.size).sum::<u64>());
    assert_eq!(dry_run(history.store(), &path, &latest()).unwrap_err().kind(), ErrorKind::AlreadyExists);
}
