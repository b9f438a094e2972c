//! A replica becomes a database file.
//!
//! The files of the plan are applied in order of their transactions onto a temporary file beside the
//! target, which takes the target's name when all is verified and on disk. Memory is bounded, however
//! large the database is. Whatever goes wrong, nothing is left behind and the target is as it was.

mod apply;
mod in_use;
mod output;
mod progress;
mod segments;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::ltx::{Header, Txid};
use crate::page::PageCount;
pub use crate::replica::{Plan, RestorePoint};
use crate::replica::{Source, empty};
use crate::runtime;
use crate::store::Store;

use apply::Applier;
use output::Output;
pub use progress::{Phase, Progress, Standing, restores};

/// How to restore.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which state.
    pub point: RestorePoint,
    /// Replace a database that is there.
    pub force: bool,
    /// Requests at the same time, at least 1. Each may hold 2 MiB.
    pub parallelism: usize,
    /// Asked now and then whether to give up.
    pub cancel: Cancel,
    /// What the database must pass before it gets its name.
    pub check: Option<Check>,
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
            force: false,
            parallelism: Self::PARALLELISM,
            cancel: Cancel::never(),
            check: None,
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
    /// The last transaction that it has.
    pub txid: Txid,
    /// When that was committed.
    pub timestamp: Timestamp,
    /// The size of the database in pages.
    pub pages: PageCount,
    /// The size of the database in bytes.
    pub bytes: u64,
    /// The number of LTX files that were applied.
    pub files: usize,
    /// How long it took.
    pub duration: Duration,
}

impl Report {
    fn of(path: &Path, last: &Header, files: usize, begun: Instant) -> Self {
        Self {
            path: path.to_owned(),
            txid: last.max,
            timestamp: last.timestamp,
            pages: last.commit,
            bytes: last.commit.bytes(last.page_size),
            files,
            duration: begun.elapsed(),
        }
    }
}

/// Restores the replica in `store` to `path`. Blocks the calling thread, which may be any but one of
/// [`crate::runtime`]'s.
///
/// # Errors
/// - `NotFound`: the replica is empty or does not reach the point asked for.
/// - `AlreadyExists`: there is a file at `path`, or a leftover of one (`-wal`, `-journal`), and
///   `force` is not given.
/// - `Busy`: the database to replace is in use.
/// - `Corrupt`: a file of the replica fails its checksum, does not fit its name, or is missing.
/// - `Interrupted`: [`Options::cancel`] said so.
/// - what [`Options::check`] says.
/// - those of the store and of the file system.
pub fn restore(store: Arc<dyn Store>, path: &Path, options: &Options) -> Result<Report> {
    let progress = options.progress.clone().unwrap_or_else(|| Progress::begin(store.url(), path));
    let outcome = run(store, path, options, &progress);
    progress.ended(&outcome);
    outcome
}

fn run(store: Arc<dyn Store>, path: &Path, options: &Options, progress: &Arc<Progress>) -> Result<Report> {
    let begun = Instant::now();
    let output = Output::prepare(path, options.force)?;
    let applier = Applier::new(Arc::new(Source::new(store)), options, progress.clone());
    let plan = applier.first_plan()?;
    let mut output = output.create()?;
    let applied = applier.run(plan, &mut output)?;
    if let Some(Check(passes)) = &options.check {
        progress.checking();
        passes(output.path())?;
    }
    options.cancel.check()?;
    output.publish()?;
    Ok(Report::of(path, &applied.header, applied.files, begun))
}

/// Says what [`restore`] would do, and refuses what it would refuse; no page is read and nothing written.
///
/// # Errors
/// Those of [`restore`] that can be known before.
pub fn dry_run(store: Arc<dyn Store>, path: &Path, options: &Options) -> Result<(Report, Plan)> {
    let begun = Instant::now();
    Output::prepare(path, options.force)?;
    let (source, point) = (Arc::new(Source::new(store)), options.point);
    let (plan, header) = runtime::block_on(async move {
        let plan = plan_from(&source, point).await?;
        let header = source.header(plan.last()).await?;
        Ok((plan, header))
    })?;
    Ok((Report::of(path, &header, plan.files().len(), begun), plan))
}

/// The files that a restore to `point` would apply.
///
/// # Errors
/// `NotFound` if the replica is empty or does not reach the point; `Corrupt` if its files do not fit
/// together; those of the store.
pub async fn plan(store: Arc<dyn Store>, point: RestorePoint) -> Result<Plan> {
    plan_from(&Source::new(store), point).await
}

/// Whether the replica has no file at all.
///
/// # Errors
/// Those of the store.
pub async fn is_empty(store: Arc<dyn Store>) -> Result<bool> {
    Ok(Source::new(store).list_all().await?.is_empty())
}

async fn plan_from(source: &Source, point: RestorePoint) -> Result<Plan> {
    let plan = source.survey(point).await?.ok_or_else(empty)?.plan;
    apply::refuse_overlap(&plan)?;
    Ok(plan)
}
