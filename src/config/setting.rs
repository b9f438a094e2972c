//! What a setting is.

use std::marker::PhantomData;
use std::path::PathBuf;
use std::time::Duration;

use tracing::level_filters::LevelFilter;

use super::{point, value};
use crate::error::{Error, Result};
use crate::logging::LogFormat;
use crate::ltx::Txid;
use crate::primary::{CommitMode, Rewound, SnapshotAt, SyncReplicas};
use crate::replica::RestorePoint;

/// What a setting belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Any open: a parameter of the URI.
    Open,
    /// An open as primary: a parameter of the URI, or a key of the configuration file, without effect on a replica.
    Primary,
    /// One replica of a primary: a parameter of the URI, for all of them, or of the replica's URL, or a key of the
    /// configuration file. Without effect on a replica.
    Shipper,
    /// One replica of a primary, or an open as replica: a parameter of the URI, or of the replica's URL, or a key of the
    /// configuration file.
    Either,
    /// An open as replica: a parameter of the URI, or a key of the configuration file, without effect on a primary.
    Replica,
    /// How the replica is reached: a parameter of the SQLite URI or of the replica URL, a key of the configuration file,
    /// or an option of a SQL function.
    Store,
    /// What the files of the replica are opened with: a parameter of the SQLite URI or of the replica URL, a key of the
    /// configuration file, or an option of a SQL function.
    Seal,
    /// An option of `litestream_restore` and `litestream_restore_plan`.
    Restore,
    /// Which state is read: a parameter of a replica's URI, or an option of `litestream_restore`.
    State,
    /// An option of `litestream_verify`.
    Verify,
    /// An option of `litestream_follow`.
    Follow,
    /// What a process shows of itself: a parameter of the URI, or a key at the top of the configuration file. The first open of
    /// a process that asks for it decides.
    Monitor,
    /// The whole process: an environment variable only.
    Process,
}

impl Scope {
    /// How `docs/settings.md` names it.
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Open => "URI",
            Self::Primary => "URI, file, primary",
            Self::Shipper => "URI, replica URL, file, primary",
            Self::Either => "URI, replica URL, file",
            Self::Replica => "URI, file, replica",
            Self::Store | Self::Seal => "URI, replica URL, file, options",
            Self::State => "URI, replica, options of `litestream_restore`",
            Self::Restore => "options of `litestream_restore`",
            Self::Verify => "options of `litestream_verify`",
            Self::Follow => "options of `litestream_follow`",
            Self::Monitor => "URI, file",
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

/// Declaration of a setting: all but the type of its values.
#[derive(Clone, Copy, Debug)]
pub struct Declared {
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
    /// Whether a text is a value.
    pub(super) check: fn(&Kind, &str) -> Result<()>,
}

impl Declared {
    /// Whether `spelling` means this setting.
    pub(super) fn is_spelled(&self, spelling: &str) -> bool {
        plain(self.name) == plain(spelling)
    }

    /// Says whether `text` is a value.
    ///
    /// # Errors
    /// `Config`, with what would be one. A secret's text is never repeated.
    pub(super) fn check(&self, text: &str) -> Result<()> {
        (self.check)(&self.kind, text)
    }

    /// `text` as it may be shown.
    pub(super) fn shown(&self, text: &str) -> String {
        if self.kind == Kind::Secret { "(secret)".to_owned() } else { text.to_owned() }
    }
}

/// A setting whose values are of type `T`: an `Option` if it has no default.
#[derive(Debug)]
pub(super) struct Setting<T: 'static> {
    pub(super) declared: Declared,
    values: PhantomData<fn() -> T>,
}

impl<T: Value> Setting<T> {
    pub(super) const fn new(scope: Scope, name: &'static str, kind: Kind, doc: &'static str) -> Self {
        let declared = Declared { name, env: &[], kind, default: None, scope, doc, check: check::<T> };
        Self { declared, values: PhantomData }
    }

    pub(super) const fn env(mut self, names: &'static [&'static str]) -> Self {
        self.declared.env = names;
        self
    }

    pub(super) const fn default(mut self, text: &'static str) -> Self {
        self.declared.default = Some(text);
        self
    }

    /// The value that `text` means.
    pub(super) fn read(&self, text: &str) -> Result<T> {
        T::read(&self.declared.kind, text)
    }
}

impl<T: Word> Setting<T> {
    pub(super) const fn word(scope: Scope, name: &'static str, doc: &'static str) -> Self {
        Self::new(scope, name, Kind::Word(T::WORDS), doc)
    }
}

impl<T: Word> Setting<Option<T>> {
    pub(super) const fn optional_word(scope: Scope, name: &'static str, doc: &'static str) -> Self {
        Self::new(scope, name, Kind::Word(T::WORDS), doc)
    }
}

fn check<T: Value>(kind: &Kind, text: &str) -> Result<()> {
    T::read(kind, text).map(drop)
}

/// A type of values.
pub(super) trait Value: Sized {
    /// The value that `text` means, for a setting of this `kind`.
    ///
    /// # Errors
    /// `Config`, with what would be one.
    fn read(kind: &Kind, text: &str) -> Result<Self>;

    /// The value of a setting without a default that nobody gave.
    fn absent() -> Self {
        unreachable!("BUG: a setting that needs a default has none")
    }
}

impl<T: Value> Value for Option<T> {
    fn read(kind: &Kind, text: &str) -> Result<Self> {
        T::read(kind, text).map(Some)
    }

    fn absent() -> Self {
        None
    }
}

/// Values that are words. Both lists have one order.
pub(super) trait Word: Value + Copy + 'static {
    /// The words.
    const WORDS: &'static [&'static str];
    /// What they mean.
    const VALUES: &'static [Self];
}

/// Reads one of the words of `T`, in any case.
fn read_word<T: Word>(text: &str) -> Result<T> {
    let at = T::WORDS.iter().position(|word| word.eq_ignore_ascii_case(text));
    let at = at.ok_or_else(|| Error::config(format!("'{text}' is none of {}", T::WORDS.join(", "))))?;
    Ok(T::VALUES[at])
}

macro_rules! words {
    ($($type:ty: $($word:literal = $value:expr),+;)+) => {
        $(
            impl Word for $type {
                const WORDS: &'static [&'static str] = &[$($word),+];
                const VALUES: &'static [Self] = &[$($value),+];
            }

            impl Value for $type {
                fn read(_: &Kind, text: &str) -> Result<Self> {
                    read_word(text)
                }
            }
        )+
    };
}

/// What a database is opened as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Primary,
    Replica,
}

/// Whether an open restores its database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Restore {
    /// Never.
    Off,
    /// If the file is missing, or has no pages.
    Missing,
}

/// Whether a replica is downloaded to a local file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hydrate {
    /// No.
    Off,
    /// Yes, unless it is sealed.
    On,
    /// Yes, whatever it is; the file is not encrypted.
    Plain,
}

impl Value for Hydrate {
    fn read(_: &Kind, text: &str) -> Result<Self> {
        if text.eq_ignore_ascii_case("plain") {
            return Ok(Self::Plain);
        }
        let error = |_| Error::config(format!("'{text}' is none of true, false, plain"));
        value::flag(text).map(|on| if on { Self::On } else { Self::Off }).map_err(error)
    }
}

/// How SQLite checks a restored database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntegrityCheck {
    /// Not at all.
    None,
    /// `PRAGMA quick_check`.
    Quick,
    /// `PRAGMA integrity_check`.
    Full,
}

/// What SQL may do beside reading and writing the databases of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SqlReach {
    On,
    Off,
}

words! {
    Role: "primary" = Self::Primary, "replica" = Self::Replica;
    Restore: "off" = Self::Off, "missing" = Self::Missing;
    Rewound: "forward" = Self::Forward, "stop" = Self::Stop;
    IntegrityCheck: "none" = Self::None, "quick" = Self::Quick, "full" = Self::Full;
    SqlReach: "on" = Self::On, "off" = Self::Off;
    LevelFilter: "off" = Self::OFF, "error" = Self::ERROR, "warn" = Self::WARN, "info" = Self::INFO,
        "debug" = Self::DEBUG, "trace" = Self::TRACE;
    LogFormat: "text" = Self::Text, "json" = Self::Json;
}

impl Value for String {
    fn read(_: &Kind, text: &str) -> Result<Self> {
        if text.is_empty() { Err(Error::config("the value is empty")) } else { Ok(text.to_owned()) }
    }
}

/// An address that a notification goes to. It may be a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WebAddress(pub(super) String);

impl Value for WebAddress {
    fn read(_: &Kind, text: &str) -> Result<Self> {
        let is_one = value::is_web_address(text);
        is_one
            .then(|| Self(text.to_owned()))
            .ok_or_else(|| Error::config("it begins with https:// or http://"))
    }
}

impl Value for PathBuf {
    fn read(kind: &Kind, text: &str) -> Result<Self> {
        String::read(kind, text).and_then(|text| value::path(&text))
    }
}

impl Value for bool {
    fn read(_: &Kind, text: &str) -> Result<Self> {
        value::flag(text)
    }
}

impl Value for u64 {
    fn read(kind: &Kind, text: &str) -> Result<Self> {
        match *kind {
            Kind::Count { min, max } => value::count(text, min, max),
            Kind::Size { min, max } => value::size_within(text, min, max),
            _ => unreachable!("BUG: {kind:?} is no number"),
        }
    }
}

impl Value for Duration {
    fn read(kind: &Kind, text: &str) -> Result<Self> {
        let Kind::Duration { min, max } = *kind else { unreachable!("BUG: {kind:?} is no duration") };
        value::duration_within(text, min, max)
    }
}

impl Value for Vec<Duration> {
    fn read(kind: &Kind, text: &str) -> Result<Self> {
        let Kind::Durations { min, max, count } = *kind else {
            unreachable!("BUG: {kind:?} is no list of durations")
        };
        value::durations(text, min, max, count)
    }
}

impl Value for Txid {
    fn read(_: &Kind, text: &str) -> Result<Self> {
        point::txid(text)
    }
}

/// A transaction that may also be written as a plain decimal number: it is one that people count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CountedTxid(pub(super) Txid);

impl Value for CountedTxid {
    fn read(_: &Kind, text: &str) -> Result<Self> {
        let is_number = text.len() < 16 && !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let read = if is_number { point::txid(&format!("#{text}")) } else { point::txid(text) };
        read.map(Self)
    }
}

impl Value for RestorePoint {
    fn read(kind: &Kind, text: &str) -> Result<Self> {
        match kind {
            Kind::Txid => point::txid(text).map(Self::Txid),
            Kind::Time => point::time(text).map(Self::Timestamp),
            _ => point::point(text),
        }
    }
}

/// Of how many replicas there are, an open knows.
impl Value for SyncReplicas {
    fn read(_: &Kind, text: &str) -> Result<Self> {
        match text.to_ascii_lowercase().as_str() {
            "all" => Ok(Self::All),
            "any" => Ok(Self::AtLeast(1)),
            number => match number.parse::<usize>() {
                Ok(count) if count > 0 => Ok(Self::AtLeast(count)),
                _ => Err(Error::config(format!(
                    "'{text}' is none of all, any, or a number of replicas from 1"
                ))),
            },
        }
    }
}

impl Value for SnapshotAt {
    fn read(_: &Kind, text: &str) -> Result<Self> {
        text.parse()
    }
}

impl Value for CommitMode {
    fn read(_: &Kind, text: &str) -> Result<Self> {
        match text.to_ascii_lowercase().as_str() {
            "local" => Ok(Self::Local),
            "replicated" => Ok(Self::Replicated(SyncReplicas::All)),
            number => match number.parse::<usize>() {
                Ok(count) if count > 0 => Ok(Self::Replicated(SyncReplicas::AtLeast(count))),
                _ => Err(Error::config(format!(
                    "'{text}' is none of local, replicated, or a number of replicas from 1"
                ))),
            },
        }
    }
}

/// Any value of a setting that a provider declares: the provider reads it.
pub(super) struct OfStore;

impl Value for OfStore {
    fn read(kind: &Kind, text: &str) -> Result<Self> {
        match kind {
            Kind::Flag => bool::read(kind, text).map(drop),
            Kind::Count { .. } | Kind::Size { .. } => u64::read(kind, text).map(drop),
            Kind::Duration { .. } => Duration::read(kind, text).map(drop),
            _ => String::read(kind, text).map(drop),
        }?;
        Ok(Self)
    }
}

/// A name without what differs between `snake_case`, `kebab-case` and `camelCase`.
pub(super) fn plain(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, '-' | '_')).map(|c| c.to_ascii_lowercase()).collect()
}
