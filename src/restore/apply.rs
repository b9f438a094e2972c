//! Applies the files of a plan, and makes a new plan when compaction removes one of them meanwhile, or one cannot be used.

use std::collections::HashSet;
use std::io::Read;
use std::sync::Arc;

use super::around::{self, Use};
use super::crew::{self, Division};
use super::histories::{self, Lower};
use super::output::Draft;
use super::segments::{SegmentReader, Segments};
use super::{Cancel, Options, Progress};
use crate::error::{Error, ErrorKind, Result};
use crate::ltx::{Decoder, FileId, Header, Lineage, Summary, Txid};
use crate::replica::{Beside, Plan, RestorePoint, Source, Survey, check_name};
use crate::runtime;
use crate::store::FileInfo;

/// Plans without progress in between: the replica changes faster than it can be read.
const ATTEMPTS: usize = 5;

/// What was applied.
#[derive(Debug)]
pub(super) struct Applied {
    /// The header of the last file.
    pub(super) header: Header,
    /// The history that the files belong to, as far as one of them says so.
    pub(super) lineage: Option<Lineage>,
    /// The number of files.
    pub(super) files: usize,
    /// How many of them were sealed.
    pub(super) sealed: usize,
    /// Files in whose place others were applied.
    pub(super) left_out: Vec<FileId>,
}

/// Brings a database up to a point.
pub(super) struct Applier {
    source: Arc<Source>,
    point: RestorePoint,
    parallelism: usize,
    /// How the pages of a large file are applied.
    division: Division,
    cancel: Cancel,
    progress: Arc<Progress>,
    applied: Option<Applied>,
    /// The file that is applied.
    reading: Option<FileInfo>,
    /// Files that could not be applied, although nothing is wrong with them.
    doubted: HashSet<FileId>,
    /// Why the first file was left out that nothing opens.
    closed: Option<Error>,
    /// What the files of the plan must agree with.
    lower: Lower,
}

impl Applier {
    pub(super) fn new(source: Arc<Source>, options: &Options, progress: Arc<Progress>) -> Self {
        let Options { point, parallelism, cancel, .. } = options.clone();
        Self {
            source,
            point,
            parallelism,
            division: Division::for_this_machine(),
            cancel,
            progress,
            applied: None,
            reading: None,
            doubted: HashSet::new(),
            closed: None,
            lower: Lower::default(),
        }
    }

    pub(super) fn first_plan(&mut self) -> Result<Plan> {
        let (source, point, cancel) = (self.source.clone(), self.point, self.cancel.clone());
        let planned = runtime::block_on(async move {
            let Survey { files, plan } = super::survey(&source, point).await?;
            tokio::select! {
                lower = Lower::read(&source, &files, &plan) => Ok((plan.clone(), lower?)),
                cancelled = cancel.cancelled() => Err(cancelled),
            }
        });
        let (plan, lower) = planned?;
        self.lower = lower;
        Ok(plan)
    }

    /// Applies `plan` onto `draft`, and what replaces it if files vanish.
    pub(super) fn run(mut self, plan: Plan, draft: &mut Draft) -> Result<Applied> {
        let mut plan = plan;
        let mut attempts = 0;
        loop {
            let before = self.txid();
            match self.apply_all(&plan, draft) {
                Ok(()) => break,
                Err(e) if e.kind() == ErrorKind::NotFound => {
                    attempts = if self.txid() > before { 0 } else { attempts + 1 };
                    if attempts == ATTEMPTS {
                        return Err(e.context("files of the replica vanish faster than they can be read"));
                    }
                    plan = self.replan(&plan)?;
                }
                Err(e) => {
                    plan = self.go_around(e, &plan)?;
                    draft.empty()?;
                }
            }
        }
        let applied = self.applied.expect("BUG: a plan has at least one file");
        draft.finish(applied.header.commit, applied.header.page_size)?;
        Ok(Applied { left_out: self.source.left_out(), ..applied })
    }

    /// What is applied from the beginning in place of `plan`, of which a file could not be applied because of `e`. A file that
    /// others can stand for is left out; one that only came damaged is asked for once more.
    fn go_around(&mut self, e: Error, plan: &Plan) -> Result<Plan> {
        let Some(file) = self.reading.take() else { return Err(e) };
        let judged = around::judge(&self.source, &file, &e, self.parallelism, (&self.cancel, &self.progress));
        match judged? {
            Use::Unknown => return Err(self.refusal(e)),
            Use::Possible if !self.doubted.insert(file.id) => return Err(e),
            Use::Possible => {
                tracing::warn!(error = %e, "a file came damaged, asking for it once more");
                self.applied = None;
                return self.replan(plan);
            }
            Use::Impossible if e.kind() == ErrorKind::Denied => {
                self.closed.get_or_insert_with(|| e.clone());
            }
            Use::Impossible => {}
        }
        self.source.leave_out(&file);
        self.applied = None;
        match self.first_plan() {
            Ok(next) if next.txid() >= plan.txid() => {
                tracing::warn!(
                    "{e}: it is left out, as other files lead to TXID {} too; litestream_verify names all that is damaged",
                    next.txid()
                );
                Ok(next)
            }
            other => Err(around::no_way(self.refusal(e), other)),
        }
    }

    /// The error of a restore that ends with `e`: if what was left out before is closed too, what would open that comes first.
    fn refusal(&mut self, e: Error) -> Error {
        let closed = self.closed.take().filter(|_| e.kind() == ErrorKind::Denied);
        closed.unwrap_or(e)
    }

    /// The last transaction that was applied, or zero.
    fn txid(&self) -> u64 {
        self.applied.as_ref().map_or(0, |applied| applied.header.max.get())
    }

    /// What continues the files that were applied, in place of `plan`.
    ///
    /// The file that vanished may have been applied in part. What comes in its place brings all its
    /// pages again, as it leads at least as far.
    fn replan(&mut self, plan: &Plan) -> Result<Plan> {
        let next = match Txid::new(self.txid()) {
            None => Some(self.first_plan()?),
            Some(after) => {
                let (source, point) = (self.source.clone(), self.point);
                runtime::block_on(async move { source.plan_after(point, after).await })?
            }
        };
        next.filter(|next| next.txid() >= plan.txid()).ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                format!(
                    "TXID {} was merged with later ones while it was being restored; begin again, or \
                     choose another point",
                    plan.txid()
                ),
            )
        })
    }

    fn apply_all(&mut self, plan: &Plan, draft: &mut Draft) -> Result<()> {
        self.progress.planned(plan);
        let (cancel, progress) = (self.cancel.clone(), self.progress.clone());
        let mut segments =
            Segments::new(self.source.clone(), plan.files(), self.parallelism, cancel, progress)?;
        for file in plan.files() {
            self.reading = Some(file.clone());
            let mut reader = segments.file(file.size);
            let applied = self.apply(file, &mut reader, draft);
            let header = applied.map_err(|e| match reader.take_failure() {
                Some(cause) => cause,
                None if is_ours(&e) => e.context(format!("{} of replica {}", file.id, self.source.url())),
                None => e,
            })?;
            let (files, sealed) =
                self.applied.as_ref().map_or((0, 0), |applied| (applied.files, applied.sealed));
            let (files, sealed) = (files + 1, sealed + usize::from(header.is_sealed()));
            let lineage = self.lineage().or(header.lineage);
            self.applied = Some(Applied { header, lineage, files, sealed, left_out: Vec::new() });
            self.progress.applied();
        }
        Ok(())
    }

    /// Applies one file.
    fn apply(&self, file: &FileInfo, reader: &mut SegmentReader<'_>, draft: &mut Draft) -> Result<Header> {
        let mut decoder = Decoder::open(reader, self.source.keyring())?;
        let header = *decoder.header();
        check_name(file, &header)?;
        self.check_continues(&header)?;
        let mut lower = self.lower.beside(file.id);
        let beside = lower.as_mut().map(|(_, beside)| beside);
        if self.division.is_worthwhile(file.size) {
            crew::apply(&mut decoder, draft, beside, self.division)?;
        } else {
            apply_pages(&mut decoder, draft, beside)?;
        }
        let Summary { header, .. } = decoder.finish()?;
        if let Some((commit, beside)) = &lower {
            histories::compare(&header, *commit, beside)?;
        }
        draft.resize(header.commit, header.page_size)?;
        Ok(header)
    }

    fn lineage(&self) -> Option<Lineage> {
        self.applied.as_ref().and_then(|applied| applied.lineage)
    }

    /// Checks that a file fits what was applied before it.
    fn check_continues(&self, header: &Header) -> Result<()> {
        let expected = self.applied.as_ref().map(|applied| applied.header.page_size);
        if expected.is_some_and(|expected| expected != header.page_size) {
            return Err(Error::corrupt(format!(
                "it has pages of {} bytes, the files before it have pages of {} bytes: \
                 two databases were replicated to one URL",
                header.page_size,
                expected.unwrap_or(header.page_size)
            )));
        }
        if header.min.get() > self.txid() + 1 {
            let expected = self.txid() + 1;
            return Err(Error::corrupt(format!(
                "it begins at TXID {} instead of {expected:016x}",
                header.min
            )));
        }
        Lineage::with(self.lineage(), header).map(drop)
    }
}

/// Applies the pages of a file one by one, and shows them to `beside`.
pub(super) fn apply_pages<R: Read>(
    decoder: &mut Decoder<R>,
    draft: &mut Draft,
    mut beside: Option<&mut Beside>,
) -> Result<()> {
    let mut page = vec![0; decoder.header().page_size.bytes()];
    while let Some(pgno) = decoder.next_page(&mut page)? {
        draft.write(pgno, &page)?;
        if let Some(beside) = &mut beside {
            beside.take(pgno, &page);
        }
    }
    Ok(())
}

/// Refuses a plan in which files of one level overlap: compaction never makes such, two writers do, and
/// then one file's pages belong to another history than the other's.
///
/// # Errors
/// `Corrupt`.
pub(crate) fn refuse_overlap(plan: &Plan) -> Result<()> {
    let overlap = |pair: &&[FileInfo]| {
        let [a, b] = pair else { return false };
        a.id.level == b.id.level && b.id.name.min() <= a.id.name.max()
    };
    let Some([a, b]) = plan.files().windows(2).find(overlap) else { return Ok(()) };
    Err(Error::corrupt(format!(
        "{} and {} overlap: two writers used this replica; restore up to TXID {}, or let the primary write \
         a new snapshot",
        a.id,
        b.id,
        a.id.name.max()
    )))
}

/// Whether an error is about the bytes of the file that is being read, or about what opens it.
fn is_ours(error: &Error) -> bool {
    let kinds = [ErrorKind::Corrupt, ErrorKind::Unsupported, ErrorKind::Conflict, ErrorKind::Denied];
    kinds.contains(&error.kind())
}
