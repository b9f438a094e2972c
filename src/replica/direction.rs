//! The way in which pages are read one after another.

use crate::page::Pgno;

/// Which neighbours of a page come along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Up,
    Down,
}

impl Direction {
    /// The next page.
    pub(super) fn step(self, pgno: Pgno) -> Option<Pgno> {
        match self {
            Self::Up => pgno.get().checked_add(1).and_then(Pgno::new),
            Self::Down => Pgno::new(pgno.get() - 1),
        }
    }

    /// The next child.
    pub(super) fn next(self, at: usize) -> Option<usize> {
        match self {
            Self::Up => at.checked_add(1),
            Self::Down => at.checked_sub(1),
        }
    }
}
