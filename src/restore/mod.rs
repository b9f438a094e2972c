//! A replica becomes a database file.
//!
//! The files of the plan are applied in order of their transactions onto a temporary file beside the
//! target, which takes the target's name when all is verified and on disk. Memory is bounded, however
//! large the database is. Whatever goes wrong, nothing is left behind and the target is as it was.

mod apply;
mod around;
mod crew;
mod generations;
mod histories;
mod in_use;
mod leftovers;
mod line;
mod links;
mod output;
mod progress;
mod segments;
#[cfg(test)]
mod tests;
mod window;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::ltx::{FileId, Lineage, Txid};
use crate::page::PageCount;
use crate::replica::{Bandwidth, Source, Survey};
pub use crate::replica::{Plan, RestorePoint};
use crate::runtime;
use crate::store::{RawInfo, Replica};

use apply::Applier;
pub(crate) use apply::refuse_overlap;
use generations::Chosen;
pub use in_use::Exclusion;
pub use line::Line;
use output::Output;
pub use progress::{Phase, Progress, Standing, restores};

/// How often work that waits looks whether it was cancelled.
const LOOK: Duration = Duration::from_millis(50);

/// How to restore.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which state.
    pub point: RestorePoint,
    /// Replace a database that is there, after all others were kept from it. Without it the database must
    /// not be there.
    pub force: Option<Exclusion>,
    /// Requests of 2 MiB at the same time, at least 1; with 2 or more, up to eight times as many that
    /// bring less.
    pub parallelism: usize,
    /// Asked now and then whether to give up.
    pub cancel: Cancel,
    /// What the database must pass before it gets its name.
    pub check: Option<Check>,
    /// How fast files may come.
    pub bandwidth: Option<Bandwidth>,
    /// Who tells how far it is; without it the restore registers by itself.
    pub progress: Option<Arc<Progress>>,
}

impl Options {
    /// The usual number of requests at the same time.
    pub const PARALLELISM: usize = 8;
}

impl Default for Options {
    fn default() -> Self {
        let point = RestorePoint::Latest;
        Self {
            point,
            force: None,
            parallelism: Self::PARALLELISM,
            cancel: Cancel::never(),
            check: None,
            bandwidth: None,
            progress: None,
        }
    }
}

/// Says whether work that takes long should be given up.
#[derive(Clone)]
pub struct Cancel(Arc<dyn Fn() -> bool + Send + Sync>);

impl Cancel {
    /// Gives up as soon as `asked` says so.
    pub fn when(asked: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(asked))
    }

    /// Never gives up.
    pub fn never() -> Self {
        Self::when(|| false)
    }

    /// Ends, with the error, when the work should be given up.
    async fn cancelled(&self) -> Error {
        loop {
            if let Err(cancelled) = self.check() {
                return cancelled;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn check(&self) -> Result<()> {
        if (self.0)() {
            return Err(Error::new(
                ErrorKind::Interrupted,
                "the restore was interrupted; nothing was changed",
            ));
        }
        Ok(())
    }
}

impl fmt::Debug for Cancel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cancel")
    }
}

/// Says whether a database file is sound.
#[derive(Clone)]
pub struct Check(Arc<Passes>);

type Passes = dyn Fn(&Path) -> Result<()> + Send + Sync;

impl Check {
    /// The file is sound if `passes` returns no error.
    pub fn that(passes: impl Fn(&Path) -> Result<()> + Send + Sync + 'static) -> Self {
        Self(Arc::new(passes))
    }
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Check")
    }
}

/// What was restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The database file.
    pub path: PathBuf,
    /// The last transaction that it has; `None` if Litestream 0.3 wrote the replica, which counts none.
    pub txid: Option<Txid>,
    /// The history that it belongs to, as far as the replica's files say so.
    pub lineage: Option<Lineage>,
    /// The generation, if Litestream 0.3 wrote the replica.
    pub generation: Option<String>,
    /// When that was committed, or stored by Litestream 0.3.
    pub timestamp: Timestamp,
    /// The size of the database in pages.
    pub pages: PageCount,
    /// The size of the database in bytes.
    pub bytes: u64,
    /// The number of files that were applied.
    pub files: usize,
    /// How many of them were sealed; `None` if Litestream 0.3 wrote the replica.
    pub sealed: Option<usize>,
    /// Files in whose place others were applied: they are damaged, or sealed for somebody else.
    pub left_out: Vec<FileId>,
    /// How long it took.
    pub duration: Duration,
}

/// Restores the replica in `store` to `path`. Blocks the calling thread, which may be any but one of
/// [`crate::runtime`]'s.
///
/// # Errors
/// - `NotFound`: the replica is empty or does not reach the point asked for.
/// - `AlreadyExists`: there is a file at `path`, or a leftover of one (`-wal`, `-journal`), and
///   `force` is not given.
/// - `Busy`: the database to replace is in use.
/// - `Corrupt`: a file of the replica fails its checksum, does not fit its name, or is missing, and no others lead there.
/// - `Denied`: a file is sealed, nothing of [`Replica::keyring`] opens it, and no others lead there; or it is not sealed where
///   it must be.
/// - `Interrupted`: [`Options::cancel`] said so.
/// - what [`Options::check`] says.
/// - those of the store and of the file system.
pub fn restore(store: Arc<Replica>, path: &Path, options: &Options) -> Result<Report> {
    let progress = options.progress.clone().unwrap_or_else(|| Progress::begin(store.url(), path));
    let outcome = run(store, path, options, &progress);
    progress.ended(&outcome);
    outcome
}

fn run(store: Arc<Replica>, path: &Path, options: &Options, progress: &Arc<Progress>) -> Result<Report> {
    let begun = Instant::now();
    let output = Output::prepare(path, options.force.clone())?;
    let source = Source::new(store.clone()).within(options.bandwidth.clone());
    let mut applier = Applier::new(Arc::new(source), options, progress.clone());
    let chosen = choose(store.clone(), options.point, applier.first_plan())?;
    let mut draft = output.create()?;
    if options.check.is_some() {
        draft.will_be_read();
    }
    let mut report = match chosen {
        Chosen::Ltx(plan) => of_ltx(path, &applier.run(plan, &mut draft)?),
        Chosen::Old(backup) => {
            of_old(path, generations::apply(store, backup, options, progress, &mut draft)?)
        }
    };
    if let Some(Check(passes)) = &options.check {
        progress.checking();
        passes(draft.path())?;
    }
    options.cancel.check()?;
    draft.publish()?;
    report.duration = begun.elapsed();
    Ok(report)
}

fn choose(store: Arc<Replica>, point: RestorePoint, planned: Result<Plan>) -> Result<Chosen> {
    runtime::block_on(async move { generations::choose(&store, point, planned).await })
}

fn of_ltx(path: &Path, applied: &apply::Applied) -> Report {
    let header = &applied.header;
    Report {
        path: path.to_owned(),
        txid: Some(header.max),
        lineage: applied.lineage,
        generation: None,
        timestamp: header.timestamp,
        pages: header.commit,
        bytes: header.commit.bytes(header.page_size),
        files: applied.files,
        sealed: Some(applied.sealed),
        left_out: applied.left_out.clone(),
        duration: Duration::ZERO,
    }
}

fn of_old(path: &Path, applied: generations::Applied) -> Report {
    Report {
        path: path.to_owned(),
        txid: None,
        lineage: None,
        generation: Some(applied.generation),
        timestamp: applied.timestamp,
        pages: applied.commit,
        bytes: applied.commit.bytes(applied.page_size),
        files: applied.files,
        sealed: None,
        left_out: Vec::new(),
        duration: Duration::ZERO,
    }
}

/// What a restore would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forecast {
    /// The last transaction; `None` if Litestream 0.3 wrote the replica, which counts none.
    pub txid: Option<Txid>,
    /// The generation, if Litestream 0.3 wrote the replica.
    pub generation: Option<String>,
    /// When the last transaction was committed, or stored by Litestream 0.3.
    pub timestamp: Timestamp,
    /// The size of the database in pages; not known beforehand of what Litestream 0.3 wrote.
    pub pages: Option<PageCount>,
    /// The size of the database in bytes, if that of pages is known.
    pub bytes: Option<u64>,
    /// The number of files to apply.
    pub files: usize,
    /// Their size in bytes.
    pub download: u64,
}

/// Says what [`restore`] would do, and refuses what it would refuse; no page is read and nothing written.
///
/// # Errors
/// Those of [`restore`] that can be known before.
pub fn dry_run(store: Arc<Replica>, path: &Path, options: &Options) -> Result<Forecast> {
    Output::prepare(path, options.force.clone())?;
    let point = options.point;
    runtime::block_on(async move {
        let source = Source::new(store.clone());
        let planned = plan_from(&source, point).await;
        match generations::choose(&store, point, planned).await? {
            Chosen::Ltx(plan) => {
                let (plan, header) = around::openable(&source, point, plan).await?;
                Ok(Forecast {
                    txid: Some(header.max),
                    generation: None,
                    timestamp: header.timestamp,
                    pages: Some(header.commit),
                    bytes: Some(header.commit.bytes(header.page_size)),
                    files: plan.files().len(),
                    download: plan.files().iter().map(|file| file.size).sum(),
                })
            }
            Chosen::Old(backup) => Ok(backup.forecast()),
        }
    })
}

/// What a restore applies, in order.
#[derive(Debug)]
pub enum Steps {
    /// LTX files.
    Ltx(Plan),
    /// The objects of Litestream 0.3: a snapshot, and pieces of the WAL files that continue it.
    Old(Vec<RawInfo>),
}

/// What a restore to `point` would apply.
///
/// # Errors
/// `NotFound` if the replica is empty or does not reach the point; `Corrupt` if its files do not fit
/// together; those of the store.
pub async fn plan(store: Arc<Replica>, point: RestorePoint) -> Result<Steps> {
    let planned = plan_from(&Source::new(store.clone()), point).await;
    Ok(match generations::choose(&store, point, planned).await? {
        Chosen::Ltx(plan) => Steps::Ltx(plan),
        Chosen::Old(backup) => Steps::Old(backup.objects().cloned().collect()),
    })
}

/// Whether the replica has no file at all.
///
/// # Errors
/// Those of the store.
pub async fn is_empty(store: Arc<Replica>) -> Result<bool> {
    let no_ltx = Source::new(store.clone()).list_all().await?.is_empty();
    Ok(no_ltx && !generations::exist(&store).await?)
}

async fn plan_from(source: &Source, point: RestorePoint) -> Result<Plan> {
    survey(source, point).await.map(|survey| survey.plan)
}

async fn survey(source: &Source, point: RestorePoint) -> Result<Survey> {
    let survey = source.survey(point).await?.ok_or_else(|| around::nothing_left(source))?;
    apply::refuse_overlap(&survey.plan)?;
    Ok(survey)
}
