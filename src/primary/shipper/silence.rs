//! A store that says nothing. Where a database is opened for each request, each attempt would end with the request, and none
//! would ever fail: who closes counts the silence as a failure, and neither closes nor opens wait for that store any more.

use std::time::Duration;

use super::progress::Progress;
use super::state::Claim;
use super::{Phase, Shipper};
use crate::error::{Error, ErrorKind};

/// A store that answers nothing for this time, though it is asked, is silent.
const SILENT: Duration = Duration::from_secs(1);

/// What a shipper knows of a store that said nothing, for the one that comes after it.
#[derive(Clone, Debug)]
pub(in crate::primary) struct Silence(Error);

impl Shipper {
    /// Whether the store says nothing now, though it is asked.
    fn is_unanswered(&self) -> bool {
        self.store.requests().silence() >= SILENT
    }

    /// The time of the last close is over, or nothing has to be waited for. If the store said nothing, the attempt that is
    /// under way counts as failed; it goes on all the same.
    pub(in crate::primary) fn waited_in_vain(&self) {
        if !self.is_unanswered() {
            return;
        }
        let (phase, acked) = {
            let progress = self.progress();
            (progress.phase, progress.acked)
        };
        let is_behind = acked < self.db.commits.last().seq;
        match phase {
            Phase::Stopped | Phase::Standby => {}
            // It ends with the close, as what keeps the history does.
            Phase::Copying => self.expects(Silence(self.silent())),
            Phase::Idle if !is_behind => self.expects(Silence(self.silent())),
            _ => self.failed(self.silent()),
        }
    }

    fn silent(&self) -> Error {
        let seconds = self.store.requests().silence().as_secs_f64().round();
        let message = format!(
            "{} did not answer within {seconds} s; check the endpoint and the network, and whether the store runs",
            self.store.url()
        );
        Error::new(ErrorKind::Timeout, message)
    }

    /// What the shipper that comes after this one is to know, if the store says nothing.
    pub(in crate::primary) fn silence(&self) -> Option<Silence> {
        let progress = self.progress();
        let failure = progress.error.as_ref().filter(|e| e.kind() == ErrorKind::Timeout);
        let failure = failure.or(progress.expected.as_ref());
        let lasts = progress.phase != Phase::Stopped && !self.has_succeeded(&progress);
        failure.filter(|_| lasts).cloned().map(Silence)
    }

    /// The store said nothing to the shipper before this one: until it does, that is the failure of the last attempt.
    pub(in crate::primary) fn expects(&self, Silence(error): Silence) {
        let succeeded = self.store.requests().succeeded();
        self.change(|p| (p.expected, p.succeeded) = (Some(error), succeeded));
    }

    /// Whether the store did something since the last failure.
    fn has_succeeded(&self, progress: &Progress) -> bool {
        self.store.requests().succeeded() > progress.succeeded
    }

    /// Whether the store did something again since an attempt failed because it said nothing, or failed to say how the database
    /// stands to the replica. What is under way may succeed then: it is waited for.
    pub(super) fn answers_again(&self, progress: &Progress) -> bool {
        let was_silent = progress.error.as_ref().is_some_and(|e| e.kind() == ErrorKind::Timeout);
        (was_silent || !progress.resumed) && self.has_succeeded(progress)
    }

    /// Whether all is in a replica that cannot be looked at, as its store says nothing: then the last close has nothing to
    /// wait for.
    pub(in crate::primary) fn has_all_there(&self) -> bool {
        if self.is_resumed() || !(self.is_unanswered() || self.silence().is_some()) {
            return false;
        }
        let has_all = self.with_capture(|capture| {
            let is_followed = matches!(capture.claim(), Claim::Followed(_)) && capture.origin().is_none();
            let is_sent = capture.sent().is_empty() && !capture.is_back() && !capture.is_forced();
            is_followed && is_sent && matches!(capture.has_something(&self.db), Ok(false))
        });
        has_all.unwrap_or(false)
    }
}
