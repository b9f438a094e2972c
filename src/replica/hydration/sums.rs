//! The checksums of the pages in the local file, beside it: `hydration.db-sums`.
//!
//! ```text
//!   8 bytes for each page, from page 1 on: CRC-64/NVME of page number and page, never 0, big-endian
//! ```
//! They are on disk and not in memory, so that they cost no memory however large the database is. Which of them
//! are of the pages that the file has, the record says.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use crc_fast::{CrcAlgorithm, Digest};

use super::record::path_with;
use crate::page::{PageCount, Pgno};

/// The size of a checksum in bytes.
const SUM: usize = 8;

/// What is added to the name of a hydration file for its checksums. They are there before the file has content.
pub(super) const SUFFIX: &str = "-sums";

/// The checksums of one local file.
#[derive(Debug)]
pub(super) struct Sums(File);

impl Sums {
    /// Opens or creates the checksums of the file at `path`.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        options.open(path_with(path, SUFFIX)).map(Self)
    }

    /// Makes room for `commit` pages; those beyond lose their checksums.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn resize(&self, commit: PageCount) -> io::Result<()> {
        self.0.set_len(u64::from(commit.get()) * SUM as u64)
    }

    /// Whether `page` is what was written as page `pgno`.
    pub(super) fn is_right(&self, pgno: Pgno, page: &[u8]) -> bool {
        let mut sum = [0; SUM];
        self.0.read_exact_at(&mut sum, offset(pgno)).is_ok() && sum == sum_of(pgno, page)
    }

    /// Notes the checksums of `pages`, which begin with page `first`.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn write<'a>(&self, first: Pgno, pages: impl Iterator<Item = &'a [u8]>) -> io::Result<()> {
        let numbers = (first.get()..).filter_map(Pgno::new);
        let sums: Vec<u8> = numbers.zip(pages).flat_map(|(pgno, page)| sum_of(pgno, page)).collect();
        self.0.write_all_at(&sums, offset(first))
    }

    /// Brings them to disk.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

fn offset(pgno: Pgno) -> u64 {
    (pgno.index() * SUM) as u64
}

fn sum_of(pgno: Pgno, page: &[u8]) -> [u8; SUM] {
    let mut digest = Digest::new(CrcAlgorithm::Crc64Nvme);
    digest.update(&pgno.get().to_be_bytes());
    digest.update(page);
    digest.finalize().max(1).to_be_bytes()
}
