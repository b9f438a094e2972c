//! What all connections to one replica share.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, Weak};

use tokio::task::AbortHandle;

use super::fetch::Fetcher;
use super::files::Files;
use super::followed::Follow;
use super::hydration::Hydration;
use super::pasts::Pasts;
use super::poller::Poller;
use super::snapshot::Snapshot;
use super::status::{Polls, ReplicaStatus, now};
use crate::error::Error;
use crate::runtime;

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
    /// A core that shows `snapshot`; nothing polls yet.
    pub(super) fn new(
        files: Arc<Files>,
        snapshot: Snapshot,
        follow: Follow,
        poller: Arc<Poller>,
        hydration: Option<Hydration>,
    ) -> Self {
        let polls = match &follow.outcome {
            Ok(()) => Polls::new(now()),
            Err(e) => Polls::without_latest(snapshot.timestamp, e),
        };
        Self {
            fetcher: Fetcher::new(files.clone()),
            files,
            polls: Mutex::new(polls),
            follow: tokio::sync::Mutex::new(follow),
            current: RwLock::new(Arc::new(snapshot)),
            older: Mutex::default(),
            poller,
            polling: OnceLock::new(),
            hydration,
            pasts: Pasts::default(),
            suspect: AtomicBool::new(false),
        }
    }

    /// The task that polls is to end with the core.
    pub(super) fn ends_with(&self, polling: AbortHandle) {
        self.polling.get_or_init(|| polling);
    }

    /// The latest state that is known; an earlier one as long as [`Core::lacks_latest`].
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
        self.files.trouble.note(now(), error);
    }

    pub(super) fn status_at(&self, snapshot: &Snapshot) -> ReplicaStatus {
        let (polls, map) = (self.polls(), snapshot.map());
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
            files: map.files().count(),
            sealed_files: map.files().filter(|file| file.codec.is_sealed()).count(),
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
