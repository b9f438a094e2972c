//! Which pages come after a page, in the order in which they are likely to be wanted.

use crate::page::{PageCount, Pgno};
use crate::replica::direction::Direction;
use crate::replica::trees::Trees;

/// So many children side by side tell that a table was filled in order.
const IN_ORDER: usize = 4;

/// Where a place goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spot {
    /// A page of the file.
    File(Pgno),
    /// A page of a part of the file that ends with the interior page `end`, whose children come after it.
    Run { page: Pgno, end: Pgno },
    /// A child of an interior page.
    Tree { parent: Pgno, at: usize },
    /// An interior page that is not known yet: its children come after it.
    Above(Pgno),
}

/// Pages one after another, from a spot on.
#[derive(Clone, Debug)]
pub(in crate::replica) struct Walk {
    pub(super) spot: Option<Spot>,
    pub(super) direction: Direction,
}

impl Walk {
    /// The next page of a database of `commit` pages.
    pub(in crate::replica) fn next(&mut self, trees: &Trees, commit: PageCount) -> Option<Pgno> {
        let spot = match self.spot? {
            Spot::Run { page, end } if page > end => {
                trees.children(end)?;
                Spot::Tree { parent: end, at: 0 }
            }
            spot => spot,
        };
        let (page, next) = match spot {
            Spot::File(page) => (page, self.direction.step(page).map(Spot::File)),
            Spot::Run { page, end } => (page, self.direction.step(page).map(|page| Spot::Run { page, end })),
            Spot::Above(page) => (page, self.below(page)),
            Spot::Tree { parent, at } => {
                let children = &trees.children(parent)?.children;
                (*children.get(at)?, self.after(trees, parent, at, children))
            }
        };
        self.spot = next;
        commit.contains(page).then_some(page)
    }

    /// What comes after a child: the next one, or the first of the parent's neighbour.
    fn after(&self, trees: &Trees, parent: Pgno, at: usize, children: &[Pgno]) -> Option<Spot> {
        if let Some(at) = self.direction.next(at).filter(|at| *at < children.len()) {
            return Some(Spot::Tree { parent, at });
        }
        let beside = trees.beside(parent, self.direction)?;
        match trees.children(beside) {
            Some(node) if self.direction == Direction::Down => {
                Some(Spot::Tree { parent: beside, at: node.children.len().checked_sub(1)? })
            }
            Some(_) => Some(Spot::Tree { parent: beside, at: 0 }),
            // What is below the neighbour is not known. In a table that was filled in order it is what
            // comes next in the file, and the neighbour itself is there too.
            None if self.is_in_order(children) => {
                let page = self.direction.step(children[at])?;
                Some(match self.run_end(trees, children, beside) {
                    Some(end) => Spot::Run { page, end },
                    None => Spot::File(page),
                })
            }
            None => Some(Spot::Above(beside)),
        }
    }

    /// The last of the parents from `beside` on that lie among the children of all of them: each comes before
    /// the one before it has used up its number of children twice. What comes after the last one's children
    /// may be something else.
    fn run_end(&self, trees: &Trees, children: &[Pgno], beside: Pgno) -> Option<Pgno> {
        let is_near =
            |from: Pgno, to: Pgno, most: usize| to > from && (to.get() - from.get()) as usize <= most;
        if self.direction == Direction::Down || !is_near(*children.last()?, beside, children.len()) {
            return None;
        }
        let home = trees.home(beside)?;
        let parents = home.children()[home.at..].windows(2);
        let in_order = parents.take_while(|two| is_near(two[0], two[1], 2 * children.len()));
        Some(in_order.last().map_or(beside, |two| two[1]))
    }

    /// Whether the last pages of a walk lie one after another in the file.
    fn is_in_order(&self, children: &[Pgno]) -> bool {
        let end = match self.direction {
            Direction::Up => &children[children.len().saturating_sub(IN_ORDER)..],
            Direction::Down => &children[..children.len().min(IN_ORDER)],
        };
        end.len() == IN_ORDER
            && end.windows(2).all(|two| (1..=2).contains(&two[1].get().wrapping_sub(two[0].get())))
    }

    fn below(&self, parent: Pgno) -> Option<Spot> {
        (self.direction == Direction::Up).then_some(Spot::Tree { parent, at: 0 })
    }
}
