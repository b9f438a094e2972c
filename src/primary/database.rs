//! A primary: one per database and process, shared by all its connections.

mod close;
mod commit;
mod figures;
mod hooks;
mod open;
mod registry;
mod reset;
mod status;
mod wait;
mod waits;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::error::{Error, ErrorKind, Result};
use crate::ltx::Txid;
use crate::primary::context::Context;
use crate::primary::options::{Options, ReplicaConfig};
use crate::primary::ownership::{Ownership, Question};
use crate::primary::shipper::{Asked as AskedLook, Goal, ReplicaLook, Shipper, Tasks, Waiter};

use figures::Checkpoints;
use wait::Wanted;
use waits::Waits;

pub use commit::Ticket;
pub use figures::{CheckpointFigures, CheckpointMode, DatabaseFigures};
pub use open::refuse_twins;
pub use status::Status;
pub use waits::CommitWaits;

/// How soon a thread that waits notices that it was interrupted.
const LOOK: Duration = Duration::from_millis(100);

/// One replicated database. The shim tells it what SQLite does; background tasks publish.
pub struct Primary {
    db: Arc<Context>,
    owner: Arc<Ownership>,
    /// Where the replicas are, and how they are kept, in the order of the shippers.
    replicas: Vec<ReplicaConfig>,
    tasks: Vec<Tasks>,
    owner_task: JoinHandle<()>,
    /// The task that lets other processes be heard is on its way.
    is_to_be_heard: AtomicBool,
    waits: Waits,
    checkpoints: Checkpoints,
}

/// Which replicas of a database a call is for.
#[derive(Clone, Copy, Debug)]
pub enum Asked<'a> {
    /// All of them.
    All,
    /// The one with this URL.
    One(&'a str),
}

impl Primary {
    pub(in crate::primary) fn shippers(&self) -> &[Arc<Shipper>] {
        &self.owner.shippers
    }

    /// The shipper of the first replica, which answers where there is room for one answer.
    fn first(&self) -> &Shipper {
        &self.shippers()[0]
    }

    fn options(&self) -> &Options {
        &self.owner.options
    }

    /// Its replicas, in the order in which they were named.
    pub fn replica_configs(&self) -> &[ReplicaConfig] {
        &self.replicas
    }

    /// The database file.
    pub fn path(&self) -> &Path {
        &self.db.path
    }

    /// The shippers of the replicas that are `asked` for.
    ///
    /// # Errors
    /// `Config` if there is none with that URL, or several.
    fn asked(&self, asked: Asked<'_>) -> Result<&[Arc<Shipper>]> {
        let Asked::One(url) = asked else { return Ok(self.shippers()) };
        let is_named = |shipper: &Arc<Shipper>| shipper.is_called(url);
        let named: Vec<usize> =
            (0..self.shippers().len()).filter(|at| is_named(&self.shippers()[*at])).collect();
        match named[..] {
            [at] => Ok(&self.shippers()[at..=at]),
            [] => Err(Error::config(format!(
                "{} has no replica {url}; it has {}",
                self.path().display(),
                self.urls()
            ))),
            _ => Err(Error::config(format!(
                "{} has several replicas {url}: add its endpoint, as in '{url}?endpoint=...'",
                self.path().display()
            ))),
        }
    }

    /// The URLs of all replicas.
    fn urls(&self) -> String {
        let urls: Vec<String> = self.shippers().iter().map(|shipper| shipper.store.url()).collect();
        urls.join(" and ")
    }

    /// The goal of who waits for the replicas of `shippers`: that one, or as many as the setting says.
    fn goal(&self, shippers: &[Arc<Shipper>]) -> Goal {
        match shippers {
            [one] => Goal::one(one.number),
            all => Goal::any(all.len(), self.options().sync_replicas.needed(all.len())),
        }
    }

    /// Forgets the local state of the database `path`, an absolute path without links, which nobody has open. Returns the
    /// number of files that waited for a replica.
    ///
    /// # Errors
    /// `Busy` if a program has it open; `Io` and the like on the folder of local state.
    pub fn reset(path: &Path) -> Result<usize> {
        reset::reset(path)
    }

    /// Waits until every commit made before the call is in the replicas, or in as many as `sync_replicas` says; returns the
    /// last transaction of the first one, or `None` if that was not needed. `interrupted` is asked now and then whether to
    /// give up.
    ///
    /// # Errors
    /// `Timeout`, naming what is wrong as far as it is known; `Conflict`; `Busy` if another process
    /// publishes that cannot be asked; `NotFound` while the database is empty; `Interrupted`.
    pub fn sync(&self, timeout: Duration, interrupted: &dyn Fn() -> bool) -> Result<Option<Txid>> {
        self.stop_without_file()?;
        // Commits of other processes count too, and nothing has shown them to this one yet.
        self.db.commits.ask();
        self.wait(&Wanted::sync(&self.goal(self.shippers())), timeout, interrupted)
    }

    /// Replication that stopped because of what it found in the replica looks again, and goes on with a
    /// full copy if that is gone. With `force` it goes on after whatever the replica holds now. Waits
    /// as [`Primary::sync`] does.
    ///
    /// # Errors
    /// As [`Primary::sync`]; `Config` if no replica has the URL that is `asked` for.
    pub fn resume(
        &self,
        asked: Asked<'_>,
        force: bool,
        timeout: Duration,
        interrupted: &dyn Fn() -> bool,
    ) -> Result<Option<Txid>> {
        let shippers = self.asked(asked)?;
        self.stop_without_file()?;
        for shipper in shippers {
            match shipper.go_on(force) {
                Err(e) if e.kind() != ErrorKind::Busy => return Err(e),
                _ => {}
            }
        }
        let one = matches!(asked, Asked::One(_)).then(|| shippers[0].number);
        let question = Question::Resume { force, shipper: one };
        let wanted = Wanted { question, goal: &self.goal(shippers), commit: None };
        let resumed = self.wait(&wanted, timeout, interrupted);
        if force && resumed.is_err() {
            // What was answered with an error is not carried out later.
            if self.owner.is_standby() {
                self.owner.withdraw_elsewhere();
            }
            shippers.iter().for_each(|shipper| shipper.withdraw_force());
        }
        resumed
    }

    /// Makes a snapshot of every commit made before the call in the replicas, unless there is one that is sound; returns its
    /// transaction in the first one, or `None` if that was not needed. Where the files of a replica do not lead there, it is
    /// made of the database. `timeout` is for the commits to get to the replicas.
    ///
    /// # Errors
    /// Those of [`Primary::sync`]; those of the store; `Busy` if another process publishes; `Config` if no replica has the
    /// URL that is `asked` for.
    pub fn snapshot(
        &self,
        asked: Asked<'_>,
        timeout: Duration,
        interrupted: &dyn Fn() -> bool,
    ) -> Result<Option<Txid>> {
        let shippers = self.asked(asked)?;
        self.stop_without_file()?;
        self.db.commits.ask();
        let goal = self.goal(shippers);
        self.wait(&Wanted::sync(&goal), timeout, interrupted)?;
        if self.owner.is_standby() {
            return Err(Error::new(
                ErrorKind::Busy,
                format!(
                    "{} is published by another process, which is the one to ask for a snapshot; see role in \
                     litestream_status",
                    self.path().display()
                ),
            ));
        }
        let mut outcomes: Vec<Option<Result<Txid>>> = vec![None; self.shippers().len()];
        for shipper in shippers {
            // One that was not needed is not waited for.
            let is_done =
                shippers.len() == 1 || Waiter::new(shipper).outcome().is_some_and(|done| done.is_ok());
            if is_done {
                outcomes[shipper.number] = Some(self.snapshot_of(shipper, timeout, interrupted));
            }
        }
        let failed = outcomes.iter().flatten().find_map(|outcome| outcome.as_ref().err());
        match failed {
            Some(error) => Err(error.clone()),
            None => goal.verdict(&outcomes).unwrap_or(Ok(None)),
        }
    }

    fn snapshot_of(
        &self,
        shipper: &Shipper,
        timeout: Duration,
        interrupted: &dyn Fn() -> bool,
    ) -> Result<Txid> {
        match shipper.history.snapshot(interrupted) {
            Err(e) if matches!(e.kind(), ErrorKind::Corrupt | ErrorKind::NotFound) => {
                tracing::warn!(db = %self.path().display(), "{}: {e}", self.path().display());
                self.copy_whole(shipper, timeout, interrupted)
            }
            made => made,
        }
    }

    /// Has a full copy of the database made the snapshot that the files of the replica do not lead to.
    fn copy_whole(
        &self,
        shipper: &Shipper,
        timeout: Duration,
        interrupted: &dyn Fn() -> bool,
    ) -> Result<Txid> {
        shipper.ask_look(AskedLook { look: ReplicaLook::Copy, by_user: true });
        let last = self.wait(&Wanted::sync(&Goal::one(shipper.number)), timeout, interrupted)?;
        let healed = shipper.holes.last_healed().or(last);
        healed.ok_or_else(|| Error::new(ErrorKind::NotFound, "there is no snapshot"))
    }

    /// Stops replication if the database file is not the one that was opened any more.
    ///
    /// # Errors
    /// `Conflict` that says what became of it.
    fn stop_without_file(&self) -> Result<()> {
        let checked = self.db.check_file();
        if let Err(e) = &checked
            && !self.owner.is_standby()
        {
            let running = self.shippers().iter().filter(|shipper| shipper.stopped().is_none());
            running.for_each(|shipper| shipper.stop(e.clone()));
        }
        checked
    }

    /// Wakes those who publish: something was committed.
    fn committed(&self) {
        self.owner.signal.commit();
        self.shippers().iter().for_each(|shipper| shipper.signal.commit());
    }

    /// The database is about to leave WAL mode, in which alone commits can be captured.
    pub fn left_wal_mode(&self) {
        for shipper in self.shippers() {
            let _ = shipper.with_capture(|capture| capture.lost("the database left WAL mode"));
        }
    }

    /// The database was just put into WAL mode: there is something to copy.
    pub fn entered_wal_mode(&self) {
        self.noticed_commit();
    }

    /// Something was committed that no index header shows.
    pub fn noticed_commit(&self) {
        self.db.commits.note();
        self.committed();
    }
}

#[cfg(test)]
impl Primary {
    /// What who restarts the WAL finds of the positions of shippers, in their order.
    pub(in crate::primary) fn positions(&self) -> Vec<crate::primary::dirty::Position> {
        self.db.recorder.positions().read()
    }

    /// Whether no shipper does anything until its time has come or a caller waits.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.shippers().iter().all(|shipper| shipper.signal.is_at_rest())
    }

    /// What each shipper does.
    pub(crate) fn phases(&self) -> Vec<crate::primary::shipper::Phase> {
        self.shippers().iter().map(|shipper| shipper.progress().phase).collect()
    }

    /// The number of pages that were compressed for files from memory.
    pub(crate) fn compressed_pages(&self) -> u64 {
        self.db.frames.compressed()
    }

    /// Captures into the spool what was committed, as a shipper does now and then while its replica cannot be reached.
    pub(crate) fn capture(&self) {
        for shipper in self.shippers() {
            shipper.capture_into_spool().expect("the database can be read");
        }
    }

    /// Does `work` while nothing is captured for the first replica.
    pub(crate) fn without_capture<T>(&self, work: impl FnOnce() -> T) -> T {
        self.first().with_capture(|_| work()).expect("this process publishes")
    }
}
