//! Trying again what failed for now.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::Mutex;

use super::backoff::{Backoff, RetryPolicy};
use super::download::{Download, Object};
use super::hedge::{Asked, Hedge};
use crate::error::{Error, Result};
use crate::store::clock::StoreTime;
use crate::store::{
    Bucket, ByteRange, Content, Fencing, LongTurn, Next, ObjectInfo, Page, PartLog, Place, PutOptions, Taken,
    Upload, Work,
};

/// A bucket that tries again what failed for now, asks a second time where a read is silent ([`Hedge`]), and
/// continues an interrupted download from where it stopped.
///
/// A repeated `put` or `complete` with `if_absent` may find what its own earlier attempt stored, whose
/// answer was lost. It says `AlreadyExists` then: only the caller can tell whose object that is.
#[derive(Clone, Debug)]
pub struct Retry {
    inner: Arc<dyn Bucket>,
    /// The same over connections that were never used: those that are open may all be dead.
    fresh: Arc<dyn Bucket>,
    policy: Arc<RetryPolicy>,
    hedge: Arc<Hedge>,
}

/// How attempts at one thing are made.
#[derive(Clone, Copy, Debug)]
enum Attempts {
    /// A read, which may be asked for twice at the same time.
    Read(Asked),
    /// A write or a deletion: one after another.
    Write,
}

impl Retry {
    /// `inner`, with patience.
    pub fn new(inner: Arc<dyn Bucket>, policy: RetryPolicy) -> Self {
        let fresh = inner.by_new_connections().unwrap_or_else(|| Arc::clone(&inner));
        Self { inner, fresh, policy: Arc::new(policy), hedge: Arc::default() }
    }

    pub(super) fn policy(&self) -> &RetryPolicy {
        &self.policy
    }

    pub(super) fn hedge(&self) -> &Hedge {
        &self.hedge
    }

    pub(super) fn fresh(&self) -> Arc<dyn Bucket> {
        Arc::clone(&self.fresh)
    }

    /// Asks until it succeeds or enough was tried. After silence, over a new connection.
    async fn again<T>(
        &self,
        attempts: Attempts,
        ask: impl Fn(Arc<dyn Bucket>) -> BoxFuture<'static, Result<T>> + Send + Sync,
    ) -> Result<T> {
        let mut backoff = Backoff::new(&self.policy);
        loop {
            let first = ask(Arc::clone(if backoff.was_silent { &self.fresh } else { &self.inner }));
            let answer = match attempts {
                Attempts::Read(asked) => {
                    self.hedge.race(asked, &mut backoff, first, || ask(self.fresh())).await
                }
                Attempts::Write => first.await,
            };
            match answer {
                Err(e) => backoff.pause(e).await?,
                answer => return answer,
            }
        }
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl Bucket for Retry {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    async fn list(&self, prefix: &str, start: Option<Next>) -> Result<Page<ObjectInfo>> {
        let prefix: Arc<str> = prefix.into();
        self.again(Attempts::Read(Asked::Names), |bucket| {
            let (prefix, start) = (Arc::clone(&prefix), start.clone());
            async move { bucket.list(&prefix, start).await }.boxed()
        })
        .await
    }

    async fn head(&self, key: &str) -> Result<ObjectInfo> {
        let key: Arc<str> = key.into();
        self.again(Attempts::Read(Asked::Names), |bucket| {
            let key = Arc::clone(&key);
            async move { bucket.head(&key).await }.boxed()
        })
        .await
    }

    async fn get(&self, key: &str, range: ByteRange, size: Option<u64>) -> Result<Content> {
        let object = Object { key: key.into(), size };
        let asked = object.clone();
        let ask = move |bucket: Arc<dyn Bucket>| {
            let object = asked.clone();
            async move { object.get(&*bucket, range).await }.boxed()
        };
        let content = self.again(Attempts::Read(Asked::Content), ask).await?;
        Ok(Download::resumable(self, object, range, content))
    }

    async fn put(&self, key: &str, body: Bytes, options: &PutOptions) -> Result<()> {
        let key: Arc<str> = key.into();
        self.again(Attempts::Write, |bucket| {
            let (key, body, options) = (Arc::clone(&key), body.clone(), options.clone());
            async move { bucket.put(&key, body, &options).await }.boxed()
        })
        .await
    }

    async fn upload(&self, key: &str, options: &PutOptions) -> Result<Box<dyn Upload>> {
        let key: Arc<str> = key.into();
        let begun = self.again(Attempts::Write, |bucket| {
            let (key, options) = (Arc::clone(&key), options.clone());
            async move { bucket.upload(&key, &options).await }.boxed()
        });
        Ok(RetryUpload::of(self, begun.await?))
    }

    async fn resume_upload(
        &self,
        key: &str,
        options: &PutOptions,
        log: Arc<PartLog>,
    ) -> Result<Box<dyn Upload>> {
        let key: Arc<str> = key.into();
        let begun = self.again(Attempts::Write, |bucket| {
            let (key, options, log) = (Arc::clone(&key), options.clone(), Arc::clone(&log));
            async move { bucket.resume_upload(&key, &options, log).await }.boxed()
        });
        Ok(RetryUpload::of(self, begun.await?))
    }

    async fn delete(&self, keys: &[String]) -> Result<()> {
        let keys: Arc<[String]> = keys.into();
        self.again(Attempts::Write, |bucket| {
            let keys = Arc::clone(&keys);
            async move { bucket.delete(&keys).await }.boxed()
        })
        .await
    }

    async fn abort_uploads(&self, prefix: &str) -> Result<usize> {
        let prefix: Arc<str> = prefix.into();
        self.again(Attempts::Write, |bucket| {
            let prefix = Arc::clone(&prefix);
            async move { bucket.abort_uploads(&prefix).await }.boxed()
        })
        .await
    }

    fn fencing(&self) -> Fencing {
        self.inner.fencing()
    }

    async fn prove_fencing(&self, key: &str, body: Bytes, options: &PutOptions) -> Result<()> {
        self.inner.prove_fencing(key, body, options).await
    }

    fn lists_any_prefix(&self) -> bool {
        self.inner.lists_any_prefix()
    }

    fn misses_cheaply(&self) -> bool {
        self.inner.misses_cheaply()
    }

    fn clock(&self) -> Option<StoreTime> {
        self.inner.clock()
    }

    async fn ask_time(&self, prefix: &str) -> Result<()> {
        let prefix: Arc<str> = prefix.into();
        self.again(Attempts::Read(Asked::Names), |bucket| {
            let prefix = Arc::clone(&prefix);
            async move { bucket.ask_time(&prefix).await }.boxed()
        })
        .await
    }

    fn by_new_connections(&self) -> Option<Arc<dyn Bucket>> {
        self.inner.by_new_connections()
    }

    fn heard(&self) -> Option<u64> {
        self.inner.heard()
    }

    fn last_failure(&self) -> Option<Error> {
        self.inner.last_failure()
    }

    async fn turn(&self, work: Work) -> Option<LongTurn> {
        self.inner.turn(work).await
    }

    async fn place(&self) -> Option<Place> {
        self.inner.place().await
    }

    fn stay_at(&self, place: Option<Place>) {
        self.inner.stay_at(place);
    }
}

struct RetryUpload {
    /// Locked by one attempt at a time.
    inner: Arc<Mutex<Box<dyn Upload>>>,
    part_size: usize,
    retry: Retry,
}

impl RetryUpload {
    fn of(retry: &Retry, inner: Box<dyn Upload>) -> Box<dyn Upload> {
        let part_size = inner.part_size();
        Box::new(Self { inner: Arc::new(Mutex::new(inner)), part_size, retry: retry.clone() })
    }
}

#[async_trait]
impl Upload for RetryUpload {
    fn part_size(&self) -> usize {
        self.part_size
    }

    async fn part(&mut self, part: Bytes) -> Result<Taken> {
        let inner = &self.inner;
        self.retry
            .again(Attempts::Write, |_| {
                let (inner, part) = (Arc::clone(inner), part.clone());
                async move { inner.lock().await.part(part).await }.boxed()
            })
            .await
    }

    async fn complete(&mut self) -> Result<()> {
        let inner = &self.inner;
        self.retry
            .again(Attempts::Write, |_| {
                let inner = Arc::clone(inner);
                async move { inner.lock().await.complete().await }.boxed()
            })
            .await
    }

    async fn abort(&mut self) -> Result<()> {
        let inner = &self.inner;
        self.retry
            .again(Attempts::Write, |_| {
                let inner = Arc::clone(inner);
                async move { inner.lock().await.abort().await }.boxed()
            })
            .await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;
    use crate::clock::Timestamp;
    use crate::error::ErrorKind;
    use crate::ltx::{FileId, FileName, Level, Txid};
    use crate::runtime::block_on;
    use crate::runtime::simulated::in_virtual_time;
    use crate::store::{Fault, Faults, MemoryStore, Op, Replica};

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

    fn stack(attempts: u32) -> (Faults, Replica) {
        let faults = Faults::new(&MemoryStore::new(), 1);
        let store = faults.patient(patient(attempts));
        (faults, store)
    }

    async fn content_of(store: &Replica) -> Result<Bytes> {
        store.get(id(1), ByteRange::All).await?.bytes().await
    }

    /// Fails the test where what hangs is waited for.
    async fn in_time<T>(work: impl Future<Output = T>) -> T {
        tokio::time::timeout(Duration::from_secs(1000), work).await.expect("an answer")
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
            let hasty = faults.patient(policy);
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
                ByteRange::Prefix { len: 30_003 },
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
    fn a_repetition_that_fails_or_breaks_off_beside_a_silent_request_is_made_again() {
        in_virtual_time(|| {
            let body = Bytes::from(vec![7; 5000]);
            for fault in [Fault::Refuse(ErrorKind::Unavailable), Fault::Truncate(10)] {
                let (faults, store) = stack(4);
                let body = body.clone();
                block_on(async move {
                    store.put(id(1), body.clone(), options()).await?;
                    let begun = Instant::now();
                    faults.next(Op::Get, Fault::Hang);
                    faults.next(Op::Get, fault);
                    assert_eq!(in_time(content_of(&store)).await?, body);
                    faults.next(Op::Head, Fault::Hang);
                    faults.next(Op::Head, fault);
                    in_time(store.head(id(1))).await?;
                    let took = begun.elapsed();
                    assert!(took < Duration::from_secs(5), "{fault:?}: {took:?}");
                    Ok(())
                })
                .unwrap();
            }
        });
    }

    #[test]
    fn a_download_that_breaks_off_beside_a_silent_request_goes_on() {
        let (faults, store) = stack(4);
        let body = Bytes::from(vec![7; 5000]);
        let took = in_virtual_time(|| {
            block_on(async move {
                store.put(id(1), body.clone(), options()).await?;
                let begun = Instant::now();
                // What came is silent for so long that it is asked for again, and then breaks off.
                faults.next(Op::Get, Fault::Stall { after: 10, silence: Duration::from_secs(4) });
                faults.next(Op::Get, Fault::Hang);
                assert_eq!(in_time(content_of(&store)).await?, body);
                assert_eq!((faults.count(Op::Get), faults.hung()), (3, 1));
                Ok(begun.elapsed())
            })
        });
        assert!(took.unwrap() < Duration::from_secs(8));
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
        let faults = Faults::new(&memory, 1);
        let store = faults.patient(patient(3));
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
