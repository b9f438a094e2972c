//! The copy of the database that later files build on: all of it, or what differs from the replica.

use std::path::Path;
use std::sync::Arc;

use super::blocking;
use super::heal;
use super::send::{Landed, identify};
use crate::error::{ErrorKind, Result};
use crate::ltx::{FileName, Header, Txid};
use crate::primary::anchor::{self, Compared, ViewPages};
use crate::primary::commits::{CommitSeq, Noted};
use crate::primary::handover;
use crate::primary::parts;
use crate::primary::resume;
use crate::primary::shared::{Phase, Shared};
use crate::primary::state::Captured;
use crate::primary::sums::Sums;
use crate::primary::time::Witness;
use crate::store::PutOptions;
use crate::wal::{FrameNo, IndexHeader, Position, read_header};

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

/// A view of the database from which on everything is captured.
pub(super) struct Pinned {
    pub(super) pages: ViewPages,
    /// The last commit that was noted before.
    noted: Noted,
    index: Option<IndexHeader>,
}

/// Opens a view of the database and makes it the base of all that is captured from now on; `None` if it has
/// no pages yet.
pub(super) fn pin(shared: &Shared) -> Result<Option<Pinned>> {
    // Hooks wait for these locks, so that no restart of the WAL falls between view and position.
    shared.with_capture(|capture| {
        let mut passage = shared.generations.lock();
        let (noted, since) = shared.commits.take();
        shared.on_the_way(since);
        // What other processes left before the view is part of it.
        let old = capture.handover.names();
        let Some(view) = shared.host.read_view()? else { return Ok(None) };
        let index = view.header();
        if let Some(index) = index.filter(|index| index.mx_frame > FrameNo::ZERO) {
            shared.commits.agree_with(index);
        }
        let position = match index {
            Some(index) if index.mx_frame > FrameNo::ZERO => Captured::At(Position::end_of(&index)),
            // A writer of ours is between the header of a generation and its first commit.
            _ if shared.commits.last().end.is_none()
                && let Some(begun) = passage.begun() =>
            {
                begun
            }
            Some(index) => start_of_wal(&index, &shared.wal_path)?,
            None => Captured::NextGeneration,
        };
        if let Some(index) = index {
            shared.commits.supersede(noted.seq, index);
        }
        capture.begin_anchor(position, index, &mut passage)?;
        drop(passage);
        handover::remove(old);
        Ok(Some(Pinned { pages: ViewPages::new(view, &shared.wal_path)?, noted, index }))
    })?
}

/// Opens a view of the database to copy it: the view, what it covers, the header of the copy, and why it is
/// made.
fn begin_anchor(shared: &Shared) -> Result<Option<(ViewPages, CommitSeq, Header, &'static str)>> {
    let txid = shared.next_txid();
    let reason = shared.with_capture(|capture| capture.anchor_reason().unwrap_or_default())?;
    let Some(Pinned { pages, noted, index }) = pin(shared)? else { return Ok(None) };
    let time = shared.published_time(noted.time, Witness::Here);
    let mut header = Header::new(pages.page_size(), pages.commit(), FileName::single(txid), time);
    (header.node_id, header.lineage) =
        shared.with_capture(|capture| (capture.node_id(), capture.lineage()))?;
    if let Some(index) = index.filter(|index| index.mx_frame > FrameNo::ZERO) {
        let start = FrameNo::ZERO.end_offset(header.page_size);
        header.wal_offset = start as i64;
        header.wal_size = (index.mx_frame.end_offset(header.page_size) - start) as i64;
        (header.salt1, header.salt2) = (index.salts.0, index.salts.1);
    }
    Ok(Some((pages, noted.seq, header, reason)))
}

/// Where commits go on if `index` says that the WAL holds none.
fn start_of_wal(index: &IndexHeader, wal_path: &Path) -> Result<Captured> {
    let header = match std::fs::File::open(wal_path) {
        Ok(file) => read_header(&file)?,
        Err(_) => None,
    };
    Ok(match header {
        Some(header) if header.salts == index.salts => Captured::At(Position::start_of(&header)),
        _ => Captured::NextGeneration,
    })
}
