//! Capture: committed frames leave the WAL, into memory in steady state, into the spool before the
//! WAL loses them.

mod deliver;
mod follow;
mod handed;

pub(super) use follow::Look;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::ltx::{Header, Lineage};
use crate::primary::commits::{CommitSeq, Commits, Noted};
use crate::primary::generations::Generations;
use crate::primary::handover::{Handover, Point};
use crate::primary::kept::Kept;
use crate::primary::outgoing::Outgoing;
use crate::primary::pending::Pending;
use crate::primary::spool::Spool;
use crate::primary::stamp::{Identity, Stamp};
use crate::primary::state::{Captured, Claim, Origin, State};
use crate::wal::{Position, Salts, read_header};

/// What is captured of one database.
///
/// Invariants:
/// 1. Everything up to `captured` is in the replica, in `in_flight`, in the spool, or in `pending`, in
///    this order of age.
/// 2. Everything up to the position in `state` is in the replica or in the spool files that `state`
///    names, and the position is not before the end of transaction `state.txid`.
pub(super) struct Capture {
    database: PathBuf,
    wal_path: PathBuf,
    folder: PathBuf,
    wal: Option<File>,
    /// Up to where; `None` while the database must be copied anew.
    captured: Option<Captured>,
    /// While `captured` is `NextGeneration`: what tells that nobody wrote since the WAL was emptied.
    emptied: Emptied,
    generations: Arc<Generations>,
    /// Kept generations that are captured, and the marks of that: their files go when the state says so.
    taken: Vec<(u64, Kept)>,
    /// What other processes leave.
    pub(super) handover: Handover,
    /// Where capture was when it followed them, until what they left there may go.
    left_behind: Vec<Point>,
    /// The end of a generation that another process ended, if capture is there.
    handed_to: Option<Position>,
    /// More than so many bytes do not wait.
    spool_limit: u64,
    /// Why the database must be copied anew.
    anchor_reason: Option<&'static str>,
    /// Counts changes of `captured`.
    mark: u64,
    /// The mark of the position in `state`.
    remembered: u64,
    pending: Pending,
    /// What is captured goes to the spool at once.
    to_disk: bool,
    pub(super) spool: Spool,
    pub(super) in_flight: Option<Outgoing>,
    /// The headers of files that may have landed as the next transaction without our knowing.
    attempted: Vec<Header>,
    /// The full copy that all later files build on is in the replica.
    anchored: bool,
    state: State,
    /// Replication ended until somebody decides; nothing is captured any more.
    stopped: bool,
    /// Somebody decided that what the replica holds is to be taken as it is.
    forced: bool,
    /// Which file the database is.
    file: Option<Identity>,
    /// What the state says of it.
    claim: Claim,
}

/// What tells that nobody wrote the database since its WAL was emptied.
#[derive(Clone, Copy, Debug, Default)]
struct Emptied {
    /// The database file's stamp at that time.
    stamp: Option<Stamp>,
    /// The salts that the index has had since; `None` before the first look.
    salts: Option<Salts>,
    /// Another process emptied it: what was noted here may be older than that.
    by_another: bool,
}

impl Capture {
    /// Takes up where the local state says that an earlier process ended, and captures what that one kept
    /// of the WAL; `noted` is the last commit noted.
    ///
    /// # Errors
    /// `Io`, `Denied`, `NoSpace` on the state folder.
    pub(super) fn open(
        database: &Path,
        wal_path: &Path,
        folder: &Path,
        url: &str,
        generations: Arc<Generations>,
        noted: &Noted,
        spool_limit: u64,
    ) -> Result<Self> {
        let handover = Handover::new(folder, spool_limit);
        let kept = generations.folder();
        crate::files::create_folders(kept)
            .map_err(|e| Error::io(format_args!("cannot create {}", kept.display()), e))?;
        let mut state = State::load(folder)?;
        let ours = state.url == url;
        let file = Identity::of(database);
        let (spool, complete) = Spool::open(folder, state.spool.filter(|_| ours))?;
        let captured =
            if ours && complete { state.captured(database, wal_path, kept, &handover) } else { None };
        let anchor_reason = match captured {
            Some(_) => None,
            None if ours => Some("what is on disk is not what was last replicated"),
            None => Some("no local state says what this replica holds"),
        };
        let emptied = Emptied { stamp: state.emptied(), salts: None, by_another: noted.end.is_some() };
        if !ours {
            state = state.for_replica(url);
        }
        state.set_file(file);
        let claim = state.claim(url, file, captured);
        if !state.is_of(file) {
            state.renew_node_id();
        }
        let mut capture = Self {
            database: database.to_path_buf(),
            wal_path: wal_path.to_path_buf(),
            folder: folder.to_path_buf(),
            wal: None,
            anchored: captured.is_some(),
            captured,
            emptied,
            taken: Vec::new(),
            generations,
            handover,
            spool_limit,
            left_behind: Vec::new(),
            handed_to: None,
            anchor_reason,
            mark: 0,
            remembered: 0,
            pending: Pending::default(),
            to_disk: false,
            spool,
            in_flight: None,
            attempted: state.sent(wal_path, file),
            state,
            stopped: false,
            forced: false,
            file,
            claim,
        };
        if captured.is_none() {
            capture.state.forget_captured();
            capture.spool.clear()?;
        }
        capture.state.save(folder)?;
        capture.generations.set_safe(captured);
        capture.take_what_was_kept(noted);
        Ok(capture)
    }

    /// Tells our files from another writer's.
    pub(super) fn node_id(&self) -> u64 {
        self.state.node_id
    }

    /// The history that our files belong to.
    pub(super) fn lineage(&self) -> Option<Lineage> {
        self.state.lineage(&self.state.url)
    }

    /// The lineage of the replica at `url`, as far as local state knows it.
    pub(super) fn known_lineage(&self, url: &str) -> Option<Lineage> {
        self.state.lineage(url)
    }

    /// As [`State::continue_lineage`](crate::primary::state::State::continue_lineage).
    pub(super) fn continue_lineage(&mut self, is_empty: bool, found: Option<Lineage>) {
        self.state.continue_lineage(is_empty, found);
    }

    /// What the state says of the database file.
    pub(super) fn claim(&self) -> Claim {
        self.claim
    }

    /// Whether it was published to another replica since the transaction of the state.
    pub(super) fn is_back(&self) -> bool {
        self.state.is_back
    }

    /// How the database came to be at the transaction of the state, if not by publishing it.
    pub(super) fn origin(&self) -> Option<Origin> {
        self.state.origin
    }

    /// The headers of files that may have landed.
    pub(super) fn sent(&self) -> Vec<Header> {
        self.attempted.clone()
    }

    /// Why the database must be copied anew, if it must.
    pub(super) fn anchor_reason(&self) -> Option<&'static str> {
        self.anchor_reason
    }

    /// Whether there is captured content that is not in the replica.
    pub(super) fn has_waiting(&self) -> bool {
        self.in_flight.is_some() || !self.spool.segments().is_empty() || self.pending.header().is_some()
    }

    /// Ends replication for good: the database goes on, nothing more is captured.
    pub(super) fn stop(&mut self) {
        self.stopped = true;
        self.captured = None;
        self.forget_kept();
        self.pending = Pending::default();
        self.in_flight = None;
    }

    /// Replication that ended begins anew, with a full copy; `force` takes the replica as it is.
    pub(super) fn begin_again(&mut self, force: bool) {
        self.stopped = false;
        self.forced = force;
        self.lost("replication was told to go on");
        self.claim = self.state.claim(&self.state.url, self.file, None);
    }

    /// Takes back the decision that what the replica holds is to be taken as it is; `false` if there is none.
    pub(super) fn withdraw_force(&mut self) -> bool {
        std::mem::take(&mut self.forced)
    }

    /// Whether somebody decided that what the replica holds is to be taken as it is.
    pub(super) fn is_forced(&self) -> bool {
        self.forced
    }

    /// The database must be copied anew: what was captured is no base for what follows.
    pub(super) fn lost(&mut self, reason: &'static str) {
        tracing::info!("{}: {reason}; the database is copied anew", self.database.display());
        self.captured = None;
        self.forget_kept();
        // What is lost until the copy is there follows from the first loss.
        self.anchor_reason.get_or_insert(reason);
        self.pending = Pending::default();
        self.anchored = false;
        self.state.forget_captured();
        self.save(0);
    }

    fn set_captured(&mut self, captured: Captured) {
        self.captured = Some(captured);
        self.mark += 1;
    }

    /// Puts on disk what is only in memory; `covers` is the last commit in it.
    fn spill(&mut self, covers: CommitSeq) -> Result<()> {
        self.keep_in_flight()?;
        let Some(header) = self.pending.header() else { return Ok(()) };
        let pending = &self.pending;
        self.spool.write(header, covers, |encoder| pending.encode(encoder))?;
        self.pending = Pending::default();
        self.keep_to_limit()
    }

    /// If more waits than may, gives it up: what changed is found by comparing pages, once the replica
    /// can be reached.
    fn keep_to_limit(&mut self) -> Result<()> {
        if self.spool.bytes() <= self.spool_limit {
            return Ok(());
        }
        self.lost("more waited for the replica than spool_limit");
        self.attempted.extend(self.in_flight.take().map(|out| out.header));
        self.spool.clear()
    }

    /// What is under way is older than all that waits: it goes to the spool before anything else does.
    fn keep_in_flight(&mut self) -> Result<()> {
        match &mut self.in_flight {
            Some(out) => out.keep(&mut self.spool),
            None => Ok(()),
        }
    }

    /// Remembers that all that is captured is in the replica or in the spool.
    fn remember_all(&mut self) {
        if let Some(captured) = self.captured
            && self.anchored
        {
            self.remember(captured, self.mark);
            self.save(0);
        }
    }

    /// What was kept of the WAL is of no use any more.
    fn forget_kept(&mut self) {
        self.taken.clear();
        self.generations.reset();
    }

    /// Removes the kept generations that nobody needs any more: the state on disk is behind them, or all
    /// is copied anew if this process ends.
    fn release_kept(&mut self) {
        let (anchored, remembered) = (self.anchored, self.remembered);
        for (_, kept) in self.taken.extract_if(.., |(mark, _)| !anchored || *mark <= remembered) {
            self.generations.release(&kept);
        }
    }

    fn remember(&mut self, captured: Captured, mark: u64) {
        self.state.set_captured(captured, self.emptied.stamp, self.file);
        self.remembered = mark;
    }

    /// Writes the state, which names all waiting files but the oldest `delivered`.
    fn save(&mut self, delivered: usize) {
        if self.stopped {
            return;
        }
        self.state.spool = if self.anchored { self.spool.range(delivered) } else { None };
        // Without it the next open copies the database anew: worse, not wrong.
        if let Err(e) = self.state.save(&self.folder) {
            tracing::warn!("{e}");
        }
        if self.anchored && self.captured.is_some() {
            self.generations.set_safe(self.state.position());
        }
        self.release_kept();
    }

    /// Captures what is committed and puts all that is captured on disk: if the WAL is restarted then, no
    /// more than its last frame is to be kept.
    ///
    /// # Errors
    /// As [`Capture::catch_up`].
    pub(super) fn put_on_disk(&mut self, commits: &Commits) -> Result<()> {
        let seq = commits.last().seq;
        self.to_disk = true;
        let captured = self.catch_up(commits);
        self.to_disk = false;
        captured?;
        self.spill(seq)?;
        self.keep_to_limit()?;
        self.remember_all();
        Ok(())
    }

    /// Puts what is only in memory on disk and remembers the position, for a close.
    ///
    /// # Errors
    /// `Io`, `NoSpace` on the spool.
    pub(super) fn settle(&mut self) -> Result<()> {
        self.spill(CommitSeq::default())?;
        self.remember_all();
        self.generations.drop_spares();
        Ok(())
    }
}

/// Whether the WAL file holds the generation with `salts`.
fn holds_generation(wal_path: &Path, salts: Salts) -> bool {
    let header = File::open(wal_path).ok().and_then(|wal| read_header(&wal).ok().flatten());
    header.is_some_and(|header| header.salts == salts)
}
