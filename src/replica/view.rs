//! What one connection sees of a replica: a database file that does not change during a transaction.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::core::Core;
use super::plan::RestorePoint;
use super::read_ahead::ReadAhead;
use super::schema::{COOKIE, ShownSchema};
use super::snapshot::Snapshot;
use super::status::ReplicaStatus;
use crate::clock::{Clock as _, SystemClock, Timestamp};
use crate::error::{Error, ErrorKind, Result};
use crate::page::Pgno;

/// One connection to a replica.
///
/// Page 1 is shown as that of a database in rollback-journal mode, because a reader of a database in
/// WAL mode would look for a log:
///
/// ```text
///   18..20  1, 1            file format: rollback journal
///   24..28  change counter  of the snapshot: tells SQLite whether its cache is valid
///   28..32  commit          size in pages; trusted because 92..96 equals the change counter
///   40..44  schema cookie   of the database, or a higher one (`schema`)
///   92..96  change counter
/// ```
/// Source: <https://www.sqlite.org/fileformat2.html>, section 1.3.
#[derive(Debug)]
pub struct View {
    seen: Arc<Seen>,
    /// The same as in `seen`, for reads.
    pinned: Option<Arc<Snapshot>>,
    ahead: ReadAhead,
    schema: ShownSchema,
    /// A page of which only a part is wanted.
    scratch: Vec<u8>,
}

impl View {
    /// A view of the replica that `core` reads.
    pub fn new(core: Arc<Core>) -> Self {
        let seen = Arc::new(Seen { core, state: Mutex::default() });
        let (ahead, schema) = (ReadAhead::default(), ShownSchema::default());
        Self { seen, pinned: None, ahead, schema, scratch: Vec::new() }
    }

    /// The replica.
    pub fn core(&self) -> &Arc<Core> {
        &self.seen.core
    }

    /// A read that waits for the store asks `interrupted` now and then whether to go on.
    pub fn ask_for_interrupts(&mut self, interrupted: impl Fn() -> bool + Send + 'static) {
        self.ahead.ask_for_interrupts(Box::new(interrupted));
    }

    /// Whether the connection was interrupted, as far as that is known.
    pub fn is_interrupted(&self) -> bool {
        self.ahead.is_interrupted()
    }

    /// What this view sees, for others to ask.
    pub fn seen(&self) -> &Arc<Seen> {
        &self.seen
    }

    /// From now on sees the chosen or else the latest state, and no other before [`View::unpin`].
    pub fn pin(&mut self) {
        if self.pinned.is_none() {
            let mut state = self.seen.lock();
            let chosen = state.chosen.as_ref().map(|chosen| chosen.snapshot.clone());
            let snapshot = chosen.unwrap_or_else(|| self.seen.core.latest());
            state.pinned = Some(snapshot.clone());
            self.pinned = Some(snapshot);
        }
    }

    /// Lets go of the state.
    pub fn unpin(&mut self) {
        self.pinned = None;
        self.seen.lock().pinned = None;
    }

    /// The state that is seen.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.pinned.clone().unwrap_or_else(|| self.seen.snapshot())
    }

    /// The size of the database in bytes.
    pub fn bytes(&self) -> u64 {
        self.snapshot().bytes()
    }

    /// Reads bytes of the database from `offset` on, and returns how many there are; fewer than asked
    /// for only at the end of the database. The rest of `buf` is zeros.
    ///
    /// # Errors
    /// Those of [`Core::page`].
    pub fn read(&mut self, buf: &mut [u8], offset: u64) -> Result<usize> {
        let snapshot = self.snapshot();
        let there = snapshot.bytes().saturating_sub(offset).min(buf.len() as u64) as usize;
        let (wanted, beyond) = buf.split_at_mut(there);
        beyond.fill(0);
        let size = snapshot.page_size.bytes();
        let mut done = 0;
        while done < wanted.len() {
            let at = offset + done as u64;
            let pgno = snapshot.page_size.page_at(at).expect("BUG: an offset within the database");
            let within = (at % size as u64) as usize;
            let len = (size - within).min(wanted.len() - done);
            self.read_page(&snapshot, pgno, within, &mut wanted[done..done + len])?;
            done += len;
        }
        Ok(there)
    }

    /// Makes sure that what is seen can be read without a key, as far as that can be told now: what cannot be fetched is for
    /// the first statement to say.
    ///
    /// # Errors
    /// `Unsupported` if it does not begin as SQLite's files do.
    pub fn check_readable(&mut self) -> Result<()> {
        let mut start = [0; MAGIC.len()];
        match self.read(&mut start, 0) {
            Ok(there) if there == start.len() && start != *MAGIC => Err(self.unreadable()),
            _ => Ok(()),
        }
    }

    /// Reads the bytes of a page from `within` on.
    fn read_page(
        &mut self,
        snapshot: &Arc<Snapshot>,
        pgno: Pgno,
        within: usize,
        part: &mut [u8],
    ) -> Result<()> {
        let size = snapshot.page_size.bytes();
        if part.len() == size {
            self.seen.core.page(snapshot, pgno, &mut self.ahead, part)?;
        } else {
            self.scratch.resize(size, 0);
            self.seen.core.page(snapshot, pgno, &mut self.ahead, &mut self.scratch)?;
            part.copy_from_slice(&self.scratch[within..within + part.len()]);
        }
        if pgno == Pgno::ONE {
            let cookie = self.cookie(snapshot, part);
            present(snapshot, cookie, within, part);
        }
        Ok(())
    }

    /// The schema cookie of page 1, of which `part` or else all in `scratch` was read.
    fn cookie(&mut self, snapshot: &Arc<Snapshot>, part: &[u8]) -> u32 {
        let frame = snapshot.map().frame(Pgno::ONE);
        let size = snapshot.page_size.bytes();
        if part.len() < size {
            return self.schema.cookie_of_part(frame, &self.scratch);
        }
        let (core, ahead) = (&self.seen.core, &mut self.ahead);
        self.schema.cookie(frame, part, |pgno| {
            let mut page = vec![0; size];
            core.page(snapshot, pgno, ahead, &mut page).map(|()| page)
        })
    }
}

impl View {
    fn unreadable(&self) -> Error {
        let url = self.seen.core.files.source.url();
        let message = format!(
            "{url} holds a database that does not begin as SQLite's files do, so it is encrypted or no database. What a \
             program encrypts cannot be read from its replica: restore it (select litestream_restore('{}', path)), and \
             open that file with its key",
            url.replace('\'', "''")
        );
        Error::new(ErrorKind::Unsupported, message)
    }
}

/// What a connection sees, for SQL functions to ask while the view itself belongs to SQLite.
#[derive(Debug)]
pub struct Seen {
    core: Arc<Core>,
    state: Mutex<SeenState>,
}

#[derive(Debug, Default)]
struct SeenState {
    /// What the transaction sees.
    pinned: Option<Arc<Snapshot>>,
    /// What transactions see instead of the latest state.
    chosen: Option<Chosen>,
}

/// A state that was asked for.
#[derive(Clone, Debug)]
struct Chosen {
    snapshot: Arc<Snapshot>,
    /// The time that was asked for, or that of the transaction.
    as_of: Timestamp,
}

impl Seen {
    /// The replica.
    pub fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// The state that the connection sees: that of its transaction, the one that was chosen, or the
    /// latest.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        let state = self.lock();
        let held = state.pinned.as_ref().or(state.chosen.as_ref().map(|chosen| &chosen.snapshot));
        held.cloned().unwrap_or_else(|| self.core.latest())
    }

    /// From the next transaction on the connection sees the state at `point`, or follows the latest.
    ///
    /// # Errors
    /// `Busy` in a transaction; those of [`Core::at`]; what keeps the latest state from being read. Then nothing changes.
    pub fn choose(&self, point: RestorePoint) -> Result<()> {
        self.choose_unless(point, || false)
    }

    /// As [`Seen::choose`], until `interrupted` says that nobody wants it any more.
    ///
    /// # Errors
    /// Also `Interrupted`.
    pub fn choose_unless(&self, point: RestorePoint, interrupted: impl Fn() -> bool) -> Result<()> {
        let chosen = match point {
            RestorePoint::Latest => {
                self.core
                    .reach_latest(interrupted)
                    .map_err(|e| e.context("the latest state cannot be read"))?;
                None
            }
            RestorePoint::Txid(_) => Some(self.core.at(point, interrupted)?)
                .map(|snapshot| Chosen { as_of: snapshot.timestamp, snapshot }),
            RestorePoint::Timestamp(time) => {
                let as_of = time.min(SystemClock.now());
                Some(Chosen { snapshot: self.core.at(point, interrupted)?, as_of })
            }
        };
        let mut state = self.lock();
        if state.pinned.is_some() {
            return Err(Error::new(
                ErrorKind::Busy,
                "a transaction is open and sees one state to its end: end it, then choose another time",
            ));
        }
        state.chosen = chosen;
        Ok(())
    }

    /// The state that the connection keeps to, if it does: that of its transaction, or one that was chosen, and then `true`.
    pub(super) fn held(&self) -> Option<(Arc<Snapshot>, bool)> {
        let state = self.lock();
        let chosen = state.chosen.as_ref().map(|chosen| (chosen.snapshot.clone(), true));
        chosen.or_else(|| state.pinned.clone().map(|pinned| (pinned, false)))
    }

    /// Whether the connection sees a state that was chosen, and does not follow.
    pub fn is_past(&self) -> bool {
        self.lock().chosen.is_some()
    }

    /// How the replica is doing, with the state that the connection sees.
    pub fn status(&self) -> ReplicaStatus {
        let mut status = self.core.status_at(&self.snapshot());
        if let Some(chosen) = &self.lock().chosen {
            status.as_of = chosen.as_of;
        }
        status
    }

    /// The age of what the connection reads: the time since this was the latest state, as far as is known.
    pub fn age(&self) -> Duration {
        self.status().age()
    }

    fn lock(&self) -> MutexGuard<'_, SeenState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a database file begins.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// Changes the part of page 1 that begins at `within` to what SQLite is shown.
fn present(snapshot: &Snapshot, cookie: u32, within: usize, part: &mut [u8]) {
    let counter = snapshot.change_counter().to_be_bytes();
    put(part, within, 18..20, &[1, 1]);
    put(part, within, 24..28, &counter);
    put(part, within, 28..32, &snapshot.commit.get().to_be_bytes());
    put(part, within, COOKIE, &cookie.to_be_bytes());
    put(part, within, 92..96, &counter);
}

/// Puts `bytes` at `place` of a page of which `part` has the bytes from `within` on.
fn put(part: &mut [u8], within: usize, place: Range<usize>, bytes: &[u8]) {
    for (at, byte) in place.zip(bytes) {
        if let Some(slot) = at.checked_sub(within).and_then(|at| part.get_mut(at)) {
            *slot = *byte;
        }
    }
}
