//! What was given: parameters recognised, misspelled ones refused, and where each value came from.

use std::time::Duration;

use percent_encoding::percent_decode_str;

use super::settings::{Kind, Scope, Setting, named, plain};
use super::table::SETTINGS;
use super::{Env, Params, point, value};
use crate::error::{Error, Result};
use crate::replica::RestorePoint;
use crate::store::Lookup;

/// Parameters of a URI that SQLite itself and its common builds read. They are never taken for a
/// misspelling of ours. Source: <https://www.sqlite.org/c3ref/open.html>.
const SQLITE_PARAMS: &[&str] =
    &["vfs", "mode", "cache", "psow", "nolock", "immutable", "modeof", "key", "hexkey", "textkey"];

/// The setting that may be given several times.
const SEVERAL: &str = "replica";

/// How parameters that are no settings of ours are met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unknown {
    /// Another reader's, unless it looks like ours: a URI is shared with SQLite and the base VFS.
    Ignored,
    /// A mistake: nobody else reads it.
    Refused,
}

/// Settings that were given, checked one by one, with the environment behind them.
#[derive(Clone, Debug)]
pub(super) struct Given<'a> {
    params: Vec<(&'static Setting, String)>,
    env: &'a dyn Env,
}

/// An environment without variables.
#[derive(Debug)]
struct NoEnv;

impl Env for NoEnv {
    fn var(&self, _: &str) -> Option<String> {
        None
    }
}

/// The text of a setting and where it was found.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) text: String,
    /// The parameter or environment variable, for messages.
    pub(super) origin: &'static str,
}

impl Given<'static> {
    /// Nothing was given: each setting has its default.
    pub(super) fn nothing() -> Self {
        Self { params: Vec::new(), env: &NoEnv }
    }
}

impl<'a> Given<'a> {
    /// Reads `params`, of which the settings in `scopes` are accepted.
    ///
    /// # Errors
    /// `Config`: a setting that is misspelled, given twice, or has a value that it cannot have.
    pub(super) fn read(
        params: &dyn Params,
        env: &'a dyn Env,
        scopes: &[Scope],
        unknown: Unknown,
    ) -> Result<Self> {
        let mut given = Self { params: Vec::new(), env };
        let accepted: Vec<_> = SETTINGS.iter().filter(|s| scopes.contains(&s.scope)).collect();
        for (key, text) in params.pairs() {
            match accepted.iter().find(|s| s.is_spelled(&key)) {
                Some(setting) => given.add(setting, text)?,
                None => refuse_misspelling(&key, &accepted, unknown)?,
            }
        }
        Ok(given)
    }

    fn add(&mut self, setting: &'static Setting, text: String) -> Result<()> {
        if setting.name != SEVERAL && self.params.iter().any(|(s, _)| s.name == setting.name) {
            return Err(Error::config(format!("'{}' is given twice", setting.name)));
        }
        value::check(setting, &text).map_err(|e| e.context(setting.name))?;
        self.params.push((setting, text));
        Ok(())
    }

    /// These settings, and before them those that the URL of a replica carries for itself; and that URL without them.
    ///
    /// # Errors
    /// `Config`: a setting that is given twice, or has a value that it cannot have.
    pub(super) fn of_replica(&self, url: &str) -> Result<(Self, String)> {
        let Some((place, query)) = url.split_once('?') else { return Ok((self.clone(), url.to_owned())) };
        let mut own = Self { params: Vec::new(), env: self.env };
        let mut rest = Vec::new();
        for pair in query.split('&') {
            let (key, text) = pair.split_once('=').unwrap_or((pair, ""));
            let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
            let key = decoded(key);
            match SETTINGS.iter().find(|s| s.scope == Scope::Shipper && s.is_spelled(&key)) {
                Some(setting) => own.add(setting, decoded(text))?,
                None => rest.push(pair),
            }
        }
        let is_own = |name: &str| own.params.iter().any(|(s, _)| s.name == name);
        let others: Vec<_> = self.params.iter().filter(|(s, _)| !is_own(s.name)).cloned().collect();
        own.params.extend(others);
        let url = if rest.is_empty() { place.to_owned() } else { format!("{place}?{}", rest.join("&")) };
        Ok((own, url))
    }

    /// Every value that was given as a parameter.
    pub(super) fn params(&self, name: &str) -> Vec<Found> {
        let named = self.params.iter().filter(|(s, _)| s.name == name);
        named.map(|(setting, text)| Found { text: text.clone(), origin: setting.name }).collect()
    }

    /// The names of the settings in `scope` that were given, as parameters or in the environment.
    pub(super) fn named_in(&self, scope: Scope) -> Vec<&'static str> {
        let settings = SETTINGS.iter().filter(|s| s.scope == scope && self.is_named(s.name));
        settings.map(|s| s.name).collect()
    }

    /// Whether there are no parameters of ours.
    pub(super) fn is_empty(&self) -> bool {
        self.params.is_empty()
    }

    /// The value that was given as a parameter.
    pub(super) fn param(&self, name: &str) -> Option<Found> {
        let (setting, text) = self.params.iter().find(|(s, _)| s.name == name)?;
        Some(Found { text: text.clone(), origin: setting.name })
    }

    /// The value that is in the environment.
    pub(super) fn env(&self, name: &str) -> Option<Found> {
        let mut variables = named(name).env.iter();
        variables.find_map(|&origin| self.env.var(origin).map(|text| Found { text, origin }))
    }

    /// Whether setting `name` was given, as a parameter or in the environment.
    pub(super) fn is_named(&self, name: &str) -> bool {
        self.param(name).or_else(|| self.env(name)).is_some()
    }

    /// The value of setting `name` that has precedence, or `None` if it has none, not even a default.
    fn find(&self, name: &str) -> Option<Found> {
        let setting = named(name);
        let default = || setting.default.map(|text| Found { text: text.to_owned(), origin: setting.name });
        self.param(name).or_else(|| self.env(name)).or_else(default)
    }

    /// The value of setting `name` that has precedence, as `read` reads it.
    pub(super) fn typed<T>(&self, name: &str, read: impl FnOnce(&str) -> Result<T>) -> Result<Option<T>> {
        let Some(found) = self.find(name) else { return Ok(None) };
        read(&found.text).map(Some).map_err(|e| e.context(found.origin))
    }

    /// A setting that is any text.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.find(name).map(|found| found.text)
    }

    /// A setting that is a duration and has a default.
    pub(super) fn duration(&self, name: &str) -> Result<Duration> {
        let Kind::Duration { min, max } = named(name).kind else {
            unreachable!("BUG: {name} is no duration")
        };
        Ok(self.typed(name, |text| value::duration_within(text, min, max))?.expect("BUG: no default"))
    }

    /// A setting that is a list of durations and has a default.
    pub(super) fn durations(&self, name: &str) -> Result<Vec<Duration>> {
        let Kind::Durations { min, max, count } = named(name).kind else {
            unreachable!("BUG: {name} is no list of durations")
        };
        Ok(self.typed(name, |text| value::durations(text, min, max, count))?.expect("BUG: no default"))
    }

    /// A setting that is a size in bytes and has a default.
    pub(super) fn size(&self, name: &str) -> Result<u64> {
        let Kind::Size { min, max } = named(name).kind else { unreachable!("BUG: {name} is no size") };
        Ok(self.typed(name, |text| value::size_within(text, min, max))?.expect("BUG: no default"))
    }

    /// A setting that is a number and has a default.
    pub(super) fn count(&self, name: &str) -> Result<u64> {
        let Kind::Count { min, max } = named(name).kind else { unreachable!("BUG: {name} is no number") };
        Ok(self.typed(name, |text| value::count(text, min, max))?.expect("BUG: no default"))
    }

    /// A setting that is true or false and has a default.
    pub(super) fn flag(&self, name: &str) -> Result<bool> {
        Ok(self.typed(name, value::flag)?.expect("BUG: no default"))
    }

    /// A setting that is one of some words.
    pub(super) fn word(&self, name: &str) -> Result<Option<&'static str>> {
        let Kind::Word(words) = named(name).kind else { unreachable!("BUG: {name} is no word") };
        self.typed(name, |text| value::word(text, words))
    }

    /// The state that one of the settings `names` chooses; the latest if none is given.
    pub(super) fn state(&self, names: &[&str]) -> Result<RestorePoint> {
        let mut given = names.iter().filter_map(|name| self.param(name));
        let Some(found) = given.next() else { return Ok(RestorePoint::Latest) };
        if let Some(other) = given.next() {
            let message = format!("'{}' and '{}' are both given; keep one", found.origin, other.origin);
            return Err(Error::config(message));
        }
        let point = match named(found.origin).kind {
            Kind::Txid => point::txid(&found.text).map(RestorePoint::Txid),
            Kind::Time => point::time(&found.text).map(RestorePoint::Timestamp),
            _ => point::point(&found.text),
        };
        point.map_err(|e| e.context(found.origin))
    }
}

/// How a store looks for its settings: `true` or `false`, sizes in bytes.
impl Lookup for Given<'_> {
    fn param(&self, name: &str) -> Option<String> {
        let setting = SETTINGS.iter().find(|s| s.scope == Scope::Store && s.is_spelled(name))?;
        let found = self.param(setting.name)?;
        let read = match setting.kind {
            Kind::Flag => value::flag(&found.text).map(|flag| flag.to_string()),
            Kind::Size { min, max } => value::size_within(&found.text, min, max).map(|size| size.to_string()),
            _ => return Some(found.text),
        };
        // What is wrong, the store refuses with a message of its own.
        Some(read.unwrap_or(found.text))
    }

    fn env(&self, variable: &str) -> Option<String> {
        self.env.var(variable)
    }
}

fn refuse_misspelling(key: &str, accepted: &[&'static Setting], unknown: Unknown) -> Result<()> {
    if unknown == Unknown::Ignored && SQLITE_PARAMS.contains(&key) {
        return Ok(());
    }
    let bare = plain(key);
    let ours = bare.starts_with("litestream");
    let bare = bare.strip_prefix("litestream").unwrap_or(&bare);
    let distance = |s: &&&Setting| strsim::osa_distance(bare, &plain(s.name));
    let nearest = accepted.iter().min_by_key(distance).expect("BUG: no settings at all");
    let near = distance(&nearest) <= tolerance(&plain(nearest.name));
    let meant = if near { Some(nearest.name) } else { related(key, accepted) };
    if let Some(meant) = meant {
        return Err(Error::config(format!("unknown parameter '{key}'; did you mean '{meant}'?")));
    }
    if ours || unknown == Unknown::Refused {
        let names: Vec<_> = accepted.iter().map(|s| s.name).collect();
        return Err(Error::config(format!("unknown parameter '{key}'; known are {}", names.join(", "))));
    }
    Ok(())
}

/// Names that people and other tools have for settings of ours.
const OTHER_NAMES: &[(&str, &str)] = &[
    ("time", "timestamp"),
    ("settime", "timestamp"),
    ("restoretime", "timestamp"),
    ("pointintime", "timestamp"),
    ("transaction", "txid"),
    ("cache", "cache_size"),
    ("cachepath", "cache_dir"),
    ("hydration", "hydrate"),
    ("hydrationenabled", "hydrate"),
];

/// First words of names that no other reader of a URI has.
const OUR_WORDS: &[&str] =
    &["replica", "sync", "snapshot", "retention", "poll", "hydrate", "hydration", "spool"];

/// The setting that `key` says in other words, if it does.
fn related(key: &str, accepted: &[&'static Setting]) -> Option<&'static str> {
    let is_accepted = |name: &str| accepted.iter().find(|s| s.name == name).map(|s| s.name);
    let other = OTHER_NAMES.iter().find(|(name, _)| plain(key) == *name);
    if let Some(name) = other.and_then(|(_, name)| is_accepted(name)) {
        return Some(name);
    }
    let word = first_word(key);
    let same = |s: &&&Setting| first_word(s.name) == word;
    let near = |s: &&&Setting| strsim::osa_distance(&plain(key), &plain(s.name));
    OUR_WORDS.contains(&word.as_str()).then(|| accepted.iter().filter(same).min_by_key(near))?.map(|s| s.name)
}

/// `poll` of `poll_interval`, `poll-interval` and `pollInterval`.
fn first_word(name: &str) -> String {
    let end = name.find(|c: char| matches!(c, '-' | '_') || c.is_ascii_uppercase()).unwrap_or(name.len());
    name[..end].to_owned()
}

/// How many letters of a name may be wrong for it still to be meant.
fn tolerance(name: &str) -> usize {
    match name.len() {
        0..4 => 0,
        4..8 => 1,
        _ => 2,
    }
}
