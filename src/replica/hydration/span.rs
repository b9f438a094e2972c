//! Large ranges of files that hold the missing pages.

use std::collections::HashMap;
use std::sync::Arc;

use super::bits::Bits;
use crate::page::Pgno;
use crate::replica::map::{Frame, PageMap, ReplicaFile};

/// The bytes of a range.
pub(super) const LARGE: u64 = 2 * 1024 * 1024;
/// A hole that is larger than this is not read through.
const HOLE: u64 = 128 * 1024;

/// A range of a file, and the missing pages whose frames it has, in the order of both.
#[derive(Debug)]
pub(super) struct Span {
    pub(super) file: Arc<ReplicaFile>,
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) frames: Vec<(Pgno, Frame)>,
}

impl Span {
    fn new(file: &Arc<ReplicaFile>, pgno: Pgno, frame: Frame) -> Self {
        Self { file: file.clone(), start: frame.offset, end: frame.end(), frames: vec![(pgno, frame)] }
    }

    /// Whether `frame` is after the span, not far, and within its size.
    fn reaches(&self, frame: Frame) -> bool {
        frame.offset >= self.end && frame.offset - self.end <= HOLE && frame.end() - self.start <= LARGE
    }
}

/// The ranges, one after the other; no more is in memory than one for each file.
///
/// Pages are in a file in the order of their numbers, so one walk over the map meets them as they lie.
pub(super) struct Spans {
    map: Arc<PageMap>,
    bits: Bits,
    next: Option<Pgno>,
    open: HashMap<u32, Span>,
}

impl Spans {
    /// The ranges for the pages of `map` that are not in `bits`.
    pub(super) fn new(map: Arc<PageMap>, bits: Bits) -> Self {
        Self { map, bits, next: Some(Pgno::ONE), open: HashMap::new() }
    }
}

impl Iterator for Spans {
    type Item = Span;

    fn next(&mut self) -> Option<Span> {
        while let Some(pgno) = self.next.filter(|&pgno| self.map.commit().contains(pgno)) {
            self.next = pgno.get().checked_add(1).and_then(Pgno::new);
            if self.bits.has(pgno) {
                continue;
            }
            let Some((frame, file)) = self.map.get(pgno) else { continue };
            match self.open.get_mut(&frame.file) {
                Some(span) if span.reaches(frame) => {
                    span.end = frame.end();
                    span.frames.push((pgno, frame));
                }
                _ => {
                    let full = self.open.insert(frame.file, Span::new(file, pgno, frame));
                    if full.is_some() {
                        return full;
                    }
                }
            }
        }
        let file = *self.open.keys().next()?;
        self.open.remove(&file)
    }
}
