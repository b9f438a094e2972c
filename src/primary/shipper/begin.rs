//! How replication begins: a look at database and replica, and what follows from how they stand to each
//! other.

use std::sync::Arc;
use std::time::Duration;

use super::blocking;
use super::copy::{self, Pinned};
use super::heal;
use crate::error::{ErrorKind, Result};
use crate::ltx::{FileId, Txid};
use crate::primary::shipper::Shipper;
use crate::primary::shipper::forward;
use crate::primary::shipper::holes::{self, By, Hole};
use crate::primary::shipper::misfit;
use crate::primary::shipper::newest::{self, Newest};
use crate::primary::shipper::place::{self, Whereabouts};
use crate::primary::shipper::resume::{self, Local, Looked, Standing};
use crate::primary::shipper::sealing::Sealing;
use crate::primary::shipper::sidecar;
use crate::primary::shipper::state::{Claim, Origin};
use crate::primary::shipper::sums::Sums;
use crate::primary::shipper::survey::Survey;

/// A view of the database is kept no longer than this for a store that does not answer: it is in the way of a close.
const VIEW_PATIENCE: Duration = Duration::from_secs(2);

/// Decides whether this database may be published, and from where.
///
/// # Errors
/// `Conflict` if it must not; those of database and store.
pub(in crate::primary) async fn begin(shipper: &Arc<Shipper>) -> Result<()> {
    let begun = loop {
        match decide(shipper).await {
            Ok(true) => break Ok(()),
            // Another replica brought the database forward: what was seen of it is void.
            Ok(false) => shipper.forget_survey(),
            Err(e) => break Err(e),
        }
    };
    let copies = shipper.with_capture(|capture| capture.anchor_reason().is_some()).unwrap_or(true);
    match begun.is_ok() && !copies {
        true => shipper.give_up_unfinished().await,
        false => shipper.give_up_stale().await,
    }
    begun
}

/// As [`begin`]; `false` if the database became another one meanwhile.
async fn decide(shipper: &Arc<Shipper>) -> Result<bool> {
    let forwards = shipper.db.bell.forwards();
    let local = blocking(shipper, |shipper| {
        let look = shipper.first_look()?;
        shipper.with_capture(|capture| Local {
            claim: capture.claim(),
            origin: capture.origin(),
            is_back: capture.is_back(),
            lineage: capture.known_lineage(&shipper.store.url()),
            page_size: look.page_size,
            size: look.size,
            was_empty: shipper.db.was_empty(),
            forced: capture.is_forced(),
            is_healing: capture.is_healing(),
            has_commits: look.has_changes,
            is_behind: capture.is_behind(),
            time: capture.time(),
            sent: capture.sent(),
            sent_in_wal: capture.sent_in_wal(),
            stood_by: shipper.db.stood_by(),
            node_id: capture.node_id(),
        })
    })
    .await?;
    let sealing = Sealing::of(shipper, local.forced)?;
    if let (Some(txid), Some(time)) = (local.known_newest(shipper), local.time)
        && sealing.is_settled()
    {
        sealing.goes_on(shipper);
        shipper.local_is_known();
        shipper.seen(time);
        shipper.places.load(shipper.store.as_ref());
        return act(shipper, &local, Standing::Followed(txid), None, None).await;
    }
    let mut pinned = if local.needs_survey() { pin(shipper).await? } else { None };
    shipper.local_is_known();
    if (shipper.db.commits.has_several() || shipper.has_failed())
        && let Some(pinned) = pinned.take()
    {
        // A silent store must not keep the view that is in the way of another replica's shipper, or of a close.
        survey(shipper, pinned).await?;
    }
    let mut look = std::pin::pin!(Looked::at_replica(shipper, &local));
    let looked = match tokio::time::timeout(VIEW_PATIENCE, &mut look).await {
        Ok(looked) => looked,
        Err(_) => {
            if let Some(pinned) = pinned.take() {
                survey(shipper, pinned).await?;
            }
            look.await
        }
    };
    // A store that cannot be asked now may answer when the database is another one.
    if let Some(pinned) = pinned
        && !matches!(looked, Ok(Looked { newest: None, .. }))
    {
        survey(shipper, pinned).await?;
    }
    let looked = looked?;
    let newest = looked.newest;
    sealing.check(shipper, &local, newest.as_ref())?;
    let whereabouts = place::find(shipper).await;
    let standing = resume::standing(shipper, &local, &looked).await;
    if shipper.db.bell.forwards() != forwards {
        return Ok(false);
    }
    let mut standing = standing?;
    let is_unproven = standing.is_claimed() || (matches!(standing, Standing::Present(_)) && !local.forced);
    match newest {
        Some(newest) if whereabouts == Whereabouts::Elsewhere && is_unproven => {
            place::check_history_of(shipper, &newest.header)?;
        }
        // Before anything was published, whatever folder is there is the place.
        None if whereabouts == Whereabouts::Elsewhere && local.claim.txid().is_some() && !local.forced => {
            return Err(place::conflict(shipper.store.as_ref(), "it is empty"));
        }
        _ => {}
    }
    if local.is_healing {
        standing = standing.copied();
    }
    let copies = match (standing, looked.hole) {
        (Standing::Lost(_) | Standing::Present(_), hole) if local.forced => {
            Some(hole.unwrap_or(Hole::Asked(By::Force)))
        }
        (Standing::Present(_), None) => Some(Hole::Asked(By::Rewind)),
        (Standing::Lost(_), None) if local.is_healing => Some(Hole::Asked(By::Before)),
        (Standing::Lost(_) | Standing::Present(_), hole) => {
            let hole = hole.unwrap_or_else(Hole::unknown);
            let by_user = local.is_decided() || local.is_healing;
            Some(heal::may_heal(shipper, hole, by_user, whereabouts)?)
        }
        _ => None,
    };
    if let Some(newest) = &newest {
        shipper.seen(newest.time());
    }
    // What is gone was of the lineage that continues.
    let known = local.lineage.filter(|_| matches!(standing, Standing::Lost(_)));
    let lineage = newest.and_then(|newest| newest.lineage).or(known);
    let is_new = newest.is_none() && known.is_none();
    shipper.with_capture(|capture| capture.continue_lineage(is_new, lineage))?;
    let last = newest.map(|newest| newest.header.max).max(local.claim.txid());
    if let Some(last) = last.filter(|_| local.forced) {
        shipper.seals.forget_until(last)?;
    }
    sealing.give_up_plain_uploads(shipper).await;
    sealing.begin(shipper, last, newest.is_some_and(|newest| newest.header.is_sealed()))?;
    let is_settled = act(shipper, &local, standing, copies, newest.map(|newest| newest.id)).await?;
    if let Standing::Newest(last) | Standing::AfterSidecar(last) = standing
        && newest.is_some_and(|newest| newest.is_sidecars())
        && local.claim.txid() != Some(last)
    {
        sidecar::tell(shipper, last);
    }
    Ok(is_settled)
}

impl Looked {
    async fn at_replica(shipper: &Arc<Shipper>, local: &Local) -> Result<Self> {
        shipper.places.load(shipper.store.as_ref());
        loop {
            let files = holes::list(shipper, local.claim.txid()).await?;
            let file = files.iter().max_by_key(|file| file.id.name.max());
            let newest = match file {
                Some(file) => match Newest::read(shipper.store.as_ref(), file, local.lineage, &shipper.seals)
                    .await
                {
                    Err(e) if e.kind() == ErrorKind::Corrupt && holes::is_damaged(shipper, file).await? => {
                        continue;
                    }
                    newest => Some(newest?),
                },
                None => None,
            };
            let last = local.claim.txid().max(file.map(|file| file.id.name.max()));
            let beyond = holes::damaged_beyond(shipper, last);
            if let Some(beyond) = beyond.filter(|_| !local.is_decided()) {
                return Err(misfit::ends_damaged(shipper.store.as_ref(), beyond, last));
            }
            let hole = match last {
                Some(last) => holes::find(shipper, &files, last).await?,
                None => None,
            };
            shipper.holes.listed(shipper.db.clock.steady());
            return Ok(Self { newest, hole, beyond: beyond.map(|id| id.name.max()) });
        }
    }
}

impl Local {
    /// The last transaction of the replica, if this process knows it without a look.
    fn known_newest(&self, shipper: &Shipper) -> Option<Txid> {
        let is_asked = self.forced || self.is_healing;
        let is_plain = self.origin.is_none() && !self.is_back && !is_asked && self.sent.is_empty();
        match self.claim {
            Claim::Followed(txid) if is_plain && self.lineage.is_some() && shipper.trusts_replica() => {
                Some(txid)
            }
            _ => None,
        }
    }

    /// Whether a user said that the database comes after whatever the replica holds.
    fn is_decided(&self) -> bool {
        let is_of_claim = matches!(self.claim, Claim::Followed(_) | Claim::Unfollowed(_));
        self.forced || (is_of_claim && self.origin == Some(Origin::Present))
    }

    fn needs_survey(&self) -> bool {
        !self.forced && !matches!(self.claim, Claim::Followed(_))
    }
}

/// Pins the database as it is when it is opened, unless it was surveyed already or has no pages.
async fn pin(shipper: &Arc<Shipper>) -> Result<Option<Pinned>> {
    if shipper.is_surveyed() {
        return Ok(None);
    }
    blocking(shipper, copy::pin).await
}

async fn survey(shipper: &Arc<Shipper>, pinned: Pinned) -> Result<()> {
    shipper.set_survey(blocking(shipper, move |shipper| Survey::of(shipper, pinned.pages)).await?);
    Ok(())
}

/// Why a database is compared of which the WAL shows that it was the newest transaction.
const CONTINUED: &str = "it was the newest transaction of the replica, and commits came after that";

/// Acts on the `standing`; `copies` is why a full copy is sent, if one is, `newest` the last file of the replica. `false` if the
/// database became another one meanwhile.
async fn act(
    shipper: &Arc<Shipper>,
    local: &Local,
    standing: Standing,
    copies: Option<Hole>,
    newest: Option<FileId>,
) -> Result<bool> {
    if let Some(hole) = copies {
        heal::begin(shipper, hole)?;
    } else {
        if local.forced {
            place::forget(shipper);
        }
        place::learn(shipper).await;
    }
    match standing {
        Standing::First => {
            if local.claim.txid().is_some() {
                shipper
                    .with_capture(|capture| capture.lost("the replica that it was restored from is empty"))?;
            }
            started(shipper, None, true)
        }
        Standing::Newest(last) => {
            adopt(shipper, local, last).await?;
            started(shipper, Some(last), local.is_ours() && local.claim.txid() == Some(last))
        }
        Standing::AfterSidecar(last) => {
            shipper.with_capture(|capture| capture.continues_after(sidecar::CONTINUED))?;
            started(shipper, Some(last), false)
        }
        Standing::AfterNewest(last) => {
            shipper.with_capture(|capture| capture.continues_after(CONTINUED))?;
            started(shipper, Some(last), false)
        }
        Standing::Followed(last) => {
            if local.claim.txid() != Some(last) {
                // It landed, and the answer was lost: whether the database still has all of it is not known.
                let pages = match newest {
                    Some(id) => {
                        newest::replaced_by(shipper.store.as_ref(), id, local.size, &shipper.seals).await?
                    }
                    None => None,
                };
                shipper.with_capture(|capture| match pages {
                    Some(pages) => capture.found_landed(last, &pages),
                    None => {
                        capture.lost("the key of the newest file is not kept");
                        Ok(())
                    }
                })??;
            }
            started(shipper, Some(last), local.is_ours())
        }
        Standing::NewestAndMore(last) => started(shipper, Some(last), local.is_ours()),
        Standing::Lost(last) => started(shipper, Some(last), true),
        Standing::Present(last) => {
            Sums::of(shipper).forget();
            shipper.with_capture(|capture| capture.lost("the local database is to be the present"))?;
            started(shipper, Some(last), true)
        }
        Standing::Earlier(txid) => {
            let Some(last) = bring_forward(shipper, txid).await? else { return Ok(false) };
            started(shipper, Some(last), false)
        }
    }?;
    Ok(true)
}

impl Local {
    /// Whether this very database was published from here.
    fn is_ours(&self) -> bool {
        matches!(self.claim, Claim::Followed(_) | Claim::Unfollowed(_)) && self.origin.is_none()
    }
}

/// Replication continues after `last`. The history of a replica is kept by the one who publishes: if this
/// process is that `already`, from now on, and else from its first file on.
fn started(shipper: &Shipper, last: Option<Txid>, already: bool) -> Result<()> {
    shipper.forget_survey();
    // What an earlier process left counts as a commit: a caller that waits, waits for it too.
    shipper.db.commits.ask();
    shipper.resumed(last);
    let node_id = shipper.with_capture(|capture| capture.node_id())?;
    if already {
        shipper.history.begin(last, node_id);
    } else {
        shipper.keep_history_from_first_file();
    }
    Ok(())
}

/// The database that was surveyed is `last`.
async fn adopt(shipper: &Arc<Shipper>, local: &Local, last: Txid) -> Result<()> {
    let survey = shipper.survey().await?;
    let origin = match local.claim {
        Claim::Followed(_) | Claim::Unfollowed(_) => None,
        _ => Some(Origin::Compared),
    };
    blocking(shipper, move |shipper| {
        // Whatever became of its file: the next attempt has another.
        survey.known.adopt(last).inspect_err(|_| shipper.forget_survey())?;
        shipper.with_capture(|capture| capture.adopt(last, origin))
    })
    .await
}

/// Brings the database from `txid` to the newest transaction, which it returns.
async fn bring_forward(shipper: &Arc<Shipper>, txid: Txid) -> Result<Option<Txid>> {
    let survey = shipper.survey().await?;
    let Some(last) = forward::bring_forward(shipper, &survey, txid).await? else { return Ok(None) };
    drop(survey);
    shipper.forget_survey();
    let pinned = blocking(shipper, copy::pin).await?;
    let gone = || crate::error::Error::new(ErrorKind::NotFound, "the database has no pages");
    let pinned = pinned.ok_or_else(gone)?;
    let survey = blocking(shipper, move |shipper| Survey::of(shipper, pinned.pages)).await?;
    blocking(shipper, move |shipper| {
        survey.known.adopt(last)?;
        shipper.with_capture(|capture| capture.adopt(last, Some(Origin::Compared)))
    })
    .await?;
    shipper.notice(format!(
        "the database was {txid}, an earlier state of {}, and was brought forward to {last}",
        shipper.store.url()
    ));
    Ok(Some(last))
}
