//! What the interior pages of a B-tree tell of pages that may be wanted next: their children, and the keys between those.
//!
//! ```text
//!   0  type u8: 2 interior of an index, 5 interior of a table
//!   3  number of cells u16
//!   8  right-most child u32
//!  12  offset of each cell u16
//!
//!  cell of a table     child u32, varint rowid: the greatest in the child
//!  cell of an index    child u32, varint size of the record, record: the entry after the child
//! ```
//! On page 1 all this begins at byte 100. What is read here only decides what is fetched early: a page
//! that is something else and looks like one of these does no harm.
//! Source: <https://www.sqlite.org/fileformat2.html>, sections 1.6 and 2.1.

use super::record;
use crate::page::Pgno;

/// The first byte of the B-tree page on page 1.
const AFTER_FILE_HEADER: usize = 100;

/// Types of pages.
const INDEX_INTERIOR: u8 = 2;
const TABLE_INTERIOR: u8 = 5;

/// An interior page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Interior {
    /// In the order of the tree.
    pub(super) children: Vec<Pgno>,
    kind: Kind,
    /// What lies between a child and the next one: of a table the greatest rowid of the child, of an index the first value
    /// of the entry there. Empty if those are no integers in ascending order.
    keys: Vec<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Table,
    Index,
}

impl Interior {
    /// Reads page `pgno`; `None` if it is something else.
    pub(super) fn parse(pgno: Pgno, page: &[u8]) -> Option<Self> {
        let start = if pgno == Pgno::ONE { AFTER_FILE_HEADER } else { 0 };
        let kind = match *page.get(start)? {
            TABLE_INTERIOR => Kind::Table,
            INDEX_INTERIOR => Kind::Index,
            _ => return None,
        };
        let count = usize::from(u16_at(page, start + 3)?);
        let mut children = Vec::with_capacity(count + 1);
        let mut keys = Vec::with_capacity(count);
        for n in 0..count {
            let cell = usize::from(u16_at(page, start + 12 + 2 * n)?);
            children.push(Pgno::new(u32_at(page, cell)?)?);
            let key = page.get(cell + 4..)?;
            keys.extend(match kind {
                Kind::Table => Some(varint(key)?.0.cast_signed()),
                Kind::Index => record::first_integer(key),
            });
        }
        children.push(Pgno::new(u32_at(page, start + 8)?)?);
        if keys.len() < count || !keys.is_sorted() {
            keys = Vec::new();
        }
        Some(Self { children, kind, keys })
    }

    /// Which child `pgno` is.
    pub(super) fn position(&self, pgno: Pgno) -> Option<usize> {
        self.children.iter().position(|child| *child == pgno)
    }

    /// Whether this is a page of a table.
    pub(super) fn is_table(&self) -> bool {
        self.kind == Kind::Table
    }

    /// The child that has the row `key`, or where the entries that begin with `key` begin; `None` if that cannot be told.
    pub(super) fn child_with(&self, key: i64) -> Option<Pgno> {
        let at = self.keys.partition_point(|between| *between < key);
        (!self.keys.is_empty()).then(|| self.children[at])
    }

    /// Whether the child at `at` may have the row `key`, or entries that begin with `key`.
    pub(super) fn may_have(&self, at: usize, key: i64) -> bool {
        let (before, after) = (at.checked_sub(1).and_then(|at| self.keys.get(at)), self.keys.get(at));
        let is_after = before.is_none_or(|before| *before < key || *before == key && !self.is_table());
        !self.keys.is_empty() && is_after && after.is_none_or(|after| key <= *after)
    }
}

/// Whether `page`, which is not page 1, may be an interior page.
pub(super) fn looks_interior(page: &[u8]) -> bool {
    matches!(page.first(), Some(&INDEX_INTERIOR | &TABLE_INTERIOR))
}

/// SQLite's varint: big-endian, seven bits a byte, all eight of a ninth. The number and its length.
pub(super) fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut n = 0u64;
    for (at, byte) in bytes.iter().enumerate().take(9) {
        if at == 8 {
            return Some((n << 8 | u64::from(*byte), 9));
        }
        n = n << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Some((n, at + 1));
        }
    }
    None
}

pub(super) fn u16_at(page: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*page.get(at..)?.first_chunk()?))
}

fn u32_at(page: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*page.get(at..)?.first_chunk()?))
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An interior page of a table, with the greatest rowid of each child but the last.
    pub(in crate::replica) fn table(children: &[u32], rowids: &[u8]) -> Vec<u8> {
        let mut page = vec![0; 4096];
        page[0] = TABLE_INTERIOR;
        page[3..5].copy_from_slice(&(rowids.len() as u16).to_be_bytes());
        page[8..12].copy_from_slice(&children[rowids.len()].to_be_bytes());
        for (n, rowid) in rowids.iter().enumerate() {
            let cell = 2000 + 5 * n;
            page[12 + 2 * n..][..2].copy_from_slice(&(cell as u16).to_be_bytes());
            page[cell..cell + 4].copy_from_slice(&children[n].to_be_bytes());
            page[cell + 4] = *rowid;
        }
        page
    }

    fn pgno(n: u32) -> Pgno {
        Pgno::new(n).unwrap()
    }

    #[test]
    fn children_come_in_the_order_of_the_tree() {
        let page = table(&[9, 4, 7], &[10, 20]);
        let interior = Interior::parse(pgno(2), &page).unwrap();
        assert_eq!(interior.children, [9, 4, 7].map(pgno));
        assert_eq!(interior.position(pgno(7)), Some(2));
        for (rowid, child) in [(i64::MIN, 9), (10, 9), (11, 4), (20, 4), (21, 7), (i64::MAX, 7)] {
            assert_eq!(interior.child_with(rowid), Some(pgno(child)), "{rowid}");
        }
        let mut first = vec![0; 100];
        first.extend(&page);
        assert!(
            Interior::parse(Pgno::ONE, &first).is_none(),
            "offsets of cells are from the start of the page"
        );
        assert!(Interior::parse(pgno(2), &table(&[0], &[])).is_none());
    }

    #[test]
    fn an_index_is_followed_by_the_first_value() {
        let mut page = table(&[9, 4, 7, 8], &[0, 0, 0]);
        page[0] = INDEX_INTERIOR;
        for (n, first) in [10, 20, 20].into_iter().enumerate() {
            let cell = 3000 + 20 * n;
            page[12 + 2 * n..][..2].copy_from_slice(&(cell as u16).to_be_bytes());
            page[cell..cell + 4].copy_from_slice(&[9u32, 4, 7][n].to_be_bytes());
            page[cell + 4..][..8].copy_from_slice(&[&[7][..], &record::tests::record(&[first, 1])].concat());
        }
        let index = Interior::parse(pgno(2), &page).unwrap();
        for (key, child) in [(i64::MIN, 9), (10, 9), (11, 4), (20, 4), (21, 8)] {
            assert_eq!(index.child_with(key), Some(pgno(child)), "{key}");
        }
        let having = |key| (0..4).filter(|at| index.may_have(*at, key)).collect::<Vec<_>>();
        assert_eq!([9, 10, 15, 20, 21].map(having), [vec![0], vec![0, 1], vec![1], vec![1, 2, 3], vec![3]]);
        // Entries in another order, as of DESC, tell nothing.
        page[3005 + 3..][..2].copy_from_slice(&[1, 0]);
        let index = Interior::parse(pgno(2), &page).unwrap();
        assert_eq!((index.child_with(20), index.may_have(0, 20)), (None, false));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(kind in prop_oneof![Just(2u8), Just(5)], bytes: Vec<u8>) {
            let page = [&[kind][..], &bytes].concat();
            if let Some(interior) = Interior::parse(pgno(2), &page) {
                interior.child_with(7);
            }
        }
    }
}
