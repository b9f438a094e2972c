//! What an open of a database gets.

use std::path::{Path, PathBuf};

use super::given::{Found, Given, Unknown};
use super::options::ReplicaOptions;
use super::settings::Scope;
use super::{Env, Params, value};
use crate::error::{Error, Result};
use crate::primary;
use crate::store::Target;

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
    /// Where the replica is.
    pub target: Target,
    /// The database file.
    pub path: PathBuf,
    /// How it behaves.
    pub options: primary::Options,
}

/// What a replica needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaConfig {
    /// Where the replica is.
    pub target: Target,
    /// How it behaves.
    pub options: ReplicaOptions,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Primary,
    Replica,
}

/// The replica URL and where it was found.
enum Url {
    /// `replica=` in the URI.
    Ours(Found),
    /// `replica_url=` in the URI or the environment, as for Litestream's own extension, which reads.
    Litestreams(Found),
}

/// Decides what an open of the database file `path` gets.
///
/// The role, first match wins:
/// 1. `role=` in the URI.
/// 2. Opened read-only, and a replica URL is known: replica.
/// 3. `replica=` in the URI: primary.
/// 4. `replica_url=` in the URI, or `LITESTREAM_REPLICA_URL`: replica.
/// 5. No replica URL: an error.
///
/// A setting of the other role is checked and has no effect, so that one URI, with `mode=ro` added,
/// opens as a replica what it opens as a primary.
///
/// # Errors
/// `Config`, with a message that names the parameter and the remedy.
pub fn resolve(path: Option<&Path>, params: &dyn Params, read_only: bool, env: &dyn Env) -> Result<Config> {
    let scopes = [Scope::Open, Scope::Primary, Scope::Replica, Scope::Store];
    let given = Given::read(params, env, &scopes, Unknown::Ignored)?;
    let url = url(&given)?.ok_or_else(|| no_url(path))?;
    let role = role(&given, read_only, &url)?;
    let (Url::Ours(url) | Url::Litestreams(url)) = url;
    let target = Target::parse(&url.text, &|name| given.store(name)).map_err(|e| e.context(url.origin))?;
    match role {
        Role::Primary => primary(path, params, &given, target).map(Config::Primary),
        Role::Replica => replica(&given, target).map(Config::Replica),
    }
}

fn url(given: &Given<'_>) -> Result<Option<Url>> {
    match (given.param("replica"), given.param("replica_url")) {
        (Some(_), Some(_)) => Err(Error::config("'replica' and 'replica_url' are both given; keep one")),
        (Some(ours), None) => Ok(Some(Url::Ours(ours))),
        (None, Some(theirs)) => Ok(Some(Url::Litestreams(theirs))),
        (None, None) => Ok(given.env("replica_url").map(Url::Litestreams)),
    }
}

fn no_url(path: Option<&Path>) -> Error {
    let name = path.and_then(Path::file_name).map_or("this database".into(), |n| n.to_string_lossy());
    Error::config(format!(
        "no replica URL for {name}: add &replica=s3://bucket/path to the URI, or set \
         LITESTREAM_REPLICA_URL; to open it without replication use vfs=unix"
    ))
}

fn role(given: &Given<'_>, read_only: bool, url: &Url) -> Result<Role> {
    match (given.word("role")?, url) {
        (Some("primary"), _) if read_only => Err(Error::config(
            "role=primary writes, but the database is opened read-only: remove mode=ro, or use role=replica",
        )),
        (Some("primary"), _) => Ok(Role::Primary),
        (Some(_), _) => Ok(Role::Replica),
        (None, _) if read_only => Ok(Role::Replica),
        (None, Url::Ours(_)) => Ok(Role::Primary),
        (None, Url::Litestreams(_)) => Ok(Role::Replica),
    }
}

fn primary(
    path: Option<&Path>,
    params: &dyn Params,
    given: &Given<'_>,
    target: Target,
) -> Result<PrimaryConfig> {
    let path = path.ok_or_else(|| {
        Error::config("a primary is a file: give the database a name, such as file:app.db?vfs=litestream")
    })?;
    refuse_lockless(params)?;
    let options = primary::Options {
        sync_interval: given.duration("sync_interval")?,
        close_timeout: given.duration("close_timeout")?,
    };
    Ok(PrimaryConfig { target, path: path.to_owned(), options })
}

/// Refuses parameters that switch off the locks that WAL mode, and so replication, relies on.
fn refuse_lockless(params: &dyn Params) -> Result<()> {
    for (key, text) in params.pairs() {
        if matches!(key.as_str(), "immutable" | "nolock") && value::flag(&text).unwrap_or(false) {
            return Err(Error::config(format!(
                "{key}={text} switches off the locks that replication relies on: remove it from the URI"
            )));
        }
    }
    Ok(())
}

fn replica(given: &Given<'_>, target: Target) -> Result<ReplicaConfig> {
    let options = ReplicaOptions {
        open_timeout: given.duration("open_timeout")?,
        poll_interval: given.duration("poll_interval")?,
        cache_size: given.size("cache_size")?,
    };
    Ok(ReplicaConfig { target, options })
}
