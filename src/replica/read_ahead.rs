//! How much is read at once: the more, the longer a connection reads on in one direction.
//!
//! A connection reads in several places by turns: a table and its index, both sides of a join, the rows
//! of a table and their overflow pages. Each place is followed by itself.

use std::ops::Range;

use super::pace::Pace;
use crate::page::Pgno;

/// What a single page brings along: costs hardly more than the round trip.
const SMALLEST: u64 = 32 * 1024;
/// What is read at once of a table that is scanned.
const LARGE: u64 = 1024 * 1024;
/// And from a store that is slow to begin an answer and fast from then on.
const LARGEST: u64 = 16 * 1024 * 1024;
/// A scan may leave out this many pages and still counts as one.
const SKIP: u32 = 16;
/// Places that are followed.
const PLACES: usize = 6;

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

    /// The other direction.
    pub(super) fn back(self) -> Self {
        match self {
            Self::Up => Self::Down,
            Self::Down => Self::Up,
        }
    }
}

/// What to read for a page that is not in the cache.
#[derive(Debug)]
pub(super) struct Window {
    pub(super) direction: Direction,
    /// The most bytes.
    pub(super) bytes: u64,
    /// Pages between those that were read before and this one: read too, they are likely to be wanted.
    pub(super) skipped: usize,
    place: usize,
}

/// Where a connection has been reading.
#[derive(Debug, Default)]
pub struct ReadAhead {
    places: [Place; PLACES],
    requests: u64,
}

/// One place.
#[derive(Debug, Default)]
struct Place {
    /// The pages that were looked at for the last request, from the first to after the last.
    last: Range<u32>,
    bytes: u64,
    /// The number of that request.
    request: u64,
}

impl Place {
    /// In which direction reading goes on if `pgno` is next, and how many pages it leaves out.
    fn continues(&self, pgno: u32) -> Option<(Direction, u32)> {
        let Range { start, end } = self.last;
        if self.request == 0 {
            None
        } else if (end..=end.saturating_add(SKIP)).contains(&pgno) {
            Some((Direction::Up, pgno - end))
        } else if (start.saturating_sub(SKIP + 1)..start).contains(&pgno) {
            Some((Direction::Down, start - 1 - pgno))
        } else {
            None
        }
    }
}

impl ReadAhead {
    /// What to read for `pgno`: twice as much as before if it continues what was read somewhere.
    pub(super) fn window(&mut self, pgno: Pgno, pace: &Pace) -> Window {
        self.requests += 1;
        let continued = self
            .places
            .iter()
            .enumerate()
            .find_map(|(place, p)| p.continues(pgno.get()).map(|(to, skipped)| (place, to, skipped)));
        let (place, direction, skipped) = continued.unwrap_or_else(|| (self.oldest(), Direction::Up, 0));
        let limit = pace.worthwhile().unwrap_or(0).clamp(LARGE, LARGEST);
        let before = self.places[place].bytes;
        let bytes = if continued.is_some() { (before * 2).min(limit) } else { SMALLEST };
        Window { direction, bytes, skipped: skipped as usize, place }
    }

    /// Remembers which pages were looked at for a window.
    pub(super) fn looked_at(&mut self, window: &Window, pages: Range<u32>) {
        self.places[window.place] = Place { last: pages, bytes: window.bytes, request: self.requests };
    }

    /// The place that was not read at for the longest time.
    fn oldest(&self) -> usize {
        let oldest = self.places.iter().enumerate().min_by_key(|(_, place)| place.request);
        oldest.map_or(0, |(n, _)| n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asks for `pgno`, and says that pages up to `ahead` further were looked at.
    fn ask(reads: &mut ReadAhead, pgno: u32, ahead: u32) -> (Direction, u64, usize) {
        let window = reads.window(Pgno::new(pgno).unwrap(), &Pace::default());
        let pages = match window.direction {
            Direction::Up => pgno..pgno + ahead,
            Direction::Down => pgno + 1 - ahead..pgno + 1,
        };
        reads.looked_at(&window, pages);
        (window.direction, window.bytes / 1024, window.skipped)
    }

    #[test]
    fn reading_on_in_either_direction_gets_more_each_time() {
        let mut reads = ReadAhead::default();
        assert_eq!(ask(&mut reads, 1000, 10), (Direction::Up, 32, 0));
        assert_eq!(ask(&mut reads, 1010, 10), (Direction::Up, 64, 0));
        assert_eq!(ask(&mut reads, 1023, 10), (Direction::Up, 128, 3));
        assert_eq!(ask(&mut reads, 5000, 10), (Direction::Up, 32, 0));
        assert_eq!(ask(&mut reads, 4999, 10), (Direction::Down, 64, 0));
        assert_eq!(ask(&mut reads, 4985, 10), (Direction::Down, 128, 4));
        for _ in 0..10 {
            let end = reads.places[0].last.end;
            ask(&mut reads, end, 10);
        }
        assert_eq!(reads.places[0].bytes, LARGE);
    }

    #[test]
    fn several_places_are_followed_by_turns() {
        let mut reads = ReadAhead::default();
        for round in 0..4 {
            for place in 0..PLACES as u32 {
                let pgno = place * 1000 + 1 + round * 10;
                assert_eq!(ask(&mut reads, pgno, 10), (Direction::Up, 32 << round, 0));
            }
        }
        // One more takes the place of the one that waited longest.
        assert_eq!(ask(&mut reads, 50_000, 10), (Direction::Up, 32, 0));
        assert_eq!(ask(&mut reads, 1041, 10), (Direction::Up, 512, 0));
        assert_eq!(ask(&mut reads, 41, 10), (Direction::Up, 32, 0));
    }
}
