//! The folder that a replica is in: which one it was, `.<file name>-litestream/place.json`. An empty folder in its
//! place is the mount point of a disk that is not there, and no replica that lost its files.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::files;
use crate::ltx::{Header, Txid};
use crate::primary::shipper::{Shipper, newest};
use crate::store::{Place, Replica, stored_url};

const NAME: &str = "place.json";

#[derive(Serialize, Deserialize)]
struct Stored {
    #[serde(with = "stored_url")]
    url: String,
    place: Place,
}

/// Where the replica was when it was last found whole.
#[derive(Debug)]
pub(in crate::primary) struct Places {
    path: PathBuf,
    known: Mutex<Option<Place>>,
}

/// What became of the place of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::primary) enum Whereabouts {
    /// It is where it was, or the store has no places.
    There,
    /// Nobody knows where it was.
    Unknown,
    /// Its folder is gone, and the folder around it is not.
    Removed,
    /// Another folder is in its place.
    Elsewhere,
}

impl Places {
    /// Those that are remembered in the folder of local state.
    pub(in crate::primary) fn new(folder: &Path) -> Self {
        Self { path: folder.join(NAME), known: Mutex::default() }
    }

    fn known(&self) -> MutexGuard<'_, Option<Place>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes up what another process remembered, and nothing else: an earlier open of this one may have been of a database
    /// and a replica that were removed since.
    pub(in crate::primary) fn load(&self, store: &Replica) {
        let stored = fs::read(&self.path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let known = stored.filter(|stored: &Stored| stored.url == store.url()).map(|stored| stored.place);
        if known.is_none() {
            store.stay_at(None);
        }
        *self.known() = known;
    }

    fn save(&self, store: &Replica, place: Place) {
        *self.known() = Some(place);
        store.stay_at(Some(place));
        let bytes = serde_json::to_vec(&Stored { url: store.url(), place }).expect("BUG: it is plain data");
        let temporary = self.path.with_extension("json.tmp");
        let written = files::write(&temporary, &bytes).and_then(|()| fs::rename(&temporary, &self.path));
        if let Err(e) = written {
            tracing::debug!("cannot write {}: {e}", self.path.display());
        }
    }
}

/// Where the replica is now, compared with where it was.
pub(in crate::primary) async fn find(shipper: &Shipper) -> Whereabouts {
    let Some(now) = shipper.store.place().await else { return Whereabouts::There };
    match *shipper.places.known() {
        None => Whereabouts::Unknown,
        Some(known) if known.folder == now.folder => Whereabouts::There,
        Some(known) if now.folder.is_none() && known.parent == now.parent => Whereabouts::Removed,
        Some(_) => Whereabouts::Elsewhere,
    }
}

/// Remembers where the replica is now: it is whole there.
pub(in crate::primary) async fn learn(shipper: &Shipper) {
    let Some(now) = shipper.store.place().await.filter(|now| now.folder.is_some()) else { return };
    shipper.places.save(shipper.store.as_ref(), now);
}

/// Looks whether the folder that took the replica's place holds the history that was published up to `last`, as one does that
/// was moved.
///
/// # Errors
/// `Conflict` if it holds another one; those of the store.
pub(in crate::primary) async fn check_history(shipper: &Shipper, last: Txid) -> Result<()> {
    let store = shipper.store.as_ref();
    match newest::newest(store, Some(last)).await? {
        Some(file) => check_history_of(shipper, &newest::read_header(store, file.id).await?),
        None => Ok(()),
    }
}

/// As [`check_history`], of a folder whose last file has the header `newest`.
///
/// # Errors
/// `Conflict` if it holds another history; `Interrupted` after the last close.
pub(in crate::primary) fn check_history_of(shipper: &Shipper, newest: &Header) -> Result<()> {
    let store = shipper.store.as_ref();
    let (lineage, node_id) =
        shipper.with_capture(|capture| (capture.known_lineage(&store.url()), capture.node_id()))?;
    let is_ours = match newest.lineage {
        None => newest.node_id == node_id,
        found => found == lineage,
    };
    if is_ours { Ok(()) } else { Err(conflict(store, "it holds another history")) }
}

/// Forgets where the replica was: its folder may be made again.
pub(in crate::primary) fn forget(shipper: &Shipper) {
    *shipper.places.known() = None;
    shipper.store.stay_at(None);
}

/// The error of a replica whose place another folder has taken; `found` is what is wrong with that.
pub(in crate::primary) fn conflict(store: &Replica, found: &str) -> Error {
    let url = store.url();
    Error::new(
        ErrorKind::Conflict,
        format!(
            "{url} is not the folder that it was, and {found}: is its disk not mounted? Nothing is written there. \
             Mount the disk and call litestream_resume(), or call litestream_resume('force') to publish the local \
             database to the folder that is there now"
        ),
    )
}
