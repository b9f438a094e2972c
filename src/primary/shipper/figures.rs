//! Figures of one replica: what is counted of its rounds, and how it stands at one moment.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Desk, Phase, Shipper};
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::{Counter, HistogramValue, Seconds};
use crate::primary::maintenance::KeptLevel;
use crate::store::Fencing;

/// The rounds of a shipper.
#[derive(Debug, Default)]
pub(in crate::primary) struct Rounds {
    /// Files of level 0 that were sent.
    sent: Counter,
    /// Rounds that failed.
    failed: Counter,
    /// Time of the rounds that sent something or failed.
    time: Seconds,
}

impl Rounds {
    /// A file of level 0 is in the replica.
    pub(super) fn published(&self) {
        self.sent.one();
    }

    /// A round came to `outcome`, whether it sent anything, in `time`. What only waits for a lock or for the end of a
    /// connection is no failure.
    pub(super) fn note(&self, outcome: &Result<bool>, time: Duration) {
        match outcome {
            Ok(false) => return,
            Ok(true) => {}
            Err(e) if matches!(e.kind(), ErrorKind::Busy | ErrorKind::Interrupted) => return,
            Err(_) => self.failed.one(),
        }
        self.time.add(time);
    }
}

/// Requests of one kind to the store of a replica.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RequestFigures {
    /// The operation: `PUT`, `GET`, `DELETE`, `LIST`, `HEAD`.
    pub operation: String,
    /// How stores bill it.
    pub price_class: String,
    /// Requests, each attempt by itself.
    pub requests: u64,
    /// Bytes that they sent or received.
    pub bytes: u64,
}

/// How replication to one replica stands, and what was counted of it. A figure that is not known is `None`. Times are
/// milliseconds since the Unix epoch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReplicaFigures {
    /// Its name among the replicas of the database: the kind of store, with a number from the second of a kind on. No URL.
    pub name: String,
    /// Its URL, without secrets.
    pub url: String,
    /// What its shipper does, as [`Phase::name`] says it.
    pub state: String,
    /// The last transaction in the replica.
    pub txid: Option<u64>,
    /// When that was committed.
    pub time: Option<i64>,
    /// How long the oldest commit waits that is not in the replica, in milliseconds.
    pub lag: u64,
    /// Commits that are not in the replica.
    pub lag_transactions: u64,
    /// Pages that changed and whose content is in no file yet, beside those that the WAL index names.
    pub dirty_pages: Option<u64>,
    /// Local files that wait for the replica.
    pub outbox_files: Option<u64>,
    /// Their size in bytes.
    pub outbox_bytes: Option<u64>,
    /// What is wrong now.
    pub error: Option<String>,
    /// Since when each attempt fails.
    pub failing_since: Option<i64>,
    /// What was found and repaired last.
    pub notice: Option<String>,
    /// How well the store keeps two writers apart: `atomic`, `unproven` or `look first`.
    pub fencing: String,
    /// The files do not lead to what was published.
    pub has_hole: bool,
    /// The last transaction that is proven restorable, and when that was proven.
    pub verified: Option<(u64, i64)>,
    /// What the last verification found wrong.
    pub verification_error: Option<String>,
    /// Files of level 0 that were sent.
    pub syncs: u64,
    /// Rounds that failed.
    pub sync_errors: u64,
    /// Time of the rounds that sent something or failed, in seconds.
    pub sync_seconds: f64,
    /// How long snapshots took.
    pub snapshots: HistogramValue,
    /// How often files turned out to be damaged or missing when they were merged.
    pub broken: u64,
    /// Levels that have files, as last listed or changed.
    pub levels: Vec<KeptLevel>,
    /// The oldest time to which the replica can be restored.
    pub oldest: Option<i64>,
    /// Files of level 0 that may be deleted, are not merged yet, and are merged and stay for a while.
    pub l0: (u64, u64, u64),
    /// Requests to its store.
    pub requests: Vec<RequestFigures>,
}

impl ReplicaFigures {
    /// Whether replication to it works.
    pub fn is_up(&self) -> bool {
        self.state != Phase::Stopped.name() && self.state != Phase::Retrying.name()
    }
}

impl Shipper {
    /// Its figures at this moment. Waits for no request and no capture.
    pub(in crate::primary) fn figures(&self) -> ReplicaFigures {
        let mut figures = self.of_history();
        self.add_standing(&mut figures);
        self.add_outbox(&mut figures);
        figures.url = self.store.url();
        figures.fencing = match self.store.fencing() {
            Fencing::Atomic => "atomic",
            Fencing::Unproven => "unproven",
            Fencing::LookFirst => "look first",
        }
        .to_owned();
        figures.requests = self.requests_made();
        figures.syncs = self.rounds.sent.get();
        figures.sync_errors = self.rounds.failed.get();
        figures.sync_seconds = self.rounds.time.get();
        figures
    }

    /// How it stands at this moment, and nothing that is counted.
    pub(in crate::primary) fn standing(&self) -> ReplicaFigures {
        let mut figures = ReplicaFigures::default();
        self.add_standing(&mut figures);
        figures
    }

    /// What its history holds.
    fn of_history(&self) -> ReplicaFigures {
        let kept = self.history.figures.kept().unwrap_or_default();
        ReplicaFigures {
            snapshots: self.history.figures.snapshots.get(),
            broken: self.history.figures.broken.get(),
            levels: kept.levels,
            oldest: kept.oldest.map(|time| time.as_millis()),
            l0: (kept.l0_eligible, kept.l0_not_compacted, kept.l0_too_recent),
            ..ReplicaFigures::default()
        }
    }

    fn add_standing(&self, figures: &mut ReplicaFigures) {
        figures.lag = u64::try_from(self.lag().as_millis()).unwrap_or(u64::MAX);
        figures.has_hole = self.holes.error(self.store.as_ref()).is_some();
        let verified = self.proof.verified().clone();
        figures.verified = verified.proven.map(|(txid, at)| (txid.get(), at.as_millis()));
        figures.verification_error = verified.error.map(|error| error.to_string());
        let now = self.db.clock.now().as_millis() - self.db.clock.steady().as_millis();
        let progress = self.progress();
        figures.state = self.shown(&progress).0.name().to_owned();
        figures.txid = progress.txid.map(|txid| txid.get());
        figures.time = progress.time.map(|time| time.as_millis());
        figures.lag_transactions = self.db.commits.after(progress.acked);
        figures.failing_since = progress.failing_since().map(|since| now + since.as_millis());
        figures.notice = progress.shown_notice();
        figures.error = self.trouble(&progress).map(|error: Error| error.to_string());
    }

    /// What waits, unless a capture is under way.
    fn add_outbox(&self, figures: &mut ReplicaFigures) {
        let Ok(desk) = self.desk.try_lock() else { return };
        if let Desk::Open(capture) | Desk::Shelved(capture) = &*desk {
            figures.dirty_pages = Some(capture.dirty_pages());
            figures.outbox_files = Some(capture.spool.segments().len() as u64);
            figures.outbox_bytes = Some(capture.spool.bytes());
        }
    }

    fn requests_made(&self) -> Vec<RequestFigures> {
        let counted = self.store.requests().counted().into_iter();
        let figures = counted.map(|counted| RequestFigures {
            operation: counted.operation.name().to_owned(),
            price_class: counted.operation.price_class().to_owned(),
            requests: counted.requests,
            bytes: counted.bytes,
        });
        figures.collect()
    }
}
