//! Where the pages of a state went when its files were merged or removed.
//!
//! A state that some transaction still reads is found again in four ways, in this order:
//! - The replica holds it by itself: a plan leads to just this transaction.
//! - A file of it was merged into one that ends no later than the state: all its pages are there.
//! - A page was not changed since: it is where the latest state has it.
//! - It was changed, and its file was not large: that was kept when it was found.
//!
//! What none of these finds is an error for that transaction; the next one reads the latest state.

use std::sync::{Arc, PoisonError};

use futures_util::StreamExt as _;

use super::core::Core;
use super::files::{Files, gone};
use super::keep::Kept;
use super::map::{PageMap, ReplicaFile};
use super::plan::{Plan, RestorePoint};
use super::snapshot::Snapshot;
use super::source::wrong_length;
use super::verdict::Verdict;
use crate::error::{Error, ErrorKind, Result};
use crate::ltx::Level;
use crate::runtime;
use crate::store::{ByteRange, FileInfo};

/// Larger files of level 0 are not kept.
const LARGEST_KEPT: u64 = 16 * 1024 * 1024;

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

impl Files {
    /// Keeps the files of level 0 that `map` needs and that did not come whole: they are the ones that
    /// are removed soon, merged with what comes after them. What goes wrong otherwise is left for later: the
    /// file is read page by page, as long as it is there.
    ///
    /// # Errors
    /// `NotFound` if one is gone already.
    pub(super) async fn keep_large(&self, map: &PageMap) -> Result<()> {
        let is_large = |file: &&Arc<ReplicaFile>| {
            let FileInfo { id, size, .. } = file.info;
            let is_change = id.level == Level::L0 && !id.name.is_snapshot();
            let is_wanted = file.kept.get().is_none() && !file.verdict.is(Verdict::Damaged);
            is_change && is_wanted && size <= LARGEST_KEPT
        };
        let files: Vec<_> = map.files().filter(is_large).cloned().collect();
        for file in files {
            match self.download_whole(&file.info).await {
                Ok(kept) => {
                    let _ = file.kept.set(kept);
                    file.verdict.set(Verdict::Whole);
                }
                Err(e) if e.kind() == ErrorKind::Corrupt => {
                    tracing::error!(error = %e, "a file of the replica is damaged; its pages are not served");
                    file.verdict.set(Verdict::Damaged);
                }
                Err(e) if e.kind() == ErrorKind::NotFound => return Err(e),
                Err(e) => tracing::debug!(file = %file.info.id, error = %e, "cannot keep a file"),
            }
        }
        Ok(())
    }

    /// Downloads a file and compares its checksum; once more, if that fails.
    async fn download_whole(&self, file: &FileInfo) -> Result<Kept> {
        let checked = |kept: Kept| {
            let passed = runtime::busy(true, || kept.verify(file.size, self.source.keyring()));
            passed.map(|()| kept).map_err(|e| e.context(file.id))
        };
        match self.download(file).await.and_then(checked) {
            Err(e) if e.kind() == ErrorKind::Corrupt => self.download(file).await.and_then(checked),
            done => done,
        }
    }

    async fn download(&self, file: &FileInfo) -> Result<Kept> {
        let failed = |e| Error::io("cannot write a temporary file", e);
        let (mut body, len) = self.source.stream(file, ByteRange::All).await?;
        let mut draft = self.keep.draft(len).map_err(failed)?;
        while let Some(bytes) = body.next().await.transpose()? {
            draft.write(&bytes).map_err(failed)?;
        }
        if draft.is_whole() { Ok(draft.finish()) } else { Err(wrong_length(file, 0, len)) }
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
