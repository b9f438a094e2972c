//! What came from a store, counted: who waits tells a slow store from a silent one by it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;

use crate::error::{Error, ErrorKind, Result};
use crate::store::clock::StoreTime;
use crate::store::{
    Bucket, ByteRange, Content, Fencing, LongTurn, Next, ObjectInfo, Page, PartLog, Place, PutOptions,
    Upload, Work,
};

/// What an answer or a failure adds to what was heard.
const AN_ANSWER: u64 = 1 << 20;

/// A bucket whose answers to reads are counted. Clones, and the same bucket over new connections, share the count.
#[derive(Clone, Debug)]
pub struct Meter {
    inner: Arc<dyn Bucket>,
    /// As [`Bucket::heard`].
    heard: Arc<AtomicU64>,
    /// As [`Bucket::last_failure`].
    last_failure: Arc<Mutex<Option<Error>>>,
}

impl Meter {
    /// `inner`, counted from now on.
    pub fn new(inner: Arc<dyn Bucket>) -> Self {
        Self { inner, heard: Arc::default(), last_failure: Arc::default() }
    }

    /// Notes an answer to a read, or why there was none.
    fn note<T>(&self, answer: Result<T>) -> Result<T> {
        let failure = answer.as_ref().err();
        if failure.is_none_or(|e| e.kind() != ErrorKind::Timeout) {
            self.heard.fetch_add(AN_ANSWER, Ordering::Relaxed);
        }
        *self.failure() = failure.cloned();
        answer
    }

    fn failure(&self) -> MutexGuard<'_, Option<Error>> {
        self.last_failure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `content`, whose bytes are counted as they come.
    fn counted(&self, content: Content) -> Content {
        let heard = Arc::clone(&self.heard);
        let count = move |chunk: &Result<Bytes>| {
            let bytes = chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
            heard.fetch_add(bytes, Ordering::Relaxed);
        };
        Content { body: content.body.inspect(count).boxed(), ..content }
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl Bucket for Meter {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    async fn list(&self, prefix: &str, start: Option<Next>) -> Result<Page<ObjectInfo>> {
        self.note(self.inner.list(prefix, start).await)
    }

    async fn head(&self, key: &str) -> Result<ObjectInfo> {
        self.note(self.inner.head(key).await)
    }

    async fn get(&self, key: &str, range: ByteRange, size: Option<u64>) -> Result<Content> {
        self.note(self.inner.get(key, range, size).await).map(|content| self.counted(content))
    }

    async fn put(&self, key: &str, body: Bytes, options: &PutOptions) -> Result<()> {
        self.inner.put(key, body, options).await
    }

    async fn upload(&self, key: &str, options: &PutOptions) -> Result<Box<dyn Upload>> {
        self.inner.upload(key, options).await
    }

    async fn resume_upload(
        &self,
        key: &str,
        options: &PutOptions,
        log: Arc<PartLog>,
    ) -> Result<Box<dyn Upload>> {
        self.inner.resume_upload(key, options, log).await
    }

    async fn delete(&self, keys: &[String]) -> Result<()> {
        self.inner.delete(keys).await
    }

    async fn abort_uploads(&self, prefix: &str) -> Result<usize> {
        self.inner.abort_uploads(prefix).await
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
        self.note(self.inner.ask_time(prefix).await)
    }

    fn by_new_connections(&self) -> Option<Arc<dyn Bucket>> {
        let inner = self.inner.by_new_connections()?;
        Some(Arc::new(Self { inner, ..self.clone() }))
    }

    fn heard(&self) -> Option<u64> {
        Some(self.heard.load(Ordering::Relaxed))
    }

    fn last_failure(&self) -> Option<Error> {
        self.failure().clone()
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
