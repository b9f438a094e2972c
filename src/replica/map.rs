//! Where each page of the database is: in which file, at which bytes.
//!
//! A map of a million pages costs 16 MB, and its successor after a transaction shares all chunks in
//! which nothing changed.

mod changes;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::keep::Kept;
use crate::error::{Error, Result};
use crate::ltx::PageIndex;
use crate::page::{PageCount, Pgno};
use crate::store::FileInfo;

/// Pages in a chunk: what is copied when one page changes, 4 KiB.
const CHUNK: usize = 256;

/// A file of the replica as long as some snapshot of this process uses it.
#[derive(Debug)]
pub(super) struct ReplicaFile {
    /// Tells it apart from every other file of the core, also from one of the same name that was
    /// written after the replica was reset.
    pub(super) number: u32,
    /// What the listing said.
    pub(super) info: FileInfo,
    /// All of it, if it is small: a state that needs it may outlive it.
    pub(super) kept: Option<Kept>,
}

/// Where the frame of a page is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Frame {
    /// The number of the file.
    pub(super) file: u32,
    /// Its size in bytes, with its header; zero if the page was never written.
    pub(super) size: u32,
    /// Where in the file it starts.
    pub(super) offset: u64,
}

impl Frame {
    const NONE: Self = Self { file: 0, size: 0, offset: 0 };

    /// Whether there is such a page.
    fn is_some(self) -> bool {
        self.size != 0
    }

    /// The first byte after it.
    pub(super) fn end(self) -> u64 {
        self.offset + u64::from(self.size)
    }
}

/// The pages of one state of the database, and the files that hold them.
///
/// Invariants: `files` has exactly the files that some frame names, each with the number of its
/// frames; no frame is beyond `commit`.
#[derive(Clone, Debug, Default)]
pub(super) struct PageMap {
    chunks: Vec<Arc<[Frame; CHUNK]>>,
    commit: PageCount,
    files: BTreeMap<u32, Used>,
}

#[derive(Clone, Debug)]
struct Used {
    file: Arc<ReplicaFile>,
    frames: u32,
}

impl PageMap {
    /// The size of the database in pages.
    pub(super) fn commit(&self) -> PageCount {
        self.commit
    }

    /// Where page `pgno` is, and in which file; `None` for a page that nobody wrote, such as the lock
    /// page, and beyond the end.
    pub(super) fn get(&self, pgno: Pgno) -> Option<(Frame, &Arc<ReplicaFile>)> {
        let frame = self.frame(pgno)?;
        let used = self.files.get(&frame.file).expect("BUG: a frame names a file that is not used");
        Some((frame, &used.file))
    }

    /// Where page `pgno` is.
    pub(super) fn frame(&self, pgno: Pgno) -> Option<Frame> {
        let frame = self.chunks.get(pgno.index() / CHUNK)?[pgno.index() % CHUNK];
        frame.is_some().then_some(frame)
    }

    /// The files that hold the pages.
    pub(super) fn files(&self) -> impl Iterator<Item = &Arc<ReplicaFile>> {
        self.files.values().map(|used| &used.file)
    }

    /// Takes in the next file: the pages of `index` are its, and the database has `commit` pages.
    ///
    /// # Errors
    /// `Corrupt` if the index names what cannot be.
    pub(super) fn apply(
        &mut self,
        file: &Arc<ReplicaFile>,
        commit: PageCount,
        index: &PageIndex,
    ) -> Result<()> {
        self.resize(commit);
        for entry in index.iter() {
            if !commit.contains(entry.pgno) {
                return Err(Error::corrupt(format!(
                    "{} holds page {} of a database of {commit} pages",
                    file.info.id, entry.pgno
                )));
            }
            self.put(entry.pgno, file, entry.offset, entry.size)?;
        }
        self.forget_unused();
        Ok(())
    }

    /// Takes in a file that holds again, merged, transactions which the map has: pages whose frames
    /// are in files that end no later than `file` move to `file`.
    ///
    /// Correct as long as `file` ends no later than the map: a page that `file` holds was not changed
    /// after the end of the file in which its frame is, so both hold the same version.
    ///
    /// # Errors
    /// `Corrupt` if the index names what cannot be.
    pub(super) fn absorb(&mut self, file: &Arc<ReplicaFile>, index: &PageIndex) -> Result<()> {
        let max = file.info.id.name.max();
        for entry in index.iter() {
            let Some((frame, holder)) = self.get(entry.pgno) else { continue };
            if frame.file != file.number && holder.info.id.name.max() <= max {
                self.put(entry.pgno, file, entry.offset, entry.size)?;
            }
        }
        self.forget_unused();
        Ok(())
    }

    fn put(&mut self, pgno: Pgno, file: &Arc<ReplicaFile>, offset: u64, size: u64) -> Result<()> {
        let fits = offset.checked_add(size).is_some_and(|end| end <= file.info.size);
        let size = u32::try_from(size).ok().filter(|&size| size > 0 && fits).ok_or_else(|| {
            Error::corrupt(format!("the index of {} puts page {pgno} outside of the file", file.info.id))
        })?;
        let chunk = self.chunks.get_mut(pgno.index() / CHUNK).expect("BUG: a page beyond the commit");
        let slot = &mut Arc::make_mut(chunk)[pgno.index() % CHUNK];
        let old = std::mem::replace(slot, Frame { file: file.number, size, offset });
        self.files.entry(file.number).or_insert_with(|| Used { file: file.clone(), frames: 0 }).frames += 1;
        self.release(old);
        Ok(())
    }

    /// Makes the map `commit` pages long; pages that come into being were never written.
    fn resize(&mut self, commit: PageCount) {
        let old = self.commit.get() as usize;
        let new = commit.get() as usize;
        for index in new..old {
            let slot = &mut self.chunks[index / CHUNK];
            if slot[index % CHUNK].is_some() {
                let frame = std::mem::replace(&mut Arc::make_mut(slot)[index % CHUNK], Frame::NONE);
                self.release(frame);
            }
        }
        self.chunks.resize_with(new.div_ceil(CHUNK), || Arc::new([Frame::NONE; CHUNK]));
        self.commit = commit;
    }

    fn release(&mut self, frame: Frame) {
        if frame.is_some() {
            let used = self.files.get_mut(&frame.file).expect("BUG: a frame names a file that is not used");
            used.frames -= 1;
        }
    }

    fn forget_unused(&mut self) {
        self.files.retain(|_, used| used.frames > 0);
    }
}
