//! The library's memory: large pieces come from the system and go back to it at once.
//!
//! glibc's allocator would keep them: after the first large piece that was freed, it keeps up to twice the size
//! of the largest at the top of the heap of every thread. A host with a busy primary would carry some 60 MB that
//! nobody uses. Its settings belong to the host, so they stay as they are.
//! Source: mallopt(3), `M_MMAP_THRESHOLD` and `M_TRIM_THRESHOLD`.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr;

/// From here on a piece is large, in bytes.
const LARGE: usize = 128 * 1024;
/// The largest alignment that every piece from the system has, in bytes: that of its pages.
const ALIGNED: usize = 4096;

#[global_allocator]
static MEMORY: Memory = Memory;

/// Small pieces are the allocator's, large ones have pages of their own. Which of the two a piece is follows from
/// its layout, which Rust tells whenever it takes or gives one.
struct Memory;

fn is_large(layout: Layout) -> bool {
    layout.size() >= LARGE && layout.align() <= ALIGNED
}

// SAFETY: a piece goes back to where it came from, because a layout is large or not for ever. Both sources keep
// the promises of the trait: `map` gives unused, zeroed memory of at least that size, aligned to a page.
unsafe impl GlobalAlloc for Memory {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_large(layout) {
            return map(layout.size());
        }
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if is_large(layout) {
            return map(layout.size());
        }
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, piece: *mut u8, layout: Layout) {
        if is_large(layout) {
            // SAFETY: `map` or `remap` gave the piece with this size, and the caller has no more use for it.
            unsafe { unmap(piece, layout.size()) }
        } else {
            // SAFETY: the system's allocator gave the piece for this layout.
            unsafe { System.dealloc(piece, layout) }
        }
    }

    unsafe fn realloc(&self, piece: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller promises that `size`, rounded up to the alignment, does not overflow.
        let new = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        match (is_large(layout), is_large(new)) {
            // SAFETY: the system's allocator gave the piece for `layout`.
            (false, false) => unsafe { System.realloc(piece, layout, size) },
            // SAFETY: `map` or `remap` gave the piece with that size.
            (true, true) => unsafe { remap(piece, layout.size(), size) },
            // SAFETY: as the caller's; the new piece is another one, and both are as long as what is copied.
            _ => unsafe {
                let moved = self.alloc(new);
                if !moved.is_null() {
                    ptr::copy_nonoverlapping(piece, moved, layout.size().min(size));
                    self.dealloc(piece, layout);
                }
                moved
            },
        }
    }
}

/// Pages from the system, zeroed; null if there are none.
fn map(size: usize) -> *mut u8 {
    let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a mapping at no given address takes nothing from anybody.
    checked(unsafe { libc::mmap(ptr::null_mut(), size, access, kind, -1, 0) })
}

/// # Safety
/// `map` or `remap` gave the piece with this size, and nobody uses it any more.
unsafe fn unmap(piece: *mut u8, size: usize) {
    // SAFETY: the caller's.
    let refused = unsafe { libc::munmap(piece.cast(), size) };
    debug_assert_eq!(refused, 0);
}

/// Makes a piece longer or shorter, perhaps elsewhere; null if that is impossible, and the piece is as it was.
///
/// # Safety
/// `map` or `remap` gave the piece with the size `old`; after success nobody uses the old address.
#[cfg(target_os = "linux")]
unsafe fn remap(piece: *mut u8, old: usize, new: usize) -> *mut u8 {
    // SAFETY: the caller's.
    checked(unsafe { libc::mremap(piece.cast(), old, new, libc::MREMAP_MAYMOVE) })
}

/// As on Linux, by a copy.
///
/// # Safety
/// As on Linux.
#[cfg(not(target_os = "linux"))]
unsafe fn remap(piece: *mut u8, old: usize, new: usize) -> *mut u8 {
    let moved = map(new);
    if !moved.is_null() {
        // SAFETY: both are as long as what is copied, and nobody uses the old one any more.
        unsafe {
            ptr::copy_nonoverlapping(piece, moved, old.min(new));
            unmap(piece, old);
        }
    }
    moved
}

fn checked(address: *mut libc::c_void) -> *mut u8 {
    if address == libc::MAP_FAILED { ptr::null_mut() } else { address.cast() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that differ from page to page.
    fn pattern(len: usize) -> Vec<u8> {
        (0..len).map(|n| (n ^ (n >> 9)) as u8).collect()
    }

    #[test]
    fn what_a_piece_holds_survives_each_change_of_its_size() {
        let sizes = [1, LARGE - 1, LARGE, LARGE + 1, 40 * LARGE, 3 * LARGE, LARGE, LARGE - 1, 7, 9 * LARGE];
        for &from in &sizes {
            let mut bytes = pattern(from);
            for &to in &sizes {
                let kept = bytes.len().min(to);
                bytes.truncate(kept);
                bytes.shrink_to_fit();
                bytes.reserve_exact(to - kept);
                assert_eq!(bytes, pattern(kept), "{from} to {to}");
                bytes.extend_from_slice(&pattern(to)[kept..]);
                assert_eq!(bytes, pattern(to), "{from} to {to}");
            }
        }
    }

    #[test]
    fn zeroed_pieces_are_zero_whatever_was_there_before() {
        for size in [LARGE - 1, LARGE, 5 * LARGE + 3] {
            drop(vec![7_u8; size]);
            assert!(vec![0_u8; size].iter().all(|byte| *byte == 0));
        }
    }

    #[test]
    fn alignment_is_kept() {
        for align in [1, 64, ALIGNED, 2 * ALIGNED, 64 * ALIGNED] {
            for size in [1, LARGE, 3 * LARGE + 1] {
                let layout = Layout::from_size_align(size, align).unwrap();
                // SAFETY: the layout has a size, and what is allocated goes back with the same one.
                unsafe {
                    let piece = MEMORY.alloc(layout);
                    assert!(!piece.is_null() && piece.addr().is_multiple_of(align), "{layout:?}");
                    piece.write_bytes(1, size);
                    MEMORY.dealloc(piece, layout);
                }
            }
        }
    }
}
