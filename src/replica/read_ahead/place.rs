//! A place at which a connection reads, and whether a page continues it.

use std::ops::Range;

use super::walk::{Spot, Walk};
use crate::page::Pgno;
use crate::replica::direction::Direction;
use crate::replica::trees::Trees;

/// A scan may leave out this many pages and still counts as one.
const SKIP: u32 = 16;
/// Leaving out pages that are here already does not count, up to so many.
const HERE: u32 = 64;

/// One place.
#[derive(Debug, Default)]
pub(super) struct Place {
    pub(super) seen: Seen,
    /// The size of the last window.
    pub(super) bytes: u64,
    /// The size of all windows so far.
    pub(super) total: u64,
    /// The page whose reading asks for the next window.
    pub(super) trigger: Option<Pgno>,
    pub(super) next: Option<Walk>,
    /// The number of the last request.
    pub(super) request: u64,
}

/// What a place has looked at last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Seen {
    #[default]
    Nothing,
    /// Pages of the file.
    File(Range<u32>),
    /// Children of an interior page.
    Tree { parent: Pgno, at: Range<u32> },
}

/// In which direction reading goes on from a range if `n` is next, leaving out at most `most`.
fn continues(seen: &Range<u32>, n: u32, most: u32) -> Option<Direction> {
    if (seen.end..=seen.end.saturating_add(most)).contains(&n) {
        Some(Direction::Up)
    } else if (seen.start.saturating_sub(most + 1)..seen.start).contains(&n) {
        Some(Direction::Down)
    } else {
        None
    }
}

impl Place {
    pub(super) fn continues(
        &self,
        spot: Spot,
        trees: &Trees,
        is_here: &dyn Fn(Pgno) -> bool,
    ) -> Option<Direction> {
        match (&self.seen, spot) {
            (Seen::File(pages), Spot::File(page) | Spot::Run { page, .. }) => {
                continues(pages, page.get(), SKIP)
            }
            // A walk that went on in the order of the file, and what was there is known by now.
            (Seen::File(pages), Spot::Tree { parent, at }) => {
                let node = trees.children(parent)?;
                let child = |at: usize| node.children.get(at).map(|child| child.get());
                // A page that was split off lies elsewhere, and its neighbours in the tree do not.
                let was_passed = |at: Option<usize>| at.and_then(child).is_some_and(|n| pages.contains(&n));
                continues(pages, child(at)?, SKIP)
                    .or_else(|| was_passed(at.checked_sub(1)).then_some(Direction::Up))
                    .or_else(|| was_passed(at.checked_add(1)).then_some(Direction::Down))
            }
            (Seen::Tree { parent, at: seen }, Spot::Tree { parent: now, at }) if *parent == now => {
                let direction = continues(seen, at as u32, HERE)?;
                let children = &trees.children(now)?.children;
                let between = match direction {
                    Direction::Up => children.get(seen.end as usize..at)?,
                    Direction::Down => children.get(at + 1..seen.start as usize)?,
                };
                let left_out = between.iter().filter(|page| !is_here(**page)).count();
                (left_out as u32 <= SKIP).then_some(direction)
            }
            (Seen::Tree { parent, at: seen }, Spot::Tree { parent: now, at }) => {
                let children = trees.children(*parent)?.children.len() as u32;
                let to_end = children.saturating_sub(seen.end);
                if at as u32 + to_end <= HERE && trees.beside(*parent, Direction::Up) == Some(now) {
                    return Some(Direction::Up);
                }
                let from_start = trees.children(now)?.children.len() as u32 - at as u32 + seen.start;
                (from_start <= HERE && trees.beside(*parent, Direction::Down) == Some(now))
                    .then_some(Direction::Down)
            }
            _ => None,
        }
    }
}

/// The last pages of a walk that have one parent.
pub(super) fn seen_in_tree(mut pages: &[Pgno], trees: &Trees) -> Seen {
    // A walk that ends with an interior page has not seen anything below it.
    if let [rest @ .., before, last] = pages {
        let above = trees.home(*before).and_then(|home| trees.home(home.parent));
        if above.is_some_and(|above| above.children().contains(last)) {
            pages = &pages[..rest.len() + 1];
        }
    }
    let Some(home) = pages.last().and_then(|last| trees.home(*last)) else { return Seen::Nothing };
    let (mut start, mut end) = (home.at, home.at + 1);
    for page in pages.iter().rev() {
        let children = home.children();
        if start > 0 && children[start - 1] == *page {
            start -= 1;
        } else if children.get(end) == Some(page) {
            end += 1;
        } else if children[start] != *page && children[end - 1] != *page {
            break;
        }
    }
    Seen::Tree { parent: home.parent, at: start as u32..end as u32 }
}
