//! The database as the library's own reads see it. Whenever it looks, others may have been at work.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::sqlite::{PAGE, Process, Sqlite};
use crate::error::Result;
use crate::page::{PageCount, PageSize, Pgno};
use crate::primary::{Host, Measures, PageSet, PinnedView};
use crate::wal::{FrameHeader, FrameNo, IndexHeader};

/// The database of a simulation.
#[derive(Clone)]
pub(super) struct Database(pub(super) Arc<Mutex<Sqlite>>);

impl Database {
    pub(super) fn lock(&self) -> MutexGuard<'_, Sqlite> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Others may do something here.
    fn meanwhile(&self) {
        let mut sqlite = self.lock();
        while !sqlite.is_quiet && sqlite.simulation.below(6) == 0 {
            step(&mut sqlite, false);
        }
    }
}

/// Any connection does something; a process other than the publisher's may die of it, and that too if it `may_die`.
/// Returns whether it did.
pub(super) fn step(sqlite: &mut Sqlite, may_die: bool) -> bool {
    let connections = sqlite.connections() as u64;
    if connections == 0 {
        return false;
    }
    let of = sqlite.simulation.below(connections) as usize;
    let process = sqlite.process_of(of);
    let can_die = may_die || process != Process::Publisher;
    match sqlite.act(of, can_die) {
        Ok(()) => false,
        Err(_) if process == Process::Publisher => true,
        Err(_) => {
            sqlite.kill(process);
            false
        }
    }
}

impl Host for Database {
    fn pin(&self, _: &dyn Fn() -> Option<Measures>) -> Result<Option<Box<dyn PinnedView>>> {
        self.meanwhile();
        let (id, mark, header) = self.lock().pin()?;
        let view = View { database: self.clone(), id, mark, header };
        self.meanwhile();
        Ok(Some(Box::new(view)))
    }

    fn overwrite(&self, source: &Path, is_current: &dyn Fn() -> bool) -> Result<()> {
        let content = std::fs::read(source).unwrap();
        let mut sqlite = self.lock();
        if !is_current() {
            return Err(crate::error::Error::new(crate::error::ErrorKind::Busy, "the database was written"));
        }
        sqlite.overwrite(content)
    }
}

struct View {
    database: Database,
    id: u64,
    mark: usize,
    header: IndexHeader,
}

impl PinnedView for View {
    fn page_size(&self) -> PageSize {
        PageSize::MIN
    }

    fn commit(&self) -> PageCount {
        self.database.lock().count(&self.header)
    }

    fn header(&self) -> IndexHeader {
        self.header
    }

    fn pages_after(&mut self, after: FrameNo) -> Result<Option<PageSet>> {
        self.database.meanwhile();
        let sqlite = self.database.lock();
        if self.mark == 0 && !sqlite.has_salts(self.header.salts) {
            return Ok(None);
        }
        Ok(Some(sqlite.pages_after(after, self.header.mx_frame)))
    }

    fn frame(&mut self, frame: FrameNo) -> Result<Option<FrameHeader>> {
        self.database.meanwhile();
        Ok(self.database.lock().frame(frame))
    }

    fn read_pages(&mut self, first: Pgno, pages: &mut [u8]) -> Result<()> {
        self.database.meanwhile();
        let sqlite = self.database.lock();
        for (pgno, page) in (first.get()..).zip(pages.chunks_exact_mut(PAGE)) {
            page.copy_from_slice(&sqlite.page(&self.header, self.mark == 0, pgno));
        }
        Ok(())
    }

    /// No Litestream runs here.
    fn rewind(&mut self, _: FrameNo) -> Result<bool> {
        Ok(false)
    }
}

impl Drop for View {
    fn drop(&mut self) {
        self.database.lock().release(self.id);
    }
}
