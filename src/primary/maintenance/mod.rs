//! What becomes of published files: they are merged into levels, the whole database is written as a
//! snapshot now and then, and what need not be kept is deleted.
//!
//! | file | what it is |
//! | --- | --- |
//! | `settings` | how much is kept; the windows of time that levels are cut by |
//! | `named` | which of them were named, and what holds for the others |
//! | `inventory` | the files of the replica, as its only writer knows them |
//! | `due` | what is to be done, and when: a function of the inventory and the time |
//! | `calendar` | the last restore points of hours, days, weeks and months |
//! | `ways` | the files that lead to restore points and cost least |
//! | `retained` | what the calendar keeps of what would be deleted without it |
//! | `plan` | what would be kept and deleted, and why |
//! | `merge` | several files become one, as a stream |
//! | `recent` | files that are still in memory |
//! | `whole` | a full copy of the database becomes a snapshot |
//! | `packs` | what readers find beside large files |
//! | `compactor` | what the background task of a shipper does |
//! | `schedule_cache` | when there will be something to do, for the next process |
//!
//! All of it works on the files of the replica and never on the database, but for snapshots of sealed replicas: writers
//! and checkpoints do not notice it, and a file that is broken or missing is found before anything that stands in for it is deleted.
//! Where the files do not lead to the newest state, the publisher is told, and heals it from the database.
//! Every step is one file written under its final name, or files deleted that nothing needs: wherever
//! it is interrupted, the replica restores, and what is left to do is seen from the files that are
//! there.
//!
//! Source: `compactor.go`, `store.go` and `db.go` of `github.com/benbjohnson/litestream` 0.5. Two
//! things are done otherwise. The full copy that a replica begins with counts as its first snapshot.
//! And of the snapshots that are older than the retention, which Litestream deletes, the newest stays,
//! so that every state within the retention can be restored.

mod calendar;
mod compactor;
mod due;
mod figures;
mod inventory;
mod merge;
mod named;
mod packs;
mod plan;
mod recent;
mod retained;
mod schedule_cache;
mod settings;
#[cfg(test)]
mod tests;
mod ways;
mod whole;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::ltx::{FileId, Txid};
use crate::replica::Packed;
use crate::runtime;
use crate::store::FileInfo;

pub use calendar::Calendar;
pub(in crate::primary) use compactor::Compactor;
pub use figures::KeptLevel;
pub(in crate::primary) use named::text;
pub use named::{HistoryOptions, NamedSettings};
pub use plan::{Fate, Planned, retention_plan};
pub use settings::{Settings, SnapshotAt};
pub(super) use whole::snapshot_of_copy;

/// How long work that was told to stop is waited for.
const GRACE: Duration = Duration::from_secs(1);
/// How often a waiting thread looks whether it was interrupted.
const LOOK: Duration = Duration::from_millis(100);

/// What the publisher tells the compactor of a database's history, and what that tells everybody.
#[derive(Debug, Default)]
pub(super) struct History {
    inner: Mutex<Inner>,
    /// The compactor rests.
    resting: Condvar,
    /// There is news for the compactor.
    news: Notify,
    /// Work that is under way is to be given up.
    stop: Notify,
    pub(super) figures: figures::Figures,
}

#[derive(Debug, Default)]
struct Inner {
    /// This process publishes since; taken by the compactor.
    begin: Option<Begin>,
    begun: bool,
    /// The history is no longer ours to keep.
    ended: bool,
    news: News,
    recent: recent::Recent,
    /// The compactor has nothing to do now.
    rests: bool,
    /// When it will have; `None` if that is not known.
    next: Option<schedule_cache::Next>,
    /// No connection has the database open, so that another process may keep the history.
    is_paused: bool,
    /// The compactor sleeps without a timer because of that.
    waits_for_end_of_pause: bool,
    /// The next process finds in the folder of local state when there will be something to do.
    is_remembered: bool,
    /// What went wrong last.
    error: Option<Error>,
    /// The store refused to delete, which nobody was told of yet. It is no failure: all else goes on.
    refusal: Option<Error>,
    /// Somebody else writes to the replica.
    conflict: Option<Error>,
    /// The last transaction that was published.
    last: Option<Txid>,
    /// Files that are damaged: they count as missing, but for their names, which are taken.
    damaged: BTreeSet<FileId>,
    /// The files may not lead to the newest state.
    is_doubtful: bool,
    /// A snapshot is to be made from the database.
    wants_snapshot: bool,
}

/// From where a process publishes.
#[derive(Clone, Copy, Debug)]
struct Begin {
    /// There was nothing in the replica before.
    is_empty: bool,
    node_id: u64,
}

/// What the compactor has not seen yet.
#[derive(Debug, Default)]
struct News {
    /// Files that were published.
    published: Vec<Published>,
    /// There are files that nobody told of.
    unknown: bool,
    /// Packs that are to be written.
    packs: Vec<Packed>,
    /// Who waits for a snapshot.
    requests: Vec<Sender<Result<Txid>>>,
    /// Who wants to know the files.
    questions: Vec<oneshot::Sender<Vec<FileInfo>>>,
}

/// A file that was published.
#[derive(Debug)]
struct Published {
    file: FileInfo,
    /// The time of its last commit.
    committed: Timestamp,
}

/// The last transaction that `files` lead to, in any order.
pub(super) fn leads_to(files: &[FileInfo]) -> Option<Txid> {
    inventory::Inventory::of(files).leads_to()
}

impl News {
    fn is_empty(&self) -> bool {
        self.published.is_empty()
            && !self.unknown
            && self.packs.is_empty()
            && self.requests.is_empty()
            && self.questions.is_empty()
    }
}

impl History {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This process publishes from now on, as `node_id`, to a replica that ended with `last`.
    pub(super) fn begin(&self, last: Option<Txid>, node_id: u64) {
        let mut inner = self.lock();
        inner.begin = Some(Begin { is_empty: last.is_none(), node_id });
        inner.last = inner.last.max(last);
        (inner.begun, inner.ended, inner.rests, inner.is_remembered) = (true, false, false, false);
        (inner.recent, inner.error, inner.conflict) = (recent::Recent::default(), None, None);
        self.news.notify_one();
    }

    /// The history is not ours to keep until [`History::begin`]: somebody else writes to the replica.
    pub(super) fn end(&self) {
        self.end_in(self.lock());
    }

    fn end_in(&self, mut inner: MutexGuard<'_, Inner>) {
        (inner.begun, inner.ended, inner.news) = (false, true, News::default());
        self.resting.notify_all();
        self.stop.notify_waiters();
        self.news.notify_one();
    }

    /// The compactor ended because of a bug: who waits for it, and who will, gets `error`.
    pub(super) fn failed(&self, error: Error) {
        let mut inner = self.lock();
        inner.error = Some(error.clone());
        let waiting = std::mem::take(&mut inner.news.requests);
        self.end_in(inner);
        for request in waiting {
            let _ = request.send(Err(error.clone()));
        }
    }

    /// A `file` of level 0 was written, whose last commit was made at `committed`; `bytes` are its content if that is in memory.
    pub(super) fn published(&self, file: FileInfo, committed: Timestamp, bytes: Option<Bytes>) {
        let mut inner = self.lock();
        if let Some(bytes) = bytes {
            inner.recent.add(file.id, bytes);
        }
        inner.last = inner.last.max(Some(file.id.name.max()));
        inner.news.published.push(Published { file, committed });
        self.news.notify_one();
    }

    /// Asks which files the replica has, as far as they are known without a request to the store: an answer comes when the
    /// compactor has time for it, or never.
    pub(super) fn ask_for_files(&self) -> oneshot::Receiver<Vec<FileInfo>> {
        let (sender, answer) = oneshot::channel();
        let mut inner = self.lock();
        if inner.begun && !inner.ended {
            inner.news.questions.push(sender);
            self.news.notify_one();
        }
        answer
    }

    /// The publisher wrote a snapshot.
    pub(super) fn found_snapshot(&self, snapshot: FileInfo) {
        let committed = snapshot.timestamp;
        let mut inner = self.lock();
        inner.wants_snapshot = false;
        inner.news.published.push(Published { file: snapshot, committed });
        drop(inner);
        self.news.notify_one();
    }

    /// Whether a snapshot is to be made from the database.
    pub(super) fn wants_snapshot(&self) -> bool {
        self.lock().wants_snapshot
    }

    /// The publisher has a view of which a snapshot can be made.
    pub(super) fn has_view(&self) {
        let mut inner = self.lock();
        (inner.rests, inner.wants_snapshot) = (false, false);
        drop(inner);
        self.news.notify_one();
    }

    /// Ends when work that is under way is to be given up.
    pub(super) async fn told_to_stop(&self) {
        self.stop.notified().await;
    }

    /// The publisher made a pack of a file that is in the replica.
    pub(super) fn found_pack(&self, pack: Packed) {
        self.lock().news.packs.push(pack);
        self.news.notify_one();
    }

    /// These files are damaged.
    pub(super) fn note_damaged(&self, ids: impl IntoIterator<Item = FileId>) {
        self.lock().damaged.extend(ids);
    }

    /// The files that are known to be damaged.
    pub(super) fn damaged(&self) -> BTreeSet<FileId> {
        self.lock().damaged.clone()
    }

    /// Damaged files may have been put right; whether there were any.
    pub(super) fn forget_damaged(&self) -> bool {
        !std::mem::take(&mut self.lock().damaged).is_empty()
    }

    /// Whether the files may not lead to the newest state, once.
    pub(super) fn take_doubt(&self) -> bool {
        std::mem::take(&mut self.lock().is_doubtful)
    }

    /// There is a file in the replica that an earlier process wrote.
    pub(super) fn found_unknown(&self) {
        self.lock().news.unknown = true;
        self.news.notify_one();
    }

    /// The error of somebody else's writing, once.
    pub(super) fn take_conflict(&self) -> Option<Error> {
        self.lock().conflict.take()
    }

    /// What went wrong last, if it was not made good since.
    pub(super) fn error(&self) -> Option<Error> {
        self.lock().error.clone()
    }

    /// Why the store does not delete, once.
    pub(super) fn take_refusal(&self) -> Option<Error> {
        self.lock().refusal.take()
    }

    /// Asks for a snapshot of all that was published; returns its transaction.
    ///
    /// # Errors
    /// Those of the merge; `Interrupted`.
    pub(super) fn snapshot(&self, interrupted: &dyn Fn() -> bool) -> Result<Txid> {
        let (sender, answer): (_, Receiver<Result<Txid>>) = channel();
        {
            let mut inner = self.lock();
            if !inner.ended {
                inner.news.requests.push(sender);
            } else if let Some(error) = &inner.error {
                return Err(error.clone());
            }
        }
        self.news.notify_one();
        loop {
            match answer.recv_timeout(LOOK) {
                Ok(answer) => return answer,
                Err(RecvTimeoutError::Timeout) if !interrupted() => {}
                Err(_) => {
                    return Err(Error::new(ErrorKind::Interrupted, "the snapshot was not waited for"));
                }
            }
        }
    }

    /// Waits until there is nothing to do now, at most `timeout`; what is under way shortly before is given up.
    pub(super) fn settle(&self, timeout: Duration) {
        let grace = GRACE.min(timeout / 2);
        if !self.wait_for_rest(timeout - grace) {
            self.stop.notify_waiters();
            self.wait_for_rest(grace);
        }
    }

    fn wait_for_rest(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let mut inner = self.lock();
        while inner.begun && !(inner.rests && inner.news.is_empty()) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            inner = runtime::wait_for_news(&self.resting, &self.inner, inner, left);
        }
        true
    }

    /// Tells the next process, in the folder of local state, when there will be something to do with
    /// the replica at `url`.
    pub(super) fn remember(&self, folder: &Path, url: &str) {
        let mut inner = self.lock();
        let known = inner.rests && inner.news.is_empty() && inner.error.is_none();
        if inner.begun && !inner.is_remembered {
            schedule_cache::write(folder, url, inner.next.filter(|_| known));
            inner.is_remembered = known;
        }
    }

    /// Pauses until [`History::goes_on`], unless work is under way; whether it does.
    pub(super) fn pauses(&self) -> bool {
        let mut inner = self.lock();
        inner.is_paused = !inner.begun || (inner.rests && inner.news.is_empty());
        inner.is_paused
    }

    /// The database is open again, and the history is this process's to keep as before.
    pub(super) fn goes_on(&self) {
        let mut inner = self.lock();
        inner.is_paused = false;
        if std::mem::take(&mut inner.waits_for_end_of_pause) {
            // A close that comes before it has looked again waits for that.
            inner.rests = false;
            self.news.notify_one();
        }
    }
}
