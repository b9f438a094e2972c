//! The files that hold records, in `.<file name>-litestream/generations/`: each process that writes the database has
//! one of its own, and begins another when that is long.
//!
//! Nothing is synced: after a failure of the machine no cursor is believed (`state`), and so no record leads to one.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

use crate::error::{Error, Result};
use crate::fork;
use crate::page::{PageCount, PageSize};
use crate::primary::dirty::record::{Begin, End, Record};
use crate::primary::dirty::{Cursor, Position};
use crate::primary::file_fingerprint::{self, Stamp};
use crate::primary::hooks::Measures;
use crate::primary::page_set::PageSet;
use crate::primary::random_u64;
use crate::wal::{FrameNo, IndexHeader, Salts};

/// What a file begins with: its kind, and the version of its form. Records follow.
const MAGIC: [u8; 8] = *b"LSVGEN\0\x01";
/// Size in bytes from which a file gets no further records.
const FULL: u64 = 64 * 1024;
/// How the names of the files end; they are `{process id}-{random}.pages`.
const SUFFIX: &str = ".pages";

/// The folder of records below that of local state.
pub(super) fn folder(state_folder: &Path) -> PathBuf {
    state_folder.join("generations")
}

/// The records of one database, by all its processes. A process has one journal per database; a forked child that
/// uses its parent's begins a file of its own.
#[derive(Debug)]
pub(in crate::primary) struct Journal {
    folder: PathBuf,
    writer: Mutex<Option<Writer>>,
    /// Held while the database file is sealed.
    sealing: Mutex<()>,
}

/// The file that this process appends to. It is opened for each record: as long as nothing restarts the WAL it costs no
/// descriptor.
#[derive(Debug)]
struct Writer {
    path: PathBuf,
    /// The process that made the file.
    pid: u32,
}

/// What the journal held at one moment: its files, and their sizes in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::primary) struct Mark(BTreeMap<PathBuf, u64>);

impl Mark {
    /// What the journal held at both moments.
    pub(super) fn and(mut self, other: &Self) -> Self {
        self.0.retain(|path, size| other.0.get(path) == Some(size));
        self
    }
}

impl Journal {
    /// The journal of the database whose local state is in `state_folder`. Nothing is made before the first record.
    pub(in crate::primary) fn new(state_folder: &Path) -> Self {
        Self { folder: folder(state_folder), writer: Mutex::new(None), sealing: Mutex::new(()) }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Writer>> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file that this process appends to.
    pub(super) fn own_file(&self) -> Option<PathBuf> {
        let _section = fork::section();
        self.lock().as_ref().map(|writer| writer.path.clone())
    }

    /// Adds a record, in one write.
    ///
    /// # Errors
    /// `Io`, `NoSpace`, `Denied`, naming the file. The record is lost then: the cursors before it are followed by a
    /// comparison of all pages.
    pub(in crate::primary) fn append(&self, record: &Record) -> Result<()> {
        let _section = fork::section();
        let mut slot = self.lock();
        // After a failure the file may end in half a record: it gets no further one.
        let open = slot.take().and_then(|writer| writer.open().map(|file| (writer, file)));
        let mut bytes = Vec::with_capacity(256);
        let (writer, file) = match open {
            Some(open) => open,
            None => {
                bytes.extend(MAGIC);
                self.new_writer()?
            }
        };
        record.encode(&mut bytes);
        write(&file, &writer.path, &bytes)?;
        *slot = Some(writer);
        Ok(())
    }

    /// As in a forked child, whose parent wrote.
    #[cfg(test)]
    pub(super) fn pretend_forked(&self) {
        if let Some(writer) = self.lock().as_mut() {
            writer.pid += 1;
        }
    }

    fn new_writer(&self) -> Result<(Writer, File)> {
        let pid = std::process::id();
        let path = self.folder.join(format!("{pid}-{:016x}{SUFFIX}", random_u64()));
        let open = || crate::files::open(&path, OpenOptions::new().append(true));
        let file = match open() {
            Err(e) if e.kind() == ErrorKind::NotFound => {
                crate::files::create_folders(&self.folder).and_then(|()| open())
            }
            other => other,
        };
        let file = file.map_err(|e| Error::io(cannot_write(&path), e))?;
        Ok((Writer { path, pid }, file))
    }

    /// Every whole record of every file, those of one process in the order in which it wrote them. What is no record
    /// ends its file.
    ///
    /// # Errors
    /// `Io`, `Denied`: the folder cannot be read.
    pub(in crate::primary) fn records(&self) -> Result<Vec<Record>> {
        let mut records = Vec::new();
        for path in self.files()? {
            match fs::read(&path) {
                Ok(bytes) => read(&bytes, &mut records),
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(e) => tracing::debug!("cannot read {}: {e}", path.display()),
            }
        }
        Ok(records)
    }

    /// A stamp of the database file that no later write keeps, while its WAL, with the index header `view`, has no commit.
    /// Nobody may write the file meanwhile. The stamp is recorded, so that a view and the first generation that begins
    /// upon it have the same one; one that a record names stays as it is.
    pub(in crate::primary) fn seal(&self, view: &IndexHeader, database: &Path) -> Option<Stamp> {
        let _section = fork::section();
        let _one_at_a_time = self.sealing.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Stamp::of(database)?;
        if self.names(&now) {
            return Some(now);
        }
        let sealed = file_fingerprint::seal(database)?;
        self.name(view, sealed);
        Some(sealed)
    }

    /// The same, for whoever records the stamp himself. Nothing was committed since the last record.
    pub(super) fn sealed(&self, database: &Path) -> Option<Stamp> {
        let _section = fork::section();
        let _one_at_a_time = self.sealing.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Stamp::of(database)?;
        if self.names(&now) { Some(now) } else { file_fingerprint::seal(database) }
    }

    /// Records the stamp of the database file that a cursor has, while the WAL has no commit: the first generation begins
    /// upon the same one.
    pub(in crate::primary) fn keep(&self, view: &IndexHeader, file: Stamp) {
        let _section = fork::section();
        let _one_at_a_time = self.sealing.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.names(&file) {
            self.name(view, file);
        }
    }

    /// The measures of the database file while it has the stamp `file`: those that the index had when a close, or whoever cut
    /// the WAL to nothing, left it with this stamp. `None` if no record says it, or if records do not agree with each other
    /// or with the size of the file.
    pub(in crate::primary) fn measures(&self, file: &Stamp) -> Option<Measures> {
        let records = self.records().ok()?;
        let ends = records.iter().filter_map(end_of).filter(|end| end.closed.as_ref() == Some(file));
        let mut all = ends.filter_map(|end| {
            let pages = Some(end.index.page_count).filter(|pages| *pages > PageCount::ZERO)?;
            Some(Measures { page_size: end.index.page_size?, pages })
        });
        let Measures { page_size, pages } = all.next()?;
        let is_sure =
            file.size() == pages.bytes(page_size) && all.all(|other| other == Measures { page_size, pages });
        is_sure.then_some(Measures { page_size, pages })
    }

    /// As [`Journal::seal`], for a database that was just restored and has `pages`: it has no index yet.
    pub(in crate::primary) fn seal_restored(&self, database: &Path, pages: PageCount) -> Option<Stamp> {
        let _section = fork::section();
        let file = file_fingerprint::seal(database)?;
        let page_size = file.size().checked_div(u64::from(pages.get()));
        let page_size = page_size.and_then(|bytes| PageSize::new(u32::try_from(bytes).ok()?).ok());
        self.name(&IndexHeader { page_size, page_count: pages, ..IndexHeader::EMPTY }, file);
        Some(file)
    }

    fn name(&self, view: &IndexHeader, file: Stamp) {
        let (pages, recent) = (PageSet::default(), PageSet::default());
        let end = End { index: *view, pages, seen: Vec::new(), recent, closed: Some(file) };
        if let Err(e) = self.append(&Record::End(end)) {
            tracing::debug!("{e}");
        }
    }

    /// Whether a record says that a generation with these salts began.
    pub(super) fn has_begun(&self, salts: Salts) -> bool {
        self.records().unwrap_or_default().iter().filter_map(begin_of).any(|begin| begin.salts == salts)
    }

    /// Whether a record names this stamp.
    fn names(&self, file: &Stamp) -> bool {
        self.records().unwrap_or_default().iter().any(|record| match record {
            Record::End(end) => end.closed.as_ref() == Some(file),
            Record::Begin(begin) => begin.file.as_ref() == Some(file),
        })
    }

    fn files(&self) -> Result<Vec<PathBuf>> {
        let cannot_read = |e| Error::io(format_args!("cannot read the folder {}", self.folder.display()), e);
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(cannot_read(e)),
        };
        let mut files = Vec::new();
        for entry in entries {
            let path = entry.map_err(cannot_read)?.path();
            if path.file_name().is_some_and(|name| name.as_encoded_bytes().ends_with(SUFFIX.as_bytes())) {
                files.push(path);
            }
        }
        Ok(files)
    }

    /// What the journal holds now. To be taken *before* a view is pinned: then its records are no later than the view.
    pub(in crate::primary) fn mark(&self) -> Mark {
        let files = self.files().unwrap_or_default().into_iter();
        Mark(files.filter_map(|path| Some((path.clone(), fs::metadata(&path).ok()?.len()))).collect())
    }

    /// Deletes files of which nothing is needed any longer. `cursors` are all positions from which a shipper may still
    /// look for what follows, at least one; `mark` was taken before the view was pinned that became the earliest of
    /// them.
    ///
    /// A file goes if all its records are in the mark, and none is of the generation of a cursor or of the one before,
    /// which the next process may find in the WAL again; and if its process is gone or writes another file. Nothing
    /// goes while a cursor is in no generation with a commit: what follows it may be in the mark.
    pub(in crate::primary) fn delete_behind(&self, mark: &Mark, cursors: &[Cursor]) {
        let mut positions = Vec::new();
        for cursor in cursors {
            match cursor {
                Cursor::At(position) if position.frame > FrameNo::ZERO => positions.push(*position),
                Cursor::At(_) | Cursor::File(_) => return,
            }
        }
        let Ok(records) = self.records() else { return };
        if positions.is_empty() {
            return;
        }
        let needed = generations(&positions, &records);
        let files: Vec<_> = mark.0.keys().filter_map(|path| Owned::look(path)).collect();
        let ours = self.own_file();
        for file in files.iter().filter(|file| mark.0.get(&file.path) == Some(&file.size)) {
            if !file.is_written(ours.as_deref(), &files) && !file.has_any_of(&needed) {
                let _ = fs::remove_file(&file.path);
            }
        }
    }
}

fn cannot_write(path: &Path) -> String {
    format!("cannot write {}: check the folder and its disk", path.display())
}

impl Writer {
    /// The file, if it is this process's own, still has its name, and is not full.
    fn open(&self) -> Option<File> {
        let is_ours = self.pid == std::process::id();
        let file = is_ours.then(|| OpenOptions::new().append(true).open(&self.path))?.ok()?;
        file.metadata().is_ok_and(|meta| meta.len() < FULL).then_some(file)
    }
}

fn write(mut file: &File, path: &Path, bytes: &[u8]) -> Result<()> {
    loop {
        return match file.write(bytes) {
            Ok(written) if written == bytes.len() => Ok(()),
            // A disk that takes a part is full; only the next write would say so.
            Ok(_) => Err(Error::new(
                crate::error::ErrorKind::NoSpace,
                format!("{}: No space left on device", cannot_write(path)),
            )),
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(e) => Err(Error::io(cannot_write(path), e)),
        };
    }
}

/// The records of a file.
fn read(bytes: &[u8], records: &mut Vec<Record>) {
    let Some(mut rest) = bytes.strip_prefix(&MAGIC) else { return };
    records.extend(std::iter::from_fn(|| Record::decode(&mut rest)));
}

/// The generations of `positions`, and those right before.
fn generations(positions: &[Position], records: &[Record]) -> Vec<Salts> {
    let mut needed: Vec<Salts> = positions.iter().map(|position| position.salts).collect();
    let begins = |record: &&Begin| positions.iter().any(|position| position.salts == record.salts);
    for begin in records.iter().filter_map(begin_of).filter(begins) {
        let before = Position::end_of(&begin.before);
        let is_before = |end: &&End| {
            before.is_same_commit(&end.position()) || (end.closed.is_some() && end.closed == begin.file)
        };
        needed.extend(records.iter().filter_map(end_of).filter(is_before).map(|end| end.index.salts));
        needed.push(before.salts);
    }
    needed
}

pub(super) const fn begin_of(record: &Record) -> Option<&Begin> {
    match record {
        Record::Begin(begin) => Some(begin),
        Record::End(_) => None,
    }
}

pub(super) const fn end_of(record: &Record) -> Option<&End> {
    match record {
        Record::End(end) => Some(end),
        Record::Begin(_) => None,
    }
}

/// A file of the journal as it is now.
struct Owned {
    path: PathBuf,
    size: u64,
    modified: SystemTime,
    /// The process that made it, if its name says so.
    pid: Option<u32>,
}

impl Owned {
    fn look(path: &Path) -> Option<Self> {
        let meta = fs::metadata(path).ok()?;
        let name = path.file_name()?.to_str();
        let pid = name.and_then(|name| name.split_once('-')?.0.parse().ok());
        Some(Self { path: path.to_owned(), size: meta.len(), modified: meta.modified().ok()?, pid })
    }

    /// Whether its process may append to it. If it does although this says no, as one of another container may, it
    /// notices that the file is gone.
    fn is_written(&self, ours: Option<&Path>, all: &[Self]) -> bool {
        let Some(pid) = self.pid else { return false };
        if pid == std::process::id() {
            return ours == Some(self.path.as_path());
        }
        let writes_another = all.iter().any(|other| other.pid == self.pid && other.modified > self.modified);
        !writes_another && !is_gone(pid)
    }

    fn has_any_of(&self, generations: &[Salts]) -> bool {
        let mut records = Vec::new();
        let Ok(bytes) = fs::read(&self.path) else { return true };
        read(&bytes, &mut records);
        records.iter().any(|record| {
            let salts = match record {
                Record::End(end) => end.index.salts,
                Record::Begin(begin) => begin.salts,
            };
            generations.contains(&salts)
        })
    }
}

fn is_gone(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_none_or(|pid| test_kill_process(pid) == Err(Errno::SRCH))
}
