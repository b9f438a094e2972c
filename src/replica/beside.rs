//! Two files that end with the same transaction: whatever pages the lower one has, the other has too, and the same.

use std::collections::HashMap;

use crc_fast::{CrcAlgorithm, checksum};

use crate::ltx::FileId;
use crate::page::{PageCount, Pgno};

/// Of a file no more pages than this are compared.
const PAGES: usize = 1024;

/// Checksums of pages of a file.
#[derive(Clone, Debug, Default)]
pub(crate) struct PageSums(HashMap<Pgno, u64>);

impl PageSums {
    /// Notes a page, if there is room.
    pub(crate) fn note(&mut self, pgno: Pgno, page: &[u8]) {
        if self.0.len() < PAGES {
            self.0.insert(pgno, sum_of(page));
        }
    }
}

/// What a file must hold that ends where a lower one does.
#[derive(Clone, Debug)]
pub(crate) struct Beside {
    /// The lower file.
    pub(crate) lower: FileId,
    left: HashMap<Pgno, u64>,
    differs: Option<Pgno>,
}

impl Beside {
    /// The pages of `lower`, whose checksums are `sums`.
    pub(crate) fn new(lower: FileId, sums: PageSums) -> Self {
        Self { lower, left: sums.0, differs: None }
    }

    /// Takes up a page of the higher file. They may come in any order.
    pub(crate) fn take(&mut self, pgno: Pgno, page: &[u8]) {
        if self.left.remove(&pgno).is_some_and(|sum| sum != sum_of(page)) {
            self.differs = Some(self.differs.map_or(pgno, |first| first.min(pgno)));
        }
    }

    /// A page that is not the same in both, when all pages of the higher file were taken up. It leaves a database of
    /// `commit` pages.
    pub(crate) fn differing(&self, commit: PageCount) -> Option<Pgno> {
        let is_lacking = |pgno: &&Pgno| commit.contains(**pgno);
        self.differs.or_else(|| self.left.keys().filter(is_lacking).min().copied())
    }
}

fn sum_of(page: &[u8]) -> u64 {
    checksum(CrcAlgorithm::Crc64Nvme, page)
}
