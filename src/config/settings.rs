//! The table of every setting.

use std::fmt::Write as _;

/// What a setting belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Any open: a parameter of the URI.
    Open,
    /// An open as primary: a parameter of the URI, without effect on a replica.
    Primary,
    /// An open as replica: a parameter of the URI, without effect on a primary.
    Replica,
    /// How the replica is reached: a parameter of the SQLite URI or of the replica URL, or an option of
    /// a SQL function.
    Store,
    /// An option of `litestream_restore`.
    Restore,
    /// The whole process: an environment variable only.
    Process,
}

impl Scope {
    /// How the README names it.
    const fn title(self) -> &'static str {
        match self {
            Self::Open => "URI",
            Self::Primary => "URI, primary",
            Self::Replica => "URI, replica",
            Self::Store => "URI, replica URL, options",
            Self::Restore => "options of `litestream_restore`",
            Self::Process => "environment",
        }
    }
}

/// What values a setting takes. Limits are written as a user writes them, and are part of the range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any text that is not empty.
    Text,
    /// Text that is never shown.
    Secret,
    /// One of these words.
    Word(&'static [&'static str]),
    /// `true` or `false`, as SQLite spells booleans.
    Flag,
    /// A whole number.
    Count {
        /// The least.
        min: u64,
        /// The greatest.
        max: u64,
    },
    /// `1s`, `500ms`, `2m`, or a number of seconds.
    Duration {
        /// The least.
        min: &'static str,
        /// The greatest.
        max: &'static str,
    },
    /// `32MB`, `32MiB`, or a number of bytes.
    Size {
        /// The least.
        min: &'static str,
        /// The greatest.
        max: &'static str,
    },
    /// 16 hexadecimal digits.
    Txid,
    /// RFC 3339.
    Time,
}

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Its name. `snake_case`, `kebab-case` and `camelCase` spellings of it are the same name.
    pub name: &'static str,
    /// The environment variables, the first that is set wins.
    pub env: &'static [&'static str],
    /// What values it takes.
    pub kind: Kind,
    /// The default as a user would write it; `None` if there is no value unless one is given.
    pub default: Option<&'static str>,
    /// What it belongs to.
    pub scope: Scope,
    /// What it does, in one line.
    pub doc: &'static str,
}

const fn setting(scope: Scope, name: &'static str, kind: Kind, doc: &'static str) -> Setting {
    Setting { name, env: &[], kind, default: None, scope, doc }
}

impl Setting {
    const fn env(mut self, names: &'static [&'static str]) -> Self {
        self.env = names;
        self
    }

    const fn default(mut self, text: &'static str) -> Self {
        self.default = Some(text);
        self
    }

    /// Whether `spelling` means this setting.
    pub(super) fn is_spelled(&self, spelling: &str) -> bool {
        plain(self.name) == plain(spelling)
    }
}

/// A name without what differs between `snake_case`, `kebab-case` and `camelCase`.
pub(super) fn plain(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, '-' | '_')).map(|c| c.to_ascii_lowercase()).collect()
}

/// Every setting.
pub const SETTINGS: &[Setting] = &[
    setting(
        Scope::Open,
        "replica",
        Kind::Text,
        "URL of the replica. Makes the open a primary, or a replica with `mode=ro`.",
    ),
    setting(
        Scope::Open,
        "replica_url",
        Kind::Text,
        "The same, as Litestream's own extension spells it: the open is a replica unless `role=primary`.",
    )
    .env(&["LITESTREAM_REPLICA_URL"]),
    setting(
        Scope::Open,
        "role",
        Kind::Word(&["primary", "replica"]),
        "`primary` or `replica`, whatever the other parameters say.",
    ),
    setting(
        Scope::Primary,
        "sync_interval",
        Kind::Duration { min: "10ms", max: "1h" },
        "Under load, at most one upload in this time. The first commit after quiet goes out at once.",
    )
    .env(&["LITESTREAM_SYNC_INTERVAL"])
    .default("1s"),
    setting(
        Scope::Primary,
        "close_timeout",
        Kind::Duration { min: "0s", max: "10m" },
        "How long the last close waits for uploads. What is not sent by then goes out at the next open.",
    )
    .env(&["LITESTREAM_CLOSE_TIMEOUT"])
    .default("5s"),
    setting(
        Scope::Replica,
        "open_timeout",
        Kind::Duration { min: "0s", max: "10m" },
        "How long an open waits for a replica that is still empty.",
    )
    .env(&["LITESTREAM_OPEN_TIMEOUT"])
    .default("10s"),
    setting(
        Scope::Replica,
        "poll_interval",
        Kind::Duration { min: "10ms", max: "1h" },
        "How often the replica looks for new transactions.",
    )
    .env(&["LITESTREAM_POLL_INTERVAL"])
    .default("1s"),
    setting(
        Scope::Replica,
        "cache_size",
        Kind::Size { min: "1MiB", max: "1TiB" },
        "Memory for cached pages, shared by all connections to the replica.",
    )
    .env(&["LITESTREAM_CACHE_SIZE"])
    .default("32MiB"),
    setting(
        Scope::Store,
        "endpoint",
        Kind::Text,
        "Address of an S3-compatible server, with or without a scheme.",
    )
    .env(&["LITESTREAM_ENDPOINT", "LITESTREAM_S3_ENDPOINT"]),
    setting(Scope::Store, "region", Kind::Text, "Region of the bucket.").env(&["LITESTREAM_REGION"]),
    setting(
        Scope::Store,
        "force_path_style",
        Kind::Flag,
        "`https://endpoint/bucket/key` instead of `https://bucket.endpoint/key`.",
    )
    .env(&["LITESTREAM_FORCE_PATH_STYLE"]),
    setting(Scope::Store, "skip_verify", Kind::Flag, "Accept any TLS certificate.")
        .env(&["LITESTREAM_SKIP_VERIFY"]),
    setting(Scope::Restore, "force", Kind::Flag, "Replace the file if it exists.").default("false"),
    setting(
        Scope::Restore,
        "txid",
        Kind::Txid,
        "Restore the state after this transaction. Without it or `timestamp`: the latest.",
    ),
    setting(Scope::Restore, "timestamp", Kind::Time, "Restore the last state at or before this time."),
    setting(Scope::Restore, "parallelism", Kind::Count { min: 1, max: 64 }, "Downloads at the same time.")
        .default("8"),
    setting(
        Scope::Process,
        "log_level",
        Kind::Word(&["off", "error", "warn", "info", "debug", "trace"]),
        "Which events are logged.",
    )
    .env(&["LITESTREAM_LOG_LEVEL"])
    .default("error"),
    setting(
        Scope::Process,
        "log_file",
        Kind::Text,
        "The file that events are appended to. Default: standard error.",
    )
    .env(&["LITESTREAM_LOG_FILE"]),
];

/// The setting `name` of the table.
///
/// # Panics
/// If there is none: names are literals of this room.
pub(super) fn named(name: &str) -> &'static Setting {
    SETTINGS.iter().find(|s| s.name == name).expect("BUG: a setting that is not in the table")
}

/// The README's table of settings.
pub fn settings_markdown() -> String {
    let mut table = String::from("| setting | where | environment | default | what it does |\n");
    table.push_str("| --- | --- | --- | --- | --- |\n");
    for s in SETTINGS {
        let name = if s.scope == Scope::Process { "–".to_owned() } else { format!("`{}`", s.name) };
        let env = s.env.iter().map(|e| format!("`{e}`")).collect::<Vec<_>>().join(", ");
        let default = s.default.map(|d| format!("`{d}`")).unwrap_or_default();
        let words = match s.kind {
            Kind::Word(words) if s.scope == Scope::Process => format!(" One of `{}`.", words.join("`, `")),
            Kind::Duration { min, max } | Kind::Size { min, max } => format!(" From {min} to {max}."),
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
    use crate::config::value;

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
        for s in SETTINGS {
            if let Some(default) = s.default {
                value::check(s, default).unwrap();
            }
        }
    }

    #[test]
    fn store_settings_are_those_that_a_target_reads() {
        let mut ours: Vec<_> =
            SETTINGS.iter().filter(|s| s.scope == Scope::Store).map(|s| plain(s.name)).collect();
        let mut theirs: Vec<_> = crate::store::Target::SETTINGS.iter().map(|s| plain(s[0])).collect();
        ours.sort();
        theirs.sort();
        assert_eq!(ours, theirs);
    }

    #[test]
    fn the_readme_table_has_a_row_for_each_setting() {
        let table = settings_markdown();
        assert_eq!(table.lines().count(), SETTINGS.len() + 2);
        assert!(table.lines().all(|l| l.matches('|').count() == 6), "{table}");
        assert!(
            table.contains("| `cache_size` | URI, replica | `LITESTREAM_CACHE_SIZE` | `32MiB` |"),
            "{table}"
        );
    }
}
