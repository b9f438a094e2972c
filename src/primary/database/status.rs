//! How replication of one database stands.

use std::path::PathBuf;
use std::time::Duration;

use super::{CommitWaits, Primary};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind};
use crate::ltx::Txid;
use crate::primary::ownership::Report;
use crate::primary::shipper::{Phase, Shipper};
use crate::store::Fencing;

/// How replication of one database to one replica stands.
#[derive(Clone, Debug)]
pub struct Status {
    /// The database file.
    pub path: PathBuf,
    /// The replica.
    pub url: String,
    /// What its shipper is doing.
    pub phase: Phase,
    /// The last transaction in the replica.
    pub txid: Option<Txid>,
    /// When that was committed.
    pub time: Option<Timestamp>,
    /// How long the oldest commit waits that is not in the replica.
    pub lag: Duration,
    /// Local files that wait for the replica.
    pub waiting_files: usize,
    /// Their size in bytes.
    pub waiting_bytes: u64,
    /// How well the store keeps two writers apart.
    pub fencing: Fencing,
    /// The first transaction that is sealed, and to whom, shortened; `None` if the replica is not sealed.
    pub sealed: Option<(Txid, String)>,
    /// What was found and repaired last.
    pub notice: Option<String>,
    /// The last transaction that is proven restorable, and when that was proven.
    pub verified: Option<(Txid, Timestamp)>,
    /// What is wrong now; also if it is another process that publishes.
    pub error: Option<Error>,
    /// How many commits of this process waited for replicas, and how long; `None` if none did.
    pub waits: Option<CommitWaits>,
    /// How many of them each upload took along; `None` if none did, or if another process publishes.
    pub commits_per_upload: Option<f64>,
}

/// Position of a replica, and by how much it is behind.
pub(super) struct Standing {
    txid: Option<Txid>,
    time: Option<Timestamp>,
    lag: Duration,
}

impl Primary {
    /// The last transaction in the first replica.
    pub fn txid(&self) -> Option<Txid> {
        self.standing().txid
    }

    /// When the last transaction in the first replica was committed.
    pub fn time(&self) -> Option<Timestamp> {
        self.standing().time
    }

    /// How long the oldest commit waits that is not in the first replica.
    pub fn lag(&self) -> Duration {
        self.standing().lag
    }

    /// Position and lag of the first replica as the process that publishes knows them.
    fn standing(&self) -> Standing {
        let report = self.owner.reports().and_then(|reports| reports.into_iter().next());
        if let Some(report) = report {
            return Standing { txid: report.txid(), time: report.time(), lag: report.lag() };
        }
        let lag = self.first().lag();
        let progress = self.first().progress();
        Standing { txid: progress.txid, time: progress.time, lag }
    }

    /// How replication stands, for each replica in the order in which they were named, as far as the process that
    /// publishes says so.
    pub fn status(&self) -> Vec<Status> {
        let _ = self.stop_without_file();
        match self.owner.reports() {
            Some(reports) => self
                .shippers()
                .iter()
                .zip(&reports)
                .map(|(shipper, report)| self.status_by(shipper, report))
                .collect(),
            None => self.shippers().iter().map(|shipper| self.own_status(shipper)).collect(),
        }
    }

    fn status_by(&self, shipper: &Shipper, report: &Report) -> Status {
        let error = report.error.as_ref().map(|text| Error::new(ErrorKind::Unavailable, text.clone()));
        let progress = shipper.progress();
        Status {
            path: self.path().to_path_buf(),
            url: shipper.store.url(),
            phase: progress.phase,
            txid: report.txid(),
            time: report.time(),
            lag: report.lag(),
            waiting_files: report.waiting_files,
            waiting_bytes: report.waiting_bytes,
            fencing: shipper.store.fencing(),
            sealed: shipper.sealed_since(),
            notice: progress.shown_notice().or_else(|| report.notice.clone()),
            verified: report.verified(),
            error,
            waits: self.waits.summary(),
            commits_per_upload: None,
        }
    }

    fn own_status(&self, shipper: &Shipper) -> Status {
        let (waiting_files, waiting_bytes) = shipper.waiting_files();
        let lag = shipper.lag();
        let verified = shipper.proof.verified().proven;
        let waits = self.waits.summary();
        let progress = shipper.settled_progress();
        Status {
            path: self.path().to_path_buf(),
            url: shipper.store.url(),
            phase: shipper.shown(&progress).0,
            txid: progress.txid,
            time: progress.time,
            lag,
            waiting_files,
            waiting_bytes,
            fencing: shipper.store.fencing(),
            sealed: shipper.sealed_since(),
            notice: progress.shown_notice(),
            verified,
            error: shipper.trouble(&progress),
            waits,
            commits_per_upload: waits.and_then(|waits| progress.commits_per_upload(waits.count)),
        }
    }
}
