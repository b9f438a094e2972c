//! How the open of the first connection waits for the decision whether its database may be published: no
//! program reads a database that is about to be brought forward.

use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::progress::Progress;
use super::{Phase, Shared};
use crate::error::{Error, ErrorKind, Result};
use crate::primary::publisher::{blocking, copy};
use crate::primary::stamp::Identity;
use crate::primary::survey::Survey;

/// How far the open of the first connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opening {
    /// It waits for the look at the replica.
    Waits,
    /// It waits until the database is brought forward.
    WaitsForForward,
    /// It is over: programs read and write the database.
    Over,
}

impl Progress {
    /// Whether the look at the replica came to an end, one way or another.
    fn is_decided(&self) -> bool {
        let is_over = matches!(self.phase, Phase::Stopped | Phase::Standby);
        self.resumed || is_over || self.error.is_some()
    }
}

impl Shared {
    /// Waits until it is decided how the database stands to its replica. A store that cannot be reached keeps
    /// it no longer than `patience`: then the decision is made when the store is back.
    /// The publisher that decides may have `ended`.
    pub(in crate::primary) fn wait_for_decision(&self, patience: Duration, ended: impl Fn() -> bool) {
        let deadline = Instant::now() + patience;
        let mut progress = self.progress();
        loop {
            let is_over = match progress.opening {
                Opening::Over => true,
                Opening::WaitsForForward => false,
                Opening::Waits => {
                    progress.is_decided() || (progress.local_known && Instant::now() >= deadline)
                }
            };
            if is_over || ended() {
                progress.opening = Opening::Over;
                return;
            }
            progress = self.wait_for_progress(progress, deadline);
        }
    }

    fn wait_for_progress<'a>(
        &self,
        progress: MutexGuard<'a, Progress>,
        deadline: Instant,
    ) -> MutexGuard<'a, Progress> {
        const LOOK: Duration = Duration::from_millis(100);
        let left = deadline.saturating_duration_since(Instant::now());
        let wait = if left.is_zero() { LOOK } else { left.min(LOOK) };
        self.progressed.wait_timeout(progress, wait).unwrap_or_else(PoisonError::into_inner).0
    }

    /// The database as it was opened is known.
    pub(in crate::primary) fn local_is_known(&self) {
        self.change(|p| p.local_known = true);
    }

    /// Whether the database may be brought forward, since the open still waits. It waits until
    /// [`Shared::end_forwarding`] then.
    pub(in crate::primary) fn begin_forwarding(&self) -> bool {
        let mut progress = self.progress();
        let may = progress.opening == Opening::Waits;
        if may {
            progress.opening = Opening::WaitsForForward;
        }
        may
    }

    /// The database was brought forward, or that failed.
    pub(in crate::primary) fn end_forwarding(&self) {
        self.change(|p| {
            if p.opening == Opening::WaitsForForward {
                p.opening = Opening::Waits;
            }
        });
    }

    /// The survey of the database as it was opened, or else as it is now.
    ///
    /// # Errors
    /// Those of the database and of the folder of local state.
    pub(in crate::primary) async fn survey(self: &Arc<Self>) -> Result<Arc<Survey>> {
        if let Some(survey) = self.surveyed().clone() {
            return Ok(survey);
        }
        let survey = blocking(self, |shared| {
            let gone = || Error::new(ErrorKind::NotFound, "the database has no pages");
            let pinned = copy::pin(shared)?.ok_or_else(gone)?;
            Survey::of(shared, pinned.pages)
        });
        self.set_survey(survey.await?);
        self.surveyed().clone().ok_or_else(|| self.closed())
    }

    fn surveyed(&self) -> MutexGuard<'_, Option<Arc<Survey>>> {
        self.surveyed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(in crate::primary) fn set_survey(&self, survey: Survey) {
        *self.surveyed() = Some(Arc::new(survey));
    }

    pub(in crate::primary) fn forget_survey(&self) {
        *self.surveyed() = None;
    }

    pub(in crate::primary) fn is_surveyed(&self) -> bool {
        self.surveyed().is_some()
    }

    /// Stops replication if the database file is not the one that was opened any more.
    ///
    /// # Errors
    /// `Conflict` that says what became of it.
    pub(in crate::primary) fn stop_without_file(&self) -> Result<()> {
        let checked = self.check_file();
        if let Err(e) = &checked
            && !self.is_standby()
            && self.stopped().is_none()
        {
            self.stop(e.clone());
        }
        checked
    }

    /// Makes sure that the database file is still the one that was opened.
    ///
    /// # Errors
    /// `Conflict` that says what became of it.
    pub(in crate::primary) fn check_file(&self) -> Result<()> {
        let what = match (self.file, Identity::of(&self.path)) {
            (Some(opened), Some(now)) if opened.is(&now) => return Ok(()),
            (None, _) => return Ok(()),
            (Some(_), Some(_)) => "was replaced by another file",
            (Some(_), None) => "was removed",
        };
        Err(Error::new(
            ErrorKind::Conflict,
            format!(
                "{} {what} while it was open: what is committed now goes to a file without a name, and is not \
                 replicated to {}. Close all connections to it, and restore it if it is lost",
                self.path.display(),
                self.store.url()
            ),
        ))
    }
}
