//! What tells two maps apart. Costs little where they share.

use std::sync::Arc;

use super::{CHUNK, Frame, PageMap, ReplicaFile, Used};
use crate::page::Pgno;

impl PageMap {
    /// The pages that are not at the same place in both maps, or only in one of them, in order.
    pub(in crate::replica) fn differences<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = Pgno> + 'a {
        let chunks = self.chunks.len().max(other.chunks.len());
        (0..chunks)
            .filter(|&n| !self.shares(other, n))
            .flat_map(|n| n * CHUNK + 1..=(n + 1) * CHUNK)
            .filter_map(|n| u32::try_from(n).ok().and_then(Pgno::new))
            .filter(|&pgno| self.frame(pgno) != other.frame(pgno))
    }

    /// Moves the pages that are where `before` has them to where `after` has them. Both are of one
    /// state of the database, before and after files were merged.
    pub(in crate::replica) fn follow(&mut self, before: &Self, after: &Self) {
        for pgno in before.differences(after) {
            let (Some(from), Some((to, file))) = (before.frame(pgno), after.get(pgno)) else { continue };
            if self.frame(pgno) == Some(from) {
                self.set(pgno, to, file);
            }
        }
        self.forget_unused();
    }

    fn shares(&self, other: &Self, chunk: usize) -> bool {
        match (self.chunks.get(chunk), other.chunks.get(chunk)) {
            (Some(ours), Some(theirs)) => Arc::ptr_eq(ours, theirs),
            _ => false,
        }
    }

    fn set(&mut self, pgno: Pgno, frame: Frame, file: &Arc<ReplicaFile>) {
        let chunk = self.chunks.get_mut(pgno.index() / CHUNK).expect("BUG: a page beyond the commit");
        let old = std::mem::replace(&mut Arc::make_mut(chunk)[pgno.index() % CHUNK], frame);
        self.files.entry(file.number).or_insert_with(|| Used { file: file.clone(), frames: 0 }).frames += 1;
        self.release(old);
    }
}
