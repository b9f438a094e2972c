//! Figures of one database: how its replicas stand, and what was counted of it in this process.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot::Receiver;

use super::Primary;
use crate::files;
use crate::metrics::{Counter, Seconds};
use crate::primary::ownership::Report;
use crate::primary::shipper::{ReplicaFigures, Shipper};
use crate::store::FileInfo;

/// How a checkpoint was made, as far as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckpointMode {
    /// Beside readers and writers.
    Passive,
    /// With writers kept off.
    Full,
    /// And the next writer begins the WAL again.
    Restart,
    /// And the WAL was cut to nothing.
    Truncate,
}

impl CheckpointMode {
    /// All of them.
    const ALL: [Self; 4] = [Self::Passive, Self::Full, Self::Restart, Self::Truncate];

    /// Its name, as Litestream's metrics have it.
    const fn name(self) -> &'static str {
        match self {
            Self::Passive => "PASSIVE",
            Self::Full => "FULL",
            Self::Restart => "RESTART",
            Self::Truncate => "TRUNCATE",
        }
    }
}

/// The checkpoints of connections of this process, by mode.
#[derive(Debug, Default)]
pub(super) struct Checkpoints([Checkpointed; CheckpointMode::ALL.len()]);

#[derive(Debug, Default)]
struct Checkpointed {
    count: Counter,
    failed: Counter,
    time: Seconds,
}

impl Checkpoints {
    fn figures(&self) -> Vec<CheckpointFigures> {
        let figures = CheckpointMode::ALL.iter().zip(&self.0).map(|(mode, made)| CheckpointFigures {
            mode: mode.name().to_owned(),
            count: made.count.get(),
            errors: made.failed.get(),
            seconds: made.time.get(),
        });
        figures.filter(|figures| figures.count > 0).collect()
    }
}

/// The checkpoints of one mode.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CheckpointFigures {
    /// The mode.
    pub mode: String,
    /// How many there were.
    pub count: u64,
    /// Those in which the database file could not be written.
    pub errors: u64,
    /// Time that they took, in seconds.
    pub seconds: f64,
}

/// How a database and its replicas stand, and what was counted of it in one process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DatabaseFigures {
    /// The database file.
    pub path: String,
    /// The process that these figures are of.
    pub pid: u32,
    /// That process publishes the database; else another one does, and what is said of replicas is what that one told.
    pub publishes: bool,
    /// The size of the database file in bytes.
    pub db_size: Option<u64>,
    /// The size of its WAL in bytes; 0 if there is none.
    pub wal_size: u64,
    /// Space that is left on its disk, in bytes.
    pub disk_free: Option<u64>,
    /// Bytes of the frames that were committed to the WAL.
    pub wal_bytes: u64,
    /// Checkpoints that were made.
    pub checkpoints: Vec<CheckpointFigures>,
    /// Commits that waited for replicas.
    pub commit_waits: u64,
    /// Time that they waited, in seconds.
    pub commit_wait_seconds: f64,
    /// Its replicas, in the order in which they were named.
    pub replicas: Vec<ReplicaFigures>,
}

impl Primary {
    /// A connection of this process made a checkpoint, in `time`; it `failed` if the database file could not be written.
    pub fn checkpointed(&self, mode: CheckpointMode, time: Duration, failed: bool) {
        let made = &self.checkpoints.0[mode as usize];
        made.count.one();
        made.time.add(time);
        if failed {
            made.failed.one();
        }
    }

    /// The figures of the database. Where another process publishes it, what that one says of the replicas is waited for,
    /// half a second at most, if `ask_publisher`.
    pub fn figures(&self, ask_publisher: bool) -> DatabaseFigures {
        let (commit_waits, time) = self.waits.total();
        let size = |path| std::fs::metadata(path).ok().map(|meta| meta.len());
        let reports = if ask_publisher { self.owner.reports() } else { None };
        let mut replicas: Vec<ReplicaFigures> =
            self.shippers().iter().map(|shipper| shipper.figures()).collect();
        for (figures, name) in replicas.iter_mut().zip(names(self.shippers())) {
            figures.name = name;
        }
        for (figures, report) in replicas.iter_mut().zip(reports.iter().flatten()) {
            take_over(figures, report);
        }
        DatabaseFigures {
            path: self.path().display().to_string(),
            pid: std::process::id(),
            publishes: !self.owner.is_standby(),
            db_size: size(&self.db.path),
            wal_size: size(&self.db.wal_path).unwrap_or(0),
            disk_free: files::free_space(&self.db.path),
            wal_bytes: self.db.commits.wal_bytes(),
            checkpoints: self.checkpoints.figures(),
            commit_waits,
            commit_wait_seconds: time.as_secs_f64(),
            replicas,
        }
    }

    /// Whether it is the database `path`, as [`DatabaseFigures::path`] has it.
    pub fn is_at(&self, path: &str) -> bool {
        self.path().display().to_string() == path
    }

    /// Whether this process publishes it.
    pub fn publishes(&self) -> bool {
        !self.owner.is_standby()
    }

    /// The files of the replica `name`, as far as they are known without a request to the store.
    pub fn files_of(&self, name: &str) -> Option<Receiver<Vec<FileInfo>>> {
        let at = names(self.shippers()).position(|other| other == name)?;
        Some(self.shippers()[at].history.ask_for_files())
    }
}

/// The names of replicas: the kind of store, with a number from the second of a kind on.
fn names(shippers: &[Arc<Shipper>]) -> impl Iterator<Item = String> + '_ {
    shippers.iter().enumerate().map(|(at, shipper)| {
        let kind = shipper.store.kind();
        match shippers[..at].iter().filter(|other| other.store.kind() == kind).count() {
            0 => kind.to_owned(),
            n => format!("{kind}-{}", n + 1),
        }
    })
}

/// Takes what the process that publishes says of a replica.
fn take_over(figures: &mut ReplicaFigures, report: &Report) {
    figures.txid = report.txid;
    figures.time = report.time;
    figures.lag = report.lag().as_millis() as u64;
    (figures.outbox_files, figures.outbox_bytes) =
        (Some(report.waiting_files as u64), Some(report.waiting_bytes));
    figures.verified = report.verified;
    figures.error.clone_from(&report.error);
    if !report.phase.is_empty() {
        figures.state.clone_from(&report.phase);
    }
    (figures.failing_since, figures.has_hole) = (report.failing_since, report.has_hole);
    let unrestorable = || "the process that publishes found that it cannot be restored".to_owned();
    figures.verification_error = report.fails_verification.then(unrestorable);
    figures.notice = figures.notice.take().or_else(|| report.notice.clone());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::primary::Phase;

    #[test]
    fn a_standby_stands_as_its_publisher_does() {
        let own = || ReplicaFigures { state: Phase::Standby.name().to_owned(), ..ReplicaFigures::default() };
        let told = |report: Report| {
            let mut figures = own();
            take_over(&mut figures, &report);
            figures
        };
        let stopped = told(Report { phase: Phase::Stopped.name().to_owned(), ..Report::default() });
        assert!(own().is_up() && !stopped.is_up());
        let retrying = Report {
            phase: Phase::Retrying.name().to_owned(),
            failing_since: Some(7),
            has_hole: true,
            fails_verification: true,
            ..Report::default()
        };
        let retrying = told(retrying);
        assert!(!retrying.is_up() && retrying.has_hole && retrying.verification_error.is_some());
        assert_eq!(retrying.failing_since, Some(7));
        // A version that does not tell.
        assert_eq!(told(Report::default()).state, Phase::Standby.name());
    }
}
