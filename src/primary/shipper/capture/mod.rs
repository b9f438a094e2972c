//! Capture: the pages that were changed leave the database, into the file that is on its way in steady state, into
//! waiting files on disk while the replica cannot be reached.

mod deliver;
mod view;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::Shipper;
use super::outgoing::Outgoing;
use super::spool::Spool;
use super::state::{Claim, Origin, Sealed, State};
use super::sums::Sums;
use crate::clock::Timestamp;
use crate::error::Result;
use crate::ltx::{Header, Lineage, Txid};
use crate::primary::context::Context;
use crate::primary::dirty::{Cursor, Mark, PageSet};
use crate::primary::file_fingerprint::Identity;
use crate::primary::hooks::PinnedView;
use crate::primary::seals::Seals;
use crate::wal::IndexHeader;

pub(super) use view::{Look, header_of};

/// What is captured of one database.
///
/// Invariants:
/// 1. Every change up to `cursor` is in the replica, in `in_flight` or in the spool, in this order of age, or its
///    page is in `dirty`.
/// 2. Every change up to the cursor of `state` is in the replica or in the spool files that `state` names, or its page
///    is in the dirty pages of `state`; and that cursor is not before the end of transaction `state.txid`, unless the pages
///    of that transaction are among the dirty ones.
pub(in crate::primary) struct Capture {
    db: Arc<Context>,
    /// The number of the shipper.
    number: usize,
    /// The folder of local state of the replica.
    folder: PathBuf,
    /// `None` while the database must be compared or copied.
    cursor: Option<Cursor>,
    /// Pages that were changed before `cursor` and whose content is in no file.
    dirty: PageSet,
    /// The records that there were before `cursor` was pinned: with those of its generation, what follows from it.
    records: Mark,
    exclusive: Exclusive,
    /// The most bytes that wait.
    spool_limit: u64,
    /// Waiting files that are closer to each other are sent as one.
    sync_interval: Duration,
    /// More waited, and was given up; the status does not say so yet.
    given_up: bool,
    /// Why the database must be compared or copied.
    anchor_reason: Option<&'static str>,
    /// The WAL lost commits that were captured.
    is_behind: bool,
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
    /// The state as it is on disk.
    saved: Option<State>,
    /// No connection has the database open: a program that removes its folder meets no new file in it.
    makes_no_file: bool,
    /// Replication ended until a user decides: no content is captured, only which pages were changed. Work of a round that was given
    /// up may come later, and changes nothing then that is written down.
    stopped: bool,
    /// A user decided that what the replica holds is to be taken as it is.
    forced: bool,
    /// The state on disk before that.
    before_force: Option<State>,
    /// How files are sealed.
    seals: Arc<Seals>,
    /// The state of the database as of a file that is on its way, or the last one that landed, for a snapshot.
    held: Option<Held>,
    /// The next view is to be held.
    holds: bool,
    /// Which file the database is.
    file: Option<Identity>,
    /// What the state says of it.
    claim: Claim,
}

/// A view that shows a transaction.
struct Held {
    view: Box<dyn PinnedView>,
    /// The transaction, once it is known.
    txid: Option<Txid>,
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
    /// The number of pages whose content is in no file.
    pub(super) fn dirty_pages(&self) -> u64 {
        self.dirty.len()
    }

    /// Takes up where the local state says that an earlier process ended.
    ///
    /// # Errors
    /// `Io`, `Denied`, `NoSpace` on the state folder; `Unsupported` if a later version wrote it.
    pub(super) fn open(shipper: &Shipper) -> Result<Self> {
        let (db, folder, url) = (&shipper.db, &shipper.folder, shipper.store.url());
        let mut state = State::load(folder)?;
        let ours = state.url == url;
        let file = Identity::of(&db.path);
        let (seals, may_seal) = (&shipper.seals, !ours || state.is_sealed_to(shipper.seals.recipients()));
        seals.load()?;
        let (spool, complete) = if may_seal {
            Spool::open(folder, state.spool.filter(|_| ours), seals)?
        } else {
            // No content is captured for those that the replica is not sealed to, and nothing is removed that waits.
            (Spool::untouched(folder, seals), state.spool.is_none())
        };
        Sums::of(shipper).sweep();
        if !ours {
            state = State::of_new_replica(&url);
        }
        // A cursor says nothing without the file that it is about.
        let complete = complete && state.is_of(file);
        state.set_file(file);
        if !state.is_of(file) {
            state.renew_node_id();
        }
        let mut capture = Self {
            db: Arc::clone(db),
            number: shipper.number,
            folder: folder.clone(),
            anchored: false,
            cursor: None,
            dirty: PageSet::default(),
            records: Mark::default(),
            exclusive: Exclusive::No,
            spool_limit: shipper.options.spool_limit,
            sync_interval: shipper.options.sync_interval,
            given_up: false,
            anchor_reason: None,
            is_behind: false,
            mark: 0,
            remembered: 0,
            spool,
            in_flight: None,
            attempted: Vec::new(),
            state,
            saved: None,
            makes_no_file: false,
            stopped: !may_seal,
            forced: false,
            before_force: None,
            seals: Arc::clone(seals),
            held: None,
            holds: false,
            file,
            claim: Claim::Nothing,
        };
        capture.take_up(complete);
        if !may_seal {
            return Ok(capture);
        }
        if capture.cursor.is_none() {
            capture.anchor_reason = Some(match ours {
                true => "what is on disk is not what was last replicated",
                false => "no local state says what this replica holds",
            });
            capture.state.forget_cursor();
            capture.spool.clear()?;
        }
        capture.state.save(folder)?;
        capture.saved = Some(capture.state.clone());
        Ok(capture)
    }

    /// Whether the replica may be sealed to the recipients that are set; if not, all is left to a process that has the right ones.
    fn may_seal(&self) -> bool {
        self.state.is_sealed_to(self.seals.recipients())
    }

    /// Takes up what the state says of the database; no cursor, unless the waiting files that it names are `complete`. Its position
    /// is borne in mind all the same for who finds them so.
    fn take_up(&mut self, complete: bool) {
        let remembered = self.state.cursor(&self.db.path);
        let position =
            remembered.as_ref().map(|(cursor, _)| *cursor).filter(|_| complete || !self.may_seal());
        let known = remembered.filter(|_| complete);
        self.claim = self.state.claim(&self.state.url, self.file, known.is_some());
        self.attempted = self.state.sent(&self.db.wal_path, self.file);
        let (cursor, dirty) = known.unzip();
        (self.anchored, self.dirty) = (cursor.is_some(), dirty.unwrap_or_default());
        (self.cursor, self.records) = (cursor, Mark::default());
        self.mark += 1;
        self.remembered = self.mark;
        let Some(position) = position else { return self.forget_positions() };
        if let Cursor::File(stamp) = position {
            self.db.recorder.journal().keep(&IndexHeader::EMPTY, stamp);
        }
        // Before another shipper writes down its own: who restarts the WAL is to bear all of them in mind.
        self.note_positions();
        self.db.cursors.needs_after(self.number, position, Mark::default());
    }

    /// Whom the replica is sealed to, as far as local state says it.
    pub(in crate::primary) fn sealed_to(&self) -> Option<Sealed> {
        self.state.sealed.clone()
    }

    /// The replica is sealed to `sealed` from the next file on.
    pub(in crate::primary) fn seals_to(&mut self, sealed: Sealed) {
        if self.stopped {
            return;
        }
        self.state.sealed = Some(sealed);
        self.save(0);
    }

    /// Tells our files from another writer's.
    pub(in crate::primary) fn node_id(&self) -> u64 {
        self.state.node_id
    }

    /// The history that our files belong to.
    pub(in crate::primary) fn lineage(&self) -> Option<Lineage> {
        self.state.lineage(&self.state.url)
    }

    /// The lineage of the replica at `url`, as far as local state knows it.
    pub(in crate::primary) fn known_lineage(&self, url: &str) -> Option<Lineage> {
        self.state.lineage(url)
    }

    /// As [`State::continue_lineage`](crate::primary::shipper::state::State::continue_lineage).
    pub(in crate::primary) fn continue_lineage(&mut self, is_empty: bool, found: Option<Lineage>) {
        self.state.continue_lineage(is_empty, found);
    }

    /// What the state says of the database file.
    pub(in crate::primary) fn claim(&self) -> Claim {
        self.claim
    }

    /// The time of the last transaction in the replica, if it was published from here.
    pub(in crate::primary) fn time(&self) -> Option<Timestamp> {
        self.state.time()
    }

    /// Whether it was published to another replica since the transaction of the state.
    pub(in crate::primary) fn is_back(&self) -> bool {
        self.state.is_back
    }

    /// How the database came to be at the transaction of the state, if not by publishing it.
    pub(in crate::primary) fn origin(&self) -> Option<Origin> {
        self.state.origin
    }

    /// How far a copy came, in percent, that a last close gave up, unless another one was finished since.
    pub(in crate::primary) fn copy_given_up(&self) -> Option<u8> {
        self.state.copy_given_up
    }

    /// The last close gives up a copy that came to this `percent`.
    pub(in crate::primary) fn gives_copy_up(&mut self, percent: u8) {
        self.state.copy_given_up = Some(percent);
        self.save(0);
    }

    /// The headers of files that may have landed.
    pub(in crate::primary) fn sent(&self) -> Vec<Header> {
        self.attempted.clone()
    }

    /// The headers of those that hold nothing which the database can have lost: the WAL shows it.
    pub(in crate::primary) fn sent_in_wal(&self) -> Vec<Header> {
        let in_wal = self.state.sent_in(&self.db.wal_path);
        self.attempted.iter().filter(|header| in_wal.contains(header)).copied().collect()
    }

    /// Why the database must be compared or copied, if it must.
    pub(in crate::primary) fn anchor_reason(&self) -> Option<&'static str> {
        self.anchor_reason
    }

    /// Whether the WAL lost commits that were captured.
    pub(in crate::primary) fn is_behind(&self) -> bool {
        self.is_behind
    }

    /// Whether there are changes before the cursor that are not in the replica.
    pub(in crate::primary) fn has_waiting(&self) -> bool {
        self.in_flight.is_some() || !self.spool.segments().is_empty() || !self.dirty.is_empty()
    }

    /// Ends replication: the database works as before, and no content is captured. What is in memory counts no longer, as the
    /// end may be that of a bug: from what the state on disk says, which pages are changed is noted on ([`Capture::absorb`]).
    /// Not where another file took the database's place, with local state of its own.
    ///
    /// # Errors
    /// `Io` on the waiting files: then the database is compared when replication begins again.
    pub(in crate::primary) fn stop(&mut self) -> Result<()> {
        let was_stopped = std::mem::replace(&mut self.stopped, true);
        (self.held, self.holds, self.in_flight) = (None, false, None);
        self.db.frames.leaves(self.number);
        self.undo_force();
        if was_stopped {
            return Ok(());
        }
        (self.cursor, self.dirty) = (None, PageSet::default());
        if self.makes_no_file || self.db.check_file().is_err() {
            return Ok(());
        }
        let Some(saved) = self.saved.clone() else { return Ok(()) };
        self.state = saved;
        if !self.may_seal() {
            self.take_up(self.state.spool.is_none());
            return Ok(());
        }
        match Spool::open(&self.folder, self.state.spool, &self.seals) {
            Ok((spool, complete)) => {
                self.spool = spool;
                self.take_up(complete);
                Ok(())
            }
            Err(e) => {
                self.forget_positions();
                Err(e)
            }
        }
    }

    /// Replication that ended begins again, from where it is known what was changed since, as at an open; or with a comparison.
    /// `force` takes the replica as it is. Nothing is touched where the replica is sealed to others and may not change them.
    ///
    /// # Errors
    /// Those of the waiting files.
    pub(in crate::primary) fn begin_again(&mut self, force: bool) -> Result<()> {
        let may_change = force && !self.seals.recipients().is_empty();
        if !may_change && !self.may_seal() {
            return Ok(());
        }
        if force && !self.forced {
            self.before_force = State::read(&self.folder);
        }
        (self.stopped, self.forced) = (false, force);
        if self.cursor.is_some() && self.anchored && !force {
            self.claim = self.state.claim(&self.state.url, self.file, true);
            self.anchor_reason = None;
            return Ok(());
        }
        self.spool = Spool::open(&self.folder, self.state.spool, &self.seals)?.0;
        self.claim = self.state.claim(&self.state.url, self.file, false);
        self.lost("replication was told to go on");
        Ok(())
    }

    /// Takes back the decision that what the replica holds is to be taken as it is, and stops as before; `false` if there is none.
    ///
    /// # Errors
    /// Those of [`Capture::stop`].
    pub(in crate::primary) fn withdraw_force(&mut self) -> Result<bool> {
        let is_forced = self.forced;
        if is_forced {
            self.stop()?;
        }
        Ok(is_forced)
    }

    /// Takes back the decision, if there is one, and what was written down of it.
    fn undo_force(&mut self) {
        let was_forced = std::mem::take(&mut self.forced);
        if let Some(before) = self.before_force.take().filter(|_| was_forced) {
            let undone = std::mem::replace(&mut self.state, before);
            // What it sent may have landed.
            self.state.takes_sent_of(undone);
            self.save_state();
        }
    }

    /// Whether more waited than may, and was given up since the last question.
    pub(in crate::primary) fn take_given_up(&mut self) -> bool {
        std::mem::take(&mut self.given_up)
    }

    /// Whether a user decided that what the replica holds is to be taken as it is.
    pub(in crate::primary) fn is_forced(&self) -> bool {
        self.forced
    }

    /// Which pages were changed is not known any more: the database must be compared or copied.
    pub(in crate::primary) fn lost(&mut self, reason: &'static str) {
        tracing::info!(
            "{}: {reason}; the database is compared with {}",
            self.db.path.display(),
            self.state.url
        );
        self.cursor = None;
        self.held = None;
        self.dirty = PageSet::default();
        // What is lost until the copy is there follows from the first loss.
        self.anchor_reason.get_or_insert(reason);
        self.anchored = false;
        self.state.forget_cursor();
        self.forget_positions();
        self.save(0);
    }

    /// A full copy is to be sent, and to become a snapshot, because of `reason`. A process that is killed before that leaves it to
    /// the next one.
    pub(in crate::primary) fn heals(&mut self, reason: &'static str) {
        if self.stopped {
            return;
        }
        self.state.heals = true;
        self.lost(reason);
    }

    /// Whether a full copy was to become a snapshot, and is not known to have.
    pub(in crate::primary) fn is_healing(&self) -> bool {
        self.state.heals
    }

    /// The full copy is a snapshot.
    pub(in crate::primary) fn healed(&mut self) {
        self.state.heals = false;
        self.save(0);
    }

    /// Another writer published the database, which has changes that the replica has not: `reason` says so.
    pub(in crate::primary) fn continues_after(&mut self, reason: &'static str) {
        self.anchor_reason = Some(reason);
        self.lost(reason);
    }

    /// The view whose end is `cursor` was pinned when the journal had `records`.
    fn set_cursor(&mut self, cursor: Cursor, records: Mark) {
        self.cursor = Some(cursor);
        self.records = records;
        self.mark += 1;
    }

    /// If more waits than may, keeps only which pages it is: the database has their content.
    fn keep_to_limit(&mut self) -> Result<()> {
        if self.spool.bytes() <= self.spool_limit {
            return Ok(());
        }
        self.given_up = true;
        self.note_waiting();
        if let Some(out) = self.in_flight.take() {
            self.dirty.extend(&out.pages);
            self.attempted.push(out.header);
        }
        self.let_waiting_go()
    }

    /// Remembers that all up to the cursor is in the replica or dirty, and removes what waits. First the state, so that it
    /// names no file that is gone.
    fn let_waiting_go(&mut self) -> Result<()> {
        if let Some(cursor) = self.cursor.filter(|_| self.anchored) {
            self.remember(cursor, self.mark);
        }
        self.save(self.spool.segments().len());
        self.spool.clear()
    }

    /// The pages of what waits are dirty.
    fn note_waiting(&mut self) {
        for segment in self.spool.segments() {
            self.dirty.extend(&segment.pages);
        }
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

    /// Writes the state, unless replication ended.
    fn save(&mut self, delivered: usize) {
        if !self.stopped {
            self.write_down(delivered);
        }
    }

    /// Writes the state, which names all waiting files but the oldest `delivered`.
    fn write_down(&mut self, delivered: usize) {
        self.state.spool = if self.anchored { self.spool.range(delivered) } else { None };
        if !self.save_state() {
            return;
        }
        if let Some(cursor) = self.cursor
            && self.anchored
            && self.remembered == self.mark
        {
            // The cursor before is not needed any longer: records name only what was changed after this one.
            self.note_positions();
            self.db.cursors.needs_after(self.number, cursor, self.records.clone());
            self.db.cursors.delete_unneeded();
        }
    }

    /// Writes the state as it is; `false` if it could not. Not where another file took the database's place, which has a state
    /// of its own.
    fn save_state(&mut self) -> bool {
        if self.db.check_file().is_err() {
            return false;
        }
        // Without it the next open compares the database: worse, not wrong.
        let saved = if self.makes_no_file {
            self.state.save_over(&self.folder)
        } else {
            self.state.save(&self.folder)
        };
        if let Err(e) = &saved {
            tracing::warn!("{e}");
        } else {
            self.saved = Some(self.state.clone());
        }
        saved.is_ok()
    }

    /// No position is to be found again.
    fn forget_positions(&self) {
        self.db.cursors.gives_up(self.number);
    }

    /// Puts what is on its way on disk and remembers the cursor, for a close.
    ///
    /// # Errors
    /// `Io`, `NoSpace` on the spool.
    pub(in crate::primary) fn settle(&mut self) -> Result<()> {
        // What waits for another file that took the database's place is not ours.
        if self.stopped || self.db.check_file().is_err() {
            return Ok(());
        }
        self.keep_in_flight()?;
        self.keep_to_limit()?;
        let is_saved = self.mark == self.remembered && self.spool.range(0) == self.state.spool;
        if !is_saved || self.saved.as_ref() != Some(&self.state) {
            self.remember_all();
        }
        Ok(())
    }

    /// Whether a later connection of this process can go on from what is in memory, if nobody writes the database before.
    pub(in crate::primary) fn can_be_resumed(&self) -> bool {
        !self.stopped && self.exclusive == Exclusive::No
    }

    /// Whether files wait that follow what is in the replica.
    pub(in crate::primary) fn sends_by_itself(&self) -> bool {
        self.anchored && self.cursor.is_some() && !self.stopped && !self.spool.segments().is_empty()
    }

    /// Sets whether files may be made in the folder of local state.
    pub(in crate::primary) fn may_make_files(&mut self, may: bool) {
        self.makes_no_file = !may;
    }

    /// Whether the state on disk is the one that was saved last.
    pub(in crate::primary) fn is_as_saved(&self) -> bool {
        self.saved.is_some() && self.saved == State::read(&self.folder)
    }
}
