//! A replica in memory, for tests.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use futures_util::stream;

use super::{ByteRange, Content, Fencing, FileInfo, PutOptions, RawInfo, Store, StoreTime, Upload, errors};
use crate::clock::{Clock, Timestamp};
use crate::error::Result;
use crate::ltx::{FileId, FileName, Level, Txid};

/// The pieces in which content arrives: small, so that tests see more than one.
const CHUNK: usize = 1000;

/// A replica in memory, for tests. Clones are the same replica.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    files: Arc<Mutex<BTreeMap<FileId, (Bytes, Timestamp)>>>,
    /// The store's own clock, if it has one, and when each file was stored by it.
    clock: Arc<Mutex<Option<Arc<dyn Clock>>>>,
    stored: Arc<Mutex<BTreeMap<FileId, Timestamp>>>,
    /// What is no LTX file, by path.
    strays: Arc<Mutex<BTreeMap<String, (Bytes, Timestamp)>>>,
}

impl MemoryStore {
    /// An empty replica.
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives the store a clock of its own.
    pub fn set_clock(&self, clock: Arc<dyn Clock>) {
        *self.clock.lock().unwrap_or_else(PoisonError::into_inner) = Some(clock);
    }

    fn time(&self) -> Option<Timestamp> {
        self.clock.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|clock| clock.now())
    }

    /// The files, in order, with their sizes.
    pub fn files(&self) -> Vec<(FileId, usize)> {
        self.lock().iter().map(|(id, (body, _))| (*id, body.len())).collect()
    }

    /// Puts something that is no LTX file at `path`.
    pub fn put_raw(&self, path: &str, body: Bytes, timestamp: Timestamp) {
        self.strays().insert(path.to_owned(), (body, timestamp));
    }

    /// Changes the content of a file behind everybody's back; nothing happens if it is not there.
    pub fn tamper(&self, id: FileId, change: impl FnOnce(&mut Vec<u8>)) {
        if let Some((body, _)) = self.lock().get_mut(&id) {
            let mut bytes = body.to_vec();
            change(&mut bytes);
            *body = bytes.into();
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<FileId, (Bytes, Timestamp)>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn strays(&self) -> MutexGuard<'_, BTreeMap<String, (Bytes, Timestamp)>> {
        self.strays.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path_of(&self, id: FileId) -> String {
        format!("{}/{}", self.folder_of(id.level), id.name)
    }

    fn write(&self, id: FileId, body: Bytes, options: &PutOptions) -> Result<()> {
        let mut files = self.lock();
        if options.if_absent && files.contains_key(&id) {
            return Err(errors::already_exists(&self.url(), id));
        }
        files.insert(id, (body, options.timestamp));
        if let Some(now) = self.time() {
            self.stored.lock().unwrap_or_else(PoisonError::into_inner).insert(id, now);
        }
        Ok(())
    }
}

#[async_trait]
impl Store for MemoryStore {
    fn url(&self) -> String {
        "memory:".to_owned()
    }

    async fn list(&self, level: Level, from: Txid) -> Result<Vec<FileInfo>> {
        let first = FileId::new(level, FileName::single(from));
        let files = self.lock();
        let of_level = files.range(first..).take_while(|(id, _)| id.level == level);
        Ok(of_level
            .map(|(id, (body, timestamp))| FileInfo {
                id: *id,
                size: body.len() as u64,
                timestamp: *timestamp,
            })
            .collect())
    }

    async fn list_stored(&self, level: Level, from: Txid) -> Result<Vec<FileInfo>> {
        let mut files = self.list(level, from).await?;
        let stored = self.stored.lock().unwrap_or_else(PoisonError::into_inner);
        for file in &mut files {
            file.timestamp = stored.get(&file.id).copied().unwrap_or(file.timestamp);
        }
        Ok(files)
    }

    fn clock(&self) -> Option<StoreTime> {
        self.time().map(|now| StoreTime { now, age: Duration::ZERO, is_another: true })
    }

    async fn head(&self, id: FileId) -> Result<FileInfo> {
        let files = self.lock();
        let (body, timestamp) = files.get(&id).ok_or_else(|| errors::not_found(&self.url(), id))?;
        Ok(FileInfo { id, size: body.len() as u64, timestamp: *timestamp })
    }

    async fn get(&self, id: FileId, range: ByteRange) -> Result<Content> {
        let body = self.lock().get(&id).map(|(body, _)| body.clone());
        let body = body.ok_or_else(|| errors::not_found(&self.url(), id))?;
        let file_size = body.len() as u64;
        content(&body, range).ok_or_else(|| errors::too_short(&self.url(), id, range, file_size))
    }

    async fn put(&self, id: FileId, body: Bytes, options: PutOptions) -> Result<()> {
        self.write(id, body, &options)
    }

    async fn upload(&self, id: FileId, options: PutOptions) -> Result<Box<dyn Upload>> {
        Ok(Box::new(MemoryUpload { store: self.clone(), id, options, body: BytesMut::new() }))
    }

    async fn delete(&self, ids: &[FileId]) -> Result<()> {
        let mut files = self.lock();
        for id in ids {
            files.remove(id);
        }
        Ok(())
    }

    fn fencing(&self) -> Fencing {
        Fencing::Atomic
    }

    fn folder_of(&self, level: Level) -> String {
        format!("ltx/{level}")
    }

    async fn list_raw(&self, folder: &str) -> Result<Vec<RawInfo>> {
        let info = |path: String, (body, timestamp): &(Bytes, Timestamp)| RawInfo {
            path,
            size: body.len() as u64,
            timestamp: *timestamp,
        };
        let mut found: Vec<RawInfo> =
            self.lock().iter().map(|(id, entry)| info(self.path_of(*id), entry)).collect();
        found.extend(self.strays().iter().map(|(path, entry)| info(path.clone(), entry)));
        found.retain(|raw| raw.path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/')));
        found.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        Ok(found)
    }

    async fn get_raw(&self, path: &str, range: ByteRange) -> Result<Content> {
        let stray = self.strays().get(path).map(|(body, _)| body.clone());
        let file = || self.lock().iter().find(|(id, _)| self.path_of(**id) == path).map(|(_, f)| f.0.clone());
        let body = stray.or_else(file).ok_or_else(|| errors::not_found(&self.url(), path))?;
        let file_size = body.len() as u64;
        content(&body, range).ok_or_else(|| errors::too_short(&self.url(), path, range, file_size))
    }
}

/// The bytes of `range`; `None` if the file ends before.
fn content(body: &Bytes, range: ByteRange) -> Option<Content> {
    let file_size = body.len() as u64;
    let (start, end) = range.within(file_size)?;
    let mut rest = body.slice(start as usize..end as usize);
    let chunks =
        std::iter::from_fn(move || (!rest.is_empty()).then(|| Ok(rest.split_to(CHUNK.min(rest.len())))));
    Some(Content { offset: start, file_size, body: stream::iter(chunks).boxed() })
}

struct MemoryUpload {
    store: MemoryStore,
    id: FileId,
    options: PutOptions,
    body: BytesMut,
}

#[async_trait]
impl Upload for MemoryUpload {
    fn part_size(&self) -> usize {
        4096
    }

    async fn part(&mut self, part: Bytes) -> Result<()> {
        self.body.extend_from_slice(&part);
        Ok(())
    }

    async fn complete(&mut self) -> Result<()> {
        self.store.write(self.id, self.body.clone().freeze(), &self.options)
    }

    async fn abort(&mut self) -> Result<()> {
        self.body.clear();
        Ok(())
    }
}
