//! What a read view shows that no file has: which pages, and their content.

use super::{Capture, Exclusive, Held};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::ltx::{FileId, FileName, Header, Txid};
use crate::page::{PageCount, PageSize, Pgno};
use crate::primary::context::Context;
use crate::primary::dirty::{Collected, Cursor, Mark, PageSet, Position, collect, cursor_at};
use crate::primary::file_fingerprint::Stamp;
use crate::primary::frame_cache::{FrameCache, Moment};
use crate::primary::hooks::CommitSeq;
use crate::primary::hooks::PinnedView;
use crate::primary::seals::{Seals, Subject};
use crate::primary::shipper::sums::{PageSums, sum_of};
use crate::wal::{Checksum, FrameNo, IndexHeader};

/// Pages up to this many bytes are read into memory at once, and sent in one request.
pub(super) const MEMORY_LIMIT: u64 = 4 * 1024 * 1024;
/// The most bytes of neighbouring pages that are read at once.
const READ_BYTES: usize = 256 * 1024;
/// How often a view is pinned again because the WAL was restarted under it.
const ATTEMPTS: usize = 100;

/// What a first look at the database found.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::primary) struct Look {
    /// The page size; `None` while the database has no pages.
    pub(in crate::primary) page_size: Option<PageSize>,
    /// The size of the database.
    pub(in crate::primary) size: PageCount,
    /// There are changes after what the state folder claims.
    pub(in crate::primary) has_changes: bool,
}

/// A pinned view, and the pages that were changed before its end and are in no file.
pub(super) struct Changed {
    view: Box<dyn PinnedView>,
    pub(super) pages: PageSet,
    /// The records that there were before the view was pinned.
    records: Mark,
    /// The time of the last commit that the view shows.
    pub(super) time: Timestamp,
    /// The moment before the view was pinned.
    pub(super) moment: Moment,
}

impl Changed {
    /// The number of bytes of the pages.
    pub(super) fn bytes(&self) -> u64 {
        self.pages.len() * u64::from(self.view.page_size().get())
    }

    /// Whether page contents fit into memory.
    pub(super) fn is_small(&self) -> bool {
        self.bytes() <= MEMORY_LIMIT
    }

    pub(super) fn header(&self, time: Timestamp, node_id: u64) -> Header {
        header_of(&self.view.header(), self.view.page_size(), self.view.commit(), time, node_id)
    }
}

/// The header of a file with pages of the view whose index header is `index`; its transaction is not known yet. It has a
/// position in the WAL even where that holds no frame: Litestream continues after no file that has none.
pub(in crate::primary) fn header_of(
    index: &IndexHeader,
    page_size: PageSize,
    commit: PageCount,
    time: Timestamp,
    node_id: u64,
) -> Header {
    let mut header = Header::new(page_size, commit, FileName::single(Txid::ONE.next()), time);
    header.node_id = node_id;
    let start = FrameNo::ZERO.end_offset(page_size);
    header.wal_offset = start as i64;
    header.wal_size = (index.mx_frame.end_offset(page_size) - start) as i64;
    (header.salt1, header.salt2) = (index.salts.0, index.salts.1);
    header
}

/// Shows the content of each page of `pages` to `visit`, in order.
///
/// # Errors
/// Those of the view and of `visit`.
pub(in crate::primary) fn read_each(
    view: &mut dyn PinnedView,
    pages: &PageSet,
    mut visit: impl FnMut(Pgno, &[u8]) -> Result<()>,
) -> Result<()> {
    let size = view.page_size().bytes();
    let longest = (READ_BYTES / size).max(1);
    let mut buf = vec![0; size * longest.min(pages.len() as usize)];
    let mut pages = pages.iter().peekable();
    while let Some(first) = pages.next() {
        let mut count = 1;
        while count < longest && pages.next_if(|next| next.get() == first.get() + count as u32).is_some() {
            count += 1;
        }
        let run = &mut buf[..count * size];
        view.read_pages(first, run)?;
        for (i, page) in run.chunks_exact(size).enumerate() {
            let pgno = Pgno::new(first.get() + i as u32).expect("BUG: page numbers begin at 1");
            visit(pgno, page)?;
        }
    }
    Ok(())
}

/// Content of pages, in order, that was read from a view.
pub(super) struct Content {
    page_size: PageSize,
    pages: Vec<Pgno>,
    bytes: Vec<u8>,
    /// The number of the shipper, and the moment before the view was pinned.
    taker: (usize, Moment),
}

impl Content {
    /// Encodes all of it as a file with `header`; the bytes, and the checksums of the pages.
    ///
    /// # Errors
    /// `Corrupt` if the header does not fit the pages.
    pub(super) fn encode(
        &self,
        header: Header,
        frames: &FrameCache,
        seals: &Seals,
    ) -> Result<(Vec<u8>, PageSums)> {
        let id = FileId::single(header.max);
        let keep = seals.keep_of(id.level);
        let mut encoder = seals.encoder(Vec::new(), header, Subject::Replica(id), keep)?;
        let mut sums = Vec::with_capacity(self.pages.len());
        for (pgno, page) in self.pages.iter().zip(self.bytes.chunks_exact(self.page_size.bytes())) {
            frames.encode(self.taker, &mut encoder, *pgno, page)?;
            sums.push((*pgno, sum_of(page)));
        }
        let (shipper, since) = self.taker;
        frames.encoded(shipper, since);
        let mut bytes = encoder.finish()?.0;
        // It is kept until the merge.
        bytes.shrink_to_fit();
        Ok((bytes, sums))
    }
}

impl Capture {
    /// Looks at the database for the first time: whether it can be followed from where the state folder says it was.
    ///
    /// # Errors
    /// Those of the view; `Busy`.
    pub(in crate::primary) fn first_look(&mut self, db: &Context) -> Result<Look> {
        let Some(changed) = self.changed(db)? else { return Ok(Look::default()) };
        self.claim = self.state.claim(&self.state.url, self.file, self.cursor.is_some());
        let has_changes = self.has_waiting() || !changed.pages.is_empty();
        let (page_size, size) = (Some(changed.view.page_size()), changed.view.commit());
        Ok(Look { page_size, size, has_changes })
    }

    /// Whether something is to be published. Without a connection only what waits counts.
    ///
    /// # Errors
    /// Those of the view; `Busy`.
    pub(in crate::primary) fn has_something(&mut self, db: &Context) -> Result<bool> {
        if self.anchor_reason.is_some() || self.has_waiting() {
            return Ok(true);
        }
        if !db.is_open() {
            return Ok(false);
        }
        let changed = self.changed(db)?;
        Ok(self.anchor_reason.is_some() || changed.is_some_and(|changed| !changed.pages.is_empty()))
    }

    /// Pins a view, and finds the pages that were changed since the cursor. `None` if the database has no
    /// pages, or a connection of this process keeps it for itself and shows its own commits.
    pub(super) fn changed(&mut self, db: &Context) -> Result<Option<Changed>> {
        for _ in 0..ATTEMPTS {
            let records = self.db.recorder.journal().mark();
            let moment = db.frames.now();
            let mut view = match db.pin() {
                Ok(Some(view)) => view,
                Ok(None) => return Ok(None),
                Err(e) if e.kind() == ErrorKind::Busy && self.exclusive == Exclusive::Captured => {
                    return Ok(None);
                }
                Err(e) => return Err(e),
            };
            self.exclusive = Exclusive::No;
            let time = db.commits.time_in_view(&view.header());
            if let Some(pages) = self.changed_in(view.as_mut())? {
                return Ok(Some(Changed { view, pages, records, time, moment }));
            }
        }
        Err(Error::new(
            ErrorKind::Busy,
            format!("the WAL of {} is restarted all the time", self.db.path.display()),
        ))
    }

    /// The pages that were changed before the end of `view` and are in no file; none if that is not known, for which
    /// `anchor_reason` then is the reason. `None` if another view must be pinned.
    fn changed_in(&mut self, view: &mut dyn PinnedView) -> Result<Option<PageSet>> {
        let Some(cursor) = self.cursor else { return Ok(Some(PageSet::default())) };
        match collect(view, &cursor, self.db.recorder.journal(), Stamp::of(&self.db.path))? {
            Collected::Pages(mut pages) => {
                pages.extend(&self.dirty);
                pages.retain_in(view.commit(), view.page_size());
                Ok(Some(pages))
            }
            Collected::ViewChanged => Ok(None),
            Collected::Broken(why) => {
                self.lost(why);
                Ok(Some(PageSet::default()))
            }
            Collected::Lost(why) => {
                self.is_behind = true;
                self.lost(why);
                Ok(Some(PageSet::default()))
            }
        }
    }

    /// Reads the content of the pages and lets go of the view, whose end is the cursor from now on.
    pub(super) fn take_into_memory(&mut self, changed: Changed) -> Result<Content> {
        let mut changed = changed;
        let page_size = changed.view.page_size();
        let taker = (self.number, changed.moment);
        let mut content = Content { page_size, pages: Vec::new(), bytes: Vec::new(), taker };
        read_each(changed.view.as_mut(), &changed.pages, |pgno, page| {
            content.pages.push(pgno);
            content.bytes.extend_from_slice(page);
            Ok(())
        })?;
        self.pass(changed);
        Ok(content)
    }

    /// Writes the pages into a waiting file and lets go of the view, whose end is the cursor from now on. `covers` is the
    /// last commit that the view shows.
    pub(super) fn take_into_spool(
        &mut self,
        changed: Changed,
        time: Timestamp,
        covers: CommitSeq,
    ) -> Result<()> {
        self.take_last_into_spool(changed, time, covers)?;
        self.keep_to_limit()?;
        self.remember_all();
        Ok(())
    }

    /// As [`Capture::take_into_spool`], of a file that is sent now: it may be larger than what may wait.
    pub(super) fn take_last_into_spool(
        &mut self,
        changed: Changed,
        time: Timestamp,
        covers: CommitSeq,
    ) -> Result<()> {
        self.keep_in_flight()?;
        let header = changed.header(time, self.node_id());
        self.db.frames.leaves(self.number);
        let Changed { mut view, pages, records, time: at, moment } = changed;
        self.spool.write(header, covers, &pages, |encoder| {
            read_each(view.as_mut(), &pages, |pgno, page| encoder.page(pgno, page))
        })?;
        self.pass(Changed { view, pages, records, time: at, moment });
        self.remember_all();
        Ok(())
    }

    /// The content of the changed pages is in a file: the cursor goes to the end of the view.
    pub(super) fn pass(&mut self, changed: Changed) {
        self.dirty = PageSet::default();
        self.pass_to(&changed.view.header(), changed.records.clone());
        self.note_positions();
        // The view is released only now: a restart of the WAL finds the position.
        if self.holds {
            self.held = Some(Held { view: changed.view, txid: None });
        }
    }

    /// The cursor goes to the end of a view with the index header `index`. It never names a generation without a commit:
    /// then it stays at the end of the one before, which may come back after a crash.
    fn pass_to(&mut self, index: &IndexHeader, records: Mark) {
        let is_there = match self.cursor {
            Some(Cursor::At(at)) => at.is_same_commit(&Position::end_of(index)),
            _ => false,
        };
        if is_there && index.mx_frame == FrameNo::ZERO {
            return;
        }
        // Then records before the view may be of the generation that comes next.
        let records = if index.mx_frame == FrameNo::ZERO { Mark::default() } else { records };
        let cursor = self.cursor_of(index);
        if let Some(cursor) = cursor.filter(|cursor| self.cursor != Some(*cursor)) {
            self.set_cursor(cursor, records);
        }
    }

    /// Writes down the cursors that a restart of the WAL is to bear in mind.
    pub(super) fn note_positions(&self) {
        let remembered = self.state.cursor(&self.db.path).map(|(cursor, _)| cursor);
        let at = |cursor: Option<Cursor>| match cursor {
            Some(Cursor::At(position)) => Some(position),
            Some(Cursor::File(_)) | None => None,
        };
        let positions: Vec<Position> = [at(remembered), at(self.cursor)].into_iter().flatten().collect();
        self.db.cursors.note_positions(self.number, positions);
    }

    /// The cursor of a view with the index header `index`, which is pinned now: if the WAL had no commit, then nobody can
    /// write the database file meanwhile.
    pub(in crate::primary) fn cursor_of(&self, index: &IndexHeader) -> Option<Cursor> {
        let is_without_commit = index.frame_checksum == Checksum::default();
        let file = if is_without_commit { self.sealed(index) } else { None };
        cursor_at(index, self.db.recorder.journal(), file).unwrap_or_else(|e| {
            tracing::debug!("{e}");
            None
        })
    }

    fn sealed(&self, index: &IndexHeader) -> Option<Stamp> {
        let now = Stamp::of(&self.db.path)?;
        if self.cursor == Some(Cursor::File(now)) {
            self.db.recorder.journal().keep(index, now);
            return Some(now);
        }
        self.db.recorder.journal().seal(index, &self.db.path)
    }

    /// Captures into the spool what was committed, while the replica cannot be reached. Once more waited than may, or where
    /// replication is stopped, only which pages it is.
    ///
    /// # Errors
    /// Those of the view and of the spool; `Busy`; `Conflict` if another file took the database's place.
    pub(in crate::primary) fn take_changes(
        &mut self,
        db: &Context,
        time: impl Fn(Timestamp) -> Timestamp,
    ) -> Result<()> {
        if self.stopped {
            return self.absorb(db);
        }
        db.check_file()?;
        if self.cursor.is_none() {
            return Ok(());
        }
        // A file that was sent at once may be larger than what may wait.
        self.keep_to_limit()?;
        let noted = db.commits.last();
        match self.changed(db)? {
            Some(changed) if changed.pages.is_empty() => Ok(()),
            Some(changed) if !self.dirty.is_empty() && !self.fits(&changed) => {
                self.take_as_dirty(changed);
                Ok(())
            }
            Some(changed) => {
                let time = time(changed.time);
                self.take_into_spool(changed, time, noted.seq)
            }
            None => Ok(()),
        }
    }

    /// Whether the content of the pages may wait too.
    fn fits(&self, changed: &Changed) -> bool {
        self.spool.bytes().saturating_add(changed.bytes()) <= self.spool_limit
    }

    /// Notes as dirty what was committed: the cursor advances, and no records before it are needed.
    ///
    /// # Errors
    /// Those of the view; `Busy`; `Conflict` if another file took the database's place.
    pub(in crate::primary) fn absorb(&mut self, db: &Context) -> Result<()> {
        // Another file in its place has nothing to do with what was followed.
        db.check_file()?;
        if self.cursor.is_none() {
            return Ok(());
        }
        let Some(changed) = self.changed(db)? else { return Ok(()) };
        if self.cursor.is_none() {
            return Ok(());
        }
        self.take_as_dirty(changed);
        Ok(())
    }

    /// Only which pages were changed is kept; the cursor goes to the end of the view.
    fn take_as_dirty(&mut self, changed: Changed) {
        let (pages, mark) = (changed.pages.clone(), self.mark);
        self.pass(changed);
        self.dirty = pages;
        let Some(cursor) = self.cursor.filter(|_| self.anchored && self.mark != mark) else { return };
        // What is under way from memory is in no file that the next process would find.
        let mut dirty = self.dirty.clone();
        if let Some(out) = self.in_flight.as_ref().filter(|out| out.inputs == 0) {
            dirty.extend(&out.pages);
        }
        self.state.set_cursor(Some(cursor), &dirty, self.file);
        self.remembered = self.mark;
        self.write_down(0);
    }

    /// A connection of this process that keeps the database for itself made a commit that could not be read.
    pub(in crate::primary) fn misses_exclusive(&mut self) {
        self.exclusive = Exclusive::Missed;
    }

    /// No connection of this process keeps the database for itself any more.
    pub(in crate::primary) fn ends_exclusive(&mut self) {
        self.exclusive = Exclusive::No;
    }

    /// A connection of this process that keeps the database for itself committed what `view` shows.
    ///
    /// # Errors
    /// Those of the view and of the spool.
    pub(in crate::primary) fn take_exclusive(
        &mut self,
        view: &mut dyn PinnedView,
        time: Timestamp,
        covers: CommitSeq,
    ) -> Result<()> {
        self.exclusive = Exclusive::Missed;
        if self.stopped || self.cursor.is_none() {
            return Ok(());
        }
        let records = self.db.recorder.journal().mark();
        let Some(pages) = self.changed_in(view)? else { return Ok(()) };
        if self.cursor.is_none() {
            return Ok(());
        }
        self.exclusive = Exclusive::Captured;
        if pages.is_empty() {
            return Ok(());
        }
        self.exclusive = Exclusive::Missed;
        self.keep_in_flight()?;
        let header = header_of(&view.header(), view.page_size(), view.commit(), time, self.node_id());
        self.spool.write(header, covers, &pages, |encoder| {
            read_each(view, &pages, |pgno, page| encoder.page(pgno, page))
        })?;
        self.dirty = PageSet::default();
        self.exclusive = Exclusive::Captured;
        self.pass_to(&view.header(), records);
        self.note_positions();
        self.keep_to_limit()?;
        self.remember_all();
        Ok(())
    }
}
