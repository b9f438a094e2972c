//! What the pages of a B-tree tell of pages that may be wanted next: the children of interior pages, and
//! the rows that an index names.
//!
//! ```text
//!   0  type u8: 2 interior of an index, 5 interior of a table, 10 leaf of an index, 13 leaf of a table
//!   3  number of cells u16
//!   8  right-most child u32, interior pages only
//!  12  (leaves: 8) offset of each cell u16
//!
//!  cell of an interior page    child u32, then (table) varint rowid: the greatest in the child
//!  cell of an index's leaf     varint size of the record, record; its last value is the rowid
//! ```
//! On page 1 all this begins at byte 100. What is read here only decides what is fetched early: a page
//! that is something else and looks like one of these does no harm.
//! Source: <https://www.sqlite.org/fileformat2.html>, sections 1.6 and 2.1.

use std::cmp::Ordering;

use crate::page::Pgno;

/// The first byte of the B-tree page on page 1.
const AFTER_FILE_HEADER: usize = 100;

/// Types of pages.
const INDEX_INTERIOR: u8 = 2;
const TABLE_INTERIOR: u8 = 5;
const INDEX_LEAF: u8 = 10;

/// An interior page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Interior {
    /// In the order of the tree.
    pub(super) children: Vec<Pgno>,
    /// The greatest rowid of each child but the last; empty for an index.
    rowids: Vec<i64>,
}

impl Interior {
    /// Reads page `pgno`; `None` if it is something else.
    pub(super) fn parse(pgno: Pgno, page: &[u8]) -> Option<Self> {
        let start = if pgno == Pgno::ONE { AFTER_FILE_HEADER } else { 0 };
        let kind = *page.get(start)?;
        if !matches!(kind, INDEX_INTERIOR | TABLE_INTERIOR) {
            return None;
        }
        let count = usize::from(u16_at(page, start + 3)?);
        let mut children = Vec::with_capacity(count + 1);
        let mut rowids = Vec::with_capacity(if kind == TABLE_INTERIOR { count } else { 0 });
        for n in 0..count {
            let cell = usize::from(u16_at(page, start + 12 + 2 * n)?);
            children.push(Pgno::new(u32_at(page, cell)?)?);
            if kind == TABLE_INTERIOR {
                rowids.push(varint(page.get(cell + 4..)?)?.0 as i64);
            }
        }
        children.push(Pgno::new(u32_at(page, start + 8)?)?);
        Some(Self { children, rowids })
    }

    /// Which child `pgno` is.
    pub(super) fn position(&self, pgno: Pgno) -> Option<usize> {
        self.children.iter().position(|child| *child == pgno)
    }

    /// Whether this is a page of a table.
    pub(super) fn is_table(&self) -> bool {
        !self.rowids.is_empty()
    }

    /// The child that has the row `rowid`.
    pub(super) fn child_with(&self, rowid: i64) -> Pgno {
        self.children[self.rowids.partition_point(|greatest| greatest.cmp(&rowid) == Ordering::Less)]
    }
}

/// Whether `page`, which is not page 1, may be an interior page.
pub(super) fn looks_interior(page: &[u8]) -> bool {
    matches!(page.first(), Some(&INDEX_INTERIOR | &TABLE_INTERIOR))
}

/// Whether `page` may be a leaf of an index.
pub(super) fn looks_index_leaf(page: &[u8]) -> bool {
    page.first() == Some(&INDEX_LEAF)
}

/// The rows that a leaf of an index names, in its order; records that end on an overflow page are left
/// out.
pub(super) fn rowids(page: &[u8]) -> Vec<i64> {
    if !looks_index_leaf(page) {
        return Vec::new();
    }
    let count = u16_at(page, 3).map_or(0, usize::from);
    let cell = |n: usize| u16_at(page, 8 + 2 * n).and_then(|at| page.get(usize::from(at)..));
    (0..count).filter_map(|n| last_integer(cell(n)?)).collect()
}

/// The last value of the record in a cell, if it is an integer.
///
/// ```text
///   varint size of the record; record: varint size of its head, varint type of each value, values
/// ```
fn last_integer(cell: &[u8]) -> Option<i64> {
    let (size, start) = varint(cell)?;
    let record = cell.get(start..)?.get(..usize::try_from(size).ok()?)?;
    let (head, mut at) = varint(record)?;
    let head = record.get(..usize::try_from(head).ok()?)?;
    let mut last = None;
    while at < head.len() {
        let (kind, len) = varint(&head[at..])?;
        last = Some(kind);
        at += len;
    }
    let len = match last? {
        kind @ 1..=4 => kind as usize,
        5 => 6,
        6 => 8,
        constant @ (8 | 9) => return Some(constant as i64 - 8),
        _ => return None,
    };
    let value = &record[record.len().checked_sub(len)?..];
    let sign = if value[0] & 0x80 == 0 { 0 } else { -1 };
    Some(value.iter().fold(sign, |n, byte| n << 8 | i64::from(*byte)))
}

/// SQLite's varint: big-endian, seven bits a byte, all eight of a ninth. The number and its length.
fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
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

fn u16_at(page: &[u8], at: usize) -> Option<u16> {
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
            assert_eq!(interior.child_with(rowid), pgno(child), "{rowid}");
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
    fn an_index_names_its_rows() {
        let mut page = vec![0; 512];
        page[0] = INDEX_LEAF;
        // A text of two letters and a rowid, in 1, 0, 3 and 8 bytes; then a record that does not end here.
        let cells: [&[u8]; 5] = [
            &[6, 3, 17, 1, b'a', b'b', 0xfe],
            &[5, 3, 17, 9, b'a', b'b'],
            &[8, 3, 17, 3, b'a', b'b', 1, 0, 2],
            &[13, 3, 17, 6, b'a', b'b', 0, 0, 0, 1, 0, 0, 0, 0],
            &[0xff, 0x7f, 3, 17, 1],
        ];
        page[4] = cells.len() as u8;
        let mut end = 512;
        for (n, cell) in cells.iter().enumerate() {
            end -= cell.len();
            page[end..end + cell.len()].copy_from_slice(cell);
            page[8 + 2 * n..][..2].copy_from_slice(&(end as u16).to_be_bytes());
        }
        assert_eq!(rowids(&page), [-2, 1, 0x1_0002, 1 << 32]);
        page[0] = 13;
        assert!(rowids(&page).is_empty());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(kind in prop_oneof![Just(2u8), Just(5), Just(10)], bytes: Vec<u8>) {
            let page = [&[kind][..], &bytes].concat();
            rowids(&page);
            if let Some(interior) = Interior::parse(pgno(2), &page) {
                interior.child_with(7);
            }
        }
    }
}
