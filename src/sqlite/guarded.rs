//! Memory for secrets from the system: locked against swapping, left out of core dumps, wiped before it is given back.

use std::ptr::NonNull;

use zeroize::Zeroize as _;

use crate::secret::Guarded;

/// Whole pages of the system with one secret at their beginning.
struct Pages {
    address: NonNull<u8>,
    len: usize,
}

// SAFETY: the pages belong to this value alone, which hands them out as any owner of bytes does.
unsafe impl Send for Pages {}
// SAFETY: as above; shared references only read.
unsafe impl Sync for Pages {}

impl Guarded for Pages {}

impl AsRef<[u8]> for Pages {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the mapping has `len` bytes that were zeroed or written, and lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.address.as_ptr(), self.len) }
    }
}

impl AsMut<[u8]> for Pages {
    fn as_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_ref`; the exclusive reference is the only one.
        unsafe { std::slice::from_raw_parts_mut(self.address.as_ptr(), self.len) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        self.as_mut().zeroize();
        // SAFETY: `allocate` mapped these bytes, and nobody has a reference to them any more. Unmapping unlocks them.
        unsafe { libc::munmap(self.address.as_ptr().cast(), self.len) };
    }
}

/// Memory for a secret of `len` bytes; `None` if the system has none. A system that locks no more memory, or cannot
/// leave any out of core dumps, is not insisted on.
pub(super) fn allocate(len: usize) -> Option<Box<dyn Guarded>> {
    let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a mapping at no given address takes nothing from anybody.
    let address = unsafe { libc::mmap(std::ptr::null_mut(), len, access, kind, -1, 0) };
    if address == libc::MAP_FAILED {
        return None;
    }
    let pages = Pages { address: NonNull::new(address.cast())?, len };
    // SAFETY: the range was just mapped and is nobody else's.
    if unsafe { libc::mlock(address, len) } != 0 {
        tracing::debug!(error = %std::io::Error::last_os_error(), "memory for a secret cannot be locked");
    }
    #[cfg(target_os = "linux")]
    // SAFETY: as above; the advice changes nothing but what a core dump has.
    unsafe {
        libc::madvise(address, len, libc::MADV_DONTDUMP)
    };
    Some(Box::new(pages))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel says of the mapping that has `address`.
    #[cfg(target_os = "linux")]
    fn flags_of(address: usize) -> String {
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut within = false;
        for line in maps.lines() {
            let range = line.split_whitespace().next().and_then(|range| range.split_once('-'));
            let bound = |text: &str| usize::from_str_radix(text, 16).ok();
            if let Some((start, end)) = range.and_then(|(start, end)| Some((bound(start)?, bound(end)?))) {
                within = (start..end).contains(&address);
            } else if within && line.starts_with("VmFlags:") {
                return line.to_owned();
            }
        }
        panic!("no mapping has {address:x}")
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_secret_is_locked_and_in_no_core_dump() {
        let mut secret = allocate(64).unwrap();
        assert_eq!((*secret).as_ref(), [0; 64]);
        (*secret).as_mut().fill(7);
        let flags = flags_of((*secret).as_ref().as_ptr() as usize);
        assert!(flags.contains(" dd"), "{flags}");
        assert!(flags.contains(" lo"), "{flags}");
    }
}
