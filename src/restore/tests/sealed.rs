//! Sealed replicas are restored with the right identities, and otherwise not at all.

use super::*;
use std::time::{Duration, Instant};

use crate::ltx::sealing::{Sealing, for_a_crowd, keyring, pair, sample, sample_keyring, seal, with_parts_of};
use crate::ltx::{Keyring, Plain};

fn read_with(store: &Replica, keyring: Keyring) -> Arc<Replica> {
    Arc::new(store.read_with(keyring))
}

/// What a restore to `point` makes; an error leaves nothing.
fn restored(store: Arc<Replica>, point: RestorePoint) -> Result<(Vec<u8>, Report)> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("r.db");
    let report = restore(store, &path, &to(point));
    assert_eq!(names(folder.path()).is_empty(), report.is_err());
    report.map(|report| (fs::read(path).unwrap(), report))
}

#[test]
fn every_sample_is_restored_to_each_of_its_transactions() {
    let until_2 = Plain::UpTo(txid(2));
    for (name, places, plain, last) in [
        ("one-recipient-4096", &[0][..], Plain::None, 5),
        ("three-recipients-512", &[0], Plain::None, 5),
        ("three-recipients-512", &[1], Plain::None, 5),
        ("three-recipients-512", &[2], Plain::None, 5),
        ("turned-on-at-3-4096", &[1], until_2, 5),
        ("key-changed-at-4-65536", &[1, 0], Plain::None, 5),
        ("with-checksums-4096", &[1], Plain::None, 1),
    ] {
        let store = read_with(&in_folder(sample(name)), sample_keyring(places, plain));
        for n in 1..=last {
            let (database, report) = restored(store.clone(), at(n)).unwrap();
            assert!(database == fs::read(sample(name).join(format!("at-{n}.db"))).unwrap(), "{name} at {n}");
            let plain_files = if plain == until_2 { 2.min(n as usize) } else { 0 };
            assert_eq!(report.sealed, Some(report.files - plain_files), "{name} at {n}");
        }
        let (database, _) = restored(store, RestorePoint::Latest).unwrap();
        assert!(database == fs::read(sample(name).join(format!("at-{last}.db"))).unwrap(), "{name}");
    }
}

#[test]
fn without_what_opens_it_an_error_names_the_file_and_the_setting() {
    for (name, places, plain, words) in [
        ("one-recipient-4096", &[][..], Plain::Any, ["0000000000000001", "age_identity_file"]),
        ("one-recipient-4096", &[1], Plain::None, ["0000000000000001", "age_identity_file"]),
        ("three-recipients-512", &[], Plain::Any, ["0000000000000001", "age_identity_file"]),
        ("key-changed-at-4-65536", &[0], Plain::None, ["0000000000000004", "age_identity_file"]),
        ("key-changed-at-4-65536", &[1], Plain::None, ["0000000000000001", "age_identity_file"]),
        ("turned-on-at-3-4096", &[1], Plain::None, ["0000000000000001", "give as plain_until the last TXID"]),
        (
            "turned-on-at-3-4096",
            &[1],
            Plain::UpTo(txid(1)),
            ["0000000000000002", "after TXID 0000000000000001 (plain_until)"],
        ),
        ("turned-on-at-3-4096", &[0], Plain::UpTo(txid(2)), ["0000000000000003", "age_identity_file"]),
    ] {
        let store = read_with(&in_folder(sample(name)), sample_keyring(places, plain));
        let e = restored(store, RestorePoint::Latest).map(drop).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Denied, "{e}");
        assert!(words.iter().all(|word| e.to_string().contains(word)), "{name} {places:?}: {e}");
    }
}

#[test]
fn a_dry_run_refuses_what_it_sees_of_that() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("r.db");
    let store = in_folder(sample("one-recipient-4096"));
    let e = dry_run(store.clone(), &path, &latest()).unwrap_err();
    assert!(e.to_string().contains("age_identity_file"), "{e}");
    let forecast = dry_run(read_with(&store, sample_keyring(&[0], Plain::None)), &path, &latest()).unwrap();
    assert_eq!(forecast.txid, Some(txid(5)));
    let plain = ten();
    let e = dry_run(read_with(&plain.store(), keyring(&[1], Plain::None)), &path, &latest()).unwrap_err();
    assert!(e.to_string().contains("it is not sealed"), "{e}");
}

/// Ten transactions as of [`ten`], sealed.
fn ten_sealed() -> History {
    let history = ten();
    for (file, _) in history.store.files() {
        history.store.tamper(file, |bytes| *bytes = seal(bytes, &[1, 2]));
    }
    history
}

#[test]
fn a_plain_file_is_refused_wherever_it_is_slipped_in() {
    let keyring = || keyring(&[1], Plain::None);
    let sealed = ten_sealed();
    assert!(restored(read_with(&sealed.store(), keyring()), at(10)).unwrap().0 == sealed.image(10));
    let plan = [id(9, 1, 4), id(1, 5, 7), id(0, 8, 8), id(0, 9, 9), id(0, 10, 10)];
    for file in plan {
        let history = ten_sealed();
        let (min, max) = (file.name.min().get(), file.name.max().get());
        history.put_bytes(file, history.encode(min, max), max);
        let e = restored(read_with(&history.store(), keyring()), at(10)).map(drop).unwrap_err();
        assert!(
            e.to_string().contains(&file.name.to_string()) && e.to_string().contains("not sealed"),
            "{e}"
        );
    }
    // All sealed files are gone, plain ones are in their place.
    let e = restored(read_with(&ten().store(), keyring()), at(10)).map(drop).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Denied);
    let taken = Keyring::new(keyring().identities().clone(), Plain::Any);
    assert!(restored(read_with(&ten().store(), taken), at(10)).is_ok(), "require_encryption=0");
}

#[test]
fn files_do_not_change_places() {
    let opened =
        |history: &History| restored(read_with(&history.store(), keyring(&[1], Plain::None)), at(10));
    let files: Vec<_> = ten_sealed().store.files().into_iter().map(|(file, _)| file).collect();
    for (a, b) in
        files.iter().flat_map(|a| files.iter().map(move |b| (*a, *b))).filter(|(a, b)| a.name != b.name)
    {
        let history = ten_sealed();
        let mut bytes = Vec::new();
        history.store.tamper(b, |from| bytes.clone_from(from));
        history.store.tamper(a, |to| *to = bytes);
        if let Ok((database, _)) = opened(&history) {
            assert!(database == history.image(10), "{b} as {a}");
        }
    }
}

/// [`History::tiny`], sealed.
fn tiny() -> History {
    let history = History::tiny();
    for (file, _) in history.store.files() {
        history.store.tamper(file, |bytes| *bytes = seal(bytes, &[1]));
    }
    history
}

fn restored_with_ours(history: &History) -> Result<Vec<u8>> {
    let store = read_with(&history.store(), keyring(&[1], Plain::None));
    restored(store, RestorePoint::Latest).map(|(database, _)| database)
}

#[test]
fn each_flipped_byte_and_each_cut_is_an_error() {
    let history = tiny();
    assert!(restored_with_ours(&history).unwrap() == history.image(3));
    for file in [id(9, 1, 1), id(0, 3, 3)] {
        let bytes = history.store.bytes_of(file).to_vec();
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            assert!(
                restored_with_ours(&history.with_file(file, flipped)).is_err(),
                "{file} is flipped at {at}"
            );
            // The decoder is tried with every length: `ltx/seal/tests.rs`.
            let cut = (at % 16 == 0).then(|| history.with_file(file, bytes[..at].to_vec()));
            assert!(cut.is_none_or(|cut| restored_with_ours(&cut).is_err()), "{file} is cut at {at}");
        }
    }
}

#[test]
fn parts_of_another_file_are_an_error() {
    let history = tiny();
    let parts = |txid| Sealing::of(&history.encode(txid, txid), &[pair(1).1]);
    for (txid, other) in [(2, 3), (3, 2)] {
        let file = id(0, txid, txid);
        assert!(restored_with_ours(&history.with_file(file, parts(txid).file())).is_ok());
        for (part, bytes) in with_parts_of(&parts(txid), &parts(other)) {
            let opened = restored_with_ours(&history.with_file(file, bytes));
            assert!(opened.is_err(), "{file} has the {part} of {other}");
        }
    }
}

#[test]
fn a_file_for_a_crowd_is_an_error_in_bounded_time() {
    let history = tiny();
    let begun = Instant::now();
    let e =
        restored_with_ours(&history.with_file(id(0, 3, 3), for_a_crowd(&history.encode(3, 3)))).unwrap_err();
    assert!(e.to_string().contains("65535 recipients"), "{e}");
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
}

#[test]
fn a_sealed_file_that_nothing_opens_is_left_out_where_plain_ones_lead_to_the_same_state() {
    let mut history = ten();
    history.recipients = crate::ltx::sealing::sample_recipients(&[0]);
    let sealed = history.put(9, 1, 4);
    let plain = |keyring| read_with(&history.store(), keyring);
    let (database, report) = restored(plain(Keyring::default()), at(4)).unwrap();
    assert!(database == history.image(4));
    assert_eq!((report.left_out, report.sealed), (vec![sealed], Some(0)));
    let folder = tempfile::tempdir().unwrap();
    let dry = |keyring| dry_run(plain(keyring), &folder.path().join("r.db"), &to(at(4)));
    assert_eq!(dry(Keyring::default()).unwrap().files, report.files);
    // Whoever can open it does, and whoever takes no plain files gets none.
    let (database, report) = restored(plain(sample_keyring(&[0], Plain::None)), at(4)).unwrap();
    assert!(database == history.image(4));
    assert_eq!((report.left_out, report.sealed), (vec![], Some(1)));
    for other in [sample_keyring(&[1], Plain::None), sample_keyring(&[1], Plain::UpTo(txid(3)))] {
        let e = restored(plain(other), at(4)).map(drop).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Denied);
        assert!(
            e.to_string().contains(&format!("{sealed}")) && e.to_string().contains("none of theirs"),
            "{e}"
        );
    }
    let (database, report) = restored(plain(sample_keyring(&[1], Plain::UpTo(txid(4)))), at(4)).unwrap();
    assert!(database == history.image(4));
    assert_eq!(report.left_out, [sealed]);
    // A plain file is refused by name, whatever sealed ones there are beside it.
    history.put(1, 1, 3);
    history.recipients = crate::ltx::Recipients::default();
    history.put(9, 1, 3);
    let e = restored(read_with(&history.store(), sample_keyring(&[0], Plain::None)), at(3))
        .map(drop)
        .unwrap_err();
    assert!(e.to_string().contains(&id(9, 1, 3).to_string()) && e.to_string().contains("not sealed"), "{e}");
}
