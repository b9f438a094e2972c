//! What all connections to one replica share.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, Weak};
use std::time::Duration;

use tokio::task::AbortHandle;

use super::by_name::Look;
use super::disk::{Disk, DiskOptions};
use super::fetch::Fetcher;
use super::files::Files;
use super::follow::{self, Follow};
use super::hydration::{Hydration, HydrationStatus};
use super::past::Pasts;
use super::poller::{self, Poller};
use super::snapshot::Snapshot;
use super::source::Source;
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::ltx::Txid;
use crate::page::PageCount;
use crate::runtime;
use crate::store::Replica;

/// How long a reader waits for the poll that ends a rest.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// How a replica is read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Options {
    /// How often to look for new transactions.
    pub poll_interval: Duration,
    /// How often to look for them after nobody has read for a while.
    pub poll_idle_interval: Duration,
    /// How long an open waits for a replica that is still empty.
    pub open_timeout: Duration,
    /// The size of the page cache in bytes.
    pub cache_bytes: usize,
    /// The local file that the whole database is downloaded to, if it is.
    pub hydration: Option<PathBuf>,
    /// What is read is also kept here, if anywhere.
    pub disk: Option<DiskOptions>,
    /// Whether packs are read where there are some.
    pub pack: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            poll_interval: Duration::from_secs(1),
            poll_idle_interval: Duration::from_secs(30),
            open_timeout: Duration::from_secs(10),
            cache_bytes: 32 * 1024 * 1024,
            hydration: None,
            disk: None,
            pack: true,
        }
    }
}

/// How a replica is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaStatus {
    /// The replica's URL.
    pub url: String,
    /// The last transaction that is seen.
    pub txid: Txid,
    /// When it was committed.
    pub timestamp: Timestamp,
    /// The size of the database in pages.
    pub pages: PageCount,
    /// The size of a page in bytes.
    pub page_size: u32,
    /// The time as of which this state is the database's, as far as is known: of the latest state, when the
    /// replica last answered what is new.
    pub as_of: Timestamp,
    /// What went wrong since then; empty again as soon as a poll succeeds.
    pub last_error: Option<String>,
    /// When a connection last failed to read a page, and why; empty again as soon as one comes from the store.
    pub last_read_error: Option<(Timestamp, String)>,
    /// What was found in the replica that one should know.
    pub notice: Option<String>,
    /// The bytes that the page cache takes.
    pub cache_bytes: usize,
    /// Requests made since the replica was opened.
    pub requests: u64,
    /// How the download to a local file is doing, if there is one.
    pub hydration: Option<HydrationStatus>,
}

impl ReplicaStatus {
    /// The age of what is read: the time since it was the latest state, as far as is known.
    pub fn age(&self) -> Duration {
        let age = follow::now().as_millis() - self.as_of.as_millis();
        Duration::from_millis(age.try_into().unwrap_or(0))
    }
}

/// How polls went.
#[derive(Debug)]
pub(super) struct Polls {
    pub(super) last_success: Timestamp,
    pub(super) last_error: Option<String>,
    /// The replica shows less than was seen.
    pub(super) older: Option<String>,
    /// What was read is no longer there.
    pub(super) reset: Option<String>,
}

impl Polls {
    fn new(last_success: Timestamp) -> Self {
        Self { last_success, last_error: None, older: None, reset: None }
    }
}

/// One replica, open: its files, pages in memory, requests under way, and what follows the primary.
///
/// Readers never wait for the follower: it swaps in a new [`Snapshot`], and theirs stay valid.
#[derive(Debug)]
pub struct Core {
    pub(super) files: Arc<Files>,
    pub(super) polls: Mutex<Polls>,
    pub(super) follow: tokio::sync::Mutex<Follow>,
    pub(super) fetcher: Fetcher,
    current: RwLock<Arc<Snapshot>>,
    /// Those before it that some transaction may still read.
    older: Mutex<Vec<Weak<Snapshot>>>,
    pub(super) poller: Arc<Poller>,
    polling: OnceLock<AbortHandle>,
    hydration: Option<Hydration>,
    pub(super) pasts: Pasts,
    /// A reader found files gone and nothing in their place.
    pub(super) suspect: AtomicBool,
}

impl Core {
    /// Opens the replica in `store`, for nobody else to share. [`super::open`] shares.
    ///
    /// # Errors
    /// Those of the store; `NotFound` if the replica stays empty; `Corrupt`; those of the file system
    /// if the disk cache cannot be used.
    pub fn with_store(store: Arc<Replica>, options: &Options) -> Result<Arc<Self>> {
        let place = store.url();
        Self::at_place(store, &place, options)
    }

    /// The same for a replica whose URL does not say all that tells it from others; `place` does.
    pub(super) fn at_place(store: Arc<Replica>, place: &str, options: &Options) -> Result<Arc<Self>> {
        let disk = options.disk.as_ref().map(|disk| Disk::open(disk, place)).transpose()?;
        let files = Arc::new(Files::new(Source::new(store), options, disk));
        let opening = (files.clone(), options.clone());
        let (snapshot, follow) =
            runtime::block_on(async move { follow::open(&opening.0, &opening.1).await })?;
        let hydrate = |path: &PathBuf| Hydration::open(path, &files, &snapshot);
        let hydration = options.hydration.as_ref().map(hydrate).transpose()?;
        let poller = Arc::new(Poller::new(options));
        let core = Arc::new(Self {
            fetcher: Fetcher::new(files.clone()),
            files,
            polls: Mutex::new(Polls::new(follow::now())),
            follow: tokio::sync::Mutex::new(follow),
            current: RwLock::new(Arc::new(snapshot)),
            older: Mutex::default(),
            poller: poller.clone(),
            polling: OnceLock::new(),
            hydration,
            pasts: Pasts::default(),
            suspect: AtomicBool::new(false),
        });
        let polling = runtime::handle()?.spawn(poller::run(Arc::downgrade(&core), poller));
        core.polling.get_or_init(|| polling.abort_handle());
        if let Some(hydration) = &core.hydration {
            hydration.start(&core)?;
        }
        Ok(core)
    }

    /// The latest state, for somebody who reads it: no older than the usual poll interval, unless the
    /// replica does not answer.
    pub(super) fn latest(self: &Arc<Self>) -> Arc<Snapshot> {
        if self.poller.note_read() {
            self.end_rest();
        }
        self.snapshot()
    }

    /// Polls after a rest, and does not wait long for it.
    #[cold]
    fn end_rest(self: &Arc<Self>) {
        self.poller.wake();
        let core = self.clone();
        let poll = async move {
            // On its own, so that it goes on when nobody waits any more.
            let poll = tokio::spawn(async move { core.poll(Look::Thoroughly).await });
            let _ = tokio::time::timeout(LONGEST_WAIT, poll).await;
            Ok(())
        };
        // What went wrong is in the status; what is known stays readable.
        let _ = runtime::block_on(poll);
    }

    /// The latest state that is known.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Shows `next` to all transactions that begin from now on.
    pub(super) fn publish(&self, next: Snapshot) {
        let next = Arc::new(next);
        let known_until = self.polls().last_success;
        let before = {
            let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *current, next.clone())
        };
        if (before.txid, before.epoch) != (next.txid, next.epoch) {
            before.outdate(known_until);
        }
        let mut older = self.older.lock().unwrap_or_else(PoisonError::into_inner);
        older.retain(|snapshot| snapshot.strong_count() > 0);
        older.push(Arc::downgrade(&before));
        drop(older);
        drop(before);
        if let Some(local) = self.files.local() {
            local.advance(&next, &self.older(), &self.files.keep);
        }
    }

    /// Has connections read again what they keep of the latest state, when their next transactions begin: some of it
    /// turned out to be damaged.
    pub(super) async fn renew(&self) {
        let _follow = self.follow.lock().await;
        let next = self.snapshot().renewed();
        runtime::busy(true, || self.publish(next));
    }

    /// The states before the current one that transactions still read.
    pub(super) fn older(&self) -> Vec<Arc<Snapshot>> {
        let older = self.older.lock().unwrap_or_else(PoisonError::into_inner);
        older.iter().filter_map(Weak::upgrade).collect()
    }

    /// Looks for new transactions now, and waits for the answer.
    ///
    /// # Errors
    /// Those of the store; `Corrupt`. What was visible stays so.
    pub fn poll_now(self: &Arc<Self>) -> Result<()> {
        self.poll_unless(|| false)
    }

    /// As [`Core::poll_now`], until `interrupted` says that nobody wants the answer any more.
    ///
    /// # Errors
    /// Also `Interrupted`.
    pub fn poll_unless(self: &Arc<Self>, interrupted: impl Fn() -> bool) -> Result<()> {
        self.look_unless(Look::Thoroughly, interrupted)
    }

    /// As [`Core::poll_unless`], which looks as `look` says.
    pub(super) fn look_unless(self: &Arc<Self>, look: Look, interrupted: impl Fn() -> bool) -> Result<()> {
        let core = self.clone();
        runtime::wait_for(interrupted, async move {
            // On its own: a poll that others share is not given up with who asked for it.
            tokio::spawn(async move { core.poll(look).await }).await.unwrap_or_else(|e| {
                Err(Error::new(ErrorKind::Io, format!("background work ended early: {e}")))
            })
        })
    }

    /// Looks for new transactions now, and for where files went that are gone.
    pub(super) async fn poll_suspiciously(&self) -> Result<()> {
        self.suspect.store(true, Ordering::Relaxed);
        self.poll(Look::Thoroughly).await
    }

    /// The download to a local file, if there is one.
    pub(super) fn hydration(&self) -> Option<&Hydration> {
        self.hydration.as_ref()
    }

    /// How the replica is doing.
    pub fn status(&self) -> ReplicaStatus {
        self.status_at(&self.snapshot())
    }

    /// Remembers that a read failed, for the status.
    pub fn note_read_error(&self, error: &Error) {
        self.files.trouble.note(follow::now(), error);
    }

    pub(super) fn status_at(&self, snapshot: &Snapshot) -> ReplicaStatus {
        let polls = self.polls();
        ReplicaStatus {
            url: self.files.source.url(),
            txid: snapshot.txid,
            timestamp: snapshot.timestamp,
            pages: snapshot.commit,
            page_size: snapshot.page_size.get(),
            as_of: snapshot.outdated().unwrap_or(polls.last_success),
            last_error: polls.last_error.clone(),
            last_read_error: self.files.trouble.last(),
            notice: polls.older.as_ref().or(polls.reset.as_ref()).cloned(),
            cache_bytes: self.files.cache.bytes(),
            requests: self.files.source.requests(),
            hydration: self.hydration.as_ref().map(|hydration| hydration.status(&self.files)),
        }
    }

    pub(super) fn polls(&self) -> MutexGuard<'_, Polls> {
        self.polls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        if let Some(polling) = self.polling.get() {
            polling.abort();
        }
    }
}
