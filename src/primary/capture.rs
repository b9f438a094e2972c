//! Capture: committed frames leave the WAL, into memory in steady state, into the spool before the
//! WAL loses them.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::ltx::{FileName, Header, Txid};
use crate::primary::commits::Noted;
use crate::primary::outgoing::Outgoing;
use crate::primary::pages::{Pages, encode_overlay, encode_pages, read_page};
use crate::primary::spool::{self, Spool};
use crate::primary::state::{Captured, State};
use crate::wal::{Committed, End, FrameNo, Position, Scan, WalHeader, scan};

/// Captured pages are kept in memory up to this; beyond, they go to the spool.
const MEMORY_LIMIT: usize = 4 * 1024 * 1024;
/// So many waiting files are merged into one, so that a long outage does not leave thousands.
const MERGE_AT: usize = 64;

/// Pages that were captured and are in no file yet.
#[derive(Debug, Default)]
struct Pending {
    /// The newest content of each page, at most `MEMORY_LIMIT` bytes.
    pages: Pages,
    /// The header of the file that they would be, but for its transactions.
    header: Option<Header>,
}

/// What is captured of one database.
///
/// Invariant: everything up to `captured` is in the replica, in `in_flight`, in the spool, or in
/// `pending`, in this order of age.
pub(super) struct Capture {
    database: PathBuf,
    wal_path: PathBuf,
    folder: PathBuf,
    wal: Option<File>,
    /// Up to where; `None` while the database must be copied anew.
    captured: Option<Captured>,
    /// Why the database must be copied anew.
    anchor_reason: Option<&'static str>,
    /// Counts changes of `captured`, so that an answer from the replica can tell whether it covers it.
    mark: u64,
    pending: Pending,
    pub(super) spool: Spool,
    pub(super) in_flight: Option<Outgoing>,
    /// The full copy that all later files build on is in the replica.
    anchored: bool,
    state: State,
    /// Replication ended for good; nothing is captured any more.
    stopped: bool,
}

impl Capture {
    /// Takes up where the local state says that an earlier process ended.
    ///
    /// # Errors
    /// `Io`, `Denied`, `NoSpace` on the state folder.
    pub(super) fn open(database: &Path, wal_path: &Path, folder: &Path, url: &str) -> Result<Self> {
        let spool = Spool::open(folder)?;
        let mut state = State::load(folder)?;
        let captured = if state.url == url { state.captured(database, wal_path) } else { None };
        let anchor_reason = match captured {
            Some(_) => None,
            None if state.url == url => Some("what is on disk is not what was last replicated"),
            None => Some("this replica has no copy of the database yet"),
        };
        if state.url != url {
            state = state.for_replica(url);
        }
        state.save(folder)?;
        Ok(Self {
            database: database.to_path_buf(),
            wal_path: wal_path.to_path_buf(),
            folder: folder.to_path_buf(),
            wal: None,
            anchored: captured.is_some(),
            captured,
            anchor_reason,
            mark: 0,
            pending: Pending::default(),
            spool,
            in_flight: None,
            state,
            stopped: false,
        })
    }

    /// Tells our files from another writer's.
    pub(super) fn node_id(&self) -> u64 {
        self.state.node_id
    }

    /// The last transaction that local state knows to be in the replica at `url`.
    pub(super) fn known_txid(&self, url: &str) -> Option<Txid> {
        self.state.txid(url)
    }

    /// Why the database must be copied anew, if it must.
    pub(super) fn anchor_reason(&self) -> Option<&'static str> {
        self.anchor_reason
    }

    /// Whether there is captured content that is not in the replica.
    pub(super) fn has_waiting(&self) -> bool {
        self.in_flight.is_some() || !self.spool.segments().is_empty() || self.pending.header.is_some()
    }

    /// How many frames `noted` is ahead of what is captured; 0 if that cannot be told.
    pub(super) fn frames_behind(&self, noted: &Noted) -> u32 {
        match (self.captured, noted.end) {
            (Some(Captured::At(at)), Some(End::Index(index))) if index.salts == at.salts => {
                index.mx_frame.0.saturating_sub(at.frame.0)
            }
            _ => 0,
        }
    }

    /// Ends replication for good: the database goes on, nothing more is captured.
    pub(super) fn stop(&mut self) {
        self.stopped = true;
        self.captured = None;
        self.pending = Pending::default();
        self.in_flight = None;
    }

    /// Captures all that is committed up to `end`; `time` is that of the last commit.
    ///
    /// If the WAL does not hold it any more, somebody else restarted it: the database is to be copied
    /// anew.
    ///
    /// # Errors
    /// `Io`, `NoSpace` and the like on the WAL or the spool; what was not captured still can be.
    pub(super) fn catch_up(&mut self, end: End, time: Timestamp) -> Result<()> {
        match self.captured {
            None => Ok(()),
            Some(Captured::NextGeneration) => self.expect_empty_wal(end),
            Some(Captured::At(_)) if restarted_without_frames(end, self.captured) => Ok(()),
            Some(Captured::At(at)) => self.capture_from(at, end, time),
        }
    }

    fn expect_empty_wal(&mut self, end: End) -> Result<()> {
        let has_frames = match end {
            End::Index(index) => index.mx_frame > FrameNo::ZERO,
            End::LastCommit => self.wal()?.is_some_and(|f| f.metadata().is_ok_and(|m| m.len() > 0)),
        };
        if has_frames {
            self.lost("the WAL was begun anew by a process without litestream");
        }
        Ok(())
    }

    fn capture_from(&mut self, at: Position, end: End, time: Timestamp) -> Result<()> {
        let Some(wal) = self.wal()? else {
            self.lost("the WAL was deleted by a process without litestream");
            return Ok(());
        };
        match scan(wal, at, end) {
            Ok(Scan::Nothing) => Ok(()),
            Ok(Scan::Committed(committed)) => self.take(&committed, time),
            Ok(Scan::OtherGeneration) => {
                self.lost("the WAL was restarted by a process without litestream");
                Ok(())
            }
            Err(e) if e.kind() == crate::error::ErrorKind::Corrupt => {
                tracing::warn!("{}: {e}", self.wal_path.display());
                self.lost("the WAL does not hold what its index says is committed");
                Ok(())
            }
            Err(e) => Err(e),
        }
    }

    /// The database must be copied anew: what was captured is no base for what follows.
    pub(super) fn lost(&mut self, reason: &'static str) {
        tracing::warn!("{}: {reason}; the database is copied anew", self.database.display());
        self.captured = None;
        self.anchor_reason = Some(reason);
        self.pending = Pending::default();
    }

    fn wal(&mut self) -> Result<Option<&File>> {
        if self.wal.is_none() {
            match File::open(&self.wal_path) {
                Ok(file) => self.wal = Some(file),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => {
                    return Err(Error::io(format_args!("cannot read {}", self.wal_path.display()), e));
                }
            }
        }
        Ok(self.wal.as_ref())
    }

    fn take(&mut self, committed: &Committed, time: Timestamp) -> Result<()> {
        let header = self.header_of(committed, time);
        let page_bytes = committed.page_size.bytes();
        if (self.pending.pages.len() + committed.pages.len()) * page_bytes > MEMORY_LIMIT {
            self.keep_in_flight()?;
            let wal = self.wal.as_ref().expect("BUG: the scan has read the WAL");
            let pending = std::mem::take(&mut self.pending.pages);
            let written =
                self.spool.write(header, |encoder| encode_overlay(encoder, &pending, wal, committed));
            if let Err(e) = written {
                self.pending.pages = pending;
                return Err(e);
            }
            self.pending = Pending::default();
        } else {
            let wal = self.wal.as_ref().expect("BUG: the scan has read the WAL");
            for (pgno, frame) in &committed.pages {
                self.pending.pages.insert(*pgno, read_page(wal, *frame, committed.page_size)?);
            }
            self.pending.pages.retain(|pgno, _| committed.commit.contains(*pgno));
            self.pending.header = Some(header);
        }
        self.set_captured(Captured::At(committed.to));
        Ok(())
    }

    fn header_of(&self, committed: &Committed, time: Timestamp) -> Header {
        let name = FileName::single(Txid::ONE.next());
        let mut header = Header::new(committed.page_size, committed.commit, name, time);
        header.wal_offset = committed.from.frame.end_offset(committed.page_size) as i64;
        header.wal_size = committed.to.frame.end_offset(committed.page_size) as i64 - header.wal_offset;
        (header.salt1, header.salt2) = (committed.to.salts.0, committed.to.salts.1);
        header.node_id = self.node_id();
        header
    }

    fn set_captured(&mut self, captured: Captured) {
        self.captured = Some(captured);
        self.mark += 1;
    }

    /// The WAL is about to lose what it holds: captures all that is committed and puts on disk what is
    /// only in memory. `next` is where the commits go on.
    ///
    /// # Errors
    /// As [`Capture::catch_up`]. The WAL will be lost all the same; the database is copied anew then.
    pub(super) fn before_wal_is_lost(&mut self, noted: &Noted, next: Captured) -> Result<()> {
        // Nobody looked at the index yet: what recovery would find in the file is what is committed.
        let end = noted.end.unwrap_or(End::LastCommit);
        let kept = self.catch_up(end, noted.time).and_then(|()| self.spill());
        if next == Captured::NextGeneration {
            self.wal = None;
        }
        match kept {
            Ok(()) if self.captured.is_some() => {
                self.set_captured(next);
                self.remember();
                self.save();
                Ok(())
            }
            Ok(()) => Ok(()),
            Err(e) => {
                self.lost("commits could not be kept on local disk while the WAL was restarted");
                Err(e)
            }
        }
    }

    /// Puts on disk what is only in memory.
    fn spill(&mut self) -> Result<()> {
        self.keep_in_flight()?;
        self.freeze()
    }

    /// What is under way is older than all that waits: it goes to the spool before anything else does.
    fn keep_in_flight(&mut self) -> Result<()> {
        match &mut self.in_flight {
            Some(out) => out.keep(&mut self.spool),
            None => Ok(()),
        }
    }

    /// Makes a spool file of the pending pages.
    fn freeze(&mut self) -> Result<()> {
        let Some(header) = self.pending.header else { return Ok(()) };
        self.keep_in_flight()?;
        let pages = &self.pending.pages;
        self.spool.write(header, |encoder| encode_pages(encoder, pages))?;
        self.pending = Pending::default();
        Ok(())
    }

    /// Merges waiting files when they became many.
    pub(super) fn tidy(&mut self) -> Result<()> {
        let n = self.spool.segments().len();
        if n >= MERGE_AT && self.in_flight.is_none() { self.spool.merge_oldest(n) } else { Ok(()) }
    }

    /// The file of transaction `txid`, of all that waits, or the one that is under way. `None` if nothing
    /// waits. Its bytes are made later: a committing thread may be waiting for us.
    ///
    /// # Errors
    /// `Io`, `Corrupt` on the spool.
    pub(super) fn next_outgoing(&mut self, txid: Txid, noted: &Noted) -> Result<Option<Outgoing>> {
        if self.in_flight.is_some() {
            return Ok(self.in_flight.clone());
        }
        if self.anchor_reason.is_some() || !self.has_waiting() {
            return Ok(None);
        }
        let out = if self.spool.segments().is_empty() {
            let pending = std::mem::take(&mut self.pending);
            let header = pending.header.expect("BUG: pages are pending with a header");
            Outgoing::of_pages(spool::single(header, txid), pending.pages, noted.seq, self.mark)
        } else {
            self.freeze()?;
            let newest = self.spool.segments().last().expect("BUG: the spool is not empty").header;
            let header = Header { node_id: self.node_id(), ..spool::single(newest, txid) };
            Outgoing::of_spool(header, &self.spool, noted.seq, self.mark)
        };
        self.in_flight = Some(out.clone());
        Ok(Some(out))
    }

    /// The file that is under way is in the replica, as its transaction.
    pub(super) fn delivered(&mut self, out: &Outgoing) {
        let kept = self.in_flight.take().map_or(out.inputs, |o| o.inputs);
        if let Err(e) = self.spool.remove_oldest(kept) {
            tracing::warn!("{e}");
        }
        self.state.txid = Some(out.txid.get());
        // Only what is on disk or in the replica may be remembered as captured. A position that stays
        // behind costs a second upload of some pages after a crash, no more.
        if out.mark == self.mark {
            self.remember();
        }
        self.save();
    }

    /// The transaction of the file that is under way is in the replica with other content of ours,
    /// from before a crash. What the file holds goes out once more, as a later transaction.
    ///
    /// # Errors
    /// `Io` on the spool.
    pub(super) fn requeue(&mut self, published: Txid) -> Result<()> {
        if let Some(mut out) = self.in_flight.take() {
            out.keep(&mut self.spool)?;
        }
        self.state.txid = Some(published.get());
        self.save();
        Ok(())
    }

    /// Begins a full copy as of `position`: what was captured before is part of it.
    ///
    /// # Errors
    /// `Io` on the spool.
    pub(super) fn begin_anchor(&mut self, position: Captured) -> Result<()> {
        self.in_flight = None;
        self.pending = Pending::default();
        self.spool.clear()?;
        self.anchored = false;
        self.wal = None;
        self.set_captured(position);
        Ok(())
    }

    /// The full copy did not get to the replica.
    pub(super) fn abandon_anchor(&mut self) {
        self.captured = None;
        self.pending = Pending::default();
    }

    /// The full copy is in the replica as `txid`.
    pub(super) fn anchored(&mut self, txid: Txid) {
        self.state.txid = Some(txid.get());
        // A WAL that was lost meanwhile asks for yet another copy.
        if self.captured.is_some() {
            self.anchored = true;
            self.anchor_reason = None;
            match self.freeze() {
                Ok(()) => self.remember(),
                Err(e) => tracing::warn!("{e}"),
            }
        }
        self.save();
    }

    /// Remembers `captured`: all of it is on disk or in the replica.
    fn remember(&mut self) {
        if self.anchored {
            self.state.set_captured(self.captured, &self.database);
        }
    }

    fn save(&self) {
        if self.stopped {
            return;
        }
        // Without it the next open copies the database anew: worse, not wrong.
        if let Err(e) = self.state.save(&self.folder) {
            tracing::warn!("{e}");
        }
    }

    /// Puts what is only in memory on disk and remembers the position, for a close.
    ///
    /// # Errors
    /// `Io`, `NoSpace` on the spool.
    pub(super) fn settle(&mut self) -> Result<()> {
        self.spill()?;
        if self.captured.is_some() {
            self.remember();
            self.save();
        }
        Ok(())
    }
}

/// The WAL index was reset, and nothing was written since: what was captured stays complete.
fn restarted_without_frames(end: End, captured: Option<Captured>) -> bool {
    match (end, captured) {
        (End::Index(index), Some(Captured::At(at))) => {
            index.mx_frame == FrameNo::ZERO && index.salts != at.salts
        }
        _ => false,
    }
}

/// Where the commits go on after a WAL header: the start of its generation.
pub(super) fn generation_of(header: &[u8]) -> Option<Captured> {
    let header = WalHeader::decode(header.first_chunk()?).ok()?;
    Some(Captured::At(Position::start_of(&header)))
}
