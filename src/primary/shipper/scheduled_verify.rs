//! Proof that the replica restores, in the background: every `verify_interval` it is read as
//! [`crate::verify`] does, if it changed since.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt as _;

use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::events;
use crate::ltx::Txid;
use crate::primary::shipper::{Phase, Shipper};
use crate::runtime;
use crate::verify::{self, Outcome, Problem, Severity};

/// What the last verification told.
#[derive(Clone, Debug, Default)]
pub(in crate::primary) struct Verified {
    /// The last transaction that is proven restorable, and when that was proven.
    pub(in crate::primary) proven: Option<(Txid, Timestamp)>,
    /// What is wrong with the replica.
    pub(in crate::primary) error: Option<Error>,
}

/// What is known, and how to stop learning more.
#[derive(Debug, Default)]
pub(in crate::primary) struct Proof {
    verified: Mutex<Verified>,
    stop: Arc<AtomicBool>,
}

impl Proof {
    /// What is known now.
    pub(in crate::primary) fn verified(&self) -> MutexGuard<'_, Verified> {
        self.verified.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends a verification that is under way.
    pub(in crate::primary) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    fn note(&self, outcome: &Outcome, url: &str, now: Timestamp) {
        let mut verified = self.verified();
        if let Some(proven) = outcome.proven {
            verified.proven = Some((proven.txid, now));
        }
        let errors = || outcome.findings.iter().filter(|f| f.severity == Severity::Error);
        verified.error = errors().next().map(|first| {
            Error::corrupt(format!(
                "verification found {} problem(s) of replica {url}, the first: {}; litestream_verify tells all",
                errors().count(),
                first.message
            ))
        });
    }
}

/// Verifies now and then until the task is aborted. A bug ends it, with an error in status.
pub(super) async fn run(shipper: Arc<Shipper>) {
    if let Err(panic) = AssertUnwindSafe(verify_always(&shipper)).catch_unwind().await {
        let error = runtime::bug(&*panic).context("verification of the replica ended");
        tracing::error!(db = %shipper.db.path.display(), "{}: {error}", shipper.db.path.display());
        shipper.proof.verified().error = Some(error);
    }
}

/// Verifies one file at a time, so that it is not noticed.
async fn verify_always(shipper: &Arc<Shipper>) {
    let mut last = None;
    loop {
        tokio::time::sleep(shipper.options.verify_interval).await;
        let (phase, txid) = {
            let progress = shipper.progress();
            (progress.phase, progress.txid)
        };
        if txid.is_none() || txid == last || phase == Phase::Standby {
            continue;
        }
        let verifying = Arc::clone(shipper);
        match runtime::long_blocking(move || verify(&verifying)).await {
            Ok(()) => last = txid,
            Err(e) => {
                let e = e.context("cannot verify the replica");
                tracing::warn!(db = %shipper.db.path.display(), "{}: {e}", shipper.db.path.display());
                // What passes is told of by the publisher, and does not stand in status until the next time.
                if !e.is_transient() {
                    shipper.proof.verified().error = Some(e);
                }
            }
        }
    }
}

fn verify(shipper: &Shipper) -> Result<()> {
    let options = verify::Options {
        quick: false,
        parallelism: 1,
        thinned: shipper.settings.thins(shipper.time.now()),
        stop: Arc::clone(&shipper.proof.stop),
    };
    let outcome = verify::verify(Arc::clone(&shipper.store), &options)?;
    shipper.proof.note(&outcome, &shipper.store.url(), shipper.db.clock.now());
    let failed = shipper.proof.verified().error.clone();
    match failed {
        Some(error) => shipper.begins(&events::VERIFICATION_FAILED, &error.to_string()),
        None => {
            shipper.ends(&events::VERIFICATION_FAILED);
            shipper.ends(&events::CORRUPTION_DETECTED);
        }
    }
    let errors = outcome.findings.iter().filter(|finding| finding.severity == Severity::Error);
    if errors.clone().next().is_some() {
        let damaged = errors.filter(|finding| finding.problem == Problem::Corrupt);
        shipper.history.note_damaged(damaged.filter_map(|finding| finding.file));
        shipper.doubt_replica();
    }
    Ok(())
}
