//! What a committing thread does: it notes that there is a commit, and records the page numbers that the WAL index is
//! about to lose. Nothing here waits for the network, and no failure reaches SQLite.

use crate::primary::database::Primary;
use crate::primary::dirty::HeldLock;
use crate::primary::hooks::{PinnedView, WalIndex};
use crate::primary::shipper::Capture;
use crate::primary::time::Witness;
use crate::wal::{Checksum, IndexHeader};

impl Primary {
    /// A connection of this process was granted the WRITE lock of the WAL, whose index has this header.
    pub fn writer_begins(&self, header: Option<IndexHeader>) {
        // Commits of other processes, of which nothing else may tell.
        self.look(header);
    }

    /// A connection of this process is about to release the WRITE lock.
    pub fn writer_ends(&self, header: Option<IndexHeader>) {
        self.look(header);
    }

    fn look(&self, header: Option<IndexHeader>) {
        if header.is_some_and(|header| self.db.commits.look(header)) {
            self.committed();
        }
    }

    /// A connection was granted the EXCLUSIVE lock on read marks 1..4, by which it may restart the WAL.
    pub fn generation_ends(&self, index: &mut dyn WalIndex) {
        self.db.recorder.generation_is_left(index, &self.db.path);
    }

    /// A connection writes the first 32 bytes of the WAL, `wal_header`, under `lock`, over the frames that are there. The
    /// index is still that of the generation before, emptied.
    pub fn generation_begins(&self, wal_header: &[u8], index: &mut dyn WalIndex, lock: HeldLock) {
        let recorder = &self.db.recorder;
        // Only the stamp of the database file leads back from the first generation of a WAL.
        let first = index.header().filter(|header| header.frame_checksum == Checksum::default());
        let file = first.and_then(|header| recorder.journal().seal(&header, &self.db.path));
        recorder.generation_begins(wal_header, index, file, lock);
    }

    /// The last connection closes, and is about to delete WAL and index, or to cut the WAL to nothing: it has the
    /// database file locked EXCLUSIVE, or the WAL locked against readers and writers, and every frame is in the file.
    pub fn closes_generation(&self, index: &mut dyn WalIndex) {
        self.look(index.header());
        self.db.recorder.generation_closes(index, &self.db.path);
    }

    /// A connection cuts the WAL to nothing, under no lock but the EXCLUSIVE lock of the database file.
    pub fn cuts_generation(&self, index: &mut dyn WalIndex) {
        self.db.recorder.generation_is_cut(index);
    }

    /// A connection was granted the EXCLUSIVE lock of the database file, while the index has this header.
    pub fn keeps_file(&self, header: &IndexHeader) {
        self.db.recorder.remembers(header);
    }

    /// A connection is about to give up the EXCLUSIVE lock of the database file.
    pub fn gives_file_up(&self, index: &mut dyn WalIndex) {
        self.db.recorder.gives_file_up(index);
    }

    /// A connection that keeps the database for itself (`locking_mode=EXCLUSIVE`) committed; `view` shows that commit.
    pub fn committed_exclusively(&self, view: &mut dyn PinnedView) {
        let header = view.header();
        self.db.recorder.remembers(&header);
        self.db.commits.look(header);
        let noted = self.db.commits.last();
        for shipper in self.shippers() {
            let time = shipper.published_time(noted.time, Witness::Here);
            // In a process that does not publish, records of the generation must do.
            if let Ok(Err(e)) = shipper.with_capture(|capture| capture.take_exclusive(view, time, noted.seq))
            {
                tracing::warn!(db = %self.db.path.display(), "{}: {e}", self.db.path.display());
            }
        }
        self.committed();
    }

    /// A connection that keeps the database for itself made a commit that could not be read.
    pub fn misses_exclusive_commit(&self) {
        self.db.commits.note();
        self.each(Capture::misses_exclusive);
        self.committed();
    }

    /// A connection does not keep the database for itself any more.
    pub fn ends_exclusive_use(&self) {
        self.each(Capture::ends_exclusive);
        self.committed();
    }

    fn each(&self, work: impl Fn(&mut Capture)) {
        for shipper in self.shippers() {
            let _ = shipper.with_capture(&work);
        }
    }
}
