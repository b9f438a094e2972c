//! What a shipper knows of the database as it was opened, until it is decided whether that may be published.

use std::sync::{Arc, MutexGuard, PoisonError};

use super::progress::Progress;
use super::survey::Survey;
use super::{Phase, Shipper, blocking, copy};
use crate::error::{Error, ErrorKind, Result};

impl Progress {
    /// Whether the look at the replica came to an end, one way or another.
    pub(super) fn is_decided(&self) -> bool {
        let is_over = matches!(self.phase, Phase::Stopped | Phase::Standby);
        self.resumed || is_over || self.error.is_some()
    }
}

impl Shipper {
    /// Whether the look at the replica came to an end, one way or another.
    pub(in crate::primary) fn is_decided(&self) -> bool {
        self.progress().is_decided()
    }

    /// Whether the database as it was opened is known, so that a program may write it.
    pub(in crate::primary) fn is_local_known(&self) -> bool {
        let progress = self.progress();
        progress.local_known || progress.is_decided()
    }

    /// The database as it was opened is known.
    pub(super) fn local_is_known(&self) {
        self.change(|p| {
            p.local_known = true;
            if let Some(error) = p.expected.take().filter(|_| p.phase != Phase::Stopped) {
                p.fails(error, self.store.requests().succeeded());
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
        let survey = blocking(self, |shipper| {
            let gone = || Error::new(ErrorKind::NotFound, "the database has no pages");
            let pinned = copy::pin(shipper)?.ok_or_else(gone)?;
            Survey::of(shipper, pinned.pages)
        });
        self.set_survey(survey.await?);
        self.surveyed().clone().ok_or_else(|| self.db.closed())
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
}
