//! How the WAL passes from one generation to the next: what a committing thread does when it restarts
//! the WAL, and what capture learns of it.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::Result;
use crate::primary::commits::{Commits, Noted};
use crate::primary::kept::{self, Kept};
use crate::primary::state::Captured;
use crate::wal::{End, FrameNo, Position, Salts, WalHeader, read_header};

/// Beyond this, committing threads help to capture what was kept before they keep more.
const KEPT_LIMIT: u64 = 256 * 1024 * 1024;

/// So many frames are worth a copy in the background before the WAL is restarted.
const COPY_AHEAD: u32 = 64;

/// So many files are kept to be used again: a new one costs the committing thread more.
const SPARES: usize = 8;

/// The generations of one WAL.
///
/// A committing thread takes the lock when it restarts the WAL, so it is never held while anything is
/// captured. Whoever has the publisher's role locked may take it; not the other way round.
pub(super) struct Generations {
    wal_path: PathBuf,
    /// The folder of kept files.
    folder: PathBuf,
    passage: Mutex<Passage>,
}

/// What is known of the passage from one generation to the next.
#[derive(Debug, Default)]
pub(super) struct Passage {
    /// Up to here nobody needs the WAL any more. `None`: nothing is captured, or the WAL is empty.
    safe: Option<Position>,
    /// What was kept and is not captured yet, oldest first.
    waiting: VecDeque<Waiting>,
    /// The generation that a writer of this process began last, if the WAL was not emptied since.
    begun: Option<Captured>,
    /// What is copied already of the generation that is in the WAL.
    ahead: Option<Ahead>,
    /// Files that were kept and may be used again.
    spares: Vec<PathBuf>,
    /// Counts the files for the names of new ones.
    files: u64,
}

/// A generation that was kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    pub(super) kept: Kept,
    pub(super) end: End,
    /// The last commit in it.
    pub(super) noted: Noted,
    bytes: u64,
}

/// A copy of the generation that is in the WAL, as far as it goes.
#[derive(Debug)]
struct Ahead {
    file: PathBuf,
    salts: Salts,
    first: FrameNo,
    last: FrameNo,
}

impl Passage {
    fn set_safe(&mut self, safe: Option<Captured>) {
        self.safe = match safe {
            Some(Captured::At(position)) => Some(position),
            Some(Captured::NextGeneration) | None => None,
        };
    }

    /// The generation that a writer of this process began last, if the WAL was not emptied since.
    pub(super) fn begun(&self) -> Option<Captured> {
        self.begun
    }

    fn bytes(&self) -> u64 {
        self.waiting.iter().map(|w| w.bytes).sum()
    }

    /// The frames of the generation with `salts`, which ends at `last`, that must be copied still.
    fn missing(&self, salts: Salts, last: FrameNo) -> Option<RangeInclusive<FrameNo>> {
        let safe = self.safe?;
        // The last frame that is safe goes along: it bears out a position that was remembered.
        let first = if safe.salts == salts { safe.frame } else { FrameNo::ZERO };
        match &self.ahead {
            Some(ahead) if ahead.salts == salts && ahead.first <= first => Some(ahead.last.next()..=last),
            _ => Some(first..=last),
        }
    }

    /// Whether there is much to copy of the generation that `noted` tells of.
    fn is_behind(&self, noted: &Noted) -> bool {
        let Some(End::Index(index)) = noted.end else { return false };
        let missing = self.missing(index.salts, index.mx_frame);
        missing.is_some_and(|frames| frames.end().0.saturating_sub(frames.start().0) >= COPY_AHEAD)
    }

    /// Copies what is missing of the generation in `wal`.
    fn copy(&mut self, folder: &Path, wal: &File, header: &WalHeader, last: FrameNo) -> Result<()> {
        let Some(frames) = self.missing(header.salts, last) else { return Ok(()) };
        let (first, file) = match self.ahead.take() {
            Some(ahead) if ahead.salts == header.salts => (ahead.first.min(*frames.start()), ahead.file),
            Some(ahead) => (*frames.start(), ahead.file),
            None => (*frames.start(), self.spare(folder)),
        };
        kept::copy_frames(&file, wal, header, frames)?;
        self.ahead = Some(Ahead { file, salts: header.salts, first, last });
        Ok(())
    }

    /// A file to write to. It has its place in the folder, but no name that tells anything.
    fn spare(&mut self, folder: &Path) -> PathBuf {
        self.spares.pop().unwrap_or_else(|| self.new_spare(folder))
    }

    fn new_spare(&mut self, folder: &Path) -> PathBuf {
        self.files += 1;
        folder.join(format!("{}-{}.spare", std::process::id(), self.files))
    }
}

impl Generations {
    pub(super) fn new(wal_path: &Path, state_folder: &Path) -> Self {
        Self {
            wal_path: wal_path.to_path_buf(),
            folder: kept::folder(state_folder),
            passage: Mutex::default(),
        }
    }

    /// While this lives, no writer of this process restarts the WAL.
    pub(super) fn lock(&self) -> MutexGuard<'_, Passage> {
        self.passage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The folder of kept files.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The last commit noted, and all that was kept before the generation that it is in.
    pub(super) fn now(&self, commits: &Commits) -> (Noted, Vec<Waiting>) {
        let passage = self.lock();
        (commits.last(), passage.waiting.iter().copied().collect())
    }

    /// The oldest generation that is kept and not captured.
    pub(super) fn oldest(&self) -> Option<Waiting> {
        self.lock().waiting.front().copied()
    }

    /// Whether so much was kept that it must be captured before more is.
    pub(super) fn is_full(&self) -> bool {
        self.lock().bytes() >= KEPT_LIMIT
    }

    /// The number of bytes that were kept and are not captured.
    pub(super) fn bytes(&self) -> u64 {
        self.lock().bytes()
    }

    /// The oldest kept generation is captured.
    pub(super) fn captured(&self, kept: &Kept) {
        self.lock().waiting.pop_front_if(|oldest| oldest.kept == *kept);
    }

    /// Nobody needs a kept generation any more.
    pub(super) fn release(&self, kept: &Kept) {
        let path = kept.path(&self.folder);
        let mut passage = self.lock();
        if passage.spares.len() < SPARES {
            let spare = passage.new_spare(&self.folder);
            if fs::rename(&path, &spare).is_ok() {
                passage.spares.push(spare);
                return;
            }
        }
        drop(passage);
        kept::remove(&path);
    }

    /// Up to `safe` nobody needs the WAL any more.
    pub(super) fn set_safe(&self, safe: Option<Captured>) {
        self.lock().set_safe(safe);
    }

    /// Removes the files that would be used again.
    pub(super) fn drop_spares(&self) {
        let mut passage = self.lock();
        let ahead = passage.ahead.take().map(|ahead| ahead.file);
        passage.spares.drain(..).chain(ahead).for_each(|spare| kept::remove(&spare));
    }

    /// Removes what earlier processes kept; a writer of this one may be keeping something already.
    pub(super) fn remove_earlier(&self) {
        let passage = self.lock();
        let waiting = passage.waiting.iter().map(|waiting| waiting.kept.path(&self.folder));
        let others = passage.spares.iter().chain(passage.ahead.as_ref().map(|ahead| &ahead.file));
        let ours: Vec<PathBuf> = waiting.chain(others.cloned()).collect();
        kept::remove_all(&self.folder, |path| !ours.iter().any(|ours| ours == path));
    }

    /// Nothing is captured from now on; what was kept is of no use.
    pub(super) fn reset(&self) {
        self.begin(&mut self.lock(), None);
    }

    /// Begins anew: all before `safe` is of no use, neither in the WAL nor kept.
    pub(super) fn begin(&self, passage: &mut Passage, safe: Option<Captured>) {
        passage.waiting.clear();
        passage.spares.clear();
        passage.ahead = None;
        passage.set_safe(safe);
        kept::remove_all(&self.folder, |_| true);
    }

    /// SQLite is about to write a header over the generation in the WAL, after which commits go on at
    /// `next`: keeps what is needed of it. `false` if that is not how to do it: what is committed is not
    /// known, or nothing is needed.
    ///
    /// # Errors
    /// `Io`, `NoSpace`, `Denied`, naming the file.
    pub(super) fn keep(&self, commits: &Commits, next: Position) -> Result<bool> {
        let mut passage = self.lock();
        let noted = commits.last();
        let Some((last, header)) = self.copy(&mut passage, &noted)? else { return Ok(false) };
        let Some(ahead) = passage.ahead.take() else { return Ok(false) };
        let kept = Kept { salts: ahead.salts, last, next };
        kept::rename(&ahead.file, &kept.path(&self.folder))?;
        let end = noted.end.unwrap_or(End::LastCommit);
        let bytes = last.end_offset(header.page_size) - ahead.first.end_offset(header.page_size);
        passage.waiting.push_back(Waiting { kept, end, noted, bytes });
        passage.begun = Some(Captured::At(next));
        // What was noted is the end of a generation that is no more.
        commits.forget();
        Ok(true)
    }

    /// Copies what would have to be kept of the generation in the WAL if it was restarted now.
    ///
    /// # Errors
    /// `Io`, `NoSpace`, `Denied`, naming the file.
    pub(super) fn copy_ahead(&self, commits: &Commits) -> Result<()> {
        let mut passage = self.lock();
        self.copy(&mut passage, &commits.last()).map(drop)
    }

    /// Whether a restart of the WAL would find much to copy.
    pub(super) fn is_behind(&self, commits: &Commits) -> bool {
        self.lock().is_behind(&commits.last())
    }

    /// Like [`Generations::is_behind`], and never waits: `false` while somebody is at work here.
    pub(super) fn seems_behind(&self, commits: &Commits) -> bool {
        self.passage.try_lock().is_ok_and(|passage| passage.is_behind(&commits.last()))
    }

    /// Copies what is needed of the generation that `noted` tells of, and is not copied yet. Returns its
    /// last frame and its header, or `None` if the WAL holds another, or nothing of it is needed.
    fn copy(&self, passage: &mut Passage, noted: &Noted) -> Result<Option<(FrameNo, WalHeader)>> {
        let (Some(_), Some(End::Index(index))) = (passage.safe, noted.end) else { return Ok(None) };
        let Ok(wal) = File::open(&self.wal_path) else { return Ok(None) };
        let Some(header) = read_header(&wal)? else { return Ok(None) };
        if index.mx_frame == FrameNo::ZERO || header.salts != index.salts {
            return Ok(None);
        }
        passage.copy(&self.folder, &wal, &header, index.mx_frame)?;
        Ok(Some((index.mx_frame, header)))
    }

    /// The WAL lost what it held, all of which was captured: commits go on at `next`.
    pub(super) fn lost_wal(&self, commits: &Commits, next: Captured) {
        self.lock().begun = Some(next).filter(|next| *next != Captured::NextGeneration);
        commits.forget();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::SystemClock;
    use crate::wal::Checksum;

    #[test]
    fn what_earlier_processes_kept_is_removed_and_what_our_writers_keep_is_not() {
        let state_folder = tempfile::tempdir().unwrap();
        let generations = Generations::new(Path::new("unused"), state_folder.path());
        let file = |salt| {
            let next = Position { salts: Salts(salt + 1, 1), frame: FrameNo::ZERO, checksum: Checksum(2, 3) };
            let kept = Kept { salts: Salts(salt, 1), last: FrameNo(7), next };
            let path = kept.path(&generations.folder);
            fs::create_dir_all(&generations.folder).unwrap();
            fs::write(&path, b"frames").unwrap();
            (kept, path)
        };
        let ((_, earlier), (kept, waiting), (_, ahead)) = (file(1), file(5), file(9));
        let mut passage = generations.lock();
        let spare = passage.spare(&generations.folder);
        fs::write(&spare, b"").unwrap();
        passage.spares.push(spare.clone());
        let noted = Commits::new(Arc::new(SystemClock)).last();
        passage.waiting.push_back(Waiting { kept, end: End::LastCommit, noted, bytes: 6 });
        let (first, last) = (FrameNo::ZERO, FrameNo(7));
        passage.ahead = Some(Ahead { file: ahead.clone(), salts: Salts(9, 1), first, last });
        drop(passage);
        generations.remove_earlier();
        let is_there = [earlier, waiting, ahead, spare].map(|path| path.exists());
        assert_eq!(is_there, [false, true, true, true]);
    }
}
