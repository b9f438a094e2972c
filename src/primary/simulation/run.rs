//! One run, and what is checked.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::Instant;
use tracing::level_filters::LevelFilter;

use super::disk::StateFolder;
use super::host::{Database, step};
use super::is_sealed;
use super::ledger::{Ledger, Place};
use super::sqlite::{Process, Sqlite, digest};
use super::store::{Network, Weather};
use crate::error::{ErrorKind, Result};
use crate::logging::{self, LogFormat};
use crate::ltx::{Decoder, FileId, Header, Keyring, Level};
use crate::primary::{
    Asked, Calendar, HistoryOptions, HistorySettings, Host, NamedSettings, Options, Phase, Primary,
    ReplicaConfig, ReplicaOptions, Rewound, SnapshotAt, state_folder,
};
use crate::runtime::simulated::{self, Simulation, VirtualClock};
use crate::store::{Location, MemoryStore, Replica, RetryPolicy};

const REPLICAS: usize = 2;
const NAMES: [&str; REPLICAS] = ["memory:one", "memory:two"];
/// Longer than anything takes that works.
const PATIENCE: Duration = Duration::from_secs(3600);

/// One replica, and what was seen of it.
struct Seen {
    memory: MemoryStore,
    network: Network,
    /// By transaction: the digest of its file, and the state after it.
    files: BTreeMap<u64, (u64, u64)>,
    /// By transaction: the digests of files that landed when another of that name had been merged and deleted.
    late: BTreeMap<u64, u64>,
    /// The pages after each of them.
    states: Vec<Vec<Vec<u8>>>,
    /// The state that a sync confirmed last.
    confirmed: Option<u64>,
    /// Replication was made to go on by force after this transaction.
    forced_after: Option<u64>,
}

struct Run {
    simulation: Arc<Simulation>,
    _folder: TempDir,
    path: PathBuf,
    database: Database,
    primary: Option<Arc<Primary>>,
    /// What was closed last, and may linger.
    closed: Option<Arc<Primary>>,
    replicas: Vec<Seen>,
    state: StateFolder,
    ledger: Arc<Mutex<Ledger>>,
    options: ReplicaOptions,
    /// No process has the database open without the library.
    all_have_library: bool,
    patient: bool,
    power_failed: bool,
    /// What happened: of two runs of one seed the same.
    log: Vec<String>,
}

impl Drop for Run {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs a seed, of which `ledger` sees what is sent and kept. Returns a digest of what happened.
pub(super) fn run(seed: u64, ledger: &Arc<Mutex<Ledger>>) -> u64 {
    if std::env::var_os("SIMULATION_LOG").is_some() {
        let (level, format) = (LevelFilter::DEBUG, LogFormat::Text);
        logging::install(|| logging::Options { level, file: None, format, complaints: Vec::new() });
    }
    simulated::simulate(seed, || {
        let mut run = Run::new(is_sealed(seed), ledger);
        let steps = 20 + run.simulation.below(180);
        for _ in 0..steps {
            run.step();
        }
        run.end();
        digest(&[run.log.join("\n").into_bytes()])
    })
}

/// Files stay as they are published.
fn no_history() -> HistorySettings {
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

/// Files are merged within seconds, and often deleted within minutes.
fn brief_history(simulation: &Simulation) -> HistorySettings {
    HistorySettings {
        levels: [1, 10].map(Duration::from_secs).to_vec(),
        snapshot_interval: Duration::from_secs([60, 3600][simulation.below(2) as usize]),
        snapshot_retention: Duration::from_secs(300),
        l0_retention: Duration::from_secs(10),
        retention: simulation.below(2) == 0,
        ..no_history()
    }
}

fn temporary() -> TempDir {
    let memory = std::path::Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

impl Run {
    fn new(is_sealed: bool, ledger: &Arc<Mutex<Ledger>>) -> Self {
        let simulation = simulated::current().expect("a simulation");
        let settings = if is_sealed { brief_history(&simulation) } else { no_history() };
        let top = Level::new(settings.levels.len() as u8).expect("a level");
        let mut begun = lock(ledger);
        begun.begin(is_sealed, top);
        let recipients = begun.recipients();
        drop(begun);
        let folder = temporary();
        let path = folder.path().join("app.db");
        let sqlite = Sqlite::new(&path, &state_folder(&path), Arc::clone(&simulation));
        let replica = |name| {
            let memory = MemoryStore::new();
            let weather = Arc::default();
            let inner = memory.bucket();
            let (ledger, landed) = (Arc::clone(ledger), Arc::default());
            let network = Network { name, inner, weather, ledger, landed };
            Seen {
                memory,
                network,
                files: BTreeMap::new(),
                late: BTreeMap::new(),
                states: Vec::new(),
                confirmed: None,
                forced_after: None,
            }
        };
        let intervals = [0, 0, 10, 1000];
        let limits = [1 << 30, 1 << 30, 6000, 0];
        let options = ReplicaOptions {
            sync_interval: Duration::from_millis(intervals[simulation.below(4) as usize]),
            verify_interval: Duration::ZERO,
            rewound: Rewound::Forward,
            auto_recover: true,
            recipients,
            pack: true,
            spool_limit: limits[simulation.below(4) as usize],
            history: HistoryOptions { named: NamedSettings::default(), defaults: settings },
            named: Vec::new(),
        };
        Self {
            database: Database(Arc::new(Mutex::new(sqlite))),
            primary: None,
            closed: None,
            replicas: NAMES.into_iter().map(replica).collect(),
            state: StateFolder::new(&state_folder(&path)),
            ledger: Arc::clone(ledger),
            options,
            all_have_library: is_sealed && simulation.below(2) == 0,
            patient: simulation.below(2) == 0,
            power_failed: false,
            log: Vec::new(),
            path,
            _folder: folder,
            simulation,
        }
    }

    fn below(&self, end: u64) -> u64 {
        self.simulation.below(end)
    }

    fn note(&mut self, what: String) {
        let now = self.database.lock().now;
        let phases = self.primary.iter().flat_map(|primary| primary.phases()).collect::<Vec<_>>();
        let txids: Vec<_> = self.replicas.iter().map(|seen| seen.files.len()).collect();
        let line = format!("{:?}: {what}: {now:016x} {phases:?} {txids:?}", self.simulation.elapsed());
        if self.database.lock().tells {
            eprintln!("{line}");
        }
        self.log.push(line);
    }

    fn step(&mut self) {
        let what = match self.below(64) {
            0..24 => self.act(),
            24..36 => self.pass(20),
            36..38 => self.pass(2000),
            38 => self.pass(60_000),
            39 if self.below(4) == 0 => self.pass_hours(),
            39..44 => self.sync(),
            44..50 => self.change_weather(),
            50..55 => self.open(),
            55 => self.close(),
            56 | 57 => {
                self.kill();
                "the publisher is killed".to_owned()
            }
            58 => self.kill_another(),
            59..63 => self.open_another(),
            _ if self.below(4) == 0 => self.fail_power(),
            _ => self.act(),
        };
        self.state.look(&self.simulation, &mut lock(&self.ledger));
        self.note(what);
        self.check();
    }

    fn act(&mut self) -> String {
        let count = 1 + self.below(12);
        for _ in 0..count {
            let died = step(&mut self.database.lock(), true);
            if died {
                self.kill();
                return "the publisher dies at work".to_owned();
            }
        }
        format!("{count} steps of connections")
    }

    fn pass(&self, most: u64) -> String {
        let time = Duration::from_millis(self.below(most));
        self.simulation.pass(time);
        format!("{time:?} pass")
    }

    /// An hour or so. Not in an outage, in which there would be a file for each second of it.
    fn pass_hours(&mut self) -> String {
        self.calm_weather();
        self.pass(4_000_000)
    }

    fn calm_weather(&self) {
        for seen in &self.replicas {
            *seen.network.weather.lock().unwrap() = Weather::default();
        }
    }

    fn sync(&mut self) -> String {
        let Some(primary) = self.primary.clone() else { return "nobody syncs".to_owned() };
        let now = self.database.lock().now;
        let timeout = Duration::from_millis(self.below(3000));
        match primary.sync(timeout, &|| false) {
            Ok(_) => {
                self.replicas.iter_mut().for_each(|seen| seen.confirmed = Some(now));
                "a sync is confirmed".to_owned()
            }
            Err(e) => {
                assert!(e.kind() != ErrorKind::Conflict || self.may_stop(), "replication stopped: {e}");
                format!("a sync fails: {e}")
            }
        }
    }

    fn change_weather(&mut self) -> String {
        let at = self.below(REPLICAS as u64) as usize;
        let weather = match self.below(5) {
            0 | 1 => Weather::default(),
            2 => Weather { is_down: true, ..Weather::default() },
            3 => Weather {
                refused: self.below(60),
                lost: self.below(60),
                slow: self.below(20),
                ..Weather::default()
            },
            _ => Weather { slow: 50, ..Weather::default() },
        };
        *self.replicas[at].network.weather.lock().unwrap() = weather;
        format!("weather of {at}: {weather:?}")
    }

    fn try_open(&mut self) -> Result<()> {
        let targets =
            ["file:///one", "file:///two"].map(|url| Location::parse(url, &|_: &str| None).unwrap());
        let connect = |target: &Location| -> Result<Arc<Replica>> {
            let at = targets.iter().position(|one| one == target).expect("one of them");
            let network = self.replicas[at].network.clone();
            let replica = self.replicas[at].memory.wrapped(|_| Arc::new(network));
            Ok(Arc::new(if self.patient { replica.patient(RetryPolicy::default()) } else { replica }))
        };
        let replicas: Vec<ReplicaConfig> = targets
            .iter()
            .map(|target| ReplicaConfig { target: target.clone(), options: self.options.clone() })
            .collect();
        let options = Options {
            close_timeout: Duration::from_secs(5),
            watch_interval: Duration::from_secs(10),
            ..Options::default()
        };
        let host: Arc<dyn Host> = Arc::new(self.database.clone());
        let primary =
            Primary::open(&self.path, &replicas, &options, Arc::new(VirtualClock), connect, || host)?;
        self.closed = None;
        self.primary = Some(Arc::clone(&primary));
        self.database.lock().primary = Some(primary);
        Ok(())
    }

    fn open(&mut self) -> String {
        if self.primary.is_none()
            && let Err(e) = self.try_open()
        {
            panic!("an open fails: {e}");
        }
        let mut sqlite = self.database.lock();
        if sqlite.connections() < 6 {
            sqlite.open(Process::Publisher);
        }
        "the publisher opens a connection".to_owned()
    }

    fn close(&mut self) -> String {
        let Some(primary) = self.primary.take() else { return "nobody closes".to_owned() };
        let timeout = Duration::from_millis(self.below(5000));
        self.database.lock().close_all(Process::Publisher);
        primary.close(Instant::now(), timeout);
        self.database.lock().primary = None;
        self.closed = Some(primary);
        // The tasks end.
        self.simulation.pass(Duration::ZERO);
        "the publisher closes".to_owned()
    }

    /// kill -9.
    fn kill(&mut self) {
        let Some(primary) = self.primary.take().or_else(|| self.closed.take()) else { return };
        primary.kill();
        self.simulation.kill();
        self.simulation.pass(Duration::ZERO);
        self.database.lock().kill(Process::Publisher);
    }

    fn another(&self) -> Process {
        if self.all_have_library || self.below(2) == 0 { Process::Neighbour } else { Process::Foreign }
    }

    fn open_another(&mut self) -> String {
        let process = self.another();
        let mut sqlite = self.database.lock();
        if sqlite.connections() < 6 {
            sqlite.open(process);
        }
        format!("{process:?} opens a connection")
    }

    fn kill_another(&mut self) -> String {
        let process = self.another();
        self.database.lock().kill(process);
        format!("{process:?} is killed")
    }

    fn fail_power(&mut self) -> String {
        // Often the programs have just ended in order.
        if self.below(2) == 0 {
            self.kill_others();
            self.close();
        }
        self.kill();
        self.simulation.fail_power();
        self.database.lock().fail_power();
        self.state.fail(&self.simulation, &mut lock(&self.ledger));
        self.power_failed = true;
        "the power fails".to_owned()
    }

    /// What must hold at any moment.
    fn check(&mut self) {
        for at in 0..REPLICAS {
            self.check_replica(at);
        }
        if let Some(primary) = &self.primary {
            for (at, phase) in primary.phases().into_iter().enumerate() {
                let error = primary.status()[at].error.clone();
                assert!(phase != Phase::Stopped || self.may_stop(), "replication to {at} stopped: {error:?}");
            }
        }
    }

    fn check_replica(&mut self, at: usize) {
        let keyring = lock(&self.ledger).keyring();
        let mut sqlite = self.database.lock();
        let now = sqlite.pages();
        let seen = &mut self.replicas[at];
        let landed = std::mem::take(&mut *lock(&seen.network.landed));
        for (id, bytes) in landed {
            match id.level {
                Level::L0 if seen.files.contains_key(&id.name.max().get()) => {
                    assert!(self.options.history.defaults.retention, "{id} of {at} landed twice");
                    seen.check_late(at, id, &bytes, &keyring, &sqlite);
                }
                Level::L0 => seen.check_transaction(at, id, &bytes, &keyring, &sqlite, &now),
                _ => seen.check_merged(at, id, &bytes, &keyring),
            }
        }
        let mut count = 0;
        for (id, _) in seen.memory.files().iter().filter(|(id, _)| id.level == Level::L0) {
            let (txid, sum) = (id.name.max().get(), digest(&[seen.memory.bytes_of(*id).to_vec()]));
            let is_known = seen.files[&txid].0 == sum || seen.late.get(&txid) == Some(&sum);
            assert!(is_known, "transaction {txid} of {at} was overwritten");
            count += 1;
        }
        let retention = self.options.history.defaults.retention;
        assert!(retention || count == seen.files.len(), "files of {at} are gone");
        let (last, _) = chain(&seen.memory);
        assert_eq!(last, seen.files.len() as u64, "the files of {at} do not lead to its last transaction");
        if let Some(confirmed) = seen.confirmed.filter(|_| !sqlite.has_lost) {
            let last = seen.files.values().last().map(|(_, state)| *state);
            let is_there = last.is_some_and(|last| sqlite.history.descends(last, confirmed));
            assert!(is_there, "what was confirmed is not in {at}");
        }
    }

    /// All faults end; what is committed then gets to both replicas.
    fn end(&mut self) {
        self.calm_weather();
        self.kill_others();
        self.open();
        self.database.lock().is_quiet = true;
        self.database.lock().commit_last();
        self.note("all faults end".to_owned());
        let primary = self.primary.clone().expect("it is open");
        let mut synced = primary.sync(PATIENCE, &|| false);
        self.check();
        // Each replica may stop, one after the other.
        for _ in 0..REPLICAS {
            let Some(e) =
                synced.as_ref().err().filter(|e| e.kind() == ErrorKind::Conflict && self.may_stop())
            else {
                break;
            };
            self.note(format!("replication goes on by force: {e}"));
            for seen in &mut self.replicas {
                seen.forced_after = seen.files.keys().last().copied();
                seen.confirmed = None;
            }
            synced = primary.resume(Asked::All, true, PATIENCE, &|| false);
        }
        self.check();
        synced.unwrap_or_else(|e| panic!("what was committed is not in the replicas: {e}"));
        self.let_history_be_kept();
        self.check_end();
        self.note("the end".to_owned());
    }

    /// What is to be merged is, in time.
    fn let_history_be_kept(&mut self) {
        if !self.options.recipients.is_empty() {
            self.simulation.pass(Duration::from_secs(3 * 3600));
            self.state.look(&self.simulation, &mut lock(&self.ledger));
            self.check();
            self.check_keys();
        } else {
            assert!(!lock(&self.ledger).saw_nothing_plain(), "the token is not found in plain files either");
        }
    }

    /// Both replicas restore to the database.
    fn check_end(&self) {
        let keyring = lock(&self.ledger).keyring();
        let pages = self.database.lock().pages();
        for (at, seen) in self.replicas.iter().enumerate() {
            let mut restored = Vec::new();
            for id in chain(&seen.memory).1 {
                apply(id, &seen.memory.bytes_of(id), &keyring, &mut restored);
            }
            let differing = differing(&restored, &pages);
            assert!(
                differing.is_empty(),
                "pages of replica {at} are not those of the database: {differing:?}"
            );
        }
    }

    /// Keys are kept of files only that wait for a merge.
    fn check_keys(&self) {
        let ledger = lock(&self.ledger);
        let top = self.options.history.defaults.levels.len() as u8;
        for place in self.state.keys().flat_map(|keys| ledger.kept(keys)) {
            let waits = match place {
                Place::Replica(name, id) => {
                    let files = self.replicas
                        [NAMES.iter().position(|one| *one == name).expect("one of them")]
                    .memory
                    .files();
                    let holds = |file: &FileId| {
                        file.level.get() == id.level.get() + 1
                            && file.name.min() <= id.name.min()
                            && id.name.max() <= file.name.max()
                    };
                    let is_there = files.iter().any(|(file, _)| *file == id);
                    is_there && id.level.get() < top && !files.iter().any(|(file, _)| holds(file))
                }
                // Nothing waits any more.
                Place::StateFolder => false,
            };
            assert!(waits, "the key of {place:?} is kept, which does not wait for a merge");
        }
    }

    /// Whether replication may stop by itself: the database lost commits; or the replicas are encrypted, so that the publisher
    /// cannot compare with them, and the WAL was written, restarted or removed in a way that it cannot follow.
    fn may_stop(&self) -> bool {
        let sqlite = self.database.lock();
        let cannot_compare = !self.options.recipients.is_empty() && sqlite.has_unfollowed.get();
        self.power_failed || sqlite.has_lost || cannot_compare
    }

    fn kill_others(&mut self) {
        let mut sqlite = self.database.lock();
        sqlite.kill(Process::Foreign);
        sqlite.kill(Process::Neighbour);
    }
}

/// The pages that differ.
fn differing(one: &[Vec<u8>], other: &[Vec<u8>]) -> Vec<usize> {
    (1..=one.len().max(other.len())).filter(|pgno| one.get(*pgno - 1) != other.get(*pgno - 1)).collect()
}

impl Seen {
    /// A transaction was published: it is a state that was committed, made of the one before.
    fn check_transaction(
        &mut self,
        at: usize,
        id: FileId,
        bytes: &[u8],
        keyring: &Keyring,
        sqlite: &Sqlite,
        now: &[Vec<u8>],
    ) {
        let txid = id.name.max().get();
        let mut pages = self.states.last().cloned().unwrap_or_default();
        let changed = apply(id, bytes, keyring, &mut pages);
        let state = digest(&pages);
        assert_eq!(txid, self.files.len() as u64 + 1, "a gap in {at}");
        let differing = differing(&pages, now);
        assert!(
            sqlite.history.has(state),
            "transaction {txid} of {at} was never committed; it has {changed:?}, and now it is other in {differing:?}"
        );
        if let Some((_, before)) = self.files.get(&(txid - 1))
            && self.forced_after != Some(txid - 1)
            && !sqlite.has_lost
        {
            let follows = sqlite.history.descends(state, *before);
            assert!(follows, "transaction {txid} of {at} was not made of the one before");
        }
        self.files.insert(txid, (digest(&[bytes.to_vec()]), state));
        self.states.push(pages);
    }

    /// What a process that was killed had sent was done only when the file of its successor was merged and deleted. It changes
    /// nothing for who reads what was merged; and who reads it is led to a state that was committed.
    fn check_late(&mut self, at: usize, id: FileId, bytes: &[u8], keyring: &Keyring, sqlite: &Sqlite) {
        let txid = id.name.max().get();
        let files = self.memory.files();
        let has_it = |other: &FileId| {
            other.level > id.level && (other.name.min()..=other.name.max()).contains(&id.name.max())
        };
        assert!(files.iter().any(|(other, _)| has_it(other)), "{id} of {at} landed in place of another");
        let mut pages =
            txid.checked_sub(2).map(|place| self.states[place as usize].clone()).unwrap_or_default();
        apply(id, bytes, keyring, &mut pages);
        assert!(sqlite.history.has(digest(&pages)), "{id} of {at}, which is late, was never committed");
        self.late.insert(txid, digest(&[bytes.to_vec()]));
    }

    /// A file of another level leads to the state that it says.
    fn check_merged(&self, at: usize, id: FileId, bytes: &[u8], keyring: &Keyring) {
        let before = (id.name.min().get() - 1).checked_sub(1).map(|place| &self.states[place as usize]);
        let mut pages = before.cloned().unwrap_or_default();
        apply(id, bytes, keyring, &mut pages);
        let differing = differing(&pages, &self.states[id.name.max().get() as usize - 1]);
        assert!(differing.is_empty(), "{id} of {at} leads to another state: {differing:?} differ");
    }
}

/// The files that lead furthest from nothing, and where to.
fn chain(store: &MemoryStore) -> (u64, Vec<FileId>) {
    let files = store.files();
    let (mut last, mut chain) = (0, Vec::new());
    loop {
        let follows =
            files.iter().filter(|(id, _)| id.name.min().get() <= last + 1 && id.name.max().get() > last);
        let Some((next, _)) = follows.max_by_key(|(id, _)| id.name.max()) else { return (last, chain) };
        last = next.name.max().get();
        chain.push(*next);
    }
}

/// Applies a file to the pages of a database; returns which it has.
fn apply(id: FileId, bytes: &[u8], keyring: &Keyring, database: &mut Vec<Vec<u8>>) -> Vec<u32> {
    let mut decoder = Decoder::open(bytes, keyring).unwrap();
    let header: Header = *decoder.header();
    assert_eq!(header.name(), id.name);
    let size = header.page_size.bytes();
    database.resize(header.commit.get() as usize, vec![0; size]);
    let (mut page, mut pages) = (vec![0; size], Vec::new());
    while let Some(pgno) = decoder.next_page(&mut page).unwrap() {
        database[pgno.get() as usize - 1].clone_from(&page);
        pages.push(pgno.get());
    }
    decoder.finish().unwrap();
    pages
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
