//! The databases of a connection that are ours.

use std::any::Any;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;

use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::follow::{self, Standing};
use crate::ltx::Txid;
use crate::primary::{CommitWaits, Primary, Status};
use crate::replica::{self, ReplicaStatus, Seen};
use crate::sqlite;
use crate::store::Fencing;

/// A database of a connection, under its schema name.
pub(super) struct Database {
    pub(super) schema: String,
    role: Role,
}

enum Role {
    Primary(Arc<Primary>),
    Replica(Arc<Seen>),
}

impl Role {
    /// The role whose object the VFS gave for a file.
    fn of(object: Arc<dyn Any + Send + Sync>) -> Option<Self> {
        let object = match object.downcast() {
            Ok(primary) => return Some(Self::Primary(primary)),
            Err(object) => object,
        };
        object.downcast().ok().map(Self::Replica)
    }
}

/// What the functions tell of a database. A field is `None` if it is not known or has no meaning for
/// the role.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    pub(super) role: &'static str,
    pub(super) path: Option<PathBuf>,
    /// The replica's URL, without secrets.
    pub(super) url: String,
    pub(super) state: &'static str,
    /// The last transaction in the replica; on a replica, the one that is read.
    pub(super) txid: Option<Txid>,
    /// When that transaction was committed.
    pub(super) time: Option<Timestamp>,
    /// By how much the replica, or what is read of it, may be behind.
    pub(super) lag: Option<Duration>,
    /// Local files that wait for the replica, and their bytes.
    pub(super) waiting: Option<(usize, u64)>,
    /// How well the store keeps two writers apart.
    pub(super) fencing: Option<&'static str>,
    /// The first transaction that is sealed, and to whom.
    pub(super) sealed: Option<(Txid, String)>,
    pub(super) page_size: Option<u32>,
    pub(super) pages: Option<u32>,
    /// Bytes of the page cache.
    pub(super) cache_bytes: Option<usize>,
    /// Requests made since the open.
    pub(super) requests: Option<u64>,
    /// How many LTX files make the state that is read, and how many of them are sealed.
    pub(super) files: Option<(usize, usize)>,
    /// The last transaction that is proven restorable, and when that was proven.
    pub(super) verified: Option<(Txid, Timestamp)>,
    /// How many commits waited for replicas, and how long.
    pub(super) waits: Option<CommitWaits>,
    /// How many of them each upload took along.
    pub(super) commits_per_upload: Option<f64>,
    /// What was found and repaired last.
    pub(super) notice: Option<String>,
    pub(super) last_error: Option<String>,
}

impl Database {
    /// The primary, if it is one.
    pub(super) fn primary(&self) -> Option<&Primary> {
        match &self.role {
            Role::Primary(primary) => Some(primary),
            Role::Replica(_) => None,
        }
    }

    /// What the connection sees of the replica, if it is one.
    pub(super) fn seen(&self) -> Option<&Seen> {
        match &self.role {
            Role::Primary(_) => None,
            Role::Replica(seen) => Some(seen),
        }
    }

    /// Status of each of its replicas: at least one row.
    pub(super) fn facts(&self) -> Vec<Facts> {
        match &self.role {
            Role::Primary(primary) => of_primary(primary),
            Role::Replica(seen) => vec![of_replica(seen.status(), seen.is_past())],
        }
    }
}

fn of_primary(primary: &Primary) -> Vec<Facts> {
    primary.status().into_iter().map(of_status).collect()
}

fn of_status(status: Status) -> Facts {
    Facts {
        role: "primary",
        path: Some(status.path),
        url: status.url,
        state: status.phase.name(),
        txid: status.txid,
        time: status.time,
        lag: Some(status.lag),
        waiting: Some((status.waiting_files, status.waiting_bytes)),
        fencing: Some(match status.fencing {
            Fencing::Atomic => "atomic",
            Fencing::Unproven => "unproven",
            Fencing::LookFirst => "look first",
        }),
        sealed: status.sealed,
        verified: status.verified,
        waits: status.waits,
        commits_per_upload: status.commits_per_upload,
        notice: status.notice,
        last_error: status.error.map(|e| e.to_string()),
        ..Facts::default()
    }
}

fn of_replica(status: ReplicaStatus, is_past: bool) -> Facts {
    let lag = status.age();
    Facts {
        role: "replica",
        url: status.url,
        state: match (is_past, &status.last_error) {
            (true, _) => "past",
            (false, None) => "following",
            (false, Some(_)) => "retrying",
        },
        txid: Some(status.txid),
        time: Some(status.timestamp),
        lag: Some(lag),
        page_size: Some(status.page_size),
        pages: Some(status.pages.get()),
        cache_bytes: Some(status.cache_bytes),
        requests: Some(status.requests),
        files: Some((status.files, status.sealed_files)),
        notice: status.notice.or(status.hydration.as_ref().and_then(|hydration| hydration.notice.clone())),
        last_error: status
            .last_error
            .or(status.last_read_error.map(|(_, error)| error))
            .or(status.hydration.and_then(|hydration| hydration.error)),
        ..Facts::default()
    }
}

fn of_copy(standing: Standing) -> Facts {
    let lag = standing.lag();
    Facts {
        role: "copy",
        path: Some(standing.path),
        url: standing.url,
        state: standing.phase.name(),
        txid: Some(standing.txid),
        time: Some(standing.time),
        lag: Some(lag),
        page_size: Some(standing.page_size),
        pages: Some(standing.pages.get()),
        requests: Some(standing.requests),
        notice: standing.notice,
        last_error: standing.error.map(|e| e.to_string()),
        ..Facts::default()
    }
}

/// Every database that connections of this process have open: primaries by path, a row for each replica, then replicas by URL, which are
/// shown as who follows them sees them, then copies that follow by path.
pub(super) fn all() -> Vec<Facts> {
    let primaries = Primary::all();
    let replicas = replica::all();
    let primaries = primaries.iter().flat_map(|primary| of_primary(primary));
    let replicas = replicas.iter().map(|core| of_replica(core.status(), false));
    primaries.chain(replicas).chain(follow::all().into_iter().map(of_copy)).collect()
}

/// The databases of `conn` that are ours: `main` first, then the attached ones in their order.
pub(super) fn find(conn: &Connection) -> Vec<Database> {
    let ours = |(schema, object)| Some(Database { schema, role: Role::of(object)? });
    sqlite::roles(conn).into_iter().filter_map(ours).collect()
}

/// As [`find`], at least one.
///
/// # Errors
/// `Unsupported` if there is none.
pub(super) fn databases(conn: &Connection) -> Result<Vec<Database>> {
    let databases = find(conn);
    if databases.is_empty() {
        return Err(Error::new(
            ErrorKind::Unsupported,
            "this connection has no database opened with vfs=litestream",
        ));
    }
    Ok(databases)
}

/// The databases of `conn` that are ours, none of which has a transaction open that writes: what it writes
/// can be in no replica yet.
///
/// # Errors
/// `Busy` if one has; `Unsupported` if there is none.
pub(super) fn committed(conn: &Connection, function: &str) -> Result<Vec<Database>> {
    let databases = databases(conn)?;
    let is_open =
        |database: &&Database| database.primary().is_some() && sqlite::is_writing(conn, &database.schema);
    match databases.iter().find(is_open) {
        None => Ok(databases),
        Some(database) => Err(Error::new(
            ErrorKind::Busy,
            format!(
                "{function} waits for what is committed, and '{}' has a write transaction open: COMMIT first, \
                 then call it",
                database.schema
            ),
        )),
    }
}

/// The first database of `conn` that is ours.
///
/// # Errors
/// `Unsupported` if there is none.
pub(super) fn first(conn: &Connection) -> Result<Database> {
    databases(conn).map(|mut all| all.swap_remove(0))
}
