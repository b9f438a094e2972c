//! A local file with the pages of the latest state, as far as they were fetched.
//!
//! Page `n` is at `(n - 1) * page size`, so that the file is an ordinary database when nothing is
//! missing and nobody writes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use tokio::sync::Notify;

use super::bits::Bits;
use super::record::{Origin, Record};
use super::span::Span;
use crate::error::{Error, Result};
use crate::ltx::decode_frame;
use crate::page::{PageCount, PageSize, Pgno};
use crate::replica::keep::Keep;
use crate::replica::map::{Frame, PageMap};
use crate::replica::snapshot::Snapshot;

/// Pages that lie next to each other are written together, up to so many bytes.
const RUN: usize = 512 * 1024;

/// The pages that are in the file.
///
/// Readers see a page only while its bit is set, and hold the lock while they read it. Who writes
/// pages holds [`Local::writing`], takes the bits away under the lock, writes without it, and sets the
/// bits under it: a page is never read while it is written.
#[derive(Debug)]
struct Held {
    /// Where the replica has the versions that the file has.
    map: Arc<PageMap>,
    /// The last transaction that they are of.
    txid: u64,
    bits: Bits,
    /// The pages of `map` that the file does not have.
    missing: u64,
}

/// The file.
#[derive(Debug)]
pub(in crate::replica) struct Local {
    path: PathBuf,
    file: File,
    url: String,
    page_size: PageSize,
    held: RwLock<Held>,
    writing: Mutex<()>,
    /// Something changed since the last record.
    changed: AtomicBool,
    /// There is something to fetch, or to record.
    pub(super) woken: Notify,
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
        let mut bits = match Record::read(path).filter(|(record, _)| fits(record, &url, snapshot, &map)) {
            Some((record, bits)) => unchanged_since(&record, bits, &map),
            None => {
                Record::remove(path).and_then(|()| file.set_len(0)).map_err(failed)?;
                Bits::default()
            }
        };
        // Pages beyond the end of the file are not there, whatever the record says.
        let whole = file.metadata().map_err(failed)?.len() / u64::from(snapshot.page_size.get());
        bits.resize(PageCount::new(u32::try_from(whole).unwrap_or(u32::MAX)).min(map.commit()));
        bits.resize(map.commit());
        file.set_len(snapshot.bytes()).map_err(failed)?;
        let missing = pages(&map).filter(|&pgno| map.frame(pgno).is_some() && !bits.has(pgno)).count() as u64;
        let held = Held { map, txid: snapshot.txid.get(), bits, missing };
        Ok(Self {
            path: path.to_owned(),
            file,
            url,
            page_size: snapshot.page_size,
            held: RwLock::new(held),
            writing: Mutex::new(()),
            changed: AtomicBool::new(true),
            woken: Notify::new(),
        })
    }

    /// Reads page `pgno`, which the replica has at `frame`, if the file has just that version.
    pub(in crate::replica) fn read(&self, pgno: Pgno, frame: Frame, buf: &mut [u8]) -> bool {
        let held = self.held();
        held.bits.has(pgno)
            && held.map.frame(pgno) == Some(frame)
            && self.file.read_exact_at(buf, self.offset(pgno)).is_ok()
    }

    /// The share of the pages that the file has, of a thousand; all only if none is missing.
    pub(super) fn per_mille(&self) -> u64 {
        let held = self.held();
        let commit = u64::from(held.map.commit().get());
        commit.saturating_sub(held.missing).saturating_mul(1000).checked_div(commit).unwrap_or(1000)
    }

    /// What is missing: where the replica has the pages, and which of them are here.
    pub(super) fn wanted(&self) -> Option<(Arc<PageMap>, Bits)> {
        let held = self.held();
        (held.missing > 0).then(|| (held.map.clone(), held.bits.clone()))
    }

    /// The versions that the file has are now at other places.
    pub(in crate::replica) fn follow(&self, before: &PageMap, after: &PageMap) {
        let _writing = self.writing();
        let mut map = (*self.held().map).clone();
        map.follow(before, after);
        self.held_mut().map = Arc::new(map);
        self.changed.store(true, Ordering::Relaxed);
    }

    /// Goes on to `next`, which is the latest state. What `older` states still need is preserved in them.
    pub(in crate::replica) fn advance(&self, next: &Snapshot, older: &[Arc<Snapshot>], keep: &Keep) {
        let _writing = self.writing();
        let (before, after) = (self.held().map.clone(), next.map());
        let changed: Vec<Pgno> = before.differences(&after).collect();
        self.preserve(&before, &changed, older, keep);
        {
            let mut held = self.held_mut();
            for &pgno in &changed {
                let had = held.bits.has(pgno);
                held.missing -= u64::from(before.frame(pgno).is_some() && !had);
                held.missing += u64::from(after.frame(pgno).is_some());
                held.bits.remove(pgno);
            }
            held.bits.resize(after.commit());
            held.map = after.clone();
            held.txid = next.txid.get();
        }
        if let Err(e) = self.file.set_len(next.bytes()).and_then(|()| self.write_kept(&after, &changed)) {
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
            if readers.peek().is_none() || !self.read(pgno, frame, &mut page) {
                continue;
            }
            let Some(kept) = keep.keep(Bytes::copy_from_slice(&page)).map(Arc::new) else { continue };
            readers.for_each(|(snapshot, _)| snapshot.preserve(pgno, kept.clone()));
        }
    }

    /// Writes the pages of `changed` whose files were kept whole.
    fn write_kept(&self, map: &PageMap, changed: &[Pgno]) -> io::Result<()> {
        let mut page = vec![0; self.page_size.bytes()];
        let mut written = Vec::new();
        for &pgno in changed {
            let Some((frame, file)) = map.get(pgno) else { continue };
            let Some(kept) = file.kept.get() else { continue };
            let bytes = kept.read(frame.offset, frame.size as usize)?;
            if decode_frame(&bytes, self.page_size, &mut page).is_ok_and(|found| found == pgno) {
                self.file.write_all_at(&page, self.offset(pgno))?;
                written.push(pgno);
            }
        }
        self.add(&written);
        Ok(())
    }

    /// Takes in the pages of `span`, whose bytes are `bytes`. Pages of which a later version was taken
    /// in meanwhile are left as they are.
    ///
    /// # Errors
    /// `Corrupt`, naming the file; those of the file system.
    pub(super) fn fill(&self, span: &Span, bytes: &[u8]) -> Result<()> {
        let size = self.page_size.bytes();
        let mut run: Vec<u8> = Vec::with_capacity(RUN);
        let mut members: Vec<(Pgno, Frame)> = Vec::new();
        for &(pgno, frame) in &span.frames {
            let follows = members.last().is_none_or(|(last, _)| last.index() + 1 == pgno.index());
            if !follows || run.len() + size > RUN {
                self.write_run(&members, &run)?;
                run.clear();
                members.clear();
            }
            let start = (frame.offset - span.start) as usize;
            let at = run.len();
            run.resize(at + size, 0);
            decode_frame(&bytes[start..start + frame.size as usize], self.page_size, &mut run[at..])
                .and_then(|found| if found == pgno { Ok(()) } else { Err(misplaced(found)) })
                .map_err(|e| {
                    e.context(format!("page {pgno} in {} of replica {}", span.file.info.id, self.url))
                })?;
            members.push((pgno, frame));
        }
        self.write_run(&members, &run)
    }

    /// Writes pages that lie next to each other.
    fn write_run(&self, members: &[(Pgno, Frame)], run: &[u8]) -> Result<()> {
        let _writing = self.writing();
        let wanted = {
            let held = self.held();
            let wanted =
                |&(pgno, frame): &(Pgno, Frame)| held.map.frame(pgno) == Some(frame) && !held.bits.has(pgno);
            members.iter().map(wanted).collect::<Vec<bool>>()
        };
        let size = self.page_size.bytes();
        let mut at = 0;
        for same in wanted.chunk_by(|a, b| a == b) {
            if same[0] {
                let bytes = &run[at * size..(at + same.len()) * size];
                self.file
                    .write_all_at(bytes, self.offset(members[at].0))
                    .map_err(|e| Error::io(format!("cannot write {}", self.path.display()), e))?;
            }
            at += same.len();
        }
        let written: Vec<Pgno> =
            members.iter().zip(wanted).filter(|(_, wanted)| *wanted).map(|((pgno, _), _)| *pgno).collect();
        self.add(&written);
        Ok(())
    }

    /// Shows pages that were missing.
    fn add(&self, pages: &[Pgno]) {
        if pages.is_empty() {
            return;
        }
        let mut held = self.held_mut();
        pages.iter().for_each(|&pgno| held.bits.add(pgno));
        held.missing -= pages.len() as u64;
        drop(held);
        self.changed.store(true, Ordering::Relaxed);
    }

    /// Writes down what the file has, so that it can be believed after a restart.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn record(&self) -> Result<()> {
        if !self.changed.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        let (record, bits) = {
            let held = self.held();
            let record = Record {
                url: self.url.clone(),
                page_size: self.page_size.get(),
                commit: held.map.commit().get(),
                txid: held.txid,
                files: origins(&held.map),
            };
            (record, held.bits.clone())
        };
        let written = self.file.sync_data().and_then(|()| record.write(&bits, &self.path));
        written.map_err(|e| {
            self.changed.store(true, Ordering::Relaxed);
            Error::io(format!("cannot write {}", self.path.display()), e)
        })
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

fn misplaced(found: Pgno) -> Error {
    Error::corrupt(format!("page {found} is there instead"))
}

fn pages(map: &PageMap) -> impl Iterator<Item = Pgno> + use<> {
    (1..=map.commit().get()).filter_map(Pgno::new)
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

/// The pages of `bits` that did not change since `record`: their files in `map` end no later.
fn unchanged_since(record: &Record, mut bits: Bits, map: &PageMap) -> Bits {
    for pgno in pages(map) {
        if map.get(pgno).is_none_or(|(_, file)| file.info.id.name.max().get() > record.txid) {
            bits.remove(pgno);
        }
    }
    bits
}
