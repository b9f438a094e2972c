//! What all connections to one replica share.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use tokio::task::AbortHandle;

use super::fetch::Fetcher;
use super::files::Files;
use super::follow::{self, Follow};
use super::past::Pasts;
use super::read_ahead::ReadAhead;
use super::snapshot::Snapshot;
use super::source::Source;
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::ltx::Txid;
use crate::page::{PageCount, Pgno};
use crate::runtime;
use crate::store::Store;

/// How a replica is read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Options {
    /// How often to look for new transactions.
    pub poll_interval: Duration,
    /// How long an open waits for a replica that is still empty.
    pub open_timeout: Duration,
    /// The size of the page cache in bytes.
    pub cache_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            poll_interval: Duration::from_secs(1),
            open_timeout: Duration::from_secs(10),
            cache_bytes: 32 * 1024 * 1024,
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
    /// When the replica last answered what is new.
    pub last_poll: Timestamp,
    /// What went wrong since then; empty again as soon as a poll succeeds.
    pub last_error: Option<String>,
    /// When a connection last failed to read a page, and why.
    pub last_read_error: Option<(Timestamp, String)>,
    /// The bytes that the page cache takes.
    pub cache_bytes: usize,
    /// Requests made since the replica was opened.
    pub requests: u64,
}

/// How polls and reads went.
#[derive(Debug)]
pub(super) struct Polls {
    pub(super) last_success: Timestamp,
    pub(super) last_error: Option<String>,
    pub(super) last_read_error: Option<(Timestamp, String)>,
}

impl Polls {
    fn new(last_success: Timestamp) -> Self {
        Self { last_success, last_error: None, last_read_error: None }
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
    fetcher: Fetcher,
    current: RwLock<Arc<Snapshot>>,
    poller: OnceLock<AbortHandle>,
    pub(super) pasts: Pasts,
    /// A reader found files gone and nothing in their place.
    pub(super) suspect: AtomicBool,
}

impl Core {
    /// Opens the replica in `store`, for nobody else to share. [`super::open`] shares.
    ///
    /// # Errors
    /// Those of the store; `NotFound` if the replica stays empty; `Corrupt`.
    pub fn with_store(store: Arc<dyn Store>, options: &Options) -> Result<Arc<Self>> {
        let files = Arc::new(Files::new(Source::new(store), options.cache_bytes));
        let opening = (files.clone(), options.clone());
        let (snapshot, follow) =
            runtime::block_on(async move { follow::open(&opening.0, &opening.1).await })?;
        let core = Arc::new(Self {
            fetcher: Fetcher::new(files.clone()),
            files,
            polls: Mutex::new(Polls::new(follow::now())),
            follow: tokio::sync::Mutex::new(follow),
            current: RwLock::new(Arc::new(snapshot)),
            poller: OnceLock::new(),
            pasts: Pasts::default(),
            suspect: AtomicBool::new(false),
        });
        let poller = runtime::handle()?.spawn(follow::run(Arc::downgrade(&core), options.poll_interval));
        core.poller.get_or_init(|| poller.abort_handle());
        Ok(core)
    }

    /// The latest state that is known.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_snapshot(&self, snapshot: Snapshot) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(snapshot);
    }

    /// Reads page `pgno` of `snapshot`. `buf` has the size of a page.
    ///
    /// # Errors
    /// Those of the store; `Corrupt`; `NotFound` if the replica no longer holds that state.
    pub fn page(
        &self,
        snapshot: &Arc<Snapshot>,
        pgno: Pgno,
        ahead: &mut ReadAhead,
        buf: &mut [u8],
    ) -> Result<()> {
        let map = snapshot.map();
        match self.fetcher.page(&map, snapshot.page_size, pgno, ahead, buf) {
            Err(e) if e.kind() == ErrorKind::NotFound => {
                self.find_again(snapshot, &map)?;
                self.fetcher.page(&snapshot.map(), snapshot.page_size, pgno, ahead, buf)
            }
            done => done,
        }
    }

    /// Finds out where the pages of `snapshot` are now, unless somebody else has since `map` was read.
    fn find_again(&self, snapshot: &Arc<Snapshot>, map: &Arc<super::map::PageMap>) -> Result<()> {
        let _alone = snapshot.moving.lock().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&snapshot.map(), map) {
            return Ok(());
        }
        let (files, snapshot) = (self.files.clone(), snapshot.clone());
        let found = runtime::block_on(async move { files.relocate(&snapshot).await });
        if found.is_err() {
            self.suspect.store(true, Ordering::Relaxed);
        }
        found
    }

    /// Looks for new transactions now, and waits for the answer.
    ///
    /// # Errors
    /// Those of the store; `Corrupt`. What was visible stays so.
    pub fn poll_now(self: &Arc<Self>) -> Result<()> {
        let core = self.clone();
        runtime::block_on(async move { core.poll().await })
    }

    /// How the replica is doing.
    pub fn status(&self) -> ReplicaStatus {
        self.status_at(&self.snapshot())
    }

    /// Remembers that a read failed, for the status.
    pub fn note_read_error(&self, error: &Error) {
        tracing::error!(replica = self.files.source.url(), error = %error, "cannot read a page");
        self.polls().last_read_error = Some((follow::now(), error.to_string()));
    }

    pub(super) fn status_at(&self, snapshot: &Snapshot) -> ReplicaStatus {
        let polls = self.polls();
        ReplicaStatus {
            url: self.files.source.url(),
            txid: snapshot.txid,
            timestamp: snapshot.timestamp,
            pages: snapshot.commit,
            page_size: snapshot.page_size.get(),
            last_poll: polls.last_success,
            last_error: polls.last_error.clone(),
            last_read_error: polls.last_read_error.clone(),
            cache_bytes: self.files.cache.bytes(),
            requests: self.files.source.requests(),
        }
    }

    pub(super) fn polls(&self) -> MutexGuard<'_, Polls> {
        self.polls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        if let Some(poller) = self.poller.get() {
            poller.abort();
        }
    }
}
