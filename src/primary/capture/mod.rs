//! Capture: the pages that were changed leave the database, into the file that is on its way in steady state, into
//! waiting files on disk while the replica cannot be reached.

mod deliver;
mod view;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::Result;
use crate::ltx::{Header, Lineage};
use crate::primary::dirty::{Cursor, Journal, Mark, PageSet, Positions};
use crate::primary::outgoing::Outgoing;
use crate::primary::spool::Spool;
use crate::primary::stamp::Identity;
use crate::primary::state::{Claim, Origin, State};
use crate::wal::IndexHeader;

pub(super) use view::{Look, header_of};

/// What is captured of one database.
///
/// Invariants:
/// 1. Every change up to `cursor` is in the replica, in `in_flight` or in the spool, in this order of age, or its
///    page is in `dirty`.
/// 2. Every change up to the cursor of `state` is in the replica or in the spool files that `state` names, or its page
///    is in the dirty pages of `state`; and that cursor is not before the end of transaction `state.txid`.
pub(super) struct Capture {
    database: PathBuf,
    folder: PathBuf,
    /// `None` while the database must be compared or copied.
    cursor: Option<Cursor>,
    /// Pages that were changed before `cursor` and whose content is in no file.
    dirty: PageSet,
    journal: Arc<Journal>,
    /// The records that there were before `cursor` was pinned: with those of its generation, what follows from it.
    records: Mark,
    positions: Positions,
    exclusive: Exclusive,
    /// The most bytes that wait.
    spool_limit: u64,
    /// More waited, and was given up; the status does not say so yet.
    given_up: bool,
    /// Why the database must be compared or copied.
    anchor_reason: Option<&'static str>,
    /// Counts changes of `cursor`.
    mark: u64,
    /// The mark of the cursor in `state`.
    remembered: u64,
    pub(super) spool: Spool,
    pub(super) in_flight: Option<Outgoing>,
    /// The headers of files that may have landed as the next transaction without our knowing.
    attempted: Vec<Header>,
    /// The full copy that all later files build on is in the replica.
    anchored: bool,
    state: State,
    /// Replication ended until a user decides; nothing is captured any more.
    stopped: bool,
    /// A user decided that what the replica holds is to be taken as it is.
    forced: bool,
    /// Which file the database is.
    file: Option<Identity>,
    /// What the state says of it.
    claim: Claim,
}

/// Whether a connection of this process keeps the database for itself (`locking_mode=EXCLUSIVE`), so that no view can be
/// pinned, and shows each of its commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exclusive {
    /// None does, or it committed nothing.
    No,
    /// Its last commit was captured.
    Captured,
    /// Its last commit was not.
    Missed,
}

impl Capture {
    /// Takes up where the local state says that an earlier process ended.
    ///
    /// # Errors
    /// `Io`, `Denied`, `NoSpace` on the state folder; `Unsupported` if a later version wrote it.
    pub(super) fn open(
        database: &Path,
        wal_path: &Path,
        folder: &Path,
        url: &str,
        journal: Arc<Journal>,
        spool_limit: u64,
    ) -> Result<Self> {
        let mut state = State::load(folder)?;
        let ours = state.url == url;
        let file = Identity::of(database);
        let (spool, complete) = Spool::open(folder, state.spool.filter(|_| ours))?;
        let known = state.cursor(database).filter(|_| ours && complete);
        let anchor_reason = match known {
            Some(_) => None,
            None if ours => Some("what is on disk is not what was last replicated"),
            None => Some("no local state says what this replica holds"),
        };
        if !ours {
            state = state.for_replica(url);
        }
        state.set_file(file);
        let claim = state.claim(url, file, known.is_some());
        if !state.is_of(file) {
            state.renew_node_id();
        }
        let (cursor, dirty) = known.unzip();
        if let Some(Cursor::File(stamp)) = cursor {
            journal.keep(&IndexHeader::EMPTY, stamp);
        }
        let mut capture = Self {
            database: database.to_path_buf(),
            folder: folder.to_path_buf(),
            anchored: cursor.is_some(),
            cursor,
            dirty: dirty.unwrap_or_default(),
            journal,
            records: Mark::default(),
            positions: Positions::new(folder),
            exclusive: Exclusive::No,
            spool_limit,
            given_up: false,
            anchor_reason,
            mark: 0,
            remembered: 0,
            spool,
            in_flight: None,
            attempted: state.sent(wal_path, file),
            state,
            stopped: false,
            forced: false,
            file,
            claim,
        };
        if capture.cursor.is_none() {
            capture.state.forget_cursor();
            capture.spool.clear()?;
        }
        capture.state.save(folder)?;
        remove_remains(folder);
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

    /// Why the database must be compared or copied, if it must.
    pub(super) fn anchor_reason(&self) -> Option<&'static str> {
        self.anchor_reason
    }

    /// Whether there are changes before the cursor that are not in the replica.
    pub(super) fn has_waiting(&self) -> bool {
        self.in_flight.is_some() || !self.spool.segments().is_empty() || !self.dirty.is_empty()
    }

    /// Ends replication: the database goes on, nothing more is captured.
    pub(super) fn stop(&mut self) {
        self.stopped = true;
        self.cursor = None;
        self.dirty = PageSet::default();
        self.in_flight = None;
        self.forget_positions();
    }

    /// Replication that ended begins again, with a comparison; `force` takes the replica as it is.
    pub(super) fn begin_again(&mut self, force: bool) {
        self.stopped = false;
        self.forced = force;
        self.lost("replication was told to go on");
        self.claim = self.state.claim(&self.state.url, self.file, false);
    }

    /// Takes back the decision that what the replica holds is to be taken as it is; `false` if there is none.
    pub(super) fn withdraw_force(&mut self) -> bool {
        std::mem::take(&mut self.forced)
    }

    /// Whether more waited than may, and was given up since the last question.
    pub(super) fn take_given_up(&mut self) -> bool {
        std::mem::take(&mut self.given_up)
    }

    /// Whether a user decided that what the replica holds is to be taken as it is.
    pub(super) fn is_forced(&self) -> bool {
        self.forced
    }

    /// Which pages were changed is not known any more: the database must be compared or copied.
    pub(super) fn lost(&mut self, reason: &'static str) {
        tracing::info!("{}: {reason}; the database is compared with the replica", self.database.display());
        self.cursor = None;
        self.dirty = PageSet::default();
        // What is lost until the copy is there follows from the first loss.
        self.anchor_reason.get_or_insert(reason);
        self.anchored = false;
        self.state.forget_cursor();
        self.forget_positions();
        self.save(0);
    }

    /// The view whose end is `cursor` was pinned when the journal had `records`.
    fn set_cursor(&mut self, cursor: Cursor, records: Mark) {
        self.cursor = Some(cursor);
        self.records = records;
        self.mark += 1;
    }

    /// Adds pages that are to be sent once more.
    pub(super) fn add_dirty(&mut self, pages: &PageSet) {
        self.dirty.extend(pages);
    }

    /// If more waits than may, keeps only which pages it is: the database has their content.
    fn keep_to_limit(&mut self) -> Result<()> {
        if self.spool.bytes() <= self.spool_limit {
            return Ok(());
        }
        self.given_up = true;
        for segment in self.spool.segments() {
            self.dirty.extend(&segment.pages);
        }
        if let Some(out) = self.in_flight.take() {
            self.dirty.extend(&out.pages);
            self.attempted.push(out.header);
        }
        self.remember_all();
        self.spool.clear()
    }

    /// What is under way is older than all that waits: it goes to the spool before anything else does.
    fn keep_in_flight(&mut self) -> Result<()> {
        match &mut self.in_flight {
            Some(out) => out.keep(&mut self.spool),
            None => Ok(()),
        }
    }

    /// Remembers that all up to the cursor is in the replica or in the spool.
    fn remember_all(&mut self) {
        if let Some(cursor) = self.cursor
            && self.anchored
        {
            self.remember(cursor, self.mark);
            self.save(0);
        }
    }

    fn remember(&mut self, cursor: Cursor, mark: u64) {
        self.state.set_cursor(Some(cursor), &self.dirty, self.file);
        self.remembered = mark;
    }

    /// Writes the state, which names all waiting files but the oldest `delivered`.
    fn save(&mut self, delivered: usize) {
        if self.stopped {
            return;
        }
        self.state.spool = if self.anchored { self.spool.range(delivered) } else { None };
        // Without it the next open compares the database: worse, not wrong.
        if let Err(e) = self.state.save(&self.folder) {
            tracing::warn!("{e}");
            return;
        }
        if let Some(cursor) = self.cursor
            && self.anchored
            && self.remembered == self.mark
        {
            // The cursor before is needed no more: records name only what was changed after this one.
            self.note_positions();
            self.journal.delete_behind(&self.records, &[cursor]);
        }
    }

    /// No position is to be found again.
    fn forget_positions(&self) {
        if let Err(e) = self.positions.write(&[]) {
            tracing::debug!("{e}");
        }
    }

    /// Puts what is on its way on disk and remembers the cursor, for a close.
    ///
    /// # Errors
    /// `Io`, `NoSpace` on the spool.
    pub(super) fn settle(&mut self) -> Result<()> {
        self.keep_in_flight()?;
        self.keep_to_limit()?;
        self.remember_all();
        Ok(())
    }
}

/// Removes what version 0.1.0 kept of the WAL: the database has all of it.
fn remove_remains(folder: &Path) {
    for name in ["wal", "handover"] {
        let _ = std::fs::remove_dir_all(folder.join(name));
    }
}
