//! The context of a database: what is the same for all its replicas, and never changes while it is open.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use tokio::sync::Notify;

use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::files::{self, OpenLock};
use crate::primary::dirty::{Cursors, Recorder};
use crate::primary::file_fingerprint::{Identity, Stamp};
use crate::primary::frame_cache::FrameCache;
use crate::primary::hooks::{Commits, Host, PinnedView};
use crate::primary::wal_sync::WalSync;
use crate::runtime;

/// The context of a database.
pub(super) struct Context {
    /// The database file.
    pub(super) path: PathBuf,
    /// Its WAL.
    pub(super) wal_path: PathBuf,
    /// The folder of local state.
    pub(super) folder: PathBuf,
    host: Arc<dyn Host>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) commits: Commits,
    /// Up to which commit the WAL is on disk.
    pub(super) wal_sync: WalSync,
    /// Records page numbers before the WAL index loses them.
    pub(super) recorder: Recorder,
    /// The cursors of all shippers, behind which records are deleted.
    pub(super) cursors: Cursors,
    /// Compressed pages that several replicas get.
    pub(super) frames: FrameCache,
    /// Rung when the progress of any shipper changed.
    pub(super) bell: Bell,
    /// Rung when commits got to a replica, or when that is stopped or begins: for the many who may wait for one commit each.
    pub(super) arrivals: Bell,
    /// The identity of the database file as it was opened; `None` if there was none.
    file: Option<Identity>,
    /// This process had the database open while another one published it.
    stood_by: AtomicBool,
    /// The database had no pages when this process began to publish it.
    was_empty: AtomicBool,
    /// A connection has the database open: without one nothing touches it.
    is_open: AtomicBool,
    /// Rung when a connection opens the database again.
    opened_again: Notify,
}

impl Context {
    /// The context of the database `path`; `replicas` is their count.
    pub(super) fn new(path: &Path, replicas: usize, host: Arc<dyn Host>, clock: Arc<dyn Clock>) -> Self {
        let mut wal_path = path.as_os_str().to_owned();
        wal_path.push("-wal");
        let wal_path = PathBuf::from(wal_path);
        let folder = files::state_folder(path);
        let wal_sync = WalSync::new(&wal_path);
        let recorder = Recorder::new(&folder, &wal_path);
        Self {
            path: path.to_path_buf(),
            wal_path,
            wal_sync,
            host,
            commits: Commits::new(Arc::clone(&clock), replicas),
            clock,
            cursors: Cursors::new(&folder, Arc::clone(recorder.journal()), replicas),
            recorder,
            folder,
            frames: FrameCache::default(),
            bell: Bell::default(),
            arrivals: Bell::default(),
            file: Identity::of(path),
            stood_by: AtomicBool::new(false),
            was_empty: AtomicBool::new(false),
            is_open: AtomicBool::new(true),
            opened_again: Notify::new(),
        }
    }

    /// SQLite, as long as a connection has the database open.
    ///
    /// # Errors
    /// `Interrupted` after the last close.
    pub(super) fn host(&self) -> Result<&dyn Host> {
        if self.is_open() { Ok(self.host.as_ref()) } else { Err(self.closed()) }
    }

    /// Pins a view of the database, as [`Host::pin`] does, which is told what the records know of the file.
    ///
    /// # Errors
    /// Those of [`Host::pin`]; `Interrupted` after the last close.
    pub(super) fn pin(&self) -> Result<Option<Box<dyn PinnedView>>> {
        self.host()?.pin(&|| self.recorder.journal().measures(&Stamp::of(&self.path)?))
    }

    #[cfg(test)]
    pub(super) fn own_host(&self) -> Arc<dyn Host> {
        Arc::clone(&self.host)
    }

    /// Whether a connection of this process has the database open.
    pub(super) fn is_open(&self) -> bool {
        self.is_open.load(Ordering::SeqCst)
    }

    /// The last connection is closed: nothing touches the database any more.
    pub(super) fn closes(&self) {
        self.is_open.store(false, Ordering::SeqCst);
    }

    /// A connection has the database open again.
    pub(super) fn opens_again(&self) {
        self.is_open.store(true, Ordering::SeqCst);
        self.opened_again.notify_waiters();
    }

    /// Waits until a connection has the database open.
    pub(super) async fn until_open(&self) {
        loop {
            let mut opened = std::pin::pin!(self.opened_again.notified());
            opened.as_mut().enable();
            if self.is_open() {
                return;
            }
            opened.await;
        }
    }

    /// Whether other processes have the database open, as far as that can be told: else, a process that has the publisher
    /// lock only lingers.
    pub(super) fn others_have_it_open(&self) -> bool {
        OpenLock::is_shared_with_others(&self.path).unwrap_or(true)
    }

    /// The stamps of the database and its WAL, by which they show whether a program wrote them.
    pub(super) fn stamps(&self) -> Stamps {
        Stamps([Stamp::of(&self.path), Stamp::of(&self.wal_path)])
    }

    /// Another process publishes the database, which this one has open.
    pub(super) fn stands_by(&self) {
        self.stood_by.store(true, Ordering::Relaxed);
    }

    /// Whether this process had the database open while another one published it: then no older file has taken its place
    /// since.
    pub(super) fn stood_by(&self) -> bool {
        self.stood_by.load(Ordering::Relaxed)
    }

    /// The error of work that the last close came before.
    pub(super) fn closed(&self) -> Error {
        Error::new(ErrorKind::Interrupted, format!("{} was closed", self.path.display()))
    }

    /// The error of work that only the publishing process does.
    pub(super) fn published_elsewhere(&self) -> Error {
        Error::new(ErrorKind::Busy, format!("{} is published by another process", self.path.display()))
    }

    /// The error of a wait for a replica of nothing.
    pub(super) fn empty(&self) -> Error {
        let message = format!("{} is empty: there is nothing to replicate yet", self.path.display());
        Error::new(ErrorKind::NotFound, message)
    }

    /// Notes whether the database has no pages, when this process begins to publish it.
    pub(super) fn look_whether_empty(&self) {
        let is_empty = std::fs::metadata(&self.path).map_or(true, |meta| meta.len() == 0);
        self.was_empty.store(is_empty, Ordering::Relaxed);
    }

    /// Whether the database had no pages when this process began to publish it, and none was published since.
    pub(super) fn was_empty(&self) -> bool {
        self.was_empty.load(Ordering::Relaxed)
    }

    /// The database has pages: some were published.
    pub(super) fn has_pages(&self) {
        self.was_empty.store(false, Ordering::Relaxed);
    }

    /// The identity of the database file as it was opened.
    pub(super) const fn file(&self) -> Option<Identity> {
        self.file
    }

    /// Makes sure that the database file is still the one that was opened.
    ///
    /// # Errors
    /// `Conflict` that says what became of it.
    pub(super) fn check_file(&self) -> Result<()> {
        let what = match (self.file, Identity::of(&self.path)) {
            (Some(opened), Some(now)) if opened.is(&now) => return Ok(()),
            (None, _) => return Ok(()),
            (Some(_), Some(_)) => "was replaced by another file",
            (Some(_), None) => "was removed",
        };
        Err(Error::new(
            ErrorKind::Conflict,
            format!(
                "{} {what} while it was open: what is committed now goes to a file without a name, and is not \
                 replicated. Close all connections to it, and restore it if it is lost",
                self.path.display(),
            ),
        ))
    }
}

/// Stamps of a database and its WAL at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamps([Option<Stamp>; 2]);

/// Stage of the first connection's open: no program reads a database that is about to be brought forward.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Opening {
    /// It waits for the looks at the replicas.
    #[default]
    Waits,
    /// It waits until the database is brought forward.
    WaitsForForward,
    /// It is over: programs read and write the database.
    Over,
}

/// A bell that is rung when something changed that threads may wait for.
#[derive(Debug, Default)]
pub(super) struct Bell {
    moment: Mutex<Moment>,
    rung: Condvar,
}

#[derive(Debug, Default)]
struct Moment {
    /// How often it was rung.
    rings: u64,
    opening: Opening,
    /// How often the database was brought forward: a decision that was begun before is void.
    forwards: u64,
}

/// The rings of a bell at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rings(u64);

impl Bell {
    fn lock(&self) -> MutexGuard<'_, Moment> {
        self.moment.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Moment)) {
        let mut moment = self.lock();
        change(&mut moment);
        moment.rings += 1;
        drop(moment);
        self.rung.notify_all();
    }

    /// Rings it.
    pub(super) fn ring(&self) {
        self.change(|_| ());
    }

    /// The rings so far: to be asked before a look at what may change.
    pub(super) fn rings(&self) -> Rings {
        Rings(self.lock().rings)
    }

    /// Waits at most `timeout` for a ring after `before`.
    pub(super) fn wait(&self, before: Rings, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        let mut moment = self.lock();
        while moment.rings == before.0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            moment = runtime::wait_for_news(&self.rung, &self.moment, moment, left);
        }
    }

    /// The open of the first connection waits until `is_decided`, a question whose answer changes with the bell; a store
    /// that cannot be reached keeps it no longer than `patience`, if the local database `is_known` then.
    pub(super) fn wait_for_decision(
        &self,
        patience: Duration,
        is_decided: impl Fn() -> bool,
        is_known: impl Fn() -> bool,
    ) {
        const LOOK: Duration = Duration::from_millis(100);
        let deadline = Instant::now() + patience;
        loop {
            let before = self.rings();
            let left = deadline.saturating_duration_since(Instant::now());
            let is_over = is_decided() || (left.is_zero() && is_known());
            {
                let mut moment = self.lock();
                let is_forwarding = moment.opening == Opening::WaitsForForward;
                if moment.opening == Opening::Over || (is_over && !is_forwarding) {
                    moment.opening = Opening::Over;
                    return;
                }
            }
            self.wait(before, if left.is_zero() { LOOK } else { left.min(LOOK) });
        }
    }

    /// Whether the database may be brought forward: the open still waits, and no other replica brings it forward. The open
    /// waits until [`Bell::end_forwarding`] then.
    pub(super) fn begin_forwarding(&self) -> Forwarding {
        let mut moment = self.lock();
        match moment.opening {
            Opening::Waits => {
                moment.opening = Opening::WaitsForForward;
                Forwarding::Begun
            }
            Opening::WaitsForForward => Forwarding::ByAnother,
            Opening::Over => Forwarding::TooLate,
        }
    }

    /// The database was brought forward, or that failed.
    pub(super) fn end_forwarding(&self) {
        self.change(|moment| {
            moment.forwards += 1;
            if moment.opening == Opening::WaitsForForward {
                moment.opening = Opening::Waits;
            }
        });
    }

    /// How often the database was brought forward.
    pub(super) fn forwards(&self) -> u64 {
        self.lock().forwards
    }
}

/// Answer to the question whether a database may be brought forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Forwarding {
    /// It may, from now on.
    Begun,
    /// Another replica brings it forward: then it is another database.
    ByAnother,
    /// Programs have it open.
    TooLate,
}
