//! The schema cookie that a connection is shown: another one whenever the schema is another.
//!
//! A connection reads the schema again when the cookie on page 1 is not the one that it knows. A database only ever counts it
//! up, but the states of a replica are not all of one such line: one that was restored to an earlier state and went on counts
//! the same numbers once more, and a connection may go to an earlier state and back. There the same number may stand for
//! another schema, with the pages of one table where another one was. So the cookie of the database is shown as long as it
//! goes up, and else one that is higher than all before.

use std::hash::{DefaultHasher, Hasher as _};
use std::ops::Range;

use super::btree::Interior;
use super::map::Frame;
use crate::error::Result;
use crate::page::Pgno;

/// Where the cookie is on page 1.
pub const COOKIE: Range<usize> = 40..44;
/// What of the header of page 1 tells how the schema is read: the cookie, its format, the size of a cache, the largest root
/// page, the encoding.
pub const OF_SCHEMA: Range<usize> = 40..60;
/// Where the B-tree of the schema begins on page 1.
const TREE: usize = 100;
/// The most pages of the schema that are looked at.
const MOST: usize = 10_000;

/// Shows the pages of the schema to `visit`: page 1, which is `first`, and those that `read` gives.
///
/// # Errors
/// Those of `read`.
pub fn schema_pages(
    first: &[u8],
    mut read: impl FnMut(Pgno) -> Result<Vec<u8>>,
    mut visit: impl FnMut(Pgno, &[u8]),
) -> Result<()> {
    visit(Pgno::ONE, first);
    let mut left = Interior::parse(Pgno::ONE, first).map_or_else(Vec::new, |page| page.children);
    let mut seen = 0;
    while let Some(pgno) = left.pop().filter(|_| seen < MOST) {
        seen += 1;
        let page = read(pgno)?;
        visit(pgno, &page);
        left.extend(Interior::parse(pgno, &page).into_iter().flat_map(|page| page.children));
    }
    Ok(())
}

/// The cookie on page 1, whose first bytes are `page`.
pub fn cookie(page: &[u8]) -> u32 {
    u32::from_be_bytes(page[COOKIE].try_into().expect("BUG: four bytes are four bytes"))
}

/// What a connection was shown last.
#[derive(Debug, Default)]
pub(super) struct ShownSchema(Option<Shown>);

#[derive(Debug)]
struct Shown {
    /// Where page 1 was, if that is known: what is there is never another page.
    frame: Option<Frame>,
    /// A digest of all that is read of the schema, unless some of it could not be read.
    digest: Option<u64>,
    cookie: u32,
}

impl ShownSchema {
    /// The cookie to show on `first`, which is page 1 and was found at `frame`; `read` gives other pages of that state.
    pub(super) fn cookie(
        &mut self,
        frame: Option<Frame>,
        first: &[u8],
        read: impl FnMut(Pgno) -> Result<Vec<u8>>,
    ) -> u32 {
        if let Some(shown) = self.0.as_ref().filter(|shown| frame.is_some() && shown.frame == frame) {
            return shown.cookie;
        }
        // What cannot be read now is read by SQLite, which tells of it.
        let digest = digest(first, read).ok();
        let cookie = match &self.0 {
            None => cookie(first),
            Some(before) if digest.is_some() && digest == before.digest => before.cookie,
            Some(before) => cookie(first).max(before.cookie.wrapping_add(1)),
        };
        self.0 = Some(Shown { frame, digest, cookie });
        cookie
    }

    /// The cookie of a page 1 of which only a part is read, for nobody to keep.
    pub(super) fn cookie_of_part(&self, frame: Option<Frame>, first: &[u8]) -> u32 {
        match &self.0 {
            Some(shown) if frame.is_some() && shown.frame == frame => shown.cookie,
            _ => cookie(first),
        }
    }
}

fn digest(first: &[u8], read: impl FnMut(Pgno) -> Result<Vec<u8>>) -> Result<u64> {
    let mut hasher = DefaultHasher::new();
    hasher.write(&first[OF_SCHEMA]);
    schema_pages(first, read, |pgno, page| {
        hasher.write(if pgno == Pgno::ONE { &page[TREE..] } else { page });
    })?;
    Ok(hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error, ErrorKind};

    fn first(cookie: u32, schema: u8) -> Vec<u8> {
        let mut page = vec![0; 512];
        page[COOKIE].copy_from_slice(&cookie.to_be_bytes());
        page[TREE] = 13;
        page[500] = schema;
        page
    }

    fn nowhere(_: Pgno) -> Result<Vec<u8>> {
        Err(Error::new(ErrorKind::NotFound, "there is no such page"))
    }

    #[test]
    fn the_cookie_of_the_database_is_shown_as_long_as_it_goes_up() {
        let mut shown = ShownSchema::default();
        for (cookie, schema) in [(7, 1), (7, 1), (8, 2), (11, 3)] {
            assert_eq!(shown.cookie(None, &first(cookie, schema), nowhere), cookie);
        }
    }

    #[test]
    fn another_schema_has_another_cookie_than_all_before() {
        let mut shown = ShownSchema::default();
        let look = |(cookie, schema)| shown.cookie(None, &first(cookie, schema), nowhere);
        let cookies: Vec<u32> = [(7, 1), (7, 2), (7, 2), (7, 1), (5, 3), (12, 4)].map(look).into();
        assert_eq!(cookies, [7, 8, 8, 9, 10, 12]);
    }

    #[test]
    fn pages_below_page_1_count() {
        let mut root = first(7, 0);
        root[TREE] = 5;
        root[TREE + 8..TREE + 12].copy_from_slice(&2_u32.to_be_bytes());
        let mut shown = ShownSchema::default();
        let mut look = |leaf: u8| shown.cookie(None, &root, |_| Ok(vec![leaf; 512]));
        assert_eq!([look(13), look(13), look(10)], [7, 7, 8]);
        // What cannot be read may be another.
        assert_eq!(shown.cookie(None, &root, nowhere), 9);
        assert_eq!(shown.cookie(None, &root, nowhere), 10);
    }
}
