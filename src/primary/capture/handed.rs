//! How capture follows what other processes handed over.

use super::{Capture, Emptied};
use crate::error::{ErrorKind, Result};
use crate::ltx::Header;
use crate::primary::commits::CommitSeq;
use crate::primary::handover::{Next, Point};
use crate::primary::kept::Kept;
use crate::primary::outgoing::copy_pages;
use crate::primary::state::Captured;
use crate::wal::{Position, read_header};

impl Capture {
    /// Follows the generations of the WAL that other processes ended, as far as they left word; whether
    /// any was left behind.
    ///
    /// # Errors
    /// `Io`, `NoSpace` on the spool and on what was left.
    pub(super) fn take_handed_over(&mut self) -> Result<bool> {
        let mut followed = Vec::new();
        let outcome = loop {
            match self.step() {
                // Emptied again with the stamp that it had: what is written there is what was followed.
                Ok(Some(point)) if followed.contains(&point) => break Ok(()),
                Ok(Some(point)) => followed.push(point),
                Ok(None) => break Ok(()),
                Err(e) if matches!(e.kind(), ErrorKind::Corrupt | ErrorKind::NotFound) => {
                    tracing::warn!("{}: {e}", self.database.display());
                    self.lost("what another process left of the WAL is broken");
                    break Ok(());
                }
                Err(e) => break Err(e),
            }
        };
        let any = !followed.is_empty();
        self.left_behind.append(&mut followed);
        if !self.left_behind.is_empty() {
            // First the state, so that it does not need what is gone; and before it what is only in memory.
            self.spill(CommitSeq::default())?;
            self.remember_all();
            self.left_behind.drain(..).for_each(|point| self.handover.followed(point));
        }
        outcome.map(|()| any)
    }

    /// Follows one step; returns the point that was left behind, if any was.
    fn step(&mut self) -> Result<Option<Point>> {
        let Some(point) = self.point()? else { return Ok(None) };
        match self.handover.next(point)? {
            None => Ok(None),
            Some(Next::Unclear) => {
                self.lost("the WAL was used twice within one tick of the file system's clock");
                Ok(None)
            }
            Some(Next::Begun(position)) => {
                let position = Position::from(position);
                Ok(self.has_begun(position)?.then(|| self.leave(point, Captured::At(position))))
            }
            // It was empty, and was emptied once more.
            Some(Next::Emptied(stamp)) if point == Point::Emptied(stamp) => {
                self.emptied = Emptied { stamp: Some(stamp), salts: None, by_another: true };
                self.handover.followed(point);
                Ok(None)
            }
            Some(Next::Emptied(stamp)) => {
                let done = self.wal_is_empty()? || self.handover.goes_on(stamp);
                Ok(done.then(|| {
                    self.emptied = Emptied { stamp: Some(stamp), salts: None, by_another: true };
                    self.wal = None;
                    self.leave(point, Captured::NextGeneration)
                }))
            }
        }
    }

    /// Where capture is, if that is where a generation may end.
    fn point(&mut self) -> Result<Option<Point>> {
        Ok(match self.captured {
            Some(Captured::At(at)) => self.take_end(at)?.then_some(Point::End(at.salts)),
            Some(Captured::NextGeneration) => self.emptied.stamp.map(Point::Emptied),
            None => None,
        })
    }

    fn leave(&mut self, point: Point, next: Captured) -> Point {
        self.set_captured(next);
        point
    }

    /// Captures the rest of the generation of `at`, if somebody left it; whether all of it is captured.
    fn take_end(&mut self, at: Position) -> Result<bool> {
        let Some(ended) = self.handover.ended(at.salts)? else { return Ok(false) };
        let to = Position::from(ended.to);
        if at == to {
            self.handed_to = Some(to);
            return Ok(true);
        }
        // What is left too short, or of a time before a crash, is no help.
        if to.frame <= at.frame || ended.from > at.frame.0 || !ended.is_certain {
            return Ok(false);
        }
        let mut pages = self.handover.pages(at.salts)?;
        self.spill(CommitSeq::default())?;
        if self.captured.is_none() {
            return Ok(false);
        }
        let header = Header { node_id: self.node_id(), ..*pages.header() };
        let mut page = vec![0; header.page_size.bytes()];
        // Commits of this process may be newer: the file covers none of them for sure.
        self.spool.write(header, CommitSeq::default(), |encoder| {
            copy_pages(&mut pages, encoder, &mut page)?;
            pages.finish().map(drop)
        })?;
        self.set_captured(Captured::At(to));
        self.handed_to = Some(to);
        self.keep_to_limit()?;
        Ok(self.captured.is_some())
    }

    /// Whether the generation that starts at `position` was really begun.
    fn has_begun(&mut self, position: Position) -> Result<bool> {
        let is_there = match self.wal()? {
            Some(wal) => read_header(wal)?
                .is_some_and(|h| h.salts == position.salts && h.checksum == position.checksum),
            None => false,
        };
        Ok(is_there
            || self.handover.next(Point::End(position.salts))?.is_some()
            || Kept::find(self.generations.folder(), position.salts).is_some())
    }

    pub(super) fn wal_is_empty(&mut self) -> Result<bool> {
        Ok(self.wal()?.is_none_or(|file| file.metadata().is_ok_and(|meta| meta.len() == 0)))
    }
}
