//! Rows that an index names and that are then looked up in the table one after another.
//!
//! A leaf of an index tells the rowids that come next long before SQLite asks for them. They are used
//! once the last look-ups were seen to follow the leaf.

use std::sync::Arc;

use super::btree;
use super::cache::FrameKey;
use crate::page::Pgno;

/// How many rows to look up early after so many look-ups that followed the leaf.
const EARLY: [usize; 5] = [0, 0, 8, 32, 64];
/// Look-ups that leave out more rows of the leaf than this do not follow it.
const SKIP: usize = 80;

/// What a connection's last leaf of an index tells.
#[derive(Debug, Default)]
pub(super) struct Lookups {
    /// The leaf that was read last.
    leaf: Option<FrameKey>,
    /// The leaf that `rows` are of.
    parsed: Option<FrameKey>,
    rows: Vec<i64>,
    /// The last row that was looked up.
    at: Option<usize>,
    /// Look-ups in a row that followed.
    followed: usize,
}

impl Lookups {
    /// A leaf of an index was read.
    pub(super) fn leaf_was_read(&mut self, frame: FrameKey) {
        self.leaf = Some(frame);
    }

    /// The leaf of a table was not in the cache; `is_there` tells whether it has a row. Returns the rows
    /// that will likely be looked up after those in it. `page` gives the content of a leaf of an index.
    pub(super) fn rows_after(
        &mut self,
        is_there: impl Fn(i64) -> bool,
        page: impl FnOnce(FrameKey) -> Option<Arc<[u8]>>,
    ) -> Vec<i64> {
        let Some(leaf) = self.leaf else { return Vec::new() };
        if self.parsed != Some(leaf) {
            self.turn(leaf, page(leaf));
        }
        let start = self.at.unwrap_or(0);
        let up = (start..self.rows.len()).find(|n| is_there(self.rows[*n]));
        let down = (0..start).rev().find(|n| is_there(self.rows[*n]));
        let found = match (up, down) {
            (Some(up), Some(down)) if start - down < up - start => Some(down),
            (up, down) => up.or(down),
        };
        let Some(now) = found.filter(|now| now.abs_diff(start) <= SKIP) else {
            (self.at, self.followed) = (None, 0);
            return Vec::new();
        };
        self.at = Some(now);
        self.followed = (self.followed + 1).min(EARLY.len() - 1);
        let early = EARLY[self.followed];
        if now >= start {
            self.rows[now + 1..].iter().take(early).copied().collect()
        } else {
            self.rows[..now].iter().rev().take(early).copied().collect()
        }
    }

    /// Turns to another leaf. Look-ups go on as they did if those of the leaf before were at its end.
    fn turn(&mut self, leaf: FrameKey, page: Option<Arc<[u8]>>) {
        let last = self.rows.len().saturating_sub(1);
        let early = EARLY[self.followed];
        let to_end = self.at.is_some_and(|at| at + early >= last);
        let to_start = self.at.is_some_and(|at| at <= early && at < last / 2);
        self.parsed = Some(leaf);
        self.rows = page.map(|page| btree::rowids(&page)).unwrap_or_default();
        if !to_end && !to_start {
            self.followed = 0;
        }
        // Going down the next leaf is read from its end.
        self.at = (to_start && !to_end).then_some(self.rows.len());
    }
}

/// The different pages of `pages`, in their order.
pub(super) fn distinct(pages: impl Iterator<Item = Pgno>) -> Vec<Pgno> {
    let mut seen = std::collections::HashSet::new();
    pages.filter(|page| seen.insert(*page)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::map::Frame;

    fn key(n: u64) -> FrameKey {
        Frame { file: 1, size: 1, offset: n }.into()
    }

    /// A leaf that names the rows `first`, `first + 10` and so on.
    fn leaf(first: u8, count: u8) -> Arc<[u8]> {
        let mut page = vec![0; 4096];
        page[0] = 10;
        page[4] = count;
        for n in 0..count {
            let at = 4000 - 10 * usize::from(n);
            page[8 + 2 * usize::from(n)..][..2].copy_from_slice(&(at as u16).to_be_bytes());
            let rowid = (u16::from(first) + 10 * u16::from(n)).to_be_bytes();
            page[at..at + 5].copy_from_slice(&[4, 2, 2, rowid[0], rowid[1]]);
        }
        page.into()
    }

    fn after(lookups: &mut Lookups, row: i64, page: &Arc<[u8]>) -> Vec<i64> {
        lookups.rows_after(|r| r == row, |_| Some(page.clone()))
    }

    #[test]
    fn rows_come_early_once_look_ups_follow_the_leaf() {
        let mut lookups = Lookups::default();
        let page = leaf(5, 100);
        assert!(after(&mut lookups, 5, &page).is_empty(), "no leaf was read");
        lookups.leaf_was_read(key(1));
        assert!(after(&mut lookups, 5, &page).is_empty());
        assert_eq!(after(&mut lookups, 15, &page), (2..10).map(|n| 5 + 10 * n).collect::<Vec<_>>());
        assert_eq!(after(&mut lookups, 105, &page).len(), 32);
        assert_eq!(after(&mut lookups, 505, &page).len(), 49);
        assert!(after(&mut lookups, 7, &page).is_empty(), "a row of something else");
        assert!(after(&mut lookups, 515, &page).is_empty());
    }

    #[test]
    fn the_next_leaf_goes_on_and_another_one_does_not() {
        let mut lookups = Lookups::default();
        let page = leaf(5, 20);
        lookups.leaf_was_read(key(1));
        for row in [5, 15, 25] {
            after(&mut lookups, row, &page);
        }
        lookups.leaf_was_read(key(2));
        assert_eq!(after(&mut lookups, 7, &leaf(7, 100)).len(), 64);
        lookups.leaf_was_read(key(3));
        assert!(after(&mut lookups, 9, &leaf(9, 100)).is_empty(), "the leaf before was not at its end");
    }

    #[test]
    fn going_down_works_too() {
        let mut lookups = Lookups::default();
        let page = leaf(5, 50);
        lookups.leaf_was_read(key(1));
        after(&mut lookups, 495, &page);
        after(&mut lookups, 485, &page);
        assert_eq!(after(&mut lookups, 475, &page)[..2], [465, 455]);
    }
}
