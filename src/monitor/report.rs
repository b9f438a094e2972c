//! A report: all that one process knows of its databases, and what the processes of a machine know together.

use std::collections::BTreeMap;

use crc_fast::CrcAlgorithm;
use serde::{Deserialize, Serialize};

use crate::clock::{Clock as _, SystemClock};
use crate::events::{self, Course, Occurrence};
use crate::failures;
use crate::follow;
use crate::metrics::HistogramValue;
use crate::primary::{DatabaseFigures, Primary};
use crate::replica::{self, ReplicaStatus};
use crate::store::{in_local_state, requests_of_process};

/// What one process knows. Times are milliseconds since the Unix epoch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Report {
    /// The process.
    pub(super) pid: u32,
    /// The version of the library.
    pub(super) version: String,
    /// When the process opened its first database.
    pub(super) started: i64,
    /// When this was written.
    pub(super) at: i64,
    /// Its primaries.
    pub(super) databases: Vec<DatabaseFigures>,
    /// Replicas that it reads.
    pub(super) readers: Vec<ReaderFigures>,
    /// Its requests, by kind of store.
    pub(super) stores: Vec<StoreFigures>,
    /// How often each event began or happened.
    pub(super) events: BTreeMap<String, u64>,
    /// What lasts now, and what was over lately.
    pub(super) occurrences: Vec<OccurrenceFigures>,
    /// Opens, reads and writes that failed lately.
    pub(super) failures: Vec<FailureFigures>,
    /// The lag of replicas over the last hour.
    pub(super) lags: Vec<LagFigures>,
}

/// A replica that is read, page by page or by a copy that follows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct ReaderFigures {
    /// Its name: the kind of store, and a hash of the URL; of a copy `copy`, and a hash of its path.
    pub(super) name: String,
    pub(super) url: String,
    pub(super) txid: u64,
    pub(super) time: i64,
    /// The age of what is read, in milliseconds.
    pub(super) lag: u64,
    pub(super) pages: u32,
    pub(super) page_size: u32,
    pub(super) cache_bytes: u64,
    pub(super) requests: u64,
    pub(super) error: Option<String>,
    pub(super) notice: Option<String>,
}

/// Requests of one kind to stores of one kind.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct StoreFigures {
    pub(super) kind: String,
    pub(super) operation: String,
    pub(super) requests: u64,
    pub(super) bytes: u64,
    pub(super) seconds: HistogramValue,
    pub(super) failures: BTreeMap<String, u64>,
}

/// An event that lasts, or did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct OccurrenceFigures {
    pub(super) id: String,
    pub(super) event: String,
    pub(super) db: String,
    pub(super) replica: String,
    pub(super) error: String,
    pub(super) since: i64,
    /// When it was over, or happened; `None` while it lasts.
    pub(super) until: Option<i64>,
    pub(super) attempts: u64,
}

impl From<&Occurrence> for OccurrenceFigures {
    fn from(occurrence: &Occurrence) -> Self {
        Self {
            id: occurrence.id.clone(),
            event: occurrence.event.name.to_owned(),
            db: occurrence.db.display().to_string(),
            replica: occurrence.replica.clone(),
            error: occurrence.error.clone(),
            since: occurrence.since.as_millis(),
            until: (occurrence.course != Course::Lasts).then(|| occurrence.at.as_millis()),
            attempts: occurrence.attempts,
        }
    }
}

/// An open, a read or a write that failed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct FailureFigures {
    pub(super) attempt: String,
    pub(super) path: Option<String>,
    pub(super) error: String,
    pub(super) at: i64,
}

/// The lag of one replica over time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct LagFigures {
    pub(super) db: String,
    pub(super) replica: String,
    /// When the last sample was taken.
    pub(super) last: i64,
    /// The time between two samples, in milliseconds.
    pub(super) every: u64,
    /// Samples in milliseconds, the oldest first.
    pub(super) samples: Vec<u32>,
}

impl Report {
    /// What this process knows, without what it knows of time: [`super::lag_history`] adds that. Waits for no store; for
    /// another process that publishes, half a second for each database, if `ask_publisher`.
    pub(super) fn here(started: i64, ask_publisher: bool) -> Self {
        let mut databases: Vec<DatabaseFigures> =
            Primary::all().iter().map(|primary| primary.figures(ask_publisher)).collect();
        databases.sort_by(|a, b| a.path.cmp(&b.path));
        Self {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started,
            at: SystemClock.now().as_millis(),
            databases,
            readers: readers(),
            stores: stores(),
            events: events::counts().into_iter().map(|(name, count)| (name.to_owned(), count)).collect(),
            occurrences: events::recent().iter().map(OccurrenceFigures::from).collect(),
            failures: failures_here(),
            lags: Vec::new(),
        }
    }
}

/// The replicas that are read, page by page or by a copy that follows.
fn readers() -> Vec<ReaderFigures> {
    let replicas = replica::all().into_iter().map(|core| reader(core.status()));
    replicas.chain(follow::all().into_iter().map(copy)).collect()
}

fn copy(standing: follow::Standing) -> ReaderFigures {
    let hash = crc_fast::checksum(CrcAlgorithm::Crc64Nvme, standing.path.as_os_str().as_encoded_bytes());
    ReaderFigures {
        name: format!("copy-{:08x}", hash >> 32),
        url: format!("{}, a copy of {}", standing.path.display(), standing.url),
        lag: u64::try_from(standing.lag().as_millis()).unwrap_or(u64::MAX),
        txid: standing.txid.get(),
        time: standing.time.as_millis(),
        pages: standing.pages.get(),
        page_size: standing.page_size,
        cache_bytes: 0,
        requests: standing.requests,
        error: standing.error.map(|e| e.to_string()),
        notice: standing.notice,
    }
}

fn reader(status: ReplicaStatus) -> ReaderFigures {
    let kind = status.url.split(':').next().unwrap_or_default();
    let hash = crc_fast::checksum(CrcAlgorithm::Crc64Nvme, in_local_state(&status.url).as_bytes());
    ReaderFigures {
        name: format!("{kind}-{:08x}", hash >> 32),
        lag: u64::try_from(status.age().as_millis()).unwrap_or(u64::MAX),
        txid: status.txid.get(),
        time: status.timestamp.as_millis(),
        pages: status.pages.get(),
        page_size: status.page_size,
        cache_bytes: status.cache_bytes as u64,
        requests: status.requests,
        error: status.last_error.or(status.last_read_error.map(|(_, error)| error)),
        notice: status.notice,
        url: status.url,
    }
}

fn stores() -> Vec<StoreFigures> {
    let all = requests_of_process().into_iter();
    all.flat_map(|(kind, counted)| counted.into_iter().map(move |counted| (kind, counted)))
        .map(|(kind, counted)| StoreFigures {
            kind: kind.to_owned(),
            operation: counted.operation.name().to_owned(),
            requests: counted.requests,
            bytes: counted.bytes,
            seconds: counted.seconds,
            failures: counted.failures.into_iter().map(|(name, count)| (name.to_owned(), count)).collect(),
        })
        .collect()
}

fn failures_here() -> Vec<FailureFigures> {
    let recent = failures::recent().into_iter().rev();
    let figures = recent.map(|failure| FailureFigures {
        attempt: failure.attempt.to_string(),
        path: failure.path.map(|path| path.display().to_string()),
        error: failure.message,
        at: failure.at.as_millis(),
    });
    figures.collect()
}

/// What the processes of this machine know together that share a listener.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Machine {
    /// When this was put together.
    pub(super) at: i64,
    /// The processes, the one that answers first.
    pub(super) processes: Vec<ProcessFigures>,
    /// Databases, by path: counts of all processes, and replicas as the one that publishes sees them.
    pub(super) databases: Vec<DatabaseFigures>,
    pub(super) readers: Vec<ReaderFigures>,
    pub(super) stores: Vec<StoreFigures>,
    pub(super) events: BTreeMap<String, u64>,
    pub(super) occurrences: Vec<OccurrenceFigures>,
    pub(super) failures: Vec<FailureFigures>,
    pub(super) lags: Vec<LagFigures>,
}

/// One process.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct ProcessFigures {
    pub(super) pid: u32,
    pub(super) version: String,
    pub(super) started: i64,
    pub(super) databases: usize,
    /// The databases that it publishes.
    pub(super) publishes: usize,
}

impl Machine {
    /// What these reports say together.
    pub(super) fn of(reports: Vec<Report>) -> Self {
        let mut machine = Self { at: SystemClock.now().as_millis(), ..Self::default() };
        let mut databases: BTreeMap<String, DatabaseFigures> = BTreeMap::new();
        let mut readers: BTreeMap<String, ReaderFigures> = BTreeMap::new();
        let mut stores: BTreeMap<(String, String), StoreFigures> = BTreeMap::new();
        for report in reports {
            machine.processes.push(ProcessFigures {
                pid: report.pid,
                version: report.version,
                started: report.started,
                databases: report.databases.len(),
                publishes: report.databases.iter().filter(|database| database.publishes).count(),
            });
            for database in report.databases {
                merge(&mut databases, database.path.clone(), database, add_database);
            }
            for reader in report.readers {
                merge(&mut readers, reader.name.clone(), reader, add_reader);
            }
            for store in report.stores {
                merge(&mut stores, (store.kind.clone(), store.operation.clone()), store, add_store);
            }
            for (event, count) in report.events {
                *machine.events.entry(event).or_default() += count;
            }
            machine.occurrences.extend(report.occurrences);
            machine.failures.extend(report.failures);
            machine.lags.extend(report.lags);
        }
        machine.occurrences.sort_by_key(|one| (one.until.is_some(), std::cmp::Reverse(one.since)));
        machine.failures.sort_by_key(|failure| std::cmp::Reverse(failure.at));
        machine.databases = databases.into_values().collect();
        machine.readers = readers.into_values().collect();
        machine.stores = stores.into_values().collect();
        machine
    }

    /// Databases that no process of these publishes.
    pub(super) fn unpublished(&self) -> impl Iterator<Item = &DatabaseFigures> {
        self.databases.iter().filter(|database| !database.publishes)
    }
}

fn merge<K: Ord, V>(all: &mut BTreeMap<K, V>, key: K, new: V, add: fn(&mut V, V)) {
    match all.get_mut(&key) {
        Some(known) => add(known, new),
        None => drop(all.insert(key, new)),
    }
}

/// Adds what another process counted; what replicas are is what the publisher says.
fn add_database(known: &mut DatabaseFigures, other: DatabaseFigures) {
    let (mut sum, rest) = if other.publishes { (other, known.clone()) } else { (known.clone(), other) };
    sum.wal_bytes += rest.wal_bytes;
    sum.commit_waits += rest.commit_waits;
    sum.commit_wait_seconds += rest.commit_wait_seconds;
    for made in rest.checkpoints {
        match sum.checkpoints.iter_mut().find(|known| known.mode == made.mode) {
            Some(known) => {
                known.count += made.count;
                known.errors += made.errors;
                known.seconds += made.seconds;
            }
            None => sum.checkpoints.push(made),
        }
    }
    for replica in rest.replicas {
        let Some(known) = sum.replicas.iter_mut().find(|known| known.url == replica.url) else { continue };
        known.syncs += replica.syncs;
        known.sync_errors += replica.sync_errors;
        known.sync_seconds += replica.sync_seconds;
        known.broken += replica.broken;
        known.snapshots.add(&replica.snapshots);
        for made in replica.requests {
            match known.requests.iter_mut().find(|known| known.operation == made.operation) {
                Some(known) => {
                    known.requests += made.requests;
                    known.bytes += made.bytes;
                }
                None => known.requests.push(made),
            }
        }
    }
    *known = sum;
}

/// The same replica, read by another process too: what is further behind is shown.
fn add_reader(known: &mut ReaderFigures, other: ReaderFigures) {
    let (requests, cache) = (known.requests + other.requests, known.cache_bytes + other.cache_bytes);
    if other.lag > known.lag {
        *known = other;
    }
    (known.requests, known.cache_bytes) = (requests, cache);
}

fn add_store(known: &mut StoreFigures, other: StoreFigures) {
    known.requests += other.requests;
    known.bytes += other.bytes;
    known.seconds.add(&other.seconds);
    for (name, count) in other.failures {
        *known.failures.entry(name).or_default() += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::primary::ReplicaFigures;

    fn database(pid: u32, publishes: bool, lag: u64) -> DatabaseFigures {
        let replica = ReplicaFigures {
            name: "s3".to_owned(),
            url: "s3://b/a".to_owned(),
            lag,
            syncs: 3,
            ..ReplicaFigures::default()
        };
        DatabaseFigures {
            path: "/a.db".to_owned(),
            pid,
            publishes,
            wal_bytes: 100,
            replicas: vec![replica],
            ..DatabaseFigures::default()
        }
    }

    #[test]
    fn what_is_counted_adds_up_and_what_is_seen_is_what_the_publisher_sees() {
        let report = |pid, publishes, lag| Report {
            pid,
            databases: vec![database(pid, publishes, lag)],
            ..Report::default()
        };
        for order in [[(1, false, 900), (2, true, 5)], [(2, true, 5), (1, false, 900)]] {
            let reports = order.map(|(pid, publishes, lag)| report(pid, publishes, lag));
            let machine = Machine::of(reports.to_vec());
            let [database] = &machine.databases[..] else { panic!("{machine:?}") };
            assert_eq!((database.pid, database.publishes, database.wal_bytes), (2, true, 200));
            assert_eq!((database.replicas[0].lag, database.replicas[0].syncs), (5, 6));
            assert_eq!(machine.processes.len(), 2);
            assert_eq!(machine.unpublished().count(), 0);
        }
    }
}
