//! A survey: the checksums of all pages of the database at one moment, and how they compare with what a
//! replica holds.
//!
//! The comparison reads the replica's newest files first, so that a copy of an older state shows after a
//! few requests.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::error::{Error, ErrorKind, Result};
use crate::ltx::Txid;
use crate::page::{PageCount, PageSize, Pgno};
use crate::primary::file_fingerprint::Stamp;
use crate::primary::shipper::Shipper;
use crate::primary::shipper::baseline::ViewPages;
use crate::primary::shipper::sums::{AnyOrder, Known, Sums, sum_of};
use crate::replica::{Plan, RestorePoint, Source};
use crate::runtime;
use crate::store::FileInfo;
use crate::verify::read_pages;

/// A page with fewer bytes that are not zero may be the same in any database.
const DISTINCT_BYTES: usize = 64;
/// After so many pages a comparison that is only for equality ends at the first difference.
const SAMPLE_PAGES: u64 = 64;
/// Checksums that are read or written at once.
const RUN: usize = 1024;
/// Where page 1 has the number of its changes.
const CHANGES: usize = 24;
/// Where page 1 has the number of changes of the schema.
const SCHEMAS: usize = 40;
/// What of page 1 says nothing about content: the journal mode, the change counter with the size and
/// version that go with it, and the schema cookie, which SQLite's backup changes.
const COUNTERS: [std::ops::Range<usize>; 4] = [18..20, 24..28, 40..44, 92..100];

/// How the pages of the database compare with those of a state of the replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::primary) struct Agreement {
    /// How many pages differ, page 1 not counted.
    pub(in crate::primary) differing: u64,
    /// How many pages agree that are hardly in another database too.
    pub(in crate::primary) agreeing: u64,
    /// Page 1 differs.
    pub(in crate::primary) first_differs: bool,
}

impl Agreement {
    fn add(&mut self, pgno: Pgno, agrees: bool, page: &[u8]) {
        match (pgno, agrees) {
            // Databases that one program created begin alike.
            (Pgno::ONE, agrees) => self.first_differs = !agrees,
            (_, false) => self.differing += 1,
            (_, true) => self.agreeing += u64::from(is_distinct(page)),
        }
    }

    /// Whether all pages agree.
    pub(in crate::primary) const fn is_equal(&self) -> bool {
        self.differing == 0 && !self.first_differs
    }

    /// Whether both are states of one database, as far as pages can say it.
    pub(in crate::primary) const fn is_related(&self) -> bool {
        self.agreeing > 0 || !self.first_differs
    }
}

fn is_distinct(page: &[u8]) -> bool {
    page.iter().filter(|byte| **byte != 0).count() >= DISTINCT_BYTES
}

/// The checksum of page 1 without what changes while the content stays.
fn sum_of_first(page: &[u8]) -> u64 {
    let mut page = page.to_vec();
    COUNTERS.into_iter().for_each(|counter| page[counter].fill(0));
    sum_of(&page)
}

/// The number at a place of page 1.
fn number(page: &[u8], at: usize) -> Option<u32> {
    let bytes = page.get(at..at + 4).and_then(|bytes| bytes.first_chunk());
    bytes.map(|bytes| u32::from_be_bytes(*bytes))
}

/// The statements on page 1 that made the schema, if that is not so large that they are elsewhere: up to the name, without
/// the quotes that `ALTER TABLE` puts around it.
fn statements(page: &[u8]) -> BTreeSet<Vec<u8>> {
    const BEGIN: &[u8] = b"CREATE ";
    let is_text = |byte: &u8| matches!(byte, b'\t' | b'\n' | b'\r' | 0x20..=0xff);
    let is_quote = |byte: &u8| matches!(byte, b'"' | b'`' | b'[' | b']' | b'\'');
    let starts = (0..page.len()).filter(|at| page[*at..].starts_with(BEGIN));
    // What follows a statement may be the next record.
    let words = |at: usize| {
        let text = page[at..].iter().take_while(|byte| is_text(byte) && **byte != b'(');
        let text: Vec<u8> = text.filter(|byte| !is_quote(byte)).map(u8::to_ascii_lowercase).collect();
        text.trim_ascii_end().to_vec()
    };
    starts.map(words).collect()
}

/// The checksums of the database at one moment.
#[derive(Debug)]
pub(in crate::primary) struct Survey {
    pub(in crate::primary) known: Known,
    /// Page 1.
    first: Vec<u8>,
    page_size: PageSize,
    pages: PageCount,
    /// What database file and WAL looked like.
    files: [Option<Stamp>; 2],
    /// A transaction of which the checksums are at hand, and how the database compares with it.
    pub(in crate::primary) base: Option<(Txid, Agreement)>,
}

impl Survey {
    /// Surveys what a view shows of the database, as it was opened or at an earlier moment, and compares it with the transaction
    /// whose checksums are at hand, if any are.
    ///
    /// # Errors
    /// `Io` of the database; `Io`, `NoSpace` of the folder of local state; `Busy` if an earlier moment was overwritten meanwhile.
    pub(in crate::primary) fn of(shipper: &Shipper, mut pages: ViewPages) -> Result<Self> {
        let files = files(shipper);
        let sums = Sums::of(shipper);
        let (page_size, commit) = (pages.page_size(), pages.commit());
        let base = sums.txid();
        let mut theirs = base.and_then(|txid| sums.base(txid, page_size));
        let mut agreement = Agreement::default();
        let mut first = Vec::new();
        let mut new = sums
            .begin(page_size)
            .ok_or_else(|| Error::new(ErrorKind::Io, "cannot write to the folder of local state"))?;
        pages.each(|pgno, page| {
            let their = theirs.as_mut().and_then(|theirs| theirs.next());
            let Some(page) = page else {
                new.push(0);
                return Ok(());
            };
            let sum = sum_of(page);
            new.push(sum);
            if pgno == Pgno::ONE {
                first = page.to_vec();
            }
            agreement.add(pgno, their == Some(sum), page);
            Ok(())
        })?;
        agreement.differing += theirs.as_ref().map_or(0, |theirs| theirs.left());
        let base = base.filter(|_| theirs.is_some()).map(|txid| (txid, agreement));
        Ok(Self { known: new.finish()?, first, page_size, pages: commit, files, base })
    }

    /// Whether a database with page 1 `theirs` may have become this one. SQLite counts the changes of page 1 up, never down:
    /// with fewer of them this is an older file.
    pub(in crate::primary) fn is_not_before(&self, theirs: &[u8]) -> bool {
        number(&self.first, CHANGES) >= number(theirs, CHANGES)
    }

    /// Whether a database with page 1 `theirs` may have become this one by a `VACUUM`, which leaves no page as it
    /// was: it counts up the changes and the schemas, which a new database of the same program has as few of as
    /// the old one, and both have statements in common. Ciphertext counts nothing.
    pub(in crate::primary) fn is_vacuumed(&self, theirs: &[u8]) -> bool {
        may_be_vacuumed(&self.first, theirs)
    }

    /// Whether nobody wrote the database since.
    pub(in crate::primary) fn is_current(&self, shipper: &Shipper) -> bool {
        self.files == files(shipper)
    }
}

/// Whether a database with the first page `theirs` may have become that with `ours` by a `VACUUM`.
fn may_be_vacuumed(ours: &[u8], theirs: &[u8]) -> bool {
    let (old, new) = (statements(theirs), statements(ours));
    let is_of_one_schema = old.is_empty() || new.is_empty() || !old.is_disjoint(&new);
    [ours, theirs].into_iter().all(|page| page.starts_with(b"SQLite format 3\0"))
        && number(ours, CHANGES) > number(theirs, CHANGES)
        && number(ours, SCHEMAS) > number(theirs, SCHEMAS)
        && is_of_one_schema
}

/// What database file and WAL look like; an empty WAL is none.
fn files(shipper: &Shipper) -> [Option<Stamp>; 2] {
    [Stamp::of(&shipper.db.path), Stamp::of(&shipper.db.wal_path).filter(|wal| !wal.is_of_empty_file())]
}

/// What a comparison with the replica found.
#[derive(Debug)]
pub(in crate::primary) struct Theirs {
    /// The last transaction of the state that the survey was compared with.
    pub(in crate::primary) txid: Txid,
    pub(in crate::primary) agreement: Agreement,
    /// The checksums of that state; `None` if the comparison ended early.
    pub(in crate::primary) known: Option<Known>,
}

/// Compares `survey` with the state of the replica at `point`, or `None` if there is no such state.
/// `for_equality`: a difference ends it early. Takes as long as a download of the state: for threads that
/// may wait.
///
/// # Errors
/// Those of the store; `Corrupt` naming the file; `Io`, `NoSpace`.
pub(in crate::primary) fn compare(
    shipper: &Shipper,
    survey: &Survey,
    point: RestorePoint,
    for_equality: bool,
) -> Result<Option<Theirs>> {
    let source = Arc::new(Source::new(Arc::clone(&shipper.store)));
    let planned = {
        let source = Arc::clone(&source);
        runtime::block_on(async move { source.survey(point).await })
    };
    let plan = match planned {
        Ok(survey) => survey.map(|survey| survey.plan),
        Err(e) if e.kind() == ErrorKind::NotFound => None,
        Err(e) => return Err(e),
    };
    let Some(plan) = plan else { return Ok(None) };
    let mut comparison = Comparison::new(survey, for_equality);
    let known = comparison.read(shipper, &source, &plan)?;
    Ok(Some(Theirs { txid: plan.txid(), agreement: comparison.agreement, known }))
}

/// Page 1 of the newest state of the replica; `None` if that is empty.
///
/// # Errors
/// Those of the store; `Corrupt`.
pub(in crate::primary) fn first_page(shipper: &Shipper) -> Result<Option<Vec<u8>>> {
    let source = Arc::new(Source::new(Arc::clone(&shipper.store)));
    let survey = {
        let source = Arc::clone(&source);
        runtime::block_on(async move { source.survey(RestorePoint::Latest).await })?
    };
    let stop = AtomicBool::new(false);
    for file in survey.iter().flat_map(|survey| survey.plan.files().iter().rev()) {
        let mut first = None;
        // It is the first of each file that has it.
        read_pages(&source, file, &stop, |_, pgno, page| {
            first = (pgno == Pgno::ONE).then(|| page.to_vec());
            Ok(false)
        })?;
        if first.is_some() {
            return Ok(first);
        }
    }
    Ok(None)
}

struct Comparison<'a> {
    survey: &'a Survey,
    for_equality: bool,
    agreement: Agreement,
    /// How many pages were compared.
    compared: u64,
    /// Checksums of the survey that follow each other, and the page of the first.
    ours: (u32, Vec<u64>),
}

impl<'a> Comparison<'a> {
    fn new(survey: &'a Survey, for_equality: bool) -> Self {
        Self { survey, for_equality, agreement: Agreement::default(), compared: 0, ours: (0, Vec::new()) }
    }

    /// Reads the files of `plan`, the newest first; the checksums of all pages, unless it ended early.
    fn read(&mut self, shipper: &Shipper, source: &Arc<Source>, plan: &Plan) -> Result<Option<Known>> {
        let mut state: Option<(AnyOrder, Seen)> = None;
        for file in plan.files().iter().rev() {
            if !self.read_file(shipper, source, file, &mut state)? {
                return Ok(None);
            }
        }
        let Some((sums, seen)) = state else { return Ok(None) };
        // Pages that only one of both has.
        self.agreement.differing += u64::from(seen.size.abs_diff(self.survey.pages.get()));
        Ok(Some(sums.finish()))
    }

    /// Whether to go on.
    fn read_file(
        &mut self,
        shipper: &Shipper,
        source: &Arc<Source>,
        file: &FileInfo,
        state: &mut Option<(AnyOrder, Seen)>,
    ) -> Result<bool> {
        let mut run = Run::default();
        let stop = AtomicBool::new(false);
        let named = |e: Error| e.context(format_args!("{} {}", source.url(), file.id));
        let done = read_pages(source, file, &stop, |header, pgno, page| {
            if state.is_none() {
                let sums = Sums::of(shipper).begin_any_order(header.page_size, header.commit)?;
                *state = Some((sums, Seen::new(header.commit)));
            }
            let (sums, seen) = state.as_mut().expect("BUG: it was just set");
            if !seen.is_new(pgno) {
                return Ok(true);
            }
            run.add(sums, pgno, sum_of(page))?;
            self.compare(pgno, page)?;
            Ok(self.compared < SAMPLE_PAGES || !self.is_decided())
        });
        let is_whole = done.map_err(named)?.is_some();
        if let Some((sums, _)) = state {
            run.flush(sums)?;
        }
        Ok(is_whole && !self.is_decided())
    }

    fn is_decided(&self) -> bool {
        self.for_equality && !self.agreement.is_equal()
    }

    fn compare(&mut self, pgno: Pgno, page: &[u8]) -> Result<()> {
        self.compared += 1;
        if !self.survey.pages.contains(pgno) {
            // It is counted at the end.
            return Ok(());
        }
        let agrees = match pgno {
            _ if page.len() != self.survey.page_size.bytes() => false,
            Pgno::ONE => sum_of_first(&self.survey.first) == sum_of_first(page),
            pgno => self.ours(pgno)? == sum_of(page),
        };
        self.agreement.add(pgno, agrees, page);
        Ok(())
    }

    /// The survey's checksum of a page that it has.
    fn ours(&mut self, pgno: Pgno) -> Result<u64> {
        let (first, run) = &self.ours;
        let at = |first: u32| pgno.get().checked_sub(first).map(|at| at as usize);
        if let Some(sum) = at(*first).and_then(|at| run.get(at)) {
            return Ok(*sum);
        }
        self.ours = (pgno.get(), self.survey.known.read(pgno, RUN)?);
        self.ours.1.first().copied().ok_or_else(|| Error::new(ErrorKind::Io, "checksums end early"))
    }
}

/// Checksums of pages that follow each other, on their way to a file.
#[derive(Default)]
struct Run {
    first: Option<Pgno>,
    sums: Vec<u64>,
}

impl Run {
    fn add(&mut self, to: &mut AnyOrder, pgno: Pgno, sum: u64) -> Result<()> {
        let next = self.first.map(|first| first.get() + self.sums.len() as u32);
        if next != Some(pgno.get()) || self.sums.len() == RUN {
            self.flush(to)?;
            self.first = Some(pgno);
        }
        self.sums.push(sum);
        Ok(())
    }

    fn flush(&mut self, to: &mut AnyOrder) -> Result<()> {
        let Some(first) = self.first.take() else { return Ok(()) };
        to.set(first, &self.sums)?;
        self.sums.clear();
        Ok(())
    }
}

/// The pages that a newer file had already, of a database of this many pages.
struct Seen {
    size: u32,
    bits: Vec<u64>,
}

impl Seen {
    fn new(size: PageCount) -> Self {
        Self { size: size.get(), bits: vec![0; size.get() as usize / 64 + 1] }
    }

    /// Whether the page is of the database and was not seen before.
    fn is_new(&mut self, pgno: Pgno) -> bool {
        let pgno = pgno.get();
        if pgno > self.size {
            return false;
        }
        let (word, bit) = (pgno as usize / 64, 1 << (pgno % 64));
        let is_new = self.bits[word] & bit == 0;
        self.bits[word] |= bit;
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_page_1_are_no_content() {
        let page: Vec<u8> = (0..512_u32).map(|i| i as u8).collect();
        let mut other = page.clone();
        COUNTERS.into_iter().for_each(|counter| other[counter].fill(0xff));
        assert_eq!(sum_of_first(&page), sum_of_first(&other));
        // The number of free pages, and the schema.
        for at in [36, 100, 511] {
            let mut other = page.clone();
            other[at] ^= 1;
            assert_ne!(sum_of_first(&page), sum_of_first(&other));
        }
    }

    #[test]
    fn a_page_is_seen_once() {
        let mut seen = Seen::new(PageCount::new(64));
        let page = |n| Pgno::new(n).unwrap();
        let new = [1, 64, 1, 63, 64, 65].map(|n| seen.is_new(page(n)));
        assert_eq!(new, [true, true, false, true, false, false]);
    }

    #[test]
    fn ciphertext_is_not_taken_for_what_a_vacuum_wrote() {
        let page = |begin: &[u8], count: u8| {
            let mut page = vec![0; 512];
            page[..begin.len()].copy_from_slice(begin);
            (page[CHANGES + 3], page[SCHEMAS + 3]) = (count, count);
            page
        };
        let sqlites: &[u8] = b"SQLite format 3\0";
        assert!(may_be_vacuumed(&page(sqlites, 2), &page(sqlites, 1)));
        assert!(!may_be_vacuumed(&page(sqlites, 1), &page(sqlites, 1)), "nothing was counted");
        for (ours, theirs) in [(b"salt".as_slice(), sqlites), (sqlites, b"salt"), (b"salt", b"seed")] {
            assert!(!may_be_vacuumed(&page(ours, 2), &page(theirs, 1)));
        }
    }
}
