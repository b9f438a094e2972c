//! Trying again what failed for now.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::download::{Download, What};
use super::hedge::{Asked, Hedge};
use super::{
    ByteRange, Content, Fencing, FileInfo, Listing, Place, PutOptions, RawInfo, Store, StoreTime, Upload,
    in_order, raw_in_order,
};
use crate::error::{Error, ErrorKind, Result};
use crate::ltx::{FileId, Level, Txid};

/// How often and how long to try again what failed for now ([`Error::is_transient`]). What a wrong answer or a
/// refusal came of is tried once more.
///
/// The pause before the n-th repetition is random between nothing and `base_delay` times 2 to the n,
/// so that many clients of one store that fell over do not return in step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts in all, 1 or more.
    pub max_attempts: u32,
    /// The longest first pause.
    pub base_delay: Duration,
    /// The longest pause.
    pub max_delay: Duration,
    /// No attempt begins later than this after the first one.
    pub max_elapsed: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            max_attempts: 8,
            base_delay: Duration::from_millis(100),
            max_delay: Duration::from_secs(5),
            max_elapsed: Duration::from_secs(30),
        }
    }
}

/// A store that tries again what failed for now, asks a second time where a read is silent ([`Hedge`]), and
/// goes on with an interrupted download from where it stopped.
///
/// A repeated `put` or `complete` with `if_absent` may find what its own earlier attempt stored, whose
/// answer was lost. It says `AlreadyExists` then: only the caller can tell whose file that is.
#[derive(Clone, Debug)]
pub struct Retry {
    inner: Arc<dyn Store>,
    /// The same over connections that were never used: those that are open may all be dead.
    fresh: Arc<dyn Store>,
    policy: Arc<RetryPolicy>,
    hedge: Arc<Hedge>,
    /// As [`Store::heard`].
    heard: Arc<AtomicU64>,
    /// As [`Store::last_failure`].
    last_failure: Arc<Mutex<Option<Error>>>,
}

/// What an answer or a failure adds to what was heard.
const AN_ANSWER: u64 = 1 << 20;

impl Retry {
    /// `inner`, with patience.
    pub fn new(inner: Arc<dyn Store>, policy: RetryPolicy) -> Self {
        let fresh = inner.by_new_connections().unwrap_or_else(|| Arc::clone(&inner));
        let (hedge, heard, last_failure) = Default::default();
        Self { inner, fresh, policy: Arc::new(policy), hedge, heard, last_failure }
    }

    pub(super) fn policy(&self) -> &RetryPolicy {
        &self.policy
    }

    pub(super) fn hedge(&self) -> &Hedge {
        &self.hedge
    }

    pub(super) fn fresh(&self) -> Arc<dyn Store> {
        Arc::clone(&self.fresh)
    }

    /// Notes an answer, or why there was none.
    fn note(&self, failure: Option<&Error>) {
        if failure.is_none_or(|e| e.kind() != ErrorKind::Timeout) {
            self.hear(AN_ANSWER);
        }
        *self.failure() = failure.cloned();
    }

    fn failure(&self) -> MutexGuard<'_, Option<Error>> {
        self.last_failure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that so many bytes came.
    pub(super) fn hear(&self, bytes: u64) {
        self.heard.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The store for the next attempt.
    fn store_after(&self, backoff: &Backoff<'_>) -> Arc<dyn Store> {
        Arc::clone(if backoff.was_silent { &self.fresh } else { &self.inner })
    }

    /// Reads, until it succeeds or enough was tried.
    async fn read<T>(
        &self,
        asked: Asked,
        ask: impl Fn(Arc<dyn Store>) -> BoxFuture<'static, Result<T>> + Send + Sync,
    ) -> Result<T> {
        let mut backoff = Backoff::new(&self.policy);
        loop {
            let first = ask(self.store_after(&backoff));
            let answer = self.hedge.race(asked, first, || ask(self.fresh())).await;
            self.note(answer.as_ref().err());
            match answer {
                Err(e) => backoff.pause(e).await?,
                answer => return answer,
            }
        }
    }

    /// Writes or deletes, until it succeeds or enough was tried. Never twice at the same time.
    async fn write<T>(
        &self,
        ask: impl Fn(Arc<dyn Store>) -> BoxFuture<'static, Result<T>> + Send + Sync,
    ) -> Result<T> {
        let mut backoff = Backoff::new(&self.policy);
        loop {
            match ask(self.store_after(&backoff)).await {
                Err(e) => backoff.pause(e).await?,
                answer => return answer,
            }
        }
    }

    async fn download(&self, what: What, range: ByteRange) -> Result<Content> {
        let asked = what.clone();
        let ask = move |store: Arc<dyn Store>| {
            let what = asked.clone();
            async move { what.get(&*store, range).await }.boxed()
        };
        let content = self.read(Asked::Content, ask).await?;
        Ok(Download::resumable(self, what, range, content))
    }
}

#[async_trait]
impl Store for Retry {
    fn url(&self) -> String {
        self.inner.url()
    }

    async fn list(&self, level: Level, from: Txid) -> Result<Vec<FileInfo>> {
        let mut files = Vec::new();
        let mut next = None;
        loop {
            let ask = |store: Arc<dyn Store>| {
                let next = next.clone();
                async move { store.list_page(level, from, next).await }.boxed()
            };
            let page = self.read(Asked::Names, ask).await?;
            files.extend(page.entries);
            next = page.next;
            if next.is_none() {
                return Ok(in_order(files));
            }
        }
    }

    async fn list_at_once(&self) -> Result<Listing> {
        self.read(Asked::Names, |store| async move { store.list_at_once().await }.boxed()).await
    }

    async fn list_stored(&self, level: Level, from: Txid) -> Result<Vec<FileInfo>> {
        self.read(Asked::Names, move |store| async move { store.list_stored(level, from).await }.boxed())
            .await
    }

    fn clock(&self) -> Option<StoreTime> {
        self.inner.clock()
    }

    async fn ask_time(&self) -> Result<()> {
        self.read(Asked::Names, |store| async move { store.ask_time().await }.boxed()).await
    }

    async fn head(&self, id: FileId) -> Result<FileInfo> {
        self.read(Asked::Names, move |store| async move { store.head(id).await }.boxed()).await
    }

    async fn get(&self, id: FileId, range: ByteRange) -> Result<Content> {
        self.download(What::File(id), range).await
    }

    async fn get_listed(&self, file: &FileInfo, range: ByteRange) -> Result<Content> {
        self.download(What::Listed(file.clone()), range).await
    }

    async fn put(&self, id: FileId, body: Bytes, options: PutOptions) -> Result<()> {
        self.write(|store| {
            let (body, options) = (body.clone(), options.clone());
            async move { store.put(id, body, options).await }.boxed()
        })
        .await
    }

    async fn upload(&self, id: FileId, options: PutOptions) -> Result<Box<dyn Upload>> {
        let inner = self.write(|store| {
            let options = options.clone();
            async move { store.upload(id, options).await }.boxed()
        });
        Ok(Box::new(RetryUpload { inner: inner.await?, policy: Arc::clone(&self.policy) }))
    }

    async fn delete(&self, ids: &[FileId]) -> Result<()> {
        let ids: Arc<[FileId]> = ids.into();
        self.write(|store| {
            let ids = Arc::clone(&ids);
            async move { store.delete(&ids).await }.boxed()
        })
        .await
    }

    fn heard(&self) -> Option<u64> {
        Some(self.heard.load(Ordering::Relaxed))
    }

    fn last_failure(&self) -> Option<Error> {
        self.failure().clone()
    }

    async fn place(&self) -> Option<Place> {
        self.inner.place().await
    }

    fn stay_at(&self, place: Option<Place>) {
        self.inner.stay_at(place);
    }

    fn fencing(&self) -> Fencing {
        self.inner.fencing()
    }

    async fn prove_fencing(&self, id: FileId, body: Bytes, options: PutOptions) -> Result<()> {
        self.inner.prove_fencing(id, body, options).await
    }

    fn folder_of(&self, level: Level) -> String {
        self.inner.folder_of(level)
    }

    async fn list_raw(&self, folder: &str) -> Result<Vec<RawInfo>> {
        let folder: Arc<str> = folder.into();
        let mut found = Vec::new();
        let mut next = None;
        loop {
            let ask = |store: Arc<dyn Store>| {
                let (folder, next) = (Arc::clone(&folder), next.clone());
                async move { store.list_raw_page(&folder, next).await }.boxed()
            };
            let page = self.read(Asked::Names, ask).await?;
            found.extend(page.entries);
            next = page.next;
            if next.is_none() {
                return Ok(raw_in_order(found));
            }
        }
    }

    async fn get_raw(&self, path: &str, range: ByteRange) -> Result<Content> {
        self.download(What::Raw(path.into()), range).await
    }
}

struct RetryUpload {
    inner: Box<dyn Upload>,
    policy: Arc<RetryPolicy>,
}

#[async_trait]
impl Upload for RetryUpload {
    fn part_size(&self) -> usize {
        self.inner.part_size()
    }

    async fn part(&mut self, part: Bytes) -> Result<()> {
        let mut backoff = Backoff::new(&self.policy);
        loop {
            match self.inner.part(part.clone()).await {
                Err(e) => backoff.pause(e).await?,
                done => return done,
            }
        }
    }

    async fn complete(&mut self) -> Result<()> {
        let mut backoff = Backoff::new(&self.policy);
        loop {
            match self.inner.complete().await {
                Err(e) => backoff.pause(e).await?,
                done => return done,
            }
        }
    }

    async fn abort(&mut self) -> Result<()> {
        let mut backoff = Backoff::new(&self.policy);
        loop {
            match self.inner.abort().await {
                Err(e) => backoff.pause(e).await?,
                done => return done,
            }
        }
    }
}

/// Whether a failure that usually stays deserves one more try: one answer of a gateway or of a server that is just
/// being changed decides nothing, and credentials may have been renewed.
fn may_be_a_slip(failure: &Error) -> bool {
    matches!(failure.kind(), ErrorKind::WrongAnswer | ErrorKind::Denied | ErrorKind::Config)
}

/// Pauses between attempts, until they are used up.
pub(super) struct Backoff<'a> {
    policy: &'a RetryPolicy,
    attempts: u32,
    /// The last attempt had no answer.
    was_silent: bool,
    /// What does not pass by itself was tried once more.
    asked_twice: bool,
    started: Instant,
}

impl<'a> Backoff<'a> {
    pub(super) fn new(policy: &'a RetryPolicy) -> Self {
        Self { policy, attempts: 0, was_silent: false, asked_twice: false, started: Instant::now() }
    }

    /// Waits before the next attempt.
    ///
    /// # Errors
    /// `failure` itself, if it does not pass or enough was tried.
    pub(super) async fn pause(&mut self, failure: Error) -> Result<()> {
        self.attempts += 1;
        let allowed = failure.is_transient() || (may_be_a_slip(&failure) && !self.asked_twice);
        if !allowed || self.attempts >= self.policy.max_attempts {
            return Err(failure);
        }
        self.was_silent = failure.kind() == ErrorKind::Timeout;
        self.asked_twice |= !failure.is_transient();
        let delay = self.jittered();
        if self.started.elapsed() + delay > self.policy.max_elapsed {
            return Err(failure);
        }
        tracing::debug!(error = %failure, attempt = self.attempts, ?delay, "trying again");
        tokio::time::sleep(delay).await;
        Ok(())
    }

    fn jittered(&self) -> Duration {
        let doublings = (self.attempts - 1).min(20);
        let ceiling = self.policy.base_delay.saturating_mul(1 << doublings).min(self.policy.max_delay);
        let mut random = [0; 4];
        // Without random bytes the pause is the longest one, which is right as well.
        let share = match getrandom::fill(&mut random) {
            Ok(()) => f64::from(u32::from_le_bytes(random)) / f64::from(u32::MAX),
            Err(_) => 1.0,
        };
        ceiling.mul_f64(share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::ltx::FileName;
    use crate::runtime::block_on;
    use crate::store::{Fault, Faults, MemoryStore, Op};

    fn id(txid: u64) -> FileId {
        FileId::new(Level::L0, FileName::single(Txid::new(txid).unwrap()))
    }

    fn options() -> PutOptions {
        PutOptions { timestamp: Timestamp::from_millis(1), if_absent: true }
    }

    fn patient(attempts: u32) -> RetryPolicy {
        RetryPolicy {
            max_attempts: attempts,
            base_delay: Duration::from_millis(1),
            max_delay: Duration::from_millis(2),
            max_elapsed: Duration::from_secs(60),
        }
    }

    fn stack(attempts: u32) -> (Faults, Retry) {
        let faults = Faults::new(Arc::new(MemoryStore::new()), 1);
        (faults.clone(), Retry::new(Arc::new(faults), patient(attempts)))
    }

    #[test]
    fn what_fails_for_now_is_tried_again_and_what_fails_for_good_is_not() {
        let (faults, store) = stack(4);
        block_on(async move {
            for _ in 0..3 {
                faults.next(Op::Put, Fault::Refuse(ErrorKind::Unavailable));
            }
            store.put(id(1), Bytes::from_static(b"x"), options()).await?;
            assert_eq!(faults.count(Op::Put), 4);
            faults.next(Op::Put, Fault::Refuse(ErrorKind::NoSpace));
            let e = store.put(id(2), Bytes::new(), options()).await.unwrap_err();
            assert_eq!((e.kind(), faults.count(Op::Put)), (ErrorKind::NoSpace, 5));
            // One refusal or wrong answer may be a slip, two are none.
            for kind in [ErrorKind::Denied, ErrorKind::WrongAnswer] {
                let before = faults.count(Op::Head);
                faults.next(Op::Head, Fault::Refuse(kind));
                store.head(id(1)).await?;
                faults.next(Op::Head, Fault::Refuse(kind));
                faults.next(Op::Head, Fault::Refuse(kind));
                let e = store.head(id(1)).await.unwrap_err();
                assert_eq!((e.kind(), faults.count(Op::Head) - before), (kind, 4));
            }
            Ok(())
        })
        .unwrap();
    }

    #[test]
    fn attempts_are_bounded_in_number_and_in_time() {
        let (faults, store) = stack(3);
        block_on(async move {
            faults.often(Op::Head, 1000, Fault::Refuse(ErrorKind::Timeout));
            assert_eq!(store.head(id(1)).await.unwrap_err().kind(), ErrorKind::Timeout);
            assert_eq!(faults.count(Op::Head), 3);
            let policy = RetryPolicy { max_elapsed: Duration::ZERO, ..RetryPolicy::default() };
            let hasty = Retry::new(Arc::new(faults.clone()), policy);
            assert_eq!(hasty.head(id(1)).await.unwrap_err().kind(), ErrorKind::Timeout);
            assert_eq!(faults.count(Op::Head), 4);
            Ok(())
        })
        .unwrap();
    }

    #[test]
    fn a_put_whose_answer_was_lost_finds_itself() {
        let (faults, store) = stack(4);
        block_on(async move {
            faults.next(Op::Put, Fault::LoseAnswer(ErrorKind::Timeout));
            let e = store.put(id(1), Bytes::from_static(b"mine"), options()).await.unwrap_err();
            assert_eq!(e.kind(), ErrorKind::AlreadyExists);
            assert_eq!(&store.get(id(1), ByteRange::All).await?.bytes().await?[..], b"mine");
            Ok(())
        })
        .unwrap();
    }

    #[test]
    fn an_interrupted_download_goes_on_where_it_stopped() {
        let (faults, store) = stack(4);
        let body: Bytes = (0..10_000u32).flat_map(u32::to_le_bytes).collect();
        block_on(async move {
            store.put(id(1), body.clone(), options()).await?;
            for range in [
                ByteRange::All,
                ByteRange::Bounded { offset: 7, len: 20_001 },
                ByteRange::Suffix { len: 30_003 },
            ] {
                for cut in [0, 1, 999, 1000, 5000] {
                    faults.next(Op::Get, Fault::Truncate(cut));
                    faults.next(Op::Get, Fault::Refuse(ErrorKind::Unavailable));
                    faults.next(Op::Get, Fault::Truncate(cut + 1));
                    let content = store.get(id(1), range).await?;
                    let (start, end) = range.within(content.file_size).unwrap();
                    assert_eq!(
                        content.bytes().await?,
                        body.slice(start as usize..end as usize),
                        "{range:?} {cut}"
                    );
                }
            }
            Ok(())
        })
        .unwrap();
    }

    #[test]
    fn a_download_that_never_advances_gives_up() {
        let (faults, store) = stack(3);
        block_on(async move {
            store.put(id(1), Bytes::from(vec![1; 5000]), options()).await?;
            faults.often(Op::Get, 1000, Fault::Truncate(0));
            let content = store.get(id(1), ByteRange::All).await?;
            assert_eq!(content.bytes().await.unwrap_err().kind(), ErrorKind::Unavailable);
            Ok(())
        })
        .unwrap();
    }

    #[test]
    fn a_file_that_changes_size_under_a_download_is_noticed() {
        let memory = MemoryStore::new();
        let faults = Faults::new(Arc::new(memory.clone()), 1);
        let store = Retry::new(Arc::new(faults.clone()), patient(3));
        block_on(async move {
            store.put(id(1), Bytes::from(vec![1; 5000]), options()).await?;
            faults.next(Op::Get, Fault::Truncate(1500));
            let content = store.get(id(1), ByteRange::All).await?;
            memory.tamper(id(1), |body| body.resize(6000, 2));
            assert_eq!(content.bytes().await.unwrap_err().kind(), ErrorKind::WrongAnswer);
            Ok(())
        })
        .unwrap();
    }
}
