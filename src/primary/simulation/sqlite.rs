//! A model of SQLite's WAL: the file, the index with its read marks, the locks, and connections of several processes that
//! use them as SQLite does, step by step. Sources: `wal.c` and `pager.c` of SQLite 3.53.
//!
//! What the hooks of the library see is as in `vfs/hooks.rs`, for connections of processes that have loaded it.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::disk::Disk;
use super::ledger::TOKEN;
use crate::error::{Error, ErrorKind, Result};
use crate::page::{PageCount, PageSize, Pgno};
use crate::primary::dirty::Recorder;
use crate::primary::{HeldLock, PageSet, Primary, WalIndex};
use crate::runtime::simulated::Simulation;
use crate::wal::{ByteOrder, Checksum, FrameHeader, FrameNo, IndexHeader, READ_MARKS, Salts, WalHeader};

pub(super) const PAGE: usize = PageSize::MIN.bytes();
const FRAME: usize = FrameHeader::SIZE + PAGE;
/// A read mark that stands for nothing.
const UNUSED: u32 = u32::MAX;
/// The largest database, in pages.
const LARGEST: u64 = 14;
/// A page that nothing changes but a foreign hand, as most pages of a database are.
const STAYS: u32 = 2;

/// A digest of one state of a database.
pub(super) fn digest(pages: &[Vec<u8>]) -> u64 {
    let mut hasher = DefaultHasher::new();
    pages.hash(&mut hasher);
    hasher.finish()
}

/// Which process a connection is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Process {
    /// The one that publishes.
    Publisher,
    /// One with the library, which stands by.
    Neighbour,
    /// One without the library.
    Foreign,
}

/// The process dies here.
#[derive(Debug)]
pub(super) struct Died;

/// The states that were ever committed, each with the one that it was made of.
#[derive(Debug, Default)]
pub(super) struct History {
    parents: HashMap<u64, Option<u64>>,
}

impl History {
    fn add(&mut self, state: u64, parent: Option<u64>) {
        self.parents.entry(state).or_insert(parent);
    }

    pub(super) fn has(&self, state: u64) -> bool {
        self.parents.contains_key(&state)
    }

    /// Whether `later` was made of `earlier`, or is that.
    pub(super) fn descends(&self, later: u64, earlier: u64) -> bool {
        std::iter::successors(Some(later), |state| self.parents.get(state).copied().flatten())
            .any(|state| state == earlier)
    }
}

/// The shared memory.
#[derive(Clone, Debug)]
struct Shm {
    header: IndexHeader,
    /// The two copies of the header differ.
    torn: bool,
    /// The page of each frame; what is beyond the last committed frame was written and not committed.
    frames: Vec<u32>,
    n_backfill: u32,
    marks: [u32; READ_MARKS],
}

/// The index as a hook reads it.
struct Index {
    header: Option<IndexHeader>,
    frames: Vec<u32>,
}

impl WalIndex for Index {
    fn header(&self) -> Option<IndexHeader> {
        self.header
    }

    fn pages(&mut self, after: FrameNo, last: FrameNo) -> Option<PageSet> {
        let frames = self.frames.get(after.0 as usize..last.0 as usize)?;
        Some(frames.iter().filter_map(|pgno| Pgno::new(*pgno)).collect())
    }
}

/// The locks of a connection, or of a view of the library.
#[derive(Clone, Copy, Debug)]
struct Hold {
    process: Process,
    mark: Option<usize>,
}

/// A connection.
#[derive(Debug)]
struct Connection {
    id: u64,
    process: Process,
    /// The index header of its transaction.
    reading: Option<IndexHeader>,
    writing: Option<Writing>,
    /// How often it restarted the WAL: else it draws both salts.
    restarts: u32,
}

/// A transaction that writes.
#[derive(Debug)]
struct Writing {
    /// The pages that are not in the WAL yet.
    cache: BTreeMap<u32, Vec<u8>>,
    /// All pages, as the transaction leaves them.
    pages: Vec<Vec<u8>>,
    /// The last frame, its checksum, and whether the checksums are to be written again.
    end: u32,
    chain: Checksum,
    /// By page, the frame of this transaction that holds it.
    spilled: BTreeMap<u32, u32>,
}

/// The database, and all who use it.
pub(super) struct Sqlite {
    pub(super) db: Disk,
    pub(super) wal: Disk,
    shm: Option<Shm>,
    holds: BTreeMap<u64, Hold>,
    connections: Vec<Connection>,
    /// Whose WRITE lock it is.
    writer: Option<u64>,
    next_id: u64,
    count: u32,
    /// The first frame of a transaction that SQLite did not seal. A recovery takes none from there on: SQLite itself would lose data if
    /// they were in the database file, or a reader needed them.
    unsealed: Option<u32>,
    /// It is SQLite 3.40, which does not seal every frame.
    pub(super) is_old: bool,
    /// A recovery lost commits, as SQLite 3.40 does.
    pub(super) has_lost: bool,
    /// The WAL was restarted or removed by a process without the library, or removed while nobody published; or a frame of it
    /// was not sealed, which nobody finds again for sure.
    pub(super) has_unfollowed: Cell<bool>,
    /// A power failure tore the database, of which nothing was synced: it is what it never was.
    is_torn: bool,
    /// Nobody does anything while the library looks.
    pub(super) is_quiet: bool,
    /// What happens is told on standard error.
    pub(super) tells: bool,
    pub(super) history: History,
    /// The state that is committed.
    pub(super) now: u64,
    pub(super) primary: Option<Arc<Primary>>,
    neighbour: Option<Recorder>,
    state_folder: PathBuf,
    pub(super) simulation: Arc<Simulation>,
}

fn header_of(salts: Salts) -> (Vec<u8>, Checksum) {
    let magic: u32 = if ByteOrder::NATIVE == ByteOrder::Big { 0x377f_0683 } else { 0x377f_0682 };
    let mut bytes = Vec::new();
    for word in [magic, 3_007_000, PAGE as u32, 7, salts.0, salts.1] {
        bytes.extend(word.to_be_bytes());
    }
    let sum = Checksum::default().update(ByteOrder::NATIVE, &bytes);
    bytes.extend(sum.0.to_be_bytes());
    bytes.extend(sum.1.to_be_bytes());
    (bytes, sum)
}

const fn frame_at(frame: u32) -> usize {
    WalHeader::SIZE + (frame as usize - 1) * FRAME
}

/// A frame, and the checksum after it; unsealed, with neither salts nor checksum, and then there is none to go on from.
fn frame_of(
    pgno: u32,
    commit: u32,
    salts: Salts,
    chain: Checksum,
    page: &[u8],
    sealed: bool,
) -> (Vec<u8>, Checksum) {
    let mut bytes = Vec::new();
    bytes.extend(pgno.to_be_bytes());
    bytes.extend(commit.to_be_bytes());
    let sum = chain.update(ByteOrder::NATIVE, &bytes).update(ByteOrder::NATIVE, page);
    let words = if sealed { [salts.0, salts.1, sum.0, sum.1] } else { [0; 4] };
    words.iter().for_each(|word| bytes.extend(word.to_be_bytes()));
    bytes.extend(page);
    (bytes, if sealed { sum } else { Checksum::default() })
}

impl Sqlite {
    /// A database of some pages without a WAL.
    pub(super) fn new(path: &Path, state_folder: &Path, simulation: Arc<Simulation>) -> Self {
        let mut wal_path = path.as_os_str().to_owned();
        wal_path.push("-wal");
        let mut new = Self {
            db: Disk::new(path),
            wal: Disk::new(Path::new(&wal_path)),
            shm: None,
            holds: BTreeMap::new(),
            connections: Vec::new(),
            writer: None,
            next_id: 1,
            count: 0,
            unsealed: None,
            is_old: false,
            has_lost: false,
            has_unfollowed: Cell::new(false),
            is_torn: false,
            is_quiet: false,
            tells: std::env::var_os("SIMULATION_LOG").is_some(),
            history: History::default(),
            now: 0,
            primary: None,
            neighbour: None,
            state_folder: state_folder.to_owned(),
            simulation,
        };
        new.is_old = new.below(6) == 0;
        let size = 2 + new.simulation.below(LARGEST / 2) as u32;
        let mut pages = Vec::new();
        for pgno in 1..=size {
            let page = new.new_page(pgno, size);
            pages.push(page);
        }
        new.db.write(&new.simulation, 0, &pages.concat());
        new.db.sync();
        let is_lazy = new.below(4) == 0;
        (new.db.is_lazy, new.wal.is_lazy) = (is_lazy, is_lazy);
        new.now = digest(&pages);
        new.history.add(new.now, None);
        new
    }

    fn below(&self, end: u64) -> u64 {
        self.simulation.below(end)
    }

    /// New content of a page of a database of `size` pages. Page 1 begins as SQLite's does.
    fn new_page(&mut self, pgno: u32, size: u32) -> Vec<u8> {
        self.count += 1;
        let count = self.count;
        let mut page: Vec<u8> = (0..PAGE).map(|at| (at as u32).wrapping_mul(count) as u8 | 1).collect();
        page[100..104].copy_from_slice(&count.to_be_bytes());
        page[104..104 + TOKEN.len()].copy_from_slice(TOKEN);
        if pgno == 1 {
            page[..16].copy_from_slice(b"SQLite format 3\0");
            page[16..24].copy_from_slice(&[(PAGE >> 8) as u8, PAGE as u8, 2, 2, 0, 64, 32, 32]);
            page[24..28].copy_from_slice(&count.to_be_bytes());
            page[28..32].copy_from_slice(&size.to_be_bytes());
            page[40..44].copy_from_slice(&1_u32.to_be_bytes());
            page[92..96].copy_from_slice(&count.to_be_bytes());
        }
        page
    }

    fn shm(&self) -> &Shm {
        self.shm.as_ref().expect("the index is mapped")
    }

    fn shm_mut(&mut self) -> &mut Shm {
        self.shm.as_mut().expect("the index is mapped")
    }

    /// How many hold the read mark.
    fn readers(&self, mark: usize) -> usize {
        self.holds.values().filter(|hold| hold.mark == Some(mark)).count()
    }

    fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// The content of a page in the view with `header`; from the file alone with mark 0.
    pub(super) fn page(&self, header: &IndexHeader, file_only: bool, pgno: u32) -> Vec<u8> {
        let frames =
            self.shm.as_ref().filter(|_| !file_only).map(|shm| &shm.frames[..header.mx_frame.0 as usize]);
        let frame = frames.and_then(|all| all.iter().rposition(|of| *of == pgno));
        match frame {
            Some(frame) => self.wal.read(frame_at(frame as u32 + 1) + FrameHeader::SIZE, PAGE),
            None => self.db.read((pgno as usize - 1) * PAGE, PAGE),
        }
    }

    fn size(&self, header: &IndexHeader) -> u32 {
        match header.page_count.get() {
            0 => (self.db.bytes().len() / PAGE) as u32,
            count => count,
        }
    }

    fn content(&self, header: &IndexHeader) -> Vec<Vec<u8>> {
        (1..=self.size(header)).map(|pgno| self.page(header, false, pgno)).collect()
    }

    pub(super) fn frame(&self, frame: FrameNo) -> Option<FrameHeader> {
        let at = frame_at(frame.0);
        let bytes = self.wal.bytes().get(at..at + FrameHeader::SIZE)?;
        Some(FrameHeader::decode(bytes.first_chunk().expect("a header")))
    }

    /// Builds the index from the WAL file: `walIndexRecover`.
    fn recover(&mut self) {
        let mut header = IndexHeader { page_size: None, ..IndexHeader::EMPTY };
        let mut frames = Vec::new();
        let bytes = self.wal.bytes();
        let start =
            bytes.first_chunk::<{ WalHeader::SIZE }>().and_then(|bytes| WalHeader::decode(bytes).ok());
        if let Some(start) = start.filter(|_| bytes.len() > WalHeader::SIZE) {
            header.salts = start.salts;
            header.page_size = Some(start.page_size);
            let mut chain = start.checksum;
            let mut seen = Vec::new();
            for frame in bytes[WalHeader::SIZE..].chunks_exact(FRAME) {
                let (head, page) = frame.split_at(FrameHeader::SIZE);
                let head: &[u8; FrameHeader::SIZE] = head.first_chunk().expect("a header");
                let decoded = FrameHeader::decode(head);
                chain = FrameHeader::expected_checksum(chain, start.order, head, page);
                let Some(pgno) = decoded.pgno else { break };
                if decoded.salts != start.salts || decoded.checksum != chain {
                    break;
                }
                seen.push(pgno.get());
                if let Some(size) = decoded.commit {
                    (header.mx_frame, header.page_count) = (FrameNo(seen.len() as u32), size);
                    header.frame_checksum = chain;
                    frames.clone_from(&seen);
                }
            }
            // What was not committed is in the index too.
            frames.extend_from_slice(&seen[frames.len()..]);
        }
        let mut marks = [UNUSED; READ_MARKS];
        (marks[0], marks[1]) = (0, if header.mx_frame.0 > 0 { header.mx_frame.0 } else { UNUSED });
        for mark in (1..READ_MARKS).filter(|mark| self.readers(*mark) > 0) {
            marks[mark] = self.shm.as_ref().map_or(UNUSED, |shm| shm.marks[mark]);
        }
        self.shm = Some(Shm { header, torn: false, frames, n_backfill: 0, marks });
        let state = digest(&self.content(&header));
        if std::mem::take(&mut self.is_torn) && !self.history.has(state) {
            self.history.add(state, Some(self.now));
            self.has_lost = true;
        }
        assert!(self.history.has(state), "a recovery makes what was never committed");
        // Also where it is what a process that died would have committed, had nobody committed after it.
        self.has_lost |= !self.history.descends(state, self.now);
        self.unsealed = None;
        self.now = state;
        self.note("the index is recovered", None);
    }

    /// Maps the index; whoever finds it broken, or is the first, recovers it. Returns whether that found a WAL.
    fn map(&mut self) -> bool {
        let recovers = self.shm.as_ref().is_none_or(|shm| shm.torn);
        if recovers {
            self.recover();
        }
        recovers && self.shm().header.salts != Salts::default()
    }

    /// Takes SHARED and a read mark: `walTryBeginRead`. Returns the mark and the header.
    fn begin_read(&mut self, id: u64, process: Process) -> Result<(usize, IndexHeader)> {
        self.map();
        let shm = self.shm();
        let (header, last) = (shm.header, shm.header.mx_frame.0);
        let mut mark = 0;
        if shm.n_backfill != last {
            let best = (1..READ_MARKS).filter(|i| shm.marks[*i] != UNUSED && shm.marks[*i] <= last);
            let best = best.max_by_key(|i| shm.marks[*i]);
            let is_exact = best.is_some_and(|i| shm.marks[i] == last);
            let free = (1..READ_MARKS).find(|i| self.readers(*i) == 0);
            mark = match (best, free) {
                (Some(best), _) if is_exact => best,
                (_, Some(free)) => {
                    self.shm_mut().marks[free] = last;
                    free
                }
                (Some(best), None) => best,
                (None, None) => return Err(Error::new(ErrorKind::Busy, "all read marks are taken")),
            };
        }
        self.holds.insert(id, Hold { process, mark: Some(mark) });
        Ok((mark, header))
    }

    /// Pins a view for the library.
    pub(super) fn pin(&mut self) -> Result<(u64, usize, IndexHeader)> {
        let id = self.new_id();
        let (mark, header) = self.begin_read(id, Process::Publisher)?;
        self.note(&format!("a view is pinned, mark {mark}"), None);
        Ok((id, mark, header))
    }

    /// Whether the header is still what it was.
    pub(super) fn has_salts(&self, salts: Salts) -> bool {
        self.shm.as_ref().is_some_and(|shm| shm.header.salts == salts)
    }

    pub(super) fn pages_after(&self, after: FrameNo, last: FrameNo) -> PageSet {
        let frames = &self.shm().frames;
        frames[after.0 as usize..last.0 as usize].iter().filter_map(|pgno| Pgno::new(*pgno)).collect()
    }

    /// Gives up what a view held.
    pub(super) fn release(&mut self, id: u64) {
        if self.holds.remove(&id).is_some() {
            self.forget_index();
        }
    }

    fn forget_index(&mut self) {
        if self.holds.is_empty() {
            self.shm = None;
        }
    }

    /// The size of the view with `header`.
    pub(super) fn count(&self, header: &IndexHeader) -> PageCount {
        PageCount::new(self.size(header))
    }

    // The hooks.

    fn index(&self) -> Index {
        let shm = self.shm();
        Index { header: (!shm.torn).then_some(shm.header), frames: shm.frames.clone() }
    }

    fn write_lock(&mut self, of: usize) {
        self.writer = Some(self.connections[of].id);
        let header = self.index().header;
        match self.connections[of].process {
            Process::Publisher => self.primary.iter().for_each(|primary| primary.writer_begins(header)),
            Process::Neighbour | Process::Foreign => {}
        }
    }

    fn write_unlock(&mut self, of: usize) {
        let header = self.index().header;
        if self.connections[of].process == Process::Publisher {
            self.primary.iter().for_each(|primary| primary.writer_ends(header));
        }
        self.writer = None;
    }

    /// Tells what happened.
    fn note(&self, what: &str, process: Option<Process>) {
        if !self.tells {
            return;
        }
        let header = self.shm.as_ref().map(|shm| shm.header);
        let header =
            header.map(|h| (h.salts, h.mx_frame.0, h.frame_checksum.0, h.change, h.page_count.get()));
        let backfill = self.shm.as_ref().map(|shm| shm.n_backfill);
        eprintln!("    {process:?} {what}: {header:?}, {backfill:?} backfilled");
    }

    fn generation_ends(&self, process: Process) {
        self.note("ends a generation", Some(process));
        self.has_unfollowed.set(self.has_unfollowed.get() || process == Process::Foreign);
        let mut index = self.index();
        match (process, &self.primary, &self.neighbour) {
            (Process::Publisher, Some(primary), _) => primary.generation_ends(&mut index),
            (Process::Neighbour, _, Some(neighbour)) => {
                neighbour.generation_is_left(&mut index, &self.db.path);
            }
            _ => {}
        }
    }

    fn generation_begins(&self, process: Process, header: &[u8]) {
        self.note("begins a generation", Some(process));
        self.has_unfollowed.set(self.has_unfollowed.get() || process == Process::Foreign);
        let mut index = self.index();
        match (process, &self.primary, &self.neighbour) {
            (Process::Publisher, Some(primary), _) => {
                primary.generation_begins(header, &mut index, HeldLock::Write);
            }
            (Process::Neighbour, _, Some(neighbour)) => {
                let first = index.header.filter(|header| header.frame_checksum == Checksum::default());
                let file = first.and_then(|header| neighbour.journal().seal(&header, &self.db.path));
                neighbour.generation_begins(header, &mut index, file, HeldLock::Write);
            }
            _ => {}
        }
    }

    fn generation_closes(&self, process: Process) {
        self.note("closes a generation", Some(process));
        // The stamp of a file that was written a moment ago says little, and nobody looks at it again.
        let is_alone = process == Process::Neighbour && self.primary.is_none();
        self.has_unfollowed.set(self.has_unfollowed.get() || is_alone || process == Process::Foreign);
        let mut index = self.index();
        match (process, &self.primary, &self.neighbour) {
            (Process::Publisher, Some(primary), _) => primary.closes_generation(&mut index),
            (Process::Neighbour, _, Some(neighbour)) => {
                neighbour.generation_closes(&mut index, &self.db.path);
            }
            _ => {}
        }
    }

    // What connections do.

    /// Whether the process may die at any moment, and does now.
    fn may_die(&self, can_die: bool) -> std::result::Result<(), Died> {
        if can_die && self.below(60) == 0 { Err(Died) } else { Ok(()) }
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.len()
    }

    pub(super) fn process_of(&self, of: usize) -> Process {
        self.connections[of].process
    }

    /// Opens a connection of `process`.
    pub(super) fn open(&mut self, process: Process) {
        if process == Process::Neighbour && self.neighbour.is_none() {
            self.neighbour = Some(Recorder::new(&self.state_folder, &self.wal.path));
        }
        let id = self.new_id();
        self.holds.insert(id, Hold { process, mark: None });
        self.map();
        self.connections.push(Connection { id, process, reading: None, writing: None, restarts: 0 });
    }

    /// What connection `of` does next, whatever that is.
    pub(super) fn act(&mut self, of: usize, can_die: bool) -> std::result::Result<(), Died> {
        if self.map() {
            // The count of the WAL's restarts continues.
            self.connections[of].restarts += 1;
        }
        let connection = &self.connections[of];
        match (connection.writing.is_some(), connection.reading.is_some(), self.below(16)) {
            (true, _, 0..6) => self.change(of),
            (true, _, 6..8) => return self.spill(of, can_die),
            (true, _, 8) => self.roll_back(of),
            (true, ..) => return self.commit(of, can_die),
            (false, true, 0..3) => {}
            (false, true, 3..9) => self.end_read(of),
            (false, true, _) => self.begin_write(of),
            (false, false, 0..11) => {
                if self.read(of).is_ok() && self.below(6) > 0 {
                    self.begin_write(of);
                }
            }
            (false, false, 11..14) => return self.checkpoint(of, can_die),
            (false, false, 14) => {}
            (false, false, _) if self.connections[of].process != Process::Publisher => {
                return self.close(of, can_die).map(drop);
            }
            (false, false, _) => {}
        }
        Ok(())
    }

    fn read(&mut self, of: usize) -> Result<()> {
        let Connection { id, process, .. } = self.connections[of];
        let (_, header) = self.begin_read(id, process)?;
        self.connections[of].reading = Some(header);
        Ok(())
    }

    fn end_read(&mut self, of: usize) {
        let Connection { id, process, .. } = self.connections[of];
        self.connections[of].reading = None;
        self.holds.insert(id, Hold { process, mark: None });
    }

    /// Takes WRITE, if the reader's state is the last one.
    fn begin_write(&mut self, of: usize) {
        let Some(reading) = self.connections[of].reading else { return };
        if self.writer.is_some() {
            return;
        }
        self.write_lock(of);
        if self.shm().header != reading {
            self.write_unlock(of);
            self.end_read(of);
            return;
        }
        let (pages, end, chain) = (self.content(&reading), reading.mx_frame.0, reading.frame_checksum);
        self.connections[of].writing =
            Some(Writing { cache: BTreeMap::new(), pages, end, chain, spilled: BTreeMap::new() });
        self.change(of);
    }

    /// Changes some pages, or the size of the database.
    fn change(&mut self, of: usize) {
        let Some(mut writing) = self.connections[of].writing.take() else { return };
        let size = writing.pages.len() as u32;
        let resized = if self.below(6) == 0 { 2 + self.below(LARGEST - 1) as u32 } else { size };
        for pgno in size + 1..=resized {
            let page = self.new_page(pgno, resized);
            writing.pages.push(page.clone());
            writing.cache.insert(pgno, page);
        }
        writing.pages.truncate(resized as usize);
        writing.cache.retain(|pgno, _| *pgno <= resized);
        for _ in 0..=self.below(3) {
            let pgno = match 1 + self.below(u64::from(resized)) as u32 {
                STAYS => 1,
                pgno => pgno,
            };
            let page = self.new_page(pgno, resized);
            writing.pages[pgno as usize - 1].clone_from(&page);
            writing.cache.insert(pgno, page);
        }
        if resized != size {
            let page = self.new_page(1, resized);
            writing.pages[0].clone_from(&page);
            writing.cache.insert(1, page);
        }
        self.connections[of].writing = Some(writing);
    }

    fn roll_back(&mut self, of: usize) {
        self.connections[of].writing = None;
        let last = self.shm().header.mx_frame.0;
        self.unsealed = self.unsealed.filter(|first| *first <= last);
        self.write_unlock(of);
        self.end_read(of);
    }

    /// Restarts the WAL, if all of it is in the database file and nobody reads it: `walRestartLog`.
    fn restart_log(&mut self, of: usize, can_die: bool) -> std::result::Result<(), Died> {
        let Connection { id, process, .. } = self.connections[of];
        if self.holds[&id].mark != Some(0) {
            return Ok(());
        }
        if self.shm().n_backfill > 0 && (1..READ_MARKS).all(|mark| self.readers(mark) == 0) {
            self.generation_ends(process);
            self.may_die(can_die)?;
            self.restart_header(of);
            self.may_die(can_die)?;
        }
        Ok(())
    }

    /// `walRestartHdr`.
    fn restart_header(&mut self, of: usize) {
        let random = self.simulation.random() as u32;
        self.connections[of].restarts += 1;
        let shm = self.shm_mut();
        shm.header.salts = Salts(shm.header.salts.0.wrapping_add(1), random);
        shm.header.mx_frame = FrameNo::ZERO;
        shm.n_backfill = 0;
        shm.marks = [0, 0, UNUSED, UNUSED, UNUSED];
    }

    /// Writes the header of the WAL, if it has no frames. `walFrames` does so.
    fn begin_log(&mut self, of: usize, can_die: bool) -> std::result::Result<(), Died> {
        let process = self.connections[of].process;
        let mut salts = self.shm().header.salts;
        if self.connections[of].restarts == 0 {
            salts = Salts(self.simulation.random() as u32, self.simulation.random() as u32);
        }
        let (bytes, chain) = header_of(salts);
        self.generation_begins(process, &bytes);
        self.may_die(can_die)?;
        self.wal.write(&self.simulation, 0, &bytes);
        self.wal.sync();
        self.unsealed = None;
        self.may_die(can_die)?;
        let writing = self.connections[of].writing.as_mut().expect("it writes");
        (writing.chain, writing.end) = (chain, 0);
        // The index learns the salts with the commit.
        self.log_salts(of, salts);
        Ok(())
    }

    fn log_salts(&mut self, of: usize, salts: Salts) {
        if let Some(reading) = &mut self.connections[of].reading {
            reading.salts = salts;
        }
    }

    /// Appends the cache to the WAL: `walFrames`.
    fn append(&mut self, of: usize, commit: bool, can_die: bool) -> std::result::Result<(), Died> {
        let is_first =
            self.connections[of].writing.as_ref().is_some_and(|writing| writing.spilled.is_empty());
        if is_first {
            self.restart_log(of, can_die)?;
            if self.shm().header.mx_frame == FrameNo::ZERO {
                self.begin_log(of, can_die)?;
            }
        }
        let salts = self.connections[of].reading.expect("it reads").salts;
        let mut writing = self.connections[of].writing.take().expect("it writes");
        let size = writing.pages.len() as u32;
        // SQLite 3.40 forgets to seal what follows a ROLLBACK TO of spilled pages.
        let sealed = !self.is_old || writing.spilled.is_empty() || self.below(12) > 0;
        if !sealed {
            let first = self.shm().header.mx_frame.0 + 1;
            self.unsealed.get_or_insert(first);
            self.has_unfollowed.set(true);
        }
        let cache = std::mem::take(&mut writing.cache);
        let last = cache.keys().last().copied();
        let mut written = Vec::new();
        for (pgno, page) in cache {
            let size = if commit && Some(pgno) == last { size } else { 0 };
            let (bytes, chain) = frame_of(pgno, size, salts, writing.chain, &page, sealed);
            (writing.chain, writing.end) = (chain, writing.end + 1);
            writing.spilled.insert(pgno, writing.end);
            let at = frame_at(writing.end);
            self.wal.write(&self.simulation, at, &bytes);
            written.push((writing.end, pgno));
        }
        if commit && !sealed && self.below(2) == 0 {
            // SQLite continues from a frame that was rolled back.
            writing.chain = Checksum(self.simulation.random() as u32 | 1, self.simulation.random() as u32);
        }
        if commit {
            // A recovery would commit it from here on.
            let state = digest(&writing.pages);
            self.history.add(state, Some(self.now));
        }
        self.connections[of].writing = Some(writing);
        self.may_die(can_die)?;
        for (frame, pgno) in written {
            let frames = &mut self.shm_mut().frames;
            if frame == 1 {
                frames.clear();
            }
            frames.truncate(frame as usize - 1);
            frames.push(pgno);
        }
        self.may_die(can_die)
    }

    /// Writes the pages of a transaction that is not at its end into the WAL.
    fn spill(&mut self, of: usize, can_die: bool) -> std::result::Result<(), Died> {
        let has_some = self.connections[of].writing.as_ref().is_some_and(|writing| !writing.cache.is_empty());
        if has_some { self.append(of, false, can_die) } else { Ok(()) }
    }

    fn commit(&mut self, of: usize, can_die: bool) -> std::result::Result<(), Died> {
        let is_empty = self.connections[of].writing.as_ref().is_some_and(|writing| writing.cache.is_empty());
        if is_empty {
            self.change(of);
        }
        self.append(of, true, can_die)?;
        let salts = self.connections[of].reading.expect("it reads").salts;
        let writing = self.connections[of].writing.take().expect("it writes");
        let tears = can_die && self.unsealed.is_none() && self.below(60) == 0;
        let shm = self.shm_mut();
        shm.header.change += 1;
        shm.header.page_size = Some(PageSize::MIN);
        shm.header.mx_frame = FrameNo(writing.end);
        shm.header.page_count = PageCount::new(writing.pages.len() as u32);
        (shm.header.frame_checksum, shm.header.salts) = (writing.chain, salts);
        if tears {
            // Between the two copies of the header: whoever looks next recovers the index.
            shm.torn = true;
            return Err(Died);
        }
        self.now = digest(&writing.pages);
        let committed = format!("commits {:?}", writing.spilled);
        self.note(&committed, Some(self.connections[of].process));
        self.write_unlock(of);
        self.end_read(of);
        if self.below(8) == 0 { self.checkpoint_as(of, Mode::Passive, can_die) } else { Ok(()) }
    }

    fn checkpoint(&mut self, of: usize, can_die: bool) -> std::result::Result<(), Died> {
        let modes = [Mode::Passive, Mode::Full, Mode::Restart, Mode::Truncate, Mode::Truncate];
        let mode = modes[self.below(modes.len() as u64) as usize];
        if mode == Mode::Passive {
            return self.checkpoint_as(of, mode, can_die);
        }
        if self.writer.is_some() {
            return Ok(());
        }
        self.write_lock(of);
        self.checkpoint_as(of, mode, can_die)?;
        self.write_unlock(of);
        Ok(())
    }

    /// `walCheckpoint`.
    fn checkpoint_as(&mut self, of: usize, mode: Mode, can_die: bool) -> std::result::Result<(), Died> {
        let process = self.connections[of].process;
        let (header, size) = (self.shm().header, self.size(&self.shm().header));
        let last = header.mx_frame.0;
        let mut safe = self.unsealed.map_or(last, |frame| last.min(frame - 1));
        for mark in 1..READ_MARKS {
            let at = self.shm().marks[mark];
            if at < safe {
                if self.readers(mark) == 0 {
                    self.shm_mut().marks[mark] = if mark == 1 { safe } else { UNUSED };
                } else {
                    safe = at;
                }
            }
        }
        if self.shm().n_backfill < safe && self.readers(0) == 0 {
            self.wal.sync();
            self.may_die(can_die)?;
            let frames = self.shm().frames[..safe as usize].to_vec();
            let mut pages: Vec<u32> = frames.clone();
            pages.sort_unstable();
            pages.dedup();
            for pgno in pages.into_iter().filter(|pgno| *pgno <= size) {
                let frame = frames.iter().rposition(|of| *of == pgno).expect("it has one") as u32 + 1;
                let page = self.wal.read(frame_at(frame) + FrameHeader::SIZE, PAGE);
                self.db.write(&self.simulation, (pgno as usize - 1) * PAGE, &page);
            }
            self.may_die(can_die)?;
            if safe == last {
                self.db.cut(&self.simulation, size as usize * PAGE);
                self.db.sync();
            }
            self.may_die(can_die)?;
            self.shm_mut().n_backfill = safe;
            self.note("copied frames", Some(process));
        }
        let restarts = matches!(mode, Mode::Restart | Mode::Truncate);
        if !restarts || self.shm().n_backfill < last || (1..READ_MARKS).any(|mark| self.readers(mark) > 0) {
            return Ok(());
        }
        self.generation_ends(process);
        self.may_die(can_die)?;
        if mode == Mode::Truncate {
            self.restart_header(of);
            self.may_die(can_die)?;
            self.generation_closes(process);
            self.may_die(can_die)?;
            self.wal.cut(&self.simulation, 0);
            self.may_die(can_die)?;
        }
        Ok(())
    }

    /// Closes a connection that is in no transaction: the last one deletes the WAL. Returns whether it was the last one.
    pub(super) fn close(&mut self, of: usize, can_die: bool) -> std::result::Result<bool, Died> {
        let Connection { id, process, .. } = self.connections[of];
        let is_last = self.holds.len() == 1 && self.holds.contains_key(&id);
        if is_last {
            self.map();
            // Under its exclusive lock no others are taken.
            self.checkpoint_as(of, Mode::Passive, can_die)?;
            if self.shm().n_backfill == self.shm().header.mx_frame.0 {
                self.generation_closes(process);
                self.may_die(can_die)?;
                if self.wal.path.exists() {
                    self.wal.remove(&self.simulation);
                }
            }
        }
        self.connections.remove(of);
        self.holds.remove(&id);
        self.forget_index();
        self.forget_neighbour();
        Ok(is_last)
    }

    fn forget_neighbour(&mut self) {
        if !self.connections.iter().any(|connection| connection.process == Process::Neighbour) {
            self.neighbour = None;
        }
    }

    /// Ends the transactions of `process`, and closes its connections.
    pub(super) fn close_all(&mut self, process: Process) {
        while let Some(of) = self.connections.iter().position(|connection| connection.process == process) {
            self.map();
            if self.connections[of].writing.is_some() {
                self.roll_back(of);
            }
            self.end_read(of);
            self.close(of, false).expect("it does not die");
        }
    }

    /// All of a process is gone, and the locks that it held.
    pub(super) fn kill(&mut self, process: Process) {
        let gone = |connection: &Connection| connection.process == process;
        if self.connections.iter().any(|connection| gone(connection) && Some(connection.id) == self.writer) {
            self.writer = None;
        }
        self.connections.retain(|connection| !gone(connection));
        self.holds.retain(|_, hold| hold.process != process);
        match process {
            Process::Publisher => self.primary = None,
            Process::Neighbour | Process::Foreign => self.forget_neighbour(),
        }
        self.forget_index();
    }

    /// The machine goes down, and is started again.
    pub(super) fn fail_power(&mut self) {
        for process in [Process::Publisher, Process::Neighbour, Process::Foreign] {
            self.kill(process);
        }
        assert!(self.holds.is_empty(), "nobody is left: {:?}", self.holds);
        let simulation = Arc::clone(&self.simulation);
        self.wal.fail(&simulation);
        self.db.fail(&simulation);
        self.is_torn = self.db.is_lazy;
    }

    /// Another database takes the place of this one, if nobody has it open.
    pub(super) fn overwrite(&mut self, mut content: Vec<u8>) -> Result<()> {
        if !self.holds.is_empty() {
            return Err(Error::new(ErrorKind::Busy, "the database is in use"));
        }
        // The journal mode stays what it was.
        content[18..20].copy_from_slice(&[2, 2]);
        self.db.write(&self.simulation, 0, &content);
        self.db.cut(&self.simulation, content.len());
        self.db.sync();
        if self.wal.path.exists() {
            self.wal.remove(&self.simulation);
            self.wal.sync();
        }
        self.shm = None;
        let pages: Vec<Vec<u8>> = content.chunks(PAGE).map(<[u8]>::to_vec).collect();
        self.now = digest(&pages);
        assert!(self.history.has(self.now), "the database was brought forward to what it never was");
        Ok(())
    }

    /// Commits a change of page 1, whatever others do.
    pub(super) fn commit_last(&mut self) {
        for of in 0..self.connections.len() {
            if self.connections[of].writing.is_some() {
                self.roll_back(of);
            }
        }
        let of = self.connections.iter().position(|connection| connection.process == Process::Publisher);
        let of = of.expect("a connection");
        self.map();
        self.end_read(of);
        self.read(of).expect("a read mark");
        self.begin_write(of);
        let size = self.connections[of].writing.as_ref().expect("it writes").pages.len() as u32;
        let page = self.new_page(1, size);
        let writing = self.connections[of].writing.as_mut().expect("it writes");
        writing.pages[0].clone_from(&page);
        writing.cache.insert(1, page);
        self.commit(of, false).expect("it does not die");
    }

    /// The pages of the database as it is committed.
    pub(super) fn pages(&mut self) -> Vec<Vec<u8>> {
        self.map();
        let header = self.shm().header;
        let pages = self.content(&header);
        self.forget_index();
        pages
    }
}

/// How a checkpoint is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Passive,
    Full,
    Restart,
    Truncate,
}
