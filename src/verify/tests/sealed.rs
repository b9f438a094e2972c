//! Sealed replicas are verified with the identity, and without one as far as that goes.

use super::*;
use crate::ltx::sealing::{keyring, seal};
use crate::ltx::{Keyring, Plain};

fn sealed() -> History {
    let history = twenty();
    for (file, _) in history.store.files() {
        history.store.tamper(file, |bytes| *bytes = seal(bytes, &[1]));
    }
    history
}

fn with(history: &History, keyring: Keyring, quick: bool) -> Outcome {
    run(Arc::new(history.store().read_with(keyring)), quick)
}

#[test]
fn with_the_identity_it_is_proven() {
    let history = sealed();
    let outcome = with(&history, keyring(&[1], Plain::None), false);
    assert_eq!(outcome.findings, []);
    assert_eq!(outcome.proven, Some(Proven { txid: txid(20), timestamp: history.time(20) }));
    assert_eq!((outcome.sealed, outcome.files), (history.store.files().len(), history.store.files().len()));
}

#[test]
fn without_one_bytes_and_names_are_verified_and_nothing_is_proven() {
    let history = sealed();
    let outcome = with(&history, Keyring::default(), false);
    let [finding] = &outcome.findings[..] else { panic!("{:?}", outcome.findings) };
    assert_eq!((finding.severity, finding.problem, finding.file), (Severity::Warning, Problem::Sealed, None));
    assert!(finding.message.contains("content was not checked"), "{}", finding.message);
    assert_eq!(outcome.proven, None);
    let quick = with(&history, Keyring::default(), true);
    assert_eq!((quick.findings, quick.proven), (vec![], None), "a quick look needs no key");
    flip(&history, id(2, 5, 12), |size| size / 2);
    history.retire(0, 19, 19);
    let found = with(&history, Keyring::default(), false).findings;
    let problems: Vec<_> = brief(&found).into_iter().map(|(_, problem, file)| (problem, file)).collect();
    assert!(problems.contains(&(Problem::Corrupt, Some(id(2, 5, 12)))), "{problems:?}");
    assert!(problems.contains(&(Problem::Gap, None)), "{problems:?}");
}

#[test]
fn a_wrong_identity_and_a_plain_file_are_named() {
    let history = sealed();
    let found = with(&history, keyring(&[2], Plain::None), false).findings;
    assert_eq!(found.len(), history.store.files().len());
    assert!(
        found.iter().all(|f| f.problem == Problem::Unreadable && f.message.contains("age_identity_file"))
    );
    let (file, plain) = (id(0, 20, 20), history.encode(20, 20));
    history.put_bytes(file, plain, 20);
    for quick in [true, false] {
        let outcome = with(&history, keyring(&[1], Plain::None), quick);
        let [finding] = &outcome.findings[..] else { panic!("{:?}", outcome.findings) };
        assert_eq!((finding.severity, finding.file), (Severity::Error, Some(file)), "quick: {quick}");
        assert!(finding.message.contains("it is not sealed"), "{}", finding.message);
    }
    let outcome = with(&history, keyring(&[1], Plain::UpTo(txid(20))), false);
    assert_eq!((outcome.findings, outcome.sealed), (vec![], outcome.files - 1));
}

#[test]
fn every_flipped_byte_is_found() {
    let size = sealed().store.files().into_iter().find(|(file, _)| *file == id(0, 20, 20)).unwrap().1;
    for at in (0..size).step_by(3) {
        let history = sealed();
        flip(&history, id(0, 20, 20), |_| at);
        for keyring in [keyring(&[1], Plain::None), Keyring::default()] {
            let found = with(&history, keyring, false).findings;
            let is_named = |f: &Finding| f.severity == Severity::Error && f.file == Some(id(0, 20, 20));
            assert!(found.iter().any(is_named), "byte {at}: {found:?}");
        }
    }
}

#[test]
fn a_level_that_was_begun_when_encryption_was_turned_on_has_no_gap_before() {
    // What follows transaction 16 is sealed; level 1 continues behind what was not, and still waited for its merge.
    for is_sealed in [true, false] {
        let mut history = twenty();
        history.delete(&[id(1, 13, 16)]);
        history.grow(24);
        history.put(1, 17, 20);
        let files = history.store.files().into_iter().map(|(file, _)| file);
        for file in files.filter(|file| is_sealed && file.name.min() >= txid(17)) {
            history.store.tamper(file, |bytes| *bytes = seal(bytes, &[1]));
        }
        let plain = if is_sealed { Plain::UpTo(txid(16)) } else { Plain::Any };
        let outcome = with(&history, keyring(&[1], plain), false);
        let problems: Vec<_> = brief(&outcome.findings).into_iter().map(|(_, problem, _)| problem).collect();
        assert_eq!(problems, if is_sealed { vec![] } else { vec![Problem::Gap] });
        assert_eq!(outcome.proven.map(|proven| proven.txid), Some(txid(24)));
    }
}
