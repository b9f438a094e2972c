//! The catalog of settings: every one, with its type, limits, default and meaning.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use tracing::level_filters::LevelFilter;

use super::setting::{
    CountedTxid, Declared, Hydrate, IntegrityCheck, Kind, OfStore, Restore, Role, Scope, Setting, SqlReach,
    WebAddress,
};
use crate::logging::LogFormat;
use crate::ltx::Txid;
use crate::primary::{CommitMode, Rewound, SnapshotAt, SyncReplicas};
use crate::replica::RestorePoint;
use crate::store::{PROVIDERS, StoreKind, StoreSetting};

/// Every setting, in the order of `docs/settings.md`.
pub static SETTINGS: LazyLock<Vec<Declared>> = LazyLock::new(|| {
    OPENING.iter().map(|s| **s).chain(of_stores()).chain(REST.iter().map(|s| **s)).collect()
});

/// Makes a setting of each line, and a list of all of them.
macro_rules! settings {
    ($(#[$doc:meta])* $list:ident: $($name:ident: $type:ty = $setting:expr;)+) => {
        $(pub(in crate::config) static $name: Setting<$type> = $setting;)+
        $(#[$doc])*
        static $list: &[&Declared] = &[$(&$name.declared),+];
    };
}

settings! {
    /// The settings that an open has.
    OPENING:
    REPLICA: Option<String> = Setting::new(
        Scope::Open,
        "replica",
        Kind::Text,
        "URL of the replica. Makes the open a primary, or a replica with `mode=ro`. May be given several times, see \
         [several replicas](#several-replicas).",
    );
    REPLICA_URL: Option<String> = Setting::new(
        Scope::Open,
        "replica_url",
        Kind::Text,
        "The same, as Litestream's own extension spells it: the open is a replica unless `role=primary`.",
    )
    .env(&["LITESTREAM_REPLICA_URL"]);
    ROLE: Option<Role> = Setting::optional_word(
        Scope::Open,
        "role",
        "`primary` or `replica`, whatever the other parameters say. In the environment it decides only where nothing \
         but the URL in `LITESTREAM_REPLICA_URL` or `replica_url` is given.",
    )
    .env(&["LITESTREAM_ROLE"]);
    CONFIG: Option<PathBuf> = Setting::new(
        Scope::Open,
        "config",
        Kind::Text,
        "The configuration file, see [litestream.yml](#litestreamyml). Without it: `/etc/litestream.yml`, if there is \
         one. `off` for none.",
    )
    .env(&["LITESTREAM_CONFIG"]);
    SYNC_INTERVAL: Duration = Setting::new(
        Scope::Shipper,
        "sync_interval",
        Kind::Duration { min: "10ms", max: "1h" },
        "Under load, at most one upload in this time. The first commit after quiet goes out at once.",
    )
    .env(&["LITESTREAM_SYNC_INTERVAL"])
    .default("1s");
    CLOSE_TIMEOUT: Duration = Setting::new(
        Scope::Primary,
        "close_timeout",
        Kind::Duration { min: "0s", max: "10m" },
        "How long the last close waits for uploads. What is not sent by then goes out at the next open.",
    )
    .env(&["LITESTREAM_CLOSE_TIMEOUT"])
    .default("5s");
    WATCH_INTERVAL: Duration = Setting::new(
        Scope::Primary,
        "watch_interval",
        Kind::Duration { min: "100ms", max: "1h" },
        "How often an idle primary looks whether the database was written by a process without this library.",
    )
    .env(&["LITESTREAM_WATCH_INTERVAL"])
    .default("10s");
    SPOOL_LIMIT: u64 = Setting::new(
        Scope::Shipper,
        "spool_limit",
        Kind::Size { min: "1MiB", max: "1TiB" },
        "What waits on local disk for a replica that cannot be reached. Beyond it, only which pages changed is kept, and \
         points in time of the outage are given up.",
    )
    .env(&["LITESTREAM_SPOOL_LIMIT"])
    .default("1GiB");
    SYNC_REPLICAS: SyncReplicas = Setting::new(
        Scope::Primary,
        "sync_replicas",
        Kind::Text,
        "How many of several replicas `litestream_sync` waits for: `all`, `any`, or a number.",
    )
    .env(&["LITESTREAM_SYNC_REPLICAS"])
    .default("all");
    COMMIT: CommitMode = Setting::new(
        Scope::Primary,
        "commit",
        Kind::Text,
        "When a commit returns: `local`, when SQLite has it; `replicated`, when it is in all replicas too; or in how many of \
         them, see [commits that wait](operating.md#commits-that-wait).",
    )
    .env(&["LITESTREAM_COMMIT"])
    .default("local");
    COMMIT_TIMEOUT: Duration = Setting::new(
        Scope::Primary,
        "commit_timeout",
        Kind::Duration { min: "10ms", max: "1h" },
        "How long such a commit waits before it fails as not confirmed.",
    )
    .env(&["LITESTREAM_COMMIT_TIMEOUT"])
    .default("10s");
    WAL_RESET_GUARD: bool = Setting::new(
        Scope::Primary,
        "wal_reset_guard",
        Kind::Flag,
        "Keep the WAL-reset bug of SQLite before 3.51.3 from losing commits. Without effect on versions that do not have it.",
    )
    .env(&["LITESTREAM_WAL_RESET_GUARD"])
    .default("true");
    RESTORE: Restore = Setting::word(
        Scope::Primary,
        "restore",
        "With `missing`, a database whose file is missing or empty is restored before the open returns, from the first \
         replica that has it.",
    )
    .env(&["LITESTREAM_RESTORE"])
    .default("off");
    REWOUND: Rewound = Setting::word(
        Scope::Shipper,
        "rewound",
        "What becomes of a database that is exactly an earlier state of its replica when it is opened: it is brought \
         `forward` to the newest state, or replication will `stop`.",
    )
    .env(&["LITESTREAM_REWOUND"])
    .default("forward");
    AUTO_RECOVER: bool = Setting::new(
        Scope::Shipper,
        "auto_recover",
        Kind::Flag,
        "Whether a replica that lost files is healed, with a notice, by a full copy of the database. With `false` \
         replication stops instead.",
    )
    .env(&["LITESTREAM_AUTO_RECOVER"])
    .default("true");
    VERIFY_INTERVAL: Duration = Setting::new(
        Scope::Shipper,
        "verify_interval",
        Kind::Duration { min: "0s", max: "8760h" },
        "How often the replica is read in the background to prove that it restores, if it changed. With `0s` never.",
    )
    .env(&["LITESTREAM_VERIFY_INTERVAL"])
    .default("0s");
    PACK: bool = Setting::new(
        Scope::Either,
        "pack",
        Kind::Flag,
        "Whether a primary puts packs beside large files, and a reader fetches them: with one, rows are found in fewer round \
         trips, see [how a replica is read](how-it-works.md#how-a-replica-is-read).",
    )
    .env(&["LITESTREAM_PACK"])
    .default("on");
    LEVELS: Vec<Duration> = Setting::new(
        Scope::Shipper,
        "levels",
        Kind::Durations { min: "1s", max: "8760h", count: 8 },
        "How much time one file of each level covers, from level 1 on: files are merged at the end of each such time.",
    )
    .env(&["LITESTREAM_LEVELS"])
    .default("30s,5m,1h");
    SNAPSHOT_INTERVAL: Duration = Setting::new(
        Scope::Shipper,
        "snapshot_interval",
        Kind::Duration { min: "1s", max: "8760h" },
        "How often the whole database becomes one file, if it changed.",
    )
    .env(&["LITESTREAM_SNAPSHOT_INTERVAL"])
    .default("24h");
    SNAPSHOT_AT: SnapshotAt = Setting::new(
        Scope::Shipper,
        "snapshot_at",
        Kind::Text,
        "The time of day in UTC at which that is, such as `03:00`: each replica has its own minute in the half hour that begins \
         then. Needs a `snapshot_interval` that a day is divided by, or of whole days. `off`: when the interval ends.",
    )
    .env(&["LITESTREAM_SNAPSHOT_AT"])
    .default("off");
    SNAPSHOT_RETENTION: Duration = Setting::new(
        Scope::Shipper,
        "snapshot_retention",
        Kind::Duration { min: "1s", max: "876000h" },
        "How far back one can go. A snapshot is deleted when a later one is this old, and with it what \
         only leads to older states.",
    )
    .env(&["LITESTREAM_SNAPSHOT_RETENTION"])
    .default("24h");
    L0_RETENTION: Duration = Setting::new(
        Scope::Shipper,
        "l0_retention",
        Kind::Duration { min: "0s", max: "8760h" },
        "How long a file of level 0 stays at least, once it is merged into level 1. With `0s` for ever.",
    )
    .env(&["LITESTREAM_L0_RETENTION"])
    .default("5m");
    RETENTION: bool = Setting::new(
        Scope::Shipper,
        "retention",
        Kind::Flag,
        "With `off` nothing is ever deleted, and no permission to delete is needed.",
    )
    .env(&["LITESTREAM_RETENTION"])
    .default("on");
    RETENTION_HOURLY: Option<u64> = Setting::new(
        Scope::Shipper,
        "retention_hourly",
        Kind::Count { min: 0, max: 1_000_000 },
        "How many of the latest hours that have a restore point keep their last one, however old it is, see \
         [how long history is kept](operating.md#how-long-history-is-kept).",
    )
    .env(&["LITESTREAM_RETENTION_HOURLY"]);
    RETENTION_DAILY: Option<u64> = Setting::new(
        Scope::Shipper,
        "retention_daily",
        Kind::Count { min: 0, max: 1_000_000 },
        "The same of days, in UTC.",
    )
    .env(&["LITESTREAM_RETENTION_DAILY"]);
    RETENTION_WEEKLY: Option<u64> = Setting::new(
        Scope::Shipper,
        "retention_weekly",
        Kind::Count { min: 0, max: 1_000_000 },
        "The same of weeks, which begin on Monday.",
    )
    .env(&["LITESTREAM_RETENTION_WEEKLY"]);
    RETENTION_MONTHLY: Option<u64> = Setting::new(
        Scope::Shipper,
        "retention_monthly",
        Kind::Count { min: 0, max: 1_000_000 },
        "The same of months.",
    )
    .env(&["LITESTREAM_RETENTION_MONTHLY"]);
    OPEN_TIMEOUT: Duration = Setting::new(
        Scope::Replica,
        "open_timeout",
        Kind::Duration { min: "0s", max: "10m" },
        "How long an open waits for a replica that is still empty, and for a store that does not answer.",
    )
    .env(&["LITESTREAM_OPEN_TIMEOUT"])
    .default("10s");
    POLL_INTERVAL: Duration = Setting::new(
        Scope::Replica,
        "poll_interval",
        Kind::Duration { min: "10ms", max: "1h" },
        "How often the replica looks for new transactions.",
    )
    .env(&["LITESTREAM_POLL_INTERVAL"])
    .default("1s");
    POLL_IDLE_INTERVAL: Duration = Setting::new(
        Scope::Replica,
        "poll_idle_interval",
        Kind::Duration { min: "10ms", max: "24h" },
        "How often it looks when nobody has read for ten polls. Who reads then waits for a poll, a second at most.",
    )
    .env(&["LITESTREAM_POLL_IDLE_INTERVAL"])
    .default("30s");
    HYDRATE: Hydrate = Setting::new(
        Scope::Replica,
        "hydrate",
        Kind::Flag,
        "Download the whole database in the background; then pages are read from a local file. With `plain` also that of an \
         encrypted replica: the file is not encrypted.",
    )
    .env(&["LITESTREAM_HYDRATION_ENABLED"])
    .default("false");
    HYDRATION_PATH: Option<PathBuf> = Setting::new(
        Scope::Replica,
        "hydration_path",
        Kind::Text,
        "That file. Default: `hydration.db` in `.<file name>-litestream/` beside the database's name.",
    )
    .env(&["LITESTREAM_HYDRATION_PATH"]);
    CACHE_SIZE: u64 = Setting::new(
        Scope::Replica,
        "cache_size",
        Kind::Size { min: "1MiB", max: "1TiB" },
        "Memory for cached pages, shared by all connections to the replica.",
    )
    .env(&["LITESTREAM_CACHE_SIZE"])
    .default("32MiB");
    CACHE_DIR: Option<PathBuf> = Setting::new(
        Scope::Replica,
        "cache_dir",
        Kind::Text,
        "Folder for what was read, so that it need not be fetched again after a restart. Processes may \
         share it.",
    )
    .env(&["LITESTREAM_CACHE_DIR"]);
    CACHE_DIR_SIZE: u64 = Setting::new(
        Scope::Replica,
        "cache_dir_size",
        Kind::Size { min: "64MiB", max: "1TiB" },
        "What all that is in `cache_dir` may take.",
    )
    .env(&["LITESTREAM_CACHE_DIR_SIZE"])
    .default("1GiB");
    AGE_IDENTITY: Option<String> = Setting::new(
        Scope::Seal,
        "age_identity",
        Kind::Secret,
        "What opens an encrypted replica, see [encrypted replicas](operating.md#encrypted-replicas): `AGE-SECRET-KEY-1…`, or 64 \
         hexadecimal digits; several with spaces between them. In the configuration file also `age: {identities: […]}`. Better \
         given in a file.",
    )
    .env(&["LITESTREAM_AGE_IDENTITY", "LITESTREAM_AGE_SECRET_KEY"]);
    AGE_IDENTITY_FILE: Option<PathBuf> = Setting::new(
        Scope::Seal,
        "age_identity_file",
        Kind::Text,
        "A file with such identities, as `litestream_keygen()` and `age-keygen` write it.",
    )
    .env(&["LITESTREAM_AGE_IDENTITY_FILE"]);
    PLAIN_UNTIL: Option<CountedTxid> = Setting::new(
        Scope::Seal,
        "plain_until",
        Kind::Txid,
        "The last transaction before encryption was turned on: up to it, files that are not sealed are taken.",
    )
    .env(&["LITESTREAM_PLAIN_UNTIL"]);
    REQUIRE_ENCRYPTION: Option<bool> = Setting::new(
        Scope::Seal,
        "require_encryption",
        Kind::Flag,
        "Whether files that are not sealed are refused. Without it: if there is an identity or a recipient.",
    )
    .env(&["LITESTREAM_REQUIRE_ENCRYPTION"]);
    AGE_RECIPIENT: Option<String> = Setting::new(
        Scope::Seal,
        "age_recipient",
        Kind::Text,
        "Who may open what a primary writes, `age1…`: all of it is encrypted, see [encrypted replicas](operating.md#encrypted-replicas). It \
         may be given several times. In the configuration file also `age: {recipients: […]}`.",
    )
    .env(&["LITESTREAM_AGE_RECIPIENT"]);
    AGE_RECIPIENTS_FILE: Option<PathBuf> =
        Setting::new(Scope::Seal, "age_recipients_file", Kind::Text, "A file with such recipients, one a line.")
            .env(&["LITESTREAM_AGE_RECIPIENTS_FILE"]);
    ASOF: Option<RestorePoint> = Setting::new(
        Scope::Replica,
        "asof",
        Kind::Point,
        "The state to read: a time, a TXID or `latest`, see [points in time](operating.md#points-in-time). Without it: the latest.",
    );
    MIN_TXID: Option<Txid> = Setting::new(
        Scope::Replica,
        "min_txid",
        Kind::Txid,
        "A transaction, as `litestream_sync` gave it, that the replica must show: the open waits for it, `open_timeout` at \
         most.",
    );
}

settings! {
    /// The settings of SQL functions and of the process.
    REST:
    FORCE: bool = Setting::new(Scope::Restore, "force", Kind::Flag, "Replace the file if it exists.").default("false");
    TXID: Option<RestorePoint> = Setting::new(
        Scope::State,
        "txid",
        Kind::Txid,
        "The state after this transaction. Without it or `timestamp`: the latest.",
    );
    TIMESTAMP: Option<RestorePoint> = Setting::new(Scope::State, "timestamp", Kind::Time, "The last state at or before this time.");
    PARALLELISM: u64 = Setting::new(
        Scope::Restore,
        "parallelism",
        Kind::Count { min: 1, max: 64 },
        "Downloads at the same time; of small files up to eight times as many, 64 at most, unless it is `1`.",
    )
    .default("8");
    IF_DB_NOT_EXISTS: bool = Setting::new(
        Scope::Restore,
        "if_db_not_exists",
        Kind::Flag,
        "If the file exists, leave it as it is; that is no error.",
    )
    .default("false");
    IF_REPLICA_EXISTS: bool = Setting::new(Scope::Restore, "if_replica_exists", Kind::Flag, "An empty replica is no error.").default("false");
    INTEGRITY_CHECK: IntegrityCheck = Setting::word(
        Scope::Restore,
        "integrity_check",
        "SQLite checks the database before it gets its name: `PRAGMA quick_check` or `PRAGMA integrity_check`.",
    )
    .default("none");
    REWIND: bool = Setting::new(
        Scope::Restore,
        "rewind",
        Kind::Flag,
        "With `txid` or `timestamp`: the state is to become the present. A primary that opens the file publishes it after \
         all that the replica holds, damaged or not, and as a snapshot; without this, it waits until somebody decides.",
    )
    .default("false");
    DRY_RUN: bool = Setting::new(Scope::Restore, "dry_run", Kind::Flag, "Only report what would be restored.").default("false");
    QUICK: bool = Setting::new(Scope::Verify, "quick", Kind::Flag, "Only list the files and check their page indexes.")
        .default("false");
    FOLLOW_INTERVAL: Duration = Setting::new(
        Scope::Follow,
        "follow_interval",
        Kind::Duration { min: "10ms", max: "24h" },
        "How often the copy looks for new transactions.",
    )
    .default("1s");
    BANDWIDTH: Option<u64> = Setting::new(
        Scope::Follow,
        "bandwidth",
        Kind::Size { min: "1KiB", max: "1TiB" },
        "The most that is downloaded for the copy in a second. Without it: no limit.",
    );
    LISTEN: Option<String> = Setting::new(
        Scope::Monitor,
        "listen",
        Kind::Text,
        "Address and port for metrics, health and a status page, such as `127.0.0.1:9090`, see [Is it working?](operating.md#is-it-working). \
         In the configuration file also `addr`. Without it nothing listens.",
    )
    .env(&["LITESTREAM_LISTEN"]);
    LISTEN_TOKEN: Option<String> = Setting::new(
        Scope::Monitor,
        "listen_token",
        Kind::Secret,
        "What shows the status page, to whoever has it and nobody else. Without it the page is for this machine only.",
    )
    .env(&["LITESTREAM_LISTEN_TOKEN"]);
    MCP_ADDR: Option<String> = Setting::new(
        Scope::Monitor,
        "mcp_addr",
        Kind::Text,
        "Address and port at which an assistant calls tools, such as `127.0.0.1:3001`, see [assistants](operating.md#assistants). \
         Without it nothing listens there.",
    )
    .env(&["LITESTREAM_MCP_ADDR"]);
    MCP_TOKEN: Option<String> = Setting::new(
        Scope::Monitor,
        "mcp_token",
        Kind::Secret,
        "What who calls them must know. An address that other machines reach needs it.",
    )
    .env(&["LITESTREAM_MCP_TOKEN"]);
    MAX_LAG: Duration = Setting::new(
        Scope::Monitor,
        "max_lag",
        Kind::Duration { min: "1s", max: "8760h" },
        "How long a commit may wait for a replica before the process counts as unhealthy and `lag_high` is told.",
    )
    .env(&["LITESTREAM_MAX_LAG"])
    .default("5m");
    DISK_RESERVE: u64 = Setting::new(
        Scope::Monitor,
        "disk_reserve",
        Kind::Size { min: "1MiB", max: "1TiB" },
        "The space that the disk of a database must have left before it counts as unhealthy and `disk_low` is told.",
    )
    .env(&["LITESTREAM_DISK_RESERVE"])
    .default("256MiB");
    HEARTBEAT_URL: Option<WebAddress> = Setting::new(
        Scope::Monitor,
        "heartbeat_url",
        Kind::Secret,
        "An address that is asked for once in `heartbeat_interval`, as long as every commit of every database got to its \
         replicas within that time.",
    )
    .env(&["LITESTREAM_HEARTBEAT_URL"]);
    HEARTBEAT_INTERVAL: Duration = Setting::new(
        Scope::Monitor,
        "heartbeat_interval",
        Kind::Duration { min: "1m", max: "8760h" },
        "How often that is.",
    )
    .env(&["LITESTREAM_HEARTBEAT_INTERVAL"])
    .default("5m");
    SQL: Option<SqlReach> = Setting::optional_word(
        Scope::Process,
        "sql",
        "Whether SQL may write files and reach stores: `on` every connection, `off` on none; without it see \
         [who may do what](sql.md#who-may-do-what).",
    )
    .env(&["LITESTREAM_SQL"]);
    LOG_LEVEL: LevelFilter = Setting::word(
        Scope::Process,
        "log_level",
        "Which events are logged.",
    )
    .env(&["LITESTREAM_LOG_LEVEL"])
    .default("warn");
    DEFAULT_VFS: bool = Setting::new(
        Scope::Process,
        "default_vfs",
        Kind::Flag,
        "Whether the library becomes the default VFS when it is loaded, see [hosts without URIs](#hosts-without-uris).",
    )
    .env(&["LITESTREAM_DEFAULT_VFS"])
    .default("false");
    LOG_FORMAT: LogFormat = Setting::word(
        Scope::Process,
        "log_format",
        "How an event is written: as a line of text, or as a JSON object on a line.",
    )
    .env(&["LITESTREAM_LOG_FORMAT"])
    .default("text");
    LOG_FILE: Option<PathBuf> = Setting::new(
        Scope::Process,
        "log_file",
        Kind::Text,
        "The file that events are appended to. Default: standard error.",
    )
    .env(&["LITESTREAM_LOG_FILE"]);
}

/// The settings that the providers of stores declare, each once.
fn of_stores() -> Vec<Declared> {
    let mut settings: Vec<Declared> = Vec::new();
    for provider in PROVIDERS {
        for declared in provider.settings {
            if !settings.iter().any(|s| s.is_spelled(declared.name)) {
                settings.push(of_store(declared));
            }
        }
    }
    settings
}

fn of_store(declared: &StoreSetting) -> Declared {
    let kind = match declared.kind {
        StoreKind::Text => Kind::Text,
        StoreKind::Secret => Kind::Secret,
        StoreKind::Flag => Kind::Flag,
        StoreKind::Count { min, max } => Kind::Count { min, max },
        StoreKind::Size { min, max } => Kind::Size { min, max },
        StoreKind::Duration { min, max } => Kind::Duration { min, max },
    };
    // Made once in a process, and there until it ends.
    let name: &'static str = declared.name.replace('-', "_").leak();
    let variables = PROVIDERS.iter().flat_map(|p| p.environment).filter(|(of, _)| *of == declared.name);
    let env: &'static [&'static str] =
        variables.flat_map(|(_, names)| *names).copied().collect::<Vec<_>>().leak();
    let probe = Setting::<OfStore>::new(Scope::Store, name, kind, declared.doc).env(env);
    Declared { default: declared.default, ..probe.declared }
}

/// The table of settings in `docs/settings.md`.
pub fn settings_markdown() -> String {
    let mut table = String::from("| setting | where | environment | default | what it does |\n");
    table.push_str("| --- | --- | --- | --- | --- |\n");
    for s in SETTINGS.iter() {
        let name = if s.scope == Scope::Process { "–".to_owned() } else { format!("`{}`", s.name) };
        let env = s.env.iter().map(|e| format!("`{e}`")).collect::<Vec<_>>().join(", ");
        let default = s.default.map(|d| format!("`{d}`")).unwrap_or_default();
        let words = match s.kind {
            Kind::Word(words) if s.scope == Scope::Process => format!(" One of `{}`.", words.join("`, `")),
            Kind::Duration { min, max } | Kind::Size { min, max } => format!(" From {min} to {max}."),
            Kind::Durations { min, max, count } => format!(" Up to {count}, each from {min} to {max}."),
            _ => String::new(),
        };
        writeln!(table, "| {name} | {} | {env} | {default} | {}{words} |", s.scope.title(), s.doc)
            .expect("BUG: writing to a string failed");
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_in_every_spelling() {
        for (i, a) in SETTINGS.iter().enumerate() {
            for b in &SETTINGS[..i] {
                assert!(!a.is_spelled(b.name), "{} and {}", a.name, b.name);
                assert!(a.env.iter().all(|e| !b.env.contains(e)), "{:?}", a.env);
            }
        }
    }

    #[test]
    fn every_default_is_within_its_own_limits() {
        for s in SETTINGS.iter() {
            if let Some(default) = s.default {
                s.check(default).unwrap();
            }
        }
    }

    #[test]
    fn the_readme_has_this_table() {
        let readme = include_str!("../../docs/settings.md");
        let (_, rest) = readme.split_once("<!-- settings -->\n").unwrap();
        let (table, _) = rest.split_once("<!-- /settings -->").unwrap();
        let ours = settings_markdown();
        assert!(table == ours, "put this between the settings marks of docs/settings.md:\n{ours}");
    }

    #[test]
    fn the_table_has_a_row_for_each_setting() {
        let table = settings_markdown();
        assert_eq!(table.lines().count(), SETTINGS.len() + 2);
        assert!(table.lines().all(|l| l.matches('|').count() == 6), "{table}");
        assert!(
            table.contains("| `cache_size` | URI, file, replica | `LITESTREAM_CACHE_SIZE` | `32MiB` |"),
            "{table}"
        );
    }
}
