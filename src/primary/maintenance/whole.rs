//! A full copy of the database, which was published as a transaction of level 0, becomes a snapshot: the same pages
//! under a name that says that all transactions up to it are in it. Only from such a file can a restore begin.

use std::sync::Arc;

use super::merge::open;
use crate::error::Result;
use crate::ltx::{FileId, FileName, Header, Level, Txid};
use crate::primary::seals::{Keep, Seals, Subject};
use crate::primary::streaming_upload::{self, PartWriter};
use crate::replica::{PackBuilder, Packed};
use crate::store::{FileInfo, PutOptions, Replica};

/// Writes the snapshot of transaction `txid`, which is a full copy, and with `pack` makes one of it.
///
/// # Errors
/// Those of the store; `NotFound` and `Corrupt` naming the copy, if that is gone, damaged or not of all pages; `Denied` if
/// its key is not kept; `Conflict` if another writer's file is in the place of the snapshot.
pub(in crate::primary) async fn snapshot_of_copy(
    store: &Arc<Replica>,
    txid: Txid,
    pack: bool,
    seals: &Arc<Seals>,
) -> Result<(FileInfo, Option<Packed>)> {
    let from = FileId::single(txid);
    let copy = open(Arc::clone(store), from, None).await?;
    let name = FileName::new(Txid::ONE, txid).expect("BUG: no transaction is before the first");
    let id = FileId::new(Level::SNAPSHOT, name);
    let header = seals.header(Header { min: Txid::ONE, ..copy.header });
    let (subject, by) = (Subject::Replica(id), Arc::clone(seals));
    let encode = move |out: PartWriter| {
        let mut from = by.open(copy.bytes)?;
        let mut to = by.encoder(out, header, subject, Keep::Nothing)?;
        let mut pack = if pack { PackBuilder::new(id, &to)? } else { None };
        let mut page = vec![0; header.page_size.bytes()];
        while let Some(pgno) = from.next_page(&mut page)? {
            to.page(pgno, &page)?;
            if let (Some(pack), Some((entry, frame))) = (&mut pack, to.last_frame()) {
                pack.page(&page, entry, frame);
            }
        }
        from.finish()?;
        let (out, summary) = to.finish()?;
        let pack = pack.and_then(|pack| pack.finish(&summary));
        Ok((out, (summary.size, pack)))
    };
    let options = PutOptions { timestamp: header.timestamp, if_absent: true };
    let (upload, (size, pack)) =
        streaming_upload::upload(store, id, options, encode, std::future::pending()).await?;
    seals.complete(store, id, upload).await?;
    // The copy's own key may go where it is not merged.
    let spent = [Some(subject), seals.never_merges(Level::L0).then_some(Subject::Replica(from))];
    seals.forget(&spent.into_iter().flatten().collect::<Vec<_>>())?;
    Ok((FileInfo { id, size, timestamp: header.timestamp }, pack))
}
