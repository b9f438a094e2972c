//! How capture follows the WAL.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::{Capture, Emptied};
use crate::error::{Error, ErrorKind, Result};
use crate::primary::commits::Noted;
use crate::primary::handover::header_of;
use crate::primary::pending::Pending;
use crate::primary::stamp::Stamp;
use crate::primary::state::Captured;
use crate::wal::{Committed, End, FrameNo, IndexHeader, Position, Scan, WalHeader, read_header, scan};

impl Capture {
    /// Captures all that is noted.
    ///
    /// If the WAL does not hold it any more, somebody else restarted it: the database is to be copied
    /// anew.
    ///
    /// # Errors
    /// `Io`, `NoSpace` and the like on the WAL or the spool; what was not captured still can be.
    pub(in crate::primary) fn catch_up(&mut self, noted: &Noted) -> Result<()> {
        match noted.end {
            Some(end) => self.catch_up_to(end, noted),
            None => self.take_handed_over(),
        }
    }

    fn catch_up_to(&mut self, end: End, noted: &Noted) -> Result<()> {
        self.take_handed_over()?;
        match (self.captured, end) {
            _ if self.has_passed(end) => Ok(()),
            (None, _) => Ok(()),
            (Some(Captured::NextGeneration), _) => self.expect_empty_wal(end),
            // The index was reset, and nothing was committed since.
            (Some(Captured::At(at)), End::Index(index))
                if index.mx_frame == FrameNo::ZERO && index.salts != at.salts =>
            {
                self.expect_end_of_generation(at)
            }
            (Some(Captured::At(at)), _) => self.capture_from(at, end, noted),
        }
    }

    /// Takes a look at the index, which says whether somebody used the WAL that we know as empty.
    ///
    /// # Errors
    /// As [`Capture::catch_up`].
    pub(in crate::primary) fn look(&mut self, index: &IndexHeader) -> Result<()> {
        self.take_handed_over()?;
        if index.mx_frame == FrameNo::ZERO && self.captured == Some(Captured::NextGeneration) {
            self.expect_empty_wal(End::Index(*index))?;
        }
        Ok(())
    }

    /// Whether `end` is that of a generation which another process ended, and all of it is captured.
    fn has_passed(&self, end: End) -> bool {
        let End::Index(index) = end else { return false };
        let at = self.handed_to.filter(|at| self.captured == Some(Captured::At(*at)));
        self.passed.contains(&index.salts)
            || at.is_some_and(|at| index.salts == at.salts && index.mx_frame <= at.frame)
    }

    fn expect_empty_wal(&mut self, end: End) -> Result<()> {
        let is_empty = match end {
            End::Index(index) => index.mx_frame == FrameNo::ZERO && self.is_untouched(&index),
            End::LastCommit => self.wal()?.is_none_or(|f| f.metadata().is_ok_and(|m| m.len() == 0)),
        };
        if !is_empty {
            self.lost("the WAL was begun anew by a process without litestream");
        }
        Ok(())
    }

    /// Whether the emptied WAL was not even used and emptied again: that would give the database file
    /// another time and, unless all connections were closed between, the index other salts.
    fn is_untouched(&mut self, index: &IndexHeader) -> bool {
        let salts = *self.emptied.salts.get_or_insert(index.salts);
        let same_file = self.emptied.stamp.is_some() && self.emptied.stamp == Stamp::of(&self.database);
        same_file && salts == index.salts
    }

    /// The WAL file must hold nothing that was committed after `at`.
    fn expect_end_of_generation(&mut self, at: Position) -> Result<()> {
        let handed_over = self.handed_to == Some(at);
        let nothing_more = match self.wal()? {
            // Frames after the end that another process saw were never committed.
            Some(wal) if handed_over => read_header(wal)?.is_some_and(|header| header.salts == at.salts),
            Some(wal) => matches!(scan(wal, at, End::LastCommit)?, Scan::Nothing),
            None => false,
        };
        if !nothing_more {
            self.lost("the WAL was restarted by a process without litestream");
        }
        Ok(())
    }

    fn capture_from(&mut self, at: Position, end: End, noted: &Noted) -> Result<()> {
        let Some(wal) = self.wal()? else {
            self.lost("the WAL was deleted by a process without litestream");
            return Ok(());
        };
        match scan(wal, at, end) {
            Ok(Scan::Nothing) => Ok(()),
            Ok(Scan::Committed(committed)) => self.take(&committed, noted),
            Ok(Scan::OtherGeneration) => {
                self.lost("the WAL was restarted by a process without litestream");
                Ok(())
            }
            Err(e) if e.kind() == ErrorKind::Corrupt => {
                tracing::warn!("{}: {e}", self.wal_path.display());
                self.lost("the WAL does not hold what its index says is committed");
                Ok(())
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

    fn take(&mut self, committed: &Committed, noted: &Noted) -> Result<()> {
        let header = header_of(committed, noted.time, self.node_id());
        let in_memory = self.pending.has_room_for(committed);
        if !in_memory {
            self.keep_in_flight()?;
        }
        let wal = self.wal.as_ref().expect("BUG: the scan has read the WAL");
        if in_memory {
            self.pending.add(committed, wal, header)?;
        } else {
            let pending = &self.pending;
            self.spool.write(header, noted.seq, |encoder| pending.encode_under(committed, wal, encoder))?;
            self.pending = Pending::default();
        }
        // The scan has verified what it read, but the pages were read once more.
        if !read_header(wal)?.is_some_and(|header| header.salts == committed.to.salts) {
            self.lost("the WAL was restarted by a process without litestream");
            return Ok(());
        }
        self.set_captured(Captured::At(committed.to));
        if !in_memory {
            self.keep_to_limit()?;
            self.remember_all();
        }
        Ok(())
    }

    /// The WAL is about to lose what it holds: captures all that is committed and puts on disk what is
    /// only in memory. `next` is where the commits go on.
    ///
    /// # Errors
    /// As [`Capture::catch_up`]. The WAL will be lost all the same; the database is copied anew then.
    pub(in crate::primary) fn before_wal_is_lost(&mut self, noted: &Noted, next: Captured) -> Result<()> {
        // Nobody looked at the index yet: what recovery would find in the file is what is committed.
        let end = noted.end.unwrap_or(End::LastCommit);
        let kept = self.catch_up_to(end, noted).and_then(|()| self.spill(noted.seq));
        self.begun = Some(next).filter(|next| *next != Captured::NextGeneration);
        if next == Captured::NextGeneration {
            self.wal = None;
            self.emptied = Emptied { stamp: Stamp::of(&self.database), salts: None };
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
}

/// Where the commits go on after a WAL header: the start of its generation.
pub(in crate::primary) fn generation_of(header: &[u8]) -> Option<Captured> {
    let header = WalHeader::decode(header.first_chunk()?).ok()?;
    Some(Captured::At(Position::start_of(&header)))
}

/// Whether `file` is what stands at `path`.
fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(a), Ok(b)) = (file.metadata(), path.metadata()) else { return false };
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}
