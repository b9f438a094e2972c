//! What the replica holds when a primary begins, and whether it may go on from there.

use futures_util::{StreamExt, future};

use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::ltx::{FileId, FileName, Header, Level, Lineage, Txid};
use crate::page::PageSize;
use crate::store::{ByteRange, FileInfo, Store};

/// The number of snapshots whose headers are looked at for a lineage.
const SNAPSHOTS: usize = 4;

/// What is known locally.
#[derive(Clone, Copy, Debug)]
pub(super) struct Local {
    /// The last transaction that we know to be in the replica.
    pub(super) txid: Option<Txid>,
    /// The history that the replica was of when we published to it.
    pub(super) lineage: Option<Lineage>,
    /// Tells our files from another writer's.
    pub(super) node_id: u64,
    /// The page size, if the database has pages.
    pub(super) page_size: Option<PageSize>,
    /// The database had no pages when it was opened.
    pub(super) was_empty: bool,
    /// Somebody decided to go on after whatever the replica holds.
    pub(super) forced: bool,
    /// What was written here before this process is all there: the machine has not gone down since.
    pub(super) same_boot: bool,
}

/// From where a primary goes on.
#[derive(Clone, Debug)]
pub(super) struct Resumed {
    /// The last transaction in the replica.
    pub(super) last: Option<Txid>,
    /// The history that the replica is of, as far as the newest files and local state say so.
    pub(super) lineage: Option<Lineage>,
    /// The replica may hold commits of ours that the local database has lost.
    pub(super) is_ahead: bool,
    /// When that was committed.
    pub(super) time: Option<Timestamp>,
    /// Local state knows nothing of the replica: the file to compare with the database, if there is one.
    pub(super) stranger: Option<FileInfo>,
}

impl Resumed {
    const fn after(last: Option<Txid>) -> Self {
        Self { last, lineage: None, is_ahead: false, time: None, stranger: None }
    }
}

/// Looks at the replica and finds from where we may go on.
///
/// # Errors
/// `Conflict` if going on would bury what somebody else wrote; those of the store.
pub(super) async fn resume(store: &dyn Store, local: Local) -> Result<Resumed> {
    let Some(newest) = newest(store, local.txid).await? else {
        return match local.txid.filter(|_| !local.forced) {
            None => Ok(Resumed::after(None)),
            Some(txid) => Err(wiped(store, &format!("it is empty, but {txid} was published to it"))),
        };
    };
    let last = newest.id.name.max();
    if local.was_empty && !local.forced {
        return Err(buried(store, last));
    }
    let header = read_header(store, newest.id).await?;
    if let Some(page_size) = local.page_size
        && header.page_size != page_size
    {
        return Err(Error::new(
            ErrorKind::Conflict,
            format!(
                "{} holds a database of page size {}, the local one has {page_size}: give another replica URL",
                store.url(),
                header.page_size
            ),
        ));
    }
    let is_another_history = Lineage::with(local.lineage, &header).is_err();
    let lineage = match header.lineage.or(local.lineage) {
        None => lineage_of_snapshots(store).await?,
        known => known,
    };
    let found = Resumed { lineage, time: Some(header.timestamp), ..Resumed::after(Some(last)) };
    match local.txid {
        _ if local.forced => Ok(Resumed { is_ahead: true, ..found }),
        Some(txid) if last < txid => {
            Err(wiped(store, &format!("it ends at {last}, but {txid} was published to it")))
        }
        Some(txid) if last > txid && header.node_id != local.node_id => Err(Error::new(
            ErrorKind::Conflict,
            format!(
                "{} is ahead of this database: it ends at {last}, we published up to {txid}. Another \
                 primary writes to it: stop one of the two, or give another replica URL; if this \
                 database is the right one, {FORCE}",
                store.url()
            ),
        )),
        _ if is_another_history => Err(another_history(store, &local, &header)),
        // One file may have landed whose answer a killed process did not live to see.
        Some(txid) if last > txid => {
            let explained = last == txid.next() && local.same_boot;
            Ok(Resumed { is_ahead: !explained, ..found })
        }
        Some(_) => Ok(found),
        // This process, or one before it that died before it could note what it had sent.
        None if header.node_id == local.node_id => Ok(found),
        None => Ok(Resumed { stranger: Some(newest), ..found }),
    }
}

/// The error of a database that its replica seems to be no copy of.
pub(super) fn another(store: &dyn Store, last: Txid) -> Error {
    Error::new(
        ErrorKind::Conflict,
        format!(
            "{} holds another database, up to {last}: no page that was compared is in the local one. Give \
             another replica URL; if it is an older state of this database, {FORCE}",
            store.url()
        ),
    )
}

fn another_history(store: &dyn Store, local: &Local, newest: &Header) -> Error {
    let lineage = |lineage: Option<Lineage>| lineage.map(|lineage| lineage.to_string()).unwrap_or_default();
    let (url, last) = (store.url(), newest.max);
    let (ours, theirs) = (lineage(local.lineage), lineage(newest.lineage));
    Error::new(
        ErrorKind::Conflict,
        format!(
            "{url} holds another history, up to {last}: its newest file is of lineage {theirs}, we published lineage \
             {ours}. Files of another replica were copied over it, or it was begun again: bring its content back \
             and call litestream_resume(), or give another replica URL, or {FORCE}"
        ),
    )
}

/// What an operator can do who knows better.
const FORCE: &str = "call litestream_resume('force') to publish the local database after it";

fn buried(store: &dyn Store, last: Txid) -> Error {
    let url = store.url();
    Error::new(
        ErrorKind::Conflict,
        format!(
            "{url} holds a database up to {last}, but the local one is new and empty: restore first \
             (select litestream_restore('{url}', path)), or give another replica URL; or {FORCE}"
        ),
    )
}

fn wiped(store: &dyn Store, found: &str) -> Error {
    Error::new(
        ErrorKind::Conflict,
        format!(
            "{} lost transactions: {found}. Bring its content back and call litestream_resume(), or \
             give another replica URL, or {FORCE}",
            store.url()
        ),
    )
}

/// Files that hold much of the database: the newest full copy, and the largest file.
///
/// # Errors
/// Those of the store.
pub(super) async fn full_files(store: &dyn Store) -> Result<Vec<FileInfo>> {
    let levels = future::try_join_all(Level::all().map(|level| store.list(level, Txid::ONE))).await?;
    let files: Vec<FileInfo> = levels.into_iter().flatten().collect();
    let copies = files.iter().filter(|file| file.id.name.min() == Txid::ONE);
    let copy = copies.max_by_key(|file| file.id.name.max());
    let largest = files.iter().max_by_key(|file| file.size);
    Ok([copy, largest].into_iter().flatten().cloned().collect())
}

/// The history that the newest snapshot which carries one belongs to: a writer that knows no lineages may have continued
/// the replica since.
async fn lineage_of_snapshots(store: &dyn Store) -> Result<Option<Lineage>> {
    let mut snapshots = store.list(Level::SNAPSHOT, Txid::ONE).await?;
    snapshots.sort_unstable_by_key(|file| file.id.name.max());
    for file in snapshots.iter().rev().take(SNAPSHOTS) {
        match read_header(store, file.id).await {
            Ok(Header { lineage: Some(lineage), .. }) => return Ok(Some(lineage)),
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    Ok(None)
}

/// The file with the last transaction.
async fn newest(store: &dyn Store, known: Option<Txid>) -> Result<Option<FileInfo>> {
    if let Some(known) = known {
        let newest = store.list(Level::L0, known).await?.into_iter().max_by_key(|f| f.id.name.max());
        if newest.is_some() {
            return Ok(newest);
        }
    }
    let levels = future::try_join_all(Level::all().map(|level| store.list(level, Txid::ONE))).await?;
    Ok(levels.into_iter().flatten().max_by_key(|f| f.id.name.max()))
}

/// Reads and verifies the header of a file.
///
/// # Errors
/// Those of the store; `Corrupt` naming the file.
pub(super) async fn read_header(store: &dyn Store, id: FileId) -> Result<Header> {
    let content = store.get(id, ByteRange::Bounded { offset: 0, len: Header::SIZE as u64 }).await?;
    let mut bytes = Vec::with_capacity(Header::SIZE);
    let mut body = content.body;
    while let Some(chunk) = body.next().await {
        bytes.extend_from_slice(&chunk?);
    }
    let named = |e: Error| e.context(format_args!("{} {id}", store.url()));
    let fixed = bytes.first_chunk().ok_or_else(|| named(Error::corrupt("the header is cut short")))?;
    let header = Header::decode(fixed).map_err(named)?;
    if header.name() != id.name {
        return Err(named(Error::corrupt("the header does not fit the name")));
    }
    Ok(header)
}

/// The file of level 0 that holds `txid` alone.
pub(super) const fn single(txid: Txid) -> FileId {
    FileId::new(Level::L0, FileName::single(txid))
}
