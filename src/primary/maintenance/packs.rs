//! Packs of large files, for readers: written when the file is, removed with it.
//!
//! Nothing depends on a pack, so what goes wrong with one is told in the log and forgotten.

use std::sync::Arc;

use super::inventory::Inventory;
use crate::error::Result;
use crate::replica::Packed;
use crate::store::Replica;

/// The packs of a replica, as its only writer keeps them.
#[derive(Clone, Debug)]
pub(super) struct Packs {
    store: Arc<Replica>,
    is_on: bool,
}

impl Packs {
    /// None are written unless `is_on`.
    pub(super) fn new(store: Arc<Replica>, is_on: bool) -> Self {
        Self { store, is_on }
    }

    /// Whether large files get one.
    pub(super) fn are_on(&self) -> bool {
        self.is_on
    }

    /// Writes a pack, unless `stop` ends before that.
    pub(super) async fn write(&self, pack: Packed, stop: impl Future<Output = ()>) {
        let (id, size) = (pack.id, pack.bytes.len());
        let written = tokio::select! {
            biased;
            written = self.store.put_pack(id, pack.bytes, pack.timestamp) => written,
            () = stop => return,
        };
        match written {
            Ok(()) => tracing::info!("{}: the pack of {id} has {size} bytes", self.store.url()),
            Err(e) => tracing::info!(
                "{}: {id} has no pack, so readers need more round trips: {e}",
                self.store.url()
            ),
        }
    }

    /// Removes the packs of files that are not among `files`: whoever deleted those left them.
    pub(super) async fn sweep(&self, files: &Inventory) {
        let swept: Result<usize> = async {
            let mut packs = self.store.packs().await?;
            packs.retain(|id| !files.is_taken(*id));
            self.store.delete_packs(&packs).await?;
            Ok(packs.len())
        }
        .await;
        match swept {
            Ok(0) => {}
            Ok(count) => {
                tracing::info!("{}: {count} packs were left of files that are gone", self.store.url())
            }
            Err(e) => tracing::info!("{}: packs of files that are gone may be left: {e}", self.store.url()),
        }
    }
}
