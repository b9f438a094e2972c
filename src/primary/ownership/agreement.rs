//! The replicas, and the settings of their histories, that all who have a database open agree on, and the memory of
//! what was named: `.<file name>-litestream/settings.json`.
//!
//! Who opens the database while nobody else has it open may name other replicas, and other settings than
//! those remembered. Everybody else gets what the first one got, and is refused who names something else.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::error::{Error, ErrorKind, Result};
use crate::files::{self, DatabaseLock, Kind, RecordLock};
use crate::primary::maintenance::{HistoryOptions, NamedSettings, Settings};
use crate::primary::ownership::folder;
use crate::primary::ownership::role::PublisherLock;
use crate::primary::shipper::state::State;
use crate::runtime;
use crate::store::{ReplicaIdentity, in_local_state};

const NAME: &str = "settings.json";
/// How long another process may take to decide.
const PATIENCE: Duration = Duration::from_secs(5);
/// The time from one try to the next.
const TRY_AGAIN: Duration = Duration::from_millis(5);

/// The settings that hold as long as a database is open.
#[derive(Debug)]
pub(in crate::primary) struct Agreement {
    /// By replica, in the order in which they were named.
    pub(in crate::primary) replicas: Vec<Agreed>,
    /// While it is held, nobody changes the settings.
    lock: Mutex<Option<RecordLock>>,
}

/// What was agreed for one replica.
#[derive(Clone, Debug)]
pub(in crate::primary) struct Agreed {
    pub(in crate::primary) settings: Settings,
    /// What to say of a change that makes files go earlier.
    pub(in crate::primary) notice: Option<String>,
}

/// A replica that an open names, with what it names of its history.
pub(in crate::primary) struct Wanted<'a> {
    pub(in crate::primary) url: &'a str,
    pub(in crate::primary) identity: &'a ReplicaIdentity,
    pub(in crate::primary) history: &'a HistoryOptions,
}

/// What is remembered: by replica what was named for it.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Memory {
    /// The replicas of those who have the database open, or had it open last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    open_replicas: Vec<ReplicaIdentity>,
    /// By URL, or by URL and endpoint where two of the replicas have one URL.
    replicas: BTreeMap<String, NamedSettings>,
}

impl Agreement {
    /// Opens the database `path`, which is replicated to `wanted`, as far as its settings are concerned.
    ///
    /// # Errors
    /// `Config` if it is open with other replicas, or with another value of a setting that is named, or if what is
    /// remembered cannot be read; `Unsupported` if a later version wrote the folder of local state; those of that folder.
    pub(in crate::primary) fn enter(path: &Path, wanted: &[Wanted<'_>]) -> Result<Self> {
        let folder = files::state_folder(path);
        let (lock, company) = take_lock(&folder)?;
        folder::check_format(&folder)?;
        let mut memory = Memory::read(&folder)?;
        let identities: Vec<ReplicaIdentity> = wanted.iter().map(|one| one.identity.clone()).collect();
        match company {
            Company::Others => memory.check_replicas(path, &identities)?,
            Company::Alone => check_older_version(path, wanted)?,
        }
        let before = (memory.replicas.clone(), memory.open_replicas.clone());
        let keys = Memory::keys(&identities);
        let agreed = keys.into_iter().zip(wanted).map(|(key, one)| memory.agree(path, key, one, company));
        let replicas = agreed.collect::<Result<Vec<_>>>()?;
        memory.open_replicas = identities;
        if before != (memory.replicas.clone(), memory.open_replicas.clone()) {
            memory.write(&folder)?;
        }
        lock.share()
            .map_err(|e| Error::io(format_args!("cannot share a lock in {}", folder.display()), e))?;
        Ok(Self { replicas, lock: Mutex::new(Some(lock)) })
    }

    /// The database is closed: others may change the settings.
    pub(in crate::primary) fn leave(&self) {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Whether the same holds by both.
    pub(in crate::primary) fn is_as(&self, other: &Self) -> bool {
        let settings = |agreement: &Self| -> Vec<Settings> {
            agreement.replicas.iter().map(|agreed| agreed.settings.clone()).collect()
        };
        settings(self) == settings(other)
    }

    /// The database is open again, by an agreement in which the same holds.
    pub(in crate::primary) fn join(&self, again: &Self) {
        let lock = again.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
        *self.lock.lock().unwrap_or_else(PoisonError::into_inner) = lock;
    }

    /// The agreement of another process, as far as this one can be another.
    #[cfg(test)]
    pub(in crate::primary) fn beside(&self) -> Self {
        Self { replicas: self.replicas.clone(), lock: Mutex::default() }
    }
}

impl Memory {
    /// What holds for the replica `wanted`, which is remembered under `key`.
    fn agree(&mut self, path: &Path, key: String, wanted: &Wanted<'_>, company: Company) -> Result<Agreed> {
        let HistoryOptions { named, defaults } = wanted.history;
        let remembered = self.replicas.get(&key).cloned();
        let before = remembered.clone().unwrap_or_default().over(defaults);
        if company == Company::Others && remembered.is_some() {
            check(path, named, &before)?;
            return Ok(Agreed { settings: before, notice: None });
        }
        let all = named.clone().or(remembered.clone().unwrap_or_default());
        let settings = all.clone().over(defaults);
        let shorter = remembered.as_ref().and_then(|_| settings.shortens(&before));
        self.replicas.insert(key, all);
        let notice = shorter.map(|changes| notice(wanted.url, &changes));
        Ok(Agreed { settings, notice })
    }
}

/// What earlier opens of the database `path` named for each of `replicas`, and what holds for an open that does not name it.
///
/// # Errors
/// `Config` if what is remembered cannot be read; those of the folder of local state.
pub fn remembered(path: &Path, replicas: &[ReplicaIdentity]) -> Result<Vec<NamedSettings>> {
    let mut memory = Memory::read(&files::state_folder(path))?;
    let keys = Memory::keys(replicas).into_iter();
    Ok(keys.map(|key| memory.replicas.remove(&key).unwrap_or_default()).collect())
}

/// Who else has the database open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Company {
    /// No other process, and none can open it before the lock is shared.
    Alone,
    /// At least one other process.
    Others,
}

/// Takes the lock: alone if nobody else has the database open, else with the others.
///
/// # Errors
/// `Io`, `Denied`, `NoSpace` on the folder; `Busy` if another process does not end its decision.
fn take_lock(folder: &Path) -> Result<(RecordLock, Company)> {
    let take = |kind| DatabaseLock::Settings.take(folder, kind);
    let named = |e| Error::io(format_args!("cannot use {}", folder.display()), e);
    files::create_folders(folder).map_err(named)?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        for (kind, company) in [(Kind::Exclusive, Company::Alone), (Kind::Shared, Company::Others)] {
            if let Some(lock) = take(kind).map_err(named)? {
                return Ok((lock, company));
            }
        }
        if Instant::now() >= deadline {
            let message = format!("another process holds a lock in {}; try again", folder.display());
            return Err(Error::new(ErrorKind::Busy, message));
        }
        runtime::nap(TRY_AGAIN);
    }
}

/// Whether who names the replicas `ours` may join those who replicate the database `path` to `theirs`. Their order counts
/// for nothing.
///
/// # Errors
/// `Config`, with both values of the first setting by which they are others.
pub(in crate::primary) fn check_replicas(
    path: &Path,
    ours: &[ReplicaIdentity],
    theirs: &[ReplicaIdentity],
) -> Result<()> {
    let only_ours: Vec<&ReplicaIdentity> = ours.iter().filter(|one| !theirs.contains(one)).collect();
    let only_theirs: Vec<&ReplicaIdentity> = theirs.iter().filter(|one| !ours.contains(one)).collect();
    match (&only_ours[..], &only_theirs[..]) {
        ([], []) => Ok(()),
        ([ours], [theirs]) => match ours.difference(theirs) {
            None => Ok(()),
            Some((name, ours, theirs)) => Err(other_replica(path, name, ours, theirs)),
        },
        _ => Err(other_replica(path, "replica", &all(ours), &all(theirs))),
    }
}

/// `s3://bucket/app and file:///backup`
fn all(replicas: &[ReplicaIdentity]) -> String {
    replicas.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
}

/// Whether who replicates the database `path` to `wanted` may stand by for a process of version 0.1.0, which agrees on
/// nothing with others. If one publishes, its own state says where to.
///
/// # Errors
/// As [`check_replicas`]; those of the folder of local state.
fn check_older_version(path: &Path, wanted: &[Wanted<'_>]) -> Result<()> {
    let folder = files::state_folder(path);
    let theirs = State::load(&folder)?.url;
    let is_one_of_ours = theirs.is_empty() || wanted.iter().any(|ours| ours.url == theirs);
    if is_one_of_ours || PublisherLock::take_from_lingerer(&folder)?.is_some() {
        return Ok(());
    }
    let ours: Vec<&str> = wanted.iter().map(|ours| ours.url).collect();
    Err(other_replica(path, "replica", &ours.join(" and "), &theirs))
}

fn other_replica(path: &Path, name: &str, ours: &str, theirs: &str) -> Error {
    Error::config(format!(
        "{name}={ours} is asked for, but {} is open with {name}={theirs}, in this process or in another: give the same \
         value, or close the database everywhere first. When a deployment changes it, the old process must end before the \
         new one opens the database",
        path.display()
    ))
}

/// Whether who names `named` may join those who have the database `path` open with `settings`.
///
/// # Errors
/// `Config`, with both values of the first setting that is another.
pub(in crate::primary) fn check(path: &Path, named: &NamedSettings, settings: &Settings) -> Result<()> {
    let Some((name, ours, theirs)) = named.difference(settings) else { return Ok(()) };
    Err(Error::config(format!(
        "{name}={ours} is asked for, but {} is open with {name}={theirs}, in this process or in another: leave \
         {name} out of the URI, the environment and the configuration file, give the same value, or close the \
         database everywhere first",
        path.display()
    )))
}

fn notice(url: &str, changes: &str) -> String {
    format!("files of {url} are deleted earlier than before, as it was asked for: {changes}")
}

impl Memory {
    /// Whether who replicates the database `path` to `ours` may join the processes that have it open.
    ///
    /// # Errors
    /// As [`check_replicas`].
    fn check_replicas(&self, path: &Path, ours: &[ReplicaIdentity]) -> Result<()> {
        if self.open_replicas.is_empty() { Ok(()) } else { check_replicas(path, ours, &self.open_replicas) }
    }

    /// Under what is remembered what was named for each of `replicas`.
    fn keys(replicas: &[ReplicaIdentity]) -> Vec<String> {
        let has_twins =
            |one: &ReplicaIdentity| replicas.iter().filter(|other| other.url() == one.url()).count() > 1;
        let key =
            |one: &ReplicaIdentity| if has_twins(one) { one.place() } else { in_local_state(one.url()) };
        replicas.iter().map(key).collect()
    }

    fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(NAME);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(e) => return Err(Error::io(format_args!("cannot read {}", path.display()), e)),
        };
        serde_json::from_slice(&bytes).map_err(|e| {
            let message = format!(
                "{} cannot be understood ({e}): it holds how much history is kept. Remove it and name \
                 retention, snapshot_retention, snapshot_interval, levels and l0_retention once, as far as \
                 they are not the defaults",
                path.display()
            );
            Error::config(message)
        })
    }

    /// Replaces what is remembered, in one step that a power failure does not undo by halves.
    fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join(NAME);
        let temporary = path.with_extension(format!("json.{}.tmp", std::process::id()));
        let bytes = serde_json::to_vec_pretty(self).expect("BUG: settings are plain data");
        let written = files::open(&temporary, OpenOptions::new().write(true).truncate(true))
            .and_then(|mut file| file.write_all(&bytes).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(&temporary, &path));
        written.map_err(|e| Error::io(format_args!("cannot write {}", path.display()), e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::primary::{Calendar, SnapshotAt};
    use crate::store::Location;

    const URL: &str = "s3://bucket/app";

    fn defaults() -> Settings {
        let day = Duration::from_secs(24 * 3600);
        Settings {
            levels: vec![Duration::from_secs(30), Duration::from_secs(300)],
            snapshot_interval: day,
            snapshot_at: SnapshotAt::Anytime,
            snapshot_retention: day,
            l0_retention: Duration::from_secs(300),
            retention: true,
            calendar: Calendar::default(),
        }
    }

    fn off() -> NamedSettings {
        NamedSettings { retention: Some(false), ..NamedSettings::default() }
    }

    fn days(days: u64) -> NamedSettings {
        let kept = Duration::from_secs(days * 24 * 3600);
        NamedSettings { snapshot_retention: Some(kept), ..NamedSettings::default() }
    }

    fn enter(path: &Path, url: &str, named: NamedSettings) -> Result<Agreement> {
        enter_all(path, &[url], named)
    }

    fn enter_all(path: &Path, urls: &[&str], named: NamedSettings) -> Result<Agreement> {
        let history = HistoryOptions { named, defaults: defaults() };
        let identities: Vec<ReplicaIdentity> = urls.iter().map(|url| replica(url)).collect();
        let wanted =
            identities.iter().map(|identity| Wanted { url: identity.url(), identity, history: &history });
        Agreement::enter(path, &wanted.collect::<Vec<_>>())
    }

    fn replica(url: &str) -> ReplicaIdentity {
        ReplicaIdentity::from(&Location::parse(url, &|_: &str| None).unwrap())
    }

    #[test]
    fn all_who_have_it_open_have_one_replica() {
        const OTHER: &str = "s3://bucket/other";
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.db");
        let first = enter(&path, URL, days(30)).unwrap();
        let endpoint = "s3://bucket/app?endpoint=http://127.0.0.1:9000";
        for (url, asked, open) in [
            (OTHER, "replica=s3://bucket/other", "replica=s3://bucket/app"),
            (endpoint, "endpoint=http://127", "(not"),
        ] {
            let error = enter(&path, url, NamedSettings::default()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!([asked, open].iter().all(|value| error.to_string().contains(value)), "{error}");
        }
        let second = enter(&path, URL, NamedSettings::default()).unwrap();
        drop(first);
        assert!(enter(&path, OTHER, NamedSettings::default()).is_err());
        // Nobody has it open: another replica may be named, and what was named for the first one stays.
        drop(second);
        let other = enter(&path, OTHER, NamedSettings::default()).unwrap();
        assert!(enter(&path, URL, NamedSettings::default()).is_err());
        drop(other);
        let back = enter(&path, URL, NamedSettings::default()).unwrap();
        assert_eq!(back.replicas[0].settings.snapshot_retention, days(30).snapshot_retention.unwrap());
    }

    #[test]
    fn several_replicas_are_named_in_any_order_and_none_more_or_less() {
        const OTHER: &str = "file:///backup";
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.db");
        let first = enter_all(&path, &[URL, OTHER], days(30)).unwrap();
        assert_eq!(first.replicas.len(), 2);
        assert!(enter_all(&path, &[OTHER, URL], NamedSettings::default()).is_ok());
        for urls in [&[URL][..], &[OTHER], &[URL, OTHER, "file:///third"], &[URL, "file:///third"]] {
            let error = enter_all(&path, urls, NamedSettings::default()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            let values = ["file:///backup", "is open with replica="];
            assert!(values.iter().all(|value| error.to_string().contains(value)), "{urls:?}: {error}");
        }
        // What was named for each of them stays when it is the only one.
        drop(first);
        let alone = enter(&path, OTHER, NamedSettings::default()).unwrap();
        assert_eq!(Some(alone.replicas[0].settings.snapshot_retention), days(30).snapshot_retention);
    }

    #[test]
    fn a_publisher_of_version_0_1_0_says_where_to_in_its_state() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("app.db");
        let folder = files::state_folder(&path);
        let publisher = PublisherLock::take(&folder).unwrap();
        assert!(enter(&path, URL, NamedSettings::default()).is_ok());
        State::of_new_replica("s3://bucket/other").save(&folder).unwrap();
        let error = enter(&path, URL, NamedSettings::default()).unwrap_err();
        assert!(
            ["replica=s3://bucket/app", "replica=s3://bucket/other"]
                .iter()
                .all(|v| error.to_string().contains(v))
        );
        assert!(enter(&path, "s3://bucket/other", NamedSettings::default()).is_ok());
        drop(publisher);
        assert!(enter(&path, URL, NamedSettings::default()).is_ok());
    }

    #[test]
    fn what_was_named_holds_until_something_else_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.db");
        for (named, kept, days_kept, is_told) in [
            (off(), false, 1, false),
            (NamedSettings::default(), false, 1, false),
            (days(30), false, 30, false),
            (NamedSettings { retention: Some(true), ..NamedSettings::default() }, true, 30, true),
            (NamedSettings::default(), true, 30, false),
            (days(2), true, 2, true),
            (days(3), true, 3, false),
        ] {
            let agreement = enter(&path, URL, named.clone()).unwrap();
            let Agreed { settings, notice } = &agreement.replicas[0];
            assert_eq!(settings.retention, kept, "{named:?}");
            assert_eq!(settings.snapshot_retention, Duration::from_secs(days_kept * 24 * 3600), "{named:?}");
            assert_eq!(notice.is_some(), is_told, "{named:?} {notice:?}");
        }
        // Another replica is none of that.
        assert_eq!(
            enter(&path, "file:///r", NamedSettings::default()).unwrap().replicas[0].settings,
            defaults()
        );
    }

    #[test]
    fn a_notice_names_what_was_and_what_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.db");
        drop(enter(&path, URL, days(30)).unwrap());
        let notice = enter(&path, URL, days(2)).unwrap().replicas[0].notice.clone().unwrap();
        assert!(notice.contains("snapshot_retention=48h (it was 720h)"), "{notice}");
    }

    #[test]
    fn who_comes_later_agrees_or_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.db");
        let first = enter(&path, URL, days(30)).unwrap();
        let second = enter(&path, URL, NamedSettings::default()).unwrap();
        assert_eq!(second.replicas[0].settings, first.replicas[0].settings);
        assert!(enter(&path, URL, days(30)).is_ok());
        for (named, values) in [
            (days(1), ["snapshot_retention=24h", "snapshot_retention=720h"]),
            (off(), ["retention=off", "retention=on"]),
            (
                NamedSettings { levels: Some(vec![Duration::from_secs(90)]), ..NamedSettings::default() },
                ["levels=1m 30s", "levels=30s,5m"],
            ),
        ] {
            let error = enter(&path, URL, named).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(values.iter().all(|value| error.to_string().contains(value)), "{error}");
        }
        // The first one goes: the second still has it open.
        drop(first);
        assert!(enter(&path, URL, days(1)).is_err());
        drop(second);
        assert_eq!(
            enter(&path, URL, days(1)).unwrap().replicas[0].settings.snapshot_retention,
            days(1).snapshot_retention.unwrap()
        );
    }

    #[test]
    fn a_memory_that_cannot_be_read_is_not_taken_for_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.db");
        drop(enter(&path, URL, days(30)).unwrap());
        let memory = files::state_folder(&path).join(NAME);
        let text = fs::read_to_string(&memory).unwrap();
        assert!(text.contains("\"snapshot_retention\": \"720h\""), "{text}");
        // What a process of this number left when it was killed.
        let left = memory.with_extension(format!("json.{}.tmp", std::process::id()));
        fs::write(&left, "x".repeat(10_000)).unwrap();
        drop(enter(&path, URL, days(40)).unwrap());
        assert!(enter(&path, URL, days(40)).is_ok());
        fs::write(&memory, "{").unwrap();
        let error = enter(&path, URL, NamedSettings::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
    }
}
