//! Each damage is found and named; a good replica has no findings.

mod sealed;

use std::sync::atomic::AtomicBool;

use bytes::Bytes;

use super::*;
use crate::ltx::{Decoder, Lineage};
use crate::page::Pgno;
use crate::replica::tests::fixtures::{History, Hooked, id, txid};
use crate::store::{Fault, Faults, Op, PutOptions};

/// Twenty transactions as compaction leaves them: snapshots of 4 and 12, merged ones, the last of level 0.
fn twenty() -> History {
    let mut history = History::new(512, 11);
    history.commit(40, &[]);
    history.put(0, 1, 1);
    history.grow(20);
    history.put(9, 1, 4);
    history.put(9, 1, 12);
    for (min, max) in [(5, 8), (9, 12), (13, 16)] {
        history.put(1, min, max);
    }
    history.put(2, 5, 12);
    history.retire(0, 1, 10);
    history
}

fn run(store: Arc<Replica>, quick: bool) -> Outcome {
    verify(store, &Options { quick, ..Options::default() }).unwrap()
}

fn full(history: &History) -> Vec<Finding> {
    run(history.store(), false).findings
}

fn brief(findings: &[Finding]) -> Vec<(Severity, Problem, Option<FileId>)> {
    findings.iter().map(|f| (f.severity, f.problem, f.file)).collect()
}

fn flip(history: &History, file: FileId, at: impl Fn(usize) -> usize) {
    history.store.tamper(file, |bytes| {
        let at = at(bytes.len());
        bytes[at] ^= 0x10;
    });
}

/// All that a file says; `None` if it does not verify.
fn pages(bytes: &[u8]) -> Option<Vec<(Pgno, Vec<u8>)>> {
    let mut decoder = Decoder::new(bytes).ok()?;
    let mut page = vec![0; decoder.header().page_size.bytes()];
    let mut pages = Vec::new();
    while let Some(pgno) = decoder.next_page(&mut page).ok()? {
        pages.push((pgno, page.clone()));
    }
    decoder.finish().ok().map(|_| pages)
}

#[test]
fn a_good_replica_has_no_findings_and_is_proven() {
    let history = twenty();
    for quick in [true, false] {
        let outcome = run(history.store(), quick);
        assert_eq!(outcome.findings, []);
        assert_eq!(outcome.proven, Some(Proven { txid: txid(20), timestamp: history.time(20) }));
        assert_eq!(outcome.files, history.store.files().len());
        assert_eq!(outcome.bytes, history.store.files().iter().map(|(_, size)| *size as u64).sum::<u64>());
    }
}

#[test]
fn a_flipped_bit_is_found_wherever_it_is() {
    for file in [id(9, 1, 12), id(2, 5, 12), id(0, 20, 20)] {
        let size = twenty().store.files().into_iter().find(|(id, _)| *id == file).unwrap().1;
        for at in (0..size).step_by(size / 97 + 1).chain(size - 40..size) {
            let history = twenty();
            let mut harmless = false;
            history.store.tamper(file, |bytes| {
                let sound = pages(bytes);
                bytes[at] ^= 0x10;
                harmless = pages(bytes) == sound;
            });
            let findings = full(&history);
            if harmless {
                // Another way to say the same page: the checksum is that of the pages.
                assert_eq!(findings, [], "byte {at} of {file}");
                continue;
            }
            let expected: &[Problem] =
                if (16..32).contains(&at) { &[Problem::Name, Problem::Corrupt] } else { &[Problem::Corrupt] };
            let [finding] = findings.as_slice() else { panic!("byte {at} of {file}: {findings:?}") };
            assert_eq!((finding.severity, finding.file), (Severity::Error, Some(file)), "byte {at}");
            assert!(expected.contains(&finding.problem), "byte {at}: {finding:?}");
        }
    }
}

#[test]
fn the_quick_way_finds_damage_in_header_and_index() {
    for at_from_end in [17, 24, 25, 30] {
        let history = twenty();
        flip(&history, id(9, 1, 12), |size| size - at_from_end);
        let findings = run(history.store(), true).findings;
        let expected = (Severity::Error, Problem::Corrupt, Some(id(9, 1, 12)));
        assert_eq!(brief(&findings), [expected], "{at_from_end}");
    }
    let history = twenty();
    flip(&history, id(0, 20, 20), |_| 2);
    assert_eq!(
        brief(&run(history.store(), true).findings),
        [(Severity::Error, Problem::Corrupt, Some(id(0, 20, 20)))]
    );
}

#[test]
fn a_truncated_file_is_found() {
    for (file, keep) in [(id(9, 1, 12), 3000), (id(0, 20, 20), 130), (id(1, 13, 16), 99), (id(1, 13, 16), 0)]
    {
        for quick in [true, false] {
            let history = twenty();
            history.store.tamper(file, |bytes| bytes.truncate(keep));
            let findings = run(history.store(), quick).findings;
            assert_eq!(brief(&findings), [(Severity::Error, Problem::Corrupt, Some(file))], "{keep}");
        }
    }
}

#[test]
fn a_damaged_file_shortens_what_is_proven() {
    let history = twenty();
    flip(&history, id(0, 19, 19), |size| size - 1);
    let outcome = run(history.store(), false);
    assert_eq!(outcome.proven, None, "what follows the damage is a gap");
    let history = twenty();
    flip(&history, id(0, 20, 20), |size| size - 1);
    assert_eq!(run(history.store(), false).proven.unwrap().txid, txid(19));
}

#[test]
fn a_missing_file_is_a_gap() {
    let history = twenty();
    history.delete(&[id(0, 18, 18)]);
    let [finding] = full(&history).try_into().unwrap();
    assert_eq!((finding.severity, finding.problem), (Severity::Error, Problem::Gap));
    assert_eq!(finding.txids, Some((txid(18), txid(18))));
    assert!(finding.message.contains("no later state can be restored"), "{}", finding.message);
}

#[test]
fn a_gap_before_a_snapshot_costs_only_what_is_between() {
    let history = twenty();
    history.delete(&[id(1, 5, 8), id(2, 5, 12)]);
    let outcome = run(history.store(), false);
    let [finding] = outcome.findings.try_into().unwrap();
    assert_eq!((finding.severity, finding.txids), (Severity::Error, Some((txid(5), txid(8)))));
    assert!(finding.message.contains("to the snapshot of TXID 000000000000000c"), "{}", finding.message);
    assert_eq!(outcome.proven.unwrap().txid, txid(20), "the latest state needs none of it");
}

#[test]
fn what_the_calendar_thinned_out_is_no_gap_and_what_is_missing_since_is() {
    let thinned = |gone: &[FileId], since: u64| {
        let history = twenty();
        history.delete(gone);
        let options = Options { thinned: Some(history.time(since)), ..Options::default() };
        verify(history.store(), &options).unwrap().findings
    };
    // Two snapshots, with nothing that leads from one to the other.
    let between = [id(1, 5, 8), id(1, 9, 12), id(2, 5, 12), id(0, 11, 11), id(0, 12, 12)];
    assert_eq!(thinned(&between, 12), []);
    let [finding] = thinned(&between, 11).try_into().unwrap();
    assert_eq!(
        (finding.severity, finding.problem),
        (Severity::Error, Problem::Gap),
        "the snapshot is too young"
    );
    // What follows the snapshot must be there.
    let since = [between.as_slice(), &[id(1, 13, 16), id(0, 14, 14)]].concat();
    let [finding] = thinned(&since, 12).try_into().unwrap();
    assert_eq!((finding.problem, finding.txids), (Problem::Gap, Some((txid(14), txid(14)))));
    assert_eq!(thinned(&[id(1, 9, 12)], 4), [], "another level has it");
}

/// As after a weekend: the snapshot of Friday's last state was made on Monday, when something was committed again.
#[test]
fn a_snapshot_is_as_old_as_its_state_however_late_it_was_stored() {
    let history = twenty();
    history.put_bytes(id(9, 1, 12), history.encode(1, 12), 20);
    history.delete(&[id(1, 5, 8), id(1, 9, 12), id(2, 5, 12), id(0, 11, 11), id(0, 12, 12)]);
    for quick in [false, true] {
        let with = |since| Options { quick, thinned: Some(history.time(since)), ..Options::default() };
        assert_eq!(verify(history.store(), &with(12)).unwrap().findings, []);
        let findings = verify(history.store(), &with(11)).unwrap().findings;
        assert_eq!(brief(&findings), [(Severity::Error, Problem::Gap, None)]);
    }
}

#[test]
fn what_retention_leaves_of_levels_is_no_gap() {
    // The last files of levels 2 and 3 from when there were such levels; all else before the snapshot is gone.
    let left = |files: &[(u64, u64)]| {
        let history = twenty();
        history.delete(&[id(9, 1, 4), id(1, 5, 8), id(1, 9, 12), id(2, 5, 12), id(0, 11, 11), id(0, 12, 12)]);
        for (level, (min, max)) in (2..).zip(files) {
            history.put(level, *min, *max);
        }
        full(&history)
    };
    assert_eq!(left(&[]), []);
    assert_eq!(left(&[(1, 3)]), []);
    assert_eq!(left(&[(1, 3), (1, 2)]), []);
    assert_eq!(left(&[(5, 6)]), []);
    // A level that was used again goes on behind the gap.
    let history = twenty();
    history.delete(&[id(9, 1, 4), id(1, 5, 8), id(1, 9, 12), id(2, 5, 12), id(0, 11, 11), id(0, 12, 12)]);
    history.put(2, 1, 3);
    history.put(2, 13, 16);
    assert_eq!(full(&history), []);
    // Two files of one level, or one of level 0: somebody else removed what came after them.
    for files in [&[(1, 1, 2), (1, 3, 4)][..], &[(0, 1, 1)]] {
        let history = twenty();
        history.delete(&[id(9, 1, 4), id(1, 5, 8), id(1, 9, 12), id(2, 5, 12), id(0, 11, 11), id(0, 12, 12)]);
        for (level, min, max) in files {
            history.put(*level, *min, *max);
        }
        assert!(full(&history).iter().any(|finding| finding.problem == Problem::Gap), "{files:?}");
    }
}

#[test]
fn a_gap_that_another_level_fills_is_a_warning() {
    let history = twenty();
    history.delete(&[id(0, 14, 14)]);
    let outcome = run(history.store(), false);
    let [finding] = outcome.findings.try_into().unwrap();
    assert_eq!((finding.severity, finding.problem), (Severity::Warning, Problem::Gap));
    assert_eq!(finding.txids, Some((txid(14), txid(14))));
    assert_eq!(outcome.proven.unwrap().txid, txid(20));
}

#[test]
fn files_of_one_level_must_not_overlap() {
    let history = twenty();
    let overlapping = history.put(1, 11, 14);
    assert_eq!(
        brief(&full(&history)),
        [
            (Severity::Error, Problem::Overlap, Some(overlapping)),
            (Severity::Error, Problem::Overlap, Some(id(1, 13, 16)))
        ]
    );
    let history = twenty();
    let within = history.put(2, 6, 7);
    assert_eq!(brief(&full(&history)), [(Severity::Error, Problem::Overlap, Some(within))]);
}

#[test]
fn a_file_under_a_wrong_name_is_found() {
    let history = twenty();
    let bytes = history.encode(20, 20);
    history.delete(&[id(0, 20, 20)]);
    history.put_bytes(id(0, 20, 21), bytes, 20);
    for quick in [true, false] {
        let findings = run(history.store(), quick).findings;
        assert_eq!(brief(&findings), [(Severity::Error, Problem::Name, Some(id(0, 20, 21)))]);
        assert!(findings[0].message.contains("wrong name"), "{}", findings[0].message);
    }
}

#[test]
fn a_file_under_a_wrong_name_says_nothing_of_others() {
    let history = twenty();
    history.put(9, 1, 20);
    history.put_bytes(id(0, 20, 20), history.encode(19, 19), 20);
    assert_eq!(brief(&full(&history)), [(Severity::Error, Problem::Name, Some(id(0, 20, 20)))]);
}

#[test]
fn what_is_no_ltx_file_is_found_unless_it_is_being_written() {
    let history = twenty();
    let now = history.time(20);
    history.store.put_raw("ltx/0/copy of 1.ltx", Bytes::from_static(b"x"), now);
    history.store.put_raw("ltx/0/.0000000000000015-0000000000000015.ltx.17.tmp", Bytes::new(), now);
    history.store.put_raw("generations/0123456789abcdef/snapshots/x", Bytes::new(), now);
    let [finding] = full(&history).try_into().unwrap();
    assert_eq!((finding.severity, finding.problem), (Severity::Warning, Problem::Stray));
    assert_eq!(finding.path.as_deref(), Some("ltx/0/copy of 1.ltx"));
}

#[test]
fn a_replica_without_snapshot_or_without_anything_is_no_good_one() {
    let history = twenty();
    history.delete(&[id(9, 1, 4), id(9, 1, 12)]);
    let outcome = run(history.store(), false);
    assert_eq!(outcome.findings.len(), 1);
    assert!(outcome.findings[0].message.contains("no snapshot"), "{:?}", outcome.findings);
    assert_eq!(outcome.proven, None);
    let history = History::new(512, 1);
    let outcome = run(history.store(), true);
    assert_eq!(brief(&outcome.findings), [(Severity::Error, Problem::Empty, None)]);
    history.store.put_raw("generations/0123456789abcdef/snapshots/x", Bytes::new(), history.time(1));
    let outcome = run(history.store(), false);
    assert!(outcome.findings[0].message.contains("Litestream 0.3 wrote it"), "{:?}", outcome.findings);
}

#[test]
fn databases_with_different_page_sizes_are_found() {
    let history = twenty();
    let mut other = History::new(1024, 5).with_store(&history.store);
    while other.last() < 21 {
        other.any_commit();
    }
    let intruder = other.put(0, 21, 21);
    assert_eq!(brief(&full(&history)), [(Severity::Error, Problem::Mixed, Some(intruder))]);
}

#[test]
fn files_of_two_lineages_are_named_and_nothing_is_proven() {
    let mut history = twenty();
    let mut other = History::new(512, 5).with_store(&history.store);
    (history.lineage, other.lineage) = (Lineage::new(0xa), Lineage::new(0xb));
    for n in 16..=20 {
        history.put(0, n, n);
    }
    assert_eq!(full(&history), [], "some files carry none");
    other.commit(40, &[]);
    other.grow(3);
    for quick in [true, false] {
        let outcome = run(history.store(), quick);
        let files: Vec<_> = (1..=3).map(|n| (Severity::Error, Problem::Mixed, Some(id(0, n, n)))).collect();
        let found: Vec<_> =
            outcome.findings.iter().filter(|found| found.problem == Problem::Mixed).cloned().collect();
        // Those that were written last are taken for the ones that are meant.
        assert_eq!(brief(&found), files[1..], "quick: {quick}");
        for words in ["000000000000000a (5 files", "000000000000000b (2 files", "Move the files of one away"]
        {
            assert!(found[0].message.contains(words), "{}", found[0].message);
        }
        assert_eq!(outcome.proven, None);
    }
}

#[test]
fn without_lineages_files_that_end_alike_must_agree() {
    // Another database, of the same size: seen by its pages, of which there are some in both.
    let history = twenty();
    let mut other = History::new(512, 5).with_store(&history.store);
    other.commit(40, &[]);
    while other.last() < 20 {
        other.any_commit();
    }
    other.put(1, 17, 20);
    let found = full(&history);
    assert_eq!(brief(&found), [(Severity::Error, Problem::Mixed, Some(id(1, 17, 20)))]);
    assert!(found[0].message.contains("it ends where"), "{}", found[0].message);
    // The same database, of which a page is not the same.
    let history = twenty();
    let mut forged = history.clone();
    forged.forge(20);
    forged.put(9, 1, 20);
    assert_eq!(brief(&full(&history)), [(Severity::Error, Problem::Mixed, Some(id(9, 1, 20)))]);
}

#[test]
fn what_compaction_removes_meanwhile_is_no_finding() {
    let history = twenty();
    let (moving, moved) = (history.clone(), AtomicBool::new(false));
    let store = Hooked::store(&history.store, move |file, _| {
        if file == id(0, 15, 15) && !moved.swap(true, Ordering::SeqCst) {
            // Called on a thread of the runtime: the memory store needs none.
            futures_util::FutureExt::now_or_never(async {
                let options = PutOptions { timestamp: moving.time(20), if_absent: false };
                moving.store.put(id(1, 17, 20), moving.encode(17, 20), options).await.unwrap();
                let level_0: Vec<FileId> = (11..=20).map(|n| id(0, n, n)).collect();
                moving.store.delete(&level_0).await.unwrap();
            })
            .unwrap();
        }
    });
    let outcome = run(store, false);
    assert_eq!(outcome.findings, []);
}

#[test]
fn a_file_that_cannot_be_read_is_a_finding() {
    let faults = Faults::new(&twenty().store(), 1);
    faults.next(Op::Get, Fault::Refuse(ErrorKind::Denied));
    let findings = run(faults.replica(), false).findings;
    let [finding] = findings.try_into().unwrap();
    assert_eq!((finding.severity, finding.problem), (Severity::Error, Problem::Unreadable));
}

#[test]
fn a_replica_that_cannot_be_listed_is_an_error() {
    let faults = Faults::new(&twenty().store(), 1);
    faults.next(Op::List, Fault::Refuse(ErrorKind::Denied));
    assert_eq!(verify(faults.replica(), &Options::default()).unwrap_err().kind(), ErrorKind::Denied);
}

#[test]
fn it_stops_when_told() {
    let stop = Arc::new(AtomicBool::new(true));
    let e = verify(twenty().store(), &Options { stop, ..Options::default() }).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Interrupted);
}
