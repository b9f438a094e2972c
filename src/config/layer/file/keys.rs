//! Keys of Litestream's configuration file that are no settings of this library: what reads them, or why nothing does.

/// Keys of the whole file without effect, and why.
pub(super) const GLOBAL: &[(&str, &str)] = &[
    ("exec", "the program itself loads the library"),
    ("socket", "there is no control socket of Litestream here; use SQL functions"),
    ("l0-retention-check-interval", "files are deleted when they fall due, without a timer"),
    ("verify-compaction", "merged files are always looked for before others are deleted"),
    ("shutdown-sync-interval", "the last close waits without asking again and again"),
    ("validation", "verify-interval is the setting that has a replica read to prove that it restores"),
];

/// Keys of an entry of `dbs` without effect, and why.
pub(super) const DATABASE: &[(&str, &str)] = &[
    ("watch", "a database that fits is replicated when it is opened"),
    ("monitor-interval", "commits are noticed at once"),
    ("checkpoint-interval", "checkpoints stay SQLite's own"),
    ("busy-timeout", "a view waits for no writer"),
    ("min-checkpoint-page-count", "checkpoints stay SQLite's own"),
    ("max-checkpoint-page-count", "checkpoints stay SQLite's own"),
    ("truncate-page-n", "checkpoints stay SQLite's own"),
    ("shadow-retention-n", "the WAL is never copied"),
    ("max-sync-wal-bytes", "what is sent is bounded by the pages that changed"),
];

/// Keys of a replica without effect, and why.
pub(super) const REPLICA: &[(&str, &str)] = &[
    ("name", "a replica is named by its URL"),
    (
        "validation-interval",
        "verify-interval is the setting that has a replica read to prove that it restores",
    ),
    ("retention-check-interval", "files are deleted when they fall due, without a timer"),
    ("max-sync-ltx-files", "files that wait are merged before they are sent"),
];

/// Fields by which Litestream's replicas are found and reached, beside the settings that this library has in other
/// places too.
pub(super) const FIELDS: &[&str] = &[
    "bucket",
    "host",
    "user",
    "password",
    "key-path",
    "host-key",
    "concurrent-writes",
    "account-name",
    "account-key",
    "sas-token",
    "webdav-url",
    "webdav-username",
    "webdav-password",
    "jwt",
    "seed",
    "creds",
    "nkey",
    "username",
    "token",
    "tls",
    "root-cas",
    "client-cert",
    "client-key",
    "max-reconnects",
    "reconnect-wait",
    "timeout",
    "endpoint",
    "region",
    "access-key-id",
    "secret-access-key",
];

/// Fields that a replica does not take over from the top of the file, as in Litestream.
pub(super) const NOT_INHERITED: &[&str] =
    &["part-size", "concurrency", "host-key", "webdav-url", "webdav-username", "webdav-password"];

/// Fields that say where a replica is, and so must not stand beside its `url`.
pub(super) const BESIDE_NO_URL: &[&str] = &["path", "bucket", "host", "webdav-url"];

/// Whether what stands at `key` may be a secret, or a URL that has one.
pub(super) fn may_hold_a_secret(key: &str) -> bool {
    ["password", "secret", "key", "token", "seed", "creds", "jwt", "url", "identit"]
        .iter()
        .any(|part| key.contains(part))
}
