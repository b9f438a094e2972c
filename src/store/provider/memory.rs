//! A bucket in memory, for tests.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use futures_util::stream;

use crate::clock::{Clock, Timestamp};
use crate::error::Result;
use crate::ltx::FileId;
use crate::store::clock::StoreTime;
use crate::store::{
    Bucket, ByteRange, Content, Fencing, Layout, Next, ObjectInfo, Page, PutOptions, Replica, Taken, Upload,
    errors,
};

/// The pieces in which content arrives: small, so that tests see more than one.
const CHUNK: usize = 1000;

/// A replica in memory, for tests. Clones are the same replica.
#[derive(Clone, Debug)]
pub struct MemoryStore {
    bucket: MemoryBucket,
    layout: Layout,
    replica: Arc<Replica>,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::with_layout(Layout::Ltx)
    }
}

impl Deref for MemoryStore {
    type Target = Replica;

    fn deref(&self) -> &Replica {
        &self.replica
    }
}

impl MemoryStore {
    /// An empty replica.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty replica with another layout than most.
    pub fn with_layout(layout: Layout) -> Self {
        let bucket = MemoryBucket::default();
        let replica = Arc::new(Replica::new(Arc::new(bucket.clone()), "", layout));
        Self { bucket, layout, replica }
    }

    /// The replica.
    pub fn replica(&self) -> Arc<Replica> {
        Arc::clone(&self.replica)
    }

    /// Gives the store a clock of its own.
    pub fn set_clock(&self, clock: Arc<dyn Clock>) {
        *self.bucket.clock.lock().unwrap_or_else(PoisonError::into_inner) = Some(clock);
    }

    /// The bucket that the replica is in.
    pub fn bucket(&self) -> Arc<dyn Bucket> {
        Arc::new(self.bucket.clone())
    }

    /// The content of a file, which must be there.
    pub fn bytes_of(&self, id: FileId) -> Bytes {
        self.bucket.find(&self.layout.path(id)).expect("the file is there").body
    }

    /// The files, in order, with their sizes.
    pub fn files(&self) -> Vec<(FileId, usize)> {
        let objects = self.bucket.lock();
        let mut files: Vec<(FileId, usize)> = objects
            .iter()
            .filter_map(|(key, object)| Some((self.layout.file(key)?, object.body.len())))
            .collect();
        files.sort_unstable();
        files
    }

    /// The number of uploads that were neither completed nor aborted.
    pub fn unfinished(&self) -> usize {
        self.bucket.unfinished().len()
    }

    /// The keys of all objects, in order.
    pub fn keys(&self) -> Vec<String> {
        self.bucket.lock().keys().cloned().collect()
    }

    /// Puts something that is no LTX file at `path`.
    pub fn put_raw(&self, path: &str, body: Bytes, timestamp: Timestamp) {
        self.bucket.lock().insert(path.to_owned(), Object { body, timestamp, stored: timestamp });
    }

    /// Lists from now on all but the file `id`, as a cache does that lists what was there before; with `None` all.
    pub fn unlist(&self, id: Option<FileId>) {
        *self.bucket.unlisted.lock().unwrap_or_else(PoisonError::into_inner) =
            id.map(|id| self.layout.path(id));
    }

    /// Changes the content of a file behind everybody's back; nothing happens if it is not there.
    pub fn tamper(&self, id: FileId, change: impl FnOnce(&mut Vec<u8>)) {
        if let Some(object) = self.bucket.lock().get_mut(&self.layout.path(id)) {
            let mut bytes = object.body.to_vec();
            change(&mut bytes);
            object.body = bytes.into();
        }
    }
}

#[derive(Clone, Debug, Default)]
struct MemoryBucket {
    objects: Arc<Mutex<BTreeMap<String, Object>>>,
    /// The keys of uploads that were neither completed nor aborted.
    unfinished: Arc<Mutex<Vec<String>>>,
    /// The store's own clock, if it has one.
    clock: Arc<Mutex<Option<Arc<dyn Clock>>>>,
    /// The key of an object that is not listed.
    unlisted: Arc<Mutex<Option<String>>>,
}

#[derive(Clone, Debug)]
struct Object {
    body: Bytes,
    timestamp: Timestamp,
    /// By the store's own clock; the timestamp where it has none.
    stored: Timestamp,
}

impl Object {
    fn info(&self, key: &str) -> ObjectInfo {
        let (size, timestamp, stored) = (self.body.len() as u64, self.timestamp, self.stored);
        ObjectInfo { key: key.to_owned(), size, timestamp, stored }
    }
}

impl MemoryBucket {
    fn time(&self) -> Option<Timestamp> {
        self.clock.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|clock| clock.now())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Object>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unfinished(&self) -> MutexGuard<'_, Vec<String>> {
        self.unfinished.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An upload to `key` is over.
    fn finish(&self, key: &str) {
        let mut unfinished = self.unfinished();
        if let Some(place) = unfinished.iter().position(|begun| begun == key) {
            unfinished.remove(place);
        }
    }

    fn find(&self, key: &str) -> Result<Object> {
        self.lock().get(key).cloned().ok_or_else(|| errors::not_found(&self.describe(), key))
    }

    fn write(&self, key: &str, body: Bytes, options: &PutOptions) -> Result<()> {
        let stored = self.time().unwrap_or(options.timestamp);
        let mut objects = self.lock();
        if options.if_absent && objects.contains_key(key) {
            return Err(errors::already_exists(&self.describe(), key));
        }
        objects.insert(key.to_owned(), Object { body, timestamp: options.timestamp, stored });
        Ok(())
    }
}

#[async_trait]
impl Bucket for MemoryBucket {
    fn describe(&self) -> String {
        "memory:".to_owned()
    }

    async fn list(&self, prefix: &str, start: Option<Next>) -> Result<Page<ObjectInfo>> {
        let after = match start {
            Some(Next::After(key) | Next::Token(key)) => key,
            None => String::new(),
        };
        let objects = self.lock();
        let below = objects.range(prefix.to_owned()..).take_while(|(key, _)| key.starts_with(prefix));
        let unlisted = self.unlisted.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let listed = below.filter(|(key, _)| **key > after && Some(*key) != unlisted.as_ref());
        let entries = listed.map(|(key, object)| object.info(key)).collect();
        Ok(Page { entries, next: None })
    }

    async fn head(&self, key: &str) -> Result<ObjectInfo> {
        Ok(self.find(key)?.info(key))
    }

    async fn get(&self, key: &str, range: ByteRange, size: Option<u64>) -> Result<Content> {
        let Object { body, timestamp, .. } = self.find(key)?;
        let file_size = body.len() as u64;
        if let Some(listed) = size {
            errors::check_size(&self.describe(), key, listed, file_size)?;
        }
        content(&body, timestamp, range)
            .ok_or_else(|| errors::too_short(&self.describe(), key, range, file_size))
    }

    async fn put(&self, key: &str, body: Bytes, options: &PutOptions) -> Result<()> {
        self.write(key, body, options)
    }

    async fn upload(&self, key: &str, options: &PutOptions) -> Result<Box<dyn Upload>> {
        let (bucket, key, options) = (self.clone(), key.to_owned(), options.clone());
        bucket.unfinished().push(key.clone());
        Ok(Box::new(MemoryUpload { bucket, key, options, body: BytesMut::new() }))
    }

    async fn delete(&self, keys: &[String]) -> Result<()> {
        let mut objects = self.lock();
        for key in keys {
            objects.remove(key);
        }
        Ok(())
    }

    async fn abort_uploads(&self, prefix: &str) -> Result<usize> {
        let mut unfinished = self.unfinished();
        let before = unfinished.len();
        unfinished.retain(|key| !key.starts_with(prefix));
        Ok(before - unfinished.len())
    }

    fn fencing(&self) -> Fencing {
        Fencing::Atomic
    }

    fn misses_cheaply(&self) -> bool {
        true
    }

    fn clock(&self) -> Option<StoreTime> {
        self.time().map(|now| StoreTime { now, age: Duration::ZERO, is_another: true })
    }
}

/// The bytes of `range`; `None` if the file ends before.
fn content(body: &Bytes, timestamp: Timestamp, range: ByteRange) -> Option<Content> {
    let file_size = body.len() as u64;
    let (start, end) = range.within(file_size)?;
    let mut rest = body.slice(start as usize..end as usize);
    let chunks =
        std::iter::from_fn(move || (!rest.is_empty()).then(|| Ok(rest.split_to(CHUNK.min(rest.len())))));
    Some(Content { offset: start, file_size, timestamp: Some(timestamp), body: stream::iter(chunks).boxed() })
}

struct MemoryUpload {
    bucket: MemoryBucket,
    key: String,
    options: PutOptions,
    body: BytesMut,
}

#[async_trait]
impl Upload for MemoryUpload {
    fn part_size(&self) -> usize {
        4096
    }

    async fn part(&mut self, part: Bytes) -> Result<Taken> {
        self.body.extend_from_slice(&part);
        Ok(Taken::Sent)
    }

    async fn complete(&mut self) -> Result<()> {
        self.bucket.write(&self.key, self.body.clone().freeze(), &self.options)?;
        self.bucket.finish(&self.key);
        Ok(())
    }

    async fn abort(&mut self) -> Result<()> {
        self.body.clear();
        self.bucket.finish(&self.key);
        Ok(())
    }
}
