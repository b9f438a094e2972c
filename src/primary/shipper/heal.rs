//! How the publisher notices that the replica has a hole, and how it heals it: all pages of the database go out as the
//! next transaction, and the same once more as a snapshot.

use std::sync::Arc;

use crate::error::{ErrorKind, Result};
use crate::events;
use crate::ltx::{FileId, Txid};
use crate::primary::maintenance;
use crate::primary::shipper::holes::{self, Asked, Asks, Hole, Look};
use crate::primary::shipper::place::{self, Whereabouts};
use crate::primary::shipper::sums::Sums;
use crate::primary::shipper::{Capture, Shipper};

/// The look that nobody asks for.
const NAMES: Asked = Asked { look: Look::Names, by_user: false };

/// Looks at the replica if that is asked for, or if its folder is not the one that it was.
///
/// # Errors
/// `Conflict` if it has a hole that is not to be healed; those of the store.
pub(in crate::primary) async fn look_if_asked(shipper: &Arc<Shipper>) -> Result<()> {
    let whereabouts = place::find(shipper).await;
    let moved = matches!(whereabouts, Whereabouts::Removed | Whereabouts::Elsewhere);
    let (asked, asks) = shipper.holes.asked();
    match asked.or(moved.then_some(NAMES)) {
        Some(asked) => look(shipper, (asked, asks), whereabouts).await.map(drop),
        None => Ok(()),
    }
}

/// Looks at the replica if that was not done for long, before a file is published; whether a full copy is to be
/// published in its place.
///
/// # Errors
/// As [`look_if_asked`].
pub(in crate::primary) async fn look_now_and_then(shipper: &Arc<Shipper>) -> Result<bool> {
    if !shipper.holes.is_look_due(shipper.db.clock.steady()) {
        return Ok(false);
    }
    let whereabouts = place::find(shipper).await;
    let (asked, asks) = shipper.holes.asked();
    look(shipper, (asked.unwrap_or(NAMES), asks), whereabouts).await
}

/// Whether a hole was found that is to be healed.
async fn look(
    shipper: &Arc<Shipper>,
    (asked, asks): (Asked, Asks),
    whereabouts: Whereabouts,
) -> Result<bool> {
    // The full copy that is on its way leads around whatever is missing now; what is missing after that is found then.
    if !asked.by_user && shipper.with_capture(|capture| capture.is_healing())? {
        return Ok(false);
    }
    let Some(last) = shipper.progress_txid() else {
        shipper.holes.looked(asks, shipper.db.clock.steady());
        return Ok(false);
    };
    let hole = match asked.look {
        Look::Copy => {
            let files = holes::list(shipper, Some(last)).await?;
            holes::check_end(shipper, &files, last).await?;
            Some(Hole::unknown())
        }
        Look::Names | Look::Content => holes::look(shipper, asked, last).await?,
    };
    let Some(hole) = hole else {
        if whereabouts == Whereabouts::Elsewhere {
            place::check_history(shipper, last).await?;
        }
        place::learn(shipper).await;
        shipper.holes.looked(asks, shipper.db.clock.steady());
        return Ok(false);
    };
    let hole = may_heal(shipper, hole, asked.by_user, whereabouts)?;
    begin(shipper, hole)?;
    shipper.holes.looked(asks, shipper.db.clock.steady());
    Ok(true)
}

/// The hole, if it may be healed.
///
/// # Errors
/// `Conflict` that says why not, and the way out.
pub(in crate::primary) fn may_heal(
    shipper: &Shipper,
    hole: Hole,
    by_user: bool,
    whereabouts: Whereabouts,
) -> Result<Hole> {
    match whereabouts {
        Whereabouts::Elsewhere => Err(place::conflict(shipper.store.as_ref(), hole.found())),
        _ if by_user || shipper.options.auto_recover => Ok(hole),
        _ => Err(hole.conflict(shipper.store.as_ref())),
    }
}

/// Has all pages of the database sent as the next transaction.
///
/// # Errors
/// `Busy` if another process publishes; `Interrupted` after the last close.
pub(in crate::primary) fn begin(shipper: &Shipper, hole: Hole) -> Result<()> {
    let url = shipper.store.url();
    let found = hole.found();
    let reason = match hole {
        Hole::Asked(_) => {
            shipper.notice(format!("a full copy of the database is sent to {url}, {found}"));
            "all of the database is to be sent"
        }
        Hole::Found(_) => {
            let notice = format!("{url} lost transactions: {found}; a full copy of the database is sent");
            shipper.begins(&events::HOLE_FOUND, &notice);
            shipper.notice(notice);
            "the replica's files do not lead to the newest state"
        }
    };
    place::forget(shipper);
    shipper.holes.found(hole);
    Sums::of(shipper).forget_pages();
    shipper.with_capture(|capture| capture.heals(reason))
}

/// A copy of the database is in the replica as `txid`; `is_whole` if it has all pages. Nobody was told yet.
pub(in crate::primary) async fn copied(shipper: &Shipper, txid: Txid, is_whole: bool) {
    if is_whole {
        shipper.holes.copied(txid);
    }
    if place::find(shipper).await == Whereabouts::Unknown {
        place::learn(shipper).await;
    }
}

/// Makes the full copy that is in the replica a snapshot, if it is there to heal a hole.
///
/// # Errors
/// Those of the store. What is left to do is done in the next round.
pub(in crate::primary) async fn finish(shipper: &Arc<Shipper>) -> Result<()> {
    let Some((hole, txid)) = shipper.holes.copy() else { return Ok(()) };
    let (snapshot, pack) =
        match maintenance::snapshot_of_copy(&shipper.store, txid, shipper.options.pack, &shipper.seals).await
        {
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::Corrupt) => {
                shipper.history.note_damaged([FileId::single(txid)]);
                tracing::warn!(db = %shipper.db.path.display(), "{}: {e}", shipper.db.path.display());
                begin(shipper, hole)?;
                return Err(e);
            }
            // It was merged before its upload was answered, and its key is forgotten. A store that refuses is another matter.
            Err(e) if e.kind() == ErrorKind::Denied && shipper.seals.has_forgotten(FileId::single(txid)) => {
                tracing::debug!("{}: {e}", shipper.name());
                return begin(shipper, hole);
            }
            written => written?,
        };
    shipper.with_capture(Capture::healed)?;
    shipper.history.found_snapshot(snapshot);
    if let Some(pack) = pack {
        shipper.history.found_pack(pack);
    }
    place::learn(shipper).await;
    let url = shipper.store.url();
    let there = format!(
        "a full copy of the database is there as {txid}, and states up to then are there as far as their files are"
    );
    shipper.notice(match hole {
        Hole::Found(found) => format!("{url} had lost transactions: {found}; {there}"),
        Hole::Asked(_) => format!("{url}: {}, {there}", hole.found()),
    });
    // Whoever waits for it looks at the status next, which is not to show why an earlier attempt failed.
    shipper.recovered();
    shipper.holes.healed(txid);
    shipper.ends(&events::HOLE_FOUND);
    shipper.ends(&events::CORRUPTION_DETECTED);
    shipper.changed();
    Ok(())
}
