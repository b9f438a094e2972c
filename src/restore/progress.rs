//! How far restores are, for people who wait for them.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::clock::{Clock as _, SystemClock, Timestamp};
use crate::error::{Error, ErrorKind, Result};
use crate::fork::PerProcess;
use crate::ltx::Txid;
use crate::replica::Plan;

/// Restores that ended are remembered, so many of them.
const REMEMBERED: usize = 16;

/// The restores of this process, the latest last: those that are under way, and the last that ended.
static ALL: PerProcess<Mutex<VecDeque<Arc<Progress>>>> = PerProcess::new();

/// One restore.
#[derive(Debug)]
pub struct Progress {
    url: String,
    path: PathBuf,
    started: Timestamp,
    begun: Instant,
    bytes_done: AtomicU64,
    files_done: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    txid: Option<Txid>,
    files: u64,
    bytes: u64,
    took: Option<Duration>,
    error: Option<String>,
}

/// What a restore is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Listing the replica.
    Planning,
    /// Fetching and applying files.
    Restoring,
    /// Checking the database.
    Checking,
    /// Done.
    Done,
    /// Failed.
    Failed,
    /// Interrupted.
    Cancelled,
}

impl Phase {
    /// One word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Planning => "planning",
            Self::Restoring => "restoring",
            Self::Checking => "checking",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// How far a restore is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The replica's URL, without secrets.
    pub url: String,
    /// The database file.
    pub path: PathBuf,
    /// What it is doing.
    pub phase: Phase,
    /// The transaction that it leads to, once that is known.
    pub txid: Option<Txid>,
    /// LTX files to apply, and those that are applied.
    pub files: (u64, u64),
    /// Bytes of those to fetch, and those that are read.
    pub bytes: (u64, u64),
    /// When it began.
    pub started: Timestamp,
    /// How long it has taken.
    pub took: Duration,
    /// Why it failed.
    pub error: Option<String>,
}

impl Progress {
    /// A restore of the replica at `url` to `path` begins, and is one of [`restores`] from now on.
    pub fn begin(url: String, path: &Path) -> Arc<Self> {
        let state = State { phase: Phase::Planning, txid: None, files: 0, bytes: 0, took: None, error: None };
        let progress = Arc::new(Self {
            url,
            path: path.to_owned(),
            started: SystemClock.now(),
            begun: Instant::now(),
            bytes_done: AtomicU64::new(0),
            files_done: AtomicU64::new(0),
            state: Mutex::new(state),
        });
        let mut all = lock(ALL.get());
        all.push_back(progress.clone());
        let ended = |p: &Arc<Self>| lock(&p.state).took.is_some();
        // Several that were under way at the same time may have ended since.
        while all.iter().filter(|p| ended(p)).count() > REMEMBERED {
            let oldest = all.iter().position(ended).expect("BUG: some ended");
            all.remove(oldest);
        }
        progress
    }

    /// `plan` is what is to be applied from now on; `files` and `bytes` were applied before.
    pub(super) fn planned(&self, plan: &Plan) {
        let bytes = plan.files().iter().map(|file| file.size).sum();
        self.planned_files(Some(plan.txid()), plan.files().len(), bytes);
    }

    /// So many files of so many bytes are to be applied from now on, which lead to `txid`.
    pub(super) fn planned_files(&self, txid: Option<Txid>, files: usize, bytes: u64) {
        let mut state = lock(&self.state);
        state.phase = Phase::Restoring;
        state.txid = txid;
        state.files = self.files_done.load(Ordering::Relaxed) + files as u64;
        state.bytes = self.bytes_done.load(Ordering::Relaxed) + bytes;
    }

    pub(super) fn received(&self, bytes: usize) {
        self.bytes_done.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn applied(&self) {
        self.files_done.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn checking(&self) {
        lock(&self.state).phase = Phase::Checking;
    }

    pub(super) fn ended<T>(&self, outcome: &Result<T>) {
        let mut state = lock(&self.state);
        state.took = Some(self.begun.elapsed());
        state.error = outcome.as_ref().err().map(Error::to_string);
        state.phase = match outcome {
            Ok(_) => Phase::Done,
            Err(e) if e.kind() == ErrorKind::Interrupted => Phase::Cancelled,
            Err(_) => Phase::Failed,
        };
    }

    /// How far it is.
    pub fn standing(&self) -> Standing {
        let state = lock(&self.state);
        Standing {
            url: self.url.clone(),
            path: self.path.clone(),
            phase: state.phase,
            txid: state.txid,
            files: (state.files, self.files_done.load(Ordering::Relaxed)),
            bytes: (state.bytes, self.bytes_done.load(Ordering::Relaxed)),
            started: self.started,
            took: state.took.unwrap_or_else(|| self.begun.elapsed()),
            error: state.error.clone(),
        }
    }
}

/// The restores of this process, the latest first: those that are under way, and the last that ended.
pub fn restores() -> Vec<Standing> {
    lock(ALL.get()).iter().rev().map(|progress| progress.standing()).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restores_under_way_are_kept_and_some_that_ended() {
        let path = |n: usize| PathBuf::from(format!("/progress-test/{n}.db"));
        let running = Progress::begin("file:///r".to_owned(), &path(0));
        for n in 1..=2 * REMEMBERED {
            Progress::begin("file:///r".to_owned(), &path(n)).ended(&Err::<(), _>(Error::corrupt("broken")));
        }
        // Other tests of this process restore too.
        let ours: Vec<Standing> =
            restores().into_iter().filter(|s| s.path.starts_with("/progress-test")).collect();
        assert!(ours.len() <= REMEMBERED + 2);
        assert_eq!(ours.last().unwrap().phase, Phase::Planning);
        assert_eq!(ours[0].path, path(2 * REMEMBERED));
        assert_eq!((ours[0].phase, ours[0].error.as_deref()), (Phase::Failed, Some("broken")));
        running.received(7);
        assert_eq!(running.standing().bytes, (0, 7));
    }
}
