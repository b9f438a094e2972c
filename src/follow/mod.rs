//! Copies that follow: an ordinary database file takes each transaction of a replica, while any SQLite program reads it.
//!
//! A thread for each copy looks for new files and puts them on the copy in transactions of SQLite's own kind: under its
//! locks, with a rollback journal. So a reader sees all of a transaction or nothing of it, and a kill in the middle is undone
//! by the next reader.
//!
//! | file | what it does |
//! | --- | --- |
//! | `begin` | a new copy is made, or one that is there continues |
//! | `turn` | calls for one copy, one after the other |
//! | `follower` | the thread: what is new is fetched and applied; how it is doing |
//! | `batch` | downloaded files, verified |
//! | `transaction`, `journal` | they are put on the copy, or undone |
//! | `copy` | the file under SQLite's locks |
//! | `page_one` | what of the first page is the copy's own |
//! | `state` | what is remembered beside it |

mod batch;
mod begin;
mod copy;
mod follower;
mod journal;
mod page_one;
mod state;
mod transaction;
mod turn;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};
use crate::files;
use crate::fork::PerProcess;
use crate::replica::Bandwidth;
use crate::store::{Location, ReplicaIdentity};

use follower::Follower;
pub use follower::{Phase, Standing};
use turn::Turn;

/// At the end of the process copies are waited for no longer than this.
const AT_EXIT: Duration = Duration::from_secs(2);

/// What follows what, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Where the replica is.
    pub target: Location,
    /// Where the copy is, or will be.
    pub path: PathBuf,
    /// How often to look for what is new.
    pub interval: Duration,
    /// How fast files may come.
    pub bandwidth: Option<Bandwidth>,
}

/// The copies that follow in this process, by path, with those that stopped and were not let go.
static ALL: PerProcess<Mutex<BTreeMap<PathBuf, Arc<Follower>>>> = PerProcess::new();

fn all_by_path() -> MutexGuard<'static, BTreeMap<PathBuf, Arc<Follower>>> {
    ALL.get().lock().unwrap_or_else(PoisonError::into_inner)
}

/// Has the copy follow its replica from now on. If there is no file yet, it is made first, and is there when this returns;
/// one that is there continues from its transaction. A copy that follows that replica already continues, with these options
/// from now on.
///
/// `stopped` is asked now and then whether to give up. Blocks the calling thread, which may be any but one of the runtime's.
///
/// # Errors
/// - `AlreadyExists`: a file is there that is no copy.
/// - `Conflict`: it is a copy of another replica, or another program wrote it.
/// - `Busy`: it follows another replica in this process, or follows in another process.
/// - `Interrupted`.
/// - those of [`crate::restore::restore`].
pub fn follow(options: Options, stopped: Arc<AtomicBool>) -> Result<Standing> {
    let options = Options { path: files::resolved(&options.path), ..options };
    let _turn = Turn::take(&options.path, &stopped)?;
    let before = all_by_path().get(&options.path).cloned();
    if let Some(before) = before {
        if !before.has_stopped() {
            before.is_of(&ReplicaIdentity::from(&options.target))?;
            if before.has_options(&options) {
                return Ok(before.standing());
            }
        }
        before.end();
        return start(options, stopped).inspect_err(|e| before.note_successor_failed(e));
    }
    start(options, stopped)
}

/// As [`follow`], where nothing follows any more.
fn start(options: Options, stopped: Arc<AtomicBool>) -> Result<Standing> {
    let path = options.path.clone();
    let worker = begin::begin(options, stopped)?;
    let follower = follower::start(worker)?;
    all_by_path().insert(path, Arc::clone(&follower));
    Ok(follower.standing())
}

/// Has the copy at `path` no longer follow, and waits for the end of what is under way. The file stays as it is, and
/// [`follow`] continues it.
///
/// # Errors
/// `NotFound` if no copy follows there.
pub fn unfollow(path: &Path) -> Result<Standing> {
    let path = files::resolved(path);
    let follower = all_by_path().remove(&path).ok_or_else(|| {
        Error::new(
            ErrorKind::NotFound,
            format!("no copy at {} follows a replica in this process", path.display()),
        )
    })?;
    follower.end();
    Ok(follower.standing())
}

/// The copies of this process, by path.
pub fn all() -> Vec<Standing> {
    let all: Vec<Arc<Follower>> = all_by_path().values().cloned().collect();
    all.iter().map(|follower| follower.standing()).collect()
}

/// The process ends normally: what is under way comes to its end, or is undone by the next reader.
pub fn end_at_exit() {
    let all: Vec<Arc<Follower>> = all_by_path().values().cloned().collect();
    all.iter().for_each(|follower| follower.tell_to_end());
    let deadline = Instant::now() + AT_EXIT;
    while !all.iter().all(|follower| follower.has_ended()) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Whether to give up.
fn is_set(stopped: &AtomicBool) -> bool {
    stopped.load(Ordering::Relaxed)
}
