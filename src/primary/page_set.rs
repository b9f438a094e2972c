//! A set of page numbers.

use roaring::RoaringBitmap;

use crate::error::{Error, Result};
use crate::page::{PageCount, PageSize, Pgno};

/// A set of page numbers, compressed: ten million of them in a row take a few kilobytes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PageSet(RoaringBitmap);

impl PageSet {
    /// Every page of a database of `pages` pages.
    pub fn all(pages: PageCount) -> Self {
        let mut set = RoaringBitmap::new();
        if let Some(last) = pages.last() {
            set.insert_range(1..=last.get());
        }
        Self(set)
    }

    /// Adds a page.
    pub fn insert(&mut self, pgno: Pgno) {
        self.0.insert(pgno.get());
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

impl FromIterator<Pgno> for PageSet {
    fn from_iter<T: IntoIterator<Item = Pgno>>(pages: T) -> Self {
        Self(pages.into_iter().map(Pgno::get).collect())
    }
}
