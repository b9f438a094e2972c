//! Which frame of the WAL shows a page.

use crate::page::Pgno;
use crate::sqlite::{BaseFile, Code};
use crate::vfs::index;
use crate::wal::{FrameNo, IndexRegion};

/// The most pages of which the frames are listed at once: 1 MiB of memory.
const WINDOW: usize = 256 * 1024;
/// A pass over this many entries of the index costs as much as a look into one region's hash slots.
const ENTRIES_PER_PROBE: u64 = 64;

/// Finds the frames of pages up to the last frame of a view: by the hash slots for a few pages, by one pass over
/// the index for a range of many.
#[derive(Debug)]
pub(super) struct Frames {
    last: FrameNo,
    window: Option<Window>,
    /// The regions that were probed since the last pass.
    probed: u64,
}

/// The frames of some pages in a row; 0 for a page that the WAL does not have.
#[derive(Debug)]
struct Window {
    first: Pgno,
    frames: Vec<u32>,
}

impl Window {
    fn get(&self, pgno: Pgno) -> Option<u32> {
        self.frames.get(pgno.index().checked_sub(self.first.index())?).copied()
    }
}

impl Frames {
    /// Those up to `last`.
    pub(super) const fn up_to(last: FrameNo) -> Self {
        Self { last, window: None, probed: 0 }
    }

    /// The highest frame that holds `pgno`.
    ///
    /// # Errors
    /// Those of mapping the index; `CORRUPT`.
    pub(super) fn find(&mut self, file: &mut BaseFile, pgno: Pgno) -> Result<Option<FrameNo>, Code> {
        if self.last == FrameNo::ZERO {
            return Ok(None);
        }
        if let Some(frame) = self.window.as_ref().and_then(|window| window.get(pgno)) {
            return Ok((frame > 0).then_some(FrameNo(frame)));
        }
        let regions = u64::from(IndexRegion::of(self.last).number()) + 1;
        if (self.probed + regions) * ENTRIES_PER_PROBE <= u64::from(self.last.0) {
            self.probed += regions;
            return index::find(file, pgno, self.last);
        }
        self.probed = 0;
        let window = self.list(file, pgno)?;
        let frame = window.get(pgno).unwrap_or(0);
        self.window = Some(window);
        Ok((frame > 0).then_some(FrameNo(frame)))
    }

    /// The frames of the pages from `first` on.
    fn list(&mut self, file: &mut BaseFile, first: Pgno) -> Result<Window, Code> {
        let mut window = self.window.take().unwrap_or(Window { first, frames: vec![0; WINDOW] });
        window.first = first;
        window.frames.fill(0);
        let complete = index::entries(file, FrameNo::ZERO, self.last, |frame, pgno| {
            if let Some(place) = pgno.index().checked_sub(first.index())
                && let Some(listed) = window.frames.get_mut(place)
            {
                *listed = frame.0;
            }
        })?;
        if complete { Ok(window) } else { Err(Code::CORRUPT) }
    }
}
