//! Where the pages of a state went when its files were merged or removed.
//!
//! A state that some transaction still reads is found again in four ways, in this order:
//! - The replica holds it by itself: a plan leads to just this transaction.
//! - A file of it was merged into one that ends no later than the state: all its pages are there.
//! - A page was not changed since: it is where the latest state has it.
//! - It was changed, and its file was small: it was kept when the file was read.
//!
//! What none of these finds is an error for that transaction; the next one reads the latest state.

use std::sync::{Arc, PoisonError};

use super::core::Core;
use super::files::{Files, gone};
use super::map::PageMap;
use super::plan::{Plan, RestorePoint};
use super::snapshot::Snapshot;
use crate::error::{Error, Result};
use crate::store::FileInfo;

impl Files {
    /// Finds the pages of `snapshot` again after files of it were compacted or removed.
    ///
    /// # Errors
    /// Those of the store; `NotFound` if the replica no longer holds that state by itself and nothing
    /// that helps.
    pub(super) async fn relocate(&self, snapshot: &Snapshot) -> Result<()> {
        let listed = self.source.list_all_upwards().await?;
        if !snapshot.map().files().any(|file| listed.contains(&file.info)) {
            return Err(gone(snapshot, &"the replica has none of its files any more"));
        }
        match Plan::new(&listed, RestorePoint::Txid(snapshot.txid)) {
            Ok(plan) => self.relocate_by(snapshot, &plan).await,
            Err(e) => self.relocate_within(snapshot, &listed, &e).await,
        }
    }

    async fn relocate_by(&self, snapshot: &Snapshot, plan: &Plan) -> Result<()> {
        let map = self.absorb(snapshot, plan.files()).await?;
        if map.files().all(|file| plan.files().contains(&file.info)) {
            snapshot.moved(map);
            return Ok(());
        }
        let rebuilt = self.build(plan, &map, snapshot.epoch).await?;
        if (rebuilt.txid, rebuilt.commit) != (snapshot.txid, snapshot.commit) {
            return Err(gone(snapshot, &"the replica has another history now"));
        }
        snapshot.moved((*rebuilt.map()).clone());
        Ok(())
    }

    /// Moves what can be moved when the replica has merged the state with what came after it.
    async fn relocate_within(&self, snapshot: &Snapshot, listed: &[FileInfo], why: &Error) -> Result<()> {
        let covers = covers(&snapshot.map(), snapshot, listed);
        if covers.is_empty() {
            return Err(gone(snapshot, why));
        }
        snapshot.moved(self.absorb(snapshot, &covers).await?);
        Ok(())
    }
}

/// For each file of `map` that is no longer there, one that was made of it and of others, and that ends
/// no later than `snapshot`.
fn covers(map: &PageMap, snapshot: &Snapshot, listed: &[FileInfo]) -> Vec<FileInfo> {
    let mut covers: Vec<FileInfo> = Vec::new();
    for file in map.files().filter(|file| !listed.contains(&file.info)) {
        let name = file.info.id.name;
        let found = listed.iter().filter(|f| {
            let over = f.id.name;
            over.min() <= name.min() && over.max() >= name.max() && over.max() <= snapshot.txid
        });
        if let Some(found) = found.max_by_key(|f| f.id.name.max()).filter(|f| !covers.contains(f)) {
            covers.push(found.clone());
        }
    }
    covers
}

impl Core {
    /// Tells all states that transactions still read, and the current one, where pages went: `before`
    /// and `after` are of one state.
    pub(super) fn spread(&self, before: &Arc<PageMap>, after: &Arc<PageMap>) {
        for snapshot in self.older().into_iter().chain([self.snapshot()]) {
            let _alone = snapshot.moving.lock().unwrap_or_else(PoisonError::into_inner);
            let mut map = (*snapshot.map()).clone();
            map.follow(before, after);
            snapshot.moved(map);
        }
        if let Some(local) = self.files.local() {
            local.follow(before, after);
        }
    }
}
