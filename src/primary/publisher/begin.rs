//! How replication begins: a look at database and replica, and what follows from how they stand to each
//! other.

use std::sync::Arc;

use super::copy::{self, Pinned};
use super::heal;
use super::{blocking, long_blocking};
use crate::error::{ErrorKind, Result};
use crate::ltx::Txid;
use crate::primary::forward;
use crate::primary::holes::{self, Hole};
use crate::primary::place;
use crate::primary::resume::{self, Local, Newest, Standing};
use crate::primary::shared::Shared;
use crate::primary::state::{Claim, Origin};
use crate::primary::sums::Sums;
use crate::primary::survey::Survey;
use crate::replica::Source;
use crate::store::FileInfo;
use crate::verify;

/// Decides whether this database may be published, and from where.
///
/// # Errors
/// `Conflict` if it must not; those of database and store.
pub(super) async fn begin(shared: &Arc<Shared>) -> Result<()> {
    let local = blocking(shared, |shared| {
        let look = shared.first_look()?;
        shared.with_capture(|capture| Local {
            claim: capture.claim(),
            origin: capture.origin(),
            is_back: capture.is_back(),
            lineage: capture.known_lineage(&shared.store.url()),
            page_size: look.page_size,
            was_empty: shared.was_empty(),
            forced: capture.is_forced(),
            has_commits: look.has_changes,
            sent: capture.sent(),
        })
    })
    .await?;
    let pinned = if local.needs_survey() { pin(shared).await? } else { None };
    shared.local_is_known();
    let looked = Looked::at_replica(shared, &local).await;
    // A store that cannot be asked now may answer when the database is another one.
    if let Some(pinned) = pinned
        && !matches!(looked, Ok(Looked { newest: None, .. }))
    {
        survey(shared, pinned).await?;
    }
    let Looked { newest, hole } = looked?;
    let whereabouts = place::find(shared).await;
    let standing = resume::standing(shared, &local, newest.as_ref(), hole.as_ref()).await?;
    let lost = match standing {
        Standing::Lost(_) => {
            let hole = hole.unwrap_or_else(|| Hole::said("litestream_resume('force') was called"));
            Some(if local.forced { hole } else { heal::may_heal(shared, hole, false, whereabouts)? })
        }
        Standing::Present(_) if local.forced => Some(Hole::said("litestream_resume('force') was called")),
        _ => None,
    };
    if let Some(newest) = &newest {
        shared.seen(newest.time());
    }
    // What is gone was of the lineage that goes on.
    let known = local.lineage.filter(|_| matches!(standing, Standing::Lost(_)));
    let lineage = newest.and_then(|newest| newest.lineage).or(known);
    let is_new = newest.is_none() && known.is_none();
    shared.with_capture(|capture| capture.continue_lineage(is_new, lineage))?;
    act(shared, &local, standing, lost).await
}

/// What a replica is seen to be when replication begins.
struct Looked {
    /// Its last file; `None` if it is empty.
    newest: Option<Newest>,
    /// What it lacks of what was published.
    hole: Option<Hole>,
}

impl Looked {
    async fn at_replica(shared: &Arc<Shared>, local: &Local) -> Result<Self> {
        shared.places.load(shared.store.as_ref());
        loop {
            let files = holes::list(shared, local.claim.txid()).await?;
            let file = files.iter().max_by_key(|file| file.id.name.max());
            let newest = match file {
                Some(file) => match Newest::read(shared.store.as_ref(), file, local.lineage).await {
                    Err(e) if e.kind() == ErrorKind::Corrupt && is_damaged(shared, file).await? => continue,
                    newest => Some(newest?),
                },
                None => None,
            };
            let last = local.claim.txid().max(file.map(|file| file.id.name.max()));
            let hole = match last {
                Some(last) => holes::find(shared, &files, last).await?,
                None => None,
            };
            shared.holes.listed(shared.clock.steady());
            return Ok(Self { newest, hole });
        }
    }
}

/// Whether `file`, whose header is wrong, is so indeed; then it counts as missing.
async fn is_damaged(shared: &Arc<Shared>, file: &FileInfo) -> Result<bool> {
    let file = file.clone();
    let damaged = long_blocking(shared, move |shared| {
        verify::damaged(&Arc::new(Source::new(Arc::clone(&shared.store))), &[file])
    });
    let damaged = damaged.await?;
    let is_damaged = !damaged.is_empty();
    shared.history.note_damaged(damaged);
    Ok(is_damaged)
}

impl Local {
    fn needs_survey(&self) -> bool {
        !self.forced && !matches!(self.claim, Claim::Followed(_))
    }
}

/// Pins the database as it is when it is opened, unless it was surveyed already or has no pages.
async fn pin(shared: &Arc<Shared>) -> Result<Option<Pinned>> {
    if shared.is_surveyed() {
        return Ok(None);
    }
    blocking(shared, copy::pin).await
}

async fn survey(shared: &Arc<Shared>, pinned: Pinned) -> Result<()> {
    shared.set_survey(blocking(shared, move |shared| Survey::of(shared, pinned.pages)).await?);
    Ok(())
}

/// Acts on the `standing`; `lost` is what is to be healed.
async fn act(shared: &Arc<Shared>, local: &Local, standing: Standing, lost: Option<Hole>) -> Result<()> {
    if let Some(hole) = lost {
        heal::begin(shared, hole)?;
    } else {
        place::learn(shared).await;
    }
    match standing {
        Standing::First => started(shared, None, true),
        Standing::Newest(last) => {
            adopt(shared, local, last).await?;
            started(shared, Some(last), local.is_ours())
        }
        Standing::Followed(last) => {
            if local.claim.txid() != Some(last) {
                // It landed, and the answer was lost: whether the database still has all of it is not known.
                let pages = resume::pages_of(shared.store.as_ref(), resume::single(last)).await?;
                shared.with_capture(|capture| capture.add_dirty(&pages))?;
            }
            started(shared, Some(last), local.is_ours())
        }
        Standing::NewestAndMore(last) => started(shared, Some(last), local.is_ours()),
        Standing::Lost(last) => started(shared, Some(last), true),
        Standing::Present(last) => {
            Sums::of(shared).forget();
            shared.with_capture(|capture| capture.lost("the local database is to be the present"))?;
            started(shared, Some(last), true)
        }
        Standing::Earlier(txid) => {
            let last = bring_forward(shared, txid).await?;
            started(shared, Some(last), false)
        }
    }
}

impl Local {
    /// Whether this very database was published from here.
    fn is_ours(&self) -> bool {
        matches!(self.claim, Claim::Followed(_) | Claim::Unfollowed(_)) && self.origin.is_none()
    }
}

/// Replication goes on after `last`. The history of a replica is kept by the one who publishes: if this
/// process is that `already`, from now on, and else from its first file on.
fn started(shared: &Shared, last: Option<Txid>, already: bool) -> Result<()> {
    shared.forget_survey();
    // What an earlier process left counts as a commit: a caller that waits, waits for it too.
    shared.commits.ask();
    shared.resumed(last);
    let node_id = shared.with_capture(|capture| capture.node_id())?;
    if already {
        shared.history.begin(last, node_id);
    } else {
        shared.keep_history_from_first_file();
    }
    Ok(())
}

/// The database that was surveyed is `last`.
async fn adopt(shared: &Arc<Shared>, local: &Local, last: Txid) -> Result<()> {
    let survey = shared.survey().await?;
    let origin = match local.claim {
        Claim::Followed(_) | Claim::Unfollowed(_) => None,
        _ => Some(Origin::Compared),
    };
    blocking(shared, move |shared| {
        survey.known.adopt(last)?;
        shared.with_capture(|capture| capture.adopt(last, origin))
    })
    .await
}

/// Brings the database from `txid` to the newest transaction, which it returns.
async fn bring_forward(shared: &Arc<Shared>, txid: Txid) -> Result<Txid> {
    let survey = shared.survey().await?;
    let last = forward::bring_forward(shared, &survey, txid).await?;
    drop(survey);
    shared.forget_survey();
    let pinned = blocking(shared, copy::pin).await?;
    let gone = || crate::error::Error::new(ErrorKind::NotFound, "the database has no pages");
    let pinned = pinned.ok_or_else(gone)?;
    let survey = blocking(shared, move |shared| Survey::of(shared, pinned.pages)).await?;
    blocking(shared, move |shared| {
        survey.known.adopt(last)?;
        shared.with_capture(|capture| capture.adopt(last, Some(Origin::Compared)))
    })
    .await?;
    shared.notice(format!(
        "the database was {txid}, an earlier state of {}, and was brought forward to {last}",
        shared.store.url()
    ));
    Ok(last)
}
