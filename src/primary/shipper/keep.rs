//! The background task that keeps the history of a replica. It sleeps without a timer while there is
//! nothing that will be due.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt as _;

use super::{Shipper, snapshot};
use crate::error::ErrorKind;
use crate::events;
use crate::primary::maintenance::Compactor;
use crate::runtime;

/// Keeps the history of a database until the task is aborted. A bug ends it, with an error in status.
pub(super) async fn run(shipper: Arc<Shipper>) {
    let mut compactor = Compactor::new(
        Arc::clone(&shipper.store),
        (shipper.options.pack, Arc::clone(&shipper.seals)),
        shipper.settings.clone(),
        Arc::clone(&shipper.time),
        Arc::clone(&shipper.history),
        shipper.folder.clone(),
    );
    if let Err(panic) = AssertUnwindSafe(keep(&shipper, &mut compactor)).catch_unwind().await {
        let error = runtime::bug(&*panic).context("no files are merged and deleted until the next open");
        tracing::error!(db = %shipper.db.path.display(), "{}: {error}", shipper.db.path.display());
        // In the status first: whoever is answered finds it there.
        shipper.history.failed(error.clone());
        compactor.answer_all(&error);
    }
}

async fn keep(shipper: &Arc<Shipper>, compactor: &mut Compactor) {
    // The log has a failure, and not yet its end.
    let mut is_told = false;
    // Damaged files that were told of.
    let mut known = BTreeSet::new();
    loop {
        if let Some(view) = shipper.take_snapshot_view() {
            match snapshot::send(shipper, view).await {
                Ok((written, pack)) => {
                    tracing::info!("{}: {} is a snapshot", shipper.name(), written.id);
                    shipper.history.found_snapshot(written);
                    if let Some(pack) = pack {
                        shipper.history.found_pack(pack);
                    }
                    shipper.drop_snapshot_view();
                }
                Err(e) => {
                    tracing::warn!("{}: {e}", shipper.name());
                    compactor.snapshot_failed(e);
                }
            }
        }
        match compactor.round().await {
            // The publisher ends replication.
            Err(e) if e.kind() == ErrorKind::Conflict => {
                shipper.history.end();
                shipper.signal.hurry();
            }
            // The publisher logs a store that cannot be reached.
            Err(_) if is_told || shipper.has_failed() => {}
            Err(e) => {
                tracing::warn!(db = %shipper.db.path.display(), "{}: {e}", shipper.db.path.display());
                is_told = true;
            }
            Ok(()) if std::mem::take(&mut is_told) => {
                tracing::warn!(
                    "{}: the history of {} is kept again",
                    shipper.db.path.display(),
                    shipper.store.url()
                );
            }
            Ok(()) => {}
        }
        if let Some(refusal) = shipper.history.take_refusal() {
            shipper.shows(refusal.to_string());
        }
        let damaged = shipper.history.damaged();
        if let Some(first) = damaged.difference(&known).next() {
            let text = format!("{} files are damaged, {first} the first", damaged.difference(&known).count());
            shipper.begins(&events::CORRUPTION_DETECTED, &text);
        }
        if damaged.is_empty() && !known.is_empty() {
            shipper.ends(&events::CORRUPTION_DETECTED);
        }
        known = damaged;
        if shipper.history.take_doubt() {
            shipper.doubt_replica();
        }
        if shipper.wants_view() {
            // Whoever asked for the snapshot waits for the file whose view it is made of.
            shipper.signal.hurry();
        }
        compactor.look_whether_ended();
        compactor.rest().await;
    }
}
