//! How a copy begins: made from the replica, or found as it was left.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::copy::{Copy, beside, journal_of};
use super::follower::Worker;
use super::state::{Position, Stamp, State};
use super::transaction::{folder_of, sync_folder};
use super::{Options, is_set, page_one};
use crate::error::{Error, ErrorKind, Result};
use crate::files::{self, Kind, RecordLock};
use crate::ltx::Txid;
use crate::page::PageCount;
use crate::replica::{Source, Tail};
use crate::restore::{self, Cancel, Progress, Report};
use crate::runtime;
use crate::store::{Replica, ReplicaIdentity};

/// Makes or finds the copy, and all that it takes to follow.
///
/// # Errors
/// As [`super::follow`].
pub(super) fn begin(options: Options, stopped: Arc<AtomicBool>) -> Result<Worker> {
    let path = options.path.clone();
    let folder = files::state_folder(&path).join("follow");
    let store = options.target.connect();
    let replica = ReplicaIdentity::from(&options.target);
    let is_new = !path.exists();
    if !is_new {
        // Before anything is made beside a file that is no copy.
        found(&path, &folder, &replica)?;
    }
    // Downloads are the database: nobody else reads them.
    files::create_private_folders(&folder)
        .map_err(|e| Error::io(format_args!("cannot make {}", folder.display()), e))?;
    let lock = lock(&folder, &path)?;
    clear(&folder);
    let source = Arc::new(Source::new(Arc::clone(&store)).within(options.bandwidth.clone()));
    let mut tail = Tail::new(Arc::clone(&source), options.interval);
    // Another process may have had it follow until now.
    let mut state = match is_new {
        true => make(&options, &store, replica, &folder, &tail, stopped)?,
        false => found(&path, &folder, &replica)?,
    };
    let mut copy = Copy::open(&path)?;
    let stamp = copy.hold()?.stamp()?;
    state.locate(stamp, &path)?;
    tail.resume(state.at().writer);
    let worker = Worker { url: store.url(), options, source, tail, copy, state, folder, is_new, _lock: lock };
    worker.tell_txid();
    Ok(worker)
}

/// The state of the copy that is there.
fn found(path: &Path, folder: &Path, replica: &ReplicaIdentity) -> Result<State> {
    let Some(state) = State::read(folder)? else {
        let of_litestream = match beside(path, "-txid").exists() {
            true => {
                " (Litestream's restore -f made it, perhaps, which may leave half of a transaction in it)"
            }
            false => "",
        };
        let message = format!(
            "{} exists and is no copy that litestream_follow made{of_litestream}; move it away, or choose another path",
            path.display()
        );
        return Err(Error::new(ErrorKind::AlreadyExists, message));
    };
    match state.replica.difference(replica) {
        None => Ok(state),
        Some((name, before, now)) => Err(Error::new(
            ErrorKind::Conflict,
            format!(
                "{} is a copy of another replica: its {name} is {before}, not {now}; choose another path, or move the file \
                 away",
                path.display()
            ),
        )),
    }
}

/// Keeps other processes, and other threads, from the same copy.
fn lock(folder: &Path, path: &Path) -> Result<RecordLock> {
    let file = folder.join("lock");
    let lock = RecordLock::take(&file, 0, Kind::Exclusive)
        .map_err(|e| Error::io(format_args!("cannot lock {}", file.display()), e))?;
    lock.ok_or_else(|| {
        let message = format!("{} follows a replica already, in another process or thread", path.display());
        Error::new(ErrorKind::Busy, message)
    })
}

/// Removes what a process left that was killed.
fn clear(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if name != "state.json" && name != "lock" {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Restores the replica to a file that gets its name when all is ready.
fn make(
    options: &Options,
    store: &Arc<Replica>,
    replica: ReplicaIdentity,
    folder: &Path,
    tail: &Tail,
    stopped: Arc<AtomicBool>,
) -> Result<State> {
    let path = &options.path;
    for leftover in [journal_of(path), beside(path, "-wal")] {
        if fs::metadata(&leftover).is_ok_and(|meta| meta.len() > 0) {
            let message = format!(
                "{} is left over from another database, and SQLite would apply it to the copy; move it away",
                leftover.display()
            );
            return Err(Error::new(ErrorKind::AlreadyExists, message));
        }
    }
    let draft = folder.join("copy.db");
    let restored = restore::restore(
        Arc::clone(store),
        &draft,
        &restore::Options {
            cancel: Cancel::when(move || is_set(&stopped)),
            bandwidth: options.bandwidth.clone(),
            progress: Some(Progress::begin(store.url(), path)),
            ..restore::Options::default()
        },
    )?;
    let Some(txid) = restored.txid else {
        let _ = fs::remove_file(&draft);
        return Err(Error::new(
            ErrorKind::Unsupported,
            "Litestream 0.3 wrote the replica, which counts no transactions to follow: restore it with litestream_restore",
        ));
    };
    let adopted = adopt(&draft, restored.pages).and_then(|stamp| position(&restored, txid, stamp, tail));
    let at = adopted.inspect_err(|_| drop(fs::remove_file(&draft)))?;
    let state = State::new(replica, at);
    state.save(folder)?;
    appear(&draft, path)?;
    Ok(state)
}

/// What was `restored`, up to `txid`, into a file with this `stamp`.
fn position(restored: &Report, txid: Txid, stamp: Stamp, tail: &Tail) -> Result<Position> {
    Ok(match runtime::wait_on(&runtime::handle()?, tail.anchor(txid))? {
        Some((file, header)) => Position::after(&file, &header, restored.lineage.or(header.lineage), stamp),
        None => {
            let page_size = restored.bytes / u64::from(restored.pages.get().max(1));
            let size = (restored.pages, u32::try_from(page_size).unwrap_or(0));
            Position::alone(txid, restored.timestamp, restored.lineage, size, stamp)
        }
    })
}

/// Makes of a restored database of `pages` a copy.
fn adopt(draft: &Path, pages: PageCount) -> Result<Stamp> {
    let failed = |e: io::Error| Error::io(format_args!("cannot write {}", draft.display()), e);
    let file = OpenOptions::new().read(true).write(true).open(draft).map_err(failed)?;
    let mut header = [0; page_one::HEADER];
    file.read_exact_at(&mut header, 0).map_err(failed)?;
    let page_size = page_one::page_size(&header)?;
    let mut page = vec![0; page_size.bytes()];
    file.read_exact_at(&mut page, 0).map_err(failed)?;
    let change_counter = page_one::change_counter(&page);
    page_one::of_copy(&mut page, pages, change_counter)?;
    file.write_all_at(&page, 0).and_then(|()| file.sync_all()).map_err(failed)?;
    Ok(Stamp::of(pages.bytes(page_size), &page))
}

/// Gives the copy its name, if nobody has it.
fn appear(draft: &Path, path: &Path) -> Result<()> {
    let named = match fs::hard_link(draft, path) {
        Ok(()) => fs::remove_file(draft),
        // A file system without links: a file that appears in this moment would be lost.
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists && !path.exists() => fs::rename(draft, path),
        Err(e) => Err(e),
    };
    named
        .and_then(|()| sync_folder(folder_of(path)))
        .map_err(|e| Error::io(format_args!("cannot name the copy {}", path.display()), e))
}
