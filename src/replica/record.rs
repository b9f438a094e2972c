//! The integers in records: in the rows of a table and in the entries of an index.
//!
//! ```text
//!  page    0  type u8: 10 leaf of an index, 13 leaf of a table
//!          3  number of cells u16
//!          8  offset of each cell u16
//!
//!  cell of an index's leaf    varint size of the record, record; its last value is the rowid
//!  cell of a table's leaf     varint size of the record, varint rowid, record
//!
//!  record  varint size of its head, varint type of each value, values
//! ```
//! What a record has on overflow pages is left out. What is read here only decides what is fetched early: a page that is
//! something else and looks like one of these does no harm.
//! Source: <https://www.sqlite.org/fileformat2.html>, sections 1.6 and 2.1.

use super::btree::{u16_at, varint};

const INDEX_LEAF: u8 = 10;
const TABLE_LEAF: u8 = 13;

/// The integers of a record by column; `None` for what is no integer.
pub(super) type Integers = Vec<Option<i64>>;

/// An entry of an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Those of its columns; the last is the rowid.
    pub(super) integers: Integers,
    /// The number of the group that it is in: entries side by side with the same first value.
    pub(super) group: u32,
}

/// Whether `page` may be a leaf of an index.
pub(super) fn looks_index_leaf(page: &[u8]) -> bool {
    page.first() == Some(&INDEX_LEAF)
}

/// The entries of a leaf of an index, in its order; those whose records do not end on it are left out.
pub(super) fn entries(page: &[u8]) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    if !looks_index_leaf(page) {
        return entries;
    }
    let mut before: Option<&[u8]> = None;
    for cell in cells(page) {
        let Some(record) = whole_record(cell) else { continue };
        let Some((integers, first)) = values(record) else { continue };
        let last = entries.last().map_or(0, |entry| entry.group);
        let group = if before.is_some_and(|before| before != first) { last + 1 } else { last };
        before = Some(first);
        entries.push(Entry { integers, group });
    }
    entries
}

/// The row `rowid` of a leaf of a table, as far as it is on the leaf.
pub(super) fn row(page: &[u8], rowid: i64) -> Option<Integers> {
    if page.first() != Some(&TABLE_LEAF) {
        return None;
    }
    let record = cells(page).find_map(|cell| {
        let (_, size) = varint(cell)?;
        let (found, len) = varint(cell.get(size..)?)?;
        (found.cast_signed() == rowid).then(|| cell.get(size + len..))?
    })?;
    values(record).map(|(integers, _)| integers)
}

/// The first value of a record whose first bytes are `start`, if it is an integer.
pub(super) fn first_integer(cell: &[u8]) -> Option<i64> {
    let (_, size) = varint(cell)?;
    let record = cell.get(size..)?;
    let (head_size, at) = varint(record)?;
    let (kind, _) = varint(record.get(at..usize::try_from(head_size).ok()?)?)?;
    let value = record.get(usize::try_from(head_size).ok()?..)?;
    integer(kind, value.get(..usize::try_from(size_of_value(kind)?).ok()?)?)
}

fn cells(page: &[u8]) -> impl Iterator<Item = &[u8]> {
    let count = u16_at(page, 3).map_or(0, usize::from);
    (0..count).filter_map(|n| page.get(usize::from(u16_at(page, 8 + 2 * n)?)..))
}

fn whole_record(cell: &[u8]) -> Option<&[u8]> {
    let (size, start) = varint(cell)?;
    cell.get(start..)?.get(..usize::try_from(size).ok()?)
}

/// The integers of a record, and the bytes of its first value.
fn values(record: &[u8]) -> Option<(Integers, &[u8])> {
    let (head_size, mut at) = varint(record)?;
    let head_size = usize::try_from(head_size).ok()?;
    let head = record.get(..head_size)?;
    let (mut integers, mut first, mut value) = (Vec::new(), &record[..0], head_size);
    while at < head_size {
        let (kind, len) = varint(&head[at..])?;
        let size = usize::try_from(size_of_value(kind)?).ok()?;
        let bytes = record.get(value..value.checked_add(size)?);
        if integers.is_empty() {
            first = bytes?;
        }
        integers.push(bytes.and_then(|bytes| integer(kind, bytes)));
        (at, value) = (at + len, value.saturating_add(size));
    }
    (!integers.is_empty()).then_some((integers, first))
}

/// The size of a value in bytes; `None` for a type that is reserved.
fn size_of_value(kind: u64) -> Option<u64> {
    match kind {
        0 | 8 | 9 => Some(0),
        1..=4 => Some(kind),
        5 => Some(6),
        6 | 7 => Some(8),
        12.. => Some((kind - 12) / 2),
        _ => None,
    }
}

fn integer(kind: u64, bytes: &[u8]) -> Option<i64> {
    match kind {
        8 | 9 => Some(kind.cast_signed() - 8),
        1..=6 => {
            let sign = if bytes.first()? & 0x80 == 0 { 0 } else { -1 };
            Some(bytes.iter().fold(sign, |n, byte| n << 8 | i64::from(*byte)))
        }
        _ => None,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A leaf whose cells are `cells`.
    pub(in crate::replica) fn leaf(kind: u8, size: usize, cells: &[Vec<u8>]) -> Vec<u8> {
        let mut page = vec![0; size];
        page[0] = kind;
        page[3..5].copy_from_slice(&(cells.len() as u16).to_be_bytes());
        let mut end = size;
        for (n, cell) in cells.iter().enumerate() {
            end -= cell.len();
            page[end..end + cell.len()].copy_from_slice(cell);
            page[8 + 2 * n..][..2].copy_from_slice(&(end as u16).to_be_bytes());
        }
        page
    }

    /// A record of integers of two bytes.
    pub(in crate::replica) fn record(values: &[i16]) -> Vec<u8> {
        let head = std::iter::once(values.len() as u8 + 1).chain(values.iter().map(|_| 2));
        head.chain(values.iter().flat_map(|value| value.to_be_bytes())).collect()
    }

    /// A leaf of an index whose entries have these values.
    pub(in crate::replica) fn index(entries: &[&[i16]]) -> Vec<u8> {
        let cell = |values: &&[i16]| [vec![3 * values.len() as u8 + 1], record(values)].concat();
        leaf(INDEX_LEAF, 4096, &entries.iter().map(cell).collect::<Vec<_>>())
    }

    #[test]
    fn an_index_names_its_rows() {
        // A text of two letters and a rowid, in 1, 0, 3 and 8 bytes; then a record that does not end here.
        let cells: [&[u8]; 5] = [
            &[6, 3, 17, 1, b'a', b'b', 0xfe],
            &[5, 3, 17, 9, b'a', b'b'],
            &[8, 3, 17, 3, b'a', b'c', 1, 0, 2],
            &[13, 3, 17, 6, b'a', b'c', 0, 0, 0, 1, 0, 0, 0, 0],
            &[0xff, 0x7f, 3, 17, 1],
        ];
        let page = leaf(INDEX_LEAF, 512, &cells.map(<[u8]>::to_vec));
        let found: Vec<_> = entries(&page).into_iter().map(|e| (e.integers, e.group)).collect();
        let expected = [(-2, 0), (1, 0), (0x1_0002, 1), (1 << 32, 1)];
        assert_eq!(found, expected.map(|(rowid, group)| (vec![None, Some(rowid)], group)));
        assert!(entries(&leaf(TABLE_LEAF, 512, &cells.map(<[u8]>::to_vec))).is_empty());
    }

    #[test]
    fn a_row_is_found_by_its_rowid() {
        // NULL, a text of one letter, 258; then one that continues on an overflow page after its second value.
        let cells: [&[u8]; 2] =
            [&[7, 5, 4, 0, 15, 2, b'x', 1, 2], &[0x8f, 0x00, 9, 5, 1, 2, 0x8f, 0x01, 7, 1, 3, b'y']];
        let page = leaf(TABLE_LEAF, 512, &cells.map(<[u8]>::to_vec));
        assert_eq!(row(&page, 5), Some(vec![None, None, Some(258)]));
        assert_eq!(row(&page, 9), Some(vec![Some(7), Some(259), None]));
        assert_eq!(row(&page, 7), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(kind in prop_oneof![Just(INDEX_LEAF), Just(TABLE_LEAF)], bytes: Vec<u8>) {
            let page = [&[kind][..], &bytes].concat();
            entries(&page);
            row(&page, 7);
            first_integer(&page);
        }
    }
}
