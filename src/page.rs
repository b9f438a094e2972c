//! Page numbers, counts and sizes, and the rule of the lock page.

use std::fmt;
use std::num::NonZeroU32;

use crate::error::{Error, Result};

/// The byte that SQLite locks; the page that holds it is never used.
/// Source: <https://www.sqlite.org/fileformat2.html>, section 1.4.
pub const PENDING_BYTE: u64 = 0x4000_0000;

/// A page number, 1 and up.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pgno(NonZeroU32);

impl Pgno {
    /// The first page of every database.
    pub const ONE: Self = Self(NonZeroU32::MIN);

    /// The page number `n`, or `None` for zero.
    pub const fn new(n: u32) -> Option<Self> {
        match NonZeroU32::new(n) {
            Some(n) => Some(Self(n)),
            None => None,
        }
    }

    /// The page number as SQLite counts it, from 1.
    pub const fn get(self) -> u32 {
        self.0.get()
    }

    /// The number of pages before this one.
    pub const fn index(self) -> usize {
        (self.0.get() - 1) as usize
    }
}

impl fmt::Debug for Pgno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Display for Pgno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A number of pages; the size of a database in pages (SQLite's and LTX's "commit").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageCount(u32);

impl PageCount {
    /// No pages.
    pub const ZERO: Self = Self(0);

    /// `n` pages.
    pub const fn new(n: u32) -> Self {
        Self(n)
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// Whether a database of this size has the page `pgno`.
    pub const fn contains(self, pgno: Pgno) -> bool {
        pgno.get() <= self.0
    }

    /// The last page of a database of this size.
    pub const fn last(self) -> Option<Pgno> {
        Pgno::new(self.0)
    }

    /// The size in bytes of a database of this many pages.
    pub const fn bytes(self, page_size: PageSize) -> u64 {
        self.0 as u64 * page_size.get() as u64
    }
}

impl fmt::Display for PageCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A page size in bytes: a power of two, 512 to 65536.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageSize(u32);

impl PageSize {
    /// The smallest page size.
    pub const MIN: Self = Self(512);
    /// The largest page size.
    pub const MAX: Self = Self(65536);

    /// The page size `bytes`.
    ///
    /// # Errors
    /// `Corrupt` unless it is a power of two from 512 to 65536.
    pub fn new(bytes: u32) -> Result<Self> {
        if bytes.is_power_of_two() && (512..=65536).contains(&bytes) {
            Ok(Self(bytes))
        } else {
            Err(Error::corrupt(format!("page size {bytes} is not a power of two from 512 to 65536")))
        }
    }

    /// The size in bytes.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The size in bytes, for slices.
    pub const fn bytes(self) -> usize {
        self.0 as usize
    }

    /// Where page `pgno` starts in a database file.
    pub const fn offset_of(self, pgno: Pgno) -> u64 {
        (pgno.get() as u64 - 1) * self.0 as u64
    }

    /// The page that holds byte `offset` of a database file, or `None` beyond the last possible page.
    pub fn page_at(self, offset: u64) -> Option<Pgno> {
        Pgno::new(u32::try_from(offset / u64::from(self.0)).ok()?.checked_add(1)?)
    }

    /// The lock page: the page that holds [`PENDING_BYTE`]. It is never read, written or replicated.
    pub const fn lock_page(self) -> Pgno {
        match Pgno::new((PENDING_BYTE / self.0 as u64) as u32 + 1) {
            Some(pgno) => pgno,
            None => Pgno::ONE,
        }
    }
}

impl fmt::Display for PageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_page_holds_the_pending_byte() {
        for shift in 9..=16 {
            let size = PageSize::new(1 << shift).unwrap();
            let lock = size.lock_page();
            assert!(size.offset_of(lock) <= PENDING_BYTE);
            assert!(PENDING_BYTE < size.offset_of(lock) + u64::from(size.get()));
            assert_eq!(size.page_at(PENDING_BYTE), Some(lock));
        }
    }

    #[test]
    fn sizes_that_sqlite_does_not_know_are_refused() {
        for bad in [0, 1, 256, 511, 513, 4095, 65535, 131072] {
            assert!(PageSize::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn bytes_do_not_wrap_at_four_gibibytes() {
        let size = PageSize::new(65536).unwrap();
        assert_eq!(PageCount::new(u32::MAX).bytes(size), u64::from(u32::MAX) * 65536);
    }
}
