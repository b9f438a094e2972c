//! How the publisher notices that the replica has a hole, and how it heals it: all pages of the database go out as the
//! next transaction, and the same once more as a snapshot.

use std::sync::Arc;

use crate::error::{ErrorKind, Result};
use crate::ltx::Txid;
use crate::primary::history;
use crate::primary::holes::{self, Asked, Hole, Look};
use crate::primary::place::{self, Whereabouts};
use crate::primary::resume::single;
use crate::primary::shared::Shared;
use crate::primary::sums::Sums;

/// Looks at the replica if that is asked for, or if its folder is not the one that it was.
///
/// # Errors
/// `Conflict` if it has a hole that is not to be healed; those of the store.
pub(super) async fn look_if_asked(shared: &Arc<Shared>) -> Result<()> {
    let whereabouts = place::find(shared).await;
    let moved = matches!(whereabouts, Whereabouts::Removed | Whereabouts::Elsewhere);
    let names = Asked { look: Look::Names, by_user: false };
    match shared.holes.asked().or(moved.then_some(names)) {
        Some(asked) => look(shared, asked, whereabouts).await.map(drop),
        None => Ok(()),
    }
}

/// Looks at the replica if that was not done for long, before a file is published; whether a full copy is to be
/// published in its place.
///
/// # Errors
/// As [`look_if_asked`].
pub(super) async fn look_now_and_then(shared: &Arc<Shared>) -> Result<bool> {
    if !shared.holes.is_look_due(shared.clock.steady()) {
        return Ok(false);
    }
    let whereabouts = place::find(shared).await;
    look(shared, Asked { look: Look::Names, by_user: false }, whereabouts).await
}

/// Whether a hole was found that is to be healed.
async fn look(shared: &Arc<Shared>, asked: Asked, whereabouts: Whereabouts) -> Result<bool> {
    let Some(last) = shared.progress_txid() else {
        shared.holes.looked(shared.clock.steady());
        return Ok(false);
    };
    let hole = match asked.look {
        Look::Copy => Some(Hole::said("its files do not lead to the newest state")),
        names_or_content => holes::look(shared, names_or_content, last).await?,
    };
    let Some(hole) = hole else {
        place::learn(shared).await;
        shared.holes.looked(shared.clock.steady());
        return Ok(false);
    };
    let hole = may_heal(shared, hole, asked.by_user, whereabouts)?;
    begin(shared, hole)?;
    shared.holes.looked(shared.clock.steady());
    Ok(true)
}

/// The hole, if it may be healed.
///
/// # Errors
/// `Conflict` that says why not, and the way out.
pub(super) fn may_heal(shared: &Shared, hole: Hole, by_user: bool, whereabouts: Whereabouts) -> Result<Hole> {
    match whereabouts {
        Whereabouts::Elsewhere => Err(place::conflict(shared.store.as_ref(), hole.found())),
        _ if by_user || shared.options.auto_recover => Ok(hole),
        _ => Err(hole.conflict(shared.store.as_ref())),
    }
}

/// Has all pages of the database sent as the next transaction.
///
/// # Errors
/// `Busy` if another process publishes; `Interrupted` after the last close.
pub(super) fn begin(shared: &Shared, hole: Hole) -> Result<()> {
    let url = shared.store.url();
    let notice = format!("{url} lost transactions: {}; a full copy of the database is sent", hole.found());
    tracing::error!("{}: {notice}", shared.path.display());
    shared.notice(notice);
    place::forget(shared);
    shared.holes.found(hole);
    Sums::of(shared).forget_pages();
    shared.with_capture(|capture| capture.lost("the replica's files do not lead to the newest state"))
}

/// A copy of the database is in the replica as `txid`; `is_whole` if it has all pages. Nobody was told yet.
pub(super) async fn copied(shared: &Shared, txid: Txid, is_whole: bool) {
    if is_whole {
        shared.holes.copied(txid);
    }
    if place::find(shared).await == Whereabouts::Unknown {
        place::learn(shared).await;
    }
}

/// Makes the full copy that is in the replica a snapshot, if it is there to heal a hole.
///
/// # Errors
/// Those of the store. What is left to do is done in the next round.
pub(super) async fn finish(shared: &Arc<Shared>) -> Result<()> {
    let Some((hole, txid)) = shared.holes.copy() else { return Ok(()) };
    let snapshot = match history::snapshot_of_copy(&shared.store, txid).await {
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::Corrupt) => {
            shared.history.note_damaged([single(txid)]);
            tracing::warn!("{}: {e}", shared.path.display());
            begin(shared, hole)?;
            return Err(e);
        }
        written => written?,
    };
    shared.history.found_snapshot(snapshot);
    shared.holes.healed(txid);
    place::learn(shared).await;
    let url = shared.store.url();
    shared.notice(format!(
        "{url} had lost transactions: {}; a full copy of the database is there as {txid}, and states up to then are \
         there as far as their files are",
        hole.found()
    ));
    shared.changed();
    Ok(())
}
