//! What a committing thread does when SQLite is about to give up what the WAL index says of a generation: it writes
//! records. Nothing here waits for anything but the disk, and no failure reaches SQLite: what is not recorded costs a
//! comparison of all pages.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::fork;
use crate::primary::dirty::record::{Begin, End, Record};
use crate::primary::dirty::{Journal, PageSet, Position, Positions};
use crate::primary::file_fingerprint::{Stamp, seal};
use crate::primary::hooks::WalIndex;
use crate::wal::{Checksum, FrameHeader, FrameNo, IndexHeader, Salts, WalHeader};

/// Under which lock a connection writes the WAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeldLock {
    /// The WRITE lock of the WAL: whoever restarts it locks read marks 1..4 before. Also for an index in private memory,
    /// whose end is recorded before.
    Write,
    /// Only the EXCLUSIVE lock of the database file (`locking_mode=EXCLUSIVE`): the WAL is restarted without any lock
    /// that could be noticed.
    File,
}

/// The recorder of one database in this process.
#[derive(Debug)]
pub(in crate::primary) struct Recorder {
    journal: Arc<Journal>,
    positions: Positions,
    wal_path: PathBuf,
    /// The last commit of the connection that keeps the database for itself, as long as the index has its pages.
    alone: Mutex<Option<IndexHeader>>,
    /// The last record could not be written, and the log says why.
    fails: AtomicBool,
}

impl Recorder {
    /// The recorder of the database with the WAL `wal_path` and local state in `state_folder`.
    pub(in crate::primary) fn new(state_folder: &Path, wal_path: &Path) -> Self {
        Self {
            journal: Arc::new(Journal::new(state_folder)),
            positions: Positions::new(state_folder),
            wal_path: wal_path.to_owned(),
            alone: Mutex::new(None),
            fails: AtomicBool::new(false),
        }
    }

    /// The records.
    pub(in crate::primary) const fn journal(&self) -> &Arc<Journal> {
        &self.journal
    }

    /// The publisher's positions.
    #[cfg(test)]
    pub(in crate::primary) const fn positions(&self) -> &Positions {
        &self.positions
    }

    fn alone(&self) -> MutexGuard<'_, Option<IndexHeader>> {
        self.alone.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection was granted the EXCLUSIVE lock on read marks 1..4, and SQLite is not answered yet. Where the index knows no
    /// commit, nobody writes the database file at `database` now.
    pub(in crate::primary) fn generation_is_left(&self, index: &mut dyn WalIndex, database: &Path) {
        let file = index.header().filter(|header| self.leaves_no_trace(header));
        let file = file.and_then(|_| self.journal.sealed(database));
        self.generation_ends(index, file);
    }

    /// Whether the next index will name nothing of the generation with this one: it has no commit, as after a recovery of a WAL
    /// with nothing but its header. Only the file leads back to what it began upon.
    pub(super) fn leaves_no_trace(&self, header: &IndexHeader) -> bool {
        header.mx_frame == FrameNo::ZERO
            && header.frame_checksum == Checksum::default()
            && self.journal.has_begun(header.salts)
    }

    /// A generation is left, and SQLite is not answered yet; or the last connection closes. `closed` is the stamp of the
    /// database file then, where that is all there is to record.
    pub(in crate::primary) fn generation_ends(&self, index: &mut dyn WalIndex, closed: Option<Stamp>) {
        let Some(header) = index.header() else { return };
        if header.mx_frame > FrameNo::ZERO || (closed.is_some() && knows_a_wal(&header)) {
            self.end(header, index, closed);
        }
    }

    /// The last connection closes, holds the database file at `database` EXCLUSIVE, and is about to delete WAL and
    /// index, or to cut the WAL to nothing; every frame is in the file. Seals the file (see [`seal`]), unless
    /// nothing was committed since it was sealed last: then its stamp stays as it is.
    pub(in crate::primary) fn generation_closes(&self, index: &mut dyn WalIndex, database: &Path) {
        if let Some(header) = index.header().filter(|header| header.mx_frame == FrameNo::ZERO) {
            self.end_alone(&header, index);
        }
        let closed = index.header().filter(knows_a_wal).and_then(|header| match header.mx_frame {
            FrameNo::ZERO => self.journal.sealed(database),
            _ => seal(database),
        });
        self.generation_ends(index, closed);
    }

    /// A connection cuts the WAL to nothing or deletes it, under no lock but the EXCLUSIVE lock of the database file:
    /// its index may be emptied already, and still has the page numbers.
    pub(in crate::primary) fn generation_is_cut(&self, index: &mut dyn WalIndex) {
        let Some(header) = index.header() else { return };
        if header.mx_frame > FrameNo::ZERO {
            self.end(header, index, None);
        } else {
            self.end_alone(&header, index);
        }
    }

    /// A connection writes the first 32 bytes of the WAL, `wal_header`, under `lock`. `file` is the stamp of the
    /// database file now.
    pub(in crate::primary) fn generation_begins(
        &self,
        wal_header: &[u8],
        index: &mut dyn WalIndex,
        file: Option<Stamp>,
        lock: HeldLock,
    ) {
        let Some(before) = index.header() else { return };
        match lock {
            HeldLock::Write => self.forgets(),
            HeldLock::File => self.end_alone(&before, index),
        }
        let header = wal_header.first_chunk::<{ WalHeader::SIZE }>().map(WalHeader::decode);
        let Some(Ok(header)) = header else { return };
        // With frames it would be the index of a generation that continues.
        if before.mx_frame == FrameNo::ZERO {
            self.append(&Record::Begin(Begin { salts: header.salts, before, file }));
        }
    }

    /// A connection was granted the EXCLUSIVE lock of the database file while the index had this header, or committed
    /// under that lock: what the index holds is as this header says until the connection restarts the WAL.
    ///
    /// Never with a header from before that lock: another connection may have restarted the WAL, and have overwritten
    /// the page numbers by a transaction that it rolled back, without a change of the checksum or the counter.
    pub(in crate::primary) fn remembers(&self, header: &IndexHeader) {
        let _section = fork::section();
        *self.alone() = Some(*header).filter(|header| header.mx_frame > FrameNo::ZERO);
    }

    /// The EXCLUSIVE lock of the database file is about to be given up: others may change the index from then on. A
    /// generation that the connection left without having begun another is recorded.
    pub(in crate::primary) fn gives_file_up(&self, index: &mut dyn WalIndex) {
        match index.header() {
            Some(header) if header.mx_frame == FrameNo::ZERO => self.end_alone(&header, index),
            _ => self.forgets(),
        }
    }

    /// Others may have changed the index: a connection was granted the WRITE lock of the WAL.
    pub(in crate::primary) fn forgets(&self) {
        let _section = fork::section();
        *self.alone() = None;
    }

    /// Records the generation that the connection which is alone left, if `now` is the index that it emptied. Once
    /// only: a transaction that spills and is rolled back overwrites the page numbers, and is followed by another first
    /// header of the WAL.
    fn end_alone(&self, now: &IndexHeader, index: &mut dyn WalIndex) {
        let section = fork::section();
        let Some(last) = self.alone().take() else { return };
        drop(section);
        if Position::end_of(&last).is_same_commit(&Position::end_of(now)) {
            self.end(last, index, None);
        }
    }

    fn end(&self, header: IndexHeader, index: &mut dyn WalIndex, closed: Option<Stamp>) {
        let mut pages_of = |after: FrameNo, last: FrameNo| match last {
            FrameNo::ZERO => Some(PageSet::default()),
            last => index.pages(after, last),
        };
        let seen = self.seen(&header);
        let first = seen.iter().map(|(frame, _)| *frame).min().unwrap_or(header.mx_frame);
        let parts = (pages_of(FrameNo::ZERO, first), pages_of(first, header.mx_frame));
        let (Some(mut pages), Some(recent)) = parts else {
            tracing::debug!("{}: the index of the WAL cannot be read", self.wal_path.display());
            return;
        };
        pages.extend(&recent);
        self.append(&Record::End(End { index: header, pages, seen, recent, closed }));
    }

    fn append(&self, record: &Record) {
        match self.journal.append(record) {
            Ok(()) => self.fails.store(false, Ordering::Relaxed),
            Err(e) if !self.fails.swap(true, Ordering::Relaxed) => tracing::warn!(
                "{}: which pages were changed cannot be noted, so all of them will be compared with the replica: {e}",
                self.wal_path.display()
            ),
            Err(_) => {}
        }
    }

    /// The checksums that the frames of the publisher's positions have in the WAL now. The descriptor is one of its
    /// own: no lock is on the WAL file that closing it could drop.
    fn seen(&self, index: &IndexHeader) -> Vec<(FrameNo, Checksum)> {
        let mut positions = self.positions.read();
        positions.retain(|position| {
            position.salts == index.salts && (FrameNo(1)..=index.mx_frame).contains(&position.frame)
        });
        // What is remembered is mostly where the publisher is.
        positions.dedup_by_key(|position| position.frame);
        let Some(page_size) = index.page_size.filter(|_| !positions.is_empty()) else { return Vec::new() };
        let Ok(wal) = File::open(&self.wal_path) else { return Vec::new() };
        let checksum_of = |frame: FrameNo| {
            let mut bytes = [0; FrameHeader::SIZE];
            let at = frame.page_offset(page_size) - FrameHeader::SIZE as u64;
            wal.read_exact_at(&mut bytes, at).ok()?;
            let header = FrameHeader::decode(&bytes);
            (header.salts == index.salts).then_some((frame, header.checksum))
        };
        positions.iter().filter_map(|position| checksum_of(position.frame)).collect()
    }
}

/// Whether the index is not that of a database without a WAL.
fn knows_a_wal(header: &IndexHeader) -> bool {
    header.mx_frame > FrameNo::ZERO
        || header.frame_checksum != Checksum::default()
        || header.salts != Salts::default()
}
