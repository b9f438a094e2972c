//! A set of page numbers.

use roaring::RoaringBitmap;

use crate::error::{Error, Result};
use crate::page::{PageCount, PageSize, Pgno};

/// A set of page numbers, compressed: ten million of them in a row take a few kilobytes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PageSet(RoaringBitmap);

impl PageSet {
    /// The number of pages that [`PageSet::insert_all`] is given at a time where there may be millions.
    pub const AT_ONCE: usize = 4096;

    /// The pages that a database of `larger` pages has, and one of `smaller` pages has not.
    pub fn between(smaller: PageCount, larger: PageCount) -> Self {
        let mut set = RoaringBitmap::new();
        set.insert_range(smaller.get().saturating_add(1)..larger.get().saturating_add(1));
        Self(set)
    }

    /// Adds a page.
    pub fn insert(&mut self, pgno: Pgno) {
        self.0.insert(pgno.get());
    }

    /// Adds `pages`, in any order and however often each, and leaves none of them.
    pub fn insert_all(&mut self, pages: &mut Vec<Pgno>) {
        let (first, last) = (pages.iter().copied().min(), pages.iter().copied().max());
        let Some((first, last)) = first.zip(last) else { return };
        self.0 |= if ((last.get() - first.get()) as usize) < pages.len() * BITS {
            marked(pages, first, last)
        } else {
            sorted(pages)
        };
        pages.clear();
    }

    /// Adds all pages of `other`.
    pub fn extend(&mut self, other: &Self) {
        self.0 |= &other.0;
    }

    /// Drops the pages that a database of `pages` pages does not have, and its lock page.
    pub fn retain_in(&mut self, pages: PageCount, page_size: PageSize) {
        self.0.remove_range(pages.get().saturating_add(1)..);
        self.0.remove(page_size.lock_page().get());
    }

    /// Whether `pgno` is in the set.
    pub fn contains(&self, pgno: Pgno) -> bool {
        self.0.contains(pgno.get())
    }

    /// Whether every page of `other` is in the set.
    pub fn contains_all(&self, other: &Self) -> bool {
        other.0.is_subset(&self.0)
    }

    /// The number of pages.
    pub fn len(&self) -> u64 {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The pages in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = Pgno> {
        self.0.iter().filter_map(Pgno::new)
    }

    /// The set as bytes, in the portable format of Roaring bitmaps
    /// (<https://github.com/RoaringBitmap/RoaringFormatSpec>).
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.0.serialized_size());
        self.0.serialize_into(&mut bytes).expect("BUG: memory takes every byte");
        bytes
    }

    /// Reads what [`PageSet::encode`] wrote.
    ///
    /// # Errors
    /// `Corrupt`.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        RoaringBitmap::deserialize_from(bytes)
            .map(Self)
            .map_err(|e| Error::corrupt(format!("a set of pages cannot be read: {e}")))
    }
}

/// A bit for each page of a range takes a third of the time that sorting takes, unless there are more of them for each page
/// that is marked.
const BITS: usize = 512;

/// A set of `pages`, of which `first` and `last` are the lowest and the highest.
fn marked(pages: &[Pgno], first: Pgno, last: Pgno) -> RoaringBitmap {
    let from = first.get() & !7;
    let mut bits = vec![0; ((last.get() - from) / 8 + 1) as usize];
    for page in pages {
        let at = page.get() - from;
        bits[(at / 8) as usize] |= 1_u8 << (at % 8);
    }
    RoaringBitmap::from_lsb0_bytes(from, &bits)
}

/// The same, wherever they are. Sorts them.
fn sorted(pages: &mut Vec<Pgno>) -> RoaringBitmap {
    pages.sort_unstable();
    pages.dedup();
    RoaringBitmap::from_sorted_iter(pages.iter().map(|page| page.get()))
        .expect("BUG: they are sorted, each once")
}

impl FromIterator<Pgno> for PageSet {
    fn from_iter<T: IntoIterator<Item = Pgno>>(pages: T) -> Self {
        let (mut set, mut pages) = (Self::default(), pages.into_iter());
        let mut some = Vec::new();
        loop {
            some.extend(pages.by_ref().take(Self::AT_ONCE));
            if some.is_empty() {
                return set;
            }
            set.insert_all(&mut some);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn pages_in_any_order_are_a_set(
            from in prop_oneof![Just(1_u32), 1..300_000_u32, Just(u32::MAX - 200_000)],
            range in prop_oneof![Just(1_u32), Just(10), Just(5_000), Just(200_000)],
            first in proptest::collection::vec(0..u32::MAX, 0..300),
            then in proptest::collection::vec(0..u32::MAX, 0..5000),
        ) {
            let pages = |of: &[u32]| of.iter().filter_map(|n| Pgno::new(from + n % range)).collect::<Vec<_>>();
            let mut set: PageSet = pages(&then).into_iter().collect();
            let mut more = pages(&first);
            let wanted: BTreeSet<Pgno> = more.iter().copied().chain(pages(&then)).collect();
            set.insert_all(&mut more);
            prop_assert!(more.is_empty());
            prop_assert!(set.iter().eq(wanted));
        }
    }
}
