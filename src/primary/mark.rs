//! What a restore leaves beside the database that it wrote: the local state of a database that is exactly
//! one transaction of a replica. The next open knows by it which one, as long as nobody writes the file.

use std::fs;
use std::path::Path;

use crate::error::{Error, ErrorKind, Result};
use crate::files;
use crate::ltx::{Lineage, Txid};
use crate::page::PageCount;
use crate::primary::ownership::{PublisherLock, forget_older_version};
use crate::primary::shipper::ReplicaId;
use crate::primary::shipper::state::{Origin, State};
use crate::primary::shipper::sums::Sums;
use crate::store::{Location, ReplicaIdentity};

/// What a database was restored to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restored {
    /// The newest state.
    Newest,
    /// An earlier time or transaction, to look at it.
    Earlier,
    /// An earlier time or transaction, which is to become the present.
    Present,
}

/// The last transaction that the folder of local state knows to be in the replica at `target`: nothing is asked and nothing
/// changed. `None` if the database was never published there.
pub fn last_published(state_folder: &Path, target: &Location) -> Option<Txid> {
    let folder = ReplicaId::of(&ReplicaIdentity::from(target)).folder(state_folder);
    State::read(&folder)?.txid.and_then(Txid::new)
}

/// Marks the database file `path`, which was just restored from the replica at `target`, whose store calls itself `url`, and
/// is `txid` of it, in the history `lineage` as far as that is known. It has `pages`.
///
/// # Errors
/// Those of the folder of local state. The next open of a database without a mark compares all its pages.
pub fn mark(
    path: &Path,
    (target, url): (&Location, &str),
    txid: Txid,
    lineage: Option<Lineage>,
    pages: PageCount,
    restored: Restored,
) -> Result<()> {
    let path = fs::canonicalize(path).map_err(|e| Error::io(path.display(), e))?;
    let folder = files::state_folder(&path);
    // A primary that has the database open already knows more.
    let Some(_lock) = PublisherLock::take_from_lingerer(&folder)? else {
        let message = format!("{} is open as a primary already", path.display());
        return Err(Error::new(ErrorKind::Busy, message));
    };
    let origin = match restored {
        Restored::Newest => Origin::Restored,
        Restored::Earlier => Origin::Rewound,
        Restored::Present => Origin::Present,
    };
    forget_older_version(&folder);
    let folder = ReplicaId::of(&ReplicaIdentity::from(target)).folder(&folder);
    Sums::new(&folder, url).forget();
    State::restored(url, txid, lineage, origin, (&path, pages)).save(&folder)
}
