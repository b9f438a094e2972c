//! Regions of the WAL-index in shared memory.

use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

/// Size of the unit in which memory is read without tearing, in bytes.
const WORD: usize = size_of::<u32>();

/// A mapped region of shared memory, which other connections and processes write at the same time.
///
/// It borrows the file that mapped it: `xShmUnmap` and `xClose` need that file for themselves, so a
/// region never outlives its mapping. Words of four bytes at multiples of four are never torn; the
/// order of accesses is that of [`File::shm_barrier`](super::File::shm_barrier) and of locks.
#[derive(Clone, Copy, Debug)]
pub struct ShmRegion<'a> {
    /// Invariant: aligned to `WORD`, and `len` bytes from it are mapped for `'a`.
    start: NonNull<u8>,
    len: usize,
    read_only: bool,
    file: PhantomData<&'a AtomicU32>,
}

// SAFETY: every access is atomic, and the mapping is that of the process, not of a thread.
unsafe impl Send for ShmRegion<'_> {}
// SAFETY: as for `Send`.
unsafe impl Sync for ShmRegion<'_> {}

impl ShmRegion<'_> {
    /// A region of `len` bytes at `start`, or `None` if `start` is not aligned to four bytes.
    ///
    /// # Safety
    /// `len` bytes from `start` must be mapped for the lifetime of the value, readable, and writable
    /// unless `read_only`.
    pub(super) unsafe fn new(start: NonNull<u8>, len: usize, read_only: bool) -> Option<Self> {
        let aligned = start.as_ptr().addr().is_multiple_of(WORD);
        aligned.then_some(Self { start, len, read_only, file: PhantomData })
    }

    pub(super) const fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Its size in bytes; SQLite maps regions of 32 KiB.
    #[expect(clippy::len_without_is_empty, reason = "a mapped region is never empty")]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether the process may only read it: then SQLite does not write the database either.
    pub const fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Copies `buf.len()` bytes from `offset` on.
    ///
    /// # Panics
    /// If they are not all in the region.
    pub fn copy_to(&self, offset: usize, buf: &mut [u8]) {
        self.check(offset, buf.len());
        let head = offset.next_multiple_of(WORD).saturating_sub(offset).min(buf.len());
        let (first, rest) = buf.split_at_mut(head);
        for (i, byte) in first.iter_mut().enumerate() {
            *byte = self.load_u8(offset + i);
        }
        let mut words = rest.chunks_exact_mut(WORD);
        let mut at = offset + head;
        for word in &mut words {
            word.copy_from_slice(&self.load_u32(at).to_ne_bytes());
            at += WORD;
        }
        for (i, byte) in words.into_remainder().iter_mut().enumerate() {
            *byte = self.load_u8(at + i);
        }
    }

    /// The word at `offset`, in the order of bytes of this machine, as the WAL-index has it.
    ///
    /// # Panics
    /// If `offset` is not a multiple of four, or the word is not in the region.
    pub fn load_u32(&self, offset: usize) -> u32 {
        self.word(offset).load(Ordering::Relaxed)
    }

    /// Writes the word at `offset`.
    ///
    /// # Panics
    /// As [`ShmRegion::load_u32`], and if the region is read-only.
    pub fn store_u32(&self, offset: usize, value: u32) {
        assert!(!self.read_only, "BUG: a write to read-only shared memory");
        self.word(offset).store(value, Ordering::Relaxed);
    }

    fn word(&self, offset: usize) -> &AtomicU32 {
        self.check(offset, WORD);
        assert!(offset.is_multiple_of(WORD), "BUG: offset {offset} is not that of a word");
        // SAFETY: in the region by `check`, mapped by `new`, aligned because `start` and `offset` are;
        // every access of ours is atomic, SQLite's own are volatile words.
        unsafe { AtomicU32::from_ptr(self.start.as_ptr().add(offset).cast()) }
    }

    fn load_u8(&self, offset: usize) -> u8 {
        self.check(offset, 1);
        // SAFETY: in the region by `check`, mapped by `new`.
        unsafe { AtomicU8::from_ptr(self.start.as_ptr().add(offset)) }.load(Ordering::Relaxed)
    }

    fn check(&self, offset: usize, len: usize) {
        let inside = offset.checked_add(len).is_some_and(|end| end <= self.len);
        assert!(inside, "BUG: bytes {offset}+{len} are outside a region of {} bytes", self.len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_region(test: impl FnOnce(ShmRegion<'_>)) {
        let mut words = [0_u32; 8];
        for (i, word) in words.iter_mut().enumerate() {
            let first = u8::try_from(i * 4).expect("small");
            *word = u32::from_ne_bytes([first, first + 1, first + 2, first + 3]);
        }
        let start = NonNull::new(words.as_mut_ptr().cast()).expect("an array has an address");
        // SAFETY: the array lives until the end of this function.
        test(unsafe { ShmRegion::new(start, 32, false) }.expect("aligned"));
    }

    #[test]
    fn copies_any_part() {
        with_region(|region| {
            for offset in 0..32 {
                for len in 0..=(32 - offset) {
                    let mut buf = vec![0xff; len];
                    region.copy_to(offset, &mut buf);
                    let expected: Vec<u8> =
                        (0..len).map(|i| u8::try_from(offset + i).expect("small")).collect();
                    assert_eq!(buf, expected, "{offset}+{len}");
                }
            }
        });
    }

    #[test]
    fn words_are_read_and_written() {
        with_region(|region| {
            region.store_u32(8, 0x0102_0304);
            assert_eq!(region.load_u32(8), 0x0102_0304);
            assert_eq!(region.load_u32(4), u32::from_ne_bytes([4, 5, 6, 7]));
        });
    }

    #[test]
    #[should_panic(expected = "outside a region")]
    fn refuses_bytes_outside() {
        with_region(|region| region.copy_to(30, &mut [0; 3]));
    }
}
