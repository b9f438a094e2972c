//! States other than the latest, for connections that ask for one.

use std::sync::Arc;

use super::core::Core;
use super::files::Files;
use super::plan::{RestorePoint, empty};
use super::snapshot::Snapshot;
use crate::error::{ErrorKind, Result};
use crate::runtime;

/// Files may vanish between being listed and being read this many times in a row.
const ATTEMPTS: usize = 3;

impl Core {
    /// Whether the latest state was never read.
    pub(super) fn lacks_latest(&self) -> bool {
        self.polls().no_latest.is_some()
    }

    /// Makes sure that the latest state was read: if it could not be before, what was in the way may be gone by now.
    ///
    /// # Errors
    /// What is in the way; `Interrupted` as soon as `interrupted` says so.
    pub(super) fn reach_latest(self: &Arc<Self>, interrupted: impl Fn() -> bool) -> Result<()> {
        if !self.lacks_latest() {
            return Ok(());
        }
        self.poll_unless(interrupted)?;
        match &self.polls().no_latest {
            Some(e) => Err(e.clone()),
            None => Ok(()),
        }
    }

    /// The state of the database at `point`; the latest one does not follow.
    ///
    /// # Errors
    /// `NotFound` if the replica does not reach the point, with the range that it covers; those of the
    /// store; `Corrupt`; `Interrupted` as soon as `interrupted` says so.
    pub fn at(
        self: &Arc<Self>,
        point: RestorePoint,
        interrupted: impl Fn() -> bool,
    ) -> Result<Arc<Snapshot>> {
        if point == RestorePoint::Latest {
            return Ok(self.snapshot());
        }
        let core = self.clone();
        runtime::wait_for(interrupted, async move {
            let mut attempt = 1;
            loop {
                match core.find(&core.files, point).await {
                    Err(e) if e.kind() == ErrorKind::NotFound && attempt < ATTEMPTS => attempt += 1,
                    found => return found,
                }
            }
        })
    }

    async fn find(&self, files: &Files, point: RestorePoint) -> Result<Arc<Snapshot>> {
        let plan = files.source.survey(point).await?.ok_or_else(empty)?.plan;
        let current = self.snapshot();
        if let RestorePoint::Timestamp(time) = point
            && plan.txid() < current.txid
            && current.timestamp <= time
        {
            // The listing is one of before: a later state of that time was seen.
            return Ok(current);
        }
        // After a reset the same TXID is another state.
        let alike = |s: &Snapshot| s.txid == plan.txid() && s.epoch == current.epoch;
        if let Some(past) = self.pasts.find(alike) {
            return Ok(past);
        }
        let past = Arc::new(files.build(&plan, &current.map(), current.epoch).await?);
        self.pasts.add(&past);
        Ok(past)
    }
}
