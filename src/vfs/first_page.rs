//! What the first page of a database file tells, where it tells anything: a host may encrypt it.

use crate::page::{PageCount, PageSize};
use crate::sqlite::{BaseFile, Code};

/// How a database file begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FirstPage {
    /// The file is empty: SQLite has not written it yet.
    Empty,
    /// Not as SQLite's files do: encrypted, or not yet what it will be when a rollback journal is rolled back.
    Opaque,
    /// As SQLite's files do.
    Plain(Header),
}

/// The header of the first page, as far as it matters.
///
/// ```text
///  0  "SQLite format 3\0"
/// 16  page size         u16  1 stands for 65536
/// 18  write version     u8   1 rollback journal, 2 WAL
/// 19  read version      u8   the same
/// 24  change counter    u32
/// 28  size in pages     u32  believed only if bytes 24 and 92 agree
/// 92  version valid for u32  the change counter for which the size is right
/// ```
///
/// Integers are big-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Whether the database has a WAL, not a rollback journal.
    pub(super) is_wal: bool,
    /// The page size; `None` if it is none.
    pub(super) page_size: Option<PageSize>,
    /// The size of the database, where the page is sure of it.
    pub(super) pages: Option<PageCount>,
}

impl FirstPage {
    const MAGIC: &[u8; 16] = b"SQLite format 3\0";

    /// Reads it. Takes no lock.
    ///
    /// # Errors
    /// Those of the file.
    pub(super) fn read(file: &mut BaseFile) -> Result<Self, Code> {
        if file.file_size()? == 0 {
            return Ok(Self::Empty);
        }
        let mut bytes = [0; 100];
        let _short_is_zeros = file.read(&mut bytes, 0)?;
        Ok(Self::decode(&bytes))
    }

    /// Whether `page`, which is about to be written as the first one, is of a database with a rollback journal. One that a host
    /// encrypted says nothing, whatever its bytes are.
    pub(super) fn leaves_wal_mode(page: &[u8]) -> bool {
        page.first_chunk()
            .is_some_and(|bytes| matches!(Self::decode(bytes), Self::Plain(header) if !header.is_wal))
    }

    fn decode(bytes: &[u8; 100]) -> Self {
        let word = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        if !bytes.starts_with(Self::MAGIC) {
            return Self::Opaque;
        }
        let page_size = match u16::from_be_bytes([bytes[16], bytes[17]]) {
            1 => 65536,
            n => u32::from(n),
        };
        let sure = word(28) > 0 && word(24) == word(92);
        Self::Plain(Header {
            is_wal: bytes[18] == 2 && bytes[19] == 2,
            page_size: PageSize::new(page_size).ok(),
            pages: sure.then(|| PageCount::new(word(28))),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_page_of_sqlites_leaves_wal_mode() {
        let mut page = [0; 512];
        page[18..20].copy_from_slice(&[1, 1]);
        assert!(!FirstPage::leaves_wal_mode(&page), "it is encrypted");
        page[..16].copy_from_slice(FirstPage::MAGIC);
        assert!(FirstPage::leaves_wal_mode(&page));
        page[18..20].copy_from_slice(&[2, 2]);
        assert!(!FirstPage::leaves_wal_mode(&page));
        assert!(!FirstPage::leaves_wal_mode(&page[..24]));
    }

    #[test]
    fn only_a_page_of_sqlites_is_believed() {
        let mut bytes = [0; 100];
        assert_eq!(FirstPage::decode(&bytes), FirstPage::Opaque);
        bytes[..16].copy_from_slice(FirstPage::MAGIC);
        bytes[16..20].copy_from_slice(&[0x10, 0, 2, 2]);
        bytes[27] = 9;
        bytes[31] = 5;
        let FirstPage::Plain(header) = FirstPage::decode(&bytes) else { panic!("it begins as SQLite's do") };
        assert!(header.is_wal);
        assert_eq!((header.page_size.map(PageSize::get), header.pages), (Some(4096), None));
        bytes[95] = 9;
        let FirstPage::Plain(header) = FirstPage::decode(&bytes) else { panic!("it begins as SQLite's do") };
        assert_eq!(header.pages, Some(PageCount::new(5)));
    }
}
