//! A rollback journal as SQLite writes and reads it: the pages as they were, which the next reader puts back if a
//! transaction did not come to its end.
//!
//! Source: <https://www.sqlite.org/fileformat2.html>, section 3, and `pager.c`.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::FileExt as _;

use crate::page::{PageCount, PageSize, Pgno};

const MAGIC: [u8; 8] = [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];
/// What the header takes, in bytes: a sector, whose size it says itself.
const SECTOR: usize = 512;
/// Every 200th byte of a page, from its end, is in its checksum.
const STRIDE: usize = 200;

/// A journal that is being written, under a name by which no reader takes it for one.
#[derive(Debug)]
pub(super) struct Journal {
    file: BufWriter<File>,
    page_size: PageSize,
    size: PageCount,
    nonce: u32,
    records: u32,
}

impl Journal {
    /// Begins the journal of a database of `size` pages in `file`, which is empty. `nonce` is in all checksums.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn begin(file: File, page_size: PageSize, size: PageCount, nonce: u32) -> io::Result<Self> {
        let mut file = BufWriter::with_capacity(1 << 20, file);
        file.write_all(&[0; SECTOR])?;
        Ok(Self { file, page_size, size, nonce, records: 0 })
    }

    /// Adds page `pgno` as it is.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn page(&mut self, pgno: Pgno, page: &[u8]) -> io::Result<()> {
        self.file.write_all(&pgno.get().to_be_bytes())?;
        self.file.write_all(page)?;
        self.file.write_all(&checksum(self.nonce, page).to_be_bytes())?;
        self.records += 1;
        Ok(())
    }

    /// Writes the header and brings all to the disk.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn finish(self) -> io::Result<()> {
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        let mut header = MAGIC.to_vec();
        for number in [self.records, self.nonce, self.size.get(), SECTOR as u32, self.page_size.get()] {
            header.extend_from_slice(&number.to_be_bytes());
        }
        file.write_all_at(&header, 0)?;
        file.sync_all()
    }
}

fn checksum(nonce: u32, page: &[u8]) -> u32 {
    let sampled = (1..).map(|n| page.len().checked_sub(n * STRIDE)).map_while(|at| at.filter(|at| *at > 0));
    sampled.fold(nonce, |sum, at| sum.wrapping_add(page[at].into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `pager_cksum` of SQLite.
    fn reference(nonce: u32, data: &[u8]) -> u32 {
        let mut sum = nonce;
        let mut i = data.len() as i64 - 200;
        while i > 0 {
            sum = sum.wrapping_add(u32::from(data[i as usize]));
            i -= 200;
        }
        sum
    }

    #[test]
    fn a_journal_is_a_header_and_records() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let page: Vec<u8> = (0..1024).map(|n| (n * 7 % 251) as u8).collect();
        let size = PageSize::new(1024).unwrap();
        let mut journal =
            Journal::begin(File::create(&path).unwrap(), size, PageCount::new(9), 0xffff_fff0).unwrap();
        for pgno in [1, 7] {
            journal.page(Pgno::new(pgno).unwrap(), &page).unwrap();
        }
        journal.finish().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes.len(), 512 + 2 * 1032);
        let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
        assert_eq!(bytes[..8], MAGIC);
        assert_eq!([8, 12, 16, 20, 24].map(number), [2, 0xffff_fff0, 9, 512, 1024]);
        assert_eq!((number(512), number(512 + 1032)), (1, 7));
        assert_eq!(bytes[516..516 + 1024], page);
        assert_eq!(number(512 + 1028), reference(0xffff_fff0, &page));
    }

    #[test]
    fn checksums_are_those_of_sqlite_for_each_page_size() {
        for shift in 9..=16 {
            let page: Vec<u8> = (0..1_usize << shift).map(|n| (n * 31 % 253) as u8).collect();
            assert_eq!(checksum(5, &page), reference(5, &page));
        }
    }
}
