//! The copy of the database that later files build on: all of it, or what differs from the replica.

use std::path::Path;
use std::sync::Arc;

use super::send::{Landed, identify};
use super::{blocking, sums_of};
use crate::error::{ErrorKind, Result};
use crate::ltx::{FileName, Header, Txid};
use crate::primary::anchor::{self, Compared, ViewPages};
use crate::primary::commits::CommitSeq;
use crate::primary::handover;
use crate::primary::parts;
use crate::primary::resume;
use crate::primary::shared::{Phase, Shared};
use crate::primary::state::Captured;
use crate::primary::time::Origin;
use crate::store::PutOptions;
use crate::wal::{FrameNo, IndexHeader, Position, read_header};

/// Copies the whole database; `false` if it has no pages yet.
pub(super) async fn anchor(shared: &Arc<Shared>) -> Result<bool> {
    sums_of(shared).catch_up(shared.store.as_ref(), shared.progress_txid()).await;
    let Some((pages, covers, header, reason)) = blocking(shared, begin_anchor).await? else {
        shared.nothing_here(Phase::Empty);
        return Ok(false);
    };
    let page_size = pages.page_size();
    let compared = blocking(shared, move |shared| {
        Ok(Compared::with(&sums_of(shared), shared.progress_txid(), page_size))
    })
    .await?;
    let copied = if compared.has_base() { "what differs is sent" } else { "all of it is sent" };
    if shared.progress_txid().is_some() {
        shared.notice(format!("{reason}; the database is compared with the replica, and {copied}"));
    }
    shared.set_phase(Phase::Copying);
    let id = resume::single(header.max);
    let options = PutOptions { timestamp: header.timestamp, if_absent: true };
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
        shared.history.published(id, shared.time.now(), None);
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

/// Opens a view of the database and makes it the base of all that is captured from now on.
fn begin_anchor(shared: &Shared) -> Result<Option<(ViewPages, CommitSeq, Header, &'static str)>> {
    let txid = shared.next_txid();
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
        let reason = capture.anchor_reason().unwrap_or_default();
        if let Some(index) = index {
            shared.commits.supersede(noted.seq, index);
        }
        capture.begin_anchor(position, index, &mut passage)?;
        drop(passage);
        handover::remove(old);
        let pages = ViewPages::new(view, &shared.wal_path)?;
        let name = FileName::single(txid);
        let time = shared.published_time(noted.time, Origin::Here);
        let mut header = Header::new(pages.page_size(), pages.commit(), name, time);
        (header.node_id, header.lineage) = (capture.node_id(), capture.lineage());
        if let Some(index) = index.filter(|index| index.mx_frame > FrameNo::ZERO) {
            let start = FrameNo::ZERO.end_offset(header.page_size);
            header.wal_offset = start as i64;
            header.wal_size = (index.mx_frame.end_offset(header.page_size) - start) as i64;
            (header.salt1, header.salt2) = (index.salts.0, index.salts.1);
        }
        Ok(Some((pages, noted.seq, header, reason)))
    })?
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
