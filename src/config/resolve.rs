//! What an open of a database gets.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::catalog::{
    ASOF, AUTO_RECOVER, CACHE_DIR, CACHE_DIR_SIZE, CACHE_SIZE, CLOSE_TIMEOUT, COMMIT, COMMIT_TIMEOUT, CONFIG,
    HYDRATE, HYDRATION_PATH, L0_RETENTION, LEVELS, MIN_TXID, OPEN_TIMEOUT, PACK, POLL_IDLE_INTERVAL,
    POLL_INTERVAL, REPLICA, REPLICA_URL, RESTORE, RETENTION, RETENTION_DAILY, RETENTION_HOURLY,
    RETENTION_MONTHLY, RETENTION_WEEKLY, REWOUND, ROLE, SNAPSHOT_AT, SNAPSHOT_INTERVAL, SNAPSHOT_RETENTION,
    SPOOL_LIMIT, SYNC_INTERVAL, SYNC_REPLICAS, TIMESTAMP, TXID, VERIFY_INTERVAL, WAL_RESET_GUARD,
    WATCH_INTERVAL,
};
use super::layer::file::{self, Document, Matched, ReplicaEntry};
use super::layer::{Assigned, Found, Given};
use super::origin::Origin;
use super::setting::{Hydrate, Restore, Role, Scope, Setting};
use super::{Env, Params, ProcessEnv, seal, value};
use crate::error::{Error, ErrorKind, Result};
use crate::ltx::Txid;
use crate::replica::{self, RestorePoint};
use crate::store::{Location, Lookup, Provider};
use crate::{files, primary};

/// What an open gets: its role, and all that the role needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Config {
    /// A local database that is replicated.
    Primary(PrimaryConfig),
    /// A replica that is read.
    Replica(ReplicaConfig),
}

/// What a primary needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrimaryConfig {
    /// The replicas, at least one, in the order in which they were named.
    pub replicas: Vec<primary::ReplicaConfig>,
    /// The database file.
    pub path: PathBuf,
    /// The folder of local state, if it is not beside the file.
    pub state_folder: Option<PathBuf>,
    /// A file that is missing, or has no pages, is restored first.
    pub restore_missing: bool,
    /// How it behaves.
    pub options: primary::Options,
    /// When commits of the connection return.
    pub commit: primary::CommitMode,
    /// How long a commit waits for replicas.
    pub commit_timeout: Duration,
    /// Whether SQLite's WAL-reset bug is guarded against, on hosts that have it.
    pub wal_reset_guard: bool,
}

/// What a replica needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaConfig {
    /// Where the replica is, at least one place: the first that answers is read.
    pub targets: Vec<Location>,
    /// How it behaves.
    pub options: replica::Options,
    /// The state that is read.
    pub point: replica::RestorePoint,
    /// A transaction that it must have.
    pub min_txid: Option<Txid>,
    /// How to get a primary instead, if nothing but the URL made it a replica.
    pub hint: Option<&'static str>,
}

/// The settings that an open has.
pub(super) const SCOPES: [Scope; 9] = [
    Scope::Open,
    Scope::Primary,
    Scope::Shipper,
    Scope::Either,
    Scope::Replica,
    Scope::State,
    Scope::Store,
    Scope::Seal,
    Scope::Monitor,
];

/// The most replicas that a database may have.
const MOST_REPLICAS: usize = 8;

/// The settings that choose the state that a replica shows.
const STATES: [&Setting<Option<RestorePoint>>; 3] = [&ASOF, &TXID, &TIMESTAMP];

/// Said where a program may have meant to write.
const HINT: &str = "it is opened as a replica, which only reads, because LITESTREAM_REPLICA_URL or replica_url alone \
                    gives its URL; to write here, add role=primary to the URI or set LITESTREAM_ROLE=primary";

/// The replicas and where they were found, at least one.
pub(super) enum Replicas {
    /// `replica=` in the URI.
    Uri(Vec<Found>),
    /// An entry of the configuration file.
    File(Matched),
    /// `replica_url=` in the URI or the environment, as for Litestream's own extension, which reads.
    Litestreams(Found),
}

/// One replica that was found, and the settings that hold for it.
pub(super) struct FoundReplica<'a> {
    pub(super) location: Location,
    pub(super) given: Given<'a>,
    /// Where it was found.
    pub(super) origin: Origin,
}

/// All that is given for an open, layer by layer.
pub(super) struct Layers<'a> {
    /// What holds for the database.
    pub(super) given: Given<'a>,
    /// Only what is in the URI.
    uri: Given<'a>,
    /// The configuration file, if there is one.
    pub(super) document: Option<Arc<Document>>,
    /// What is configured for the database: by `litestream_configure`, then its entry in the file.
    pub(super) entries: Vec<Matched>,
    /// Why the configuration file that nobody named cannot be read.
    unreadable: Option<Error>,
}

impl<'a> Layers<'a> {
    /// Collects them for the database `path`.
    ///
    /// # Errors
    /// `Config`: a parameter, or a line of the configuration file, that is wrong; those of the file if it is named.
    pub(super) fn collect(path: Option<&Path>, params: &dyn Params, env: &'a dyn Env) -> Result<Self> {
        Self::with(path, Given::uri(params, env, &SCOPES)?)
    }

    /// Collects them for the database `path`, for which `uri` is given.
    ///
    /// # Errors
    /// As [`Layers::collect`].
    pub(super) fn with(path: Option<&Path>, uri: Given<'a>) -> Result<Self> {
        let (document, unreadable) = match uri.document() {
            // One that nobody named need not be for this user.
            Err(e) if e.kind() == ErrorKind::Denied && uri.found(&CONFIG.declared).is_none() => {
                (None, Some(e))
            }
            document => (document?, None),
        };
        if let Some(document) = &document {
            document.warn();
        }
        let configured = path.and_then(file::configured);
        let in_file = document.as_ref().zip(path).and_then(|(document, path)| file::find(document, path));
        let entries: Vec<Matched> = configured.into_iter().chain(in_file).collect();
        let given = uri.before(entries.iter().flat_map(Matched::values));
        Ok(Self { given, uri, document, entries, unreadable })
    }

    /// Where the replicas are named.
    ///
    /// # Errors
    /// `Config` if nobody names one.
    pub(super) fn replicas(&self, path: Option<&Path>) -> Result<Replicas> {
        self.replicas_or(path, self.uri.env(&REPLICA_URL))
    }

    /// The same, where nothing else names any: `otherwise`.
    fn replicas_or(&self, path: Option<&Path>, otherwise: Option<Found>) -> Result<Replicas> {
        let uri = self.uri.params(&REPLICA);
        match (uri.is_empty(), self.uri.param(&REPLICA_URL)) {
            (false, Some(_)) => Err(Error::config("'replica' and 'replica_url' are both given; keep one")),
            (false, None) => Ok(Replicas::Uri(uri)),
            (true, Some(theirs)) => Ok(Replicas::Litestreams(theirs)),
            (true, None) => match (self.with_replicas(), otherwise) {
                (Some(entry), _) => Ok(Replicas::File(entry.clone())),
                (None, Some(theirs)) => Ok(Replicas::Litestreams(theirs)),
                (None, None) => Err(no_url(path, self.unreadable.as_ref())),
            },
        }
    }

    /// The replicas that are configured, each with what holds for it; none if the database has no entry.
    ///
    /// # Errors
    /// As [`Layers::located`].
    pub(super) fn configured(&self) -> Result<Vec<FoundReplica<'a>>> {
        self.with_replicas().map_or(Ok(Vec::new()), |entry| self.located(&Replicas::File(entry.clone())))
    }

    /// The first entry that has replicas.
    fn with_replicas(&self) -> Option<&Matched> {
        self.entries.iter().find(|entry| !entry.entry().replicas.is_empty())
    }

    /// The role of the open, and who decided it.
    ///
    /// # Errors
    /// `Config` if it does not fit how the database is opened.
    pub(super) fn role(&self, read_only: bool, replicas: &Replicas) -> Result<(Role, Option<Found>)> {
        let said = |found: Option<Found>| -> Result<Option<(Role, Option<Found>)>> {
            found.map(|found| Ok((read_role(&found)?, Some(found)))).transpose()
        };
        match said(self.given.param(&ROLE))? {
            Some((Role::Primary, Some(found))) if read_only && !found.origin.is_file() => Err(Error::config(
                "role=primary writes, but the database is opened read-only: remove mode=ro, or use role=replica",
            )),
            Some((Role::Primary, _)) if read_only => Ok((Role::Replica, None)),
            Some(said) => Ok(said),
            None if read_only => Ok((Role::Replica, None)),
            None => match replicas {
                Replicas::Uri(_) | Replicas::File(_) => Ok((Role::Primary, None)),
                Replicas::Litestreams(_) => Ok(said(self.given.env(&ROLE))?.unwrap_or((Role::Replica, None))),
            },
        }
    }

    /// The replicas, each with what holds for it.
    ///
    /// # Errors
    /// `Config`, with the place where the replica is named.
    pub(super) fn located(&self, replicas: &Replicas) -> Result<Vec<FoundReplica<'a>>> {
        let at = |found: &Found| located_at(&self.given, &found.text, &found.origin);
        match replicas {
            Replicas::Uri(urls) => urls.iter().map(at).collect(),
            Replicas::Litestreams(url) => Ok(vec![at(url)?]),
            Replicas::File(entry) => {
                entry.entry().replicas.iter().map(|replica| self.located_in_file(entry, replica)).collect()
            }
        }
    }

    fn located_in_file(&self, entry: &Matched, replica: &ReplicaEntry) -> Result<FoundReplica<'a>> {
        let given = self.uri.before(replica.section.values.iter().cloned());
        let url = entry.url_of(replica);
        let kind = replica.kind.as_ref().map_or("file", |kind| &kind.text);
        let provider = Provider::of(url.as_deref(), kind);
        let is_endpoint_of_others = |value: &Assigned| {
            value.setting.name == ENDPOINT && provider.is_some_and(|provider| !provider.takes_common_endpoint)
        };
        let common = self.entries.iter().flat_map(Matched::values);
        let given = given.before(common.filter(|value| !is_endpoint_of_others(value)));
        if let Some(url) = url {
            let line = replica.url.as_ref().map_or(&replica.line, |url| &url.line);
            let origin = Origin::File(line.clone(), "url".into());
            return located_at(&given, &given.without_given(&url), &origin);
        }
        let line = replica.kind.as_ref().map_or(&replica.line, |kind| &kind.line);
        let fields = Fields { entry, replica, given: &given };
        let location = Location::from_fields(kind, &fields).map_err(|e| e.context(line))?;
        let location = location.read_with(seal::keyring(&given)?);
        Ok(FoundReplica { location, given, origin: Origin::File(replica.line.clone(), "replica".into()) })
    }
}

/// Decides what an open of the database file `path` gets whose connection did not ask for us: `None` if neither
/// `litestream_configure` nor the configuration file names it, or if it only wants to read the file of a primary.
///
/// # Errors
/// As [`resolve`].
pub fn resolve_configured(
    path: &Path,
    params: &dyn Params,
    read_only: bool,
    env: &dyn Env,
) -> Result<Option<Config>> {
    if file::configured(path).is_none() {
        let document = match Given::environment(env).document() {
            Err(e) if e.kind() == ErrorKind::Denied && env.var("LITESTREAM_CONFIG").is_none() => None,
            document => document?,
        };
        if document.and_then(|document| file::find(&document, path)).is_none() {
            return Ok(None);
        }
    }
    let layers = Layers::collect(Some(path), params, env)?;
    // What the environment names is for connections that ask for us.
    let replicas = layers.replicas_or(Some(path), None)?;
    // That the connection only reads makes no replica of a local file.
    match layers.role(false, &replicas)? {
        (Role::Primary, _) if read_only => Ok(None),
        (role, _) => as_role(role, None, Some(path), params, &layers, layers.located(&replicas)?).map(Some),
    }
}

/// The setting of a store that names its address.
const ENDPOINT: &str = "endpoint";

/// The replica at `url`.
pub(super) fn located_at<'a>(given: &Given<'a>, url: &str, origin: &Origin) -> Result<FoundReplica<'a>> {
    let named = |e: Error| e.context(origin.label());
    let (given, rest) =
        given.of_replica(url, &[Scope::Shipper, Scope::Either, Scope::Seal]).map_err(named)?;
    let location = Location::parse(&rest, &given).map_err(named)?.read_with(seal::keyring(&given)?);
    Ok(FoundReplica { location, given, origin: origin.clone() })
}

/// How a store looks for the fields of a configuration file.
struct Fields<'f, 'a> {
    entry: &'f Matched,
    replica: &'f ReplicaEntry,
    given: &'f Given<'a>,
}

impl Lookup for Fields<'_, '_> {
    fn param(&self, name: &str) -> Option<String> {
        Lookup::param(self.given, name).or_else(|| self.entry.field_of(self.replica, name))
    }

    fn env(&self, variable: &str) -> Option<String> {
        Lookup::env(self.given, variable)
    }
}

/// Decides what an open of the database file `path` gets.
///
/// The role, first match wins:
/// 1. `role=` in the URI, or `role:` in the entry of the configuration file.
/// 2. Opened read-only, and a replica is known: replica.
/// 3. `replica=` in the URI, or an entry of the configuration file: primary.
/// 4. `replica_url=` in the URI, or `LITESTREAM_REPLICA_URL`: what `LITESTREAM_ROLE` says, or else replica.
/// 5. No replica: an error.
///
/// A setting of the other role is checked and has no effect, so that one URI, with `mode=ro` added,
/// opens as a replica what it opens as a primary.
///
/// # Errors
/// `Config`, with a message that names the parameter or the line of the file, and the remedy.
pub fn resolve(path: Option<&Path>, params: &dyn Params, read_only: bool, env: &dyn Env) -> Result<Config> {
    let layers = Layers::collect(path, params, env)?;
    let replicas = layers.replicas(path)?;
    let (role, said) = layers.role(read_only, &replicas)?;
    let is_litestreams = matches!(replicas, Replicas::Litestreams(_));
    let hint = (said.is_none() && !read_only && is_litestreams).then_some(HINT);
    as_role(role, hint, path, params, &layers, layers.located(&replicas)?)
}

fn as_role(
    role: Role,
    hint: Option<&'static str>,
    path: Option<&Path>,
    params: &dyn Params,
    layers: &Layers<'_>,
    located: Vec<FoundReplica<'_>>,
) -> Result<Config> {
    match role {
        Role::Primary => primary(path, params, layers, located).map(Config::Primary),
        Role::Replica => {
            let pack = located.first().map_or(&layers.given, |replica| &replica.given).get(&PACK)?;
            let targets = located.into_iter().map(|replica| replica.location).collect();
            replica(path, params, &layers.given, targets, pack)
                .map(|config| Config::Replica(ReplicaConfig { hint, ..config }))
        }
    }
}

/// Whether the name of a database asks for this VFS or has parameters of ours, right or misspelled.
///
/// `ATTACH` and `VACUUM INTO` bring names that do neither to the VFS of their connection.
pub fn is_asked_for(params: &dyn Params) -> bool {
    let names_us = |(key, text): (String, String)| key == "vfs" && text == "litestream";
    params.pairs().into_iter().any(names_us)
        || Given::uri(params, &ProcessEnv, &SCOPES).map_or(true, |given| !given.is_empty())
}

fn no_url(path: Option<&Path>, unreadable: Option<&Error>) -> Error {
    let name = path.and_then(Path::file_name).map_or("this database".into(), |n| n.to_string_lossy());
    let unreadable = unreadable.map_or(String::new(), |e| format!("; {e}"));
    Error::config(format!(
        "no replica URL for {name}: add &replica=s3://bucket/path to the URI, set LITESTREAM_REPLICA_URL, or give it an \
         entry in a configuration file; to open it without replication use vfs=unix{unreadable}"
    ))
}

fn read_role(found: &Found) -> Result<Role> {
    let role = ROLE.read(&found.text).map_err(|e| e.context(found.origin.label()))?;
    Ok(role.expect("BUG: a text without a role"))
}

fn primary(
    path: Option<&Path>,
    params: &dyn Params,
    layers: &Layers<'_>,
    located: Vec<FoundReplica<'_>>,
) -> Result<PrimaryConfig> {
    let given = &layers.given;
    let path = path.ok_or_else(|| {
        Error::config("a primary is a file: give the database a name, such as file:app.db?vfs=litestream")
    })?;
    refuse_lockless(params, "replication relies on: remove it from the URI")?;
    if let Some(found) = STATES.iter().find_map(|setting| given.param(setting)) {
        let origin = found.origin.label();
        let message = format!("{origin} reads a past state of the replica: add mode=ro to the URI");
        return Err(Error::config(message));
    }
    if located.len() > MOST_REPLICAS {
        let count = located.len();
        let message = format!("replica: {count} are given, and a database has {MOST_REPLICAS} at most");
        return Err(Error::config(message));
    }
    let replicas: Vec<_> = located.into_iter().map(replica_of_primary).collect::<Result<_>>()?;
    primary::refuse_twins(&replicas)?;
    let options = primary::Options {
        close_timeout: given.get(&CLOSE_TIMEOUT)?,
        watch_interval: given.get(&WATCH_INTERVAL)?,
        sync_replicas: sync_replicas(given, replicas.len())?,
        named: given.named_in(&[Scope::Primary]),
    };
    let commit = commit(given, replicas.len())?;
    let commit_timeout = given.get(&COMMIT_TIMEOUT)?;
    let wal_reset_guard = given.get(&WAL_RESET_GUARD)?;
    let state_folder = layers.entries.iter().find_map(Matched::state_folder);
    let restore_missing = given.get(&RESTORE)? == Restore::Missing;
    let path = path.to_owned();
    Ok(PrimaryConfig {
        replicas,
        path,
        state_folder,
        restore_missing,
        options,
        commit,
        commit_timeout,
        wal_reset_guard,
    })
}

/// One replica of a primary. A setting in its URL wins over one in the URI.
fn replica_of_primary(found: FoundReplica<'_>) -> Result<primary::ReplicaConfig> {
    let FoundReplica { location: target, given, .. } = found;
    let recipients = seal::recipients(&given, target.keyring())?;
    let options = primary::ReplicaOptions {
        sync_interval: given.get(&SYNC_INTERVAL)?,
        spool_limit: given.get(&SPOOL_LIMIT)?,
        verify_interval: given.get(&VERIFY_INTERVAL)?,
        rewound: given.get(&REWOUND)?,
        auto_recover: given.get(&AUTO_RECOVER)?,
        pack: given.get(&PACK)?,
        recipients,
        history: history(&given)?,
        named: given.named_in(&[Scope::Shipper, Scope::Either, Scope::Seal]),
    };
    Ok(primary::ReplicaConfig { target, options })
}

/// How many of the `replicas` (a count) a sync waits for.
fn sync_replicas(given: &Given<'_>, replicas: usize) -> Result<primary::SyncReplicas> {
    let wanted = given.get(&SYNC_REPLICAS)?;
    check_count(wanted, given.found(&SYNC_REPLICAS.declared).as_ref(), replicas)?;
    Ok(wanted)
}

/// When commits return, of a database with `replicas` (a count).
fn commit(given: &Given<'_>, replicas: usize) -> Result<primary::CommitMode> {
    let wanted = given.get(&COMMIT)?;
    if let primary::CommitMode::Replicated(wanted) = wanted {
        check_count(wanted, given.found(&COMMIT.declared).as_ref(), replicas)?;
    }
    Ok(wanted)
}

fn check_count(wanted: primary::SyncReplicas, found: Option<&Found>, replicas: usize) -> Result<()> {
    match (wanted, found) {
        (primary::SyncReplicas::AtLeast(count), Some(found)) if count > replicas => {
            Err(too_many(&found.text, replicas).context(found.origin.label()))
        }
        _ => Ok(()),
    }
}

/// When commits return, as a PRAGMA gives it to a connection of a database with `replicas` (a count).
///
/// # Errors
/// `Config`, with what would be a value.
pub fn commit_mode(text: &str, replicas: usize) -> Result<primary::CommitMode> {
    let mode = COMMIT.read(text)?;
    match mode {
        primary::CommitMode::Replicated(primary::SyncReplicas::AtLeast(count)) if count > replicas => {
            Err(too_many(text, replicas))
        }
        _ => Ok(mode),
    }
}

fn too_many(text: &str, replicas: usize) -> Error {
    let plural = if replicas == 1 { "" } else { "s" };
    Error::config(format!("'{text}' is more than there are: this database has {replicas} replica{plural}"))
}

/// How much history is to be kept: what was named here is told from what was not, which another open may
/// have named.
pub(super) fn history(given: &Given<'_>) -> Result<primary::HistoryOptions> {
    let named = primary::NamedSettings {
        levels: given.named(&LEVELS)?,
        snapshot_interval: given.named(&SNAPSHOT_INTERVAL)?,
        snapshot_at: given.named(&SNAPSHOT_AT)?,
        snapshot_retention: given.named(&SNAPSHOT_RETENTION)?,
        l0_retention: given.named(&L0_RETENTION)?,
        retention: given.named(&RETENTION)?,
        calendar: calendar(given)?,
    };
    let given = Given::nothing();
    let defaults = primary::HistorySettings {
        levels: given.get(&LEVELS)?,
        snapshot_interval: given.get(&SNAPSHOT_INTERVAL)?,
        snapshot_at: given.get(&SNAPSHOT_AT)?,
        snapshot_retention: given.get(&SNAPSHOT_RETENTION)?,
        l0_retention: given.get(&L0_RETENTION)?,
        retention: given.get(&RETENTION)?,
        calendar: primary::Calendar::default(),
    };
    let interval = named.snapshot_interval.unwrap_or(defaults.snapshot_interval);
    if let Some(at) = named.snapshot_at.filter(|at| !at.fits(interval)) {
        return Err(Error::config(format!(
            "snapshot_at={at} does not fit the snapshot_interval, which does not come to that time each day: give one that a \
             day is divided by, such as 12h, or whole days"
        )));
    }
    Ok(primary::HistoryOptions { named, defaults })
}

/// The restore points that the calendar keeps, if any of its numbers is named.
fn calendar(given: &Given<'_>) -> Result<Option<primary::Calendar>> {
    let number = |setting: &'static Setting<Option<u64>>| -> Result<Option<u32>> {
        Ok(given.get(setting)?.map(|count| u32::try_from(count).unwrap_or(u32::MAX)))
    };
    let numbers = [&RETENTION_HOURLY, &RETENTION_DAILY, &RETENTION_WEEKLY, &RETENTION_MONTHLY];
    let [hourly, daily, weekly, monthly] = numbers.map(number);
    let (hourly, daily, weekly, monthly) = (hourly?, daily?, weekly?, monthly?);
    let is_named = hourly.or(daily).or(weekly).or(monthly).is_some();
    let of = |count: Option<u32>| count.unwrap_or(0);
    Ok(is_named.then(|| primary::Calendar {
        hourly: of(hourly),
        daily: of(daily),
        weekly: of(weekly),
        monthly: of(monthly),
    }))
}

/// Refuses parameters with which SQLite takes no locks. A primary needs the locks of WAL mode; on a replica a lock
/// holds one state in place for a transaction.
fn refuse_lockless(params: &dyn Params, purpose_and_remedy: &str) -> Result<()> {
    for (key, text) in params.pairs() {
        if matches!(key.as_str(), "immutable" | "nolock") && value::is_on_for_sqlite(&text) {
            return Err(Error::config(format!(
                "{key}={text} switches off the locks that {purpose_and_remedy}"
            )));
        }
    }
    Ok(())
}

fn replica(
    path: Option<&Path>,
    params: &dyn Params,
    given: &Given<'_>,
    targets: Vec<Location>,
    pack: bool,
) -> Result<ReplicaConfig> {
    refuse_lockless(
        params,
        "keep the state of a transaction in place while the replica follows its primary: remove it from the \
         URI (mode=ro is enough, and asof=TIME reads a state that never changes)",
    )?;
    let options = replica::Options {
        open_timeout: given.get(&OPEN_TIMEOUT)?,
        poll_interval: given.get(&POLL_INTERVAL)?,
        poll_idle_interval: given.get(&POLL_IDLE_INTERVAL)?,
        cache_bytes: usize::try_from(given.get(&CACHE_SIZE)?).unwrap_or(usize::MAX),
        hydration: hydration(path, given)?,
        disk: disk(given)?,
        pack,
        ..replica::Options::default()
    };
    let point = given.state(&STATES)?;
    let min_txid = given.get(&MIN_TXID)?;
    if min_txid.is_some() && point != RestorePoint::Latest {
        return Err(Error::config(
            "min_txid waits for a transaction of the latest state, and asof, txid and timestamp read an earlier one: give \
             either",
        ));
    }
    Ok(ReplicaConfig { targets, options, point, min_txid, hint: None })
}

/// The local file that the whole database is downloaded to, if it is. A relative path is one in the
/// current folder.
fn hydration(database: Option<&Path>, given: &Given<'_>) -> Result<Option<replica::HydrationOptions>> {
    let hydrate = given.get(&HYDRATE)?;
    if hydrate == Hydrate::Off {
        return Ok(None);
    }
    let path = match given.get(&HYDRATION_PATH)? {
        Some(path) => path,
        None => default_hydration_path(database).ok_or_else(|| {
            Error::config("hydrate=1 needs a place: give the database a name, or hydration_path")
        })?,
    };
    let absolute = std::path::absolute(&path);
    let path = absolute.map_err(|e| Error::io(format!("hydration_path={}", path.display()), e))?;
    Ok(Some(replica::HydrationOptions { path, plain: hydrate == Hydrate::Plain }))
}

fn default_hydration_path(database: Option<&Path>) -> Option<PathBuf> {
    let database = database?;
    database.file_name()?;
    Some(files::state_folder(database).join("hydration.db"))
}

/// The disk cache: none unless its folder is given. A relative folder is one of the current folder.
fn disk(given: &Given<'_>) -> Result<Option<replica::DiskOptions>> {
    let bytes = given.get(&CACHE_DIR_SIZE)?;
    let Some(folder) = given.get(&CACHE_DIR)? else { return Ok(None) };
    let folder =
        std::path::absolute(&folder).map_err(|e| Error::io(format!("cache_dir={}", folder.display()), e))?;
    Ok(Some(replica::DiskOptions { folder, bytes }))
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::clock::Timestamp;
    use crate::config::tests::params;
    use crate::replica::RestorePoint;
    use crate::store::ReplicaIdentity;

    const FROM_ENV: [(&str, &str); 1] = [("LITESTREAM_REPLICA_URL", "file:///from-env")];

    fn open(query: &str, read_only: bool, env: &dyn Env) -> Result<Config> {
        resolve(Some(Path::new("/data/app.db")), &params(query), read_only, env)
    }

    fn refusal(query: &str) -> String {
        let error = open(query, false, &[]).unwrap_err();
        assert_eq!(error.kind(), crate::error::ErrorKind::Config, "{query}");
        error.to_string()
    }

    /// What was decided, short: `primary /folder` or `replica /folder`.
    fn decided(query: &str, read_only: bool, env: &dyn Env) -> String {
        let (role, target) = match open(query, read_only, env).unwrap() {
            Config::Primary(c) => ("primary", c.replicas[0].target.clone()),
            Config::Replica(c) => ("replica", c.targets[0].clone()),
        };
        let place = ReplicaIdentity::from(&target).to_string();
        format!("{role} {}", place.strip_prefix("file://").unwrap_or(&place))
    }

    #[test]
    fn the_first_rule_that_matches_gives_the_role() {
        let nothing: [(&str, &str); 0] = [];
        for (query, read_only, env, expected) in [
            // 1. role=
            ("role=replica&replica=file:///r", false, false, "replica /r"),
            ("role=Replica", false, true, "replica /from-env"),
            ("role=primary", false, true, "primary /from-env"),
            ("role=primary&replica_url=file:///r", false, true, "primary /r"),
            // 2. read-only
            ("replica=file:///r", true, false, "replica /r"),
            ("", true, true, "replica /from-env"),
            // 3. replica=
            ("replica=file:///r", false, false, "primary /r"),
            ("replica=file:///r", false, true, "primary /r"),
            // 4. Litestream's own ways
            ("", false, true, "replica /from-env"),
            ("replica_url=file:///r", false, true, "replica /r"),
            ("replica_url=file:///r", false, false, "replica /r"),
        ] {
            let env: &dyn Env = if env { &FROM_ENV } else { &nothing };
            assert_eq!(decided(query, read_only, env), expected, "{query} {read_only} {env:?}");
        }
    }

    #[test]
    fn the_environments_role_decides_only_where_nothing_else_does() {
        let env = [FROM_ENV[0], ("LITESTREAM_ROLE", "primary")];
        assert_eq!(decided("", false, &env), "primary /from-env");
        assert_eq!(decided("", true, &env), "replica /from-env");
        assert_eq!(decided("role=replica", false, &env), "replica /from-env");
        assert_eq!(decided("replica=file:///r", false, &[("LITESTREAM_ROLE", "replica")]), "primary /r");
        let message = open("", false, &[FROM_ENV[0], ("LITESTREAM_ROLE", "leader")]).unwrap_err().to_string();
        assert_eq!(message, "LITESTREAM_ROLE: 'leader' is none of primary, replica");
    }

    #[test]
    fn without_a_replica_url_the_message_says_how_to_give_one() {
        for (query, read_only) in [("", false), ("", true), ("role=replica", false), ("role=primary", false)]
        {
            let message = open(query, read_only, &[("LITESTREAM_REPLICA_URL", "")]).unwrap_err().to_string();
            assert!(message.starts_with("no replica URL for app.db: add &replica=s3://"), "{message}");
            assert!(message.contains("LITESTREAM_REPLICA_URL") && message.contains("vfs=unix"), "{message}");
        }
    }

    #[test]
    fn uri_wins_over_environment_and_environment_over_default() {
        let env = [("LITESTREAM_SYNC_INTERVAL", "3s"), ("LITESTREAM_CLOSE_TIMEOUT", "7s")];
        let Config::Primary(c) = open("replica=file:///r&sync-interval=250ms", false, &env).unwrap() else {
            panic!("not a primary")
        };
        assert_eq!(c.path, Path::new("/data/app.db"));
        assert_eq!(c.replicas[0].options.sync_interval, Duration::from_millis(250));
        assert_eq!(c.options.close_timeout, Duration::from_secs(7));

        let env = [("LITESTREAM_CACHE_SIZE", "2MiB")];
        let Config::Replica(c) = open("replica=file:///r&pollInterval=2", true, &env).unwrap() else {
            panic!("not a replica")
        };
        assert_eq!(c.options.poll_interval, Duration::from_secs(2));
        assert_eq!(c.options.cache_bytes, 2 << 20);
        assert_eq!(c.options.open_timeout, Duration::from_secs(10));
    }

    #[test]
    fn what_uri_and_environment_say_of_the_history_is_named() {
        let env = [("LITESTREAM_SNAPSHOT_RETENTION", "720h"), ("LITESTREAM_LEVELS", "1m")];
        let Config::Primary(c) = open("replica=file:///r&retention=on&levels=30s,5m", false, &env).unwrap()
        else {
            panic!("not a primary")
        };
        let named = primary::NamedSettings {
            levels: Some([30, 300].map(Duration::from_secs).to_vec()),
            snapshot_retention: Some(Duration::from_secs(720 * 3600)),
            retention: Some(true),
            ..primary::NamedSettings::default()
        };
        assert_eq!(c.replicas[0].options.history.named, named);
        assert_eq!(c.replicas[0].options.history.defaults.snapshot_retention, Duration::from_secs(24 * 3600));
    }

    #[test]
    fn a_replica_is_read_as_of_a_point() {
        for (query, expected) in [
            ("replica=file:///r", RestorePoint::Latest),
            ("replica=file:///r&asof=latest", RestorePoint::Latest),
            ("replica=file:///r&txid=000000000000002a", RestorePoint::Txid(Txid::new(42).unwrap())),
            (
                "replica=file:///r&timestamp=1769860800.5",
                RestorePoint::Timestamp(Timestamp::from_millis(1_769_860_800_500)),
            ),
            ("replica=file:///r&asof=txid:42", RestorePoint::Txid(Txid::new(42).unwrap())),
            (
                "replica=file:///r&asof=2026-01-31T13:00:00.5+01:00",
                RestorePoint::Timestamp(Timestamp::from_millis(1_769_860_800_500)),
            ),
        ] {
            let Config::Replica(c) = open(query, true, &[]).unwrap() else { panic!("not a replica") };
            assert_eq!(c.point, expected, "{query}");
        }
    }

    #[test]
    fn defaults_are_those_of_the_design() {
        let Config::Primary(c) = open("replica=file:///r", false, &[]).unwrap() else {
            panic!("not a primary")
        };
        let day = Duration::from_secs(24 * 3600);
        let expected = primary::ReplicaOptions {
            sync_interval: Duration::from_secs(1),
            spool_limit: 1 << 30,
            verify_interval: Duration::ZERO,
            rewound: primary::Rewound::Forward,
            auto_recover: true,
            recipients: crate::ltx::Recipients::default(),
            pack: true,
            named: Vec::new(),
            history: primary::HistoryOptions {
                named: primary::NamedSettings::default(),
                defaults: primary::HistorySettings {
                    levels: [30, 300, 3600].map(Duration::from_secs).to_vec(),
                    snapshot_interval: day,
                    snapshot_at: primary::SnapshotAt::Anytime,
                    snapshot_retention: day,
                    l0_retention: Duration::from_secs(300),
                    retention: true,
                    calendar: primary::Calendar::default(),
                },
            },
        };
        assert_eq!(c.replicas[0].options, expected);
        let expected = primary::Options {
            close_timeout: Duration::from_secs(5),
            watch_interval: Duration::from_secs(10),
            sync_replicas: primary::SyncReplicas::All,
            named: Vec::new(),
        };
        assert_eq!(c.options, expected);
        assert_eq!((c.commit, c.commit_timeout), (primary::CommitMode::Local, Duration::from_secs(10)));
        assert!(c.wal_reset_guard);
        let Config::Replica(c) = open("replica=file:///r", true, &[]).unwrap() else {
            panic!("not a replica")
        };
        let expected = replica::Options {
            open_timeout: Duration::from_secs(10),
            poll_interval: Duration::from_secs(1),
            poll_idle_interval: Duration::from_secs(30),
            cache_bytes: 32 << 20,
            hydration: None,
            disk: None,
            pack: true,
            ..replica::Options::default()
        };
        assert_eq!(c.options, expected);
    }

    #[test]
    fn hydration_is_beside_the_database_unless_told_where() {
        let hydration =
            |query: &str, env: &dyn Env| match open(&format!("replica=file:///r&{query}"), true, env) {
                Ok(Config::Replica(c)) => c.options.hydration,
                other => panic!("{other:?}"),
            };
        let at = |path: &str| Some(replica::HydrationOptions { path: path.into(), plain: false });
        let plain = replica::HydrationOptions { path: "/h".into(), plain: true };
        assert_eq!(hydration("hydrate=plain&hydration_path=/h", &[]), Some(plain));
        assert_eq!(hydration("hydration_path=/h/app.db", &[]), None);
        assert_eq!(hydration("hydrate=1", &[]), at("/data/.app.db-litestream/hydration.db"));
        assert_eq!(hydration("hydrate=1&hydration-path=/h/app.db", &[]), at("/h/app.db"));
        let litestreams =
            [("LITESTREAM_HYDRATION_ENABLED", "true"), ("LITESTREAM_HYDRATION_PATH", "/h/x.db")];
        assert_eq!(hydration("", &litestreams), at("/h/x.db"));
        assert_eq!(hydration("hydrate=0", &litestreams), None);
        assert!(refusal("replica=file:///r&hydrate=maybe").contains("hydrate"));
    }

    #[test]
    fn a_disk_cache_needs_a_folder_and_has_a_size() {
        let disk = |query: &str, env: &dyn Env| match open(&format!("replica=file:///r&{query}"), true, env) {
            Ok(Config::Replica(c)) => c.options.disk,
            other => panic!("{other:?}"),
        };
        let at = |folder: &str, bytes| Some(replica::DiskOptions { folder: folder.into(), bytes });
        assert_eq!(disk("cache_dir_size=2GiB", &[]), None);
        assert_eq!(disk("cache_dir=/var/cache/app", &[]), at("/var/cache/app", 1 << 30));
        assert_eq!(disk("cacheDir=/c&cache-dir-size=100MiB", &[]), at("/c", 100 << 20));
        assert_eq!(disk("", &[("LITESTREAM_CACHE_DIR", "/e")]), at("/e", 1 << 30));
        let relative = disk("cache_dir=here", &[]).unwrap().folder;
        assert_eq!(relative, std::env::current_dir().unwrap().join("here"));
        assert!(refusal("replica=file:///r&mode=ro&cache_dir_size=1MiB").contains("64MiB"));
        assert!(refusal("replica=file:///r&cache_dir=").contains("cache_dir"));
    }

    #[test]
    fn store_settings_come_from_uri_then_environment() {
        let env = [("AWS_ENDPOINT_URL", "http://two:2"), ("LITESTREAM_S3_ENDPOINT", "http://one:1")];
        let endpoint = |query, env: &dyn Env| decided(query, true, env);
        assert_eq!(
            endpoint("replica=s3://b&endpoint=http://x:9", &env),
            "replica s3://b, endpoint=http://x:9"
        );
        assert_eq!(endpoint("replica=s3://b", &env), "replica s3://b, endpoint=http://one:1");
        assert_eq!(endpoint("replica=s3://b", &[env[0]]), "replica s3://b, endpoint=http://two:2");
    }

    #[test]
    fn a_wrong_replica_url_is_said_to_be_one() {
        let message = refusal("replica=ftp://host/path");
        assert!(message.starts_with("replica: ") && message.contains("'ftp'"), "{message}");
        let message = open("", false, &[("LITESTREAM_REPLICA_URL", "bucket/path")]).unwrap_err().to_string();
        assert!(message.starts_with("LITESTREAM_REPLICA_URL: 'bucket/path'"), "{message}");
    }

    #[test]
    fn half_a_pair_of_credentials_is_not_completed_from_elsewhere() {
        let env = [("LITESTREAM_ACCESS_KEY_ID", "env-id"), ("LITESTREAM_SECRET_ACCESS_KEY", "env-secret")];
        let credentials = |query| match open(query, true, &env).map(|c| match c {
            Config::Primary(c) => c.replicas[0].target.clone(),
            Config::Replica(c) => c.targets[0].clone(),
        }) {
            Ok(target) => Ok(target),
            Err(e) => Err(e.to_string()),
        };
        let pair = |id: &str, secret: &str| {
            let url = format!("s3://b?access-key-id={id}&secret-access-key={secret}");
            Ok(Location::parse(&url, &|_: &str| None).unwrap())
        };
        assert_eq!(credentials("replica=s3://b"), pair("env-id", "env-secret"));
        assert_eq!(credentials("replica=s3://b&access_key_id=i&secret-access-key=s"), pair("i", "s"));
        let message = credentials("replica=s3://b&secret_access_key=hush").unwrap_err();
        assert!(message.contains("access-key-id") && !message.contains("hush"), "{message}");
    }

    #[test]
    fn store_settings_are_handed_on_as_the_store_reads_them() {
        let query = "replica=s3://b&part_size=16MiB&forcePathStyle=on&skip_verify=no";
        let Config::Replica(c) = open(query, true, &[]).unwrap() else { panic!("not a replica") };
        let url = "s3://b?part-size=16777216&force-path-style=true&skip-verify=false";
        assert_eq!(c.targets[0], Location::parse(url, &|_: &str| None).unwrap());
    }

    #[test]
    fn parameters_of_others_are_left_to_them() {
        let theirs = "vfs=litestream&mode=ro&cache=shared&psow=0&modeof=x&cipher=aes&_pragma=x&timeout=9";
        assert_eq!(decided(&format!("replica=file:///r&{theirs}"), true, &[]), "replica /r");
        for (read_only, expected) in [(false, "primary /r"), (true, "replica /r")] {
            let with_locks = "replica=file:///r&immutable=0&nolock=no";
            assert_eq!(decided(with_locks, read_only, &[]), expected);
        }
    }

    #[test]
    fn a_database_without_locks_is_refused_in_both_roles() {
        for without in ["immutable=1", "nolock=1", "immutable=TRUE", "nolock=2", "immutable=1x"] {
            let query = format!("replica=file:///r&{without}");
            for read_only in [false, true] {
                let message = open(&query, read_only, &[]).unwrap_err().to_string();
                assert!(message.starts_with(&format!("{without} switches off the locks")), "{message}");
                assert!(message.contains("remove it from the URI"), "{message}");
            }
            assert!(open(&format!("{query}&asof=txid:1"), true, &[]).is_err(), "{without}");
        }
    }

    #[test]
    fn settings_of_the_other_role_have_no_effect_but_must_be_right() {
        let both = "replica=file:///r&sync_interval=2s&poll_interval=2s";
        assert_eq!(decided(both, false, &[]), "primary /r");
        assert_eq!(decided(both, true, &[]), "replica /r");
        assert!(refusal("replica=file:///r&poll_interval=often").starts_with("poll_interval: 'often'"));
    }

    #[test]
    fn a_mistake_in_the_uri_is_named_with_its_remedy() {
        for (query, expected) in [
            ("replicaa=file:///r", "unknown parameter 'replicaa'; did you mean 'replica'?"),
            ("relpica=file:///r", "did you mean 'replica'?"),
            ("replica=file:///r&poll_intervall=1s", "did you mean 'poll_interval'?"),
            ("replica=file:///r&Sync_Intervals=1s", "did you mean 'sync_interval'?"),
            ("replica=file:///r&litestream_sync_interval=1s", "did you mean 'sync_interval'?"),
            ("replica=file:///r&roles=primary", "did you mean 'role'?"),
            ("replica=file:///r&litestream=1", "unknown parameter 'litestream'; known are replica, "),
            ("replica=file:///r&litestreamFoo=1", "unknown parameter 'litestreamFoo'; known are replica, "),
            ("replica=file:///r&role=writer", "role: 'writer' is none of primary, replica"),
            ("replica=file:///r&sync_interval=0", "sync_interval: '0' is not within 10ms and 1h"),
            ("replica=file:///r&sync_interval=fast", "sync_interval: 'fast' is not a duration"),
            ("replica=file:///r&cache_size=1kb", "cache_size: '1kb' is not within 1MiB and 1TiB"),
            ("replica=file:///r&sync_interval=1s&sync-interval=2s", "'sync_interval' is given twice"),
            ("replica=file:///r&replica_url=file:///r", "'replica' and 'replica_url' are both given"),
            ("replica=", "replica: the value is empty"),
            ("replica=file:///r&immutable=1", "immutable=1 switches off the locks"),
            ("replica=file:///r&nolock=yes", "nolock=yes switches off the locks"),
            ("replica=file:///r&asof=noon", "asof: 'noon' is not a point in time"),
            ("replica=file:///r&asof=yesterday", "asof reads a past state of the replica: add mode=ro"),
            ("replica=file:///r&txid=0x2a", "txid reads a past state of the replica: add mode=ro"),
            ("replica=file:///r&mode=ro&role=replica&txid=0x2a&asof=now", "'asof' and 'txid' are both given"),
            ("replica=file:///r&role=replica&timestamp=noon", "timestamp: 'noon' is not a time"),
            ("replica=file:///r&time=now", "unknown parameter 'time'; did you mean 'timestamp'?"),
            ("replica=file:///r&set_time=now", "did you mean 'timestamp'?"),
            ("replica=file:///r&hydration=1", "did you mean 'hydrate'?"),
            ("replica=file:///r&hydration_enabled=1", "did you mean 'hydrate'?"),
            ("replica=file:///r&hydrationFile=x", "did you mean 'hydration_path'?"),
            ("replica=file:///r&poll=1s", "did you mean 'poll_interval'?"),
            ("replica=file:///r&snapshot_every=1h", "did you mean 'snapshot_interval'?"),
        ] {
            let message = refusal(query);
            assert!(message.contains(expected), "{query}: {message}");
        }
    }

    #[test]
    fn a_mistake_in_the_environment_names_the_variable() {
        let env = [("LITESTREAM_SYNC_INTERVAL", "fast")];
        let message = open("replica=file:///r", false, &env).unwrap_err().to_string();
        assert!(message.starts_with("LITESTREAM_SYNC_INTERVAL: 'fast' is not a duration"), "{message}");
        // It does not hinder an open that has no use for it.
        assert_eq!(decided("replica=file:///r", true, &env), "replica /r");
    }

    #[test]
    fn each_of_several_replicas_has_settings_of_its_own() {
        let query = [
            ("replica", "s3://b/app?endpoint=http://one:1&sync-interval=5s&part-size=16777216"),
            ("replica", "file:///x?snapshotRetention=720h"),
            ("replica", "s3://b/app?spool_limit=2MiB"),
            ("sync_interval", "2s"),
            ("endpoint", "http://two:2"),
            ("sync_replicas", "2"),
        ];
        let query: Vec<(String, String)> = query.map(|(k, v)| (k.to_owned(), v.to_owned())).to_vec();
        let path = Some(Path::new("/data/app.db"));
        let Config::Primary(c) = resolve(path, &query, false, &[]).unwrap() else { panic!("not a primary") };
        let of = |at: usize| &c.replicas[at].options;
        let seconds = |at: usize| of(at).sync_interval.as_secs();
        assert_eq!((seconds(0), seconds(1), seconds(2)), (5, 2, 2));
        assert_eq!((of(0).spool_limit, of(2).spool_limit), (1 << 30, 2 << 20));
        assert_eq!(of(0).history.named.snapshot_retention, None);
        assert_eq!(of(1).history.named.snapshot_retention, Some(Duration::from_secs(720 * 3600)));
        assert_eq!(of(1).named, ["sync_interval", "snapshot_retention"]);
        assert_eq!(c.options.sync_replicas, primary::SyncReplicas::AtLeast(2));
        let place = |at: usize| ReplicaIdentity::from(&c.replicas[at].target).to_string();
        let places = ["s3://b/app, endpoint=http://one:1", "file:///x", "s3://b/app, endpoint=http://two:2"];
        assert_eq!([place(0), place(1), place(2)], places);
        // The same URI reads any of them.
        let Config::Replica(c) = resolve(path, &query, true, &[]).unwrap() else { panic!("not a replica") };
        assert_eq!(c.targets.len(), 3);
    }

    #[test]
    fn a_sync_waits_for_no_more_replicas_than_there_are() {
        let asked = |text: &str| {
            let query = format!("replica=file:///a&replica=file:///b&sync_replicas={text}");
            match open(&query, false, &[]) {
                Ok(Config::Primary(c)) => Ok(c.options.sync_replicas),
                Ok(Config::Replica(_)) => panic!("not a primary"),
                Err(e) => Err(e.to_string()),
            }
        };
        assert_eq!(asked("all"), Ok(primary::SyncReplicas::All));
        assert_eq!(asked("Any"), Ok(primary::SyncReplicas::AtLeast(1)));
        assert_eq!(asked("2"), Ok(primary::SyncReplicas::AtLeast(2)));
        for (text, expected) in [
            ("3", "sync_replicas: '3' is more than there are: this database has 2 replicas"),
            ("0", "sync_replicas: '0' is none of all, any, or a number of replicas from 1"),
            ("most", "sync_replicas: 'most' is none of all, any, or a number of replicas from 1"),
        ] {
            assert_eq!(asked(text), Err(expected.to_owned()));
        }
        assert!(refusal("replica=s3://b/a&replica=s3://b/a/").contains("s3://b/a is given twice"));
        let many: Vec<String> = (0..9).map(|n| format!("replica=file:///r{n}")).collect();
        assert!(refusal(&many.join("&")).contains("has 8 at most"));
    }

    #[test]
    fn a_commit_waits_for_no_more_replicas_than_there_are() {
        let asked = |text: &str| {
            let query = format!("replica=file:///a&replica=file:///b&commit={text}&commit_timeout=3s");
            match open(&query, false, &[]) {
                Ok(Config::Primary(c)) => Ok((c.commit.to_string(), c.commit_timeout.as_secs())),
                Ok(Config::Replica(_)) => panic!("not a primary"),
                Err(e) => Err(e.to_string()),
            }
        };
        for text in ["local", "replicated", "1", "2"] {
            assert_eq!(asked(text), Ok((text.to_owned(), 3)));
            assert_eq!(commit_mode(text, 2).unwrap().to_string(), text);
        }
        for (text, expected) in [
            ("3", "'3' is more than there are: this database has 2 replicas"),
            ("0", "'0' is none of local, replicated, or a number of replicas from 1"),
            ("on", "'on' is none of local, replicated, or a number of replicas from 1"),
        ] {
            assert_eq!(asked(text), Err(format!("commit: {expected}")));
            assert_eq!(commit_mode(text, 2).map_err(|e| e.to_string()), Err(expected.to_owned()));
        }
    }

    #[test]
    fn a_primary_must_be_a_writable_file() {
        let message = open("role=primary&replica=file:///r", true, &[]).unwrap_err().to_string();
        assert!(message.contains("mode=ro"), "{message}");
        let nameless = resolve(None, &params("replica=file:///r"), false, &[]).unwrap_err().to_string();
        assert!(nameless.contains("file:app.db"), "{nameless}");
        assert!(resolve(None, &params("replica=file:///r"), true, &[]).is_ok());
    }
}
