//! What a setting is.

use super::table::SETTINGS;

/// What a setting belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Any open: a parameter of the URI.
    Open,
    /// An open as primary: a parameter of the URI, without effect on a replica.
    Primary,
    /// One replica of a primary: a parameter of the URI, for all of them, or of the replica's URL. Without effect on a
    /// replica.
    Shipper,
    /// An open as replica: a parameter of the URI, without effect on a primary.
    Replica,
    /// How the replica is reached: a parameter of the SQLite URI or of the replica URL, or an option of
    /// a SQL function.
    Store,
    /// An option of `litestream_restore` and `litestream_restore_plan`.
    Restore,
    /// Which state is read: a parameter of a replica's URI, or an option of `litestream_restore`.
    State,
    /// An option of `litestream_verify`.
    Verify,
    /// The whole process: an environment variable only.
    Process,
}

impl Scope {
    /// How the README names it.
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Open => "URI",
            Self::Primary => "URI, primary",
            Self::Shipper => "URI, replica URL, primary",
            Self::Replica => "URI, replica",
            Self::Store => "URI, replica URL, options",
            Self::State => "URI, replica, options of `litestream_restore`",
            Self::Restore => "options of `litestream_restore`",
            Self::Verify => "options of `litestream_verify`",
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
    /// Durations with commas between them.
    Durations {
        /// The least.
        min: &'static str,
        /// The greatest.
        max: &'static str,
        /// How many at most; there is at least one.
        count: usize,
    },
    /// `32MB`, `32MiB`, or a number of bytes.
    Size {
        /// The least.
        min: &'static str,
        /// The greatest.
        max: &'static str,
    },
    /// A transaction, as [`super::point`] reads one.
    Txid,
    /// A time, as [`super::point`] reads one.
    Time,
    /// A time or a transaction.
    Point,
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

pub(super) const fn setting(scope: Scope, name: &'static str, kind: Kind, doc: &'static str) -> Setting {
    Setting { name, env: &[], kind, default: None, scope, doc }
}

impl Setting {
    pub(super) const fn env(mut self, names: &'static [&'static str]) -> Self {
        self.env = names;
        self
    }

    pub(super) const fn default(mut self, text: &'static str) -> Self {
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

/// The setting `name` of the table.
///
/// # Panics
/// If there is none: names are literals of this room.
pub(super) fn named(name: &str) -> &'static Setting {
    SETTINGS.iter().find(|s| s.name == name).expect("BUG: a setting that is not in the table")
}
