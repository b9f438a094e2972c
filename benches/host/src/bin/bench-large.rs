//! A replica of a very large database, which never was anywhere: one snapshot and its pack.
//!
//! ```text
//! bench-large FOLDER PAGES     writes FOLDER/0009/…ltx, and FOLDER/vfs/…pack; prints the number of rows
//! ```
//!
//! The database has one table, `t(id INTEGER PRIMARY KEY, body BLOB)`, with a row in each leaf, laid out as SQLite does when
//! rows are appended: an interior page lies among its leaves. Bodies are zeros but for their ends, so that 100 GB of pages
//! make a file of a few GB. The format of a pack is told in `src/replica/pack`.

use std::error::Error;
use std::fs;
use std::io::BufWriter;
use std::path::Path;

use crc_fast::{CrcAlgorithm, checksum};

#[path = "../ltx.rs"]
mod ltx;
use ltx::{Ltx, PAGE, varint};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Children of an interior page.
const FAN: u32 = 320;
/// Pages of a block of the index.
const BLOCK: u32 = 16_384;
const BODY: usize = 4000;
/// Of each body so many bytes do not compress.
const NOISE: usize = 80;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, pages] = arguments.as_slice() else { return Err("usage: bench-large FOLDER PAGES".into()) };
    let (folder, pages): (&Path, u32) = (Path::new(folder), pages.parse()?);
    let shape = Shape::of(pages);
    fs::create_dir_all(folder.join("0009"))?;
    fs::create_dir_all(folder.join("vfs"))?;
    let out = fs::File::create(folder.join("0009/0000000000000001-0000000000000001.ltx"))?;
    let mut file = Ltx::new(BufWriter::with_capacity(1 << 20, out), 1, 1, shape.pages)?;
    let mut pack = Pack::default();
    for pgno in 1..=shape.pages {
        let (page, is_upper) = shape.page(pgno);
        let (at, frame) = file.page(pgno, &page)?;
        pack.page(pgno, at, &frame, is_upper);
    }
    let (end, size, sum) = file.finish()?;
    fs::write(folder.join("vfs/9-0000000000000001-0000000000000001.pack"), pack.finish(shape.pages, size, sum, end))?;
    println!("{}", shape.groups * FAN);
    Ok(())
}

/// Where each page is: page 1, the root, and then for each of its children, which are `tops`, that page and its groups; a
/// group is an interior page and its leaves.
struct Shape {
    pages: u32,
    groups: u32,
}

/// What a group takes, and what a child of the root does.
const GROUP: u32 = 1 + FAN;
const TOP: u32 = 1 + FAN * GROUP;

impl Shape {
    /// The largest of whole groups with at most so many pages.
    fn of(pages: u32) -> Self {
        let (tops, rest) = ((pages - 2) / TOP, (pages - 2) % TOP);
        let groups = tops * FAN + rest.saturating_sub(1) / GROUP;
        Self { pages: 2 + groups.div_ceil(FAN) + groups * GROUP, groups }
    }

    /// The content of a page, and whether a pack has it: all but the leaves and the pages just above them.
    fn page(&self, pgno: u32) -> (Vec<u8>, bool) {
        match pgno {
            1 => (self.first(), true),
            2 => {
                let tops = (0..self.groups.div_ceil(FAN)).map(|top| {
                    (3 + top * TOP, ((top + 1) * FAN).min(self.groups) * FAN)
                });
                (interior(&tops.collect::<Vec<_>>()), true)
            }
            _ => {
                let (top, within) = ((pgno - 3) / TOP, (pgno - 3) % TOP);
                if within == 0 {
                    let groups = (top * FAN..((top + 1) * FAN).min(self.groups))
                        .map(|group| (pgno + 1 + (group - top * FAN) * GROUP, (group + 1) * FAN));
                    return (interior(&groups.collect::<Vec<_>>()), true);
                }
                let (group, within) = (top * FAN + (within - 1) / GROUP, (within - 1) % GROUP);
                match within {
                    0 => {
                        let leaves = (0..FAN).map(|n| (pgno + 1 + n, group * FAN + n + 1));
                        (interior(&leaves.collect::<Vec<_>>()), false)
                    }
                    n => (leaf(group * FAN + n), false),
                }
            }
        }
    }

    /// The header of the database, and the schema.
    fn first(&self) -> Vec<u8> {
        let mut page = vec![0; PAGE];
        page[..16].copy_from_slice(b"SQLite format 3\0");
        page[16..18].copy_from_slice(&(PAGE as u16).to_be_bytes());
        // WAL, no reserved bytes, and the fractions that are always so.
        page[18..24].copy_from_slice(&[2, 2, 0, 64, 32, 32]);
        page[24..28].copy_from_slice(&1u32.to_be_bytes());
        page[28..32].copy_from_slice(&self.pages.to_be_bytes());
        page[40..44].copy_from_slice(&1u32.to_be_bytes());
        page[44..48].copy_from_slice(&4u32.to_be_bytes());
        page[56..60].copy_from_slice(&1u32.to_be_bytes());
        page[92..96].copy_from_slice(&1u32.to_be_bytes());
        let sql = b"CREATE TABLE t(id INTEGER PRIMARY KEY, body BLOB)";
        // type 'table', name 't', table 't', root 2, sql
        let mut record = vec![6, 23, 15, 15, 1, (13 + 2 * sql.len()) as u8];
        record.extend(b"tablett\x02");
        record.extend(sql);
        let mut cell = vec![record.len() as u8, 1];
        cell.extend(record);
        let at = PAGE - cell.len();
        page[at..].copy_from_slice(&cell);
        page[100] = 13;
        page[103..105].copy_from_slice(&1u16.to_be_bytes());
        page[105..107].copy_from_slice(&(at as u16).to_be_bytes());
        page[108..110].copy_from_slice(&(at as u16).to_be_bytes());
        page
    }
}

/// An interior page of a table, with these children and the largest row of each.
fn interior(children: &[(u32, u32)]) -> Vec<u8> {
    let (last, others) = children.split_last().expect("an interior page has children");
    let mut page = vec![0; PAGE];
    let mut at = PAGE;
    for (n, (child, key)) in others.iter().enumerate() {
        let mut cell = child.to_be_bytes().to_vec();
        sqlite_varint(&mut cell, u64::from(*key));
        at -= cell.len();
        page[at..at + cell.len()].copy_from_slice(&cell);
        page[12 + 2 * n..14 + 2 * n].copy_from_slice(&(at as u16).to_be_bytes());
    }
    page[0] = 5;
    page[3..5].copy_from_slice(&(others.len() as u16).to_be_bytes());
    page[5..7].copy_from_slice(&(at as u16).to_be_bytes());
    page[8..12].copy_from_slice(&last.0.to_be_bytes());
    assert!(12 + 2 * others.len() <= at, "the children of a page have room");
    page
}

/// A leaf with one row.
fn leaf(row: u32) -> Vec<u8> {
    // The header's size, NULL for the row's number, and a BLOB.
    let mut record = vec![4, 0];
    sqlite_varint(&mut record, 12 + 2 * BODY as u64);
    record.resize(4 + BODY - NOISE, 0);
    let words = (0..NOISE as u64 / 8).flat_map(|n| mix(u64::from(row) << 8 | n).to_be_bytes());
    record.extend(words);
    let mut cell = Vec::new();
    sqlite_varint(&mut cell, record.len() as u64);
    sqlite_varint(&mut cell, u64::from(row));
    cell.extend(record);
    let mut page = vec![0; PAGE];
    let at = PAGE - cell.len();
    page[at..].copy_from_slice(&cell);
    page[0] = 13;
    page[3..5].copy_from_slice(&1u16.to_be_bytes());
    page[5..7].copy_from_slice(&(at as u16).to_be_bytes());
    page[8..10].copy_from_slice(&(at as u16).to_be_bytes());
    page
}

/// SQLite's varints: seven bits a byte, the highest first.
fn sqlite_varint(out: &mut Vec<u8>, n: u64) {
    let bytes = (64 - (n | 1).leading_zeros()).div_ceil(7);
    for byte in (0..bytes).rev() {
        let more = if byte > 0 { 0x80 } else { 0 };
        out.push((n >> (7 * byte)) as u8 & 0x7f | more);
    }
}

/// The pack of the file.
#[derive(Default)]
struct Pack {
    entries: Vec<u8>,
    frames: Vec<u8>,
    count: u32,
    blocks: Vec<Block>,
}

#[derive(Default)]
struct Block {
    offset: u64,
    sizes: Vec<u8>,
    pages: u32,
}

impl Pack {
    fn page(&mut self, pgno: u32, at: u64, frame: &[u8], is_upper: bool) {
        if (pgno - 1).is_multiple_of(BLOCK) {
            self.blocks.push(Block { offset: at, ..Block::default() });
        }
        let block = self.blocks.last_mut().expect("page 1 begins a block");
        varint(&mut block.sizes, frame.len() as u64);
        block.pages += 1;
        if is_upper {
            self.count += 1;
            self.entries.extend(pgno.to_be_bytes());
            self.entries.extend((frame.len() as u32).to_be_bytes());
            self.entries.extend(at.to_be_bytes());
            self.frames.extend(frame);
        }
    }

    fn finish(self, pages: u32, size: u64, sum: u64, end: u64) -> Vec<u8> {
        let (mut table, mut blocks) = (Vec::new(), Vec::new());
        for block in &self.blocks {
            // One run: no page is lacking.
            let mut bytes = vec![0];
            varint(&mut bytes, block.pages.into());
            bytes.extend(&block.sizes);
            table.extend(block.offset.to_be_bytes());
            table.extend(block.pages.to_be_bytes());
            table.extend((bytes.len() as u32).to_be_bytes());
            table.extend(checksum(CrcAlgorithm::Crc64Nvme, &bytes).to_be_bytes());
            blocks.extend(bytes);
        }
        let front = 72 + self.entries.len() + table.len() + self.frames.len() + 8;
        let mut bytes = b"LSVPACK1".to_vec();
        for n in [front as u32, 9] {
            bytes.extend(n.to_be_bytes());
        }
        for n in [1, 1, size, sum, end] {
            bytes.extend(n.to_be_bytes());
        }
        for n in [pages, self.count, self.blocks.len() as u32, self.frames.len() as u32] {
            bytes.extend(n.to_be_bytes());
        }
        for part in [&self.entries, &table, &self.frames] {
            bytes.extend(part);
        }
        bytes.extend(checksum(CrcAlgorithm::Crc64Nvme, &bytes).to_be_bytes());
        bytes.extend(blocks);
        bytes
    }
}

/// Values that are spread and are the same in each run.
fn mix(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}
