//! What tells two maps apart. Costs little where they share.
//!
//! Pages that are where a base has them have no part in it: a base is a snapshot, and a state that reads from an older one
//! finds that there until it is removed, long after.

use std::sync::Arc;

use super::{Chunk, FAN, Frame, GROUP, PageMap, ReplicaFile};
use crate::page::Pgno;

impl PageMap {
    /// The pages whose frames are not the same in both maps, or only in one of them, in order.
    pub(in crate::replica) fn differences<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = Pgno> + 'a {
        let groups = self.groups.len().max(other.groups.len());
        (0..groups)
            .filter(|&n| !same(self.groups.get(n), other.groups.get(n)))
            .flat_map(|n| n * FAN..(n + 1) * FAN)
            .filter(|&n| !same(self.chunk(n), other.chunk(n)))
            .flat_map(|n| n * FAN + 1..=(n + 1) * FAN)
            .filter_map(|n| u32::try_from(n).ok().and_then(Pgno::new))
            .filter(|&pgno| self.own(pgno) != other.own(pgno))
    }

    /// Moves the pages that are where `before` has them to where `after` has them. Both are of one
    /// state of the database, before and after files were merged.
    pub(in crate::replica) fn follow(&mut self, before: &Self, after: &Self) {
        for pgno in before.differences(after) {
            let (Some(from), Some((to, file))) = (before.own(pgno), after.get(pgno)) else { continue };
            if self.own(pgno) == Some(from) {
                self.set(pgno, to, file);
            }
        }
        self.files.forget_unused();
    }

    fn chunk(&self, number: usize) -> Option<&Arc<Chunk>> {
        self.groups.get(number / FAN).map(|group| &group[number % FAN])
    }

    fn set(&mut self, pgno: Pgno, frame: Frame, file: &Arc<ReplicaFile>) {
        let index = pgno.index();
        self.files.hold(file, 1);
        let group = Arc::make_mut(&mut self.groups[index / GROUP]);
        let chunk = Arc::make_mut(&mut group[index / FAN % FAN]);
        self.files.release(std::mem::replace(&mut chunk[index % FAN], frame));
    }
}

/// Whether two maps share a part, or neither has it.
fn same<T>(a: Option<&Arc<T>>, b: Option<&Arc<T>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        (a, b) => a.is_none() && b.is_none(),
    }
}
