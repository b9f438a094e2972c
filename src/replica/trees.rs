//! The interior pages that were seen lately: where a page is in its tree, and what comes next.
//!
//! Pages are known by their numbers. After a transaction they may be something else until they are seen
//! again, so what is told here is a guess, good enough to fetch by and for nothing else.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lru::LruCache;

use super::btree::Interior;
use super::direction::Direction;
use crate::page::{PageCount, Pgno};

/// Interior pages that are remembered: about 3 MB at pages of 4 KiB, those of a table of 800 MB.
const MOST: NonZeroUsize = NonZeroUsize::new(512).expect("512 is not zero");
/// No tree of SQLite's is deeper.
const DEEPEST: usize = 20;

/// The interior pages that were seen last.
#[derive(Debug)]
pub(super) struct Trees(Mutex<LruCache<Pgno, Arc<Interior>>>);

/// The pages of one level of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tree {
    /// The uppermost page that is known.
    pub(super) root: Pgno,
    /// So many levels below it.
    pub(super) depth: usize,
}

/// Where a page is among the children of its parent.
#[derive(Clone, Debug)]
pub(super) struct Home {
    pub(super) parent: Pgno,
    pub(super) at: usize,
    node: Arc<Interior>,
}

impl Home {
    /// Whether the page may have the row `key`, or in an index entries that begin with `key`.
    pub(super) fn may_have(&self, key: i64) -> bool {
        self.node.may_have(self.at, key)
    }

    /// Whether the page is one of a table.
    pub(super) fn is_in_table(&self) -> bool {
        self.node.is_table()
    }

    /// The parent's children.
    pub(super) fn children(&self) -> &[Pgno] {
        &self.node.children
    }

    /// The parent's other children, those nearest to this one first.
    pub(super) fn outwards(&self) -> impl Iterator<Item = Pgno> {
        let by_distance =
            (1..self.children().len()).flat_map(|n| [self.at.checked_add(n), self.at.checked_sub(n)]);
        by_distance.flatten().filter_map(|at| self.children().get(at).copied())
    }
}

impl Trees {
    pub(super) fn new() -> Self {
        Self(Mutex::new(LruCache::new(MOST)))
    }

    /// Remembers page `pgno` of a database of `commit` pages, if it is an interior page.
    pub(super) fn learn(&self, pgno: Pgno, page: &[u8], commit: PageCount) {
        let Some(node) = Interior::parse(pgno, page) else { return };
        if node.children.iter().all(|child| commit.contains(*child) && *child != pgno) {
            self.lock().put(pgno, Arc::new(node));
        }
    }

    /// Where `pgno` is, if its parent is known.
    pub(super) fn home(&self, pgno: Pgno) -> Option<Home> {
        let mut nodes = self.lock();
        let found = nodes.iter().find_map(|(parent, node)| {
            node.position(pgno).map(|at| Home { parent: *parent, at, node: node.clone() })
        })?;
        nodes.promote(&found.parent);
        Some(found)
    }

    /// The page beside `pgno` on its level, if their common parent is known.
    pub(super) fn beside(&self, pgno: Pgno, direction: Direction) -> Option<Pgno> {
        let home = self.home(pgno)?;
        let at = match direction {
            Direction::Up => home.at.checked_add(1)?,
            Direction::Down => home.at.checked_sub(1)?,
        };
        home.children().get(at).copied()
    }

    /// The children of `pgno`, if it is known.
    pub(super) fn children(&self, pgno: Pgno) -> Option<Arc<Interior>> {
        self.lock().peek(&pgno).cloned()
    }

    /// Whether one of `pages` is known to be an interior page. Children of one page are all of one kind.
    pub(super) fn is_any_known(&self, pages: &[Pgno]) -> bool {
        let nodes = self.lock();
        pages.iter().any(|page| nodes.contains(page))
    }

    /// The way down to the row `key`, or in an index to the entries that begin with `key`: the last page of it that can be
    /// told, and how many levels below the root that is, at most the depth of `tree`.
    pub(super) fn way_to(&self, tree: Tree, key: i64) -> (Pgno, usize) {
        let nodes = self.lock();
        let (mut page, mut level) = (tree.root, 0);
        while level < tree.depth
            && let Some(child) = nodes.peek(&page).and_then(|node| node.child_with(key))
        {
            (page, level) = (child, level + 1);
        }
        (page, level)
    }

    /// The tree in which `pgno` is, as far up as is known, and its level.
    pub(super) fn tree_of(&self, pgno: Pgno) -> Tree {
        let (mut root, mut depth) = (pgno, 0);
        while let Some(home) = self.home(root).filter(|_| depth < DEEPEST) {
            (root, depth) = (home.parent, depth + 1);
        }
        Tree { root, depth }
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<Pgno, Arc<Interior>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::btree::tests::table;
    use super::*;

    fn pgno(n: u32) -> Pgno {
        Pgno::new(n).unwrap()
    }

    /// Root 2 with the children 3 and 4; those with the leaves 10, 12, 11 and 20, 21.
    fn known() -> Trees {
        let trees = Trees::new();
        for (n, page) in
            [(2, table(&[3, 4], &[30])), (3, table(&[10, 12, 11], &[10, 20])), (4, table(&[20, 21], &[40]))]
        {
            trees.learn(pgno(n), &page, PageCount::new(100));
        }
        trees
    }

    #[test]
    fn a_page_is_found_with_its_neighbours() {
        let trees = known();
        let home = trees.home(pgno(12)).unwrap();
        assert_eq!((home.parent, home.at, home.children().len()), (pgno(3), 1, 3));
        assert_eq!((home.may_have(15), home.may_have(25)), (true, false));
        assert_eq!(home.outwards().collect::<Vec<_>>(), [11, 10].map(pgno));
        assert_eq!(trees.home(pgno(10)).unwrap().outwards().collect::<Vec<_>>(), [12, 11].map(pgno));
        assert_eq!(trees.beside(pgno(3), Direction::Up), Some(pgno(4)));
        assert_eq!(trees.beside(pgno(4), Direction::Down), Some(pgno(3)));
        assert_eq!(trees.beside(pgno(4), Direction::Up), None);
        assert!(trees.home(pgno(2)).is_none() && trees.home(pgno(99)).is_none());
    }

    #[test]
    fn a_row_is_found_from_the_root() {
        let trees = known();
        let tree = Tree { root: pgno(2), depth: 2 };
        assert_eq!(trees.tree_of(pgno(21)), tree);
        assert_eq!(trees.way_to(tree, 15), (pgno(12), 2));
        assert_eq!(trees.way_to(tree, 41), (pgno(21), 2));
        let trees = Trees::new();
        trees.learn(pgno(2), &table(&[3, 4], &[30]), PageCount::new(100));
        assert_eq!(trees.way_to(tree, 31), (pgno(4), 1), "what is below is not known");
    }

    #[test]
    fn what_cannot_be_a_tree_is_not_remembered() {
        let trees = Trees::new();
        trees.learn(pgno(2), &table(&[3, 4], &[30]), PageCount::new(3));
        trees.learn(pgno(3), &table(&[3, 4], &[30]), PageCount::new(100));
        assert!(trees.children(pgno(2)).is_none() && trees.children(pgno(3)).is_none());
    }
}
