//! The metrics of a machine, as Prometheus reads them.

use std::collections::BTreeMap;

use super::limits::Limits;
use super::report::Machine;
use crate::metrics::*;
use crate::primary::{DatabaseFigures, ReplicaFigures};

/// Databases, and replicas that are read, that have metrics of their own, at most.
const MOST: usize = 1000;

/// The metrics of the machine, or of one process.
pub(super) fn text(machine: &Machine, limits: &Limits) -> String {
    let mut samples = Samples::default();
    of_processes(&mut samples, machine);
    for database in machine.databases.iter().take(MOST) {
        of_database(&mut samples, database, limits);
        database.replicas.iter().for_each(|replica| of_replica(&mut samples, &database.path, replica));
    }
    for reader in machine.readers.iter().take(MOST) {
        let name = [&*reader.name];
        samples.count(&READER_UP, &name, u64::from(reader.error.is_none()));
        samples.set(&READER_LAG, &name, seconds(reader.lag));
        samples.count(&READER_TXID, &name, reader.txid);
        samples.count(&READER_CACHE_BYTES, &name, reader.cache_bytes);
        samples.count(&READER_PAGES, &name, u64::from(reader.pages));
        samples.count(&READER_REQUESTS, &name, reader.requests);
    }
    of_stores(&mut samples, machine);
    of_events(&mut samples, machine);
    samples.text()
}

fn seconds(millis: u64) -> f64 {
    millis as f64 / 1000.0
}

/// A time in seconds since the Unix epoch.
fn time(millis: i64) -> f64 {
    millis as f64 / 1000.0
}

fn of_processes(samples: &mut Samples, machine: &Machine) {
    for process in &machine.processes {
        samples.count(&INFO, &[&process.version], 1);
        samples.set(&START_TIME, &[&process.pid.to_string()], time(process.started));
    }
    samples.count(&DATABASES, &["primary"], machine.databases.len() as u64);
    samples.count(&DATABASES, &["replica"], machine.readers.len() as u64);
    let left_out = |len: usize| len.saturating_sub(MOST) as u64;
    let left_out = left_out(machine.databases.len()) + left_out(machine.readers.len());
    samples.count(&DATABASES_LEFT_OUT, &[], left_out);
}

fn of_database(samples: &mut Samples, database: &DatabaseFigures, limits: &Limits) {
    let db = [&*database.path];
    samples.set_known(&DB_SIZE, &db, database.db_size.map(|size| size as f64));
    samples.count(&WAL_SIZE, &db, database.wal_size);
    samples.count(&TOTAL_WAL_BYTES, &db, database.wal_bytes);
    samples.set_known(&DISK_FREE, &db, database.disk_free.map(|free| free as f64));
    let is_full = database.disk_free.map(|free| f64::from(u8::from(free < limits.disk_reserve)));
    samples.set_known(&DISK_FULL, &db, is_full);
    let first = database.replicas.first();
    samples.set_known(&TXID, &db, first.and_then(|replica| replica.txid).map(|txid| txid as f64));
    let sum = |count: fn(&ReplicaFigures) -> f64| database.replicas.iter().map(count).sum::<f64>();
    samples.set(&SYNC_COUNT, &db, sum(|replica| replica.syncs as f64));
    samples.set(&SYNC_ERROR_COUNT, &db, sum(|replica| replica.sync_errors as f64));
    samples.set(&SYNC_SECONDS, &db, sum(|replica| replica.sync_seconds));
    samples.set(&COMPACTION_VERIFY_ERRORS, &db, sum(|replica| replica.broken as f64));
    for made in &database.checkpoints {
        let labels = [&*database.path, &*made.mode];
        samples.count(&CHECKPOINT_COUNT, &labels, made.count);
        samples.count(&CHECKPOINT_ERROR_COUNT, &labels, made.errors);
        samples.set(&CHECKPOINT_SECONDS, &labels, made.seconds);
    }
    type Count = fn(&ReplicaFigures) -> f64;
    let statuses: [(&str, Count); 3] = [
        ("eligible", |replica| replica.l0.0 as f64),
        ("not_compacted", |replica| replica.l0.1 as f64),
        ("too_recent", |replica| replica.l0.2 as f64),
    ];
    for (status, count) in statuses {
        samples.set(&L0_RETENTION_FILES, &[&database.path, status], sum(count));
    }
    if database.commit_waits > 0 {
        samples.count(&COMMIT_WAITS, &db, database.commit_waits);
        samples.set(&COMMIT_WAIT_SECONDS, &db, database.commit_wait_seconds);
    }
}

fn of_replica(samples: &mut Samples, db: &str, replica: &ReplicaFigures) {
    let labels = [db, &*replica.name];
    samples.count(&UP, &labels, u64::from(replica.is_up()));
    samples.count(&STATE, &[db, &replica.name, &replica.state], 1);
    samples.set(&LAG, &labels, seconds(replica.lag));
    samples.count(&LAG_TRANSACTIONS, &labels, replica.lag_transactions);
    samples.set_known(&PUBLISHED_TXID, &labels, replica.txid.map(|txid| txid as f64));
    samples.set_known(&PUBLISHED_TIME, &labels, replica.time.map(time));
    samples.set_known(&DIRTY_PAGES, &labels, replica.dirty_pages.map(|pages| pages as f64));
    samples.set_known(&OUTBOX_FILES, &labels, replica.outbox_files.map(|files| files as f64));
    samples.set_known(&OUTBOX_BYTES, &labels, replica.outbox_bytes.map(|bytes| bytes as f64));
    samples.count(&HOLES, &labels, u64::from(replica.has_hole));
    samples.set_known(&VERIFIED_TXID, &labels, replica.verified.map(|(txid, _)| txid as f64));
    samples.set_known(&VERIFIED_TIME, &labels, replica.verified.map(|(_, at)| time(at)));
    if replica.verified.is_some() || replica.verification_error.is_some() {
        samples.count(&VERIFIED_OK, &labels, u64::from(replica.verification_error.is_none()));
    }
    samples.count(&REPLICATION_ERRORS, &labels, replica.sync_errors);
    if replica.snapshots.counts.iter().any(|count| *count > 0) {
        samples.histogram(&SNAPSHOT_SECONDS, &labels, replica.snapshots.clone());
    }
    for level in &replica.levels {
        let labels = [db, &*replica.name, &level.level.to_string()];
        samples.count(&LEVEL_FILES, &labels, level.files);
        samples.count(&LEVEL_BYTES, &labels, level.bytes);
    }
    samples.set_known(&OLDEST, &labels, replica.oldest.map(time));
    for made in &replica.requests {
        let labels = [db, &*replica.name, &*made.operation];
        samples.count(&REQUESTS, &[db, &replica.name, &made.operation, &made.price_class], made.requests);
        samples.count(&REQUEST_BYTES, &labels, made.bytes);
    }
}

fn of_stores(samples: &mut Samples, machine: &Machine) {
    for store in &machine.stores {
        let labels = [&*store.kind, &*store.operation];
        samples.count(&REPLICA_OPERATIONS, &labels, store.requests);
        samples.count(&REPLICA_OPERATION_BYTES, &labels, store.bytes);
        samples.histogram(&REPLICA_OPERATION_SECONDS, &labels, store.seconds.clone());
        for (code, count) in &store.failures {
            samples.count(&REPLICA_OPERATION_ERRORS, &[&store.kind, &store.operation, code], *count);
        }
    }
}

/// Events are shown with the name of a replica, never its URL.
fn of_events(samples: &mut Samples, machine: &Machine) {
    let mut names: BTreeMap<(&str, &str), &str> = BTreeMap::new();
    for database in machine.databases.iter().take(MOST) {
        for replica in &database.replicas {
            names.insert((&database.path, &replica.url), &replica.name);
        }
    }
    for (event, count) in &machine.events {
        samples.count(&EVENTS, &[event], *count);
    }
    for lasting in machine.occurrences.iter().filter(|one| one.until.is_none()).take(MOST) {
        let replica = names.get(&(&*lasting.db, &*lasting.replica)).copied().unwrap_or_default();
        samples.count(&ALARMS, &[&lasting.event, &lasting.db, replica], 1);
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::{OccurrenceFigures, ReaderFigures};
    use super::*;

    fn machine(databases: usize) -> Machine {
        let replica = ReplicaFigures {
            name: "s3".to_owned(),
            url: "s3://bucket-of-ours/a".to_owned(),
            state: "idle".to_owned(),
            lag: 1500,
            ..ReplicaFigures::default()
        };
        let database = |n| DatabaseFigures {
            path: format!("/data/{n:05}.db"),
            replicas: vec![replica.clone()],
            ..DatabaseFigures::default()
        };
        let occurrence = OccurrenceFigures {
            event: "upload_failed".to_owned(),
            db: "/data/00000.db".to_owned(),
            replica: replica.url.clone(),
            ..OccurrenceFigures::default()
        };
        let reader = ReaderFigures {
            url: "s3://bucket-of-ours/b".to_owned(),
            name: "s3-1".to_owned(),
            ..ReaderFigures::default()
        };
        Machine {
            databases: (0..databases).map(database).collect(),
            occurrences: vec![occurrence],
            readers: vec![reader],
            ..Machine::default()
        }
    }

    #[test]
    fn no_url_is_shown() {
        let text = text(&machine(1), &Limits::default());
        assert!(!text.contains("bucket-of-ours"), "{text}");
        assert!(
            text.contains("litestream_lag_seconds{db=\"/data/00000.db\",replica=\"s3\"} 1.5\n"),
            "{text}"
        );
        let alarm = "litestream_alarm{event=\"upload_failed\",db=\"/data/00000.db\",replica=\"s3\"} 1\n";
        assert!(text.contains(alarm), "{text}");
    }

    #[test]
    fn beyond_a_thousand_databases_they_are_only_counted() {
        let text = text(&machine(1003), &Limits::default());
        let of_databases = text.lines().filter(|line| line.starts_with("litestream_wal_size{")).count();
        assert_eq!(of_databases, 1000);
        assert!(text.contains("litestream_databases_left_out 3\n"), "{text}");
        assert!(text.contains("litestream_databases{role=\"primary\"} 1003\n"));
    }
}
