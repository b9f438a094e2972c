//! Where each page of the database is: in which file, at which bytes.
//!
//! ```text
//!   map    a group for each 65536 pages, shared between maps
//!   group  256 chunks, shared between groups
//!   chunk  256 frames of 16 bytes
//! ```
//! A page costs 16 bytes and its share of the pointers, less than 17 in all. A map is copied group by
//! group - 153 pointers for 10 million pages - and its successor after a transaction shares all groups
//! and chunks in which nothing changed.
//!
//! The pages of a large snapshot need no frames: where the pack of such a file has its page index in blocks, the map
//! rests on that file, and what no later file has is where the block says that is brought when it is wanted.

mod base;
mod changes;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock, OnceLock};

use self::base::Base;
use super::blocks::{Blocks, Spot};
use super::disk::DiskFile;
use super::keep::Kept;
use super::pack::FilePack;
use super::verdict::VerdictCell;
use crate::error::{Error, Result};
use crate::ltx::{FrameCodec, IndexEntry, PageIndex};
use crate::page::{PageCount, Pgno};
use crate::store::FileInfo;

/// Frames in a chunk, and chunks in a group: what is copied when one page changes is 4 KiB and 2 KiB.
const FAN: usize = 256;
/// Pages of a group.
const GROUP: usize = FAN * FAN;

type Chunk = [Frame; FAN];
type Group = [Arc<Chunk>; FAN];

/// A chunk, and a group, of pages that were never written.
static NO_CHUNK: LazyLock<Arc<Chunk>> = LazyLock::new(|| Arc::new([Frame::NONE; FAN]));
static NO_GROUP: LazyLock<Arc<Group>> = LazyLock::new(|| Arc::new(std::array::from_fn(|_| NO_CHUNK.clone())));

/// A file of the replica as long as some snapshot of this process uses it.
#[derive(Debug)]
pub(super) struct ReplicaFile {
    /// Tells it apart from every other file of the core, also from one of the same name that was
    /// written after the replica was reset.
    pub(super) number: u32,
    /// What the listing said.
    pub(super) info: FileInfo,
    /// How its frames become pages.
    pub(super) codec: FrameCodec,
    /// All of it, if it is not large: a state that needs it may outlive it.
    pub(super) kept: OnceLock<Kept>,
    /// Its part of the disk cache, if there is one.
    pub(super) disk: Option<DiskFile>,
    /// The pages of it that come beside it, if it may have a pack.
    pub(super) pack: Option<FilePack>,
    /// What its checksum said, if all of it was read.
    pub(super) verdict: VerdictCell,
}

impl ReplicaFile {
    /// The frame of page `pgno`, which the map puts at `frame`, if the pack has it.
    pub(super) fn packed(&self, pgno: Pgno, frame: Frame) -> Option<&[u8]> {
        self.pack.as_ref()?.frame(frame.entry(pgno))
    }

    /// Whether the frame of page `pgno` is in memory: with the whole file, or in the pack.
    pub(super) fn is_held(&self, pgno: Pgno, frame: Frame) -> bool {
        self.kept.get().is_some() || self.packed(pgno, frame).is_some()
    }
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

    /// The entry of a page index that puts page `pgno` here.
    pub(super) fn entry(self, pgno: Pgno) -> IndexEntry {
        IndexEntry { pgno, offset: self.offset, size: self.size.into() }
    }

    /// The first byte after it.
    pub(super) fn end(self) -> u64 {
        self.offset + u64::from(self.size)
    }
}

/// Where a page is.
#[derive(Debug)]
pub(super) enum Found<'a> {
    /// In this frame of this file.
    At(Frame, &'a Arc<ReplicaFile>),
    /// Nobody wrote it, or it is beyond the end.
    Nowhere,
    /// The block of this number says it, and is to be brought.
    Away(&'a Arc<Blocks>, usize),
}

/// The page index of a file.
#[derive(Clone, Debug)]
pub(super) enum Index {
    /// All of it.
    Whole(PageIndex),
    /// What of it is asked for.
    Blocks(Arc<Blocks>),
}

/// The pages of one state of the database, and the files that hold them.
///
/// Invariants: `files` has exactly the file of `base` and those that some frame names, each with the number of its
/// frames, and one more for the base; no frame is beyond `commit`.
#[derive(Clone, Debug, Default)]
pub(super) struct PageMap {
    groups: Vec<Arc<Group>>,
    commit: PageCount,
    files: Holders,
    /// Where pages without a frame are.
    base: Option<Base>,
}

/// The files that hold pages, by number.
#[derive(Clone, Debug, Default)]
struct Holders(BTreeMap<u32, Used>);

#[derive(Clone, Debug)]
struct Used {
    file: Arc<ReplicaFile>,
    frames: u32,
}

impl Holders {
    fn file(&self, frame: Frame) -> &Arc<ReplicaFile> {
        &self.0.get(&frame.file).expect("BUG: a frame names a file that is not used").file
    }

    fn hold(&mut self, file: &Arc<ReplicaFile>, frames: u32) {
        self.0.entry(file.number).or_insert_with(|| Used { file: file.clone(), frames: 0 }).frames += frames;
    }

    fn release(&mut self, frame: Frame) {
        if frame.is_some() {
            let used = self.0.get_mut(&frame.file).expect("BUG: a frame names a file that is not used");
            used.frames -= 1;
        }
    }

    fn forget_unused(&mut self) {
        self.0.retain(|_, used| used.frames > 0);
    }
}

impl Index {
    /// The last page.
    fn last(&self) -> Option<Pgno> {
        match self {
            Self::Whole(index) => index.last(),
            Self::Blocks(blocks) => Some(blocks.last()),
        }
    }

    /// How many pages have to be gone through.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Whole(index) => index.len(),
            Self::Blocks(_) => 0,
        }
    }
}

impl PageMap {
    /// The size of the database in pages.
    pub(super) fn commit(&self) -> PageCount {
        self.commit
    }

    /// Where page `pgno` is.
    pub(super) fn find(&self, pgno: Pgno) -> Found<'_> {
        match self.own(pgno) {
            Some(frame) => Found::At(frame, self.files.file(frame)),
            None => self.base.as_ref().map_or(Found::Nowhere, |base| base.find(pgno)),
        }
    }

    /// Where page `pgno` is, and in which file; `None` for a page that nobody wrote, such as the lock
    /// page, and beyond the end, and also as long as it is not known.
    pub(super) fn get(&self, pgno: Pgno) -> Option<(Frame, &Arc<ReplicaFile>)> {
        match self.find(pgno) {
            Found::At(frame, file) => Some((frame, file)),
            Found::Nowhere | Found::Away(..) => None,
        }
    }

    /// Where page `pgno` is, as [`PageMap::get`] has it.
    pub(super) fn frame(&self, pgno: Pgno) -> Option<Frame> {
        self.get(pgno).map(|(frame, _)| frame)
    }

    /// The frame that page `pgno` has in the map itself.
    fn own(&self, pgno: Pgno) -> Option<Frame> {
        let index = pgno.index();
        let frame = self.groups.get(index / GROUP)?[index / FAN % FAN][index % FAN];
        frame.is_some().then_some(frame)
    }

    /// What says where pages are that are not known yet, and the numbers of its blocks that say it of `pages`.
    pub(super) fn unknown(&self, pages: &[Pgno]) -> Option<(&Arc<Blocks>, Vec<usize>)> {
        let base = self.base.as_ref()?;
        let away = |pgno: &Pgno| match self.find(*pgno) {
            Found::Away(_, number) => Some(number),
            Found::At(..) | Found::Nowhere => None,
        };
        let numbers: BTreeSet<usize> = pages.iter().filter_map(away).collect();
        Some((base.blocks(), numbers.into_iter().collect()))
    }

    /// The files that hold the pages.
    pub(super) fn files(&self) -> impl Iterator<Item = &Arc<ReplicaFile>> {
        self.files.0.values().map(|used| &used.file)
    }

    /// Takes in the next file: the pages of `index` are its, and the database has `commit` pages. An index that comes in
    /// blocks is that of a snapshot, behind which nothing of before is left.
    ///
    /// # Errors
    /// `Corrupt` if the index names what cannot be.
    pub(super) fn apply(&mut self, file: &Arc<ReplicaFile>, commit: PageCount, index: &Index) -> Result<()> {
        if let Some(beyond) = index.last().filter(|pgno| !commit.contains(*pgno)) {
            let id = file.info.id;
            return Err(Error::corrupt(format!("{id} holds page {beyond} of a database of {commit} pages")));
        }
        match index {
            Index::Whole(index) => {
                self.resize(commit);
                self.put_all(file, index, |_| true)
            }
            Index::Blocks(blocks) => {
                *self = Self::resting_on(file, commit, blocks);
                Ok(())
            }
        }
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
        let is_merged = |old: &ReplicaFile| old.number != file.number && old.info.id.name.max() <= max;
        self.put_all(file, index, |old| old.is_some_and(is_merged))
    }

    /// Puts those pages of `index` into `file` whose present files `replace` lets go. Pages beyond the
    /// commit, which a file that is merged into a shorter state may have, are left out.
    fn put_all(
        &mut self,
        file: &Arc<ReplicaFile>,
        index: &PageIndex,
        replace: impl Fn(Option<&ReplicaFile>) -> bool,
    ) -> Result<()> {
        let Self { groups, commit, files, base } = self;
        let present = |files: &Holders, pgno, frame: Frame| match frame.is_some() {
            true => replace(Some(files.file(frame))),
            false => replace(base.as_ref().and_then(|base| base.holder(pgno))),
        };
        let mut entries = index.iter().take_while(|entry| commit.contains(entry.pgno)).peekable();
        let mut news = Vec::with_capacity(FAN);
        while let Some(first) = entries.peek() {
            let number = first.pgno.index() / FAN;
            let (group, place) = (&mut groups[number / FAN], number % FAN);
            while let Some(entry) = entries.next_if(|entry| entry.pgno.index() / FAN == number) {
                let slot = entry.pgno.index() % FAN;
                if present(files, entry.pgno, group[place][slot]) {
                    news.push((slot, frame_of(file, entry)?));
                }
            }
            if news.is_empty() {
                continue;
            }
            files.hold(file, news.len() as u32);
            // Copied if it is shared, once for all of its pages.
            let chunk = Arc::make_mut(&mut Arc::make_mut(group)[place]);
            for (slot, frame) in news.drain(..) {
                files.release(std::mem::replace(&mut chunk[slot], frame));
            }
        }
        files.forget_unused();
        Ok(())
    }

    /// Makes the map `commit` pages long; pages that come into being were never written.
    fn resize(&mut self, commit: PageCount) {
        let new = commit.get() as usize;
        let mut at = new;
        while at < self.commit.get() as usize {
            let end = (at / FAN + 1) * FAN;
            let slot = &mut self.groups[at / GROUP];
            let chunk = &slot[at / FAN % FAN];
            chunk[at % FAN..].iter().for_each(|frame| self.files.release(*frame));
            if chunk[at % FAN..].iter().any(|frame| frame.is_some()) {
                Arc::make_mut(&mut Arc::make_mut(slot)[at / FAN % FAN])[at % FAN..].fill(Frame::NONE);
            }
            at = end;
        }
        self.groups.resize_with(new.div_ceil(GROUP), || NO_GROUP.clone());
        self.commit = commit;
        if let Some(base) = &mut self.base {
            base.cut(commit);
        }
    }
}

/// Where `entry` says that a page of `file` is.
fn frame_of(file: &ReplicaFile, entry: IndexEntry) -> Result<Frame> {
    let IndexEntry { pgno, offset, size } = entry;
    let fits = offset.checked_add(size).is_some_and(|end| end <= file.info.size);
    let size = u32::try_from(size).ok().filter(|&size| size > 0 && fits).ok_or_else(|| {
        Error::corrupt(format!("the index of {} puts page {pgno} outside of the file", file.info.id))
    })?;
    Ok(Frame { file: file.number, size, offset })
}
