//! How what was captured gets to the replica.

use super::{Capture, Emptied};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::ltx::{Encoder, Header, Txid};
use crate::primary::commits::{CommitSeq, Noted};
use crate::primary::generations::Passage;
use crate::primary::outgoing::{Body, Outgoing};
use crate::primary::pending::Pending;
use crate::primary::spool::{self, Merge, Scratch, Segment};
use crate::primary::stamp::Stamp;
use crate::primary::state::{Captured, Claim, Origin};
use crate::primary::time::Witness;
use crate::wal::IndexHeader;

/// So many waiting files make one file for the replica, or are merged into one while it cannot be
/// reached: each is open meanwhile.
const MERGE_AT: usize = 64;

impl Capture {
    /// A merge of waiting files to do, if they became many.
    pub(in crate::primary) fn merge(&self) -> Option<Merge> {
        // What is under way stays as it is.
        let from = self.in_flight.as_ref().map_or(0, |out| out.inputs);
        (self.spool.segments().len().saturating_sub(from) > MERGE_AT)
            .then(|| self.spool.merge_of(from, MERGE_AT))
    }

    /// Makes the file of transaction `txid` from what waits, or returns the one that is under way.
    /// `None` if nothing waits. `time` is the time of publishing for a commit's time.
    ///
    /// # Errors
    /// `Io`, `NoSpace` on the spool.
    pub(in crate::primary) fn next_outgoing(
        &mut self,
        txid: Txid,
        noted: &Noted,
        time: impl Fn(Timestamp, Witness) -> Timestamp,
    ) -> Result<Option<Outgoing>> {
        if self.in_flight.is_some() {
            return Ok(self.in_flight.clone());
        }
        let Some(captured) = self.captured.filter(|_| self.anchor_reason.is_none() && self.has_waiting())
        else {
            return Ok(None);
        };
        let captured = (captured, self.mark);
        let out = if self.spool.segments().is_empty() {
            let (header, body) = self.encode_pending(txid, time)?;
            self.pending = Pending::default();
            Outgoing { txid, header, body, inputs: 0, covers: noted.seq, captured }
        } else {
            self.spill(noted.seq)?;
            self.remember_all();
            if self.anchor_reason.is_some() {
                return Ok(None);
            }
            let segments = self.spool.segments();
            let oldest = segments[..segments.len().min(MERGE_AT)].to_vec();
            let last = oldest.last().expect("BUG: the spool is not empty");
            let timestamp = time(last.header.timestamp, Witness::Elsewhere);
            let (node_id, lineage) = (self.node_id(), self.lineage());
            let header = Header { node_id, lineage, timestamp, ..spool::single(last.header, txid) };
            let covers = if oldest.len() == segments.len() { noted.seq } else { last.covers };
            Outgoing { txid, header, inputs: oldest.len(), covers, captured, body: Body::Waiting(oldest) }
        };
        self.in_flight = Some(out.clone());
        Ok(Some(out))
    }

    fn encode_pending(
        &self,
        txid: Txid,
        time: impl Fn(Timestamp, Witness) -> Timestamp,
    ) -> Result<(Header, Body)> {
        let header = self.pending.header().expect("BUG: pages are pending with a header");
        let timestamp = time(header.timestamp, Witness::Here);
        let header = Header { timestamp, lineage: self.lineage(), ..spool::single(header, txid) };
        let mut encoder = Encoder::new(Vec::new(), header)?;
        self.pending.encode(&mut encoder)?;
        Ok((header, Body::Memory(encoder.finish()?.0.into())))
    }

    /// A place for the merge of a file that is under way.
    pub(in crate::primary) fn scratch(&self) -> Scratch {
        self.spool.scratch()
    }

    /// The waiting files of what is under way were merged, so that it need not be done again.
    pub(in crate::primary) fn merged(&mut self, body: Body) {
        if let Some(out) = &mut self.in_flight {
            out.body = body;
        }
    }

    /// The waiting files of what is under way could not be merged.
    pub(in crate::primary) fn not_merged(&mut self, error: &Error) {
        self.in_flight = None;
        if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotFound) {
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
        self.state.published(out.txid);
        let (captured, mark) = out.captured;
        if self.anchored && mark > self.remembered {
            self.remember(captured, mark);
        }
        // First the state, so that no file is missing that it names.
        self.save(inputs);
        if let Err(e) = self.spool.remove_oldest(inputs) {
            tracing::warn!("{e}");
        }
    }

    /// The transaction of the file that is under way is in the replica with other content of ours,
    /// from before a crash. What the file holds goes out once more, as a later transaction.
    ///
    /// # Errors
    /// `Io` on the spool.
    pub(in crate::primary) fn requeue(&mut self, published: Txid) -> Result<()> {
        if let Some(mut out) = self.in_flight.take() {
            out.keep(&mut self.spool)?;
        }
        self.skip_to(published);
        Ok(())
    }

    /// `published` is in the replica, and is ours from before.
    pub(in crate::primary) fn skip_to(&mut self, published: Txid) {
        self.attempted.clear();
        self.state.txid = Some(published.get());
        self.save(0);
    }

    /// The file with `header`, which holds all up to `captured`, is about to be sent: until its fate is known,
    /// a later process must know it for one of ours.
    pub(in crate::primary) fn sends(&mut self, header: &Header, captured: Captured) {
        self.state.sends(header, captured);
        self.save(0);
    }

    /// A copy of the whole database with `header` is about to be sent.
    pub(in crate::primary) fn sends_copy(&mut self, header: &Header) {
        if let Some(captured) = self.captured {
            self.sends(header, captured);
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

    /// Begins a full copy as of `position`: what was captured before is part of it. No writer restarts the
    /// WAL meanwhile, which holding `passage` ensures.
    ///
    /// # Errors
    /// `Io` on the spool.
    pub(in crate::primary) fn begin_anchor(
        &mut self,
        position: Captured,
        index: Option<IndexHeader>,
        passage: &mut Passage,
    ) -> Result<()> {
        self.attempted.extend(self.in_flight.take().map(|out| out.header));
        self.pending = Pending::default();
        self.anchored = false;
        // First the state, so that it names no file that is gone.
        self.state.forget_captured();
        self.save(0);
        self.spool.clear()?;
        self.taken.clear();
        self.generations.begin(passage, Some(position));
        self.wal = None;
        self.emptied = Emptied {
            stamp: Stamp::of(&self.database),
            salts: index.map(|index| index.salts),
            by_another: false,
        };
        self.set_captured(position);
        Ok(())
    }

    /// The full copy did not get to the replica.
    pub(in crate::primary) fn abandon_anchor(&mut self) {
        self.captured = None;
        self.forget_kept();
        self.pending = Pending::default();
    }

    /// The full copy is in the replica as `txid`.
    pub(in crate::primary) fn anchored(&mut self, txid: Txid) {
        self.attempted.clear();
        self.forced = false;
        self.state.published(txid);
        self.go_on_from_copy();
    }

    /// What is captured builds on what the replica has now.
    fn go_on_from_copy(&mut self) {
        // A WAL that was lost meanwhile asks for yet another copy.
        if self.captured.is_some() {
            self.anchored = true;
            self.anchor_reason = None;
            match self.spill(CommitSeq::default()) {
                Ok(()) => self.remember_all(),
                Err(e) => tracing::warn!("{e}"),
            }
        }
        self.save(0);
    }
}
