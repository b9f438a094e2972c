//! How replication begins: a look at database and replica, and what follows from how they stand to each
//! other.

use std::sync::Arc;

use super::blocking;
use super::copy::{self, Pinned};
use crate::error::{ErrorKind, Result};
use crate::ltx::Txid;
use crate::primary::forward;
use crate::primary::resume::{self, Local, Newest, Standing};
use crate::primary::shared::Shared;
use crate::primary::state::{Claim, Origin};
use crate::primary::sums::Sums;
use crate::primary::survey::Survey;

/// Decides whether this database may be published, and from where.
///
/// # Errors
/// `Conflict` if it must not; those of database and store.
pub(super) async fn begin(shared: &Arc<Shared>) -> Result<()> {
    let page_size = blocking(shared, |shared| shared.look_at_database()).await?;
    let local = blocking(shared, move |shared| {
        let has_commits = shared.has_commits()?;
        shared.with_capture(|capture| Local {
            claim: capture.claim(),
            origin: capture.origin(),
            is_back: capture.is_back(),
            lineage: capture.known_lineage(&shared.store.url()),
            page_size,
            was_empty: shared.was_empty(),
            forced: capture.is_forced(),
            has_commits,
            sent: capture.sent(),
        })
    })
    .await?;
    let pinned = if local.needs_survey() { pin(shared).await? } else { None };
    shared.local_is_known();
    let newest = resume::newest(shared.store.as_ref(), local.claim.txid()).await;
    // A store that cannot be asked now may answer when the database is another one.
    if let Some(pinned) = pinned
        && !matches!(newest, Ok(None))
    {
        survey(shared, pinned).await?;
    }
    let newest = match newest? {
        Some(file) => Some(Newest::read(shared.store.as_ref(), &file, local.lineage).await?),
        None => None,
    };
    let standing = resume::standing(shared, &local, newest.as_ref()).await?;
    if let Some(newest) = &newest {
        shared.seen(newest.time());
    }
    let lineage = newest.and_then(|newest| newest.lineage);
    shared.with_capture(|capture| capture.continue_lineage(newest.is_none(), lineage))?;
    act(shared, &local, standing).await
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

async fn act(shared: &Arc<Shared>, local: &Local, standing: Standing) -> Result<()> {
    match standing {
        Standing::First => started(shared, None, true),
        Standing::Newest(last) => {
            adopt(shared, local, last).await?;
            started(shared, Some(last), local.is_ours())
        }
        Standing::Followed(last) | Standing::NewestAndMore(last) => {
            started(shared, Some(last), local.is_ours())
        }
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
    // What an earlier process left counts as a commit: whoever waits waits for it too.
    shared.commits.note_other();
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
    let claim = local.claim;
    blocking(shared, move |shared| {
        survey.known.adopt(last)?;
        shared.with_capture(|capture| match claim {
            // It was surveyed after it was opened: what was committed meanwhile is found by another look.
            Claim::Followed(_) => capture.lost("the state folder is older than the replica"),
            Claim::Unfollowed(_) => capture.adopt(last, None),
            _ => capture.adopt(last, Some(Origin::Compared)),
        })
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
