//! A replica of ten million pages, 40 GB, is open in one process. Its page map takes at most 20 bytes a
//! page, and a hundred states of it that are in use at the same time share what did not change.
//!
//! The snapshot is made up: the store answers a header and a page index, and has no pages.
#![cfg(target_os = "linux")]
// Nothing here is outside of a test.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;
use litestream_vfs::clock::Timestamp;
use litestream_vfs::error::{Error, ErrorKind, Result};
use litestream_vfs::ltx::{
    Encoder, FileId, FileName, Header, IndexEntry, Level, PageIndex, Shape, Trailer, Txid,
};
use litestream_vfs::page::{PageCount, PageSize, Pgno};
use litestream_vfs::replica::{Core, Options, View};
use litestream_vfs::store::{
    Bucket, ByteRange, Content, Fencing, Layout, Next, ObjectInfo, Page, PutOptions, Replica, Upload,
};

const PAGES: u32 = 10_000_000;
const PAGE_SIZE: u32 = 4096;
/// A page of 4096 bytes that compresses well enough.
const FRAME: u64 = 2000;
/// Transactions after the snapshot, and pages that each writes.
const TRANSACTIONS: u64 = 100;
const WRITTEN: u64 = 5;

/// A file of which only some parts exist.
#[derive(Debug)]
struct Parts {
    size: u64,
    first: Bytes,
    last: Bytes,
}

impl Parts {
    fn whole(bytes: Vec<u8>) -> Self {
        Self { size: bytes.len() as u64, first: bytes.into(), last: Bytes::new() }
    }

    fn read(&self, start: u64, end: u64) -> Bytes {
        let last = self.size - self.last.len() as u64;
        if start < self.first.len() as u64 {
            // The pages that follow the header of a real file do not matter here.
            let mut bytes = vec![0; (end - start) as usize];
            let known = self.first.slice(start as usize..self.first.len().min(end as usize));
            bytes[..known.len()].copy_from_slice(&known);
            bytes.into()
        } else {
            assert!(start >= last, "no such part: {start}..{end}");
            self.last.slice((start - last) as usize..(end - last) as usize)
        }
    }
}

#[derive(Debug, Default)]
struct MadeUp(Mutex<BTreeMap<FileId, Parts>>);

impl MadeUp {
    fn add(&self, level: u8, min: u64, max: u64, parts: Parts) {
        let id = FileId::new(Level::new(level).unwrap(), name(min, max));
        self.0.lock().unwrap().insert(id, parts);
    }
}

#[async_trait]
impl Bucket for MadeUp {
    fn describe(&self) -> String {
        "made up".into()
    }
    async fn list(&self, prefix: &str, start: Option<Next>) -> Result<Page<ObjectInfo>> {
        let after = match start {
            Some(Next::After(key) | Next::Token(key)) => key,
            None => String::new(),
        };
        let files = self.0.lock().unwrap();
        let all = files.iter().map(|(id, parts)| info(*id, parts.size));
        let entries = all.filter(|object| object.key.starts_with(prefix) && object.key > after).collect();
        Ok(Page { entries, next: None })
    }
    async fn head(&self, key: &str) -> Result<ObjectInfo> {
        let id = Layout::Ltx.file(key).unwrap();
        Ok(info(id, self.0.lock().unwrap()[&id].size))
    }
    async fn get(&self, key: &str, range: ByteRange, _: Option<u64>) -> Result<Content> {
        let files = self.0.lock().unwrap();
        // There are no packs.
        let Some(id) = Layout::Ltx.file(key) else {
            return Err(Error::new(ErrorKind::NotFound, key.to_owned()));
        };
        let parts = &files[&id];
        let (start, end) = range.within(parts.size).unwrap();
        let bytes = parts.read(start, end);
        let body = futures_util::stream::iter([Ok(bytes)]).boxed();
        Ok(Content { offset: start, file_size: parts.size, timestamp: None, body })
    }
    async fn put(&self, _: &str, _: Bytes, _: &PutOptions) -> Result<()> {
        unimplemented!()
    }
    async fn upload(&self, _: &str, _: &PutOptions) -> Result<Box<dyn Upload>> {
        unimplemented!()
    }
    async fn delete(&self, _: &[String]) -> Result<()> {
        unimplemented!()
    }
    fn fencing(&self) -> Fencing {
        Fencing::Atomic
    }
}

fn info(id: FileId, size: u64) -> ObjectInfo {
    let timestamp = time(id.name.max().get());
    ObjectInfo { key: Layout::Ltx.path(id), size, timestamp, stored: timestamp }
}

fn time(txid: u64) -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000 + txid as i64)
}

fn name(min: u64, max: u64) -> FileName {
    FileName::new(Txid::new(min).unwrap(), Txid::new(max).unwrap()).unwrap()
}

fn header(min: u64, max: u64) -> Header {
    Header::new(PageSize::new(PAGE_SIZE).unwrap(), PageCount::new(PAGES), name(min, max), time(max))
}

/// The snapshot: header, and page index with what follows it.
fn snapshot() -> Parts {
    let entry = |n: u32| IndexEntry {
        pgno: Pgno::new(n + 1).unwrap(),
        offset: Header::SIZE as u64 + u64::from(n) * FRAME,
        size: FRAME,
    };
    let mut last = PageIndex::from_entries(Shape::PLAIN, (0..PAGES).map(entry)).unwrap().encode();
    let varints = last.len() as u64;
    last.extend_from_slice(&varints.to_be_bytes());
    last.extend_from_slice(&[0x80; Trailer::SIZE]);
    let end_of_pages = 6;
    let size = Header::SIZE as u64 + u64::from(PAGES) * FRAME + end_of_pages + last.len() as u64;
    Parts { size, first: header(1, 1).encode().to_vec().into(), last: last.into() }
}

/// Pages that a transaction writes: spread over the database.
fn written(txid: u64) -> Vec<u32> {
    let mut pages: Vec<u32> =
        (0..WRITTEN).map(|n| 1 + ((txid * WRITTEN + n) * 7_919_993 % u64::from(PAGES)) as u32).collect();
    pages.sort_unstable();
    pages
}

fn transaction(txid: u64) -> Parts {
    let mut encoder = Encoder::new(Vec::new(), header(txid, txid)).unwrap();
    for pgno in written(txid) {
        encoder.page(Pgno::new(pgno).unwrap(), &page(txid)).unwrap();
    }
    Parts::whole(encoder.finish().unwrap().0)
}

fn page(txid: u64) -> Vec<u8> {
    txid.to_be_bytes().repeat(PAGE_SIZE as usize / 8)
}

/// Memory of this process in bytes: resident now, and at most.
fn resident() -> (u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let kib = |field| {
        let line = status.lines().find_map(|line: &str| line.strip_prefix(field)).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap()
    };
    (kib("VmRSS:") * 1024, kib("VmHWM:") * 1024)
}

#[test]
fn ten_million_pages_take_20_bytes_each_and_states_share_them() {
    let store = Arc::new(MadeUp::default());
    store.add(9, 1, 1, snapshot());
    let still = Options { poll_interval: Duration::from_secs(3600), ..Options::default() };
    let (before, _) = resident();

    let begun = Instant::now();
    let replica = Arc::new(Replica::new(store.clone(), "", Layout::Ltx));
    let core = Core::with_store(replica, &still).unwrap();
    let opened = begun.elapsed();
    let (after, peak) = resident();
    let bytes = after.saturating_sub(before) as f64 / f64::from(PAGES);
    println!("open: {opened:?}, {bytes:.2} bytes a page, at most {} MB while opening", (peak - before) >> 20);
    assert_eq!(core.snapshot().bytes(), u64::from(PAGES) * u64::from(PAGE_SIZE));
    assert!(bytes <= 20.0, "{bytes} bytes a page");

    let mut views = Vec::new();
    let mut longest = Duration::ZERO;
    for txid in 2..2 + TRANSACTIONS {
        store.add(0, txid, txid, transaction(txid));
        let begun = Instant::now();
        core.poll_now().unwrap();
        longest = longest.max(begun.elapsed());
        let mut view = View::new(core.clone());
        view.pin();
        views.push(view);
    }
    let (now, _) = resident();
    let state = now.saturating_sub(after) / TRANSACTIONS;
    println!("{TRANSACTIONS} more states: {} KiB each, the longest swap took {longest:?}", state >> 10);
    // Of each page that was written: its chunk, its group, and the page itself in the cache.
    assert!(state <= WRITTEN * 16 * 1024, "{state} bytes for a state that changed {WRITTEN} pages");

    for (n, view) in views.iter_mut().enumerate() {
        let txid = n as u64 + 2;
        assert_eq!(view.snapshot().txid.get(), txid);
        let mut found = vec![0; PAGE_SIZE as usize];
        for pgno in written(txid) {
            view.read(&mut found, u64::from(pgno - 1) * u64::from(PAGE_SIZE)).unwrap();
            assert!(found == page(txid), "page {pgno} at {txid}");
        }
    }
}
