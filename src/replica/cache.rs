//! Pages that were read, kept in memory up to a number of bytes; the one that was not used for the
//! longest time goes first.
//!
//! A page is named by where its frame is, not by its number, so an entry is right for every snapshot.
//!
//! Interior pages of B-trees outlive the others: there are few, every look-up needs them, and a scan
//! would push them out. As long as they take less than half of the room, leaves go first.

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

impl FrameKey {
    /// A number that is spread over 64 bits however files and offsets are chosen.
    fn mixed(self) -> u64 {
        // The multiplier of Knuth's multiplicative hashing, in 64 bits.
        let n = (self.offset ^ u64::from(self.file).rotate_left(40)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        n ^ (n >> 32)
    }
}

/// What an entry takes beyond its page: key, links, counters, and the allocator's share.
const ENTRY: usize = 128;
/// Readers of different pages rarely meet in one of this many parts.
const SHARDS: usize = 8;
/// A part has room for this much, so that a small cache is not cut into useless pieces.
const SMALLEST_SHARD: usize = 2 * 1024 * 1024;

/// The pages of one core.
#[derive(Debug)]
pub(super) struct PageCache {
    shards: Vec<Mutex<Shard>>,
    capacity: usize,
}

/// Some of the pages.
///
/// Invariants: `bytes` is what all entries take, `inner_bytes` what those of `inner` take; a key is in
/// one of the two lists.
#[derive(Debug)]
struct Shard {
    /// Unbounded: bytes are counted here, not entries.
    leaves: LruCache<FrameKey, Arc<[u8]>>,
    inner: LruCache<FrameKey, Arc<[u8]>>,
    bytes: usize,
    inner_bytes: usize,
    capacity: usize,
}

impl PageCache {
    /// A cache of at most `capacity` bytes, what it takes for itself included.
    pub(super) fn new(capacity: usize) -> Self {
        let count = (capacity / SMALLEST_SHARD).clamp(1, SHARDS);
        Self { shards: (0..count).map(|_| Mutex::new(Shard::new(capacity / count))).collect(), capacity }
    }

    /// The page whose frame is at `key`.
    pub(super) fn get(&self, key: FrameKey) -> Option<Arc<[u8]>> {
        self.shard(key).get(key)
    }

    /// Whether the page is here; does not count as a use.
    pub(super) fn contains(&self, key: FrameKey) -> bool {
        let shard = self.shard(key);
        shard.leaves.contains(&key) || shard.inner.contains(&key)
    }

    /// Keeps a page, and lets others go to make room.
    pub(super) fn insert(&self, key: FrameKey, page: Arc<[u8]>) {
        let mut shard = self.shard(key);
        shard.make_room(&page);
        shard.insert(key, page);
    }

    /// Keeps a copy of a page, and lets others go to make room: in the memory of one of them, if nobody reads it.
    pub(super) fn insert_copy(&self, key: FrameKey, page: &[u8]) -> Arc<[u8]> {
        let mut shard = self.shard(key);
        // Threads that free each other's pages and take new ones would have the allocator keep both.
        let copy = match shard.make_room(page) {
            Some(mut old) if old.len() == page.len() => match Arc::get_mut(&mut old) {
                Some(room) => {
                    room.copy_from_slice(page);
                    old
                }
                None => Arc::from(page),
            },
            _ => Arc::from(page),
        };
        shard.insert(key, copy.clone());
        copy
    }

    /// Lets the pages of a file go.
    pub(super) fn forget(&self, file: u32) {
        self.shards.iter().for_each(|shard| lock(shard).forget_file(file));
    }

    /// The bytes that may be in use.
    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// The bytes in use.
    pub(super) fn bytes(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).bytes).sum()
    }

    fn shard(&self, key: FrameKey) -> MutexGuard<'_, Shard> {
        lock(&self.shards[(key.mixed() % self.shards.len() as u64) as usize])
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shard {
    fn new(capacity: usize) -> Self {
        let (leaves, inner) = (LruCache::unbounded(), LruCache::unbounded());
        Self { leaves, inner, bytes: 0, inner_bytes: 0, capacity }
    }

    fn get(&mut self, key: FrameKey) -> Option<Arc<[u8]>> {
        self.leaves.get(&key).or_else(|| self.inner.get(&key)).cloned()
    }

    /// Lets pages go until there is room for `page`. Returns the last of them.
    fn make_room(&mut self, page: &[u8]) -> Option<Arc<[u8]>> {
        let room = self.capacity.checked_sub(size(page))?;
        let inner_size = if is_interior(page) { size(page) } else { 0 };
        let mut last = None;
        while self.bytes > room {
            let too_many_inner = self.inner_bytes + inner_size > self.capacity / 2;
            let inner = self.leaves.is_empty() || (too_many_inner && !self.inner.is_empty());
            let list = if inner { &mut self.inner } else { &mut self.leaves };
            let (_, old) = list.pop_lru().expect("BUG: bytes are counted without a page");
            self.forget(&old, inner);
            last = Some(old);
        }
        last
    }

    /// Keeps a page there is room for.
    fn insert(&mut self, key: FrameKey, page: Arc<[u8]>) {
        let size = size(&page);
        if size > self.capacity {
            return;
        }
        let is_inner = is_interior(&page);
        let (list, inner_size) = if is_inner { (&mut self.inner, size) } else { (&mut self.leaves, 0) };
        self.bytes += size;
        self.inner_bytes += inner_size;
        if let Some(old) = list.put(key, page) {
            // The frame is the same, so the page is: it was in the same list.
            self.forget(&old, is_inner);
        }
    }

    fn forget_file(&mut self, file: u32) {
        for inner in [false, true] {
            let list = if inner { &mut self.inner } else { &mut self.leaves };
            let keys: Vec<FrameKey> =
                list.iter().map(|(key, _)| *key).filter(|key| key.file == file).collect();
            let gone: Vec<_> = keys.iter().filter_map(|key| list.pop(key)).collect();
            gone.iter().for_each(|page| self.forget(page, inner));
        }
    }

    fn forget(&mut self, page: &[u8], inner: bool) {
        self.bytes -= size(page);
        self.inner_bytes -= if inner { size(page) } else { 0 };
    }
}

fn size(page: &[u8]) -> usize {
    page.len() + ENTRY
}

/// Whether a page is an interior page of a B-tree, or page 1, which every transaction reads. Types 2
/// and 5 are interior pages of an index and of a table; few other pages begin like that.
/// Source: <https://www.sqlite.org/fileformat2.html>, section 1.6.
fn is_interior(page: &[u8]) -> bool {
    matches!(page.first(), Some(2 | 5)) || page.starts_with(b"SQLite format 3\0")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u64) -> FrameKey {
        Frame { file: 1, size: 1, offset: n }.into()
    }

    /// A page of a type: 5 and 2 are interior, 13 and 10 are leaves.
    fn page(kind: u8) -> Arc<[u8]> {
        let mut page = vec![0; 512];
        page[0] = kind;
        page.into()
    }

    fn kept(cache: &PageCache, keys: std::ops::Range<u64>) -> Vec<u64> {
        keys.filter(|n| cache.contains(key(*n))).collect()
    }

    /// The bytes that are counted are those of the pages that are there.
    fn assert_counted(cache: &PageCache) {
        for shard in &cache.shards {
            let shard = lock(shard);
            assert_eq!(shard.bytes, (shard.leaves.len() + shard.inner.len()) * (512 + ENTRY));
            assert_eq!(shard.inner_bytes, shard.inner.len() * (512 + ENTRY));
            assert!(shard.bytes <= shard.capacity);
        }
        assert!(cache.bytes() <= cache.capacity());
    }

    #[test]
    fn what_was_not_used_for_the_longest_time_goes_first() {
        let cache = PageCache::new(3 * (512 + ENTRY));
        for n in 0..3 {
            cache.insert(key(n), page(13));
        }
        assert!(cache.get(key(0)).is_some());
        cache.insert(key(3), page(13));
        assert_eq!(kept(&cache, 0..4), [0, 2, 3]);
    }

    #[test]
    fn interior_pages_outlive_a_scan_and_do_not_take_all_the_room() {
        let cache = PageCache::new(10 * (512 + ENTRY));
        for n in 0..4 {
            cache.insert(key(n), page(5));
        }
        for n in 100..200 {
            cache.insert(key(n), page(13));
            assert_counted(&cache);
        }
        assert_eq!(kept(&cache, 0..4).len(), 4);
        assert_eq!(kept(&cache, 100..200), (194..200).collect::<Vec<_>>());
        for n in 4..50 {
            cache.insert(key(n), page(2));
            assert_counted(&cache);
        }
        assert_eq!(kept(&cache, 0..50), (45..50).collect::<Vec<_>>());
        assert_eq!(kept(&cache, 100..200).len(), 5);
    }

    #[test]
    fn bytes_are_bounded_and_counted_once_for_a_page_that_comes_again() {
        for capacity in [10 * (512 + ENTRY) + 5, 20 * SMALLEST_SHARD] {
            let cache = PageCache::new(capacity);
            for n in 0..100_000 {
                cache.insert(key(n % 70_001 * 300), page((n % 70_001 % 3) as u8));
            }
            assert_counted(&cache);
            for _ in 0..20 {
                cache.insert(key(7 * 300), page(7 % 3));
                assert_counted(&cache);
            }
            assert!(cache.contains(key(7 * 300)));
        }
    }

    #[test]
    fn all_the_room_is_used_whatever_part_a_page_belongs_to() {
        let cache = PageCache::new(8 * SMALLEST_SHARD);
        assert_eq!(cache.shards.len(), SHARDS);
        for n in 0..100_000 {
            cache.insert(key(100 + n * 2411), page(13));
        }
        assert_counted(&cache);
        assert!(cache.bytes() > cache.capacity() - SHARDS * 2 * (512 + ENTRY), "{}", cache.bytes());
    }

    #[test]
    fn a_copy_takes_the_memory_of_a_page_that_goes_unless_somebody_reads_it() {
        let cache = PageCache::new(512 + ENTRY);
        let first = cache.insert_copy(key(1), &page(13)).as_ptr();
        let second = cache.insert_copy(key(2), &page(10));
        assert_eq!((second.as_ptr(), &*second), (first, &*page(10)));
        let third = cache.insert_copy(key(3), &page(5));
        assert_ne!(third.as_ptr(), first);
        assert_eq!((&*second, &*third), (&*page(10), &*page(5)));
        assert_eq!(kept(&cache, 1..4), [3]);
        assert_counted(&cache);
    }

    #[test]
    fn the_pages_of_one_file_go_together() {
        let cache = PageCache::new(100 * (512 + ENTRY));
        for n in 0..20 {
            let other = Frame { file: 2, size: 1, offset: n }.into();
            cache.insert(other, page((n % 6) as u8));
            cache.insert(key(n), page((n % 6) as u8));
        }
        cache.forget(2);
        assert_counted(&cache);
        assert_eq!((kept(&cache, 0..20).len(), cache.bytes()), (20, 20 * (512 + ENTRY)));
    }

    #[test]
    fn a_page_larger_than_the_cache_is_not_kept() {
        let cache = PageCache::new(600);
        cache.insert(key(1), page(13));
        assert_eq!(*cache.insert_copy(key(1), &page(13)), *page(13));
        assert_eq!(cache.bytes(), 0);
        assert!(cache.get(key(1)).is_none());
    }
}
