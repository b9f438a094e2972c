//! For tests: writes WAL files as SQLite does.

use crate::page::{PageCount, PageSize};
use crate::wal::{ByteOrder, Checksum, FrameNo, IndexHeader, Position, Salts};

/// One generation of a WAL, in memory.
#[derive(Clone, Debug)]
pub(crate) struct Writer {
    /// The file so far.
    pub(crate) bytes: Vec<u8>,
    /// The checksum of the last frame, or of the header.
    pub(crate) chain: Checksum,
    /// The salts of the generation.
    pub(crate) salts: Salts,
    /// The number of frames.
    pub(crate) frames: u32,
    order: ByteOrder,
    page_size: PageSize,
}

impl Writer {
    /// A WAL that is a header and no frame.
    pub(crate) fn new(order: ByteOrder, page_size: PageSize, salts: Salts) -> Self {
        let magic: u32 = if order == ByteOrder::Big { 0x377f_0683 } else { 0x377f_0682 };
        let mut bytes = Vec::new();
        for word in [magic, 3_007_000, page_size.get(), 7, salts.0, salts.1] {
            bytes.extend(word.to_be_bytes());
        }
        let chain = Checksum::default().update(order, &bytes);
        bytes.extend(chain.0.to_be_bytes());
        bytes.extend(chain.1.to_be_bytes());
        Self { bytes, chain, salts, frames: 0, order, page_size }
    }

    /// Adds a frame; it ends a transaction if `commit`, the size of the database, is not 0.
    pub(crate) fn frame(&mut self, pgno: u32, commit: u32, page: &[u8]) {
        assert_eq!(page.len(), self.page_size.bytes());
        let mut head = Vec::new();
        head.extend(pgno.to_be_bytes());
        head.extend(commit.to_be_bytes());
        self.chain = self.chain.update(self.order, &head).update(self.order, page);
        head.extend(self.salts.0.to_be_bytes());
        head.extend(self.salts.1.to_be_bytes());
        head.extend(self.chain.0.to_be_bytes());
        head.extend(self.chain.1.to_be_bytes());
        self.bytes.extend(head);
        self.bytes.extend(page);
        self.frames += 1;
    }

    /// Where a reader is that has read all frames.
    pub(crate) fn position(&self) -> Position {
        Position { salts: self.salts, frame: FrameNo(self.frames), checksum: self.chain }
    }

    /// The index header that commits all frames; the database has `pages` pages.
    pub(crate) fn index(&self, pages: u32) -> IndexHeader {
        IndexHeader {
            change: self.frames,
            page_size: Some(self.page_size),
            mx_frame: FrameNo(self.frames),
            page_count: PageCount::new(pages),
            frame_checksum: self.chain,
            salts: self.salts,
        }
    }
}
