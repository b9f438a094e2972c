//! A rollback journal as SQLite writes and reads it: the pages as they were, which the next reader puts back if a
//! transaction did not come to its end.
//!
//! Source: <https://www.sqlite.org/fileformat2.html>, section 3, and `pager.c`.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

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

/// A journal that [`Journal::finish`] wrote, and that is read back.
#[derive(Debug)]
pub(super) struct Finished {
    file: BufReader<File>,
    page_size: PageSize,
    size: PageCount,
    nonce: u32,
    /// Pages that are not read yet.
    left: u32,
}

impl Finished {
    /// Opens the journal at `path`.
    ///
    /// # Errors
    /// `InvalidData` if it is none; those of the file system.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut file = BufReader::with_capacity(1 << 18, File::open(path)?);
        let mut header = [0; SECTOR];
        file.read_exact(&mut header)?;
        let (magic, numbers) = header.split_at(MAGIC.len());
        let mut numbers = numbers
            .chunks_exact(4)
            .map(|bytes| u32::from_be_bytes(bytes.try_into().expect("BUG: four bytes are four bytes")));
        let mut number = || numbers.next().expect("BUG: a sector has more numbers");
        let (left, nonce, size, sector) = (number(), number(), number(), number());
        let page_size = PageSize::new(number()).map_err(|_| damaged())?;
        if magic != MAGIC || sector != SECTOR as u32 {
            return Err(damaged());
        }
        Ok(Self { file, page_size, size: PageCount::new(size), nonce, left })
    }

    /// The size of a page.
    pub(super) fn page_size(&self) -> PageSize {
        self.page_size
    }

    /// The size that the database had.
    pub(super) fn size(&self) -> PageCount {
        self.size
    }

    /// Reads the next page as it was into `page`, and says which it is.
    ///
    /// # Errors
    /// `InvalidData` if it is another one than was written; those of the file system.
    pub(super) fn next_page(&mut self, page: &mut [u8]) -> io::Result<Option<Pgno>> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        let (mut pgno, mut sum) = ([0; 4], [0; 4]);
        self.file.read_exact(&mut pgno)?;
        self.file.read_exact(page)?;
        self.file.read_exact(&mut sum)?;
        if u32::from_be_bytes(sum) != checksum(self.nonce, page) {
            return Err(damaged());
        }
        self.left = left;
        Pgno::new(u32::from_be_bytes(pgno)).map(Some).ok_or_else(damaged)
    }
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the journal is damaged")
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

        let mut finished = Finished::open(&path).unwrap();
        assert_eq!((finished.page_size(), finished.size()), (size, PageCount::new(9)));
        for pgno in [Some(1), Some(7), None] {
            let mut read = vec![0; 1024];
            assert_eq!(finished.next_page(&mut read).unwrap(), pgno.and_then(Pgno::new));
            assert!(pgno.is_none() || read == page);
        }
        for (at, byte) in [(0, 0), (23, 1), (26, 5)] {
            let mut bytes = bytes.clone();
            bytes[at] = byte;
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(Finished::open(&path).unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
        let mut other = bytes;
        other[516 + 1024 - 200] ^= 1;
        std::fs::write(&path, other).unwrap();
        let error = Finished::open(&path).unwrap().next_page(&mut vec![0; 1024]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn checksums_are_those_of_sqlite_for_each_page_size() {
        for shift in 9..=16 {
            let page: Vec<u8> = (0..1_usize << shift).map(|n| (n * 31 % 253) as u8).collect();
            assert_eq!(checksum(5, &page), reference(5, &page));
        }
    }
}
