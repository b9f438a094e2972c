//! Requests, counted as they are made: each attempt, where it goes to the store.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;

use crate::error::{Error, Result};
use crate::store::clock::StoreTime;
use crate::store::requests::{Operation, Requests, Tally};
use crate::store::{
    Bucket, ByteRange, Content, Fencing, LongTurn, Next, ObjectInfo, Page, PartLog, Place, PutOptions, Taken,
    Upload, Work,
};

/// A bucket whose requests are counted. It is the innermost wrapper: what it counts is what the store is asked.
#[derive(Clone, Debug)]
pub struct Counted {
    inner: Arc<dyn Bucket>,
    tally: Tally,
}

impl Counted {
    /// `inner`, a store of this `kind`, whose requests are added to `requests` from now on.
    pub fn new(inner: Arc<dyn Bucket>, requests: Arc<Requests>, kind: &str) -> Self {
        Self { inner, tally: Tally::new(requests, kind) }
    }

    /// `content`, whose bytes are counted as they come.
    fn content(&self, content: Content) -> Content {
        let tally = self.tally.clone();
        let count = move |chunk: &Result<Bytes>| {
            if let Ok(chunk) = chunk {
                tally.moved(Operation::Get, chunk.len());
            }
        };
        Content { body: content.body.inspect(count).boxed(), ..content }
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl Bucket for Counted {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    async fn list(&self, prefix: &str, start: Option<Next>) -> Result<Page<ObjectInfo>> {
        let asked = self.tally.asks(0);
        self.tally.note(Operation::List, asked, self.inner.list(prefix, start).await)
    }

    async fn head(&self, key: &str) -> Result<ObjectInfo> {
        let asked = self.tally.asks(0);
        self.tally.note(Operation::Head, asked, self.inner.head(key).await)
    }

    async fn get(&self, key: &str, range: ByteRange, size: Option<u64>) -> Result<Content> {
        let asked = self.tally.asks(0);
        let answer = self.inner.get(key, range, size).await;
        self.tally.note(Operation::Get, asked, answer).map(|content| self.content(content))
    }

    async fn put(&self, key: &str, body: Bytes, options: &PutOptions) -> Result<()> {
        let size = body.len();
        let asked = self.tally.asks(size);
        let answer = self.tally.note(Operation::Put, asked, self.inner.put(key, body, options).await);
        if answer.is_ok() {
            self.tally.moved(Operation::Put, size);
        }
        answer
    }

    async fn upload(&self, key: &str, options: &PutOptions) -> Result<Box<dyn Upload>> {
        let asked = self.tally.asks(0);
        let inner = self.tally.note(Operation::Put, asked, self.inner.upload(key, options).await)?;
        Ok(Box::new(CountedUpload { inner, tally: self.tally.clone() }))
    }

    async fn resume_upload(
        &self,
        key: &str,
        options: &PutOptions,
        log: Arc<PartLog>,
    ) -> Result<Box<dyn Upload>> {
        let asked = self.tally.asks(0);
        let upload = self.inner.resume_upload(key, options, log).await;
        let inner = self.tally.note(Operation::Put, asked, upload)?;
        Ok(Box::new(CountedUpload { inner, tally: self.tally.clone() }))
    }

    async fn delete(&self, keys: &[String]) -> Result<()> {
        let asked = self.tally.asks(0);
        self.tally.note(Operation::Delete, asked, self.inner.delete(keys).await)
    }

    async fn abort_uploads(&self, prefix: &str) -> Result<usize> {
        let asked = self.tally.asks(0);
        self.tally.note(Operation::List, asked, self.inner.abort_uploads(prefix).await)
    }

    fn fencing(&self) -> Fencing {
        self.inner.fencing()
    }

    async fn prove_fencing(&self, key: &str, body: Bytes, options: &PutOptions) -> Result<()> {
        let asked = self.tally.asks(0);
        self.tally.note(Operation::Put, asked, self.inner.prove_fencing(key, body, options).await)
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
        let asked = self.tally.asks(0);
        self.tally.note(Operation::List, asked, self.inner.ask_time(prefix).await)
    }

    fn by_new_connections(&self) -> Option<Arc<dyn Bucket>> {
        let inner = self.inner.by_new_connections()?;
        Some(Arc::new(Self { inner, ..self.clone() }))
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

/// An upload whose parts are counted.
struct CountedUpload {
    inner: Box<dyn Upload>,
    tally: Tally,
}

#[async_trait]
impl Upload for CountedUpload {
    fn part_size(&self) -> usize {
        self.inner.part_size()
    }

    async fn part(&mut self, part: Bytes) -> Result<Taken> {
        let size = part.len();
        let asked = self.tally.asks(size);
        let answer = self.tally.note(Operation::Put, asked, self.inner.part(part).await);
        if matches!(answer, Ok(Taken::Sent | Taken::Later)) {
            self.tally.moved(Operation::Put, size);
        }
        answer
    }

    async fn complete(&mut self) -> Result<()> {
        let asked = self.tally.asks(0);
        self.tally.note(Operation::Put, asked, self.inner.complete().await)
    }

    async fn abort(&mut self) -> Result<()> {
        let asked = self.tally.asks(0);
        self.tally.note(Operation::Delete, asked, self.inner.abort().await)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::error::ErrorKind;
    use crate::ltx::{FileId, Txid};
    use crate::runtime::block_on;
    use crate::store::{Fault, Faults, MemoryStore, Op, RetryPolicy};

    #[test]
    fn each_attempt_is_counted_with_its_bytes_and_its_failure() {
        let faults = Faults::new(&MemoryStore::new(), 1);
        let policy =
            RetryPolicy { base_delay: std::time::Duration::from_millis(1), ..RetryPolicy::default() };
        let store = faults.replica().counted("s3").patient(policy);
        block_on(async move {
            let options = PutOptions { timestamp: Timestamp::from_millis(1), if_absent: true };
            let id = |txid| FileId::single(Txid::new(txid).unwrap());
            faults.next(Op::Put, Fault::Refuse(ErrorKind::Unavailable));
            store.put(id(1), Bytes::from_static(b"abcde"), options.clone()).await?;
            store.get(id(1), ByteRange::All).await?.bytes().await?;
            assert_eq!(store.get(id(2), ByteRange::All).await.unwrap_err().kind(), ErrorKind::NotFound);
            let mut upload = store.upload(id(3), options).await?;
            upload.part(Bytes::from_static(b"xy")).await?;
            upload.complete().await?;
            let counted = store.requests().counted();
            let of = |operation| counted.iter().find(|counted| counted.operation == operation).unwrap();
            let put = of(Operation::Put);
            assert_eq!((put.requests, put.bytes, &put.failures[..]), (5, 7, &[("unavailable", 1)][..]));
            let get = of(Operation::Get);
            assert_eq!((get.requests, get.bytes, get.failures.len()), (2, 5, 0));
            Ok(())
        })
        .unwrap();
    }
}
