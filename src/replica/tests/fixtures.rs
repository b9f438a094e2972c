//! Replicas for tests: a database whose every state is known, and files made of it.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;

use crate::clock::Timestamp;
use crate::error::Result;
use crate::ltx::{Encoder, FileId, FileName, Header, Level, Lineage, Recipients, Seal, Txid};
use crate::page::{PageCount, PageSize, Pgno};
use crate::replica::PackBuilder;
use crate::runtime;
use crate::store::{
    Bucket, ByteRange, Content, Fencing, Layout, Location, MemoryStore, Next, ObjectInfo, Page, PutOptions,
    Replica, Upload,
};

/// What happens in the background has happened long before.
const PATIENCE: Duration = Duration::from_secs(60);

/// A database with all its states, and a replica in memory to put files of it into.
#[derive(Clone, Debug)]
pub(crate) struct History {
    pub(crate) page_size: PageSize,
    pub(crate) store: MemoryStore,
    /// The pages of each state; the first is the empty database before transaction 1.
    states: Vec<Vec<Arc<[u8]>>>,
    /// The pages that each transaction wrote.
    written: Vec<BTreeSet<u32>>,
    random: u64,
    /// What its files carry.
    pub(crate) lineage: Option<Lineage>,
    /// Who wrote them.
    pub(crate) writer: u64,
    /// For whom they are sealed.
    pub(crate) recipients: Recipients,
}

impl History {
    pub(crate) fn new(page_size: u32, seed: u64) -> Self {
        Self {
            page_size: PageSize::new(page_size).unwrap(),
            store: MemoryStore::new(),
            states: vec![Vec::new()],
            written: vec![BTreeSet::new()],
            random: seed,
            lineage: None,
            writer: 0,
            recipients: Recipients::default(),
        }
    }

    /// Three transactions of two pages, each a file.
    pub(crate) fn tiny() -> Self {
        let mut history = Self::new(512, 5);
        history.commit(2, &[]);
        history.put(9, 1, 1);
        for _ in 0..2 {
            let txid = history.commit(2, &[1, 2]);
            history.put(0, txid, txid);
        }
        history
    }

    /// The same database, whose replica lacks nothing but has `bytes` as the file `id`.
    pub(crate) fn with_file(&self, id: FileId, bytes: Vec<u8>) -> Self {
        let forged = self.with_store(&MemoryStore::new());
        for (file, _) in self.store.files() {
            let content = if file == id { bytes.clone().into() } else { self.store.bytes_of(file) };
            forged.put_bytes(file, content, file.name.max().get());
        }
        forged
    }

    /// The same database, with another replica.
    pub(crate) fn with_store(&self, store: &MemoryStore) -> Self {
        Self { store: store.clone(), ..self.clone() }
    }

    /// The same database as of `txid`, to which something else happens from then on.
    pub(crate) fn back_to(&self, txid: u64) -> Self {
        let mut back = Self { random: self.random + 1, ..self.clone() };
        back.states.truncate(txid as usize + 1);
        back.written.truncate(txid as usize + 1);
        back
    }

    /// The next pseudo-random number below `n`.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % n
    }

    /// The last transaction.
    pub(crate) fn last(&self) -> u64 {
        self.states.len() as u64 - 1
    }

    /// A transaction that writes `pages`, and those that are new, and leaves `size` pages.
    pub(crate) fn commit(&mut self, size: u32, pages: &[u32]) -> u64 {
        let mut state = self.states.last().unwrap().clone();
        let new = state.len() as u32 + 1..=size;
        let written: BTreeSet<u32> = pages.iter().copied().chain(new).filter(|p| *p <= size).collect();
        state.resize(size as usize, Arc::from([]));
        for &pgno in &written {
            state[pgno as usize - 1] = self.content(pgno);
        }
        self.states.push(state);
        self.written.push(written);
        self.last()
    }

    /// A transaction that writes some pages and sometimes grows or shrinks the database.
    pub(crate) fn any_commit(&mut self) -> u64 {
        let size = self.states.last().unwrap().len() as u64;
        let size = match self.below(6) {
            0 => size + 1 + self.below(20),
            1 => 1 + self.below(size.max(1)),
            _ => size.max(1),
        } as u32;
        let pages: Vec<u32> = (0..self.below(6)).map(|_| 1 + self.below(u64::from(size)) as u32).collect();
        self.commit(size, &[&[1], pages.as_slice()].concat())
    }

    /// What no other version of any page has.
    fn content(&mut self, pgno: u32) -> Arc<[u8]> {
        let mut page = vec![0; self.page_size.bytes()];
        let random = self.below(page.len() as u64) as usize;
        for byte in &mut page[..random] {
            *byte = self.below(256) as u8;
        }
        let tag = [u64::from(pgno).to_be_bytes(), (self.last() + 1).to_be_bytes()].concat();
        page[100..116].copy_from_slice(&tag);
        page.into()
    }

    /// The database after a transaction.
    pub(crate) fn image(&self, txid: u64) -> Vec<u8> {
        self.states[txid as usize].concat()
    }

    /// Gives page `pgno` of the last state a content, as if its transaction had written it.
    pub(crate) fn place(&mut self, pgno: u32, page: &[u8]) {
        self.states.last_mut().unwrap()[pgno as usize - 1] = page.into();
        self.written.last_mut().unwrap().insert(pgno);
    }

    /// Changes all pages that transaction `txid` wrote, as if it had been another one.
    pub(crate) fn forge(&mut self, txid: u64) {
        for pgno in self.written[txid as usize].clone() {
            if pgno as usize <= self.states[txid as usize].len() {
                self.states[txid as usize][pgno as usize - 1] = self.content(pgno);
            }
        }
    }

    /// When a transaction was committed.
    pub(crate) fn time(&self, txid: u64) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000 + txid as i64 * 1000)
    }

    /// The file that holds the transactions `min` to `max`.
    pub(crate) fn encode(&self, min: u64, max: u64) -> Bytes {
        self.encode_packed(min, max, None).0
    }

    /// As [`History::encode`]; also its pack as the file of this id, with the blocks of the index of a file of at least so many
    /// bytes.
    fn encode_packed(&self, min: u64, max: u64, pack: Option<(FileId, u64)>) -> (Bytes, Option<Bytes>) {
        let state = &self.states[max as usize];
        let mut pages: BTreeSet<u32> = (min..=max).flat_map(|t| self.written[t as usize].clone()).collect();
        pages.retain(|pgno| *pgno <= state.len() as u32);
        let commit = PageCount::new(state.len() as u32);
        let plain = Header::new(self.page_size, commit, name(min, max), self.time(max));
        let header = Header { lineage: self.lineage, node_id: self.writer, ..plain };
        let mut encoder = self.encoder(header);
        let builder = |(id, size)| Some(PackBuilder::new(id, &encoder).unwrap()?.with_blocks_from(size));
        let mut pack = pack.and_then(builder);
        for pgno in pages {
            let page = &state[pgno as usize - 1];
            encoder.page(Pgno::new(pgno).unwrap(), page).unwrap();
            let (entry, frame) = encoder.last_frame().unwrap();
            if let Some(pack) = &mut pack {
                pack.page(page, entry, frame);
            }
        }
        let (bytes, summary) = encoder.finish().unwrap();
        (bytes.into(), pack.map(|pack| pack.finish(&summary).unwrap().bytes))
    }

    fn encoder(&self, header: Header) -> Encoder<Vec<u8>> {
        if self.recipients.is_empty() {
            return Encoder::new(Vec::new(), header).unwrap();
        }
        let header = Header { lineage: None, ..header };
        Encoder::sealed(Vec::new(), Seal::new(header, &self.recipients).unwrap()).unwrap()
    }

    /// The pack of the file that holds `min` to `max` on `level`, without the blocks of its index.
    pub(crate) fn pack(&self, level: u8, min: u64, max: u64) -> Bytes {
        self.pack_with_blocks_from(u64::MAX, level, min, max)
    }

    /// As [`History::pack`], with the blocks of the index of a file of at least `size` bytes.
    pub(crate) fn pack_with_blocks_from(&self, size: u64, level: u8, min: u64, max: u64) -> Bytes {
        self.encode_packed(min, max, Some((id(level, min, max), size))).1.unwrap()
    }

    /// Stores the file that holds `min` to `max` again; returns its pack, with the blocks of its index. No two files are sealed
    /// alike.
    pub(crate) fn put_packed(&self, level: u8, min: u64, max: u64) -> Bytes {
        let id = id(level, min, max);
        let (bytes, pack) = self.encode_packed(min, max, Some((id, 0)));
        self.put_bytes(id, bytes, max);
        pack.unwrap()
    }

    /// Stores the file that holds `min` to `max`, and its pack, which has the page index in blocks.
    pub(crate) fn put_in_blocks(&self, level: u8, min: u64, max: u64) -> FileId {
        self.put_pack(id(level, min, max), self.pack_with_blocks_from(0, level, min, max));
        self.put(level, min, max)
    }

    /// Stores `pack` as that of the file `id`.
    pub(crate) fn put_pack(&self, id: FileId, pack: Bytes) {
        let (store, time) = (self.store.clone(), self.time(id.name.max().get()));
        runtime::block_on(async move { store.put_pack(id, pack, time).await }).unwrap();
    }

    /// Removes the pack of the file `id`.
    pub(crate) fn delete_pack(&self, id: FileId) {
        let store = self.store.replica();
        runtime::block_on(async move { store.delete_packs(&[id]).await }).unwrap();
    }

    /// Makes of the last state's page 1 one of SQLite's, without a schema.
    pub(crate) fn begin_as_sqlite(&mut self) {
        let mut first = vec![0; self.page_size.bytes()];
        first[..16].copy_from_slice(b"SQLite format 3\0");
        self.place(1, &first);
    }

    /// Stores the file that holds `min` to `max`.
    pub(crate) fn put(&self, level: u8, min: u64, max: u64) -> FileId {
        let id = id(level, min, max);
        self.put_bytes(id, self.encode(min, max), max);
        id
    }

    /// Stores transaction `txid` as one that leaves `size` pages and wrote only `pgno`, as SQLite does
    /// when the other new pages are free at once.
    pub(crate) fn put_sparse(&self, txid: u64, size: u32, pgno: u32, page: &[u8]) {
        let header = Header::new(self.page_size, PageCount::new(size), name(txid, txid), self.time(txid));
        let mut encoder = Encoder::new(Vec::new(), header).unwrap();
        encoder.page(Pgno::new(pgno).unwrap(), page).unwrap();
        self.put_bytes(id(0, txid, txid), encoder.finish().unwrap().0.into(), txid);
    }

    /// Stores `bytes` as a file of the time of `txid`.
    pub(crate) fn put_bytes(&self, id: FileId, bytes: Bytes, txid: u64) {
        let store = self.store.clone();
        let options = PutOptions { timestamp: self.time(txid), if_absent: false };
        runtime::block_on(async move { store.put(id, bytes, options).await }).unwrap();
    }

    /// Commits and stores transactions up to `last` in level 0.
    pub(crate) fn grow(&mut self, last: u64) {
        while self.last() < last {
            let txid = self.any_commit();
            self.put(0, txid, txid);
        }
    }

    pub(crate) fn delete(&self, ids: &[FileId]) {
        let (store, ids) = (self.store.clone(), ids.to_vec());
        runtime::block_on(async move { store.delete(&ids).await }).unwrap();
    }

    /// Removes all files of `level` that hold only transactions `min` to `max`.
    pub(crate) fn retire(&self, level: u8, min: u64, max: u64) {
        let within =
            |id: &FileId| id.level.get() == level && id.name.min().get() >= min && id.name.max().get() <= max;
        let ids: Vec<FileId> = self.store.files().into_iter().map(|(id, _)| id).filter(within).collect();
        self.delete(&ids);
    }

    pub(crate) fn store(&self) -> Arc<Replica> {
        self.store.replica()
    }
}

/// The replica in a folder.
pub(crate) fn in_folder(path: impl AsRef<Path>) -> Arc<Replica> {
    at_folder(path).connect()
}

/// Where the replica in a folder is.
pub(crate) fn at_folder(path: impl AsRef<Path>) -> Location {
    let url = format!("file://{}", path.as_ref().display());
    Location::parse(&url, &|_: &str| None).unwrap()
}

/// Waits for what happens in the background.
pub(crate) fn until(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "{what} did not come");
        std::thread::sleep(Duration::from_millis(1));
    }
}

pub(crate) fn txid(n: u64) -> Txid {
    Txid::new(n).unwrap()
}

pub(crate) fn name(min: u64, max: u64) -> FileName {
    FileName::new(txid(min), txid(max)).unwrap()
}

pub(crate) fn id(level: u8, min: u64, max: u64) -> FileId {
    FileId::new(Level::new(level).unwrap(), name(min, max))
}

type Hook = dyn Fn(FileId, ByteRange) + Send + Sync;

/// A bucket that calls a function before every read of a file.
#[derive(Clone)]
pub(crate) struct Hooked {
    inner: Arc<dyn Bucket>,
    before_get: Arc<Hook>,
}

impl Hooked {
    pub(crate) fn store(
        inner: &MemoryStore,
        before_get: impl Fn(FileId, ByteRange) + Send + Sync + 'static,
    ) -> Arc<Replica> {
        Arc::new(inner.wrapped(|inner| Arc::new(Self { inner, before_get: Arc::new(before_get) })))
    }
}

impl fmt::Debug for Hooked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hooked")
    }
}

#[async_trait]
impl Bucket for Hooked {
    fn describe(&self) -> String {
        self.inner.describe()
    }
    async fn list(&self, prefix: &str, start: Option<Next>) -> Result<Page<ObjectInfo>> {
        self.inner.list(prefix, start).await
    }
    async fn head(&self, key: &str) -> Result<ObjectInfo> {
        self.inner.head(key).await
    }
    async fn get(&self, key: &str, range: ByteRange, size: Option<u64>) -> Result<Content> {
        if let Some(id) = Layout::Ltx.file(key) {
            (self.before_get)(id, range);
        }
        self.inner.get(key, range, size).await
    }
    async fn put(&self, key: &str, body: Bytes, options: &PutOptions) -> Result<()> {
        self.inner.put(key, body, options).await
    }
    async fn upload(&self, key: &str, options: &PutOptions) -> Result<Box<dyn Upload>> {
        self.inner.upload(key, options).await
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
    fn misses_cheaply(&self) -> bool {
        self.inner.misses_cheaply()
    }
}
