//! Makes the pack of a file while the file is written.
//!
//! Pages come in the order of the file. Which are interior is seen by each page itself; whether one is just above the
//! leaves, by its first child, which may come later. When what is kept is more than a pack may have, the pages above leaves
//! go: those further up are a hundredth of them, and each saves a round trip too.
//!
//! How large the file becomes is not known before its end, so that the blocks of the page index are made for each: two bytes a
//! page.

use std::collections::HashSet;
use std::io::Write;

use bytes::Bytes;

use super::index::IndexWriter;
use super::{
    BLOCK_ENTRY, BLOCKS_FROM, CHECKSUM, ENTRY, Identity, LARGEST, PackedIndex, SEALED_HEAD, encode,
    is_worth_it,
};
use crate::clock::Timestamp;
use crate::error::Result;
use crate::ltx::{Encoder, FileId, IndexEntry, PackCipher, Summary};
use crate::page::{PageCount, Pgno};
use crate::replica::btree::Interior;
use crate::store::may_have_pack;

/// How a database file begins that can be read without a key.
const PLAIN: &[u8] = b"SQLite format 3\0";

/// A pack that is to be stored beside its file.
#[derive(Clone, Debug)]
pub(crate) struct Packed {
    /// The file.
    pub(crate) id: FileId,
    /// The pack.
    pub(crate) bytes: Bytes,
    /// The time of the file.
    pub(crate) timestamp: Timestamp,
}

/// Collects the pages of a pack.
#[derive(Debug)]
pub(crate) struct PackBuilder {
    id: FileId,
    commit: PageCount,
    pages: Vec<Page>,
    /// What the pages take in a pack.
    bytes: usize,
    /// The interior pages so far.
    interior: HashSet<Pgno>,
    /// The pages below page 1, which are the schema, as far as they are known.
    schema: HashSet<Pgno>,
    /// There will be no pages.
    is_over: bool,
    /// What the pages may take.
    room: usize,
    index: IndexWriter,
    /// The size of the smallest file that gets the blocks of its index.
    blocks_from: u64,
    /// What seals the pack, if its file is sealed.
    cipher: Option<PackCipher>,
}

#[derive(Debug)]
struct Page {
    entry: IndexEntry,
    frame: Box<[u8]>,
    /// Of an interior page outside of the schema, the first child.
    child: Option<Pgno>,
}

impl PackBuilder {
    /// For the file `id`, which `encoder` writes; `None` if such a file has no pack. The pack of a sealed file is sealed.
    ///
    /// # Errors
    /// `Io` if the system gives no random numbers.
    pub(crate) fn new<W: Write>(id: FileId, encoder: &Encoder<W>) -> Result<Option<Self>> {
        if !may_have_pack(id) {
            return Ok(None);
        }
        let header = encoder.header();
        Ok(Some(Self {
            id,
            commit: header.commit,
            pages: Vec::new(),
            bytes: 0,
            interior: HashSet::new(),
            schema: HashSet::new(),
            is_over: false,
            room: room(header.commit),
            index: IndexWriter::new(header.shape().first_frame()),
            blocks_from: BLOCKS_FROM,
            cipher: encoder.pack_cipher()?,
        }))
    }

    /// Takes in the next page that was written: its content, where it is in the file, and its frame.
    pub(crate) fn page(&mut self, page: &[u8], entry: IndexEntry, frame: &[u8]) {
        let pgno = entry.pgno;
        self.index.push(entry);
        self.is_over |= pgno == Pgno::ONE && !page.starts_with(PLAIN);
        if self.is_over {
            return;
        }
        let is_possible = |node: &Interior| node.children.iter().all(|child| self.commit.contains(*child));
        let node = Interior::parse(pgno, page).filter(is_possible);
        let is_schema = pgno == Pgno::ONE || self.schema.contains(&pgno);
        if node.is_none() && !is_schema {
            return;
        }
        let child = node.as_ref().filter(|_| !is_schema).and_then(|node| node.children.first().copied());
        if let Some(node) = node {
            self.interior.insert(pgno);
            if is_schema {
                self.schema.extend(node.children);
            }
        }
        self.bytes += ENTRY + frame.len();
        self.pages.push(Page { entry, frame: frame.into(), child });
        if self.bytes > self.room {
            self.leave_out();
        }
    }

    /// Leaves out the pages that are just above leaves, as far as that is known.
    fn leave_out(&mut self) {
        let Some(now) = self.pages.last().map(|page| page.entry.pgno) else { return };
        let interior = &self.interior;
        // The child of a page that is yet to come may be either.
        self.pages.retain(|page| page.child.is_none_or(|child| child > now || interior.contains(&child)));
        self.bytes = self.pages.iter().map(|page| ENTRY + page.frame.len()).sum();
        // Else this would be done for each page again.
        if self.bytes > self.room / 2 {
            self.is_over = true;
            self.pages = Vec::new();
        }
    }

    /// The pack of the file, which was written as `summary` says; `None` if it needs none, or cannot have one.
    pub(crate) fn finish(self, summary: &Summary) -> Option<Packed> {
        if summary.size < self.blocks_from && !is_worth_it(self.id, summary.size) {
            return None;
        }
        let pages = if self.is_over || self.interior.is_empty() { &[] } else { self.pages.as_slice() };
        let index = if summary.size < self.blocks_from { None } else { self.index.finish() };
        if pages.is_empty() && index.is_none() {
            return None;
        }
        let frames: Vec<_> = pages.iter().map(|page| (page.entry, &*page.frame)).collect();
        let file = Identity { id: self.id, size: summary.size, checksum: summary.trailer.file_checksum };
        let bytes = encode(&file, &frames, index, self.cipher.as_ref()).into();
        Some(Packed { id: self.id, bytes, timestamp: summary.header.timestamp })
    }
}

/// What the pages of a pack may take, of a database of `commit` pages.
fn room(commit: PageCount) -> usize {
    let blocks = (commit.get() as usize).div_ceil(PackedIndex::BLOCK);
    LARGEST - SEALED_HEAD - PackCipher::OVERHEAD - blocks * BLOCK_ENTRY - CHECKSUM
}

#[cfg(test)]
impl PackBuilder {
    /// The same, with the blocks of the index of a file of at least `size` bytes.
    pub(in crate::replica) fn with_blocks_from(self, size: u64) -> Self {
        Self { blocks_from: size, ..self }
    }

    /// The same, which keeps no more than `room` bytes.
    pub(super) fn with_room(self, room: usize) -> Self {
        Self { room, ..self }
    }
}
