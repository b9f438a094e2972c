//! The copy of the database that later files build on: all of it, or what differs from the replica.

use std::sync::Arc;

use super::blocking;
use super::heal;
use super::send::{Landed, identify};
use crate::clock::Timestamp;
use crate::error::{ErrorKind, Result};
use crate::ltx::{Header, Txid};
use crate::primary::anchor::{self, Compared, ViewPages};
use crate::primary::capture::header_of;
use crate::primary::commits::{CommitSeq, Noted};
use crate::primary::dirty::Mark;
use crate::primary::parts;
use crate::primary::resume;
use crate::primary::shared::{Phase, Shared};
use crate::primary::spool;
use crate::primary::sums::Sums;
use crate::primary::time::Witness;
use crate::store::PutOptions;
use crate::wal::{FrameNo, IndexHeader};

/// Copies the whole database, or what differs from the replica if that is known; `false` if it has no pages
/// yet.
pub(super) async fn anchor(shared: &Arc<Shared>) -> Result<bool> {
    Sums::of(shared).catch_up(shared.store.as_ref(), shared.progress_txid()).await;
    let Some((pages, covers, header, reason)) = blocking(shared, begin_anchor).await? else {
        shared.nothing_here(Phase::Empty);
        return Ok(false);
    };
    let page_size = pages.page_size();
    let compared = blocking(shared, move |shared| {
        Ok(Compared::with(&Sums::of(shared), shared.progress_txid(), page_size))
    })
    .await?;
    let pages = match shared.progress_txid().filter(|_| compared.has_base()) {
        Some(last) => match unless_equal(shared, pages, covers, last).await? {
            Some(pages) => pages,
            None => return Ok(true),
        },
        None => pages,
    };
    let copied = if compared.has_base() { "what differs is sent" } else { "all of it is sent" };
    if shared.progress_txid().is_some() {
        shared.notice(format!("{reason}; the database is compared with the replica, and {copied}"));
    }
    shared.set_phase(Phase::Copying);
    send_copy(shared, pages, covers, header, compared).await
}

/// The pages, unless they are those of the replica: then that is all there is to do.
async fn unless_equal(
    shared: &Arc<Shared>,
    mut pages: ViewPages,
    covers: CommitSeq,
    last: Txid,
) -> Result<Option<ViewPages>> {
    let pages = blocking(shared, move |shared| {
        let base = Sums::of(shared).base(last, pages.page_size());
        let differs = match base {
            Some(base) => pages.differ_from(base)?,
            None => true,
        };
        Ok(differs.then_some(pages))
    });
    let pages = pages.await?;
    if pages.is_none() {
        shared.with_capture(|capture| capture.adopt(last, None))?;
        shared.all_published(covers);
    }
    Ok(pages)
}

async fn send_copy(
    shared: &Arc<Shared>,
    pages: ViewPages,
    covers: CommitSeq,
    header: Header,
    compared: Compared,
) -> Result<bool> {
    let id = resume::single(header.max);
    let is_whole = !compared.has_base();
    let options = PutOptions { timestamp: header.timestamp, if_absent: true };
    shared.with_capture(|capture| capture.sends_copy(&header))?;
    let done = async {
        let (mut upload, compared) =
            anchor::upload(&shared.store, id, options, pages, header, compared).await?;
        let completed = upload.complete().await;
        match &completed {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::AlreadyExists => parts::abort(upload).await,
            Err(_) => {
                shared.with_capture(|capture| capture.attempted(header))?;
                parts::abort(upload).await;
            }
        }
        completed.map(|()| compared)
    };
    let (landed, compared) = match done.await {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => (identify(shared, &header).await, None),
        Err(e) => (Err(e), None),
        Ok(compared) => (Ok(Landed::This), Some(compared)),
    };
    if let Ok(Landed::This) = landed {
        shared.with_capture(|capture| capture.anchored(header.max))?;
        shared.keep_history_of(id, None);
        heal::copied(shared, header.max, is_whole).await;
        anchored(shared, header.max, compared).await;
        shared.published(header.max, covers, header.timestamp);
        return Ok(true);
    }
    shared.with_capture(|capture| {
        capture.abandon_anchor();
        if landed.is_ok() {
            capture.skip_to(header.max);
        }
    })?;
    landed.map(|_| {
        shared.skip_to(header.max);
        true
    })
}

/// The database is in the replica as `txid`.
async fn anchored(shared: &Arc<Shared>, txid: Txid, compared: Option<Compared>) {
    let Some(compared) = compared else { return };
    tracing::debug!("{}: {} pages were sent as {txid}", shared.path.display(), compared.differing);
    if let Err(e) = blocking(shared, move |_| compared.adopt(txid)).await {
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
pub(in crate::primary) fn pin(shared: &Shared) -> Result<Option<Pinned>> {
    shared.with_capture(|capture| {
        let (noted, since) = shared.commits.take();
        shared.on_the_way(noted.seq, since);
        let records = shared.recorder.journal().mark();
        let Some(view) = shared.host.pin()? else { return Ok(None) };
        let index = view.header();
        let time = shared.commits.time_in_view(&index);
        let cursor = capture.cursor_of(&index);
        // In an emptied WAL they may be of the generation that comes next.
        let records = if index.mx_frame == FrameNo::ZERO { Mark::default() } else { records };
        capture.begin_anchor(cursor, records)?;
        Ok(Some(Pinned { pages: ViewPages::new(view), noted, index, time }))
    })?
}

/// Pins a view of the database to copy it: the view, what it covers, the header of the copy, and why it is made.
fn begin_anchor(shared: &Shared) -> Result<Option<(ViewPages, CommitSeq, Header, &'static str)>> {
    let txid = shared.next_txid();
    let reason = shared.with_capture(|capture| capture.anchor_reason().unwrap_or_default())?;
    let Some(Pinned { pages, noted, index, time }) = pin(shared)? else { return Ok(None) };
    let time = shared.published_time(time, Witness::Here);
    let header = shared.with_capture(|capture| {
        let header = header_of(&index, pages.page_size(), pages.commit(), time, capture.node_id());
        Header { lineage: capture.lineage(), ..spool::single(header, txid) }
    })?;
    Ok(Some((pages, noted.seq, header, reason)))
}
