//! The copy of the database that later files build on: all of it, or what differs from the replica.

use std::sync::Arc;

use super::blocking;
use super::heal;
use super::send::{Landed, identify, sync_before};
use crate::clock::Timestamp;
use crate::error::{ErrorKind, Result};
use crate::ltx::{FileId, Header, Txid};
use crate::primary::dirty::Mark;
use crate::primary::hooks::{CommitSeq, Noted};
use crate::primary::seals::Subject;
use crate::primary::shipper::baseline::{self, Compared, Encoded, ViewPages};
use crate::primary::shipper::capture::header_of;
use crate::primary::shipper::spool;
use crate::primary::shipper::sums::Sums;
use crate::primary::shipper::{Capture, Phase, Shipper};
use crate::primary::streaming_upload;
use crate::primary::time::Witness;
use crate::store::PutOptions;
use crate::wal::{FrameNo, IndexHeader};

/// Copies the whole database, or what differs from the replica if that is known; `false` if it has no pages
/// yet.
pub(in crate::primary) async fn anchor(shipper: &Arc<Shipper>) -> Result<bool> {
    Sums::of(shipper).catch_up(shipper, shipper.progress_txid()).await;
    let Some((pages, covers, header, reason)) = blocking(shipper, begin_anchor).await? else {
        shipper.nothing_here();
        return Ok(false);
    };
    let page_size = pages.page_size();
    let compared = blocking(shipper, move |shipper| {
        // What is said of the replica's pages is of no use to a full copy; a round that was given up may have said it just now.
        let base = shipper.progress_txid().filter(|_| !shipper.holes.wants_copy());
        Ok(Compared::with(&Sums::of(shipper), base, page_size))
    })
    .await?;
    let pages = match shipper.progress_txid().filter(|_| compared.has_base()) {
        Some(last) => match unless_equal(shipper, pages, covers, last).await? {
            Some(pages) => pages,
            None => return Ok(true),
        },
        None => pages,
    };
    let copied = if compared.has_base() { "what differs is sent" } else { "all of it is sent" };
    if shipper.progress_txid().is_some() {
        shipper.notice(format!("{reason}; the database is compared with the replica, and {copied}"));
    }
    // First, so that whoever sees that it copies sees this too.
    shipper.tell_of_copy_before();
    shipper.set_phase(Phase::Copying);
    send_copy(shipper, pages, covers, header, compared).await
}

/// The pages, unless they are those of the replica: then that is all there is to do.
async fn unless_equal(
    shipper: &Arc<Shipper>,
    mut pages: ViewPages,
    covers: CommitSeq,
    last: Txid,
) -> Result<Option<ViewPages>> {
    let pages = blocking(shipper, move |shipper| {
        let base = Sums::of(shipper).base(last, pages.page_size());
        let differs = match base {
            Some(base) => pages.differ_from(base)?,
            None => true,
        };
        Ok(differs.then_some(pages))
    });
    let pages = pages.await?;
    if pages.is_none() {
        shipper.with_capture(|capture| capture.adopt(last, None))?;
        shipper.all_published(covers);
    }
    Ok(pages)
}

async fn send_copy(
    shipper: &Arc<Shipper>,
    pages: ViewPages,
    covers: CommitSeq,
    header: Header,
    compared: Compared,
) -> Result<bool> {
    let id = FileId::single(header.max);
    let is_whole = !compared.has_base();
    let options = PutOptions { timestamp: header.timestamp, if_absent: true };
    sync_before(shipper).await?;
    shipper.with_capture(|capture| capture.sends_copy(&header))?;
    shipper.give_up_stale().await;
    let log = shipper.part_log();
    let done = async {
        let uploading = baseline::upload(shipper, id, options, pages, header, compared, log.clone());
        let (mut upload, uploaded) = uploading.await?;
        let completed = upload.complete().await;
        match &completed {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::AlreadyExists => streaming_upload::abort(upload).await,
            Err(_) => {
                shipper.with_capture(|capture| capture.attempted(header))?;
                streaming_upload::leave(upload, log.as_deref()).await;
            }
        }
        completed.map(|()| uploaded)
    };
    let (landed, compared, pack) = match done.await {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => (identify(shipper, &header).await, None, None),
        Err(e) => (Err(e), None, None),
        Ok(Encoded { compared, pack, size }) => (Ok(Landed::This(size)), Some(compared), pack),
    };
    if let Ok(Landed::This(size)) = landed {
        // Before the state says so: without checksums, a process after a kill would take the database for another one.
        anchored(shipper, header.max, compared).await;
        shipper.with_capture(|capture| capture.anchored(&header))?;
        shipper.copying.ends();
        shipper.keep_history_of(id, size, header.timestamp, None);
        if let Some(pack) = pack {
            shipper.history.found_pack(pack);
        }
        heal::copied(shipper, header.max, is_whole).await;
        if shipper.holes.copy().is_none() && shipper.seals.never_merges(id.level) {
            shipper.seals.forget(&[Subject::Replica(id)])?;
        }
        shipper.published(header.max, covers, header.timestamp);
        return Ok(true);
    }
    shipper.with_capture(|capture| {
        capture.abandon_anchor();
        if landed.is_ok() {
            capture.skip_to(header.max);
        }
    })?;
    landed.map(|_| {
        shipper.skip_to(header.max);
        true
    })
}

/// The database is in the replica as `txid`.
async fn anchored(shipper: &Arc<Shipper>, txid: Txid, compared: Option<Compared>) {
    let Some(compared) = compared else { return };
    tracing::debug!("{}: {} pages were sent as {txid}", shipper.db.path.display(), compared.differing);
    if let Err(e) = blocking(shipper, move |_| compared.adopt(txid)).await {
        tracing::warn!("{e}");
    }
}

/// A view of the database whose end is the cursor of all that is captured from now on.
pub(in crate::primary) struct Pinned {
    pub(in crate::primary) pages: ViewPages,
    /// The last commit that was noted before.
    noted: Noted,
    index: IndexHeader,
    /// The time of the last commit that it shows.
    time: Timestamp,
}

/// Pins a view of the database and makes its end the cursor; `None` if the database has no pages yet.
pub(in crate::primary) fn pin(shipper: &Shipper) -> Result<Option<Pinned>> {
    shipper.with_capture(|capture| {
        capture.chooses();
        let pinned = pin_for(shipper, capture);
        capture.chose();
        pinned
    })?
}

fn pin_for(shipper: &Shipper, capture: &mut Capture) -> Result<Option<Pinned>> {
    let (noted, since) = shipper.db.commits.take(shipper.number);
    shipper.on_the_way(noted.seq, since);
    let records = shipper.db.recorder.journal().mark();
    let Some(view) = shipper.db.pin()? else { return Ok(None) };
    let index = view.header();
    let time = shipper.db.commits.time_in_view(&index);
    let cursor = capture.cursor_of(&index);
    // In an emptied WAL they may be of the generation that comes next.
    let records = if index.mx_frame == FrameNo::ZERO { Mark::default() } else { records };
    capture.begin_anchor(cursor, records)?;
    Ok(Some(Pinned { pages: ViewPages::new(view), noted, index, time }))
}

/// Pins a view of the database to copy it: the view, what it covers, the header of the copy, and why it is made.
fn begin_anchor(shipper: &Shipper) -> Result<Option<(ViewPages, CommitSeq, Header, &'static str)>> {
    let txid = shipper.next_txid();
    let reason = shipper.with_capture(|capture| capture.anchor_reason().unwrap_or_default())?;
    let Some(Pinned { pages, noted, index, time }) = pin(shipper)? else { return Ok(None) };
    let time = shipper.published_time(time, Witness::Here);
    let header = shipper.with_capture(|capture| {
        let header = header_of(&index, pages.page_size(), pages.commit(), time, capture.node_id());
        shipper.seals.header(Header { lineage: capture.lineage(), ..spool::single(header, txid) })
    })?;
    Ok(Some((pages, noted.seq, header, reason)))
}
