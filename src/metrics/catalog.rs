//! The catalog of metrics: every one, with its type, its labels and what it means.
//!
//! The first part has the names and labels of Litestream 0.5, so that its dashboard and its alert rules work here. Where
//! such a name breaks the rules for names of its type (a counter without `_total`), its type is `untyped`: queries are
//! the same. The second part is ours.

/// A metric.
#[derive(Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// What it means, in one line.
    pub help: &'static str,
}

/// The type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A value that goes up and down.
    Gauge,
    /// A value that only grows while the process lives.
    Counter,
    /// A counter under a name that Litestream gave it, which no counter should have.
    Untyped,
    /// How long something took, by buckets.
    Histogram,
}

impl Kind {
    /// The word for it in the text.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Counter => "counter",
            Self::Untyped => "untyped",
            Self::Histogram => "histogram",
        }
    }
}

/// Makes a metric of each line, and a list of all of them.
macro_rules! metrics {
    ($($name:ident = $kind:ident $text:literal [$($label:literal),*] $help:literal;)+) => {
        $(
            #[doc = $help]
            pub static $name: Metric = Metric { name: $text, kind: Kind::$kind, labels: &[$($label),*], help: $help };
        )+
        /// Every metric, in the order of the text.
        pub static METRICS: &[&Metric] = &[$(&$name),+];
    };
}

metrics! {
    INFO = Gauge "litestream_vfs_info" ["version"] "Version of the library; always 1.";
    START_TIME = Gauge "litestream_start_time_seconds" ["pid"] "When the process opened its first database, as a Unix time.";
    DATABASES = Gauge "litestream_databases" ["role"] "Databases that are open: as primary, or as replica.";
    DATABASES_LEFT_OUT = Gauge "litestream_databases_left_out" [] "Databases beyond the first 1000, which have no metrics of their own here.";

    // As Litestream has them.
    DB_SIZE = Gauge "litestream_db_size" ["db"] "Size of the database file in bytes.";
    WAL_SIZE = Gauge "litestream_wal_size" ["db"] "Size of the WAL in bytes.";
    TOTAL_WAL_BYTES = Untyped "litestream_total_wal_bytes" ["db"] "Bytes of the frames that were committed to the WAL, as far as this process saw them.";
    TXID = Gauge "litestream_txid" ["db"] "Last transaction in the first replica.";
    DISK_FULL = Gauge "litestream_disk_full" ["db"] "1 if the disk of the database has less space left than disk_reserve.";
    SYNC_COUNT = Untyped "litestream_sync_count" ["db"] "Publications: files of level 0 that were sent, to all replicas together.";
    SYNC_ERROR_COUNT = Untyped "litestream_sync_error_count" ["db"] "Rounds of publication that failed, of all replicas together.";
    SYNC_SECONDS = Untyped "litestream_sync_seconds" ["db"] "Time that publications took, of all replicas together.";
    CHECKPOINT_COUNT = Untyped "litestream_checkpoint_count" ["db", "mode"] "Checkpoints that programs made through the library, which makes none itself.";
    CHECKPOINT_ERROR_COUNT = Untyped "litestream_checkpoint_error_count" ["db", "mode"] "Those of them in which the database file could not be written or synced.";
    CHECKPOINT_SECONDS = Untyped "litestream_checkpoint_seconds" ["db", "mode"] "Time that checkpoints took.";
    COMPACTION_VERIFY_ERRORS = Untyped "litestream_compaction_verify_error_count" ["db"] "Times that files of a replica turned out to be damaged or missing when they were merged.";
    L0_RETENTION_FILES = Untyped "litestream_l0_retention_files_total" ["db", "status"] "Files of level 0 in the replicas: eligible to be deleted, not_compacted, or too_recent.";
    REPLICA_OPERATIONS = Counter "litestream_replica_operation_total" ["replica_type", "operation"] "Requests to stores, each attempt counted.";
    REPLICA_OPERATION_BYTES = Untyped "litestream_replica_operation_bytes" ["replica_type", "operation"] "Bytes that these requests sent or received.";
    REPLICA_OPERATION_SECONDS = Histogram "litestream_replica_operation_duration_seconds" ["replica_type", "operation"] "Time from a request to its answer.";
    REPLICA_OPERATION_ERRORS = Counter "litestream_replica_operation_errors_total" ["replica_type", "operation", "code"] "Requests that failed, by the kind of error.";

    // Ours.
    UP = Gauge "litestream_replica_up" ["db", "replica"] "1 while replication to the replica works, 0 while it fails or is stopped.";
    STATE = Gauge "litestream_replica_state" ["db", "replica", "state"] "What the shipper of the replica does: 1 for the state that it is in.";
    LAG = Gauge "litestream_lag_seconds" ["db", "replica"] "How long the oldest commit waits that is not in the replica; 0 if none does.";
    LAG_TRANSACTIONS = Gauge "litestream_lag_transactions" ["db", "replica"] "Commits that the process noted and that are not in the replica.";
    PUBLISHED_TXID = Gauge "litestream_published_txid" ["db", "replica"] "Last transaction in the replica.";
    PUBLISHED_TIME = Gauge "litestream_published_timestamp_seconds" ["db", "replica"] "When that transaction was committed, as a Unix time.";
    DIRTY_PAGES = Gauge "litestream_dirty_pages" ["db", "replica"] "Pages that changed and whose content is in no file yet, beside those that the WAL index names.";
    OUTBOX_FILES = Gauge "litestream_outbox_files" ["db", "replica"] "Local files that wait for the replica.";
    OUTBOX_BYTES = Gauge "litestream_outbox_bytes" ["db", "replica"] "Size of these files.";
    COMMIT_WAITS = Counter "litestream_commit_waits_total" ["db"] "Commits that waited for replicas, confirmed or not.";
    COMMIT_WAIT_SECONDS = Counter "litestream_commit_wait_seconds_total" ["db"] "Time that they waited.";
    LEVEL_FILES = Gauge "litestream_level_files" ["db", "replica", "level"] "Files of the replica by level, as last listed or changed; level 9 has snapshots.";
    LEVEL_BYTES = Gauge "litestream_level_bytes" ["db", "replica", "level"] "Size of these files.";
    OLDEST = Gauge "litestream_oldest_restorable_timestamp_seconds" ["db", "replica"] "The time from which on the replica can be restored, as a Unix time.";
    HOLES = Gauge "litestream_holes" ["db", "replica"] "1 while the files of the replica do not lead to what was published.";
    VERIFIED_TXID = Gauge "litestream_verified_txid" ["db", "replica"] "Last transaction that was proven restorable.";
    VERIFIED_TIME = Gauge "litestream_verified_timestamp_seconds" ["db", "replica"] "When that was proven, as a Unix time.";
    VERIFIED_OK = Gauge "litestream_verification_ok" ["db", "replica"] "1 if the last verification found nothing wrong, 0 if it did.";
    REPLICATION_ERRORS = Counter "litestream_replication_errors_total" ["db", "replica"] "Rounds of publication that failed.";
    SNAPSHOT_SECONDS = Histogram "litestream_snapshot_duration_seconds" ["db", "replica"] "Time that snapshots took.";
    REQUESTS = Counter "litestream_replica_requests_total" ["db", "replica", "operation", "price_class"] "Requests to the store of the replica: class A (writes, listings) costs about twelve times class B (reads); deletions are free with most.";
    REQUEST_BYTES = Counter "litestream_replica_request_bytes_total" ["db", "replica", "operation"] "Bytes that these requests sent or received.";
    DISK_FREE = Gauge "litestream_disk_free_bytes" ["db"] "Space that is left on the disk of the database.";
    READER_UP = Gauge "litestream_reader_up" ["replica"] "1 while an open replica can be read and followed.";
    READER_LAG = Gauge "litestream_reader_lag_seconds" ["replica"] "Age of what is read of an open replica.";
    READER_TXID = Gauge "litestream_reader_txid" ["replica"] "Transaction that is read of an open replica.";
    READER_CACHE_BYTES = Gauge "litestream_reader_cache_bytes" ["replica"] "Memory that its page cache takes.";
    READER_PAGES = Gauge "litestream_reader_pages" ["replica"] "Size of the database in pages.";
    READER_REQUESTS = Counter "litestream_reader_requests_total" ["replica"] "Requests since it was opened.";
    EVENTS = Counter "litestream_events_total" ["event"] "Events that an operator should know of.";
    ALARMS = Gauge "litestream_alarm" ["event", "db", "replica"] "1 while what the event tells of lasts.";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_keep_the_rules_of_their_type() {
        let names: BTreeSet<_> = METRICS.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), METRICS.len());
        for metric in METRICS {
            assert!(metric.name.starts_with("litestream_"), "{}", metric.name);
            match metric.kind {
                Kind::Counter => assert!(metric.name.ends_with("_total"), "{}", metric.name),
                Kind::Gauge | Kind::Histogram => assert!(!metric.name.ends_with("_total"), "{}", metric.name),
                Kind::Untyped => {}
            }
        }
    }
}
