//! Keys that a page names and that are then looked up one after another: the rows of an index's entries, and in a join
//! what stands in a column of an index or of a row.
//!
//! A leaf of an index tells which rows come next long before SQLite asks for them. At the first look-up of one of its
//! entries those that begin with the same value are likely to be wanted too; those after them once look-ups were seen to
//! follow the leaf. In the same way the rows that were looked up tell what will be looked up in another tree, once a column
//! of one of them was.

use std::sync::Arc;

use super::cache::FrameKey;
use super::record::{self, Entry, Integers};
use super::trees::Tree;
use crate::page::Pgno;

/// The number of keys to look up early, by the number of look-ups that followed the leaf.
const EARLY: [usize; 5] = [0, 0, 8, 32, 64];
/// How many that begin with the same value, at the first look-up.
const GROUP: usize = 16;
/// Look-ups that leave out more entries of the leaf than this do not follow it.
const SKIP: usize = 80;
/// If more entries than this may have led to a page, nothing is told from it.
const MAYBE: usize = 512;
/// Their rows are looked at if there are no more of them than this.
const FEW: usize = 64;

/// Keys to look up early.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Batch {
    pub(super) tree: Tree,
    /// In the order in which they are likely to be wanted.
    pub(super) keys: Vec<i64>,
    /// What is looked up with the rows that `keys` are.
    pub(super) then: Option<Join>,
}

/// Where the values of a column are looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Join {
    pub(super) column: usize,
    pub(super) tree: Tree,
}

/// A page that was not in the cache when it was looked for.
pub(super) struct Miss<'a> {
    /// The tree that it is in.
    pub(super) tree: Tree,
    /// Whether that is a table.
    pub(super) is_table: bool,
    /// Whether a key may have led to it.
    pub(super) may_have: &'a dyn Fn(i64) -> bool,
}

/// What the pages tell that are in the cache.
pub(super) trait Known {
    /// The content of a leaf of an index.
    fn leaf(&self, frame: FrameKey) -> Option<Arc<[u8]>>;

    /// A row of a table.
    fn row(&self, table: Tree, rowid: i64) -> Option<Integers>;
}

/// What a connection's look-ups follow.
#[derive(Debug, Default)]
pub(super) struct Lookups {
    /// The leaf of an index that was read last.
    leaf: Option<FrameKey>,
    outer: Option<Outer>,
    /// A column of the rows that are looked up in the tree of `outer`, and where its values are.
    join: Option<Join>,
}

/// A leaf of an index whose entries are looked up.
#[derive(Debug)]
struct Outer {
    leaf: FrameKey,
    entries: Vec<Entry>,
    /// The number of columns, the rowid included.
    columns: usize,
    /// The column that is looked up.
    column: usize,
    /// Where.
    tree: Tree,
    /// The last entry that was looked up.
    at: Option<usize>,
    /// Columns and entries of which one led to the first page, if that cannot be told yet.
    maybe: Vec<(usize, usize)>,
    /// Look-ups in a row that followed.
    followed: usize,
    /// The last key that was not there, and what was looked up early with it.
    batch: Vec<i64>,
}

impl Lookups {
    /// A leaf of an index was read.
    pub(super) fn leaf_was_read(&mut self, frame: FrameKey) {
        self.leaf = Some(frame);
    }

    /// A page was not in the cache: what will likely be looked up after it.
    pub(super) fn missed(&mut self, miss: &Miss<'_>, known: &impl Known) -> Option<Batch> {
        if let Some(keys) = self.continue_outer(miss, known) {
            return (!keys.is_empty()).then_some(Batch { tree: miss.tree, keys, then: self.join });
        }
        if let Some(outer) = self.outer.as_mut().filter(|outer| outer.may_settle_by_row(miss)) {
            match &outer.settle_by_row(miss, known)[..] {
                [] => {}
                &[join] => {
                    self.join = Some(join);
                    let keys = outer.batch.clone();
                    return Some(Batch { tree: outer.tree, keys, then: self.join });
                }
                _ => return None,
            }
        }
        if let Some(outer) = self.outer.as_ref()
            && let Some(join) = outer.joined(miss, known)
        {
            self.join = Some(join);
            let keys = outer.batch.clone();
            return (keys.len() > 1).then_some(Batch { tree: outer.tree, keys, then: self.join });
        }
        let keys = self.begin(miss, known)?;
        (!keys.is_empty()).then_some(Batch { tree: miss.tree, keys, then: None })
    }

    /// Whether the page is looked up as those before were; which keys come next, then.
    fn continue_outer(&mut self, miss: &Miss<'_>, known: &impl Known) -> Option<Vec<i64>> {
        let outer = self.outer.as_mut().filter(|outer| outer.tree == miss.tree)?;
        let turned = self.leaf.filter(|leaf| *leaf != outer.leaf).and_then(|leaf| outer.turned(leaf, known));
        let (outer, keys) = match turned.and_then(|mut next| next.follow(miss).map(|keys| (next, keys))) {
            Some((next, keys)) => (self.outer.insert(next), keys),
            None => {
                let keys = outer.follow(miss)?;
                (outer, keys)
            }
        };
        if outer.has_begun() {
            self.join = None;
        }
        Some(keys)
    }

    /// Whether an entry of the leaf that was read last led to the page; which keys come next, then.
    fn begin(&mut self, miss: &Miss<'_>, known: &impl Known) -> Option<Vec<i64>> {
        let leaf = self.leaf?;
        let mut outer = Outer::new(leaf, record::entries(&known.leaf(leaf)?), miss.tree);
        let keys = outer.begin(miss)?;
        (self.outer, self.join) = (Some(outer), None);
        Some(keys)
    }
}

impl Outer {
    /// A leaf of which the rows are looked up.
    fn new(leaf: FrameKey, entries: Vec<Entry>, tree: Tree) -> Self {
        let columns = entries.first().map_or(0, |entry| entry.integers.len());
        let column = columns.saturating_sub(1);
        Self {
            leaf,
            entries,
            columns,
            column,
            tree,
            at: None,
            maybe: Vec::new(),
            followed: 0,
            batch: Vec::new(),
        }
    }

    /// What entry `n` has in the column that is looked up.
    fn key(&self, n: usize) -> Option<i64> {
        self.entries.get(n)?.integers.get(self.column).copied().flatten()
    }

    /// Whether the last look-up followed none.
    fn has_begun(&self) -> bool {
        self.followed == 1
    }

    /// Whether an entry led to the page, whatever was looked up before; which keys come next, then. If entries of several
    /// groups or columns may have, nothing is told before the next page.
    fn begin(&mut self, miss: &Miss<'_>) -> Option<Vec<i64>> {
        // Rows first. What all of a group begin with is not looked up once for each.
        let columns: Vec<(usize, Vec<usize>)> = (1..self.columns)
            .rev()
            .map(|column| (column, self.led_to(miss, column)))
            .filter(|(_, led)| !led.is_empty())
            .collect();
        let (column, led) = columns.first()?;
        let is_one_group = led.iter().all(|n| self.entries[*n].group == self.entries[led[0]].group);
        (self.column, self.at, self.followed) = (*column, Some(led[0]), 0);
        if is_one_group && (miss.is_table || columns.len() == 1) {
            return self.follow(miss);
        }
        self.batch = self.key(led[0]).into_iter().collect();
        let all = columns.iter().flat_map(|(column, led)| led.iter().map(|n| (*column, *n)));
        self.maybe = all.collect();
        if self.maybe.len() > MAYBE {
            self.maybe.clear();
        }
        Some(Vec::new())
    }

    /// The entries that may have led to the page by a column.
    fn led_to(&self, miss: &Miss<'_>, column: usize) -> Vec<usize> {
        let led = |entry: &Entry| entry.integers.get(column).copied().flatten().is_some_and(miss.may_have);
        (0..self.entries.len()).filter(|n| led(&self.entries[*n])).collect()
    }

    /// Tells which entry led to the page before, now that another one is looked up: two that follow each other are close
    /// together in the leaf, and look-ups begin at an end of a group.
    fn settle(&mut self, miss: &Miss<'_>) -> bool {
        let mut least = (SKIP + 1, true);
        let mut best = Vec::new();
        for (column, at) in std::mem::take(&mut self.maybe) {
            self.column = column;
            let leads = |n: usize| self.key(n).is_some_and(miss.may_have);
            let is_beside = |far: &usize| leads(at + far) || at.checked_sub(*far).is_some_and(leads);
            let Some(far) = (1..=SKIP).find(is_beside) else { continue };
            let rank = (far, !self.is_end_of_group(at));
            if rank < least {
                best.clear();
                least = rank;
            }
            if rank == least {
                best.push((column, at));
            }
        }
        let &[(column, at)] = &best[..] else { return false };
        (self.column, self.at, self.followed) = (column, Some(at), 1);
        true
    }

    /// Whether the page may be looked up because of one of the rows that may have been looked up.
    fn may_settle_by_row(&self, miss: &Miss<'_>) -> bool {
        self.tree != miss.tree && (1..=FEW).contains(&self.maybe.len())
    }

    /// Tells which entry led to the page before, by what its row has in a column that led to this one. If only one does, the
    /// rest of its group is looked up early.
    fn settle_by_row(&mut self, miss: &Miss<'_>, known: &impl Known) -> Vec<Join> {
        let rowid = self.columns - 1;
        let mut found = Vec::new();
        for &(_, at) in self.maybe.iter().filter(|(column, _)| *column == rowid) {
            self.column = rowid;
            let row = self.key(at).and_then(|key| known.row(self.tree, key)).unwrap_or_default();
            if let Some(column) = row.iter().position(|value| value.is_some_and(miss.may_have)) {
                found.push((at, Join { column, tree: miss.tree }));
            }
        }
        if found.iter().any(|(at, _)| self.is_end_of_group(*at)) {
            found.retain(|(at, _)| self.is_end_of_group(*at));
        }
        if let &[(at, _)] = &found[..] {
            let group = self.group_around(at);
            (self.at, self.followed) = (Some(at), 1);
            self.batch = self.key(at).into_iter().chain(group).collect();
            self.maybe.clear();
        } else {
            self.maybe = found.iter().map(|(at, _)| (rowid, *at)).collect();
        }
        found.into_iter().map(|(_, join)| join).collect()
    }

    /// Whether an entry is the first or the last of its group.
    fn is_end_of_group(&self, n: usize) -> bool {
        let is_in = |other: usize| self.entries.get(other).is_some_and(|e| e.group == self.entries[n].group);
        !is_in(n + 1) || n.checked_sub(1).is_none_or(|before| !is_in(before))
    }

    /// Whether an entry led to the page; which keys come next, then.
    fn follow(&mut self, miss: &Miss<'_>) -> Option<Vec<i64>> {
        if !self.maybe.is_empty() && !self.settle(miss) {
            return self.begin(miss);
        }
        let start = self.at.unwrap_or(0);
        let led = |n: &usize| self.key(*n).is_some_and(miss.may_have);
        let up = (start..self.entries.len()).find(led);
        let down = (0..start).rev().find(led);
        let now = match (up, down) {
            (Some(up), Some(down)) if start - down < up - start => down,
            (up, down) => up.or(down)?,
        };
        let follows = self.followed > 0 && now.abs_diff(start) <= SKIP;
        let is_ambiguous = !follows
            && (now + 1..self.entries.len())
                .any(|n| led(&n) && self.entries[n].group != self.entries[now].group);
        if is_ambiguous {
            return self.begin(miss);
        }
        self.at = Some(now);
        let keys: Vec<i64> = if follows {
            self.followed = (self.followed + 1).min(EARLY.len() - 1);
            self.after(now, now >= start).take(EARLY[self.followed]).collect()
        } else {
            let group = self.group_around(now);
            self.followed = if group.len() < GROUP { 1 } else { 2 };
            group
        };
        self.batch = self.key(now).into_iter().chain(keys.iter().copied()).collect();
        Some(keys)
    }

    /// The keys after those of entry `n`, in one direction.
    fn after(&self, n: usize, is_up: bool) -> impl Iterator<Item = i64> {
        let (up, down) = if is_up { (n + 1..self.entries.len(), 0..0) } else { (0..0, 0..n) };
        up.chain(down.rev()).filter_map(|n| self.key(n))
    }

    /// The keys of the entries that begin as entry `n` does, the nearest first.
    fn group_around(&self, n: usize) -> Vec<i64> {
        let is_in =
            |other: &usize| self.entries.get(*other).is_some_and(|e| e.group == self.entries[n].group);
        let by_distance = (1..=GROUP).flat_map(|far| [n.checked_add(far), n.checked_sub(far)]).flatten();
        by_distance.filter(is_in).filter_map(|other| self.key(other)).take(GROUP).collect()
    }

    /// The leaf that was read after this one. Look-ups go on as they did if those of this one were at its end.
    fn turned(&self, leaf: FrameKey, known: &impl Known) -> Option<Self> {
        let last = self.entries.len().saturating_sub(1);
        let early = EARLY[self.followed].max(self.batch.len());
        let to_end = self.at.is_some_and(|at| at + early >= last);
        let to_start = self.at.is_some_and(|at| at <= early && at < last / 2);
        let mut next = Self::new(leaf, record::entries(&known.leaf(leaf)?), self.tree);
        next.column = self.column;
        if to_end || to_start {
            next.followed = self.followed;
        }
        // Going down the next leaf is read from its end.
        next.at = (to_start && !to_end).then_some(next.entries.len());
        Some(next)
    }

    /// Whether a column of the rows that were looked up last led to the page.
    fn joined(&self, miss: &Miss<'_>, known: &impl Known) -> Option<Join> {
        let column = self.batch.iter().filter(|_| self.tree != miss.tree).find_map(|rowid| {
            let row = known.row(self.tree, *rowid)?;
            row.iter().position(|value| value.is_some_and(miss.may_have))
        })?;
        Some(Join { column, tree: miss.tree })
    }
}

/// The different pages of `pages`, in their order.
pub(super) fn distinct(pages: impl Iterator<Item = Pgno>) -> Vec<Pgno> {
    let mut seen = std::collections::HashSet::new();
    pages.filter(|page| seen.insert(*page)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::super::record::tests::index;
    use super::*;
    use crate::replica::map::Frame;

    /// The index leaves and rows that are in the cache.
    #[derive(Default)]
    struct Cached {
        leaves: HashMap<u64, Vec<u8>>,
        rows: HashMap<i64, Integers>,
    }

    impl Known for Cached {
        fn leaf(&self, frame: FrameKey) -> Option<Arc<[u8]>> {
            let found = self.leaves.iter().find(|(n, _)| key(**n) == frame);
            found.map(|(_, page)| page.clone().into())
        }

        fn row(&self, table: Tree, rowid: i64) -> Option<Integers> {
            self.rows.get(&rowid).filter(|_| table == POSTS).cloned()
        }
    }

    const POSTS: Tree = Tree { root: Pgno::ONE, depth: 2 };
    const USERS: Tree = Tree { root: Pgno::ONE, depth: 1 };

    fn key(n: u64) -> FrameKey {
        Frame { file: 1, size: 1, offset: n }.into()
    }

    /// A leaf whose entries begin with `first`, 10 of them with the same value; they name rows `row`, `row + step` and so on.
    fn leaf(row: i16, step: i16, count: i16) -> Vec<u8> {
        let entries: Vec<[i16; 2]> = (0..count).map(|n| [100 + n / 10, row + step * n]).collect();
        index(&entries.iter().map(|entry| &entry[..]).collect::<Vec<_>>())
    }

    fn missed(lookups: &mut Lookups, cached: &Cached, tree: Tree, row: i64) -> Vec<i64> {
        let batch = lookups.missed(&Miss { tree, is_table: tree == POSTS, may_have: &|r| r == row }, cached);
        batch.map_or_else(Vec::new, |batch| {
            assert_eq!((batch.tree, batch.then), (tree, None));
            batch.keys
        })
    }

    fn reading(page: Vec<u8>) -> (Lookups, Cached) {
        let mut lookups = Lookups::default();
        lookups.leaf_was_read(key(1));
        (lookups, Cached { leaves: [(1, page)].into(), ..Cached::default() })
    }

    #[test]
    fn rows_of_one_group_come_together_and_more_once_look_ups_follow_the_leaf() {
        let (mut lookups, cached) = reading(leaf(5, 10, 200));
        assert!(missed(&mut Lookups::default(), &cached, POSTS, 5).is_empty(), "no leaf was read");
        let group = missed(&mut lookups, &cached, POSTS, 5 + 10 * 153);
        let sorted = std::collections::BTreeSet::from_iter(group.iter().copied());
        assert_eq!(group[..4], [154, 152, 155, 151].map(|n| 5 + 10 * n), "the nearest first");
        assert_eq!(
            sorted.into_iter().collect::<Vec<_>>(),
            [150, 151, 152, 154, 155, 156, 157, 158, 159].map(|n| 5 + 10 * n)
        );
        let next = missed(&mut lookups, &cached, POSTS, 5 + 10 * 160);
        assert_eq!(next, (161..169).map(|n| 5 + 10 * n).collect::<Vec<_>>());
        assert_eq!(missed(&mut lookups, &cached, POSTS, 5 + 10 * 169).len(), 30);
        assert!(missed(&mut lookups, &cached, POSTS, 7).is_empty(), "a row of something else");
        assert_eq!(missed(&mut lookups, &cached, POSTS, 5).len(), 9, "another group");
    }

    #[test]
    fn what_several_entries_may_have_led_to_begins_nothing() {
        let (mut lookups, cached) = reading(leaf(0, 1, 200));
        let any = Miss { tree: POSTS, is_table: true, may_have: &|row| row < 50 };
        assert_eq!(lookups.missed(&any, &cached), None);
        assert_eq!(missed(&mut lookups, &cached, POSTS, 1), (2..10).collect::<Vec<_>>(), "it follows");
    }

    /// Groups of [`scattered`] whose first rows are on pages of others too.
    const GROUPS: [i16; 4] = [0, 4, 9, 13];

    /// Twenty groups of ten rows, scattered over a hundred pages of ten rows.
    fn scattered() -> (Vec<u8>, impl Fn(i16) -> i64) {
        let row = |n: i16| {
            let mut x = (n as u32 + 1).wrapping_mul(40503);
            for factor in [2_246_822_519, 3_266_489_917] {
                x = (x ^ (x >> 9)).wrapping_mul(factor);
            }
            ((x >> 8) & 0x3ff) as i16
        };
        let entries: Vec<[i16; 2]> = (0..200).map(|n| [n / 10, row(n)]).collect();
        (index(&entries.iter().map(|e| &e[..]).collect::<Vec<_>>()), move |n| i64::from(row(n)))
    }

    /// What is looked up early when pages of ten rows are missed.
    fn missed_pages(lookups: &mut Lookups, cached: &Cached, is_table: bool, pages: &[i64]) -> Vec<Vec<i64>> {
        let mut all = Vec::new();
        for page in pages {
            let miss = Miss { tree: POSTS, is_table, may_have: &|row| row / 10 == *page };
            all.push(lookups.missed(&miss, cached).map_or_else(Vec::new, |batch| batch.keys));
        }
        all
    }

    #[test]
    fn the_second_page_tells_which_group_led_to_the_first() {
        let (page, row) = scattered();
        for group in GROUPS {
            let rows: Vec<i64> = (0..10).map(|n| row(group * 10 + n)).collect();
            // Up and down.
            for (first, second, rest) in [(0, 1, 2..10), (9, 8, 0..8)] {
                let (mut lookups, cached) = reading(page.clone());
                let pages = [rows[first] / 10, rows[second] / 10];
                let early = missed_pages(&mut lookups, &cached, true, &pages);
                assert_eq!(early[0], [0; 0], "several groups are on the page");
                let mut expected = rows[rest].to_vec();
                if first > second {
                    expected.reverse();
                }
                assert_eq!(early[1], expected, "group {group}");
            }
        }
    }

    #[test]
    fn the_row_tells_which_group_led_to_its_page_once_one_of_its_columns_is_looked_up() {
        let (page, row) = scattered();
        let (mut lookups, mut cached) = reading(page);
        let rows: Vec<i64> = (0..10).map(|n| row(GROUPS[0] * 10 + n)).collect();
        let on_page = (0..1024).filter(|other| other / 10 == rows[0] / 10);
        cached.rows = on_page.map(|row| (row, vec![None, Some(row * 7)])).collect();
        assert_eq!(missed_pages(&mut lookups, &cached, true, &[rows[0] / 10]), [[0; 0]]);
        let miss = Miss { tree: USERS, is_table: true, may_have: &|user| user == rows[0] * 7 };
        let batch = lookups.missed(&miss, &cached).unwrap();
        assert_eq!((batch.tree, batch.then), (POSTS, Some(Join { column: 1, tree: USERS })));
        assert_eq!(batch.keys, rows);
        assert_eq!(missed_pages(&mut lookups, &cached, true, &[rows[1] / 10])[0].len(), 8, "it follows");
    }

    #[test]
    fn which_column_is_looked_up_in_an_index_is_told_by_the_second_page_too() {
        let entries: Vec<[i16; 3]> = (0..60).map(|n| [n / 20, n * 131 % 2000, n * 57 % 2000]).collect();
        let page = index(&entries.iter().map(|e| &e[..]).collect::<Vec<_>>());
        let (mut lookups, cached) = reading(page);
        let keys: Vec<i64> = entries.iter().map(|entry| i64::from(entry[1])).collect();
        let early = missed_pages(&mut lookups, &cached, false, &[keys[20] / 10, keys[21] / 10]);
        assert_eq!(early, [vec![], keys[22..30].to_vec()]);
    }

    #[test]
    fn what_nothing_tells_apart_begins_nothing() {
        // Two groups whose rows are side by side.
        let entries: Vec<[i16; 2]> = (0..20).map(|n| [n / 10, n % 10 * 10 + n / 10]).collect();
        let page = index(&entries.iter().map(|e| &e[..]).collect::<Vec<_>>());
        let (mut lookups, cached) = reading(page);
        assert_eq!(missed_pages(&mut lookups, &cached, true, &[0, 1, 2]), [[0; 0]; 3]);
    }

    #[test]
    fn a_large_group_comes_by_and_by() {
        let page =
            index(&(0..200).map(|n| [7, n]).collect::<Vec<_>>().iter().map(|e| &e[..]).collect::<Vec<_>>());
        let (mut lookups, cached) = reading(page);
        assert_eq!(missed(&mut lookups, &cached, POSTS, 0), (1..=16).collect::<Vec<_>>());
        assert_eq!(missed(&mut lookups, &cached, POSTS, 17), (18..50).collect::<Vec<_>>());
    }

    #[test]
    fn the_next_leaf_goes_on_and_another_one_does_not() {
        let (mut lookups, mut cached) = reading(leaf(5, 10, 20));
        for row in [5, 105, 115, 155] {
            missed(&mut lookups, &cached, POSTS, row);
        }
        cached.leaves.insert(2, leaf(1007, 10, 100));
        lookups.leaf_was_read(key(2));
        assert_eq!(missed(&mut lookups, &cached, POSTS, 1007).len(), 64);
        cached.leaves.insert(3, leaf(3009, 10, 100));
        lookups.leaf_was_read(key(3));
        assert_eq!(missed(&mut lookups, &cached, POSTS, 3009).len(), 9, "the leaf before was not at its end");
    }

    #[test]
    fn going_down_works_too() {
        let (mut lookups, cached) = reading(leaf(5, 10, 50));
        missed(&mut lookups, &cached, POSTS, 495);
        assert_eq!(missed(&mut lookups, &cached, POSTS, 395)[..2], [385, 375]);
    }

    #[test]
    fn a_column_of_the_rows_tells_what_is_looked_up_in_another_table() {
        let (mut lookups, mut cached) = reading(leaf(500, 1, 40));
        let rows = missed(&mut lookups, &cached, POSTS, 500);
        cached.rows = (500..540).map(|row| (row, vec![None, Some(1), Some(row + 2000)])).collect();
        let join = Join { column: 2, tree: USERS };
        let batch = lookups
            .missed(&Miss { tree: USERS, is_table: true, may_have: &|user| user == 2500 }, &cached)
            .unwrap();
        assert_eq!((batch.tree, batch.then), (POSTS, Some(join)));
        assert_eq!(batch.keys, [&[500][..], &rows].concat());
        let next = lookups
            .missed(&Miss { tree: POSTS, is_table: true, may_have: &|row| row == 510 }, &cached)
            .unwrap();
        assert_eq!((next.tree, next.then, next.keys.len()), (POSTS, Some(join), 8));
    }

    #[test]
    fn a_column_of_an_index_tells_what_is_looked_up_in_one() {
        let entries: Vec<[i16; 3]> = (0..40).map(|n| [n / 10, 500 + 7 * n, 3000 + n]).collect();
        let (mut lookups, mut cached) = reading(index(&entries.iter().map(|e| &e[..]).collect::<Vec<_>>()));
        let friends = missed(&mut lookups, &cached, USERS, 570);
        assert_eq!(friends, (11..20).map(|n| 500 + 7 * n).collect::<Vec<_>>());
        // What was looked up is a leaf of an index itself.
        cached.leaves.insert(2, leaf(0, 1, 9));
        lookups.leaf_was_read(key(2));
        assert_eq!(missed(&mut lookups, &cached, USERS, 640).len(), 8);
    }
}
