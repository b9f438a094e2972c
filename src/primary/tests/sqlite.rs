//! A database whose files change as SQLite changes them, with the calls that the shim makes.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};
use crate::page::{PageCount, PageSize, Pgno};
use crate::primary::{HeldLock, Host, Measures, PageSet, PinnedView, Primary, WalIndex};
use crate::wal::tests::fixtures::Writer;
use crate::wal::{ByteOrder, Checksum, FrameHeader, FrameNo, IndexHeader, Salts};

/// The shared memory.
#[derive(Debug)]
struct Shm {
    header: IndexHeader,
    /// The page of each frame. What is beyond the header's last frame was written and not committed.
    frames: Vec<u32>,
    /// All of the WAL is in the database file.
    backfilled: bool,
    /// The number of views.
    views: usize,
    /// The number of views that read from the WAL: it is not restarted then.
    marks: usize,
    /// A connection has the database for itself.
    locked: bool,
}

impl Shm {
    fn reset(&mut self, random: u32) {
        // The checksum and the number of the last commit stay.
        self.header.salts = Salts(self.header.salts.0.wrapping_add(1), random);
        self.header.mx_frame = FrameNo::ZERO;
        self.backfilled = true;
    }

    fn index(&self) -> FakeIndex {
        FakeIndex { header: self.header, frames: self.frames.clone() }
    }
}

/// The WAL index as a connection sees it.
struct FakeIndex {
    header: IndexHeader,
    frames: Vec<u32>,
}

/// The pages of the frames after `after` up to `last`.
fn pages_of(frames: &[u32], after: FrameNo, last: FrameNo) -> PageSet {
    frames[after.0 as usize..last.0 as usize].iter().filter_map(|pgno| Pgno::new(*pgno)).collect()
}

impl WalIndex for FakeIndex {
    fn header(&self) -> Option<IndexHeader> {
        Some(self.header)
    }

    fn pages(&mut self, after: FrameNo, last: FrameNo) -> Option<PageSet> {
        Some(pages_of(&self.frames, after, last))
    }
}

/// A view that takes longer is that of a copy.
const LONG_VIEW: Duration = Duration::from_secs(2);

/// How long from one look at the views to the next.
const LOOK_AGAIN: Duration = Duration::from_micros(200);

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
        let shm = Shm {
            header: no_wal(page_size),
            frames: Vec::new(),
            backfilled: true,
            views: 0,
            marks: 0,
            locked: false,
        };
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

    /// The primary, if the shim sees the locks of the connection.
    fn sees_locks(&self) -> Option<&Arc<Primary>> {
        self.primary.as_ref().filter(|_| !self.exclusive)
    }

    fn write_lock(&self) {
        if let Some(primary) = self.sees_locks() {
            primary.writer_begins(Some(self.header()));
        }
    }

    fn write_unlock(&self) {
        if let Some(primary) = self.sees_locks() {
            primary.writer_ends(Some(self.header()));
        }
    }

    /// The connection was granted the locks by which it may restart the WAL.
    pub(super) fn lock_readers_out(&self) {
        let mut index = self.shm.lock().unwrap().index();
        if let Some(primary) = self.sees_locks() {
            primary.generation_ends(&mut index);
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
            let change = shm.header.change + 1;
            (shm.header, shm.backfilled) = (IndexHeader { change, ..wal.index(size) }, false);
            let committed = shm.frames.len() - written.len();
            shm.frames[committed..].copy_from_slice(&written);
        }
        self.wal = Some(wal);
        self.survivors.push((self.wal.clone(), self.pages.clone()));
        self.write_unlock();
        self.show_exclusive_commit();
    }

    /// A connection that has the database for itself shows each commit.
    fn show_exclusive_commit(&self) {
        let Some(primary) = self.primary.as_ref().filter(|_| self.exclusive) else { return };
        let mut view = {
            let mut shm = self.shm.lock().unwrap();
            shm.locked = true;
            // The index is in private memory, and its count is not known.
            shm.header.change = 0;
            FakeView::new(self, &mut shm)
        };
        primary.committed_exclusively(&mut view);
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
        // The entries stay, beyond the last committed frame.
        self.write_unlock();
    }

    /// Writes the header of a new generation if no frame of the WAL is committed, or all of them are in the database file
    /// and nobody reads them.
    fn begin_generation(&mut self) {
        let has_frames = self.header().mx_frame > FrameNo::ZERO;
        if has_frames {
            {
                let shm = self.shm.lock().unwrap();
                if !shm.backfilled || shm.marks > 0 {
                    return;
                }
            }
            self.lock_readers_out();
        }
        self.count += 1;
        let salts = if has_frames {
            let mut shm = self.shm.lock().unwrap();
            shm.reset(self.count);
            shm.header.salts
        } else {
            // A connection that did not restart the WAL itself draws both, and the index learns them with the commit.
            Salts(self.count << 16, self.count)
        };
        let wal = Writer::new(ByteOrder::NATIVE, self.page_size, salts);
        if let Some(primary) = &self.primary {
            let mut index = self.shm.lock().unwrap().index();
            let lock = if self.exclusive { HeldLock::File } else { HeldLock::Write };
            primary.generation_begins(&wal.bytes, &mut index, lock);
        }
        self.wal_file().write_all_at(&wal.bytes, 0).unwrap();
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
        let (old, frames) = self.wal.as_ref().map_or((0, 0), |old| (old.bytes.len(), old.frames));
        self.wal_file().write_all_at(&wal.bytes[old..], old as u64).unwrap();
        let mut shm = self.shm.lock().unwrap();
        shm.frames.truncate(frames as usize);
        shm.frames.resize(wal.frames as usize, 3);
    }

    fn wal_file(&self) -> File {
        OpenOptions::new().create(true).truncate(false).write(true).open(self.wal_path()).unwrap()
    }

    /// Waits for the end of views that are as short as a publication's; `false` if there is a longer one.
    fn wait_for_views(&self) -> bool {
        let deadline = Instant::now() + LONG_VIEW;
        while self.views() > 0 && Instant::now() < deadline {
            std::thread::sleep(LOOK_AGAIN);
        }
        self.views() == 0
    }

    /// Copies the WAL into the database file; `false` if a view is in the way.
    pub(super) fn checkpoint(&mut self) -> bool {
        if !self.wait_for_views() {
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
        let done = self.checkpoint() && self.wait_for_views() && self.truncate_wal();
        self.write_unlock();
        done
    }

    fn truncate_wal(&mut self) -> bool {
        {
            let shm = self.shm.lock().unwrap();
            if shm.marks > 0 {
                return false;
            }
        }
        self.lock_readers_out();
        self.count += 1;
        self.shm.lock().unwrap().reset(self.count);
        if let Some(primary) = &self.primary {
            let mut index = self.shm.lock().unwrap().index();
            if self.exclusive {
                primary.cuts_generation(&mut index);
            } else {
                primary.closes_generation(&mut index);
            }
        }
        self.wal_file().set_len(0).unwrap();
        self.wal = None;
        self.synced();
        true
    }

    /// The last connection closes: a checkpoint, and the WAL is deleted. `false` if a view is in the way.
    pub(super) fn close_last(&mut self) -> bool {
        if !self.checkpoint() || !self.lock_out() {
            return false;
        }
        self.begin_to_delete_wal();
        let _ = fs::remove_file(self.wal_path());
        self.wal = None;
        self.synced();
        let mut shm = self.shm.lock().unwrap();
        (shm.header, shm.locked) = (no_wal(self.page_size), false);
        shm.frames.clear();
        true
    }

    /// The last connection is about to delete the WAL.
    pub(super) fn begin_to_delete_wal(&self) {
        if let Some(primary) = &self.primary {
            let mut index = self.shm.lock().unwrap().index();
            primary.closes_generation(&mut index);
        }
    }

    /// Keeps views away, after the end of those that are as short as a publication's; `false` if there is a longer one.
    fn lock_out(&self) -> bool {
        let deadline = Instant::now() + LONG_VIEW;
        loop {
            let mut shm = self.shm.lock().unwrap();
            shm.locked = shm.views == 0;
            if shm.locked || Instant::now() >= deadline {
                return shm.locked;
            }
            drop(shm);
            std::thread::sleep(LOOK_AGAIN);
        }
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
        // The number of commits begins again.
        let header = match &self.wal {
            Some(wal) if wal.frames > 0 => IndexHeader { change: 0, ..wal.index(self.pages.len() as u32) },
            Some(wal) => IndexHeader { salts: wal.salts, ..no_wal(self.page_size) },
            None => no_wal(self.page_size),
        };
        let mut shm = self.shm.lock().unwrap();
        let frames = self.wal.as_ref().map_or(0, |wal| wal.frames as usize);
        shm.frames.truncate(frames);
        shm.backfilled = frames == 0;
        (shm.header, shm.locked) = (header, false);
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
        shm.frames.clear();
        *self.overwritten.lock().unwrap() =
            Some(content.chunks(self.page_size.bytes()).map(<[u8]>::to_vec).collect());
        Ok(())
    }

    fn pin(&self, _: &dyn Fn() -> Option<Measures>) -> Result<Option<Box<dyn PinnedView>>> {
        let view = {
            let mut shm = self.shm.lock().unwrap();
            let len = fs::metadata(&self.path).map_err(|e| Error::io(self.path.display(), e))?.len();
            if shm.locked {
                return Err(Error::new(ErrorKind::Busy, "the database is locked"));
            }
            if len == 0 && shm.header.mx_frame == FrameNo::ZERO {
                return Ok(None);
            }
            FakeView::open(&self.path, self.page_size, &self.shm, &mut shm)
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
    wal: Option<File>,
    page_size: PageSize,
    commit: PageCount,
    header: IndexHeader,
    frames: Vec<u32>,
    backfilled: bool,
    /// The last frame that it shows, where that is not the last one of all.
    rewound: Option<FrameNo>,
    shm: Arc<Mutex<Shm>>,
}

impl FakeView {
    fn new(db: &Db, shm: &mut Shm) -> Self {
        Self::open(&db.path, db.page_size, &db.shm, shm)
    }

    fn open(path: &Path, page_size: PageSize, shared: &Arc<Mutex<Shm>>, shm: &mut Shm) -> Self {
        let file = File::open(path).unwrap();
        let len = file.metadata().unwrap().len();
        shm.views += 1;
        shm.marks += usize::from(!shm.backfilled);
        let header = shm.header;
        let commit = match header.mx_frame {
            FrameNo::ZERO => PageCount::new((len / u64::from(page_size.get())) as u32),
            _ => header.page_count,
        };
        let wal = File::open(format!("{}-wal", path.display())).ok();
        let (frames, shm) = (shm.frames.clone(), (shm.backfilled, Arc::clone(shared)));
        let (backfilled, shm) = shm;
        Self { file, wal, page_size, commit, header, frames, backfilled, rewound: None, shm }
    }

    fn read_page(&self, pgno: u32, page: &mut [u8]) {
        let committed = &self.frames[..self.rewound.unwrap_or(self.header.mx_frame).0 as usize];
        let in_wal = self.rewound.is_some() || !self.backfilled;
        let frame = committed.iter().rposition(|of| *of == pgno).filter(|_| in_wal);
        match (frame, &self.wal) {
            (Some(frame), Some(wal)) => {
                let offset = FrameNo(frame as u32 + 1).page_offset(self.page_size);
                wal.read_exact_at(page, offset).unwrap();
            }
            _ => read_or_zeros(&self.file, page, (pgno as usize - 1) * self.page_size.bytes()),
        }
    }
}

fn read_or_zeros(file: &File, buf: &mut [u8], offset: usize) {
    let mut done = 0;
    while done < buf.len() {
        match file.read_at(&mut buf[done..], (offset + done) as u64).unwrap() {
            0 => break,
            n => done += n,
        }
    }
    buf[done..].fill(0);
}

impl PinnedView for FakeView {
    fn page_size(&self) -> PageSize {
        self.page_size
    }

    fn commit(&self) -> PageCount {
        self.commit
    }

    fn header(&self) -> IndexHeader {
        self.header
    }

    fn pages_after(&mut self, after: FrameNo) -> Result<Option<PageSet>> {
        if self.backfilled && self.shm.lock().unwrap().header.salts != self.header.salts {
            return Ok(None);
        }
        Ok(Some(pages_of(&self.frames, after, self.header.mx_frame)))
    }

    fn frame(&mut self, frame: FrameNo) -> Result<Option<FrameHeader>> {
        let Some(wal) = &self.wal else { return Ok(None) };
        let mut bytes = [0; FrameHeader::SIZE];
        let offset = frame.page_offset(self.page_size) - FrameHeader::SIZE as u64;
        Ok(wal.read_exact_at(&mut bytes, offset).is_ok().then(|| FrameHeader::decode(&bytes)))
    }

    fn read_pages(&mut self, first: Pgno, pages: &mut [u8]) -> Result<()> {
        for (pgno, page) in (first.get()..).zip(pages.chunks_exact_mut(self.page_size.bytes())) {
            self.read_page(pgno, page);
        }
        Ok(())
    }

    fn rewind(&mut self, frame: FrameNo) -> Result<bool> {
        let size = match frame {
            FrameNo::ZERO => {
                let bytes = self.file.metadata().unwrap().len();
                Some(PageCount::new((bytes / u64::from(self.page_size.get())) as u32))
            }
            frame if frame > self.header.mx_frame => None,
            frame => self.frame(frame)?.and_then(|frame| frame.commit),
        };
        let Some(size) = size else { return Ok(false) };
        (self.commit, self.rewound) = (size, Some(frame));
        Ok(true)
    }
}

impl Drop for FakeView {
    fn drop(&mut self) {
        let mut shm = self.shm.lock().unwrap();
        shm.views -= 1;
        shm.marks -= usize::from(!self.backfilled);
    }
}
