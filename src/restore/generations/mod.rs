//! Replicas that Litestream 0.3 wrote.
//!
//! ```text
//! generations/{16 hex}/snapshots/{index: 8 hex}.snapshot.lz4       the database file
//! generations/{16 hex}/wal/{index: 8 hex}_{offset: 8 hex}.wal.lz4  a piece of the WAL file
//! ```
//! A generation is an unbroken history. Within it each WAL file, from its beginning to the checkpoint
//! after which SQLite restarts it, has an index, and its pieces have their offset in it. A snapshot of
//! index n is what the WAL files from n on continue. Objects are LZ4 frames, or those encrypted with
//! age; when one was stored tells up to when its content goes.
//!
//! Source: `v3.go` of `github.com/benbjohnson/litestream` for the names; what its version 0.3.13 writes
//! and restores for the rest.
//!
//! | file | what it does |
//! | --- | --- |
//! | `name` | paths |
//! | `backup` | which objects make the database at a point |
//! | `objects` | objects one after the other, fetched ahead |
//! | `content` | their content: decrypted, decompressed |
//! | `age` | the encryption |
//! | `apply` | snapshot and WAL files become pages |

mod age;
mod apply;
mod backup;
mod content;
mod name;
mod objects;
#[cfg(test)]
mod tests;

use super::{Forecast, RestorePoint};
use crate::error::{Error, ErrorKind, Result};
use crate::replica::{Plan, only_old};
use crate::store::Replica;

pub(super) use apply::{Applied, apply};
pub(super) use backup::Backup;
use backup::Generations;

/// Where all of it is, below the replica's root.
const FOLDER: &str = "generations";

/// What a database is restored from.
#[derive(Debug)]
pub(super) enum Chosen {
    /// LTX files.
    Ltx(Plan),
    /// A snapshot and WAL files of Litestream 0.3.
    Old(Backup),
}

/// Chooses between `planned`, what the LTX files make, and what Litestream 0.3 has left: as Litestream
/// 0.5.7 and later, what was written last, of what is not later than the point in time. Only LTX files
/// have TXIDs.
///
/// # Errors
/// Those of `planned`, if nothing else reaches the point or that cannot be told; those of the store.
pub(super) async fn choose(store: &Replica, point: RestorePoint, planned: Result<Plan>) -> Result<Chosen> {
    let needs_old = matches!(&planned, Err(e) if e.kind() == ErrorKind::NotFound);
    if matches!(point, RestorePoint::Txid(_)) || (planned.is_err() && !needs_old) {
        return match planned {
            Err(e) if needs_old => Err(only_old(store).await.unwrap_or(e)),
            planned => planned.map(Chosen::Ltx),
        };
    }
    let generations = match (find(store).await, &planned) {
        (Ok(generations), _) => generations,
        // What is wrong with today's format says more than that the old one is not to be read either. And who
        // may read only today's files has no others.
        (Err(e), planned) if planned.is_err() || e.kind() == ErrorKind::Denied => {
            tracing::debug!("{}: {e}", store.url());
            Generations::default()
        }
        (Err(e), _) => return Err(e),
    };
    let backup = generations.backup(point);
    match (planned, backup) {
        (Ok(plan), Some(backup)) if backup.last() > plan.last().timestamp => Ok(Chosen::Old(backup)),
        (Ok(plan), _) => Ok(Chosen::Ltx(plan)),
        (Err(e), Some(backup)) if e.kind() == ErrorKind::NotFound => Ok(Chosen::Old(backup)),
        (Err(e), None) if e.kind() == ErrorKind::NotFound => Err(generations.not_covered().unwrap_or(e)),
        (Err(e), _) => Err(e),
    }
}

/// Whether Litestream 0.3 has left anything.
///
/// # Errors
/// Those of the store.
pub(super) async fn exist(store: &Replica) -> Result<bool> {
    Ok(!find(store).await?.is_empty())
}

async fn find(store: &Replica) -> Result<Generations> {
    Ok(Generations::of(store.list_raw(FOLDER).await?))
}

/// What cannot be restored because of what is in the replica.
fn broken(what: impl std::fmt::Display) -> Error {
    Error::corrupt(format!("the replica, which Litestream 0.3 wrote, is damaged: {what}"))
}
