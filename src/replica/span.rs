//! Which ranges of which files bring some pages: frames that lie close together come in one.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::cache::PageCache;
use super::map::{Frame, PageMap, ReplicaFile};
use crate::page::Pgno;

/// A hole that is larger than this is not read through: its bytes take longer than a round trip.
const HOLE: u64 = 64 * 1024;
/// A longer range is cut in two, which come at the same time.
const LONGEST: u64 = 2 * 1024 * 1024;

/// A range of a file, and the pages of the map whose frames it has.
///
/// Invariants: there is a frame; they ascend by offset; the first begins at `start` and the last ends at
/// `end`.
#[derive(Debug)]
pub(super) struct Span {
    pub(super) file: Arc<ReplicaFile>,
    pub(super) frames: Vec<(Pgno, Frame)>,
}

impl Span {
    /// The span of one frame.
    pub(super) fn one(file: &Arc<ReplicaFile>, pgno: Pgno, frame: Frame) -> Self {
        Self { file: file.clone(), frames: vec![(pgno, frame)] }
    }

    /// The first byte.
    pub(super) fn start(&self) -> u64 {
        self.frames.first().map_or(0, |(_, frame)| frame.offset)
    }

    /// After the last byte.
    pub(super) fn end(&self) -> u64 {
        self.frames.last().map_or(0, |(_, frame)| frame.end())
    }

    /// Whether it has the page.
    pub(super) fn has(&self, frame: Frame) -> bool {
        self.frames.iter().any(|(_, f)| *f == frame)
    }

    fn reaches(&self, frame: Frame) -> bool {
        frame.offset.saturating_sub(self.end()) <= HOLE && frame.end() - self.start() <= LONGEST
    }
}

/// The spans that bring those of `pages` that `cache` does not have.
pub(super) fn spans(map: &PageMap, cache: &PageCache, pages: &[Pgno]) -> Vec<Span> {
    let mut files: BTreeMap<u32, (Arc<ReplicaFile>, Vec<(Pgno, Frame)>)> = BTreeMap::new();
    for &pgno in pages {
        if let Some((frame, file)) = map.get(pgno).filter(|(frame, _)| !cache.contains((*frame).into())) {
            files.entry(frame.file).or_insert_with(|| (file.clone(), Vec::new())).1.push((pgno, frame));
        }
    }
    files.into_values().flat_map(|(file, frames)| cut(&file, frames)).collect()
}

/// Cuts frames of a file into spans.
pub(super) fn cut(file: &Arc<ReplicaFile>, mut frames: Vec<(Pgno, Frame)>) -> Vec<Span> {
    frames.sort_unstable_by_key(|(_, frame)| frame.offset);
    frames.dedup_by_key(|(_, frame)| frame.offset);
    let mut spans: Vec<Span> = Vec::new();
    for (pgno, frame) in frames {
        match spans.last_mut().filter(|span| span.reaches(frame)) {
            Some(span) => span.frames.push((pgno, frame)),
            None => spans.push(Span::one(file, pgno, frame)),
        }
    }
    spans
}
