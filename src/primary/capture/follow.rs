//! How capture follows the WAL.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::{Capture, Emptied, holds_generation};
use crate::error::{Error, ErrorKind, Result};
use crate::primary::commits::{Commits, Noted};
use crate::primary::generations::Waiting;
use crate::primary::handover::header_of;
use crate::primary::kept::Kept;
use crate::primary::pending::Pending;
use crate::primary::stamp::Stamp;
use crate::primary::state::Captured;
use crate::wal::{Committed, End, FrameNo, IndexHeader, Position, Salts, Scan, read_header, scan};

/// What a look at the index and at the WAL found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::primary) enum Look {
    /// What is captured is part of what is there, or the database is copied anew.
    Clear,
    /// The WAL holds commits that the index has forgotten. Whoever restarts the WAL leaves word of them,
    /// if it is one of us.
    AtReset,
}

/// What became of an attempt to read from the WAL.
enum Read {
    /// All that was asked for is captured.
    Done,
    /// The WAL does not hold it, or not any more.
    Gone(&'static str),
}

const RESTARTED: &str = "the WAL was restarted by a process without litestream";

impl Capture {
    /// Captures all that is noted.
    ///
    /// If neither the WAL nor what was kept of it holds that any more, somebody else restarted it: the
    /// database is to be copied anew.
    ///
    /// # Errors
    /// `Io`, `NoSpace` and the like on the WAL or the spool; what was not captured still can be.
    pub(in crate::primary) fn catch_up(&mut self, commits: &Commits) -> Result<()> {
        loop {
            let (noted, waiting) = self.generations.now(commits);
            waiting.iter().try_for_each(|waiting| self.take_waiting(waiting))?;
            self.take_handed_over()?;
            let Some(end) = noted.end else { return Ok(()) };
            let Read::Gone(why) = self.follow_wal(end, &noted)? else { return Ok(()) };
            // A committing thread may have restarted it while it was read.
            let restarted = self.generations.oldest().is_some() || self.take_handed_over()?;
            if !restarted && !self.take_kept(&noted)? {
                self.lost(why);
                return Ok(());
            }
        }
    }

    /// Captures the oldest generation that was kept; `false` if there is none.
    ///
    /// # Errors
    /// As [`Capture::catch_up`].
    pub(in crate::primary) fn catch_up_kept(&mut self) -> Result<bool> {
        let Some(waiting) = self.generations.oldest() else { return Ok(false) };
        self.take_waiting(&waiting).map(|()| true)
    }

    /// Captures a generation that a writer of this process kept.
    fn take_waiting(&mut self, waiting: &Waiting) -> Result<()> {
        let is_due = |capture: &Self| capture.position().is_some_and(|at| at.salts == waiting.kept.salts);
        // Other processes may have ended generations before it.
        while !is_due(self) && (self.take_kept(&waiting.noted)? || self.take_handed_over()?) {}
        match self.position() {
            Some(at) if is_due(self) => {
                self.take_generation(waiting.kept, at, waiting.end, &waiting.noted)?;
            }
            // If nothing is captured, all is copied anew.
            _ if self.captured.is_some() => self.lost(RESTARTED),
            _ => {}
        }
        self.generations.captured(&waiting.kept);
        Ok(())
    }

    /// Where in the WAL capture is.
    fn position(&self) -> Option<Position> {
        match self.captured {
            Some(Captured::At(at)) => Some(at),
            Some(Captured::NextGeneration) | None => None,
        }
    }

    /// Captures the rest of a generation that another process kept, or an earlier one; `false` if none
    /// did.
    fn take_kept(&mut self, noted: &Noted) -> Result<bool> {
        let Some(at) = self.position() else { return Ok(false) };
        // If it is not restarted yet, what was kept may be older than what is there.
        if holds_generation(&self.wal_path, at.salts) {
            return Ok(false);
        }
        let Some(kept) = Kept::find(self.generations.folder(), at.salts) else { return Ok(false) };
        self.take_generation(kept, at, End::LastCommit, noted)?;
        Ok(true)
    }

    /// Captures all that an earlier process kept and others handed over, up to the generation that is in
    /// the WAL. No commit need have been made in that one, so nothing else would ask for it.
    pub(super) fn take_what_was_kept(&mut self, noted: &Noted) {
        if let Err(e) = self.follow_to_wal(noted, false) {
            tracing::warn!("{}: {e}", self.database.display());
            if !self.is_in_wal(false) {
                self.lost(RESTARTED);
            }
        }
        if self.taken.is_empty() {
            // What is there was kept before a restart that did not happen, or long ago.
            self.generations.remove_earlier();
        }
    }

    /// Follows what was kept and handed over up to the generation that is in the WAL. If nothing leads
    /// there, somebody else restarted or emptied the WAL. `writing`: a writer of this process is at work.
    fn follow_to_wal(&mut self, noted: &Noted, writing: bool) -> Result<()> {
        loop {
            // Looked at first: who restarts the WAL leaves word before.
            let is_there = self.is_in_wal(writing);
            // What writers of this process kept comes first, and is captured with what they noted.
            if self.generations.oldest().is_some() {
                return Ok(());
            }
            if !self.take_kept(noted)? && !self.take_handed_over()? {
                if !is_there {
                    self.lost(RESTARTED);
                }
                return Ok(());
            }
        }
    }

    /// Whether the WAL holds the generation that is captured, or will: a writer of this process that is at
    /// work says what it begins before it does.
    fn is_in_wal(&self, writing: bool) -> bool {
        match self.captured {
            Some(captured @ Captured::At(at)) => {
                (writing && self.generations.lock().begun() == Some(captured))
                    || holds_generation(&self.wal_path, at.salts)
            }
            Some(Captured::NextGeneration) | None => true,
        }
    }

    fn take_generation(&mut self, kept: Kept, at: Position, end: End, noted: &Noted) -> Result<()> {
        const BROKEN: &str = "what was kept of the WAL is broken";
        let wal = match kept.open(self.generations.folder()) {
            Err(e) if e.kind() == ErrorKind::NotFound => {
                self.lost("what was kept of the WAL is gone");
                return Ok(());
            }
            wal => wal?,
        };
        if let Read::Gone(_) = self.capture_from(&wal, at, end, noted)? {
            self.lost(BROKEN);
        }
        match self.captured {
            Some(Captured::At(to)) if to.frame == kept.last => {
                self.set_captured(Captured::At(kept.next));
                self.taken.push((self.mark, kept));
                self.release_kept();
            }
            Some(_) => self.lost(BROKEN),
            None => {}
        }
        Ok(())
    }

    fn follow_wal(&mut self, end: End, noted: &Noted) -> Result<Read> {
        match (self.captured, end) {
            (None, _) => Ok(Read::Done),
            (Some(Captured::NextGeneration), _) => self.expect_empty_wal(end, !self.emptied.by_another),
            // The index was reset, and nothing was committed since.
            (Some(Captured::At(at)), End::Index(index))
                if index.mx_frame == FrameNo::ZERO && index.salts.follow(at.salts) =>
            {
                self.expect_end_of_generation(at)
            }
            (Some(Captured::At(at)), End::Index(index)) if self.is_older(&index, at) => Ok(Read::Done),
            (Some(Captured::At(at)), _) => match self.wal()? {
                Some(wal) => {
                    let wal = wal.try_clone().map_err(|e| Error::io("cannot read the WAL", e))?;
                    self.capture_from(&wal, at, end, noted)
                }
                None => Ok(Read::Gone("the WAL was deleted by a process without litestream")),
            },
        }
    }

    /// Takes a look at the index, which was just read, and at the WAL: they say whether somebody used the
    /// WAL of whom nothing else tells. `writing`: a writer of this process is at work.
    ///
    /// # Errors
    /// As [`Capture::catch_up`].
    pub(in crate::primary) fn look(
        &mut self,
        index: &IndexHeader,
        noted: &Noted,
        writing: bool,
    ) -> Result<Look> {
        self.follow_to_wal(noted, writing)?;
        match self.captured {
            Some(Captured::At(at)) if index.salts == at.salts && index.mx_frame < at.frame => {
                self.lost("the WAL lost commits that were captured");
                Ok(Look::Clear)
            }
            _ if index.mx_frame > FrameNo::ZERO => Ok(Look::Clear),
            Some(Captured::At(at)) if index.salts.follow(at.salts) => self.look_at_end(at),
            Some(Captured::NextGeneration) => {
                if let Read::Gone(why) = self.expect_empty_wal(End::Index(*index), true)? {
                    self.lost(why);
                }
                Ok(Look::Clear)
            }
            Some(Captured::At(_)) | None => Ok(Look::Clear),
        }
    }

    /// The index was reset, so that the generation of `at` is to end; whether all of it is captured.
    fn look_at_end(&mut self, at: Position) -> Result<Look> {
        if self.handed_to == Some(at) || self.generations.oldest().is_some() {
            return Ok(Look::Clear);
        }
        let has_more = match self.wal()? {
            Some(wal) => !matches!(scan(wal, at, End::LastCommit)?, Scan::Nothing),
            None => true,
        };
        Ok(if has_more { Look::AtReset } else { Look::Clear })
    }

    /// Somebody reset the index and left no word of what the WAL held.
    pub(in crate::primary) fn reset_by_stranger(&mut self) {
        self.lost(RESTARTED);
    }

    /// Whether `index` was noted before what is captured up to `at`: by this process while another one
    /// published, or before another process restarted the WAL.
    fn is_older(&self, index: &IndexHeader, at: Position) -> bool {
        let is_another = index.salts != at.salts || index.mx_frame < at.frame;
        is_another && holds_generation(&self.wal_path, at.salts)
    }

    /// The WAL must be empty still. `end` is not older than that if it is `fresh`.
    fn expect_empty_wal(&mut self, end: End, fresh: bool) -> Result<Read> {
        let is_empty = match end {
            End::Index(index) if index.mx_frame == FrameNo::ZERO => {
                self.is_untouched(fresh.then_some(index.salts))
            }
            End::Index(_) => self.wal_is_empty()? && self.is_untouched(None),
            End::LastCommit => self.wal_is_empty()?,
        };
        if is_empty {
            return Ok(Read::Done);
        }
        Ok(Read::Gone("the WAL was begun anew by a process without litestream"))
    }

    /// Whether the emptied WAL was not even used and emptied again: that would give the database file
    /// another time and, unless all connections were closed between, the index other salts.
    fn is_untouched(&mut self, salts: Option<Salts>) -> bool {
        let same_file = self.emptied.stamp.is_some() && self.emptied.stamp == Stamp::of(&self.database);
        same_file && salts.is_none_or(|salts| salts == *self.emptied.salts.get_or_insert(salts))
    }

    /// The WAL file must hold nothing that was committed after `at`.
    fn expect_end_of_generation(&mut self, at: Position) -> Result<Read> {
        let handed_over = self.handed_to == Some(at);
        let nothing_more = match self.wal()? {
            // Frames after the end that another process saw were never committed.
            Some(wal) if handed_over => read_header(wal)?.is_some_and(|header| header.salts == at.salts),
            Some(wal) => matches!(scan(wal, at, End::LastCommit)?, Scan::Nothing),
            None => false,
        };
        if nothing_more { Ok(Read::Done) } else { Ok(Read::Gone(RESTARTED)) }
    }

    fn capture_from(&mut self, wal: &File, at: Position, end: End, noted: &Noted) -> Result<Read> {
        match scan(wal, at, end) {
            Ok(Scan::Nothing) => Ok(Read::Done),
            Ok(Scan::Committed(committed)) => self.take(&committed, wal, noted),
            Ok(Scan::OtherGeneration) => Ok(Read::Gone(RESTARTED)),
            Err(e) if e.kind() == ErrorKind::Corrupt => {
                tracing::debug!("{}: {e}", self.wal_path.display());
                Ok(Read::Gone("the WAL does not hold what its index says is committed"))
            }
            Err(e) => Err(e),
        }
    }

    pub(super) fn wal(&mut self) -> Result<Option<&File>> {
        if self.wal.as_ref().is_some_and(|file| !is_at(file, &self.wal_path)) {
            self.wal = None;
        }
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

    fn take(&mut self, committed: &Committed, wal: &File, noted: &Noted) -> Result<Read> {
        let header = header_of(committed, noted.time, self.node_id());
        // The scan has verified what it read, but the pages are read once more, and a committing thread
        // may be restarting the WAL.
        let is_still_there =
            || Ok(read_header(wal)?.is_some_and(|header| header.salts == committed.to.salts));
        if !self.to_disk && self.pending.has_room_for(committed) {
            let pages = committed.read_pages(wal)?;
            if !is_still_there()? {
                return Ok(Read::Gone(RESTARTED));
            }
            self.pending.add(committed, pages, header);
            self.set_captured(Captured::At(committed.to));
            return Ok(Read::Done);
        }
        self.keep_in_flight()?;
        let pending = &self.pending;
        self.spool.write(header, noted.seq, |encoder| pending.encode_under(committed, wal, encoder))?;
        if !is_still_there()? {
            self.spool.remove_newest()?;
            return Ok(Read::Gone(RESTARTED));
        }
        self.pending = Pending::default();
        self.set_captured(Captured::At(committed.to));
        self.keep_to_limit()?;
        self.remember_all();
        Ok(Read::Done)
    }

    /// The WAL is about to lose what it holds: captures all that is committed and puts on disk what is
    /// only in memory. `next` is where the commits go on.
    ///
    /// # Errors
    /// As [`Capture::catch_up`]. The WAL will be lost all the same; the database is copied anew then.
    pub(in crate::primary) fn before_wal_is_lost(&mut self, commits: &Commits, next: Captured) -> Result<()> {
        let kept = self.keep_on_disk(commits);
        self.generations.lost_wal(commits, next);
        if next == Captured::NextGeneration {
            self.wal = None;
            self.emptied = Emptied { stamp: Stamp::of(&self.database), ..Emptied::default() };
        }
        match kept {
            Ok(()) if self.captured.is_some() => {
                self.set_captured(next);
                self.remember_all();
                Ok(())
            }
            Ok(()) => Ok(()),
            Err(e) => {
                self.lost("commits could not be kept on local disk while the WAL was restarted");
                Err(e)
            }
        }
    }

    fn keep_on_disk(&mut self, commits: &Commits) -> Result<()> {
        self.catch_up(commits)?;
        let noted = commits.last();
        // Nobody looked at the index yet: what recovery would find in the file is what is committed.
        if noted.end.is_none()
            && let Read::Gone(why) = self.follow_wal(End::LastCommit, &noted)?
        {
            self.lost(why);
        }
        self.spill(noted.seq)
    }
}

/// Whether `file` is what stands at `path`.
fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(a), Ok(b)) = (file.metadata(), path.metadata()) else { return false };
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}
