//! How much is fetched ahead.

/// The most bytes of one download.
pub(super) const PIECE: u64 = 2 * 1024 * 1024;
/// So many small downloads take the place of a large one: what they cost is the time until an answer
/// comes, not memory.
const SMALL: usize = 8;
/// More requests at the same time are only made when asked for.
const ENOUGH: usize = 64;

/// Bounds what is in memory or on its way, in requests and in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    requests: usize,
    bytes: u64,
}

impl Window {
    /// `parallelism` downloads of [`PIECE`] bytes, or more that are smaller; just one at a time with 1.
    pub(super) fn new(parallelism: usize) -> Self {
        let parallelism = parallelism.max(1);
        let requests = match parallelism {
            1 => 1,
            _ => (parallelism * SMALL).clamp(parallelism, ENOUGH.max(parallelism)),
        };
        Self { requests, bytes: PIECE * parallelism as u64 }
    }

    /// Whether a download of `next` bytes may be added to `requests` with `bytes`. The first one may
    /// always.
    pub(super) fn admits(self, requests: usize, bytes: u64, next: u64) -> bool {
        requests == 0 || (requests < self.requests && bytes + next <= self.bytes)
    }

    /// The most bytes that are ahead.
    pub(super) fn bytes(self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many downloads of `size` bytes there are at a time.
    fn at_once(parallelism: usize, size: u64) -> usize {
        let window = Window::new(parallelism);
        (0..).find(|n| !window.admits(*n, *n as u64 * size, size)).expect("BUG: it is bounded")
    }

    #[test]
    fn small_downloads_are_more_and_take_no_more_memory() {
        for (parallelism, large, small) in [(1, 1, 1), (2, 2, 16), (8, 8, 64), (20, 20, 64), (64, 64, 64)] {
            assert_eq!(at_once(parallelism, PIECE), large);
            assert_eq!(at_once(parallelism, 1000), small);
        }
        assert_eq!(at_once(8, PIECE / 4), 32);
        assert_eq!(at_once(8, 100 * PIECE), 1, "what is larger than all comes too");
    }
}
