//! A database that is missing is restored before it is opened: `restore=missing`.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};
use crate::files::{self, Kind, RecordLock};
use crate::fork::PerProcess;
use crate::primary::{self, Primary, ReplicaConfig, Restored};
use crate::restore::{self, Exclusion, Line, Options, Progress};
use crate::{runtime, sqlite};

/// Whoever restores holds this lock alone.
const LOCK: &str = "restore.lock";
/// The time from one try to the next.
const TRY_AGAIN: Duration = Duration::from_millis(20);

/// Restores the database `path` from the first of `replicas` that has it, if the file is missing or has no pages.
/// If all of them are empty, nothing is done: a new database begins.
///
/// # Errors
/// That of the first replica that could not be read, if none of the others has the database: an empty database must not
/// take the place of one that exists. Those of the folder of local state.
pub(super) fn restore(path: &Path, replicas: &[ReplicaConfig]) -> Result<()> {
    if !is_missing(path) {
        return Ok(());
    }
    if Primary::find(path).is_some() {
        return still_there(path);
    }
    let began = Instant::now();
    let _turn = Turn::wait(path)?;
    if !is_missing(path) {
        return Ok(());
    }
    if let Some(e) = Failure::since(path, began) {
        return Err(e);
    }
    let restored = restore_from_first(path, replicas);
    Failure::note(path, restored.as_ref().err());
    restored
}

fn restore_from_first(path: &Path, replicas: &[ReplicaConfig]) -> Result<()> {
    let mut refused = None;
    for replica in replicas {
        match restore_from(path, replica) {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(e) => {
                let e = e.context(&replica.target);
                tracing::warn!("{e}");
                refused.get_or_insert(e);
            }
        }
    }
    refused.map_or(Ok(()), |e| {
        let what = format!("{} is missing, and cannot be restored", path.display());
        Err(e.context(what))
    })
}

/// Checks that the file of a database which this process has open is there, with pages or without.
///
/// # Errors
/// `Conflict` if it was removed: an empty database must not take its place.
fn still_there(path: &Path) -> Result<()> {
    if path.exists() {
        return Ok(());
    }
    let message = format!(
        "{} was removed while this process has it open: close its connections, and it is restored by the next open",
        path.display()
    );
    Err(Error::new(ErrorKind::Conflict, message))
}

fn is_missing(path: &Path) -> bool {
    std::fs::metadata(path).map_or_else(|e| e.kind() == std::io::ErrorKind::NotFound, |meta| meta.len() == 0)
}

/// Restores from one replica; `false` if it is empty.
fn restore_from(path: &Path, replica: &ReplicaConfig) -> Result<bool> {
    let store = replica.target.connect();
    let listed = Arc::clone(&store);
    if runtime::block_on(async move { restore::is_empty(listed).await })? {
        return Ok(false);
    }
    let progress = Progress::begin(store.url(), path);
    let line = RefCell::new(Line::new());
    let shown = || {
        line.borrow_mut().update(|| progress.standing());
        false
    };
    let (target, options) = (path.to_path_buf(), options(&progress));
    let (url, from) = (store.url(), replica.target.clone());
    runtime::run(shown, move |_| {
        let report = restore::restore(store, &target, &options)?;
        let Some(txid) = report.txid else { return Ok(()) };
        let (lineage, pages) = (report.lineage, report.pages);
        let marked = primary::mark(&report.path, (&from, &url), txid, lineage, pages, Restored::Newest);
        // The open compares all pages then.
        marked.or_else(|e| {
            tracing::warn!("{}: which state it was restored to could not be noted: {e}", target.display());
            Ok(())
        })
    })?;
    Ok(true)
}

/// What is left of an earlier life of the file is replaced with it.
fn options(progress: &Arc<Progress>) -> Options {
    let exclusion = Exclusion::by(|path| Ok(Box::new(sqlite::sole_use(path)?)));
    Options { force: Some(exclusion), progress: Some(Arc::clone(progress)), ..Options::default() }
}

/// How the last restore of a database failed: those who waited for it need not try the same again, one after the other.
struct Failure {
    at: Instant,
    kind: ErrorKind,
    message: String,
}

/// By database.
static FAILURES: PerProcess<Mutex<BTreeMap<PathBuf, Failure>>> = PerProcess::new();

fn failures() -> MutexGuard<'static, BTreeMap<PathBuf, Failure>> {
    FAILURES.get().lock().unwrap_or_else(PoisonError::into_inner)
}

impl Failure {
    fn note(path: &Path, error: Option<&Error>) {
        let failure = error.map(|e| Self { at: Instant::now(), kind: e.kind(), message: e.to_string() });
        match failure {
            Some(failure) => drop(failures().insert(path.to_path_buf(), failure)),
            None => drop(failures().remove(path)),
        }
    }

    /// That of a restore in this process which ended after `began`.
    fn since(path: &Path, began: Instant) -> Option<Error> {
        let failures = failures();
        let failure = failures.get(path).filter(|failure| failure.at > began)?;
        Some(Error::new(failure.kind, failure.message.clone()))
    }
}

/// The turn of the one who restores. When it is over, nothing is left of it.
struct Turn {
    path: PathBuf,
    lock: Option<RecordLock>,
}

impl Turn {
    /// Waits until nobody else restores the database `path`.
    fn wait(path: &Path) -> Result<Self> {
        let folder = files::state_folder(path);
        let lock_path = folder.join(LOCK);
        loop {
            let taken = files::create_folders(&folder)
                .and_then(|()| RecordLock::take(&lock_path, 0, Kind::Exclusive));
            match taken {
                Ok(Some(lock)) => return Ok(Self { path: lock_path, lock: Some(lock) }),
                // The one before removed the folder between two steps.
                Err(e)
                    if e.kind() == std::io::ErrorKind::NotFound
                        && folder.parent().is_some_and(Path::is_dir) => {}
                Ok(None) => {}
                Err(e) => return Err(Error::io(format_args!("cannot use {}", folder.display()), e)),
            }
            std::thread::sleep(TRY_AGAIN);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // Removed while it is held, so that whoever takes it next makes a new one.
        let _ = std::fs::remove_file(&self.path);
        drop(self.lock.take());
        if let Some(folder) = self.path.parent() {
            // Only if there is nothing else in it.
            let _ = std::fs::remove_dir(folder);
        }
    }
}
