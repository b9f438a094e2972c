//! The thread of a copy: looks for what is new, fetches it, and puts it on the copy.

use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::time::timeout;

use super::batch::Batch;
use super::copy::Copy;
use super::state::{Position, State, tell};
use super::transaction::Transaction;
use super::{Options, is_set};
use crate::clock::{Clock as _, SystemClock, Timestamp};
use crate::error::{Error, ErrorKind, Result};
use crate::events::{self, Subject};
use crate::files::RecordLock;
use crate::ltx::Txid;
use crate::page::{PageCount, PageSize};
use crate::replica::{Known, News, Plan, Source, Tail};
use crate::restore::refuse_overlap;
use crate::runtime;
use crate::store::{FileInfo, ReplicaIdentity};

/// How soon waiting work notices that it is to end.
const GLANCE: Duration = Duration::from_millis(50);
/// Readers are waited for this long; then it is looked once more what is new, and told that they are in the way.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest time from one failure to the next try, unless the interval is longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Files that were listed may be merged away before they come, this many times in a row.
const ATTEMPTS: usize = 3;
/// Files taken by their names in one step. Where there are more, a listing finds all of them at once.
const BY_NAME: usize = 2;
/// The most bytes of files that make one transaction, unless one file has more: a process that is killed again and again gets
/// on by as much each time.
const BATCH: u64 = 8 * 1024 * 1024;

/// What a copy is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It follows.
    Following,
    /// The last attempt failed; it is tried again.
    Retrying,
    /// It ended, until a user decides.
    Stopped,
}

impl Phase {
    /// One word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Following => "following",
            Self::Retrying => "retrying",
            Self::Stopped => "stopped",
        }
    }
}

/// How a copy is doing.
#[derive(Clone, Debug)]
pub struct Standing {
    /// The file.
    pub path: PathBuf,
    /// The replica's URL, without secrets.
    pub url: String,
    /// What it is doing.
    pub phase: Phase,
    /// The last transaction that it has.
    pub txid: Txid,
    /// When that was committed.
    pub time: Timestamp,
    /// The last time as of which this is the latest state, as far as is known.
    pub as_of: Timestamp,
    /// The size in pages.
    pub pages: PageCount,
    /// The size of a page in bytes.
    pub page_size: u32,
    /// Requests to the store so far.
    pub requests: u64,
    /// The file was made by the call that began to follow.
    pub is_new: bool,
    /// What one should know.
    pub notice: Option<String>,
    /// Why it does not follow now.
    pub error: Option<Error>,
}

impl Standing {
    /// By how much the copy may be behind.
    pub fn lag(&self) -> Duration {
        let lag = SystemClock.now().as_millis() - self.as_of.as_millis();
        Duration::from_millis(lag.try_into().unwrap_or(0))
    }
}

/// A copy of this process that follows.
#[derive(Debug)]
pub(super) struct Follower {
    replica: ReplicaIdentity,
    options: Options,
    standing: Mutex<Standing>,
    ends: AtomicBool,
    /// Rung when it is to end.
    bell: Condvar,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Follower {
    pub(super) fn standing(&self) -> Standing {
        self.locked().clone()
    }

    /// Whether it is a copy of `replica`.
    ///
    /// # Errors
    /// `Busy` if it is not.
    pub(super) fn is_of(&self, replica: &ReplicaIdentity) -> Result<()> {
        let Some((name, before, now)) = self.replica.difference(replica) else { return Ok(()) };
        let path = self.locked().path.display().to_string();
        let message = format!(
            "{path} follows another replica: its {name} is {before}, not {now}; litestream_unfollow it first"
        );
        Err(Error::new(ErrorKind::Busy, message))
    }

    /// Whether it follows with these `options`.
    pub(super) fn has_options(&self, options: &Options) -> bool {
        self.options == *options
    }

    /// It was told to end for another one in its place, which could not begin because of `e`.
    pub(super) fn note_successor_failed(&self, e: &Error) {
        let mut standing = self.locked();
        // What it stopped for by itself is still so.
        if standing.phase != Phase::Stopped {
            let message = format!("{e}. The copy stays at TXID {} and follows no more", standing.txid);
            (standing.phase, standing.error) = (Phase::Stopped, Some(Error::new(e.kind(), message)));
        }
    }

    /// Whether it ended although no user wanted that.
    pub(super) fn has_stopped(&self) -> bool {
        self.locked().phase == Phase::Stopped
    }

    /// Has it end as soon as what is under way is done.
    pub(super) fn tell_to_end(&self) {
        let _standing = self.locked();
        self.ends.store(true, Ordering::Relaxed);
        self.bell.notify_all();
    }

    /// Whether its thread has ended, or is another process's.
    pub(super) fn has_ended(&self) -> bool {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Has it end, and waits for that.
    pub(super) fn end(&self) {
        self.tell_to_end();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A panic was logged.
            let _ = thread.join();
        }
    }

    fn locked(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for `pause`, or until it is to end.
    fn rest(&self, pause: Duration) {
        let standing = self.locked();
        if !is_set(&self.ends) {
            drop(runtime::wait_for_news(&self.bell, &self.standing, standing, pause));
        }
    }
}

/// What the thread of a copy owns.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) options: Options,
    /// The replica's URL, without secrets.
    pub(super) url: String,
    pub(super) source: Arc<Source>,
    pub(super) tail: Tail,
    pub(super) copy: Copy,
    pub(super) state: State,
    /// Where the state is, and what is under way.
    pub(super) folder: PathBuf,
    /// Whether the file was made just now.
    pub(super) is_new: bool,
    /// Nobody else has the copy follow.
    pub(super) _lock: RecordLock,
}

impl Worker {
    /// Tells the transaction in the file that other programs read. Nothing depends on it.
    pub(super) fn tell_txid(&self) {
        let path = &self.options.path;
        if let Err(e) = tell(self.state.at().txid(), path, &self.folder) {
            tracing::debug!("{}: cannot write its -txid: {e}", path.display());
        }
    }
}

/// Starts the thread of a copy.
///
/// # Errors
/// `Io` if there is no thread to be had.
pub(super) fn start(worker: Worker) -> Result<Arc<Follower>> {
    let at = worker.state.at();
    let (pages, page_size) = at.size();
    let standing = Standing {
        path: worker.options.path.clone(),
        url: worker.url.clone(),
        phase: Phase::Following,
        txid: at.txid(),
        time: at.time(),
        as_of: if worker.is_new { SystemClock.now() } else { at.time() },
        pages,
        page_size,
        requests: 0,
        is_new: worker.is_new,
        notice: None,
        error: None,
    };
    let follower = Arc::new(Follower {
        replica: worker.state.replica.clone(),
        options: worker.options.clone(),
        standing: Mutex::new(standing),
        ends: AtomicBool::new(false),
        bell: Condvar::new(),
        thread: Mutex::default(),
    });
    let runtime = runtime::handle()?;
    let shared = Arc::clone(&follower);
    let thread = runtime::thread("follow", move || Run { worker, shared, runtime, failures: 0 }.run());
    *follower.thread.lock().unwrap_or_else(PoisonError::into_inner) =
        Some(thread.map_err(runtime::no_thread)?);
    Ok(follower)
}

/// The life of the thread.
struct Run {
    worker: Worker,
    shared: Arc<Follower>,
    runtime: Handle,
    /// How often it has failed in a row.
    failures: u32,
}

impl Run {
    fn run(mut self) {
        while !is_set(&self.shared.ends) {
            let round = AssertUnwindSafe(|| self.round());
            let outcome = panic::catch_unwind(round).unwrap_or_else(|panic| Err(runtime::bug(&*panic)));
            self.shared.locked().requests = self.worker.source.requests();
            let pause = match outcome {
                Ok(looked) => {
                    self.note_success();
                    // What came while the last was applied waits for no interval more.
                    self.worker.options.interval.saturating_sub(looked.elapsed())
                }
                Err(_) if is_set(&self.shared.ends) => continue,
                Err(e) if is_final(&e) => return self.note_end(e),
                Err(e) => self.note_failure(e),
            };
            self.shared.rest(pause);
        }
        events::closed(&self.worker.options.path);
    }

    /// Looks for what is new until there is nothing, or all that a listing had is applied. Returns when the last look began.
    fn round(&mut self) -> Result<Instant> {
        let mut vanished = 0;
        loop {
            let (as_of, begun) = (SystemClock.now(), Instant::now());
            let applied = self.step();
            match applied {
                Ok(Step::Latest) => {
                    let mut standing = self.shared.locked();
                    (standing.as_of, standing.notice) = (as_of, None);
                    return Ok(begun);
                }
                Ok(Step::Older(notice)) => {
                    let mut standing = self.shared.locked();
                    if standing.notice.as_ref() != Some(&notice) {
                        tracing::warn!("{}: {notice}", standing.path.display());
                        standing.notice = Some(notice);
                    }
                    return Ok(begun);
                }
                Ok(Step::More) => {}
                // It was merged with others since it was listed.
                Err(e) if e.kind() == ErrorKind::NotFound && vanished < ATTEMPTS => {
                    vanished += 1;
                    self.worker.tail.doubt();
                }
                Err(e) => {
                    self.worker.tail.doubt();
                    return Err(e);
                }
            }
        }
    }

    /// Looks, and applies what that finds. Files that come by their names are gathered until there is no other: each
    /// transaction waits for readers.
    fn step(&mut self) -> Result<Step> {
        // What a transaction left that was broken off may take the space that a download needs.
        self.worker.copy.undo()?;
        let mut batch = Batch::default();
        let mut known = self.worker.state.at().known();
        loop {
            let Self { worker, shared, runtime, .. } = self;
            match wait(runtime, shared, worker.tail.look(&known))? {
                News::Next(file, bytes) => {
                    batch.add(file.clone(), &bytes, &worker.folder)?;
                    if batch.len() == BY_NAME {
                        worker.tail.doubt();
                    }
                    if batch.bytes() >= BATCH {
                        return self.apply(&batch).map(|()| Step::More);
                    }
                    known = Known { txid: file.id.name.max(), anchor: Some(file), ..known };
                }
                News::More(plan) => {
                    refuse_overlap(&plan)?;
                    return self.apply_all(batch, plan.files()).map(|()| Step::Latest);
                }
                News::Nothing { .. } if !batch.is_empty() => {
                    return self.apply(&batch).map(|()| Step::Latest);
                }
                // What else there is, is looked at from there.
                _ if !batch.is_empty() => return self.apply(&batch).map(|()| Step::More),
                News::Nothing { anchor } => return self.nothing_new(anchor.as_ref()),
                News::Older { end } => return Ok(older(end, known.txid)),
                News::Anew(plan) => return self.copy_all(&plan),
            }
        }
    }

    /// The copy has all that the replica has; `anchor` leads to its state as the known file does, and stays longer.
    fn nothing_new(&mut self, anchor: Option<&FileInfo>) -> Result<Step> {
        let worker = &mut self.worker;
        if let Some(anchor) = anchor {
            worker.state.anchor_to(anchor, &worker.folder)?;
        }
        let stamp = worker.copy.hold()?.stamp()?;
        worker.state.locate(stamp, &worker.options.path)?;
        Ok(Step::Latest)
    }

    fn copy_all(&mut self, plan: &Plan) -> Result<Step> {
        refuse_overlap(plan)?;
        tracing::info!(
            "{}: what follows TXID {} is not in the replica any more; all of TXID {} is copied",
            self.worker.options.path.display(),
            self.worker.state.at().txid(),
            plan.txid()
        );
        // All at once: what the snapshot holds may be older than the copy.
        let mut batch = Batch::default();
        self.download(&mut batch, plan.files())?;
        self.apply(&batch)?;
        Ok(Step::Latest)
    }

    /// Downloads `files`, and applies what is in `batch` and then them, as many in one transaction as fit.
    fn apply_all(&mut self, mut batch: Batch, mut files: &[FileInfo]) -> Result<()> {
        while !(batch.is_empty() && files.is_empty()) {
            let (now, later) = files.split_at(fitting(&batch, files));
            self.download(&mut batch, now)?;
            self.apply(&batch)?;
            // Its files are gone before others get their names.
            drop(std::mem::take(&mut batch));
            files = later;
        }
        Ok(())
    }

    fn download(&mut self, batch: &mut Batch, files: &[FileInfo]) -> Result<()> {
        let Self { worker, shared, runtime, .. } = self;
        wait(runtime, shared, batch.download(&worker.source, files, &worker.folder))
    }

    /// Puts verified files on the copy, in one transaction.
    fn apply(&mut self, batch: &Batch) -> Result<()> {
        let worker = &mut self.worker;
        let keyring = worker.source.keyring();
        let known = worker.state.at().known();
        let content = batch.verify(keyring, &known)?;
        let mut held = worker.copy.hold()?;
        worker.state.locate(held.stamp()?, &worker.options.path)?;
        let page_size = held.page_size()?;
        refuse_page_size(content.header.page_size, page_size)?;
        let draft = worker.folder.join("journal");
        let transaction = Transaction::prepare(&mut held, page_size, batch, &content, &draft)?;
        let next = Position::after(batch.last(), &content.header, content.lineage, transaction.stamp());
        worker.state.announce(next, &worker.folder)?;
        held.exclude(PATIENCE, &|| is_set(&self.shared.ends))?;
        transaction.commit(&mut held, keyring)?;
        let stamp = held.stamp()?;
        drop(held);
        worker.state.locate(stamp, &worker.options.path)?;
        worker.tail.note(&content.header);
        self.note_applied();
        Ok(())
    }

    fn note_applied(&self) {
        let at = self.worker.state.at();
        let mut standing = self.shared.locked();
        (standing.txid, standing.time) = (at.txid(), at.time());
        (standing.pages, standing.page_size) = at.size();
        drop(standing);
        self.worker.tell_txid();
    }

    fn note_success(&mut self) {
        self.failures = 0;
        let mut standing = self.shared.locked();
        (standing.phase, standing.error) = (Phase::Following, None);
        drop(standing);
        events::ends(&events::FOLLOW_FAILED, self.subject());
    }

    /// Notes why it is tried again, and says when.
    fn note_failure(&mut self, e: Error) -> Duration {
        events::begins(&events::FOLLOW_FAILED, self.subject(), &e.to_string());
        let is_busy = e.kind() == ErrorKind::Busy;
        let mut standing = self.shared.locked();
        (standing.phase, standing.error) = (Phase::Retrying, Some(e));
        let interval = self.worker.options.interval;
        // Readers were waited for already.
        if is_busy {
            return interval;
        }
        let pause = interval.saturating_mul(2_u32.saturating_pow(self.failures));
        self.failures = self.failures.saturating_add(1);
        pause.min(LONGEST_PAUSE.max(interval))
    }

    fn note_end(&self, e: Error) {
        let txid = self.worker.state.at().txid();
        let message = format!("{e}. The copy stays at TXID {txid} and follows no more");
        events::ends(&events::FOLLOW_FAILED, self.subject());
        events::happened(&events::FOLLOW_STOPPED, self.subject(), &message);
        let mut standing = self.shared.locked();
        (standing.phase, standing.error) = (Phase::Stopped, Some(Error::new(e.kind(), message)));
    }

    fn subject(&self) -> Subject<'_> {
        Subject { db: &self.worker.options.path, replica: &self.worker.url }
    }
}

/// What a look came to.
enum Step {
    /// The copy has all that was found.
    Latest,
    /// It has what was gathered, and there may be more.
    More,
    /// The replica shows less than the copy has.
    Older(String),
}

/// Whether nobody but a user can help.
fn is_final(e: &Error) -> bool {
    matches!(e.kind(), ErrorKind::Conflict | ErrorKind::Unsupported)
}

/// Refuses pages of another size than those of the copy: no database in WAL mode changes it.
fn refuse_page_size(new: PageSize, of_copy: PageSize) -> Result<()> {
    if new == of_copy {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Conflict,
        format!(
            "the replica has pages of {new} bytes now, and the copy pages of {of_copy}: it holds another database, or one that \
             was vacuumed to another page size; move the copy away and call litestream_follow again, which copies the \
             replica anew"
        ),
    ))
}

/// How many of `files`, from the first on, go into one transaction with `batch`: one at least, if that is empty.
fn fitting(batch: &Batch, files: &[FileInfo]) -> usize {
    let mut bytes = batch.bytes();
    let fit = files.iter().take_while(|file| {
        bytes += file.size;
        bytes <= BATCH
    });
    fit.count().max(usize::from(batch.is_empty()))
}

/// The replica ends at TXID `end`, and the copy is later.
fn older(end: Txid, copy: Txid) -> Step {
    Step::Older(format!(
        "the replica lists nothing after TXID {end}, and the copy is TXID {copy}: a cache or a mirror lags, or files \
         were removed; the copy stays as it is"
    ))
}

/// Waits for `work`, unless the copy is to end.
fn wait<T>(runtime: &Handle, follower: &Follower, work: impl Future<Output = Result<T>>) -> Result<T> {
    let mut work = pin!(work);
    loop {
        if is_set(&follower.ends) {
            return Err(Error::new(ErrorKind::Interrupted, "interrupted"));
        }
        if let Ok(done) = runtime::wait_on(runtime, async { timeout(GLANCE, &mut work).await }) {
            return done;
        }
    }
}
