//! Which ranges of which files bring some pages: frames that lie close together come in one.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::map::{Frame, PageMap, ReplicaFile};
use crate::page::Pgno;

/// A hole that is larger than this is not read through: its bytes take longer than a round trip.
const HOLE: u64 = 64 * 1024;
/// A longer range is cut in two, which come at the same time.
const LONGEST: u64 = 3 * 1024 * 1024;
/// A shorter range can as well be this long.
const SHORT: u64 = 128 * 1024;
/// Pages after a window among which more for a short range are looked for.
const BEYOND: u32 = 4096;

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

    /// Makes a short range longer by the pages after `last` whose frames follow: where a transaction changed
    /// pages here and there, its file has a few of each window.
    pub(super) fn stretch(&mut self, map: &PageMap, last: Pgno) {
        for pgno in (last.get().saturating_add(1)..).take(BEYOND as usize).map_while(Pgno::new) {
            if self.end() - self.start() >= SHORT || !map.commit().contains(pgno) {
                return;
            }
            match map.frame(pgno).filter(|frame| frame.file == self.file.number) {
                Some(frame) if frame.offset >= self.end() && self.reaches(frame) => {
                    self.frames.push((pgno, frame))
                }
                Some(_) => return,
                None => {}
            }
        }
    }

    fn reaches(&self, frame: Frame) -> bool {
        frame.offset.saturating_sub(self.end()) <= HOLE && frame.end() - self.start() <= LONGEST
    }
}

/// About how many ranges bring some frames, counted as they are added.
#[derive(Debug, Default)]
pub(super) struct Ranges {
    ends: HashMap<u32, u64>,
    count: usize,
}

impl Ranges {
    /// Adds a frame.
    pub(super) fn add(&mut self, frame: Frame) {
        let end = self.ends.insert(frame.file, frame.end());
        if end.is_none_or(|end| end.abs_diff(frame.offset) > HOLE) {
            self.count += 1;
        }
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.count
    }
}

/// The spans that bring those of `pages` that are not here.
pub(super) fn spans(
    map: &PageMap,
    pages: &[Pgno],
    is_here: impl Fn(Pgno, Frame, &ReplicaFile) -> bool,
) -> Vec<Span> {
    type InFile = (Arc<ReplicaFile>, Vec<(Pgno, Frame)>);
    let mut files: BTreeMap<u32, InFile> = BTreeMap::new();
    for &pgno in pages {
        if let Some((frame, file)) = map.get(pgno).filter(|(frame, file)| !is_here(pgno, *frame, file)) {
            files.entry(frame.file).or_insert_with(|| (file.clone(), Vec::new())).1.push((pgno, frame));
        }
    }
    files.into_values().flat_map(|(file, frames)| cut(&file, frames)).collect()
}

/// Cuts frames of a file into spans.
fn cut(file: &Arc<ReplicaFile>, mut frames: Vec<(Pgno, Frame)>) -> Vec<Span> {
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
