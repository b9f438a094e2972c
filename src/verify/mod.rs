//! Whether a replica can be restored: every file is read, every checksum and every TXID looked at.
//!
//! | file | what it does |
//! | --- | --- |
//! | `finding` | what can be wrong, and how bad it is |
//! | `names` | what the names of the files tell: gaps, overlaps, files that belong nowhere |
//! | `listing` | the files of all levels, and what lies among them |
//! | `content` | one file, to its end or only its page index |
//! | `kinship` | whether the files are of one history |
//!
//! Compaction may move files while they are read: a file that is gone by then is no finding, and what
//! the names tell is told of the listing that is the last one.

mod content;
mod finding;
mod kinship;
mod listing;
mod names;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::ltx::{FileId, Header, Level, Txid};
use crate::replica::{Beside, PageSums, Plan, RestorePoint, Source, check_name};
use crate::runtime;
use crate::store::{FileInfo, Replica};

use content::Checked;
pub(crate) use content::read_pages;
pub use finding::{Finding, Problem, Severity};
use listing::Listing;

/// Listings until what they tell counts: a file that is just moved up may be seen on neither level.
const LISTINGS: usize = 3;

/// How to verify.
#[derive(Clone, Debug)]
pub struct Options {
    /// Only list the files and look at their headers and page indexes.
    pub quick: bool,
    /// Files that are read at the same time, at least 1; each takes a few hundred KiB.
    pub parallelism: usize,
    /// Retention by calendar thins out what is before the newest snapshot of a state from this time or earlier: the gaps there are
    /// meant.
    pub thinned: Option<Timestamp>,
    /// Becomes true when the work should be given up.
    pub stop: Arc<AtomicBool>,
}

impl Default for Options {
    fn default() -> Self {
        Self { quick: false, parallelism: 8, thinned: None, stop: Arc::default() }
    }
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What is wrong; nothing if all is well.
    pub findings: Vec<Finding>,
    /// The last state that a restore gives, as far as what was read tells it.
    pub proven: Option<Proven>,
    /// The number of LTX files that were looked at.
    pub files: usize,
    /// How many of them are sealed.
    pub sealed: usize,
    /// The size of these files in bytes.
    pub bytes: u64,
}

/// A state that can be restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proven {
    /// Its last transaction.
    pub txid: Txid,
    /// When that was committed.
    pub timestamp: Timestamp,
}

/// Verifies the replica in `store`. Blocks the calling thread, which may be any but one of
/// [`crate::runtime`]'s.
///
/// # Errors
/// `Interrupted`; those of the store if it cannot be listed. What is wrong with single files is a finding.
pub fn verify(store: Arc<Replica>, options: &Options) -> Result<Outcome> {
    let source = Arc::new(Source::new(store.clone()));
    let first = listing::settled(&store, LISTINGS, options.thinned)?;
    if first.files.is_empty() {
        // Whoever may not look there has nothing there.
        let is_old = listing::has_generations(&store).unwrap_or(false);
        let mut findings = vec![Finding::empty(&store.url(), is_old)];
        findings.extend(first.findings(options.thinned));
        return Ok(Outcome { findings, proven: None, files: 0, sealed: 0, bytes: 0 });
    }
    let read = Reader::run(&source, &first, options)?;
    let last =
        if read.vanished.is_empty() { first } else { listing::settled(&store, LISTINGS, options.thinned)? };
    let committed = read.seen.iter().map(|seen| (seen.id, seen.header.timestamp)).collect();
    Ok(conclude(&last.with_commit_times(&committed), read, options))
}

/// Those of `files` that are damaged: read twice, they break the format, fail a checksum, or hold what belongs under
/// another name. Files that are gone by now are left out. Blocks as [`verify`] does.
///
/// # Errors
/// Those of the store.
pub(crate) fn damaged(source: &Arc<Source>, files: &[FileInfo]) -> Result<Vec<FileId>> {
    let stop = AtomicBool::new(false);
    let mut damaged = Vec::new();
    for file in files {
        let read = content::twice(|| content::whole(source, file, &stop, |_, _| {}));
        match read.and_then(|checked| check_name(file, &checked.header)) {
            Err(e) if matches!(e.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported) => {
                tracing::warn!("{}: {e}", source.url());
                damaged.push(file.id);
            }
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            read => read?,
        }
    }
    Ok(damaged)
}

/// Puts together what the names and what the files told.
fn conclude(listing: &Listing, read: Read, options: &Options) -> Outcome {
    let still = |id: &FileId| listing.files.iter().any(|file| file.id == *id);
    let mut findings = listing.findings(options.thinned);
    findings.extend(read.findings.iter().filter(|(id, _)| still(id)).map(|(_, finding)| finding.clone()));
    findings.retain(|finding| !is_left_out(finding, &read.seen));
    findings.extend(finding_of_page_sizes(&read.seen));
    // A look at headers and page indexes does not promise more.
    findings.extend(finding_of_seals(&read.seen).filter(|_| !options.quick));
    findings
        .extend(read.contradictions.into_iter().filter(|finding| finding.file.as_ref().is_some_and(still)));
    findings.extend(kinship::findings(&read.seen));
    findings.sort_by(|a, b| (a.severity, a.file, &a.path).cmp(&(b.severity, b.file, &b.path)));
    // One word about histories is enough for a file.
    findings.dedup_by(|a, b| a.problem == Problem::Mixed && (a.problem, a.file) == (b.problem, b.file));
    let sound = |file: &&FileInfo| read.seen.iter().any(|seen| seen.id == file.id);
    let sound: Vec<FileInfo> = listing.files.iter().filter(sound).cloned().collect();
    let (files, bytes) = (sound.len() + read.findings.len(), listing.files.iter().map(|f| f.size).sum());
    let is_mixed =
        |finding: &Finding| (finding.severity, finding.problem) == (Severity::Error, Problem::Mixed);
    let is_closed = read.seen.iter().any(|seen| !seen.content);
    let is_doubtful = is_closed || findings.iter().any(is_mixed);
    let proven = if is_doubtful { None } else { proven(&sound, &read.seen) };
    let sealed = read.seen.iter().filter(|seen| seen.header.is_sealed()).count();
    Outcome { findings, proven, files, sealed, bytes }
}

/// The last state that `files` alone make.
fn proven(files: &[FileInfo], seen: &[Seen]) -> Option<Proven> {
    let plan = Plan::new(files, RestorePoint::Latest).ok()?;
    let Seen { header, .. } = seen.iter().find(|seen| seen.id == plan.last().id)?;
    Some(Proven { txid: header.max, timestamp: header.timestamp })
}

/// Whether a finding is a gap of one level, which other levels fill, before a sealed file. A merge of a sealed replica takes
/// no files that are not sealed, nor those whose keys are lost, and continues behind them.
fn is_left_out(finding: &Finding, seen: &[Seen]) -> bool {
    let is_gap = (finding.severity, finding.problem) == (Severity::Warning, Problem::Gap);
    let Some((_, last)) = finding.txids.filter(|_| is_gap) else { return false };
    let follows = |seen: &Seen| seen.header.min == last.next() && seen.id.level != Level::L0;
    seen.iter().any(|seen| seen.header.is_sealed() && follows(seen))
}

/// Sealed files whose content was not looked at.
fn finding_of_seals(seen: &[Seen]) -> Option<Finding> {
    let closed = seen.iter().filter(|seen| !seen.content).count();
    (closed > 0).then(|| Finding::unopened(closed, seen.len()))
}

/// Two databases that were replicated to one URL.
fn finding_of_page_sizes(seen: &[Seen]) -> Option<Finding> {
    let Seen { id: first, header: expected, .. } = seen.iter().min_by_key(|seen| seen.id)?;
    let Seen { id: other, header, .. } =
        seen.iter().find(|seen| seen.header.page_size != expected.page_size)?;
    Some(Finding::of(
        Problem::Mixed,
        *other,
        format!(
            "it has pages of {} bytes, {first} has pages of {} bytes: two databases were replicated to one \
             URL",
            header.page_size, expected.page_size
        ),
    ))
}

/// A file that is sound.
#[derive(Clone, Copy, Debug)]
struct Seen {
    id: FileId,
    header: Header,
    /// What it holds was looked at, or nothing but a key keeps from it: not if it is sealed and was not opened.
    content: bool,
}

/// What reading the files told.
#[derive(Debug, Default)]
struct Read {
    /// The files that are sound.
    seen: Vec<Seen>,
    /// Sound files that hold other pages than they must.
    contradictions: Vec<Finding>,
    /// Checksums of pages that other files must hold too.
    sums: HashMap<FileId, PageSums>,
    findings: Vec<(FileId, Finding)>,
    /// Files that were listed and then not there.
    vanished: BTreeSet<FileId>,
}

/// Reads several files at the same time, on threads of its own: they wait for the runtime.
struct Reader<'a> {
    source: &'a Arc<Source>,
    /// For each transaction with which several files end, the lowest of these. They are read before the others.
    lowest: BTreeMap<Txid, FileId>,
    options: &'a Options,
    read: Mutex<Read>,
    failure: Mutex<Option<Error>>,
}

impl<'a> Reader<'a> {
    fn run(source: &'a Arc<Source>, listing: &'a Listing, options: &'a Options) -> Result<Read> {
        // Started here, as the threads would all want to.
        runtime::handle()?;
        let reader = Self {
            source,
            lowest: kinship::lowest(&listing.files),
            options,
            read: Mutex::default(),
            failure: Mutex::default(),
        };
        let is_lowest = |file: &&FileInfo| reader.is_lowest(file.id);
        let (lowest, others): (Vec<&FileInfo>, Vec<&FileInfo>) = listing.files.iter().partition(is_lowest);
        reader.all(&lowest);
        reader.all(&others);
        match reader.failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(failure) => Err(failure),
            None => Ok(reader.read.into_inner().unwrap_or_else(PoisonError::into_inner)),
        }
    }

    fn is_lowest(&self, id: FileId) -> bool {
        self.lowest.get(&id.name.max()) == Some(&id)
    }

    fn all(&self, files: &[&FileInfo]) {
        let next = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 1..self.options.parallelism.min(files.len()) {
                // Those that can be had do it: this one is there already.
                if thread::Builder::new().spawn_scoped(scope, || self.work(files, &next)).is_err() {
                    break;
                }
            }
            self.work(files, &next);
        });
    }

    fn work(&self, files: &[&FileInfo], next: &AtomicUsize) {
        while let Some(file) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
            let looked = if self.options.quick {
                content::outline(self.source, file).map(|header| Seen {
                    id: file.id,
                    header,
                    content: !header.is_sealed(),
                })
            } else {
                content::twice(|| self.whole(file))
            };
            if self.options.stop.load(Ordering::Relaxed) {
                let interrupted = Error::new(ErrorKind::Interrupted, "the verification was interrupted");
                *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(interrupted);
                return;
            }
            self.note(file, looked);
        }
    }

    /// Reads a file to its end, and compares its pages with those of a lower one that ends where it does.
    fn whole(&self, file: &FileInfo) -> Result<Seen> {
        let (mut sums, mut beside) = (PageSums::default(), self.beside(file.id));
        let is_lowest = self.is_lowest(file.id);
        let Checked { header, content } =
            content::whole(self.source, file, &self.options.stop, |pgno, page| {
                if is_lowest {
                    sums.note(pgno, page);
                } else if let Some(beside) = &mut beside {
                    beside.take(pgno, page);
                }
            })?;
        // One that was stored under a wrong name says nothing of what belongs there.
        if !content || check_name(file, &header).is_err() {
            return Ok(Seen { id: file.id, header, content });
        }
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if is_lowest {
            read.sums.insert(file.id, sums);
        }
        let contradiction = beside.and_then(|beside| kinship::of_pages(&beside, file.id, header.commit));
        read.contradictions.extend(contradiction);
        Ok(Seen { id: file.id, header, content })
    }

    /// What a file must hold, if a lower one ends where it does.
    fn beside(&self, id: FileId) -> Option<Beside> {
        let lower = *self.lowest.get(&id.name.max())?;
        let is_part = id.name.min() <= lower.name.min();
        let read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let sums = read.sums.get(&lower).filter(|_| is_part && lower != id)?;
        Some(Beside::new(lower, sums.clone()))
    }

    fn note(&self, file: &FileInfo, looked: Result<Seen>) {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        match looked {
            Ok(seen) => match check_name(file, &seen.header) {
                Ok(()) => read.seen.push(seen),
                Err(e) => read.findings.push((file.id, Finding::of(Problem::Name, file.id, e.to_string()))),
            },
            Err(e) if e.kind() == ErrorKind::NotFound => {
                read.vanished.insert(file.id);
            }
            Err(e) => read.findings.push((file.id, Finding::of_file(file, &e))),
        }
    }
}
