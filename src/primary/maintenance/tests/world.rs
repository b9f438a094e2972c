//! A replica in memory whose every state is known, and who keeps its history.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tempfile::TempDir;

use crate::clock::{Clock, ManualClock, Timestamp};
use crate::error::Result;
use crate::ltx::{Decoder, Encoder, FileId, FileName, Header, Level, Txid};
use crate::page::{PageCount, PageSize, Pgno};
use crate::primary::maintenance::compactor::Compactor;
use crate::primary::maintenance::settings::{before, window_start};
use crate::primary::maintenance::{Calendar, History, Settings, SnapshotAt};
use crate::primary::seals::Seals;
use crate::primary::time::Time;
use crate::store::{ByteRange, Faults, FileInfo, MemoryStore, PutOptions};

pub(super) const MINUTE: Duration = Duration::from_secs(60);

/// The pages of a database.
pub(super) type Pages = Vec<Vec<u8>>;

pub(super) struct World {
    pub(super) memory: MemoryStore,
    /// What the compactor sees of `memory`.
    pub(super) store: Faults,
    pub(super) clock: Arc<ManualClock>,
    time: Arc<Time>,
    pub(super) settings: Settings,
    pub(super) history: Arc<History>,
    pub(super) compactor: Compactor,
    folder: TempDir,
    pages: Pages,
    /// Every state, by its transaction, with the time of its commit.
    pub(super) states: BTreeMap<u64, (Timestamp, Pages)>,
    random: u64,
}

/// Litestream's levels, with snapshots often enough for an hour.
pub(super) fn settings() -> Settings {
    Settings {
        levels: vec![MINUTE / 2, MINUTE * 5, MINUTE * 60],
        snapshot_interval: MINUTE * 15,
        snapshot_at: SnapshotAt::Anytime,
        snapshot_retention: MINUTE * 20,
        l0_retention: MINUTE * 5,
        retention: true,
        calendar: Calendar::default(),
    }
}

pub(super) fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// What is done in memory, also while something else is under way.
fn at_once<T>(work: impl Future<Output = T>) -> T {
    work.now_or_never().expect("nothing is waited for")
}

fn compactor(
    store: &Faults,
    settings: Settings,
    time: Arc<Time>,
    history: Arc<History>,
    folder: PathBuf,
) -> Compactor {
    Compactor::new(store.replica(), (true, Arc::new(Seals::none())), settings, time, history, folder)
}

impl World {
    pub(super) fn new(seed: u64, settings: Settings) -> Self {
        let memory = MemoryStore::new();
        let store = Faults::new(&memory, seed);
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_800_000_000_000)));
        let folder = tempfile::tempdir().unwrap();
        let history = Arc::new(History::default());
        let time = Arc::new(Time::new(clock.clone(), store.replica()));
        let place = folder.path().to_owned();
        let compactor = compactor(&store, settings.clone(), Arc::clone(&time), Arc::clone(&history), place);
        let states = BTreeMap::new();
        let world = Self {
            memory,
            store,
            clock,
            time,
            settings,
            history,
            compactor,
            folder,
            pages: Vec::new(),
            states,
            random: seed,
        };
        world.begin();
        world
    }

    fn begin(&self) {
        self.history.begin(Txid::new(self.last()), 7);
    }

    /// The process is gone, and another one publishes.
    pub(super) fn restart(&mut self) {
        self.history = Arc::new(History::default());
        self.compactor = self.new_compactor();
        self.begin();
    }

    fn new_compactor(&self) -> Compactor {
        let (time, history) = (Arc::clone(&self.time), Arc::clone(&self.history));
        compactor(&self.store, self.settings.clone(), time, history, self.folder())
    }

    /// A round, and what happens while it waits for the first of its requests that is delayed.
    pub(super) fn round_beside(&mut self, meanwhile: impl FnOnce(&mut Self)) {
        let stand_in = self.new_compactor();
        let mut busy = std::mem::replace(&mut self.compactor, stand_in);
        let (done, ()) = run(async { tokio::join!(busy.round(), async { meanwhile(self) }) });
        done.unwrap();
        self.compactor = busy;
    }

    /// The process ends in order.
    pub(super) fn close(&mut self) {
        self.round();
        self.compactor.tell();
        self.history.remember(self.folder.path(), &self.store.url());
        self.restart();
    }

    /// Where local state is.
    pub(super) fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// A number below `n`.
    pub(super) fn random(&mut self, n: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) % n
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(super) fn pass(&self, time: Duration) {
        self.clock.set(Timestamp::from_millis(self.now().as_millis() + time.as_millis() as i64));
    }

    pub(super) fn last(&self) -> u64 {
        self.states.keys().last().copied().unwrap_or(0)
    }

    /// Publishes a change of some pages.
    pub(super) fn commit(&mut self) {
        self.commit_of(self.now());
    }

    /// Publishes a change of some pages that was committed at `time`.
    pub(super) fn commit_of(&mut self, time: Timestamp) {
        let txid = self.last() + 1;
        let old = self.pages.len() as u64;
        let size =
            if old == 0 { 20 } else { (old + self.random(3)).saturating_sub(self.random(3)).clamp(5, 60) };
        let changed = self.random(8) + 1;
        self.pages.resize(size as usize, vec![0; 512]);
        let mut pgnos: Vec<u64> = (0..changed).map(|_| self.random(size) + 1).chain(old + 1..=size).collect();
        pgnos.sort_unstable();
        pgnos.dedup();
        for pgno in &pgnos {
            let noise = self.random(1 << 40);
            let page = &mut self.pages[*pgno as usize - 1];
            page[..8].copy_from_slice(&noise.to_be_bytes());
            page[8..16].copy_from_slice(&txid.to_be_bytes());
        }
        let id = FileId::new(Level::L0, FileName::single(Txid::new(txid).unwrap()));
        let header = Header::new(PageSize::MIN, PageCount::new(size as u32), id.name, time);
        let mut encoder = Encoder::new(Vec::new(), header).unwrap();
        for pgno in pgnos {
            encoder.page(Pgno::new(pgno as u32).unwrap(), &self.pages[pgno as usize - 1]).unwrap();
        }
        let bytes: bytes::Bytes = encoder.finish().unwrap().0.into();
        let options = PutOptions { timestamp: time, if_absent: true };
        at_once(self.memory.put(id, bytes.clone(), options)).unwrap();
        self.states.insert(txid, (time, self.pages.clone()));
        let file = FileInfo { id, size: bytes.len() as u64, timestamp: self.time.now() };
        self.history.published(file, time, Some(bytes));
    }

    /// The compactor takes up the news and does what is due.
    pub(super) fn try_round(&mut self) -> Result<()> {
        run(self.compactor.round())
    }

    pub(super) fn round(&mut self) {
        self.try_round().unwrap();
    }

    /// Lets time pass until nothing will be due any more.
    pub(super) fn run_down(&mut self) {
        self.round();
        while let Some(due) = self.compactor.due() {
            assert!(due > self.now(), "something is due, and was not done");
            self.clock.set(due);
            self.round();
        }
    }

    pub(super) fn files(&self, level: u8) -> Vec<FileInfo> {
        at_once(self.memory.list(Level::new(level).unwrap(), Txid::ONE)).unwrap()
    }

    pub(super) fn all_files(&self) -> Vec<FileInfo> {
        (0..=9).flat_map(|level| self.files(level)).collect()
    }

    /// What the files that are there make at transaction `txid`.
    pub(super) fn restore(&self, txid: u64) -> Option<Pages> {
        let plan = plan(&self.all_files(), txid)?;
        Some(plan.iter().fold(Pages::new(), |pages, file| self.apply(pages, file)))
    }

    fn apply(&self, mut pages: Pages, file: &FileInfo) -> Pages {
        let bytes = run(async { self.memory.get(file.id, ByteRange::All).await?.bytes().await }).unwrap();
        let mut decoder = Decoder::new(&bytes[..]).unwrap();
        let header = *decoder.header();
        assert_eq!(header.name(), file.id.name);
        let range = header.min.get()..=header.max.get();
        let latest = self.states.range(range).map(|(_, (time, _))| *time).max();
        assert_eq!(Some(header.timestamp), latest, "{}: the time of its latest commit", file.id);
        pages.resize(header.commit.get() as usize, vec![0; 512]);
        let mut page = vec![0; 512];
        while let Some(pgno) = decoder.next_page(&mut page).unwrap() {
            pages[pgno.get() as usize - 1].copy_from_slice(&page);
        }
        decoder.finish().unwrap();
        pages
    }

    /// The transactions that can be restored.
    pub(super) fn points(&self) -> Vec<u64> {
        let mut ends: Vec<u64> = self.all_files().iter().map(|f| f.id.name.max().get()).collect();
        ends.sort_unstable();
        ends.dedup();
        ends.retain(|txid| self.restore(*txid).is_some());
        ends
    }

    /// The last transaction is restorable.
    pub(super) fn assert_restores_latest(&self) {
        let last = self.last();
        assert!(self.restore(last).as_ref() == Some(&self.states[&last].1), "the last state is not there");
    }

    /// The last transaction is restorable, and whatever is restorable is right.
    pub(super) fn assert_restores(&self) {
        self.assert_restores_latest();
        for txid in self.points() {
            assert!(self.restore(txid).unwrap() == self.states[&txid].1, "transaction {txid} is wrong");
        }
    }

    /// Nothing is there that the settings do not ask for, and nothing is missing that they promise.
    pub(super) fn assert_tidy(&self) {
        self.assert_levels();
        self.assert_promise();
        if self.settings.retention {
            self.assert_nothing_old();
        }
    }

    /// Each level is contiguous, and has at most one file for each window.
    fn assert_levels(&self) {
        for (n, interval) in self.settings.levels.iter().enumerate() {
            let files = self.files(n as u8 + 1);
            for pair in files.windows(2) {
                assert_eq!(pair[0].id.name.max().next(), pair[1].id.name.min(), "a gap in level {}", n + 1);
                let [a, b] = [&pair[0], &pair[1]].map(|f| window_start(f.timestamp, *interval));
                assert!(a < b, "level {} has {} and {} for one window", n + 1, pair[0].id, pair[1].id);
            }
        }
    }

    /// The state at the beginning of the retention can be restored, unless the history is younger.
    fn assert_promise(&self) {
        let since = before(self.now(), self.settings.snapshot_retention);
        let points = self.points();
        let oldest = points.first().expect("something is restorable");
        let (time, _) = &self.states[oldest];
        assert!(*time <= since || *oldest <= self.first_end(), "nothing before {time} is restorable");
    }

    /// The end of the first file that a replica can have.
    fn first_end(&self) -> u64 {
        let first = self.all_files().into_iter().filter(|f| f.id.name.is_snapshot());
        first.map(|f| f.id.name.max().get()).min().unwrap_or(1)
    }

    /// No file only leads to states that are too old, and none of level 0 is left for too long.
    fn assert_nothing_old(&self) {
        let tick = self.settings.levels[0];
        let since = before(before(self.now(), self.settings.snapshot_retention), tick);
        let snapshots = self.files(9);
        let old = snapshots.iter().filter(|f| f.timestamp <= since).count();
        assert!(old <= 1, "{old} snapshots are too old");
        if let Some(base) = snapshots.iter().rev().find(|f| f.timestamp <= since) {
            for level in 1..=8 {
                let files = self.files(level);
                let last = files.last().map(|f| f.id);
                let old = files.iter().find(|f| f.id.name.max() < base.id.name.max() && Some(f.id) != last);
                assert!(old.is_none(), "{old:?} is older than {}", base.id);
            }
        }
        let merged = self.files(1).last().map_or(0, |f| f.id.name.max().get());
        let since = before(before(self.now(), self.settings.l0_retention), tick);
        let one_tick = before(self.now(), tick);
        for pair in self.files(0).windows(2) {
            // The last one stays until another one is there, and something is due.
            let [file, next] = [&pair[0], &pair[1]];
            let late = file.timestamp < since && next.timestamp < one_tick;
            assert!(!late || file.id.name.max().get() > merged, "{} is there still", file.id);
        }
    }
}

/// Those of `files` that make transaction `txid`, as `litestream restore` chooses them.
pub(super) fn plan(files: &[FileInfo], txid: u64) -> Option<Vec<FileInfo>> {
    let fits = |f: &&FileInfo| f.id.name.max().get() <= txid;
    let snapshots = files.iter().filter(fits).filter(|f| f.id.level == Level::SNAPSHOT);
    let mut plan: Vec<FileInfo> = snapshots.max_by_key(|f| f.id.name.max()).cloned().into_iter().collect();
    loop {
        let reached = plan.last().map_or(0, |f| f.id.name.max().get());
        let next = files
            .iter()
            .filter(fits)
            .filter(|f| f.id.level != Level::SNAPSHOT)
            .filter(|f| f.id.name.min().get() <= reached + 1 && f.id.name.max().get() > reached)
            .max_by_key(|f| f.id.name.max());
        match next {
            Some(file) => plan.push(file.clone()),
            None if reached == txid => return Some(plan),
            None => return None,
        }
    }
}
