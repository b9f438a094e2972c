//! Pages that were read, kept in memory up to a number of bytes; the one that was not used for the
//! longest time goes first.
//!
//! A page is named by where its frame is, not by its number, so an entry is right for every snapshot.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lru::LruCache;

use super::map::Frame;

/// Where a frame is: number of the file, offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct FrameKey {
    file: u32,
    offset: u64,
}

impl From<Frame> for FrameKey {
    fn from(frame: Frame) -> Self {
        Self { file: frame.file, offset: frame.offset }
    }
}

/// What an entry takes beyond its page: key, links, counters, and the allocator's share.
const ENTRY: usize = 128;

/// The pages of one core.
#[derive(Debug)]
pub(super) struct PageCache {
    entries: Mutex<Entries>,
    capacity: usize,
}

#[derive(Debug)]
struct Entries {
    /// Unbounded: bytes are counted here, not entries.
    pages: LruCache<FrameKey, Arc<[u8]>>,
    bytes: usize,
}

impl PageCache {
    /// A cache of at most `capacity` bytes, what it takes for itself included.
    pub(super) fn new(capacity: usize) -> Self {
        Self { entries: Mutex::new(Entries { pages: LruCache::unbounded(), bytes: 0 }), capacity }
    }

    /// The page whose frame is at `key`.
    pub(super) fn get(&self, key: FrameKey) -> Option<Arc<[u8]>> {
        self.lock().pages.get(&key).cloned()
    }

    /// Whether the page is here; does not count as a use.
    pub(super) fn contains(&self, key: FrameKey) -> bool {
        self.lock().pages.contains(&key)
    }

    /// Keeps a page, and lets others go to make room.
    pub(super) fn insert(&self, key: FrameKey, page: Arc<[u8]>) {
        let size = page.len() + ENTRY;
        if size > self.capacity {
            return;
        }
        let mut entries = self.lock();
        entries.bytes += size;
        if let Some(old) = entries.pages.put(key, page) {
            entries.bytes -= old.len() + ENTRY;
        }
        while entries.bytes > self.capacity {
            let (_, old) = entries.pages.pop_lru().expect("BUG: bytes are counted without a page");
            entries.bytes -= old.len() + ENTRY;
        }
    }

    /// The bytes that may be in use.
    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// The bytes in use.
    pub(super) fn bytes(&self) -> usize {
        self.lock().bytes
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u64) -> FrameKey {
        Frame { file: 1, size: 1, offset: n }.into()
    }

    fn page(n: u64) -> Arc<[u8]> {
        vec![n as u8; 512].into()
    }

    #[test]
    fn what_was_not_used_for_the_longest_time_goes_first() {
        let cache = PageCache::new(3 * (512 + ENTRY));
        for n in 0..3 {
            cache.insert(key(n), page(n));
        }
        assert!(cache.get(key(0)).is_some());
        cache.insert(key(3), page(3));
        let kept: Vec<bool> = (0..4).map(|n| cache.contains(key(n))).collect();
        assert_eq!(kept, [true, false, true, true]);
    }

    #[test]
    fn bytes_are_bounded_and_counted_once_for_a_page_that_comes_again() {
        let cache = PageCache::new(10 * (512 + ENTRY) + 5);
        for n in 0..100 {
            cache.insert(key(n % 30), page(n));
            assert!(cache.bytes() <= 10 * (512 + ENTRY) + 5);
        }
        assert_eq!(cache.bytes(), cache.lock().pages.len() * (512 + ENTRY));
        for _ in 0..20 {
            cache.insert(key(7), page(7));
        }
        assert_eq!(cache.bytes(), cache.lock().pages.len() * (512 + ENTRY));
    }

    #[test]
    fn a_page_larger_than_the_cache_is_not_kept() {
        let cache = PageCache::new(600);
        cache.insert(key(1), page(1));
        assert_eq!(cache.bytes(), 0);
        assert!(cache.get(key(1)).is_none());
    }
}
