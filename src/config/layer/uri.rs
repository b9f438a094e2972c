//! The layer of parameters: which names are ours, and which are meant to be.

use super::super::setting::{Declared, plain};
use super::Unknown;
use crate::error::{Error, Result};

/// Parameters of a URI that SQLite itself and its common builds read. They are never taken for a
/// misspelling of ours. Source: <https://www.sqlite.org/c3ref/open.html>.
const SQLITE_PARAMS: &[&str] =
    &["vfs", "mode", "cache", "psow", "nolock", "immutable", "modeof", "key", "hexkey", "textkey"];

/// Refuses the parameter `key`, which is none of the `accepted` settings, if it is meant to be one, or if nobody else
/// reads it.
///
/// # Errors
/// `Config` that names the setting that was meant.
pub(super) fn refuse_misspelling(key: &str, accepted: &[&'static Declared], unknown: Unknown) -> Result<()> {
    if unknown == Unknown::Ignored && SQLITE_PARAMS.contains(&key) {
        return Ok(());
    }
    let bare = plain(key);
    let ours = bare.starts_with("litestream");
    let bare = bare.strip_prefix("litestream").unwrap_or(&bare);
    let distance = |s: &&&Declared| strsim::osa_distance(bare, &plain(s.name));
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
    ("snapshotevery", "snapshot_interval"),
];

/// First words of names that no other reader of a URI has.
const OUR_WORDS: &[&str] =
    &["replica", "sync", "snapshot", "retention", "poll", "hydrate", "hydration", "spool"];

/// The setting that `key` says in other words, if it does.
fn related(key: &str, accepted: &[&'static Declared]) -> Option<&'static str> {
    let is_accepted = |name: &str| accepted.iter().find(|s| s.name == name).map(|s| s.name);
    let other = OTHER_NAMES.iter().find(|(name, _)| plain(key) == *name);
    if let Some(name) = other.and_then(|(_, name)| is_accepted(name)) {
        return Some(name);
    }
    let word = first_word(key);
    let same = |s: &&&Declared| first_word(s.name) == word;
    let near = |s: &&&Declared| strsim::osa_distance(&plain(key), &plain(s.name));
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
