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
use std::time::Duration;

use tokio::time::Instant;

use crate::error::{Error, ErrorKind, Result};
use crate::files;
use crate::ltx::Txid;
use crate::primary::context::Forwarding;
use crate::primary::options::Rewound;
use crate::primary::shipper::Shipper;
use crate::primary::shipper::long_blocking;
use crate::primary::shipper::sums::Sums;
use crate::primary::shipper::survey::Survey;
use crate::primary::shipper::{misfit, newest};
use crate::restore;
use crate::runtime;

/// The restored database, until it is copied.
const RESTORED: &str = "forward.db";

/// How long views of other shippers may be in the way.
const PATIENCE: Duration = Duration::from_secs(5);
/// The time from one look to the next at what another shipper does.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Brings the database, which is `txid` and looks as `survey` says, to the newest transaction of the
/// replica; returns that. `None` if another replica brought it forward meanwhile: then it is another database.
///
/// # Errors
/// `Conflict` if that must not be, or not now; those of a restore, after which nothing is changed.
pub(in crate::primary) async fn bring_forward(
    shipper: &Arc<Shipper>,
    survey: &Arc<Survey>,
    txid: Txid,
) -> Result<Option<Txid>> {
    if shipper.options.rewound == Rewound::Stop {
        return Err(refused(shipper, txid, "the setting rewound=stop says so").await);
    }
    if let Some(e) = cannot_open(shipper, txid).await? {
        return Err(refused(shipper, txid, &e.to_string()).await);
    }
    let forwards = shipper.db.bell.forwards();
    match shipper.db.bell.begin_forwarding() {
        Forwarding::Begun => {}
        Forwarding::ByAnother => {
            while shipper.db.bell.forwards() == forwards {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            return Ok(None);
        }
        Forwarding::TooLate => {
            let why =
                "programs have it open; it will be when all connections were closed and it is opened again";
            return Err(refused(shipper, txid, why).await);
        }
    }
    let survey = Arc::clone(survey);
    let done = long_blocking(shipper, move |shipper| {
        // Whoever is killed now must know again what the database was.
        Sums::of(shipper).note(txid, &survey.known.digest());
        restore_and_copy(shipper, &survey)
    })
    .await;
    shipper.db.bell.end_forwarding();
    match done {
        // Damage is not mended by another attempt, before which programs would read what the database is.
        Err(e) if matches!(e.kind(), ErrorKind::Busy | ErrorKind::Corrupt | ErrorKind::NotFound) => {
            Err(refused(shipper, txid, &e.to_string()).await)
        }
        other => other.map(Some),
    }
}

/// Why the newest file cannot be restored here: it is sealed, and no identity is given.
async fn cannot_open(shipper: &Shipper, txid: Txid) -> Result<Option<Error>> {
    let store = shipper.store.as_ref();
    let Some(newest) = newest::newest(store, Some(txid)).await? else { return Ok(None) };
    let header = newest::read_header(store, newest.id).await?;
    Ok(store.keyring().may_open(&header).err())
}

async fn refused(shipper: &Shipper, txid: Txid, why: &str) -> Error {
    let store = shipper.store.as_ref();
    match newest::newest(store, Some(txid)).await {
        Ok(newest) => {
            let last = newest.map_or(txid, |newest| newest.id.name.max());
            misfit::earlier(store, txid, last, why)
        }
        Err(e) => e,
    }
}

fn restore_and_copy(shipper: &Shipper, survey: &Survey) -> Result<Txid> {
    let path = shipper.folder.join(RESTORED);
    // A process that was killed may have left it.
    let _ = fs::remove_file(&path);
    let options = restore::Options::default();
    let copied = restore::restore(Arc::clone(&shipper.store), &path, &options).and_then(|report| {
        let without_txid = || Error::new(ErrorKind::Unsupported, "the replica counts no transactions");
        let last = report.txid.ok_or_else(without_txid)?;
        files::as_in_folder(&path);
        be_without_wal(&path)?;
        overwrite(shipper, survey, &path)?;
        Ok(last)
    });
    let _ = fs::remove_file(&path);
    copied
}

/// Overwrites the database, which still looks as `survey` says, by that at `path`. Shippers of other replicas may be looking
/// at it.
fn overwrite(shipper: &Shipper, survey: &Survey, path: &Path) -> Result<()> {
    let deadline = Instant::now() + if shipper.db.commits.has_several() { PATIENCE } else { Duration::ZERO };
    loop {
        match shipper.db.host()?.overwrite(path, &|| survey.is_current(shipper)) {
            Err(e)
                if e.kind() == ErrorKind::Busy && survey.is_current(shipper) && Instant::now() < deadline =>
            {
                runtime::nap(LOOK_AGAIN);
            }
            overwritten => return overwritten,
        }
    }
}

/// Makes a restored database one with a rollback journal, so that to read it needs no WAL.
fn be_without_wal(path: &Path) -> Result<()> {
    let file = OpenOptions::new().write(true).open(path);
    // The versions of the file format that a writer and a reader must know.
    file.and_then(|file| file.write_all_at(&[1, 1], 18))
        .map_err(|e| Error::io(format_args!("cannot write {}", path.display()), e))
}
