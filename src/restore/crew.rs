//! Frames of a large file are decoded, and their pages written, on as many threads as there are cores.
//!
//! The thread that restores cuts the file into batches, in order, and decodes those itself for which no helper comes. So
//! there is never more work under way than cores, and memory is bounded: a batch that waits and one that is decoded for
//! each thread.

use std::collections::{BTreeMap, VecDeque};
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::output::{Draft, DraftFile};
use crate::error::{Error, Result};
use crate::ltx::{Decoder, Frames, FramesSum};
use crate::page::{PageSize, Pgno};
use crate::replica::Beside;
use crate::runtime;

/// Threads that decode at the same time, at most: more would wait for the disk.
const MOST_THREADS: usize = 8;

/// How the work on a file is divided.
#[derive(Clone, Copy, Debug)]
pub(super) struct Division {
    /// Threads beside the one that restores.
    pub(super) helpers: usize,
    /// Bytes of frames that are decoded at once.
    pub(super) batch: usize,
    /// Neighbouring pages are written together up to this many bytes.
    pub(super) run: usize,
}

impl Division {
    /// That for the cores that this process may use.
    pub(super) fn for_this_machine() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self { helpers: cores.min(MOST_THREADS) - 1, batch: 512 * 1024, run: 256 * 1024 }
    }

    /// Whether a file of `size` bytes is worth the threads.
    pub(super) const fn is_worthwhile(self, size: u64) -> bool {
        self.helpers > 0 && size >= 4 * self.batch as u64
    }
}

/// Applies the pages of the file that `decoder` has opened, up to what follows them, and shows them to `beside`.
///
/// # Errors
/// What is wrong first in the file, if several things are; those of the file system. Nothing is written any more then.
pub(super) fn apply<R: Read>(
    decoder: &mut Decoder<R>,
    draft: &mut Draft,
    beside: Option<&mut Beside>,
    division: Division,
) -> Result<()> {
    let place = Place {
        file: draft.shared()?,
        page_size: decoder.header().page_size,
        beside: beside.as_deref().cloned().map(Mutex::new),
    };
    let mut crew = Crew::start(place, division);
    let cut = crew.cut(decoder, draft);
    crew.finish(decoder, draft);
    let (failure, seen) = crew.end();
    if let (Some(beside), Some(seen)) = (beside, seen) {
        *beside = seen;
    }
    // What was cut off precedes what could not be.
    let applied = failure.map_or(cut, Err);
    if applied.is_err() {
        // A batch that failed may have written some of its pages.
        let header = decoder.header();
        draft.wrote(0, header.commit.bytes(header.page_size));
    }
    applied
}

/// Where pages go.
#[derive(Debug)]
struct Place {
    file: Arc<DraftFile>,
    page_size: PageSize,
    beside: Option<Mutex<Beside>>,
}

/// The threads at work on a file, and the order of what they do.
struct Crew {
    desk: Arc<Desk>,
    division: Division,
    helpers: Vec<JoinHandle<()>>,
    /// Batches that were given out, and those of them that were joined.
    given: usize,
    joined: usize,
    failure: Option<Error>,
}

/// What the threads share.
struct Desk {
    place: Place,
    run: usize,
    state: Mutex<State>,
    /// Work has come or is done, or there will be no more.
    news: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<(usize, Frames)>,
    done: BTreeMap<usize, Result<Done>>,
    /// Memory for further frames.
    free: Vec<Vec<u8>>,
    closed: bool,
}

/// A batch that was written.
struct Done {
    sum: FramesSum,
    /// How many bytes of pages.
    bytes: usize,
    /// Where the last of them ends in the database.
    end: u64,
}

impl Crew {
    fn start(place: Place, division: Division) -> Self {
        let desk =
            Arc::new(Desk { place, run: division.run, state: Mutex::default(), news: Condvar::default() });
        let helper = |_| {
            let desk = Arc::clone(&desk);
            // Without a thread there is one helper less.
            runtime::thread("decode", move || desk.help()).ok()
        };
        let helpers = (0..division.helpers).filter_map(helper).collect();
        Self { desk, division, helpers, given: 0, joined: 0, failure: None }
    }

    /// Gives out the frames of a file until there are no more or something is wrong.
    fn cut<R: Read>(&mut self, decoder: &mut Decoder<R>, draft: &mut Draft) -> Result<()> {
        let desk = Arc::clone(&self.desk);
        let mut run = Run::new(&desk);
        loop {
            let buffer = self.desk.state().free.pop().unwrap_or_default();
            let Some(frames) = decoder.next_frames(self.division.batch, buffer)? else { return Ok(()) };
            self.desk.state().waiting.push_back((self.given, frames));
            self.desk.news.notify_all();
            self.given += 1;
            // Each helper has one batch before it: the others are for this thread.
            while let Some(work) = self.desk.take_beyond(self.helpers.len()) {
                self.desk.do_one(work, &mut run);
            }
            self.join_done(decoder, draft);
            if self.failure.is_some() {
                return Ok(());
            }
        }
    }

    /// Waits for what was given out, and does the part of it that nobody has begun.
    fn finish<R: Read>(&mut self, decoder: &mut Decoder<R>, draft: &mut Draft) {
        let desk = Arc::clone(&self.desk);
        let mut run = Run::new(&desk);
        while let Some(work) = self.desk.take_beyond(0) {
            self.desk.do_one(work, &mut run);
        }
        while self.joined < self.given {
            let next = self.joined;
            drop(self.desk.wait_while(|state| !state.done.contains_key(&next)));
            self.join_done(decoder, draft);
        }
    }

    /// Joins what is done, in order.
    fn join_done<R: Read>(&mut self, decoder: &mut Decoder<R>, draft: &mut Draft) {
        loop {
            let done = self.desk.state().done.remove(&self.joined);
            match done {
                None => return,
                Some(Ok(done)) => {
                    decoder.join(done.sum);
                    draft.wrote(done.bytes, done.end);
                }
                Some(Err(e)) => {
                    self.failure.get_or_insert(e);
                }
            }
            self.joined += 1;
        }
    }

    /// Ends the threads; gives the first error of a batch, and what the pages were shown to.
    fn end(mut self) -> (Option<Error>, Option<Beside>) {
        self.dismiss();
        let beside = self.desk.place.beside.as_ref().map(|beside| lock(beside).clone());
        (self.failure.take(), beside)
    }

    fn dismiss(&mut self) {
        self.desk.state().closed = true;
        self.desk.news.notify_all();
        for helper in self.helpers.drain(..) {
            let _ = helper.join();
        }
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.dismiss();
    }
}

impl Desk {
    /// What a helper does: one batch after the other, until there will be no more.
    fn help(&self) {
        let mut run = Run::new(self);
        loop {
            let mut state = self.wait_while(|state| state.waiting.is_empty() && !state.closed);
            let Some(work) = state.waiting.pop_front() else { return };
            drop(state);
            self.do_one(work, &mut run);
        }
    }

    /// The batch that waits for longest, if more than `enough` wait.
    fn take_beyond(&self, enough: usize) -> Option<(usize, Frames)> {
        let mut state = self.state();
        if state.waiting.len() > enough { state.waiting.pop_front() } else { None }
    }

    /// Decodes and writes a batch.
    fn do_one(&self, (number, frames): (usize, Frames), run: &mut Run<'_>) {
        let done = catch_unwind(AssertUnwindSafe(|| run.write_all(&frames)))
            .unwrap_or_else(|panic| Err(runtime::bug(&*panic)));
        let mut state = self.state();
        state.done.insert(number, done);
        state.free.push(frames.into_buffer());
        drop(state);
        self.news.notify_all();
    }

    fn wait_while(&self, waits: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        self.news.wait_while(self.state(), |state| waits(state)).unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// Neighbouring pages that are not yet written, in memory that is used again and again.
struct Run<'a> {
    place: &'a Place,
    bytes: Vec<u8>,
    /// The size of those that are to be written, and the first of them.
    filled: usize,
    first: Pgno,
}

impl<'a> Run<'a> {
    fn new(desk: &'a Desk) -> Self {
        let size = desk.place.page_size.bytes();
        let pages = (desk.run / size).max(2);
        Self { place: &desk.place, bytes: vec![0; pages * size], filled: 0, first: Pgno::ONE }
    }

    /// Decodes `frames` and writes their pages.
    fn write_all(&mut self, frames: &Frames) -> Result<Done> {
        let size = self.place.page_size.bytes();
        self.filled = 0;
        let (mut bytes, mut end) = (0, 0);
        let mut pages = frames.pages();
        loop {
            if self.filled == self.bytes.len() {
                self.flush()?;
            }
            let page = &mut self.bytes[self.filled..self.filled + size];
            let Some(pgno) = pages.next_page(page)? else { break };
            if let Some(beside) = &self.place.beside {
                lock(beside).take(pgno, page);
            }
            self.keep(pgno)?;
            bytes += size;
            end = self.offset(pgno) + size as u64;
        }
        self.flush()?;
        Ok(Done { sum: pages.finish(), bytes, end })
    }

    /// Takes up the page that was decoded behind the others.
    fn keep(&mut self, pgno: Pgno) -> Result<()> {
        let size = self.place.page_size.bytes();
        let pages = self.filled / size;
        if self.filled > 0 && pgno.get() as usize != self.first.get() as usize + pages {
            let page = self.filled;
            self.flush()?;
            self.bytes.copy_within(page..page + size, 0);
        }
        if self.filled == 0 {
            self.first = pgno;
        }
        self.filled += size;
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        let filled = std::mem::take(&mut self.filled);
        self.place.file.write_at(&self.bytes[..filled], self.offset(self.first))
    }

    fn offset(&self, pgno: Pgno) -> u64 {
        u64::from(pgno.get() - 1) * self.place.page_size.bytes() as u64
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::super::output::Output;
    use super::*;
    use crate::replica::tests::fixtures::History;

    #[test]
    fn as_many_batches_are_in_memory_as_threads_can_have_before_them() {
        let mut history = History::new(512, 1);
        history.commit(900, &[]);
        let file = history.encode(1, 1);
        for helpers in 0..4 {
            let folder = tempfile::tempdir().expect("a folder");
            let output = Output::prepare(&folder.path().join("app.db"), None).expect("nothing is there");
            let mut draft = output.create().expect("a file");
            let mut decoder = Decoder::new(&file[..]).expect("a file of one transaction");
            let place = Place {
                file: draft.shared().expect("nothing is to be written"),
                page_size: decoder.header().page_size,
                beside: None,
            };
            let mut crew = Crew::start(place, Division { helpers, batch: 1000, run: 4096 });
            crew.cut(&mut decoder, &mut draft).expect("all is well");
            crew.finish(&mut decoder, &mut draft);
            decoder.finish().expect("all is well");
            assert!(crew.given > 100, "{}", crew.given);
            // One that waits and one that is decoded for each thread.
            let buffers = crew.desk.state().free.len();
            assert!(buffers <= 2 * (helpers + 1), "{buffers} for {helpers} helpers");
        }
    }
}
