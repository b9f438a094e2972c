//! A snapshot of a sealed replica. Who publishes cannot read what is there, so the database is encoded again: a view of it
//! that shows the last transaction is held, and uploaded by the task that keeps the history, while others are published.
//! Checkpoints stop at that view meanwhile.

use std::sync::{Arc, MutexGuard, PoisonError};

use super::Shipper;
use super::baseline::ViewPages;
use super::send::sync_before;
use crate::clock::Timestamp;
use crate::error::Result;
use crate::ltx::{FileId, FileName, Header, Level, Txid};
use crate::primary::hooks::PinnedView;
use crate::primary::seals::{Keep, Subject};
use crate::primary::streaming_upload::{self, PartWriter};
use crate::primary::time::Witness;
use crate::replica::{PackBuilder, Packed};
use crate::store::{FileInfo, PutOptions};

/// A state of the database, and the header of its snapshot.
pub(super) struct SnapshotView {
    pages: ViewPages,
    header: Header,
}

impl Shipper {
    /// Whether a view is to be held, of which a snapshot can be made.
    pub(super) fn wants_view(&self) -> bool {
        self.seals.are_on() && self.history.wants_snapshot() && self.lock_view().is_none()
    }

    /// Has a snapshot made of the view that was held, if that shows what is in the replica now.
    ///
    /// # Errors
    /// `Busy` if another process publishes.
    pub(super) fn offer_view(&self) -> Result<()> {
        if !self.seals.are_on() {
            return Ok(());
        }
        let (held, node_id) = self.with_capture(|capture| (capture.take_view(), capture.node_id()))?;
        let Some((view, txid, time)) = held.filter(|_| self.wants_view()) else { return Ok(()) };
        let time = time.unwrap_or_else(|| self.published_time(self.time.now(), Witness::Elsewhere));
        let header = self.snapshot_header(&*view, txid, time, node_id);
        *self.lock_view() = Some(SnapshotView { pages: ViewPages::new(view), header });
        self.history.has_view();
        Ok(())
    }

    fn snapshot_header(&self, view: &dyn PinnedView, txid: Txid, time: Timestamp, node_id: u64) -> Header {
        let name = FileName::new(Txid::ONE, txid).expect("BUG: no transaction is before the first");
        let plain = Header::new(view.page_size(), view.commit(), name, time);
        self.seals.header(Header { node_id, ..plain })
    }

    /// Publishing fails: checkpoints are not to wait for that.
    pub(super) fn drop_views(&self) {
        let _ = self.with_capture(|capture| capture.drop_view());
    }

    /// The view of which a snapshot is to be made, once.
    pub(super) fn take_snapshot_view(&self) -> Option<SnapshotView> {
        self.lock_view().take()
    }

    /// No snapshot is made of the view: it is released.
    pub(super) fn drop_snapshot_view(&self) {
        drop(self.take_snapshot_view());
    }

    fn lock_view(&self) -> MutexGuard<'_, Option<SnapshotView>> {
        self.snapshot_view.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes the snapshot of `view`, unless the history is told to stop, and makes its pack if it gets one.
///
/// # Errors
/// Those of the database and of the store; `Conflict` if another writer's file is in its place; `Interrupted`. Nothing is
/// left in the store then.
pub(super) async fn send(shipper: &Arc<Shipper>, view: SnapshotView) -> Result<(FileInfo, Option<Packed>)> {
    let SnapshotView { mut pages, header } = view;
    sync_before(shipper).await?;
    let id = FileId::new(Level::SNAPSHOT, header.name());
    let subject = Subject::Replica(id);
    let options = PutOptions { timestamp: header.timestamp, if_absent: true };
    let (seals, pack) = (Arc::clone(&shipper.seals), shipper.options.pack);
    let encode = move |out: PartWriter| {
        let mut encoder = seals.encoder(out, header, subject, Keep::Nothing)?;
        let mut pack = if pack { PackBuilder::new(id, &encoder)? } else { None };
        pages.each(|pgno, page| {
            let Some(page) = page else { return Ok(()) };
            encoder.page(pgno, page)?;
            if let (Some(pack), Some((entry, frame))) = (&mut pack, encoder.last_frame()) {
                pack.page(page, entry, frame);
            }
            Ok(())
        })?;
        // Checkpoints wait for it no longer than that.
        drop(pages);
        let (out, summary) = encoder.finish()?;
        Ok((out, (summary.size, pack.and_then(|pack| pack.finish(&summary)))))
    };
    let stop = shipper.history.told_to_stop();
    let (upload, (size, pack)) = streaming_upload::upload(&shipper.store, id, options, encode, stop).await?;
    shipper.seals.complete(&shipper.store, id, upload).await?;
    shipper.seals.forget(&[subject])?;
    Ok((FileInfo { id, size, timestamp: header.timestamp }, pack))
}
