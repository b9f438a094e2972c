//! A database whose files change as SQLite changes them, with the calls that the shim makes.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::error::{Error, ErrorKind, Result};
use crate::page::{PageCount, PageSize};
use crate::primary::{Host, Primary, ReadView};
use crate::wal::tests::fixtures::Writer;
use crate::wal::{ByteOrder, Checksum, FrameNo, IndexHeader, Salts};

/// The shared memory.
#[derive(Debug)]
struct Shm {
    header: IndexHeader,
    /// All of the WAL is in the database file.
    backfilled: bool,
    /// How many views hold a read mark.
    views: usize,
    /// The last connection has the database for itself: it is closing.
    locked: bool,
}

impl Shm {
    fn reset(&mut self, random: u32) {
        self.header.salts = Salts(self.header.salts.0 + 1, random);
        self.header.mx_frame = FrameNo::ZERO;
    }
}

/// What happens while a view is opened.
type Interruption = Box<dyn FnOnce() + Send>;

/// A database and its only writer.
pub(super) struct Db {
    pub(super) path: PathBuf,
    page_size: PageSize,
    /// What is committed, page by page.
    pub(super) pages: Vec<Vec<u8>>,
    /// Every state that was ever committed, and the one that it was made of.
    pub(super) history: HashMap<u64, Option<u64>>,
    /// The WAL as far as it is committed; `None` if it is empty or not there.
    pub(super) wal: Option<Writer>,
    /// What a power failure may leave of the WAL and of the database: the states of this generation
    /// since the last sync.
    survivors: Vec<(Option<Writer>, Vec<Vec<u8>>)>,
    shm: Arc<Mutex<Shm>>,
    during_view: Arc<Mutex<Option<Interruption>>>,
    /// What the database was overwritten with, until this side knows of it.
    overwritten: Arc<Mutex<Option<Vec<Vec<u8>>>>>,
    /// Makes every page content and every salt another one.
    count: u32,
    /// `locking_mode=EXCLUSIVE`: the index is in private memory.
    pub(super) exclusive: bool,
    /// Whom the shim tells. `None` for a process without the shim.
    pub(super) primary: Option<Arc<Primary>>,
}

/// A digest of one state of a database.
pub(super) fn digest(pages: &[Vec<u8>]) -> u64 {
    let mut hasher = DefaultHasher::new();
    pages.hash(&mut hasher);
    hasher.finish()
}

fn no_wal(page_size: PageSize) -> IndexHeader {
    IndexHeader {
        change: 0,
        page_size: Some(page_size),
        mx_frame: FrameNo::ZERO,
        page_count: PageCount::ZERO,
        frame_checksum: Checksum::default(),
        salts: Salts(0, 0),
    }
}

impl Db {
    /// A database of `pages` pages without a WAL. 0: an empty file.
    pub(super) fn new(path: &Path, page_size: PageSize, pages: usize) -> Self {
        let shm = Shm { header: no_wal(page_size), backfilled: true, views: 0, locked: false };
        let mut db = Self {
            path: path.to_path_buf(),
            page_size,
            pages: Vec::new(),
            history: HashMap::new(),
            wal: None,
            survivors: Vec::new(),
            shm: Arc::new(Mutex::new(shm)),
            during_view: Arc::default(),
            overwritten: Arc::default(),
            count: 0,
            exclusive: false,
            primary: None,
        };
        File::create(path).unwrap();
        db.fill(pages);
        db
    }

    /// Writes the database's first pages, as a rollback journal would.
    pub(super) fn fill(&mut self, pages: usize) {
        self.pages = (0..pages).map(|_| self.new_page()).collect();
        let _no_view = self.shm.lock().unwrap();
        fs::write(&self.path, self.pages.concat()).unwrap();
        self.history.insert(digest(&self.pages), None);
    }

    pub(super) fn host(&self) -> Arc<dyn Host> {
        Arc::new(FakeHost {
            path: self.path.clone(),
            page_size: self.page_size,
            shm: Arc::clone(&self.shm),
            during_view: Arc::clone(&self.during_view),
            overwritten: Arc::clone(&self.overwritten),
        })
    }

    /// Takes up what the database was overwritten with, if it was.
    pub(super) fn take_overwritten(&mut self) {
        let Some(pages) = self.overwritten.lock().unwrap().take() else { return };
        (self.pages, self.wal) = (pages, None);
        self.synced();
    }

    /// Whether the state `later` was made of the state `earlier`, or is that.
    pub(super) fn descends(&self, later: u64, earlier: u64) -> bool {
        std::iter::successors(Some(later), |state| self.history.get(state).copied().flatten())
            .any(|state| state == earlier)
    }

    /// Lets `happen` run once a view is pinned, before it is handed out.
    pub(super) fn during_next_view(&self, happen: impl FnOnce() + Send + 'static) {
        *self.during_view.lock().unwrap() = Some(Box::new(happen));
    }

    pub(super) fn views(&self) -> usize {
        self.shm.lock().unwrap().views
    }

    pub(super) fn wal_path(&self) -> PathBuf {
        let mut path = self.path.as_os_str().to_owned();
        path.push("-wal");
        path.into()
    }

    fn new_page(&mut self) -> Vec<u8> {
        self.count += 1;
        let mut page = vec![(self.count % 251) as u8; self.page_size.bytes()];
        page[..4].copy_from_slice(&self.count.to_be_bytes());
        page
    }

    fn header(&self) -> IndexHeader {
        self.shm.lock().unwrap().header
    }

    fn write_lock(&self) {
        if let Some(primary) = &self.primary
            && !self.exclusive
        {
            primary.look(self.header());
            primary.set_write_locked(true);
        }
    }

    /// A transaction that writes nothing.
    pub(super) fn lock_to_write(&self) {
        self.write_lock();
        self.write_unlock();
    }

    fn write_unlock(&self) {
        if let Some(primary) = &self.primary
            && !self.exclusive
        {
            primary.look(self.header());
            primary.set_write_locked(false);
        }
    }

    fn lock_exclusively(&self) {
        if let Some(primary) = &self.primary
            && !self.exclusive
        {
            primary.look(self.header());
        }
    }

    fn written(&self) {
        if let Some(primary) = &self.primary {
            primary.wal_written();
        }
    }

    /// Does `work` as a process would that has not loaded the shim.
    pub(super) fn without_shim<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> T {
        let primary = self.primary.take();
        let done = work(self);
        self.primary = primary;
        done
    }

    /// Commits new content of `changed`, after which the database has `size` pages.
    pub(super) fn commit(&mut self, changed: &[u32], size: u32) {
        let mut pages = self.pages.clone();
        let grown = pages.len() as u32 + 1..=size;
        pages.resize(size as usize, Vec::new());
        let mut written: Vec<u32> = changed.iter().copied().chain(grown).filter(|p| *p <= size).collect();
        written.sort_unstable();
        written.dedup();
        self.write_lock();
        self.begin_generation();
        let mut wal = self.wal.clone().expect("a generation was begun");
        for pgno in &written {
            let page = self.new_page();
            let commit = if Some(pgno) == written.last() { size } else { 0 };
            wal.frame(*pgno, commit, &page);
            pages[*pgno as usize - 1] = page;
        }
        self.append(&wal);
        self.history.insert(digest(&pages), Some(digest(&self.pages)));
        self.pages = pages;
        {
            let mut shm = self.shm.lock().unwrap();
            (shm.header, shm.backfilled) = (wal.index(size), false);
        }
        self.wal = Some(wal);
        self.survivors.push((self.wal.clone(), self.pages.clone()));
        self.write_unlock();
    }

    /// Commits a change of one page.
    pub(super) fn change(&mut self, pgno: u32) {
        self.commit(&[pgno], self.pages.len() as u32);
    }

    /// A transaction that spills its cache into the WAL and is rolled back.
    pub(super) fn roll_back(&mut self) {
        self.write_lock();
        self.begin_generation();
        let mut wal = self.wal.clone().expect("a generation was begun");
        for pgno in 1..=self.pages.len().min(3) {
            let page = self.new_page();
            wal.frame(pgno as u32, 0, &page);
        }
        self.append(&wal);
        self.write_unlock();
    }

    /// Writes the header of a new generation if the WAL is empty, or all of it is in the database file
    /// and nobody reads it.
    fn begin_generation(&mut self) {
        let salts = {
            let mut shm = self.shm.lock().unwrap();
            if self.wal.is_some() && (!shm.backfilled || shm.views > 0) {
                return;
            }
            self.count += 1;
            if self.wal.is_some() {
                shm.reset(self.count);
                shm.header.salts
            } else {
                // The first generation of a connection has random salts that the index learns with the commit.
                Salts(self.count << 16, self.count)
            }
        };
        let wal = Writer::new(ByteOrder::NATIVE, self.page_size, salts);
        if let Some(primary) = &self.primary {
            primary.before_wal_restart(&wal.bytes);
        }
        self.wal_file().write_all_at(&wal.bytes, 0).unwrap();
        self.written();
        self.wal = Some(wal);
        self.synced();
    }

    /// A writer resets the index to restart the WAL, and dies.
    pub(super) fn reset_index(&mut self) {
        self.count += 1;
        self.shm.lock().unwrap().reset(self.count);
    }

    /// All that is committed is on the disk itself.
    fn synced(&mut self) {
        self.survivors = vec![(self.wal.clone(), self.pages.clone())];
    }

    fn append(&self, wal: &Writer) {
        let old = self.wal.as_ref().map_or(0, |old| old.bytes.len());
        self.wal_file().write_all_at(&wal.bytes[old..], old as u64).unwrap();
        self.written();
    }

    fn wal_file(&self) -> File {
        OpenOptions::new().create(true).truncate(false).write(true).open(self.wal_path()).unwrap()
    }

    /// Copies the WAL into the database file; `false` if a view is in the way.
    pub(super) fn checkpoint(&mut self) -> bool {
        if self.views() > 0 {
            return false;
        }
        if self.wal.is_some() && !self.shm.lock().unwrap().backfilled {
            let file = OpenOptions::new().write(true).open(&self.path).unwrap();
            for (i, page) in self.pages.iter().enumerate() {
                file.write_all_at(page, (i * self.page_size.bytes()) as u64).unwrap();
            }
            file.set_len((self.pages.len() * self.page_size.bytes()) as u64).unwrap();
        }
        self.shm.lock().unwrap().backfilled = true;
        self.synced();
        true
    }

    /// `wal_checkpoint(TRUNCATE)`; `false` if a view is in the way.
    pub(super) fn truncate(&mut self) -> bool {
        self.write_lock();
        let done = self.checkpoint() && self.truncate_wal();
        self.write_unlock();
        done
    }

    fn truncate_wal(&mut self) -> bool {
        {
            let mut shm = self.shm.lock().unwrap();
            if shm.views > 0 {
                return false;
            }
            self.count += 1;
            shm.reset(self.count);
        }
        if let Some(primary) = &self.primary {
            primary.before_wal_is_emptied();
        }
        self.wal_file().set_len(0).unwrap();
        self.wal = None;
        self.synced();
        true
    }

    /// The last connection closes: a checkpoint, and the WAL is deleted. `false` if a view is in the way.
    pub(super) fn close_last(&mut self) -> bool {
        self.lock_exclusively();
        if !self.checkpoint() || !self.lock_out() {
            return false;
        }
        if let Some(primary) = &self.primary {
            primary.before_wal_is_emptied();
        }
        let _ = fs::remove_file(self.wal_path());
        self.wal = None;
        self.synced();
        let mut shm = self.shm.lock().unwrap();
        (shm.header, shm.locked) = (no_wal(self.page_size), false);
        true
    }

    /// Keeps views away; `false` if there is one.
    fn lock_out(&self) -> bool {
        let mut shm = self.shm.lock().unwrap();
        shm.locked = shm.views == 0;
        shm.locked
    }

    /// The machine goes down and comes up again with the commits since the last sync but the last
    /// `lost`.
    pub(super) fn fail_power(&mut self, lost: usize) {
        let survivor = self.survivors.len().saturating_sub(1 + lost);
        if let Some((wal, pages)) = self.survivors.get(survivor).cloned() {
            if let Some(wal) = &wal {
                fs::write(self.wal_path(), &wal.bytes).unwrap();
            }
            (self.wal, self.pages) = (wal, pages);
            self.synced();
        }
        self.recover();
    }

    /// All connections are gone without a close: the next one builds the index from the WAL.
    pub(super) fn recover(&mut self) {
        let header = match &self.wal {
            Some(wal) if wal.frames > 0 => wal.index(self.pages.len() as u32),
            Some(wal) => IndexHeader { salts: wal.salts, ..no_wal(self.page_size) },
            None => no_wal(self.page_size),
        };
        let mut shm = self.shm.lock().unwrap();
        shm.backfilled = self.wal.as_ref().is_none_or(|wal| wal.frames == 0);
        shm.header = header;
    }
}

struct FakeHost {
    path: PathBuf,
    page_size: PageSize,
    shm: Arc<Mutex<Shm>>,
    during_view: Arc<Mutex<Option<Interruption>>>,
    overwritten: Arc<Mutex<Option<Vec<Vec<u8>>>>>,
}

impl Host for FakeHost {
    fn overwrite(&self, source: &Path, is_current: &dyn Fn() -> bool) -> Result<()> {
        let mut shm = self.shm.lock().unwrap();
        if shm.views > 0 || !is_current() {
            return Err(Error::new(ErrorKind::Busy, "the database is in use"));
        }
        let mut content = fs::read(source).unwrap();
        // The pages are no database, and all bytes of one are alike: nothing may be changed in them.
        content.copy_within(20..22, 18);
        fs::write(&self.path, &content).unwrap();
        let _ = fs::remove_file(format!("{}-wal", self.path.display()));
        (shm.header, shm.backfilled) = (no_wal(self.page_size), true);
        *self.overwritten.lock().unwrap() =
            Some(content.chunks(self.page_size.bytes()).map(<[u8]>::to_vec).collect());
        Ok(())
    }

    fn wait_for_views(&self, _timeout: std::time::Duration) -> bool {
        false
    }

    fn read_view(&self) -> Result<Option<Box<dyn ReadView>>> {
        let file = File::open(&self.path).map_err(|e| Error::io(self.path.display(), e))?;
        let view = {
            let mut shm = self.shm.lock().unwrap();
            let len = file.metadata().map_err(|e| Error::io(self.path.display(), e))?.len();
            let header = shm.header;
            if shm.locked {
                return Err(Error::new(ErrorKind::Busy, "the database is locked"));
            }
            if len == 0 && header.mx_frame == FrameNo::ZERO {
                return Ok(None);
            }
            shm.views += 1;
            let commit = match header.mx_frame {
                FrameNo::ZERO => PageCount::new((len / u64::from(self.page_size.get())) as u32),
                _ => header.page_count,
            };
            let (shm_, backfilled) = (Arc::clone(&self.shm), shm.backfilled);
            FakeView { file, page_size: self.page_size, commit, header, backfilled, shm: shm_ }
        };
        let interruption = self.during_view.lock().unwrap().take();
        if let Some(happen) = interruption {
            happen();
        }
        Ok(Some(Box::new(view)))
    }
}

struct FakeView {
    file: File,
    page_size: PageSize,
    commit: PageCount,
    header: IndexHeader,
    backfilled: bool,
    shm: Arc<Mutex<Shm>>,
}

impl ReadView for FakeView {
    fn page_size(&self) -> PageSize {
        self.page_size
    }

    fn commit(&self) -> PageCount {
        self.commit
    }

    fn header(&self) -> Option<IndexHeader> {
        Some(self.header)
    }

    fn uses_wal(&self) -> bool {
        !self.backfilled
    }

    fn read_file(&mut self, buf: &mut [u8], offset: u64) -> Result<()> {
        let mut done = 0;
        while done < buf.len() {
            match self.file.read_at(&mut buf[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) => return Err(Error::new(ErrorKind::Io, e.to_string())),
            }
        }
        buf[done..].fill(0);
        Ok(())
    }
}

impl Drop for FakeView {
    fn drop(&mut self) {
        self.shm.lock().unwrap().views -= 1;
    }
}
