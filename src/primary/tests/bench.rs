//! A database, a replica in memory, a primary between them, and the question whether they agree.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::Instant;

use super::sqlite::{Db, digest};
use crate::clock::{ManualClock, Timestamp};
use crate::error::{Error, Result};
use crate::ltx::{Decoder, Encoder, FileId, FileName, Header, Level, Txid};
use crate::page::{PageCount, PageSize, Pgno};
use crate::primary::shipper::ReplicaId;
use crate::primary::{
    Calendar, HistoryOptions, HistorySettings, NamedSettings, Options, Primary, ReplicaConfig,
    ReplicaOptions, Rewound, SnapshotAt, Status, state_folder,
};
use crate::store::{
    ByteRange, Faults, Location, MemoryStore, Op, PutOptions, Replica, ReplicaIdentity, RetryPolicy,
};

/// Longer than anything takes that does not hang.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

pub(super) struct Bench {
    _folder: TempDir,
    pub(super) db: Db,
    pub(super) memory: MemoryStore,
    /// What the primary sees of `memory`.
    pub(super) store: Faults,
    /// What it sees of a second replica, if it has one.
    pub(super) second: Option<(MemoryStore, Faults)>,
    pub(super) clock: Arc<ManualClock>,
    pub(super) options: ReplicaOptions,
    /// Options of the database.
    pub(super) database: Options,
    /// The store tries again what fails.
    pub(super) retries: bool,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.kill();
        Primary::outlive(&self.db.path);
    }
}

impl Bench {
    /// A database of `pages` pages that nobody has opened, and an empty replica.
    pub(super) fn new(pages: usize) -> Self {
        Self::with_page_size(PageSize::MIN, pages)
    }

    pub(super) fn with_page_size(page_size: PageSize, pages: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let memory = MemoryStore::new();
        Self {
            db: Db::new(&folder.path().join("app.db"), page_size, pages),
            _folder: folder,
            store: Faults::new(&memory, 1),
            memory,
            second: None,
            clock: Arc::new(ManualClock::new(Timestamp::from_millis(1_000_000))),
            options: ReplicaOptions {
                sync_interval: Duration::ZERO,
                verify_interval: Duration::ZERO,
                rewound: Rewound::Forward,
                auto_recover: true,
                recipients: crate::ltx::Recipients::default(),
                pack: true,
                spool_limit: 1 << 30,
                history: defaulting_to(no_history()),
                named: Vec::new(),
            },
            database: Options {
                close_timeout: PATIENCE,
                watch_interval: Duration::from_secs(3600),
                ..Options::default()
            },
            retries: false,
        }
    }

    /// Like `new`, with a second replica.
    pub(super) fn with_two_replicas(pages: usize) -> Self {
        let memory = MemoryStore::new();
        let mut bench = Self::new(pages);
        bench.second = Some((memory.clone(), Faults::new(&memory, 2)));
        bench
    }

    /// Like `new`, opened, and with all in the replica.
    pub(super) fn synced(pages: usize) -> Self {
        let mut bench = Self::new(pages);
        bench.open();
        bench.sync();
        bench
    }

    /// The publisher sent the copy and, as transaction 2, one commit. With a long `sync_interval` it does
    /// nothing now until somebody waits. (After a copy alone it would look for commits once more.)
    pub(super) fn open_and_rest(&mut self) {
        self.open();
        self.sync();
        self.db.change(1);
        assert_eq!(self.sync().get(), 2);
        // Who waits may be seen for a moment after it was answered.
        self.until("rest", |bench| bench.primary().is_at_rest());
    }

    pub(super) fn try_open(&mut self) -> Result<()> {
        let target = unused();
        let (store, host) = (self.store.clone(), self.db.host());
        let clock = Arc::clone(&self.clock);
        let retries = self.retries;
        let second = self.second.as_ref().map(|(_, store)| store.clone());
        let connect = |to: &Location| -> Result<Arc<Replica>> {
            let store = if *to == target { Some(&store) } else { second.as_ref() };
            let store = Arc::new(store.expect("a store for each replica").clone());
            let policy = RetryPolicy { base_delay: Duration::from_millis(1), ..RetryPolicy::default() };
            Ok(if retries { Arc::new(store.patient(policy)) } else { store.replica() })
        };
        let targets = [
            Some(target.clone()),
            second.as_ref().map(|_| Location::parse("file:///second", &|_: &str| None).unwrap()),
        ];
        let replica = |target| ReplicaConfig { target, options: self.options.clone() };
        let replicas: Vec<ReplicaConfig> = targets.into_iter().flatten().map(replica).collect();
        let primary = Primary::open(&self.db.path, &replicas, &self.database, clock, connect, || host)?;
        self.db.primary = Some(primary);
        self.db.take_overwritten();
        Ok(())
    }

    pub(super) fn open(&mut self) {
        self.try_open().unwrap();
    }

    pub(super) fn primary(&self) -> &Arc<Primary> {
        self.db.primary.as_ref().expect("the primary is open")
    }

    pub(super) fn try_sync(&self) -> Result<Txid> {
        sync(self.primary(), PATIENCE)
    }

    /// Waits until all that is committed is in the replica.
    pub(super) fn sync(&self) -> Txid {
        self.try_sync().unwrap()
    }

    pub(super) fn status(&self) -> Status {
        self.primary().status().remove(0)
    }

    /// The last connection closes, and is closed for long.
    pub(super) fn close(&mut self) {
        self.close_for_a_moment();
        Primary::outlive(&self.db.path);
    }

    /// The last connection closes.
    pub(super) fn close_for_a_moment(&mut self) {
        self.db.close_last();
        let primary = self.db.primary.take().expect("the primary is open");
        primary.close(Instant::now(), self.database.close_timeout);
    }

    /// kill -9.
    pub(super) fn kill(&mut self) {
        if let Some(primary) = self.db.primary.take() {
            primary.kill();
            if let Some(simulation) = crate::runtime::simulated::current() {
                simulation.kill();
            }
            self.db.recover();
        }
    }

    /// The folder of local state.
    pub(super) fn state_folder(&self) -> PathBuf {
        state_folder(&self.db.path)
    }

    /// A file in the folder of local state of the replica.
    pub(super) fn local(&self, name: &str) -> PathBuf {
        let id = ReplicaId::of(&ReplicaIdentity::from(&unused()));
        id.folder(&state_folder(&self.db.path)).join(name)
    }

    /// The names of the waiting files.
    pub(super) fn spooled(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.local("spool"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// How many files were sent in one request, or tried to be.
    pub(super) fn puts(&self) -> u64 {
        self.store.count(Op::Put)
    }

    /// How many full copies were begun.
    pub(super) fn copies(&self) -> u64 {
        self.store.count(Op::Upload)
    }

    /// The transactions in the replica.
    pub(super) fn txids(&self) -> Vec<u64> {
        self.last_of(Level::L0)
    }

    /// The transactions of which the replica has snapshots.
    pub(super) fn snapshots(&self) -> Vec<u64> {
        self.last_of(Level::SNAPSHOT)
    }

    fn last_of(&self, level: Level) -> Vec<u64> {
        let files = self.memory.files();
        files.iter().filter(|(id, _)| id.level == level).map(|(id, _)| id.name.max().get()).collect()
    }

    pub(super) fn header(&self, txid: u64) -> Header {
        self.read(txid).0
    }

    /// The pages of one file of the replica.
    pub(super) fn pages_of(&self, txid: u64) -> Vec<u32> {
        self.read(txid).1.into_iter().map(|(pgno, _)| pgno).collect()
    }

    fn read(&self, txid: u64) -> (Header, Vec<(u32, Vec<u8>)>) {
        Self::read_from(&self.memory, txid)
    }

    /// A file of the second replica: its header and its pages.
    pub(super) fn read_second(&self, txid: u64) -> (Header, Vec<(u32, Vec<u8>)>) {
        Self::read_from(&self.second.as_ref().expect("a second replica").0, txid)
    }

    fn read_from(memory: &MemoryStore, txid: u64) -> (Header, Vec<(u32, Vec<u8>)>) {
        let id = FileId::new(Level::L0, FileName::single(Txid::new(txid).unwrap()));
        let memory = memory.clone();
        let bytes = run(async move { memory.get(id, ByteRange::All).await?.bytes().await }).unwrap();
        let mut decoder = Decoder::new(&bytes[..]).unwrap();
        let header = *decoder.header();
        assert_eq!(header.name(), id.name);
        let mut page = vec![0; header.page_size.bytes()];
        let mut pages = Vec::new();
        while let Some(pgno) = decoder.next_page(&mut page).unwrap() {
            pages.push((pgno.get(), page.clone()));
        }
        decoder.finish().unwrap();
        (header, pages)
    }

    /// The states of the replica after each of its transactions, the last one's pages with them.
    pub(super) fn replay(&self) -> (Vec<u64>, Vec<Vec<u8>>) {
        let (mut states, mut database) = (Vec::new(), Vec::new());
        for (i, txid) in self.txids().into_iter().enumerate() {
            assert_eq!(txid, i as u64 + 1, "transactions are contiguous");
            let (header, pages) = self.read(txid);
            database.resize(header.commit.get() as usize, vec![0; header.page_size.bytes()]);
            for (pgno, page) in pages {
                database[pgno as usize - 1] = page;
            }
            states.push(digest(&database));
        }
        (states, database)
    }

    /// Every transaction of the replica is a state that was once committed, and the last one is the
    /// state now.
    pub(super) fn assert_replica_is_current(&self) {
        let (states, last) = self.replay();
        for (i, state) in states.iter().enumerate() {
            assert!(self.db.history.contains_key(state), "transaction {} was never committed", i + 1);
        }
        assert!(last == self.db.pages, "the replica ends in an older state");
    }

    /// Waits for what happens in the background.
    pub(super) fn until(&self, what: &str, done: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done(self) {
            assert!(Instant::now() < deadline, "{what} did not come");
            crate::runtime::nap(Duration::from_millis(2));
        }
    }
}

/// Where the replica is said to be, which is in memory.
fn unused() -> Location {
    Location::parse("file:///unused", &|_: &str| None).unwrap()
}

/// Waits until all that is committed is in the one replica of `primary`.
pub(super) fn sync(primary: &Primary, timeout: Duration) -> Result<Txid> {
    primary.sync(timeout, &|| false).map(|txid| txid.expect("one replica is always needed"))
}

/// Files stay as they are published.
pub(super) fn no_history() -> HistorySettings {
    let day = Duration::from_secs(24 * 3600);
    HistorySettings {
        levels: Vec::new(),
        snapshot_interval: day,
        snapshot_at: SnapshotAt::Anytime,
        snapshot_retention: day,
        l0_retention: day,
        retention: false,
        calendar: Calendar::default(),
    }
}

/// Nothing is named, so that these settings hold.
pub(super) fn defaulting_to(defaults: HistorySettings) -> HistoryOptions {
    HistoryOptions { named: NamedSettings::default(), defaults }
}

/// Runs asynchronous work of a store on this thread.
pub(super) fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// The message of an error, which must have come.
pub(super) fn message<T>(outcome: Result<T, Error>) -> String {
    match outcome {
        Ok(_) => panic!("it succeeded"),
        Err(e) => e.to_string(),
    }
}

/// Somebody else writes a file of level 0 that holds `pages` and bears `node_id`.
pub(super) fn foreign_file(bench: &Bench, txid: u64, node_id: u64, pages: &[Vec<u8>]) {
    let name = FileName::single(Txid::new(txid).unwrap());
    let timestamp = Timestamp::from_millis(1_500_000);
    let page_size = PageSize::new(pages[0].len() as u32).unwrap();
    let header =
        Header { node_id, ..Header::new(page_size, PageCount::new(pages.len() as u32), name, timestamp) };
    file_with(bench, header, pages);
}

/// A file of level 0 with `header` that holds `pages` appears in the replica.
pub(super) fn file_with(bench: &Bench, header: Header, pages: &[Vec<u8>]) {
    let mut encoder = Encoder::new(Vec::new(), header).unwrap();
    for (i, page) in pages.iter().enumerate() {
        encoder.page(Pgno::new(i as u32 + 1).unwrap(), page).unwrap();
    }
    let body = encoder.finish().unwrap().0.into();
    let memory = bench.memory.clone();
    let options = PutOptions { timestamp: header.timestamp, if_absent: true };
    run(async move { memory.put(FileId::new(Level::L0, header.name()), body, options).await }).unwrap();
}

/// The header of the file that the local state says to be on its way.
pub(super) fn sent_header(bench: &Bench) -> Header {
    let state: serde_json::Value =
        serde_json::from_slice(&std::fs::read(bench.local("vfs.json")).unwrap()).unwrap();
    let digits = state["sent"][0]["header"].as_str().unwrap();
    let bytes: Vec<u8> =
        (0..digits.len()).step_by(2).map(|i| u8::from_str_radix(&digits[i..i + 2], 16).unwrap()).collect();
    Header::decode(bytes[..].first_chunk().unwrap()).unwrap()
}
