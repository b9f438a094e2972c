//! One run, and what is checked.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::Instant;
use tracing::level_filters::LevelFilter;

use super::disk::StateFolder;
use super::host::{Database, step};
use super::sqlite::{Process, Sqlite, digest};
use super::store::{Network, Weather};
use crate::error::{ErrorKind, Result};
use crate::logging::{self, LogFormat};
use crate::ltx::{Decoder, FileId, Header, Level};
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
    /// The pages after the last of them.
    pages: Vec<Vec<u8>>,
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
    options: ReplicaOptions,
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

/// Runs a seed. Returns a digest of what happened.
pub(super) fn run(seed: u64) -> u64 {
    if std::env::var_os("SIMULATION_LOG").is_some() {
        let (level, format) = (LevelFilter::DEBUG, LogFormat::Text);
        logging::install(|| logging::Options { level, file: None, format, complaints: Vec::new() });
    }
    simulated::simulate(seed, || {
        let mut run = Run::new();
        let steps = 20 + run.simulation.below(180);
        for _ in 0..steps {
            run.step();
        }
        run.end();
        digest(&[run.log.join("\n").into_bytes()])
    })
}

/// Files stay as they are published.
fn no_history() -> HistoryOptions {
    let day = Duration::from_secs(24 * 3600);
    let defaults = HistorySettings {
        levels: Vec::new(),
        snapshot_interval: day,
        snapshot_at: SnapshotAt::Anytime,
        snapshot_retention: day,
        l0_retention: day,
        retention: false,
        calendar: Calendar::default(),
    };
    HistoryOptions { named: NamedSettings::default(), defaults }
}

fn temporary() -> TempDir {
    let memory = std::path::Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

impl Run {
    fn new() -> Self {
        let simulation = simulated::current().expect("a simulation");
        let folder = temporary();
        let path = folder.path().join("app.db");
        let sqlite = Sqlite::new(&path, &state_folder(&path), Arc::clone(&simulation));
        let replica = |name| {
            let memory = MemoryStore::new();
            let weather = Arc::default();
            let inner = memory.bucket();
            let network = Network { name, inner, weather };
            Seen {
                memory,
                network,
                files: BTreeMap::new(),
                pages: Vec::new(),
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
            recipients: crate::ltx::Recipients::default(),
            pack: true,
            spool_limit: limits[simulation.below(4) as usize],
            history: no_history(),
            named: Vec::new(),
        };
        Self {
            database: Database(Arc::new(Mutex::new(sqlite))),
            primary: None,
            closed: None,
            replicas: NAMES.into_iter().map(replica).collect(),
            state: StateFolder::new(&state_folder(&path)),
            options,
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
        self.state.look();
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
        if self.below(2) == 0 { Process::Neighbour } else { Process::Foreign }
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
        self.state.fail(&self.simulation);
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
        let mut sqlite = self.database.lock();
        let now = sqlite.pages();
        let seen = &mut self.replicas[at];
        let mut files: Vec<u64> = Vec::new();
        for (id, _) in seen.memory.files() {
            if id.level == Level::L0 {
                files.push(id.name.max().get());
                let bytes = seen.memory.bytes_of(id).to_vec();
                let sum = digest(std::slice::from_ref(&bytes));
                let txid = id.name.max().get();
                match seen.files.get(&txid) {
                    Some((known, _)) => assert_eq!(*known, sum, "transaction {txid} of {at} was overwritten"),
                    None => {
                        apply(id, &bytes, &mut seen.pages);
                        let state = digest(&seen.pages);
                        assert_eq!(txid, seen.files.len() as u64 + 1, "a gap in {at}");
                        let is_known = sqlite.history.has(state);
                        let differing = differing(&seen.pages, &now);
                        assert!(
                            is_known,
                            "transaction {txid} of {at} was never committed; it has {:?}, and now it is other in {differing:?}",
                            pages_of(&bytes)
                        );
                        if let Some((_, before)) = seen.files.get(&(txid - 1))
                            && seen.forced_after != Some(txid - 1)
                            && !sqlite.has_lost
                        {
                            let follows = sqlite.history.descends(state, *before);
                            assert!(follows, "transaction {txid} of {at} was not made of the one before");
                        }
                        seen.files.insert(txid, (sum, state));
                    }
                }
            }
        }
        assert_eq!(files.len(), seen.files.len(), "files of {at} are gone");
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
        let pages = self.database.lock().pages();
        for (at, seen) in self.replicas.iter().enumerate() {
            let differing = differing(&seen.pages, &pages);
            assert!(
                differing.is_empty(),
                "pages of replica {at} are not those of the database: {differing:?}"
            );
        }
        self.note("the end".to_owned());
    }

    /// Whether replication may stop by itself: the database lost commits.
    fn may_stop(&self) -> bool {
        self.power_failed || self.database.lock().has_lost
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

/// The pages of a file.
fn pages_of(bytes: &[u8]) -> Vec<u32> {
    let mut decoder = Decoder::new(bytes).unwrap();
    let mut page = vec![0; decoder.header().page_size.bytes()];
    std::iter::from_fn(|| decoder.next_page(&mut page).unwrap().map(|pgno| pgno.get())).collect()
}

/// Applies a file to the pages of a database.
fn apply(id: FileId, bytes: &[u8], database: &mut Vec<Vec<u8>>) {
    let mut decoder = Decoder::new(bytes).unwrap();
    let header: Header = *decoder.header();
    assert_eq!(header.name(), id.name);
    let size = header.page_size.bytes();
    database.resize(header.commit.get() as usize, vec![0; size]);
    let mut page = vec![0; size];
    while let Some(pgno) = decoder.next_page(&mut page).unwrap() {
        database[pgno.get() as usize - 1].clone_from(&page);
    }
    decoder.finish().unwrap();
}
