//! How what was captured gets to the replica.

use super::view::Changed;
use super::{Capture, Exclusive, Held};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::ltx::{FileId, Header, Txid};
use crate::primary::context::Context;
use crate::primary::dirty::{Cursor, Mark, PageSet};
use crate::primary::hooks::{Noted, PinnedView};
use crate::primary::seals::Subject;
use crate::primary::shipper::outgoing::{Body, Outgoing};
use crate::primary::shipper::spool::{self, Merge, Segment};
use crate::primary::shipper::state::{Claim, Origin};
use crate::primary::time::Witness;

/// The number of waiting files beyond which the older ones become coarser, beside those that are on their way.
const MOST_WAITING: usize = 64;
/// The most waiting files that make one file for the replica: each is open meanwhile.
const MOST_INPUTS: usize = 64;

impl Capture {
    /// A merge of waiting files to do, if they became many.
    pub(in crate::primary) fn merge(&self) -> Option<Merge> {
        // What is under way stays as it is.
        self.spool.merge_beyond(self.in_flight.as_ref().map_or(0, |out| out.inputs), MOST_WAITING)
    }

    /// Makes the file of transaction `txid` from what was committed up to `noted` and what waits, or returns the one
    /// that is under way. `None` if there is nothing to send. Without a connection it is made only of what waits. `time` is
    /// the time of publishing for a commit's time. With `holds` the view is kept, for a snapshot ([`Capture::take_view`]).
    ///
    /// # Errors
    /// Those of the view; `Busy`; `Io`, `NoSpace` on the spool.
    pub(in crate::primary) fn next_outgoing(
        &mut self,
        txid: Txid,
        db: &Context,
        noted: &Noted,
        time: impl Fn(Timestamp, Witness) -> Timestamp,
        holds: bool,
    ) -> Result<Option<Outgoing>> {
        if self.in_flight.is_some() {
            return Ok(self.in_flight.clone());
        }
        if self.stopped || self.cursor.is_none() || self.anchor_reason.is_some() {
            return Ok(None);
        }
        if !self.anchored {
            // A round that was given up chose the cursor later.
            self.lost("the copy before it was given up");
            return Ok(None);
        }
        // What waits goes first, and nothing is added to it meanwhile: so it comes to an end.
        if !self.spool.segments().is_empty() {
            return Ok(Some(self.send_from_spool(txid, time)));
        }
        self.held = None;
        self.holds = holds;
        let made = self.capture_outgoing(txid, db, noted, time);
        self.holds = false;
        let shows = match &made {
            Ok(Some(_)) => Some(txid),
            Ok(None) => self.state.txid.and_then(Txid::new),
            Err(_) => None,
        };
        self.held = self.held.take().filter(|_| shows.is_some()).map(|held| Held { txid: shows, ..held });
        made
    }

    /// As [`Capture::next_outgoing`], where nothing waits.
    fn capture_outgoing(
        &mut self,
        txid: Txid,
        db: &Context,
        noted: &Noted,
        time: impl Fn(Timestamp, Witness) -> Timestamp,
    ) -> Result<Option<Outgoing>> {
        let changed = if db.is_open() { self.changed(db)? } else { None };
        if let Some(changed) = changed {
            if self.cursor.is_none() {
                // What was changed is not known: a comparison chooses the next cursor.
                return Ok(None);
            }
            if changed.pages.is_empty() {
                self.pass(changed);
            } else if changed.is_small() {
                let time = time(changed.time, Witness::Here);
                return self.send_from_memory(txid, changed, time, noted).map(Some);
            } else {
                let time = changed.time;
                self.take_last_into_spool(changed, time, noted.seq)?;
            }
        }
        // It may be lost.
        if self.cursor.is_none() || self.spool.segments().is_empty() {
            return Ok(None);
        }
        Ok(Some(self.send_from_spool(txid, time)))
    }

    fn send_from_memory(
        &mut self,
        txid: Txid,
        changed: Changed,
        time: Timestamp,
        noted: &Noted,
    ) -> Result<Outgoing> {
        let header = Header { lineage: self.lineage(), ..changed.header(time, self.node_id()) };
        let header = self.seals.header(spool::single(header, txid));
        let pages = changed.pages.clone();
        self.db.frames.joins(self.number);
        let content = self.take_into_memory(changed)?;
        let encoded = content.encode(header, &self.db.frames, &self.seals);
        let (bytes, sums) = encoded.inspect_err(|_| self.lost("a file could not be made"))?;
        let cursor = (self.cursor.expect("BUG: what was captured has an end"), self.mark);
        let body = Body::Memory(bytes.into());
        let out = Outgoing { txid, header, body, pages, sums, inputs: 0, covers: noted.seq, cursor };
        self.in_flight = Some(out.clone());
        Ok(out)
    }

    /// The oldest waiting file as transaction `txid`, with those that follow it within `sync_interval`: each point in time
    /// of an outage stays one.
    fn send_from_spool(&mut self, txid: Txid, time: impl Fn(Timestamp, Witness) -> Timestamp) -> Outgoing {
        let segments = self.spool.segments();
        let ends = |segment: &Segment| segment.header.timestamp.as_millis();
        let until = ends(&segments[0]).saturating_add(self.sync_interval.as_millis() as i64);
        let near = segments.iter().take(MOST_INPUTS).skip(1).take_while(|segment| ends(segment) < until);
        let oldest = segments[..=near.count()].to_vec();
        let last = oldest.last().expect("BUG: the spool is not empty");
        let timestamp = time(last.header.timestamp, Witness::Elsewhere);
        let (node_id, lineage) = (self.node_id(), self.lineage());
        let header = Header { node_id, lineage, timestamp, ..spool::single(last.header, txid) };
        let header = self.seals.header(header);
        let covers = last.covers;
        let mut pages = PageSet::default();
        oldest.iter().for_each(|segment| pages.extend(&segment.pages));
        let cursor = (self.cursor.expect("BUG: what was captured has an end"), self.mark);
        let inputs = oldest.len();
        let body = Body::Waiting(oldest);
        let out = Outgoing { txid, header, body, pages, sums: Vec::new(), inputs, covers, cursor };
        self.in_flight = Some(out.clone());
        out
    }

    /// The file that is under way was made in memory from waiting files.
    pub(in crate::primary) fn is_in_memory(&mut self, made: &Outgoing) {
        if let Some(out) = self.in_flight.as_mut().filter(|out| out.header == made.header) {
            *out = made.clone();
        }
    }

    /// A waiting file is broken of which the file with `header` was to be made, if that is still under way.
    pub(in crate::primary) fn is_broken(&mut self, header: &Header) {
        if self.in_flight.take_if(|out| out.header == *header).is_some() {
            // An earlier attempt may have landed.
            self.attempted.push(*header);
            self.lost("a file that waited for the replica is broken");
        }
    }

    /// Waiting files were merged to keep them few.
    ///
    /// # Errors
    /// `Io` on the spool.
    pub(in crate::primary) fn merged_waiting(&mut self, merge: &Merge, merged: Segment) -> Result<()> {
        self.spool.replace(merge, merged)
    }

    /// The file that is under way is in the replica, as its transaction.
    pub(in crate::primary) fn delivered(&mut self, out: &Outgoing) {
        // What was given up meanwhile has left the spool.
        let inputs = self.in_flight.take().map_or(0, |o| o.inputs);
        self.attempted.clear();
        self.state.published(out.txid, out.header.timestamp);
        let (cursor, mark) = out.cursor;
        if self.anchored && mark > self.remembered {
            self.remember(cursor, mark);
        }
        // First the state, so that no file is missing that it names.
        self.save(inputs);
        if let Err(e) = self.spool.remove_oldest(inputs).and_then(|()| self.forget_spent(out.txid)) {
            tracing::warn!("{e}");
        }
    }

    /// Forgets the key of transaction `txid`, which is published, where nothing will be merged.
    fn forget_spent(&self, txid: Txid) -> Result<()> {
        let id = FileId::single(txid);
        if self.seals.never_merges(id.level) { self.seals.forget(&[Subject::Replica(id)]) } else { Ok(()) }
    }

    /// The view that was held for a snapshot, and the transaction that it shows, if that is the last one of the replica; with
    /// its time, as far as that is known.
    pub(in crate::primary) fn take_view(&mut self) -> Option<(Box<dyn PinnedView>, Txid, Option<Timestamp>)> {
        if self.in_flight.is_some() {
            return None;
        }
        let held = self.held.take()?;
        let txid = held.txid.filter(|txid| self.state.txid == Some(txid.get()))?;
        Some((held.view, txid, self.state.time()))
    }

    /// No snapshot is made of the view that is held.
    pub(in crate::primary) fn drop_view(&mut self) {
        self.held = None;
    }

    /// The transaction of the file that is under way is in the replica with other content of ours, from before a crash:
    /// these `pages`, unless they cannot be read. What the file holds goes out once more, as a later transaction.
    ///
    /// # Errors
    /// `Io` on the spool.
    pub(in crate::primary) fn requeue(&mut self, published: Txid, pages: Option<&PageSet>) -> Result<()> {
        if self.stopped {
            return Ok(());
        }
        self.held = None;
        self.attempted.clear();
        let out = self.in_flight.take();
        let Some(pages) = pages else {
            self.state.landed(published);
            self.lost("the key of a file from before is not kept");
            return Ok(());
        };
        let replaces = out.as_ref().is_some_and(|out| out.pages.contains_all(pages));
        if !replaces && self.exclusive == Exclusive::No {
            // The WAL lost commits of that file.
            if let Some(out) = out {
                self.dirty.extend(&out.pages);
            }
            return self.found_landed(published, pages);
        }
        match out {
            // What came from memory is still in the database, and goes out with what was committed since.
            Some(out) if out.inputs == 0 && self.exclusive == Exclusive::No => self.dirty.extend(&out.pages),
            // No view can be pinned.
            Some(mut out) => out.keep(&mut self.spool)?,
            None => {}
        }
        self.landed(published, pages);
        Ok(())
    }

    /// The file of `txid`, with `pages`, landed before the process that sent it was killed. They go out once more: the
    /// database may have lost some of it. That is written down now, since who merges the file forgets how to read it.
    pub(in crate::primary) fn landed(&mut self, txid: Txid, pages: &PageSet) {
        self.dirty.extend(pages);
        self.state.landed(txid);
        self.remember_all();
        self.save(0);
    }

    /// As [`Capture::landed`], where files may wait that were made before anybody knew: they lack the pages that the WAL lost of
    /// that file, and would make a state of both. All of it goes out at once.
    ///
    /// # Errors
    /// `Io` on the spool.
    pub(in crate::primary) fn found_landed(&mut self, txid: Txid, pages: &PageSet) -> Result<()> {
        if self.stopped {
            return Ok(());
        }
        if self.exclusive != Exclusive::No || self.spool.segments().is_empty() {
            self.landed(txid, pages);
            return Ok(());
        }
        self.dirty.extend(pages);
        self.note_waiting();
        self.state.landed(txid);
        self.let_waiting_go()
    }

    /// `published` is in the replica, and is ours from before.
    pub(in crate::primary) fn skip_to(&mut self, published: Txid) {
        self.attempted.clear();
        self.state.skip_to(published);
        self.save(0);
    }

    /// The file with `header`, which holds all up to `cursor`, is about to be sent: until its fate is known, a later
    /// process must know it for one of ours.
    pub(in crate::primary) fn sends(&mut self, header: &Header, cursor: Cursor) {
        self.state.sends(header, cursor);
        self.save(0);
    }

    /// A copy of the whole database with `header` is about to be sent.
    pub(in crate::primary) fn sends_copy(&mut self, header: &Header) {
        if let Some(cursor) = self.cursor {
            self.sends(header, cursor);
        }
    }

    /// The database is in the replica as `last`, without that anything of it was sent. `origin` is how it came
    /// to be that, if it was not published here.
    pub(in crate::primary) fn adopt(&mut self, last: Txid, origin: Option<Origin>) {
        self.state.found(last);
        self.state.origin = origin.or(self.state.origin);
        self.claim = Claim::Followed(last);
        self.forced = false;
        self.go_on_from_copy();
    }

    /// Whether `header` is that of a file that may have landed as the next transaction.
    pub(in crate::primary) fn was_attempted(&self, header: &Header) -> bool {
        self.attempted.contains(header)
    }

    /// A full copy with `header` may have landed.
    pub(in crate::primary) fn attempted(&mut self, header: Header) {
        self.attempted.push(header);
    }

    /// Begins a comparison or a full copy of what a view shows whose end is `cursor`, and before which the journal had
    /// `records`: what was captured before is part of it.
    ///
    /// # Errors
    /// `Io` on the spool; `Interrupted` after replication was stopped.
    pub(in crate::primary) fn begin_anchor(&mut self, cursor: Option<Cursor>, records: Mark) -> Result<()> {
        // Work of a round that was given up may come later.
        if self.stopped {
            return Err(Error::new(ErrorKind::Interrupted, "replication was stopped meanwhile"));
        }
        self.attempted.extend(self.in_flight.take().map(|out| out.header));
        self.held = None;
        self.dirty = PageSet::default();
        self.anchored = false;
        // First the state, so that it names no file that is gone.
        self.state.forget_cursor();
        self.save(0);
        self.cursor = None;
        self.spool.clear()?;
        if let Some(cursor) = cursor {
            self.db.cursors.needs_after(self.number, cursor, records.clone());
            self.set_cursor(cursor, records);
            self.note_positions();
        }
        Ok(())
    }

    /// A cursor is being chosen: until [`Capture::chose`] no records are deleted.
    pub(in crate::primary) fn chooses(&self) {
        self.db.cursors.chooses(self.number);
    }

    /// It was chosen, or not.
    pub(in crate::primary) fn chose(&self) {
        if self.cursor.is_none() {
            self.forget_positions();
        }
    }

    /// The full copy did not get to the replica.
    pub(in crate::primary) fn abandon_anchor(&mut self) {
        self.cursor = None;
        self.forget_positions();
    }

    /// The full copy with `header` is in the replica.
    pub(in crate::primary) fn anchored(&mut self, header: &Header) {
        self.attempted.clear();
        self.forced = false;
        self.state.published(header.max, header.timestamp);
        self.state.copy_given_up = None;
        self.go_on_from_copy();
    }

    /// What is captured builds on what the replica has now.
    fn go_on_from_copy(&mut self) {
        if self.cursor.is_some() {
            self.anchored = true;
            self.anchor_reason = None;
            self.is_behind = false;
            self.remember_all();
        }
        self.save(0);
    }
}
