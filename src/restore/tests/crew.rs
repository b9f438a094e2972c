//! A file that is applied by several threads becomes what one thread makes of it.

use std::io::{self, Read};

use super::*;
use crate::ltx::sealing::{keyring, seal};
use crate::ltx::{Decoder, Keyring, Plain, Summary};
use crate::replica::{Beside, PageSums};
use crate::restore::apply::apply_pages;
use crate::restore::crew::{self, Division};
use crate::restore::output::Draft;

const DIVISIONS: [Division; 4] = [
    Division { helpers: 1, batch: 2000, run: 4096 },
    Division { helpers: 3, batch: 700, run: 512 },
    Division { helpers: 7, batch: 1, run: 100_000 },
    // No thread was to be had.
    Division { helpers: 0, batch: 5000, run: 4096 },
];

/// What becomes of a file: the database, and what is said of it.
type Made = (std::result::Result<Summary, String>, Vec<u8>);

fn draft_in(folder: &tempfile::TempDir) -> Draft {
    Output::prepare(&folder.path().join("app.db"), None).unwrap().create().unwrap()
}

fn made(
    bytes: &[u8],
    keyring: &Keyring,
    apply: impl FnOnce(&mut Decoder<&[u8]>, &mut Draft) -> Result<()>,
) -> Made {
    let folder = tempfile::tempdir().unwrap();
    let mut draft = draft_in(&folder);
    let said = Decoder::open(bytes, keyring).and_then(|mut decoder| {
        apply(&mut decoder, &mut draft)?;
        let summary = decoder.finish()?;
        draft.finish(summary.header.commit, summary.header.page_size)?;
        Ok(summary)
    });
    (said.map_err(|e| e.to_string()), fs::read(draft.path()).unwrap())
}

fn by_one(bytes: &[u8], keyring: &Keyring) -> Made {
    made(bytes, keyring, |decoder, draft| apply_pages(decoder, draft, None))
}

fn by_several(bytes: &[u8], keyring: &Keyring, division: Division) -> Made {
    made(bytes, keyring, |decoder, draft| crew::apply(decoder, draft, None, division))
}

/// A snapshot, and a file of some pages of the same database.
fn files(seed: u64) -> [Vec<u8>; 2] {
    let mut history = History::new(512, seed);
    history.commit(200, &[]);
    history.commit(210, &[1, 2, 3, 9, 77, 78, 200]);
    [history.encode(1, 1).to_vec(), history.encode(2, 2).to_vec()]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn it_becomes_the_same_and_what_is_wrong_first_is_told(
        seed: u64,
        which in 0..2_usize,
        is_sealed: bool,
        damage in prop::collection::vec((any::<prop::sample::Index>(), 0..8_u8), 0..3),
        cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
    ) {
        let keyring = keyring(&[1], Plain::Any);
        let mut bytes = files(seed)[which].clone();
        if is_sealed {
            bytes = seal(&bytes, &[1]);
        }
        for (at, bit) in damage {
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let one = by_one(&bytes, &keyring);
        for division in DIVISIONS {
            let several = by_several(&bytes, &keyring, division);
            prop_assert_eq!(&several.0, &one.0, "{:?}", division);
            prop_assert!(one.0.is_err() || several.1 == one.1, "{:?}", division);
        }
    }
}

#[test]
fn its_pages_are_compared_with_what_is_beside_it() {
    let [file, _] = files(5);
    let keyring = Keyring::default();
    let mut page = [0; 512];
    for changed in [&[][..], &[150], &[150, 20, 90]] {
        let mut sums = PageSums::default();
        let mut decoder = Decoder::open(&file[..], &keyring).unwrap();
        while let Some(pgno) = decoder.next_page(&mut page).unwrap() {
            page[7] ^= u8::from(changed.contains(&pgno.get()));
            sums.note(pgno, &page);
        }
        let commit = decoder.header().commit;
        for division in DIVISIONS {
            let mut beside = Beside::new(id(0, 1, 1), sums.clone());
            let said = made(&file, &keyring, |decoder, draft| {
                crew::apply(decoder, draft, Some(&mut beside), division)
            });
            said.0.unwrap();
            let first = changed.iter().min().copied();
            assert_eq!(beside.differing(commit).map(crate::page::Pgno::get), first, "{division:?}");
        }
    }
}

/// Bytes that come slowly at first and fail at their end.
struct Broken<'a>(&'a [u8]);

impl Read for Broken<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() {
            return Err(io::Error::other("the cable was cut"));
        }
        let n = buf.len().min(100);
        self.0.read(&mut buf[..n])
    }
}

#[test]
fn nothing_is_written_any_more_once_it_has_failed() {
    let keyring = Keyring::default();
    let [file, _] = files(3);
    for division in DIVISIONS {
        let folder = tempfile::tempdir().unwrap();
        let mut draft = draft_in(&folder);
        let mut decoder = Decoder::open(Broken(&file[..file.len() / 2]), &keyring).unwrap();
        let error = crew::apply(&mut decoder, &mut draft, None, division).unwrap_err();
        assert!(error.to_string().contains("the cable was cut"), "{error}");
        // Who else has the file could still write.
        let shared = draft.shared().unwrap();
        assert_eq!(Arc::strong_count(&shared), 2, "{division:?}");
    }
}

#[test]
fn what_a_damaged_file_brought_does_not_come_back() {
    let [file, _] = files(6);
    let size = crate::page::PageSize::MIN;
    let mut damaged = file.clone();
    let middle = file.len() / 2;
    damaged[middle..middle + 2000].fill(0xff);
    for division in DIVISIONS {
        let folder = tempfile::tempdir().unwrap();
        let mut draft = draft_in(&folder);
        let mut decoder = Decoder::open(&damaged[..], &Keyring::default()).unwrap();
        crew::apply(&mut decoder, &mut draft, None, division).unwrap_err();
        draft.resize(crate::page::PageCount::new(1), size).unwrap();
        draft.finish(crate::page::PageCount::new(200), size).unwrap();
        assert!(fs::read(draft.path()).unwrap()[512..].iter().all(|byte| *byte == 0), "{division:?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_disk_that_is_full_is_told() {
    let [file, _] = files(4);
    let folder = tempfile::tempdir().unwrap();
    let mut draft = draft_in(&folder);
    let mut decoder = Decoder::open(&file[..], &Keyring::default()).unwrap();
    draft.writes_to(fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
    let error = crew::apply(&mut decoder, &mut draft, None, DIVISIONS[0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
}

#[test]
fn a_large_file_is_restored_and_damage_anywhere_in_it_is_told() {
    let mut history = History::new(65536, 8);
    history.commit(90, &[]);
    let file = history.put(0, 1, 1);
    let size = history.encode(1, 1).len();
    assert!(
        Division { helpers: 1, ..Division::for_this_machine() }.is_worthwhile(size as u64),
        "{size} bytes"
    );
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    restore(history.store(), &path, &latest()).unwrap();
    assert!(fs::read(&path).unwrap() == history.image(1));
    for at in [99, 104, 109, 2000, size / 2, size - 900, size - 20, size - 3] {
        history.put(0, 1, 1);
        history.store.tamper(file, |bytes| bytes[at] ^= 0x55);
        let error = refused(history.store(), &latest());
        assert!(matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported), "byte {at}: {error}");
        assert!(error.to_string().contains(&file.to_string()), "byte {at}: {error}");
    }
    for keep in [size / 3, size - 1] {
        history.put(0, 1, 1);
        history.store.tamper(file, |bytes| bytes.truncate(keep));
        assert!(refused(history.store(), &latest()).to_string().contains(&file.to_string()), "{keep}");
    }
}
