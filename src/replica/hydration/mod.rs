//! The whole database in a local file: downloaded in the background while queries go on, and kept up
//! to date from then on.
//!
//! A page is read from the file as soon as it is there, so nothing has to be switched over when the
//! last one is. Which version of a page the file has is known by where the replica has it; a
//! transaction that reads an older state gets the older version, from the replica or from what was
//! preserved for it.
//!
//! LTX has one checksum for a file and none for a page. So files are read whole, in parts, and their pages count as
//! downloaded when the checksum that the parts make is that of the file. From then on a page has a checksum of its
//! own, which it is compared with whenever it is read. The pages of a file that fails are not served.
//!
//! | file | what it does |
//! | --- | --- |
//! | `local` | the file |
//! | `held` | which pages it has, and what was checked of them |
//! | `sums` | the checksums of the pages |
//! | `check`, `chunk`, `parts` | LTX files are read whole; their parts; which parts were read |
//! | `span` | large ranges that hold missing pages |
//! | `record` | what is known of the file after a restart |
//! | `bits` | a set of pages |

mod bits;
pub(super) mod check;
mod chunk;
mod held;
pub(super) mod local;
mod parts;
mod record;
mod span;
mod sums;
#[cfg(test)]
mod tests;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use tokio::task::AbortHandle;

use self::check::{Damaged, check};
use self::held::Work;
use self::local::Local;
use self::span::{Span, Spans};
use super::files::Files;
use super::map::ReplicaFile;
use super::snapshot::Snapshot;
use crate::error::{Error, ErrorKind, Result};
use crate::runtime;
use crate::store::ByteRange;

/// Ranges that are fetched at the same time.
const PARALLEL: usize = 4;
/// How often it is written down how far the download is.
pub(super) const RECORD: Duration = Duration::from_secs(1);

/// How the download is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HydrationStatus {
    /// The local file.
    pub path: PathBuf,
    /// The share of the database that is in it, 0 to 1000.
    pub per_mille: u64,
    /// Why it does not go on, if it does not.
    pub error: Option<String>,
    /// What was found wrong with the local file and mended.
    pub notice: Option<String>,
}

/// The download of one core.
#[derive(Debug)]
pub(super) struct Hydration {
    path: PathBuf,
    error: Mutex<Option<String>>,
    task: OnceLock<AbortHandle>,
}

impl Hydration {
    /// The task that downloads is to end with this.
    pub(super) fn belongs_to(&self, task: AbortHandle) {
        self.task.get_or_init(|| task);
    }

    /// Opens or creates the file at `path` for `snapshot`, and from then on `files` reads from it.
    ///
    /// If somebody else has the file, this core reads without until it is free.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn open(path: &Path, files: &Files, snapshot: &Snapshot) -> Result<Self> {
        let hydration = Self { path: path.to_owned(), error: Mutex::default(), task: OnceLock::new() };
        if !hydration.take(files, snapshot)? {
            *hydration.error() = Some(format!(
                "{} is in use by another process or connection: this one reads without it until it is free; \
                 give it a hydration_path of its own",
                path.display()
            ));
        }
        Ok(hydration)
    }

    /// Takes the file, unless somebody else has it.
    pub(super) fn take(&self, files: &Files, snapshot: &Snapshot) -> Result<bool> {
        let Some(file) = locked(&self.path)? else { return Ok(false) };
        files.set_local(Arc::new(Local::begin(&self.path, file, files.source.url(), snapshot)?));
        Ok(true)
    }

    /// How the download is doing.
    pub(super) fn status(&self, files: &Files) -> HydrationStatus {
        let local = files.local();
        HydrationStatus {
            path: self.path.clone(),
            per_mille: local.map_or(0, |local| local.per_mille()),
            error: self.error().clone(),
            notice: local.and_then(|local| local.notice()),
        }
    }

    pub(super) fn note(&self, outcome: &Result<()>) {
        *self.error() = outcome.as_ref().err().map(|e| format!("hydration: {e}"));
    }

    fn error(&self) -> MutexGuard<'_, Option<String>> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Hydration {
    fn drop(&mut self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }
}

/// Whether the file at `path` has content that no hydration wrote. Found without opening it: to close a descriptor of a
/// database would drop the locks that this process has on it.
fn is_foreign(path: &Path) -> bool {
    let is_ours =
        [record::SUFFIX, sums::SUFFIX].iter().any(|suffix| record::path_with(path, suffix).exists());
    !is_ours && fs::metadata(path).is_ok_and(|meta| meta.len() > 0)
}

/// Opens or creates the file at `path`, and the folder it is in; `None` if somebody else has it.
fn locked(path: &Path) -> Result<Option<File>> {
    let failed = |e| Error::io(format!("cannot open {}", path.display()), e);
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        crate::files::create_private_folders(folder).map_err(failed)?;
    }
    if fs::metadata(path).is_ok_and(|meta| !meta.is_file()) {
        return Err(Error::config(format!("{} is not a file: give another hydration_path", path.display())));
    }
    if is_foreign(path) {
        let message = format!(
            "{} is there already and not from a hydration, which would overwrite it: give another hydration_path, or \
             remove it",
            path.display()
        );
        return Err(Error::config(message));
    }
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    let file = file.map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(e)) => Err(failed(e)),
    }
}

/// Downloads what is missing, and writes down what is there.
pub(super) async fn complete(files: &Arc<Files>, local: &Arc<Local>, damaged: &mut Damaged) -> Result<()> {
    let records = Records::new();
    let outcome = download(files, local, damaged, &records).await;
    records.now(local).await?;
    outcome?;
    damaged.outcome(local)
}

async fn download(
    files: &Arc<Files>,
    local: &Arc<Local>,
    damaged: &mut Damaged,
    records: &Records,
) -> Result<()> {
    loop {
        match local.work(|number| damaged.waits(number)) {
            Work::Nothing => return Ok(()),
            Work::Check(found) => {
                for file in found {
                    damaged.note(&file, check(files, local, &file, records).await)?;
                }
            }
            Work::Fetch(map, here) => {
                let spans = stream::iter(Spans::new(map, here));
                let fetched = spans.map(|span| fetch(files, local, span)).buffer_unordered(PARALLEL);
                fetched.try_for_each(|()| async { records.if_due(local).await }).await?;
            }
        }
    }
}

/// When it was last written down how far the download is.
struct Records(Mutex<Instant>);

impl Records {
    fn new() -> Self {
        Self(Mutex::new(Instant::now()))
    }

    /// Writes it down if that was not done for a while.
    async fn if_due(&self, local: &Arc<Local>) -> Result<()> {
        if self.is_due() { self.now(local).await } else { Ok(()) }
    }

    async fn now(&self, local: &Arc<Local>) -> Result<()> {
        let local = local.clone();
        runtime::blocking(move || local.record()).await
    }

    fn is_due(&self) -> bool {
        let mut recorded = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = recorded.elapsed() >= RECORD;
        if due {
            *recorded = Instant::now();
        }
        due
    }
}

/// Fetches a range and takes its pages in. What does not decode is fetched once more.
async fn fetch(files: &Arc<Files>, local: &Arc<Local>, span: Span) -> Result<()> {
    let span = Arc::new(span);
    twice(|| async {
        let bytes = bytes_of(files, &span.file, span.start, span.end).await?;
        let (local, span) = (local.clone(), span.clone());
        runtime::blocking(move || local.fill(&span, &bytes)).await
    })
    .await
}

/// Bytes of a file: of what was kept of it, or from the store.
async fn bytes_of(files: &Files, file: &ReplicaFile, start: u64, end: u64) -> Result<Bytes> {
    let len = end - start;
    match file.kept.get().and_then(|kept| kept.read(start, len as usize).ok()) {
        Some(bytes) => Ok(bytes),
        None => files.source.read(&file.info, ByteRange::Bounded { offset: start, len }).await,
    }
}

/// Does `work` once more if what came was damaged: in the store, or only on its way?
async fn twice<F: Future<Output = Result<()>>>(work: impl Fn() -> F) -> Result<()> {
    match work().await {
        Err(e) if e.kind() == ErrorKind::Corrupt => work().await,
        done => done,
    }
}
