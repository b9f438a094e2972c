//! A database that is exactly an earlier transaction of its replica is brought forward to the newest one.
//!
//! The newest state is restored to a file in the folder of local state, with all checksums verified, and
//! copied into the database by SQLite's backup: one transaction, under SQLite's own exclusive lock. A
//! process that dies on the way leaves the database as it was. It happens only while the open of the first
//! connection waits, so that no program has read what it was.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::files;
use crate::ltx::Txid;
use crate::primary::options::Rewound;
use crate::primary::publisher::long_blocking;
use crate::primary::resume;
use crate::primary::shared::Shared;
use crate::primary::state;
use crate::primary::sums::Sums;
use crate::primary::survey::Survey;
use crate::restore;

/// The restored database, until it is copied.
const RESTORED: &str = "forward.db";

/// Brings the database, which is `txid` and looks as `survey` says, to the newest transaction of the
/// replica; returns that.
///
/// # Errors
/// `Conflict` if that must not be, or not now; those of a restore, after which nothing is changed.
pub(super) async fn bring_forward(shared: &Arc<Shared>, survey: &Arc<Survey>, txid: Txid) -> Result<Txid> {
    if shared.options.rewound == Rewound::Stop {
        return Err(refused(shared, txid, "the setting rewound=stop says so").await);
    }
    if !shared.begin_forwarding() {
        let why = "programs have it open; it will be when all connections were closed and it is opened again";
        return Err(refused(shared, txid, why).await);
    }
    let survey = Arc::clone(survey);
    let done = long_blocking(shared, move |shared| {
        // Whoever is killed now must know again what the database was.
        Sums::of(shared).note(txid, &survey.known.digest());
        restore_and_copy(shared, &survey)
    })
    .await;
    shared.end_forwarding();
    match done {
        Err(e) if e.kind() == ErrorKind::Busy => Err(refused(shared, txid, &e.to_string()).await),
        other => other,
    }
}

async fn refused(shared: &Shared, txid: Txid, why: &str) -> Error {
    let store = shared.store.as_ref();
    match resume::newest(store, Some(txid)).await {
        Ok(newest) => {
            let last = newest.map_or(txid, |newest| newest.id.name.max());
            resume::earlier(store, txid, last, why)
        }
        Err(e) => e,
    }
}

fn restore_and_copy(shared: &Shared, survey: &Survey) -> Result<Txid> {
    let path = state::folder(&shared.path).join(RESTORED);
    // A process that was killed may have left it.
    let _ = fs::remove_file(&path);
    let options = restore::Options::default();
    let copied = restore::restore(Arc::clone(&shared.store), &path, &options).and_then(|report| {
        let without_txid = || Error::new(ErrorKind::Unsupported, "the replica counts no transactions");
        let last = report.txid.ok_or_else(without_txid)?;
        files::as_in_folder(&path);
        be_without_wal(&path)?;
        shared.host.overwrite(&path, &|| survey.is_current(shared))?;
        Ok(last)
    });
    let _ = fs::remove_file(&path);
    copied
}

/// Makes a restored database one with a rollback journal, so that to read it needs no WAL.
fn be_without_wal(path: &Path) -> Result<()> {
    let file = OpenOptions::new().write(true).open(path);
    // The versions of the file format that a writer and a reader must know.
    file.and_then(|file| file.write_all_at(&[1, 1], 18))
        .map_err(|e| Error::io(format_args!("cannot write {}", path.display()), e))
}
