//! The first page of a copy: what of the database header is the copy's own.
//!
//! The database that is copied is in WAL mode; a copy is a file of its own in rollback mode, and its change counter says to
//! readers that their caches are stale. Source: <https://www.sqlite.org/fileformat2.html>, section 1.3.

use crate::error::{Error, ErrorKind, Result};
use crate::page::{PageCount, PageSize};
use crate::replica::{COOKIE, OF_SCHEMA, cookie};

/// The bytes with which each database begins that is not encrypted.
const MAGIC: &[u8] = b"SQLite format 3\0";
/// Where the page size is.
const PAGE_SIZE: usize = 16;
/// Where the versions are that writing and reading the file take: 1 for a rollback journal, 2 for a WAL.
const VERSIONS: std::ops::Range<usize> = 18..20;
/// Where the change counter is.
const CHANGE_COUNTER: std::ops::Range<usize> = 24..28;
/// Where the size in pages is.
const SIZE: std::ops::Range<usize> = 28..32;
/// Where the change counter is for which the size holds.
const SIZE_VALID_FOR: std::ops::Range<usize> = 92..96;

/// How much of the first page is the header.
pub(super) const HEADER: usize = 100;

/// The page size that the first page says, whose first bytes are `page`.
///
/// # Errors
/// `Unsupported` if it is not that of a readable database.
pub(super) fn page_size(page: &[u8]) -> Result<PageSize> {
    check(page)?;
    match u16::from_be_bytes([page[PAGE_SIZE], page[PAGE_SIZE + 1]]) {
        1 => Ok(PageSize::MAX),
        size => PageSize::new(size.into()),
    }
}

/// The change counter of the first page, whose first bytes are `page`.
pub(super) fn change_counter(page: &[u8]) -> u32 {
    let bytes = page[CHANGE_COUNTER].try_into().expect("BUG: four bytes are four bytes");
    u32::from_be_bytes(bytes)
}

/// Makes of the first page of the database that of a copy with `size` pages, whose readers see `change_counter`.
///
/// # Errors
/// `Unsupported` if it is not that of a readable database.
pub(super) fn of_copy(page: &mut [u8], size: PageCount, change_counter: u32) -> Result<()> {
    check(page)?;
    page[VERSIONS].fill(1);
    page[CHANGE_COUNTER].copy_from_slice(&change_counter.to_be_bytes());
    page[SIZE].copy_from_slice(&size.get().to_be_bytes());
    page[SIZE_VALID_FOR].copy_from_slice(&change_counter.to_be_bytes());
    Ok(())
}

/// Gives the first page of a copy, which was `before`, its schema cookie: a higher one if its schema `is_another`, whatever
/// the database counts, as its readers read the schema again by that alone. A database that was restored to an earlier state
/// counts the same numbers once more.
pub(super) fn count_schemas(page: &mut [u8], before: &[u8], is_another: bool) {
    let last = cookie(before);
    let next = if is_another { last.wrapping_add(1) } else { last };
    let shown = cookie(page).max(next);
    page[COOKIE].copy_from_slice(&shown.to_be_bytes());
}

/// Whether the first page of a database tells of another schema than the one `before`.
pub(super) fn tells_another_schema(page: &[u8], before: &[u8]) -> bool {
    let beside_cookie = COOKIE.end..OF_SCHEMA.end;
    page[beside_cookie.clone()] != before[beside_cookie] || page[HEADER..] != before[HEADER..]
}

fn check(page: &[u8]) -> Result<()> {
    if page.len() >= HEADER && page.starts_with(MAGIC) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Unsupported,
        "the database is encrypted, or its first page is no SQLite header, so that readers of a copy could not be told of \
         changes: read the replica itself, with mode=ro in the URI, or restore it",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cookie_of_a_copy_only_goes_up() {
        let page = |cookie: u32| {
            let mut page = vec![0; 512];
            page[COOKIE].copy_from_slice(&cookie.to_be_bytes());
            page
        };
        for (before, after, is_another, shown) in [
            (7, 7, false, 7),
            (7, 8, true, 8),
            (7, 7, true, 8),
            (9, 5, true, 10),
            (9, 5, false, 9),
            (9, 12, true, 12),
        ] {
            let mut next = page(after);
            count_schemas(&mut next, &page(before), is_another);
            assert_eq!(cookie(&next), shown, "{before} {after}");
        }
    }

    #[test]
    fn a_copy_is_in_rollback_mode_and_says_its_size() {
        let mut page = vec![7; 512];
        page[..16].copy_from_slice(MAGIC);
        page[16..20].copy_from_slice(&[2, 0, 2, 2]);
        let before = page.clone();
        of_copy(&mut page, PageCount::new(0x0102_0304), 0xa1b2_c3d4).unwrap();
        assert_eq!((page_size(&page).unwrap(), change_counter(&page)), (PageSize::MIN, 0xa1b2_c3d4));
        assert_eq!(page[18..20], [1, 1]);
        assert_eq!((&page[28..32], &page[92..96]), (&[1, 2, 3, 4][..], &[0xa1, 0xb2, 0xc3, 0xd4][..]));
        for same in [0..18, 20..24, 32..92, 96..512] {
            assert_eq!(page[same.clone()], before[same]);
        }
        page[16..18].copy_from_slice(&[0, 1]);
        assert_eq!(page_size(&page).unwrap(), PageSize::MAX);
        page[0] = b'x';
        assert_eq!(of_copy(&mut page, PageCount::new(1), 1).unwrap_err().kind(), ErrorKind::Unsupported);
    }
}
