//! The page index of a large file, of which only what is asked for is in memory.
//!
//! The pack of the file has it in blocks. A block that cannot be had from there costs time and nothing else: then the file's
//! own page index is read, all of it.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::stream::{self, StreamExt as _};
use lru::LruCache;
use tokio::sync::OnceCell;

use super::file_end::{named, read_tail};
use super::pack::{FilePack, PackedIndex};
use super::source::Source;
use crate::error::{Error, Result};
use crate::ltx::{FrameCodec, IndexEntry, PageIndex};
use crate::page::Pgno;
use crate::runtime;
use crate::store::FileInfo;

/// Blocks that stay in memory, 66 KiB each: those of four million pages.
const HELD: NonZeroUsize = NonZeroUsize::new(256).expect("256 is not zero");
/// Pages of a block for which it is known where their frames begin.
const STEP: usize = 64;
/// Blocks that are asked for at the same time.
const PARALLEL: usize = 16;

/// Where a page of the file is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Spot {
    /// Its frame.
    At(IndexEntry),
    /// The file has no such page.
    Nowhere,
    /// The block of this number says it, and is not here.
    Away(usize),
}

/// The page index of one file, in blocks.
#[derive(Debug)]
pub(super) struct Blocks {
    file: FileInfo,
    codec: FrameCodec,
    pack: FilePack,
    held: Mutex<LruCache<usize, Arc<OnceCell<Block>>>>,
    /// All blocks, as the file's own page index has them, once one could not be had from the pack.
    own: OnceCell<Vec<Block>>,
}

impl Blocks {
    /// Those of `file`, which has this `codec`; `None` if `pack` has none.
    pub(super) fn new(file: &FileInfo, codec: FrameCodec, pack: FilePack) -> Option<Self> {
        pack.index()?;
        let held = Mutex::new(LruCache::new(HELD));
        Some(Self { file: file.clone(), codec, pack, held, own: OnceCell::new() })
    }

    /// The last page that the file has.
    pub(super) fn last(&self) -> Pgno {
        self.index().last()
    }

    /// Where page `pgno` is in the file, as far as that is known.
    pub(super) fn find(&self, pgno: Pgno) -> Spot {
        let found = |entry: Option<IndexEntry>| entry.map_or(Spot::Nowhere, Spot::At);
        if let Some(entry) = self.pack.entry(pgno) {
            return Spot::At(entry);
        }
        let Some(number) = self.index().of(pgno) else { return Spot::Nowhere };
        if let Some(own) = self.own.get() {
            return found(own.get(number).and_then(|block| block.entry(pgno)));
        }
        let block = self.held().get(&number).cloned();
        match block.as_ref().and_then(|block| block.get()) {
            Some(block) => found(block.entry(pgno)),
            None => Spot::Away(number),
        }
    }

    /// Brings block `number`. One request serves all who ask meanwhile.
    ///
    /// # Errors
    /// Those of the store; `NotFound` if the file is gone; `Corrupt`.
    pub(super) async fn bring(&self, source: &Source, number: usize) -> Result<()> {
        if self.own.initialized() {
            return Ok(());
        }
        let block = Arc::clone(self.held().get_or_insert(number, Arc::default));
        match block.get_or_try_init(|| self.fetch(source, number)).await {
            // Whatever it is: nothing depends on a pack.
            Err(e) => {
                tracing::info!(
                    "{}: its page index is read, for its pack has no block {number}: {e}",
                    self.file.id
                );
                self.own.get_or_try_init(|| self.read_own(source)).await.map(|_| ())
            }
            Ok(_) => Ok(()),
        }
    }

    /// Brings the blocks of these numbers, as far as they can be had.
    pub(super) async fn bring_all(&self, source: &Source, numbers: &[usize]) {
        // One that cannot be had is missed by who really wants its pages.
        let bring = |number: &usize| {
            let number = *number;
            async move { drop(self.bring(source, number).await) }
        };
        stream::iter(numbers).for_each_concurrent(PARALLEL, bring).await;
    }

    async fn fetch(&self, source: &Source, number: usize) -> Result<Block> {
        let index = self.index();
        let entries = match (index.came(number), index.range(number)) {
            (Some(bytes), _) => index.read(number, bytes)?,
            (None, Some(range)) => index.read(number, &source.pack(self.file.id, range).await?)?,
            (None, None) => Vec::new(),
        };
        Ok(Block::new(number, entries))
    }

    async fn read_own(&self, source: &Source) -> Result<Vec<Block>> {
        let (tail, index) = read_tail(source, &self.file, self.codec.shape()).await?;
        runtime::busy(true, || {
            PageIndex::check_tail(&tail, &self.codec).map_err(|e| named(&self.file, e))?;
            if index.last() != Some(self.index().last()) {
                let what = "its pack and its page index do not end with the same page";
                return Err(Error::corrupt(format!("{}: {what}", self.file.id)));
            }
            let mut entries = index.iter().peekable();
            let block = |number: usize| {
                let end = (number + 1) * PackedIndex::BLOCK;
                Block::new(number, std::iter::from_fn(|| entries.next_if(|entry| entry.pgno.index() < end)))
            };
            Ok((0..self.index().blocks()).map(block).collect())
        })
    }

    fn index(&self) -> &PackedIndex {
        self.pack.index().expect("BUG: a pack that had an index has none")
    }

    fn held(&self) -> MutexGuard<'_, LruCache<usize, Arc<OnceCell<Block>>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the pages of one block are.
///
/// Invariants: `sizes` has the size of the frame of each page number of the block, zero of one that the file does not have.
/// `starts` has, for each [`STEP`] of them, where the first of their frames begins; frames lie one after another.
#[derive(Debug)]
struct Block {
    first: usize,
    starts: Box<[u64]>,
    sizes: Box<[u32]>,
}

impl Block {
    /// The block `number`, which has these entries.
    fn new(number: usize, entries: impl IntoIterator<Item = IndexEntry>) -> Self {
        let first = number * PackedIndex::BLOCK;
        let mut starts = vec![0; PackedIndex::BLOCK / STEP];
        let mut sizes = vec![0; PackedIndex::BLOCK];
        for IndexEntry { pgno, offset, size } in entries {
            let at = pgno.index() - first;
            if sizes[at / STEP * STEP..at].iter().all(|size| *size == 0) {
                starts[at / STEP] = offset;
            }
            sizes[at] = size as u32;
        }
        Self { first, starts: starts.into(), sizes: sizes.into() }
    }

    fn entry(&self, pgno: Pgno) -> Option<IndexEntry> {
        let at = pgno.index().checked_sub(self.first)?;
        let size = u64::from(*self.sizes.get(at)?);
        let before: u64 = self.sizes[at / STEP * STEP..at].iter().map(|size| u64::from(*size)).sum();
        (size > 0).then(|| IndexEntry { pgno, offset: self.starts[at / STEP] + before, size })
    }
}

#[cfg(test)]
mod tests;
