//! The file that a map rests on, whose page index comes block by block.

use std::sync::Arc;

use super::{Blocks, Found, Frame, PageMap, ReplicaFile, Spot};
use crate::page::{PageCount, Pgno};

/// A snapshot whose pages are those of the state, but for what later files have.
#[derive(Clone, Debug)]
pub(super) struct Base {
    file: Arc<ReplicaFile>,
    blocks: Arc<Blocks>,
    /// Pages beyond this many were cut off since, and written again if they are there.
    until: PageCount,
}

impl Base {
    /// Where page `pgno` is, which no later file has.
    pub(super) fn find(&self, pgno: Pgno) -> Found<'_> {
        if !self.until.contains(pgno) {
            return Found::Nowhere;
        }
        match self.blocks.find(pgno) {
            Spot::At(entry) => {
                let size = u32::try_from(entry.size).expect("BUG: a frame is larger than any may be");
                Found::At(Frame { file: self.file.number, size, offset: entry.offset }, &self.file)
            }
            Spot::Nowhere => Found::Nowhere,
            Spot::Away(number) => Found::Away(&self.blocks, number),
        }
    }

    /// The file, if page `pgno` may be in it.
    pub(super) fn holder(&self, pgno: Pgno) -> Option<&ReplicaFile> {
        self.until.contains(pgno).then_some(&self.file)
    }

    /// The page index of the file.
    pub(super) fn blocks(&self) -> &Arc<Blocks> {
        &self.blocks
    }

    /// The database has only `commit` pages now.
    pub(super) fn cut(&mut self, commit: PageCount) {
        self.until = self.until.min(commit);
    }
}

impl PageMap {
    /// The pages of `file`, a snapshot of `commit` pages whose page index is `blocks`.
    pub(super) fn resting_on(file: &Arc<ReplicaFile>, commit: PageCount, blocks: &Arc<Blocks>) -> Self {
        let mut map = Self::default();
        map.resize(commit);
        map.files.hold(file, 1);
        map.base = Some(Base { file: Arc::clone(file), blocks: Arc::clone(blocks), until: commit });
        map
    }
}
