//! The task that downloads the whole database, as long as somebody reads the replica.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::core::Core;
use super::hydration::check::Damaged;
use super::hydration::local::Local;
use super::hydration::{RECORD, complete};
use crate::error::{ErrorKind, Result};
use crate::runtime;

/// After an error the download pauses for this long, and twice as long after each further one, up to
/// [`LONGEST_PAUSE`].
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Begins to download for `core`, if it has a local file.
///
/// # Errors
/// `Io` if the runtime cannot be started.
pub(super) fn start(core: &Arc<Core>) -> Result<()> {
    if let Some(hydration) = core.hydration() {
        let task = runtime::handle()?.spawn(run(Arc::downgrade(core)));
        hydration.belongs_to(task.abort_handle());
    }
    Ok(())
}

/// Waits until the file is ours; `None` if the core is dropped before.
async fn local(core: &Weak<Core>) -> Option<Arc<Local>> {
    loop {
        {
            let core = core.upgrade()?;
            if let Some(local) = core.files.local() {
                return Some(local.clone());
            }
            let hydration = core.hydration()?;
            if let Err(e) = runtime::busy(true, || hydration.take(&core.files, &core.snapshot())) {
                hydration.note(&Err(e));
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Downloads until the core is dropped.
async fn run(core: Weak<Core>) {
    let Some(local) = local(&core).await else { return };
    let (mut pause, mut damaged) = (PAUSE, Damaged::default());
    // The log has a failure, and not yet its end.
    let mut is_told = false;
    loop {
        let outcome = {
            let Some(core) = core.upgrade() else { return };
            let files = core.files.clone();
            // The download does not keep the core alive.
            drop(core);
            complete(&files, &local, &mut damaged).await
        };
        let Some(upgraded) = core.upgrade() else { return };
        if let Some(hydration) = upgraded.hydration() {
            hydration.note(&outcome);
        }
        if damaged.take_news() {
            // SQLite may have pages of the file in its own caches.
            upgraded.renew().await;
        }
        match outcome {
            Ok(()) => {
                if std::mem::take(&mut is_told) {
                    tracing::warn!("hydration goes on");
                }
                pause = PAUSE;
                drop(upgraded);
                local.woken.notified().await;
                // What comes shortly after goes into the same record.
                tokio::time::sleep(RECORD).await;
            }
            Err(e) => {
                if !std::mem::replace(&mut is_told, true) {
                    tracing::warn!(error = %e, "hydration pauses");
                }
                if e.kind() == ErrorKind::NotFound {
                    // Files went: where their pages are now, the next poll says, or has said already.
                    let _ = upgraded.poll_suspiciously().await;
                }
                drop(upgraded);
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}
