//! How much is read at once: the more, the longer a connection reads on in one direction.
//!
//! A connection reads in several places by turns: a table and its index, both sides of a join, the rows
//! of a table and their overflow pages. Each place is followed by itself. Where the parents of the pages
//! are known, a place follows the tree, else the order of the file.
//!
//! A page of a tree that continues nothing is fetched alone: its neighbours are most likely not wanted.

mod place;
mod walk;

use std::fmt;

use self::place::{Place, Seen, seen_in_tree};
use self::walk::{Spot, Walk};
use super::direction::Direction;
use super::index_prefetch::Lookups;
use super::pace::Pace;
use super::trees::{Home, Trees};
use crate::page::Pgno;

/// What a page brings along of which no parent is known: costs hardly more than the round trip.
const SMALLEST: u64 = 32 * 1024;
/// How much more is read each time that reading goes on.
const GROWTH: u64 = 8;
/// Up to here that fast, then twice as much each time.
const MEDIUM: u64 = 2 * 1024 * 1024;
/// What is read at once of a table that is scanned.
const LARGE: u64 = 4 * 1024 * 1024;
/// And from a store that is slow to begin an answer and fast from then on.
const LARGEST: u64 = 16 * 1024 * 1024;
/// Who has read so much in one place gets the next window before asking for it.
const STEADY: u64 = 4 * 1024 * 1024;
/// Places that are followed.
const PLACES: usize = 6;
/// After so many pages in a row that continue nothing, a page comes alone.
const STRAYS: u32 = 4;
/// Parents below which interior pages were missing that a connection remembers: those of a table and its indexes, or of
/// both sides of a join, are met by turns.
const PARENTS: usize = 4;
/// Interior pages that a connection remembers to have reported.
const REPORTED: usize = 64;

/// What to read for a page that is not in the cache, and beyond it.
#[derive(Debug)]
pub(super) struct Window {
    /// The pages in the order in which they are likely to be wanted; the first is the one that is.
    pub(super) pages: Walk,
    /// About how many bytes.
    pub(super) bytes: u64,
    place: usize,
}

/// Says whether a wait shall end.
pub(super) type Interrupted = Box<dyn Fn() -> bool + Send>;

/// Where a connection has been reading.
pub struct ReadAhead {
    interrupted: Option<Interrupted>,
    places: [Place; PLACES],
    requests: u64,
    strays: u32,
    reported: [u64; REPORTED],
    /// Where interior pages were missing, latest last; at most [`PARENTS`].
    scattered: Vec<Scattered>,
    /// What an index told of the rows to come.
    pub(super) lookups: Lookups,
}

/// Interior pages below one page that were missing here and there.
#[derive(Debug)]
struct Scattered {
    parent: Pgno,
    /// Which child of the parent was missing last.
    last: usize,
    count: u32,
}

impl Default for ReadAhead {
    fn default() -> Self {
        let (places, lookups) = (Default::default(), Lookups::default());
        Self {
            interrupted: None,
            places,
            requests: 0,
            strays: 0,
            reported: [0; REPORTED],
            scattered: Vec::new(),
            lookups,
        }
    }
}

impl fmt::Debug for ReadAhead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadAhead").field("places", &self.places).finish_non_exhaustive()
    }
}

impl ReadAhead {
    /// What to read for `pgno`: more than before if it continues what was read somewhere.
    /// `is_here` tells of which pages nothing needs to be fetched.
    pub(super) fn window(
        &mut self,
        pgno: Pgno,
        trees: &Trees,
        pace: &Pace,
        is_here: &dyn Fn(Pgno) -> bool,
    ) -> Window {
        self.requests += 1;
        let home = trees.home(pgno);
        let spot =
            home.as_ref().map_or(Spot::File(pgno), |home| Spot::Tree { parent: home.parent, at: home.at });
        let continued = self
            .places
            .iter()
            .enumerate()
            .find_map(|(place, p)| p.continues(spot, trees, is_here).map(|direction| (place, direction)));
        // What comes after the children of an interior page brings the interior page after it, too.
        let is_interior = home.as_ref().is_some_and(|home| trees.is_any_known(home.children()));
        let Some((place, direction)) = continued else {
            self.strays += 1;
            let alone = home.is_some() || self.strays > STRAYS;
            let bytes = if alone { 0 } else { SMALLEST };
            let place = self.oldest();
            self.places[place] = Place::default();
            return Window { pages: Walk { spot: Some(spot), direction: Direction::Up }, bytes, place };
        };
        self.strays = 0;
        let bytes = if is_interior { 0 } else { larger(self.places[place].bytes, pace) };
        Window { pages: Walk { spot: Some(spot), direction }, bytes, place }
    }

    /// The window that follows what was read where reading `pgno` asks for it.
    pub(super) fn next_window(&mut self, pgno: Pgno, pace: &Pace) -> Option<Window> {
        let place = self.places.iter().position(|place| place.trigger == Some(pgno))?;
        self.requests += 1;
        self.places[place].trigger = None;
        let pages = self.places[place].next.take()?;
        Some(Window { pages, bytes: larger(self.places[place].bytes, pace), place })
    }

    /// Remembers what was looked at for a window: `pages`, and after them is `rest`.
    pub(super) fn looked_at(&mut self, window: &Window, pages: &[Pgno], rest: Walk, trees: &Trees) {
        let (Some(first), Some(last)) = (pages.first(), pages.last()) else { return };
        let is_in_file = |walk: &Walk| matches!(walk.spot, Some(Spot::File(_) | Spot::Run { .. }));
        let seen = if is_in_file(&window.pages) || is_in_file(&rest) {
            let (low, high) = if first < last { (first, last) } else { (last, first) };
            Seen::File(low.get()..high.get().saturating_add(1))
        } else {
            seen_in_tree(pages, trees)
        };
        let place = &mut self.places[window.place];
        place.seen = seen;
        place.bytes = window.bytes;
        place.total += window.bytes;
        let steady = place.total >= STEADY && window.bytes > 0;
        place.trigger = steady.then(|| pages[pages.len() / 8]);
        place.next = steady.then_some(rest);
        place.request = self.requests;
    }

    /// Whether reading `pgno` asks for the next window.
    pub(super) fn is_trigger(&self, pgno: Pgno) -> bool {
        self.places.iter().any(|place| place.trigger == Some(pgno))
    }

    /// The interior page `home` was missing. Returns how many below the same parent were by now, here and
    /// there: a scan needs them one after another.
    pub(super) fn interior_was_missing(&mut self, home: &Home) -> u32 {
        let known = self.scattered.iter().position(|scattered| scattered.parent == home.parent);
        let before = known.map(|place| self.scattered.remove(place));
        let continues = before.as_ref().is_some_and(|before| before.last.abs_diff(home.at) <= 1);
        let count = before.map_or(0, |before| before.count).saturating_add(u32::from(!continues));
        if self.scattered.len() == PARENTS {
            self.scattered.remove(0);
        }
        self.scattered.push(Scattered { parent: home.parent, last: home.at, count });
        count
    }

    /// Whether the application has interrupted the query.
    pub(super) fn is_interrupted(&self) -> bool {
        self.interrupted.as_ref().is_some_and(|interrupted| interrupted())
    }

    /// From now on `interrupted` is asked.
    pub(super) fn ask_for_interrupts(&mut self, interrupted: Interrupted) {
        self.interrupted = Some(interrupted);
    }

    /// Whether the interior page whose frame has this number has not been reported lately.
    pub(super) fn is_news(&mut self, frame: u64) -> bool {
        let slot = &mut self.reported[(frame.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58) as usize % REPORTED];
        std::mem::replace(slot, frame) != frame
    }

    /// The place that was not read at for the longest time.
    fn oldest(&self) -> usize {
        let oldest = self.places.iter().enumerate().min_by_key(|(_, place)| place.request);
        oldest.map_or(0, |(n, _)| n)
    }
}

/// The size of the window after one of `bytes`. While a large one is read the next one is on its way: it has
/// what comes in the time of a round trip, and half as much again for the time that its own bytes take. Two requests that
/// share the line bring it, each of which is measured at half its rate.
fn larger(bytes: u64, pace: &Pace) -> u64 {
    let limit = pace.worthwhile().map_or(0, |bytes| bytes * 3).clamp(LARGE, LARGEST);
    match bytes {
        0 => SMALLEST,
        _ if bytes < MEDIUM => (bytes * GROWTH).min(MEDIUM),
        _ => (bytes * 2).min(limit),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::btree::tests::table;
    use super::*;
    use crate::page::PageCount;

    const COMMIT: PageCount = PageCount::new(100_000);

    fn pgno(n: u32) -> Pgno {
        Pgno::new(n).unwrap()
    }

    /// Asks for `n`, looks at up to `most` pages, and says which and for how many KiB.
    fn ask(reads: &mut ReadAhead, trees: &Trees, n: u32, most: usize) -> (Vec<u32>, u64) {
        let window = reads.window(pgno(n), trees, &Pace::default(), &|_| false);
        let mut walk = window.pages.clone();
        let most = if window.bytes == 0 { 1 } else { most };
        let pages: Vec<Pgno> = std::iter::from_fn(|| walk.next(trees, COMMIT)).take(most).collect();
        reads.looked_at(&window, &pages, walk, trees);
        (pages.iter().map(|page| page.get()).collect(), window.bytes / 1024)
    }

    #[test]
    fn reading_on_in_either_direction_gets_more_each_time() {
        let (mut reads, trees) = (ReadAhead::default(), Trees::new());
        assert_eq!(ask(&mut reads, &trees, 1000, 3), (vec![1000, 1001, 1002], 32));
        assert_eq!(ask(&mut reads, &trees, 1003, 2), (vec![1003, 1004], 256));
        assert_eq!(ask(&mut reads, &trees, 1008, 1), (vec![1008], 2048));
        assert_eq!(ask(&mut reads, &trees, 5000, 2), (vec![5000, 5001], 32));
        assert_eq!(ask(&mut reads, &trees, 4999, 2), (vec![4999, 4998], 256));
        assert_eq!(ask(&mut reads, &trees, 4990, 2), (vec![4990, 4989], 2048));
        for n in 0..10 {
            ask(&mut reads, &trees, 1009 + n, 1);
        }
        assert_eq!(ask(&mut reads, &trees, 1019, 1).1 * 1024, LARGE);
    }

    #[test]
    fn several_places_are_followed_by_turns() {
        let (mut reads, trees) = (ReadAhead::default(), Trees::new());
        for (round, kib) in [32, 256, 2048].into_iter().enumerate() {
            for place in 0..PLACES as u32 {
                // The first pages that continue nothing bring others, later ones do not.
                let kib = if round == 0 && place >= STRAYS { 0 } else { kib };
                let kib = if round > 0 && place >= STRAYS { [32, 256][round - 1] } else { kib };
                assert_eq!(ask(&mut reads, &trees, place * 1000 + 1 + round as u32, 1).1, kib);
            }
        }
    }

    /// Root 2 with the interior pages 3, 4, 5; those with the leaves 30.., 70, 60, 50 and 90...
    fn known(all: bool) -> Trees {
        let trees = Trees::new();
        trees.learn(pgno(2), &table(&[3, 4, 5], &[30, 60]), COMMIT);
        trees.learn(pgno(3), &table(&[30, 32, 31], &[10, 20]), COMMIT);
        if all {
            trees.learn(pgno(4), &table(&[70, 60, 50], &[40, 50]), COMMIT);
        }
        trees
    }

    #[test]
    fn a_place_in_a_tree_follows_the_tree() {
        let (mut reads, trees) = (ReadAhead::default(), known(true));
        assert_eq!(ask(&mut reads, &trees, 30, 9), (vec![30], 0));
        assert_eq!(ask(&mut reads, &trees, 32, 3), (vec![32, 31, 70], 32));
        assert_eq!(ask(&mut reads, &trees, 60, 9), (vec![60, 50, 5], 256));
        trees.learn(pgno(5), &table(&[90, 91], &[70]), COMMIT);
        assert_eq!(ask(&mut reads, &trees, 90, 9), (vec![90, 91], 2048));
        // And down.
        let mut reads = ReadAhead::default();
        assert_eq!(ask(&mut reads, &trees, 50, 2), (vec![50], 0));
        assert_eq!(ask(&mut reads, &trees, 60, 9), (vec![60, 70, 31, 32, 30], 32));
    }

    #[test]
    fn interior_pages_one_after_another_do_not_bring_those_that_are_far_away() {
        let (mut reads, trees) = (ReadAhead::default(), known(true));
        assert_eq!(ask(&mut reads, &trees, 3, 9), (vec![3], 0));
        assert_eq!(ask(&mut reads, &trees, 4, 9), (vec![4], 0));
        let missing =
            |reads: &mut ReadAhead, page| reads.interior_was_missing(&trees.home(pgno(page)).unwrap());
        let counts = [3, 4, 5, 3].map(|page| missing(&mut reads, page));
        assert_eq!(counts, [1, 1, 1, 2], "only what does not come after another counts");
    }

    #[test]
    fn interior_pages_that_are_missing_by_turns_below_several_parents_count_below_each() {
        let (mut reads, trees) = (ReadAhead::default(), Trees::new());
        let of = |parent: u32| [0, 1, 2].map(|n| parent * 10 + n);
        for parent in 11..=15 {
            trees.learn(pgno(parent), &table(&of(parent), &[10, 20]), COMMIT);
        }
        let missing =
            |reads: &mut ReadAhead, page| reads.interior_was_missing(&trees.home(pgno(page)).unwrap());
        for (n, count) in [(0, 1), (2, 2)] {
            let counts = [11, 12, 13, 14].map(|parent| missing(&mut reads, of(parent)[n]));
            assert_eq!(counts, [count; 4]);
        }
        missing(&mut reads, of(15)[0]);
        assert_eq!(
            missing(&mut reads, of(11)[0]),
            1,
            "the one that was met the longest time ago is forgotten"
        );
    }

    #[test]
    fn an_interior_page_that_is_not_known_comes_before_its_leaves() {
        let (mut reads, trees) = (ReadAhead::default(), known(false));
        ask(&mut reads, &trees, 32, 1);
        assert_eq!(ask(&mut reads, &trees, 31, 9), (vec![31, 4], 32));
        trees.learn(pgno(4), &table(&[70, 60, 50], &[40, 50]), COMMIT);
        assert_eq!(ask(&mut reads, &trees, 70, 2), (vec![70, 60], 256));
    }

    #[test]
    fn a_table_that_was_filled_in_order_goes_on_in_the_file() {
        let (mut reads, trees) = (ReadAhead::default(), Trees::new());
        trees.learn(pgno(2), &table(&[3, 4, 5], &[30, 60]), COMMIT);
        trees.learn(pgno(3), &table(&[30, 31, 32, 33, 35], &[10, 20, 30, 40]), COMMIT);
        ask(&mut reads, &trees, 30, 1);
        assert_eq!(ask(&mut reads, &trees, 31, 7), (vec![31, 32, 33, 35, 36, 37, 38], 32));
        trees.learn(pgno(4), &table(&[37, 39, 40], &[60, 70]), COMMIT);
        assert_eq!(ask(&mut reads, &trees, 39, 2), (vec![39, 40], 256));
    }

    #[test]
    fn pages_that_were_split_off_continue_what_was_read_in_the_order_of_the_file() {
        for (split, pages, rest) in [(90, vec![90, 32, 33, 95, 34], 256), (70, vec![70], 0)] {
            let (mut reads, trees) = (ReadAhead::default(), Trees::new());
            assert_eq!(ask(&mut reads, &trees, 30, 3), (vec![30, 31, 32], 32));
            trees.learn(pgno(3), &table(&[30, 31, 90, 32, 33, 95, 34], &[1, 2, 3, 4, 5, 6]), COMMIT);
            trees.learn(pgno(4), &table(&[60, 70, 80], &[7, 8]), COMMIT);
            assert_eq!(ask(&mut reads, &trees, split, 9), (pages, rest));
        }
    }

    #[test]
    fn large_windows_are_what_two_requests_bring_in_a_round_trip_and_half_as_much_again() {
        let pace = Pace::default();
        for _ in 0..50 {
            pace.note(Duration::from_millis(20), Duration::from_millis(10), 1_500_000);
        }
        assert!((8_900_000..9_100_000).contains(&larger(LARGE * 2, &pace)));
        assert_eq!(larger(LARGE * 2, &Pace::default()), LARGE);
    }

    #[test]
    fn pages_that_are_here_are_not_left_out() {
        let trees = Trees::new();
        let children: Vec<u32> = (0..60).map(|n| 100 + 7 * n).collect();
        trees.learn(pgno(3), &table(&children, &(0..59).collect::<Vec<u8>>()), COMMIT);
        for (here, kib) in [(false, 0), (true, 32)] {
            let mut reads = ReadAhead::default();
            ask(&mut reads, &trees, children[2], 1);
            let window = reads.window(pgno(children[40]), &trees, &Pace::default(), &|_| here);
            assert_eq!(window.bytes / 1024, kib);
        }
    }

    #[test]
    fn a_steady_reader_is_one_window_ahead() {
        let (mut reads, trees) = (ReadAhead::default(), Trees::new());
        let mut at = 1000;
        while reads.places.iter().all(|place| place.trigger.is_none()) {
            assert!(at < 1100, "never steady");
            let pages = ask(&mut reads, &trees, at, 8).0;
            at = pages.last().unwrap() + 1;
        }
        assert!(reads.next_window(pgno(at), &Pace::default()).is_none());
        assert!(reads.is_trigger(pgno(at - 7)));
        let window = reads.next_window(pgno(at - 7), &Pace::default()).unwrap();
        assert_eq!(window.pages.clone().next(&trees, COMMIT), Some(pgno(at)));
        assert_eq!(window.bytes, LARGE);
        assert!(reads.next_window(pgno(at - 7), &Pace::default()).is_none(), "once is enough");
    }
}
