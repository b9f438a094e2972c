//! A local file with the pages of the latest state, as far as they were fetched.
//!
//! Page `n` is at `(n - 1) * page size`, so that the file is an ordinary database when nothing is
//! missing and nobody writes. Each page is compared with its checksum when it is read: what the disk damaged or
//! another program wrote is not served.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use tokio::sync::Notify;

use super::chunk::Chunk;
use super::held::{Held, Work, is_kept_whole};
use super::parts::{Part, Parts};
use super::record::{Origin, Record};
use super::span::Span;
use super::sums::Sums;
use crate::clock::{Clock as _, SystemClock, Timestamp};
use crate::error::{Error, Result};
use crate::ltx::{PartHasher, decode_frame};
use crate::page::{PageSize, Pgno};
use crate::replica::keep::Keep;
use crate::replica::map::{Frame, PageMap, ReplicaFile};
use crate::replica::snapshot::Snapshot;

/// Pages that lie next to each other are written together, up to so many bytes.
const RUN: usize = 512 * 1024;

/// The file.
#[derive(Debug)]
pub(in crate::replica) struct Local {
    path: PathBuf,
    file: File,
    sums: Sums,
    url: String,
    page_size: PageSize,
    held: RwLock<Held>,
    writing: Mutex<()>,
    recording: Mutex<()>,
    /// Something changed since the last record.
    changed: AtomicBool,
    /// How many pages were not as they had been written, and when the last one was found.
    lost: Mutex<Option<(u64, Timestamp)>>,
    /// There is something to fetch, or to record.
    pub(in crate::replica) woken: Notify,
}

impl Local {
    /// Begins with `file` at `path`, locked by us, and what its record says of it, for the latest state
    /// `snapshot` of the replica at `url`.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn begin(path: &Path, file: File, url: String, snapshot: &Snapshot) -> Result<Self> {
        let failed = |e| Error::io(format!("cannot write {}", path.display()), e);
        let map = snapshot.map();
        let sums = Sums::open(path).map_err(failed)?;
        let record = Record::read(path).filter(|(record, _)| fits(record, &url, snapshot, &map));
        if record.is_none() {
            Record::remove(path).and_then(|()| file.set_len(0)).map_err(failed)?;
        }
        // Pages beyond the end of the file are not there, whatever the record says.
        let whole = file.metadata().map_err(failed)?.len() / u64::from(snapshot.page_size.get());
        file.set_len(snapshot.bytes()).and_then(|()| sums.resize(map.commit())).map_err(failed)?;
        Ok(Self {
            path: path.to_owned(),
            file,
            sums,
            url,
            page_size: snapshot.page_size,
            held: RwLock::new(Held::begin(record, whole, snapshot, map)),
            writing: Mutex::new(()),
            recording: Mutex::new(()),
            changed: AtomicBool::new(true),
            lost: Mutex::default(),
            woken: Notify::new(),
        })
    }

    /// Reads page `pgno`, which the replica has at `frame`, if the file has just that version.
    pub(in crate::replica) fn read(&self, pgno: Pgno, frame: Frame, buf: &mut [u8]) -> bool {
        let found = {
            let held = self.held();
            held.has(pgno, frame).then(|| self.read_right(pgno, buf))
        };
        if found == Some(false) {
            self.lose(pgno, frame);
        }
        found == Some(true)
    }

    /// Reads page `pgno`, and whether it is what was written.
    fn read_right(&self, pgno: Pgno, buf: &mut [u8]) -> bool {
        self.file.read_exact_at(buf, self.offset(pgno)).is_ok() && self.sums.is_right(pgno, buf)
    }

    /// Has a page fetched again that is not what was written.
    #[cold]
    fn lose(&self, pgno: Pgno, frame: Frame) {
        let _writing = self.writing();
        // Not if it was written meanwhile.
        if !self.held().has(pgno, frame) || self.read_right(pgno, &mut vec![0; self.page_size.bytes()]) {
            return;
        }
        self.held_mut().lose(pgno);
        tracing::error!(path = %self.path.display(), %pgno, "a page is not what was written; fetching it again");
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        *lost = Some((lost.map_or(1, |(count, _)| count + 1), SystemClock.now()));
        drop(lost);
        self.changed.store(true, Ordering::Relaxed);
        self.woken.notify_one();
    }

    /// What was found wrong with the file, if anything was.
    pub(super) fn notice(&self) -> Option<String> {
        let (count, last) = (*self.lost.lock().unwrap_or_else(PoisonError::into_inner))?;
        let path = self.path.display();
        Some(format!(
            "{count} pages read from {path} were not what had been written to it, the last one at {last}: another \
             program wrote to the file, or the disk damaged it; they come from the replica again"
        ))
    }

    /// The share of the pages that the file has, of a thousand; all only if all were checked.
    pub(super) fn per_mille(&self) -> u64 {
        self.held().per_mille()
    }

    /// What is to be done, but for the files that `waits` says are not to be read now.
    pub(super) fn work(&self, waits: impl Fn(u32) -> bool) -> Work {
        self.held().work(waits)
    }

    /// Whether the file `number` has pages of the latest state.
    pub(super) fn needs(&self, number: u32) -> bool {
        self.held().map().files().any(|file| file.number == number)
    }

    /// The parts that were read of `file`.
    pub(super) fn parts_of(&self, file: &ReplicaFile) -> Parts {
        self.held().parts_of(file)
    }

    /// The versions that the file has are now at other places.
    pub(in crate::replica) fn follow(&self, before: &PageMap, after: &PageMap) {
        let _writing = self.writing();
        let mut map = (**self.held().map()).clone();
        map.follow(before, after);
        self.held_mut().moved(map);
        self.changed.store(true, Ordering::Relaxed);
        self.woken.notify_one();
    }

    /// Goes on to `next`, which is the latest state. What `older` states still need is preserved in them.
    pub(in crate::replica) fn advance(&self, next: &Snapshot, older: &[Arc<Snapshot>], keep: &Keep) {
        let _writing = self.writing();
        let (before, after) = (self.held().map().clone(), next.map());
        let changed: Vec<Pgno> = before.differences(&after).collect();
        self.preserve(&before, &changed, older, keep);
        self.held_mut().advance(next, after.clone(), &changed);
        let resized = self.file.set_len(next.bytes()).and_then(|()| self.sums.resize(after.commit()));
        if let Err(e) = resized.and_then(|()| self.write_kept(&after, &changed)) {
            // The pages stay missing; fetching them meets the same error and tells of it.
            tracing::warn!(path = %self.path.display(), error = %e, "cannot write to the hydration file");
        }
        self.changed.store(true, Ordering::Relaxed);
        self.woken.notify_one();
    }

    /// Gives `older` states the pages that are about to be replaced.
    fn preserve(&self, map: &PageMap, changed: &[Pgno], older: &[Arc<Snapshot>], keep: &Keep) {
        let older: Vec<_> = older.iter().map(|snapshot| (snapshot, snapshot.map())).collect();
        let mut page = vec![0; self.page_size.bytes()];
        for &pgno in changed {
            let Some(frame) = map.frame(pgno) else { continue };
            let mut readers = older.iter().filter(|(_, map)| map.frame(pgno) == Some(frame)).peekable();
            let is_read = readers.peek().is_some() && self.held().has(pgno, frame);
            if !is_read || !self.read_right(pgno, &mut page) {
                continue;
            }
            let Some(kept) = keep.keep(Bytes::copy_from_slice(&page)).map(Arc::new) else { continue };
            readers.for_each(|(snapshot, _)| snapshot.preserve(pgno, kept.clone()));
        }
    }

    /// Writes the pages of `changed` whose files were kept and passed their checksums.
    fn write_kept(&self, map: &PageMap, changed: &[Pgno]) -> io::Result<()> {
        let mut page = vec![0; self.page_size.bytes()];
        let mut written = Vec::new();
        for &pgno in changed {
            let Some((frame, file)) = map.get(pgno).filter(|(_, file)| is_kept_whole(file)) else { continue };
            let Some(kept) = file.kept.get() else { continue };
            let bytes = kept.read(frame.offset, frame.size as usize)?;
            if decode_frame(&bytes, self.page_size, &mut page).is_ok_and(|found| found == pgno) {
                self.write_pages(pgno, &page)?;
                written.push(pgno);
            }
        }
        self.add(&written);
        Ok(())
    }

    /// Takes in the pages of `span`, whose bytes are `bytes`: those of a file that passed its checksum, and those
    /// whose own checksum is there. Pages of which a later version was taken in meanwhile are left as they are.
    ///
    /// # Errors
    /// `Corrupt`, naming the file; those of the file system.
    pub(super) fn fill(&self, span: &Span, bytes: &[u8]) -> Result<()> {
        let mut run = Run::new(self.page_size);
        let proven = is_kept_whole(&span.file);
        for &(pgno, frame) in &span.frames {
            if !run.takes(pgno) {
                self.show_run(&mut run)?;
            }
            let start = (frame.offset - span.start) as usize;
            let frame_bytes = &bytes[start..start + frame.size as usize];
            let page = run.next();
            let found = decode_frame(frame_bytes, self.page_size, page);
            found.and_then(|found| expect(pgno, found)).map_err(|e| self.of_page(e, pgno, &span.file))?;
            if proven || self.is_as_before(pgno, page) {
                run.keep(pgno, frame);
            } else {
                run.drop_last();
            }
        }
        self.show_run(&mut run)
    }

    /// Whether `page` is what the file had as page `pgno`. If not, its file is to be checked.
    fn is_as_before(&self, pgno: Pgno, page: &[u8]) -> bool {
        let same = self.held().is_lost(pgno) && self.sums.is_right(pgno, page);
        if !same {
            self.held_mut().forget_sum(pgno);
        }
        same
    }

    /// Writes a run and shows its pages.
    fn show_run(&self, run: &mut Run) -> Result<()> {
        let _writing = self.writing();
        let written = self.write_run(run)?;
        self.add(&written);
        run.clear();
        Ok(())
    }

    /// Takes in `chunk`, whose bytes are `bytes`. Its pages are shown, and are unproven.
    ///
    /// # Errors
    /// As [`Local::fill`].
    pub(super) fn take_in(&self, chunk: &Chunk, bytes: &[u8]) -> Result<()> {
        let mut hasher = PartHasher::default();
        let mut run = Run::new(self.page_size);
        let mut pages = Vec::with_capacity(chunk.frames.len());
        let (before, frames, after) = chunk.split(bytes);
        hasher.update(before);
        for (&(pgno, frame), frame_bytes) in chunk.frames.iter().zip(frames) {
            if !run.takes(pgno) {
                self.write_unproven(&mut run)?;
            }
            let found = hasher.frame(frame_bytes, self.page_size, run.next());
            found.and_then(|found| expect(pgno, found)).map_err(|e| self.of_page(e, pgno, &chunk.file))?;
            run.keep(pgno, frame);
            pages.push((pgno, frame));
        }
        self.write_unproven(&mut run)?;
        hasher.update(after);
        let part = Part { start: chunk.start, end: chunk.end, sum: hasher.finish() };
        self.held_mut().add_part(&chunk.file, &pages, part);
        self.changed.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn write_unproven(&self, run: &mut Run) -> Result<()> {
        let _writing = self.writing();
        {
            let mut held = self.held_mut();
            run.members.iter().for_each(|&(pgno, _)| held.forget_sum(pgno));
        }
        self.write_run(run)?;
        run.clear();
        Ok(())
    }

    /// Writes those pages of a run that are missing, and returns which they are. Who calls it is [`Local::writing`].
    fn write_run(&self, run: &Run) -> Result<Vec<Pgno>> {
        let wanted: Vec<bool> = {
            let held = self.held();
            run.members.iter().map(|&(pgno, frame)| held.wants(pgno, frame)).collect()
        };
        let size = self.page_size.bytes();
        let mut at = 0;
        for same in wanted.chunk_by(|a, b| a == b) {
            if same[0] {
                let bytes = &run.bytes[at * size..(at + same.len()) * size];
                self.write_pages(run.members[at].0, bytes)
                    .map_err(|e| Error::io(format!("cannot write {}", self.path.display()), e))?;
            }
            at += same.len();
        }
        Ok(run.members.iter().zip(wanted).filter(|(_, wanted)| *wanted).map(|((pgno, _), _)| *pgno).collect())
    }

    /// Writes pages that begin with page `first`, and their checksums.
    fn write_pages(&self, first: Pgno, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, self.offset(first))?;
        self.sums.write(first, bytes.chunks(self.page_size.bytes()))
    }

    /// Shows pages that were missing.
    fn add(&self, pages: &[Pgno]) {
        if pages.is_empty() {
            return;
        }
        let mut held = self.held_mut();
        pages.iter().for_each(|&pgno| held.add(pgno));
        drop(held);
        self.changed.store(true, Ordering::Relaxed);
    }

    /// Compares the checksum of `file`, all parts of which were taken in, with `checksum`, which its trailer has.
    /// Its pages are proven if they are equal, and taken away if not.
    ///
    /// # Errors
    /// `Corrupt`, naming the file.
    pub(super) fn judge(&self, file: &ReplicaFile, checksum: u64) -> Result<()> {
        let _writing = self.writing();
        let found = self.held_mut().judge(file, checksum);
        self.changed.store(true, Ordering::Relaxed);
        // Without all parts the file has no pages here any more.
        if found.is_none_or(|found| found == checksum) {
            return Ok(());
        }
        let message = format!("{} of replica {} fails its checksum", file.info.id, self.url);
        Err(Error::corrupt(message))
    }

    /// Takes away what was read of `file`, which is to be read again from its beginning.
    pub(super) fn forget_check(&self, file: &ReplicaFile) {
        let _writing = self.writing();
        self.held_mut().judge(file, 0);
        self.changed.store(true, Ordering::Relaxed);
    }

    /// Writes down what the file has, so that it can be believed after a restart.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn record(&self) -> Result<()> {
        let _recording = self.recording.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.changed.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        let (record, pages) = {
            let held = self.held();
            let record = Record {
                url: self.url.clone(),
                page_size: self.page_size.get(),
                commit: held.map().commit().get(),
                txid: held.txid(),
                files: origins(held.map()),
                parts: held.parts(),
            };
            (record, held.pages())
        };
        let synced = self.file.sync_data().and_then(|()| self.sums.sync());
        synced.and_then(|()| record.write(&pages, &self.path)).map_err(|e| {
            self.changed.store(true, Ordering::Relaxed);
            Error::io(format!("cannot write {}", self.path.display()), e)
        })
    }

    fn of_page(&self, error: Error, pgno: Pgno, file: &ReplicaFile) -> Error {
        error.context(format!("page {pgno} in {} of replica {}", file.info.id, self.url))
    }

    fn offset(&self, pgno: Pgno) -> u64 {
        pgno.index() as u64 * u64::from(self.page_size.get())
    }

    fn held(&self) -> RwLockReadGuard<'_, Held> {
        self.held.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn held_mut(&self) -> RwLockWriteGuard<'_, Held> {
        self.held.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn writing(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Pages that lie next to each other, to be written together.
struct Run {
    page: usize,
    bytes: Vec<u8>,
    members: Vec<(Pgno, Frame)>,
}

impl Run {
    fn new(page_size: PageSize) -> Self {
        Self { page: page_size.bytes(), bytes: Vec::with_capacity(RUN), members: Vec::new() }
    }

    /// Whether page `pgno` can be the next one.
    fn takes(&self, pgno: Pgno) -> bool {
        let Some((last, _)) = self.members.last() else { return true };
        last.index() + 1 == pgno.index() && self.bytes.len() + self.page <= RUN
    }

    /// Room for the next page.
    fn next(&mut self) -> &mut [u8] {
        let at = self.bytes.len();
        self.bytes.resize(at + self.page, 0);
        &mut self.bytes[at..]
    }

    /// What was put there is page `pgno`.
    fn keep(&mut self, pgno: Pgno, frame: Frame) {
        self.members.push((pgno, frame));
    }

    /// What was put there is of no use.
    fn drop_last(&mut self) {
        self.bytes.truncate(self.bytes.len() - self.page);
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.members.clear();
    }
}

fn expect(pgno: Pgno, found: Pgno) -> Result<()> {
    if found == pgno { Ok(()) } else { Err(Error::corrupt(format!("page {found} is there instead"))) }
}

fn origins(map: &PageMap) -> Vec<Origin> {
    map.files().map(|file| Origin::from(&file.info)).collect()
}

/// Whether the file of `record` has an earlier state, or the same, of the database of `snapshot`.
fn fits(record: &Record, url: &str, snapshot: &Snapshot, map: &PageMap) -> bool {
    record.url == url
        && record.page_size == snapshot.page_size.get()
        && record.txid <= snapshot.txid.get()
        && record.is_of(&origins(map))
}
