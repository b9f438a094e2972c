//! Frames that are cut from a file, to be decoded on any thread.

use super::checksum::DatabaseChecksum;
use super::source::Slice;
use super::{FrameCodec, PartChecksum, PartHasher};
use crate::error::Result;
use crate::page::Pgno;

/// Whole frames of a file, one after another, as [`super::Decoder::next_frames`] cut them from it.
#[derive(Debug)]
pub struct Frames {
    codec: FrameCodec,
    /// The frames are the bytes from `start` to `end`.
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    /// Pages count for the checksum of the database.
    tracked: bool,
}

/// What frames add to the checksums of their file, for [`super::Decoder::join`].
#[derive(Clone, Copy, Debug)]
pub struct FramesSum {
    pub(super) part: PartChecksum,
    pub(super) database: DatabaseChecksum,
}

impl Frames {
    pub(super) fn new(
        codec: FrameCodec,
        (bytes, start, end): (Vec<u8>, usize, usize),
        tracked: bool,
    ) -> Self {
        Self { codec, bytes, start, end, tracked }
    }

    /// The pages, in their order.
    pub fn pages(&self) -> FramePages<'_> {
        FramePages {
            source: Slice(&self.bytes[self.start..self.end]),
            frames: self,
            hasher: PartHasher::default(),
            database: DatabaseChecksum::EMPTY,
        }
    }

    /// The memory of the frames, to be used again.
    pub fn into_buffer(self) -> Vec<u8> {
        self.bytes
    }
}

/// Decodes frames.
#[derive(Debug)]
pub struct FramePages<'a> {
    frames: &'a Frames,
    source: Slice<'a>,
    hasher: PartHasher,
    database: DatabaseChecksum,
}

impl FramePages<'_> {
    /// Decodes the next page into `buf`, which has the page size; `None` after the last one.
    ///
    /// # Errors
    /// `Corrupt`.
    pub fn next_page(&mut self, buf: &mut [u8]) -> Result<Option<Pgno>> {
        if self.source.0.is_empty() {
            return Ok(None);
        }
        let hasher = &mut self.hasher;
        let page = self.frames.codec.read(&mut self.source, buf, |bytes| hasher.update(bytes))?;
        if let Some(pgno) = page.filter(|_| self.frames.tracked) {
            self.database.add(pgno, buf);
        }
        Ok(page)
    }

    /// What the pages that were decoded add to the checksums.
    pub fn finish(self) -> FramesSum {
        FramesSum { part: self.hasher.finish(), database: self.database }
    }
}
