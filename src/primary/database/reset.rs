//! The local state of a database is forgotten, as if it had never been replicated from here.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use super::registry::{Now, Slot, forget};
use crate::error::{Error, ErrorKind, Result};
use crate::files::{DatabaseLock, Kind, ReplaceLock, state_folder};
use crate::primary::shipper::state::State;
use crate::primary::shipper::unfinished;
use crate::runtime;

/// How long a process that only lingers is waited for: it gives way to who asks.
const PATIENCE: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(20);

/// What is ours in a folder of local state, in the order in which it goes. What names the rest goes first: a kill in
/// between leaves what the next open takes for left behind. The file of the locks stays, for who waits for one, and so
/// does what a Litestream sidecar has there.
const OURS: [&str; 6] = ["replicas", "vfs.json", "spool", "generations", "former.json", "settings.json"];
/// The state of one replica, below `replicas/<id>`.
const STATE: &str = "vfs.json";

/// Forgets the local state of the database `path`, an absolute path without links, which nobody has open: the next open
/// compares the database with its replicas. Returns the number of files that waited for a replica; what they hold is in
/// the database, but not the points in time within them.
///
/// # Errors
/// `Busy` if a program has it open; `Io` and the like on the folder.
pub(super) fn reset(path: &Path) -> Result<usize> {
    let slot = Slot::of(path);
    let turn = slot.turn();
    let before = std::mem::take(&mut *slot.now());
    match before {
        Now::Closed | Now::Silent { .. } => {}
        Now::Lingering { primary, .. } => primary.end_lingering(),
        open @ Now::Open { .. } => {
            *slot.now() = open;
            return Err(is_open(path));
        }
    }
    let forgotten = forget_state(path);
    drop(turn);
    forget(path, &slot);
    forgotten
}

fn is_open(path: &Path) -> Error {
    Error::new(
        ErrorKind::Busy,
        format!("{} is open as a primary: close its connections first", path.display()),
    )
}

fn forget_state(path: &Path) -> Result<usize> {
    let folder = state_folder(path);
    if !folder.is_dir() {
        return Ok(0);
    }
    let _nobody = ReplaceLock::take(path)?.ok_or_else(|| is_open(path))?;
    let failed = |e: io::Error| Error::io(format_args!("cannot forget what is in {}", folder.display()), e);
    let deadline = Instant::now() + PATIENCE;
    let _publisher = loop {
        match DatabaseLock::Publish.take(&folder, Kind::Exclusive).map_err(failed)? {
            Some(lock) => break lock,
            None if Instant::now() < deadline => runtime::nap(LOOK),
            None => return Err(is_open(path)),
        }
    };
    let replicas = folder.join(OURS[0]);
    let waiting = entries(&replicas).map_err(failed)?.iter().map(|replica| waiting_files(replica)).sum();
    for replica in entries(&replicas).map_err(failed)? {
        let url = State::read(&replica).map(|state| state.url).unwrap_or_default();
        if let Some(left) = unfinished::of_former(&replica, &url) {
            tracing::warn!("{left}");
        }
        removed(fs::remove_file(replica.join(STATE))).map_err(failed)?;
    }
    for name in OURS {
        let path = folder.join(name);
        let gone = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed(gone).map_err(failed)?;
    }
    Ok(waiting)
}

/// What is in a folder, which need not be there.
fn entries(folder: &Path) -> io::Result<Vec<std::path::PathBuf>> {
    match fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        read => read?.map(|entry| entry.map(|entry| entry.path())).collect(),
    }
}

fn waiting_files(replica: &Path) -> usize {
    let spooled = entries(&replica.join("spool")).unwrap_or_default();
    spooled.iter().filter(|file| file.extension().is_some_and(|extension| extension == "ltx")).count()
}

/// That something is gone already is as good.
fn removed(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}
