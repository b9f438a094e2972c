//! An LTX file in parts of bounded size, all of which are read so that its checksum can be compared.

use std::sync::Arc;

use super::parts::Parts;
use super::span::LARGE;
use crate::ltx::{IndexEntry, PageIndex, Trailer};
use crate::page::Pgno;
use crate::replica::map::{Frame, ReplicaFile};

/// The last bytes of a file: its checksum, which does not cover itself.
pub(super) const CHECKSUM: u64 = Trailer::SIZE as u64 / 2;

/// Frames that lie side by side; with the first goes what precedes it, with the last what follows it.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) file: Arc<ReplicaFile>,
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) frames: Vec<(Pgno, Frame)>,
}

impl Chunk {
    /// The bytes of the chunk that its checksum covers: before the frames, each frame, behind them.
    pub(super) fn split<'a>(
        &self,
        bytes: &'a [u8],
    ) -> (&'a [u8], impl Iterator<Item = &'a [u8]> + use<'a, '_>, &'a [u8]) {
        let place = |offset: u64| (offset - self.start) as usize;
        let first = self.frames.first().map_or(0, |(_, frame)| place(frame.offset));
        let last = self.frames.last().map_or(first, |(_, frame)| place(frame.end()));
        let covered = if self.end == self.file.info.size { self.end - CHECKSUM } else { self.end };
        let frames =
            self.frames.iter().map(move |(_, frame)| &bytes[place(frame.offset)..place(frame.end())]);
        (&bytes[..first], frames, &bytes[last..place(covered)])
    }
}

/// The chunks of a file that were not read yet, one after the other.
pub(super) struct Chunks {
    file: Arc<ReplicaFile>,
    index: PageIndex,
    parts: Parts,
    /// The next entry of the index, and where its frame begins.
    next: usize,
    offset: u64,
}

impl Chunks {
    /// The chunks of `file`, whose page index is `index`, without those that are in `parts`.
    pub(super) fn new(file: Arc<ReplicaFile>, index: PageIndex, parts: Parts) -> Self {
        let offset = index.first_frame();
        Self { file, index, parts, next: 0, offset }
    }

    fn take(&mut self) -> Option<IndexEntry> {
        let entry = self.index.entry(self.next, self.offset)?;
        self.next += 1;
        self.offset += entry.size;
        Some(entry)
    }
}

impl Iterator for Chunks {
    type Item = Chunk;

    fn next(&mut self) -> Option<Chunk> {
        let mut entry = self.take()?;
        while self.parts.has(entry.offset) {
            entry = self.take()?;
        }
        let number = self.file.number;
        let start = if entry.offset == self.index.first_frame() { 0 } else { entry.offset };
        let mut frames = Vec::new();
        loop {
            frames.push((entry.pgno, Frame { file: number, size: entry.size as u32, offset: entry.offset }));
            let end = self.offset;
            let Some(next) = self.index.entry(self.next, end) else {
                return Some(Chunk { file: self.file.clone(), start, end: self.file.info.size, frames });
            };
            if next.offset + next.size - start > LARGE || self.parts.has(next.offset) {
                return Some(Chunk { file: self.file.clone(), start, end, frames });
            }
            entry = next;
            self.take();
        }
    }
}
