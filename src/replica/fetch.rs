//! Pages from the store: neighbours in one request, what comes next at the same time, and one request
//! for all who want the same page.

mod prefetch;

use std::cell::RefCell;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::blocks::Blocks;
use super::btree;
use super::cache::FrameKey;
use super::files::Files;
use super::flight::{Arrival, Departure, Flight, Flights};
use super::map::{Found, Frame, PageMap, ReplicaFile};
use super::read_ahead::{ReadAhead, Window};
use super::record;
use super::span::{Ranges, Span, spans};
use super::trees::Trees;
use super::verdict::Verdict;
use crate::error::{Error, Result};
use crate::ltx::FrameCodec;
use crate::page::{PageSize, Pgno};
use crate::runtime;
use crate::store::ByteRange;

/// Requests for what nobody waits for, at the same time.
const EARLY: usize = 32;
/// How long a close waits for what is on its way to the disk cache.
const CLOSING: Duration = Duration::from_millis(500);
/// In a window of this size ranges of a few pages are made longer.
const STRETCHED: u64 = 256 * 1024;
/// Ranges that one window may need.
const RANGES: usize = 32;
/// Brings pages through the cache of [`Files`].
#[derive(Debug)]
pub(super) struct Fetcher(Arc<Shared>);

/// What requests under way need, also when the last connection has closed.
#[derive(Debug)]
struct Shared {
    files: Arc<Files>,
    trees: Trees,
    flights: Arc<Flights>,
    early: Semaphore,
}

/// A state of the database, for requests.
#[derive(Clone, Debug)]
struct State {
    map: Arc<PageMap>,
    page_size: PageSize,
}

/// The page that is wanted.
struct Wanted<'a> {
    pgno: Pgno,
    frame: Frame,
    file: &'a Arc<ReplicaFile>,
}

impl Drop for Fetcher {
    fn drop(&mut self) {
        self.0.flights.close();
        if self.0.files.has_disk() {
            self.0.flights.wait_for_all(CLOSING);
        }
    }
}

impl Fetcher {
    /// Brings pages of `files`.
    pub(super) fn new(files: Arc<Files>) -> Self {
        let (trees, early) = (Trees::new(), Semaphore::new(EARLY));
        Self(Arc::new(Shared { files, trees, flights: Arc::default(), early }))
    }

    /// Reads page `pgno`, whose place `map` knows, into `buf`. A page that nobody wrote is zeros.
    ///
    /// # Errors
    /// Those of the store; `NotFound` if the file is no longer there; `Corrupt`, after another try;
    /// `Interrupted`.
    pub(super) fn page(
        &self,
        map: &Arc<PageMap>,
        page_size: PageSize,
        pgno: Pgno,
        ahead: &mut ReadAhead,
        buf: &mut [u8],
    ) -> Result<()> {
        let Some((frame, file)) = self.find(map, pgno, ahead)? else {
            buf.fill(0);
            return Ok(());
        };
        if file.verdict.is(Verdict::Damaged) {
            return self.0.of_damaged(pgno, frame, file, buf);
        }
        if let Some(page) = self.0.files.cache.get(frame.into()) {
            buf.copy_from_slice(&page);
        } else if !self.0.read_here(pgno, frame, file, buf) {
            let state = State { map: map.clone(), page_size };
            let was_expected = self.0.flights.find(frame.into()).is_some();
            self.missing(&state, &Wanted { pgno, frame, file }, ahead, buf)?;
            self.0.files.trouble.end();
            if btree::looks_interior(buf) && !was_expected {
                self.complete_level(&state, pgno, ahead);
            }
        }
        if ahead.is_trigger(pgno) {
            self.read_on(&State { map: map.clone(), page_size }, pgno, ahead);
        }
        self.learn(&State { map: map.clone(), page_size }, pgno, frame, ahead, buf);
        Ok(())
    }

    /// Where page `pgno` is, of which `map` knows at least who says it; `None` for a page that nobody wrote.
    fn find<'a>(
        &self,
        map: &'a PageMap,
        pgno: Pgno,
        ahead: &ReadAhead,
    ) -> Result<Option<(Frame, &'a Arc<ReplicaFile>)>> {
        loop {
            let (blocks, number) = match map.find(pgno) {
                Found::At(frame, file) => return Ok(Some((frame, file))),
                Found::Nowhere => return Ok(None),
                Found::Away(blocks, number) => (Arc::clone(blocks), number),
            };
            let files = self.0.files.clone();
            let bring = async move { blocks.bring(&files.source, number).await };
            runtime::wait_for(|| ahead.is_interrupted(), bring)?;
        }
    }

    /// Takes in what the page tells of others.
    fn learn(&self, state: &State, pgno: Pgno, frame: Frame, ahead: &mut ReadAhead, page: &[u8]) {
        if record::looks_index_leaf(page) {
            ahead.lookups.leaf_was_read(frame.into());
        } else if (btree::looks_interior(page) || pgno == Pgno::ONE)
            && ahead.is_news(u64::from(frame.file) << 40 ^ frame.offset)
        {
            self.0.trees.learn(pgno, page, state.map.commit());
            self.learn_below(state, pgno);
        }
    }

    /// Brings a page that is not in the cache, and what is likely to be wanted with it.
    fn missing(
        &self,
        state: &State,
        wanted: &Wanted<'_>,
        ahead: &mut ReadAhead,
        buf: &mut [u8],
    ) -> Result<()> {
        let flight = match self.0.flights.find(wanted.frame.into()) {
            Some(flight) => flight,
            None => match self.depart(state, wanted, ahead)? {
                Some(flight) => flight,
                // It has come meanwhile; if it is gone again, once more.
                None => match self.0.files.cache.get(wanted.frame.into()) {
                    Some(page) => return copy(&page, buf),
                    None => self.alone(state, wanted)?,
                },
            },
        };
        match self.wait(&flight, wanted.frame.into(), ahead) {
            Arrival::Page(page) => copy(&page, buf),
            Arrival::Damaged => self.again(wanted, ahead, buf),
            Arrival::Failed(e) if flight.is_awaited || ahead.is_interrupted() => Err(e),
            // Nobody had asked for it yet. Now somebody does.
            Arrival::Failed(_) => {
                let flight = self.alone(state, wanted)?;
                match self.wait(&flight, wanted.frame.into(), ahead) {
                    Arrival::Page(page) => copy(&page, buf),
                    Arrival::Damaged => self.again(wanted, ahead, buf),
                    Arrival::Failed(e) => Err(e),
                }
            }
        }
    }

    fn wait(&self, flight: &Flight, key: FrameKey, ahead: &ReadAhead) -> Arrival {
        flight.wait(key, || ahead.is_interrupted())
    }

    /// Sends the requests for a page and for what should come with it. Returns the one that brings the
    /// page; `None` if it has come meanwhile.
    fn depart(
        &self,
        state: &State,
        wanted: &Wanted<'_>,
        ahead: &mut ReadAhead,
    ) -> Result<Option<Arc<Flight>>> {
        let shared = &self.0;
        let home = shared.trees.home(wanted.pgno);
        let is_here = |pgno| match state.map.find(pgno) {
            Found::At(frame, file) => file.is_held(pgno, frame) || shared.files.cache.contains(frame.into()),
            Found::Nowhere => true,
            Found::Away(..) => false,
        };
        let window = ahead.window(wanted.pgno, &shared.trees, shared.files.source.pace(), &is_here);
        let mut spans = self.spans(state, &window, ahead);
        if !spans.iter().any(|span| span.has(wanted.frame)) {
            spans.push(Span::one(wanted.file, wanted.pgno, wanted.frame));
        }
        // What is waited for goes first.
        spans.sort_by_key(|span| !span.has(wanted.frame));
        let mut flight = None;
        for span in spans {
            let awaited = span.has(wanted.frame);
            if let Some(departure) = shared.begin(span, awaited) {
                flight = flight.or(awaited.then(|| departure.flight.clone()));
                shared.launch(state, departure)?;
            }
        }
        if let Some(home) = home {
            self.look_further(state, wanted.pgno, &home, &mut ahead.lookups)?;
        }
        Ok(flight.or_else(|| shared.flights.find(wanted.frame.into())))
    }

    /// A flight for nothing but one page.
    fn alone(&self, state: &State, wanted: &Wanted<'_>) -> Result<Arc<Flight>> {
        loop {
            if let Some(flight) = self.0.flights.find(wanted.frame.into()).filter(|flight| flight.is_awaited)
            {
                return Ok(flight);
            }
            let span = Span::one(wanted.file, wanted.pgno, wanted.frame);
            if let Some(departure) = self.0.flights.begin(span, true, |_| false) {
                let flight = departure.flight.clone();
                self.0.launch(state, departure)?;
                return Ok(flight);
            }
            std::thread::yield_now();
        }
    }

    /// The ranges that bring what is missing of a window.
    fn spans(&self, state: &State, window: &Window, ahead: &mut ReadAhead) -> Vec<Span> {
        let (files, trees) = (&self.0.files, &self.0.trees);
        let most = (files.cache.capacity() / 4 / state.page_size.bytes()).max(1);
        let (mut walk, mut pages, mut bytes) = (window.pages.clone(), Vec::new(), 0);
        let mut ranges = Ranges::default();
        while pages.len() < most && (pages.is_empty() || bytes < window.bytes) {
            let before = walk.clone();
            let Some(pgno) = walk.next(trees, state.map.commit()) else { break };
            let away = |frame: Frame, file: &ReplicaFile| {
                !file.is_held(pgno, frame) && !files.cache.contains(frame.into())
            };
            let frame = match state.map.find(pgno) {
                Found::At(frame, file) if away(frame, file) => Some(frame),
                Found::At(..) | Found::Nowhere => None,
                // Where it is will be known when reading comes there.
                Found::Away(blocks, number) => {
                    self.0.bring_early(blocks, number);
                    walk = before;
                    break;
                }
            };
            if let Some(frame) = frame {
                ranges.add(frame);
                if ranges.count() > RANGES {
                    walk = before;
                    break;
                }
                bytes += u64::from(frame.size);
            }
            pages.push(pgno);
        }
        ahead.looked_at(window, &pages, walk, trees);
        let mut spans = self.0.spans(state, &pages);
        if window.bytes >= STRETCHED
            && let Some(last) = pages.iter().max()
        {
            spans.iter_mut().for_each(|span| span.stretch(&state.map, *last));
        }
        spans
    }

    /// Sends the requests for the window after the one that is being read.
    fn read_on(&self, state: &State, pgno: Pgno, ahead: &mut ReadAhead) {
        let Some(window) = ahead.next_window(pgno, self.0.files.source.pace()) else { return };
        for span in self.spans(state, &window, ahead) {
            self.0.early(state, span);
        }
    }

    /// Fetches one page once more, because what came was not it.
    fn again(&self, wanted: &Wanted<'_>, ahead: &ReadAhead, buf: &mut [u8]) -> Result<()> {
        let Wanted { pgno, frame, file } = *wanted;
        let (files, info) = (self.0.files.clone(), file.info.clone());
        let range = ByteRange::Bounded { offset: frame.offset, len: frame.size.into() };
        let read = async move { files.source.read(&info, range).await };
        let bytes = runtime::wait_for(|| ahead.is_interrupted(), read)?;
        decode(&bytes, pgno, &file.codec, buf).map_err(|e| {
            e.context(format!("page {pgno} in {} of replica {}", file.info.id, self.0.files.source.url()))
        })?;
        self.0.files.cache.insert_copy(frame.into(), buf);
        Ok(())
    }
}

impl Shared {
    /// Reads a page of a file that fails its checksum: only as the local file has it, where it was checked.
    #[cold]
    fn of_damaged(&self, pgno: Pgno, frame: Frame, file: &ReplicaFile, buf: &mut [u8]) -> Result<()> {
        if self.files.local().is_some_and(|local| local.read(pgno, frame, buf)) {
            return Ok(());
        }
        let (id, url) = (file.info.id, self.files.source.url());
        Err(Error::corrupt(format!(
            "page {pgno} is in {id} of replica {url}, which fails its checksum: litestream_verify says what else is \
             damaged; a new snapshot by the primary (litestream_snapshot()) takes the place of the file"
        )))
    }

    /// Reads a page that is on this machine, though not in the cache.
    fn read_here(&self, pgno: Pgno, frame: Frame, file: &ReplicaFile, buf: &mut [u8]) -> bool {
        if self.files.local().is_some_and(|local| local.read(pgno, frame, buf)) {
            return true;
        }
        let kept = file.kept.get().and_then(|kept| kept.read(frame.offset, frame.size as usize).ok());
        let here = kept.is_some_and(|bytes| decode(&bytes, pgno, &file.codec, buf).is_ok())
            || file.packed(pgno, frame).is_some_and(|bytes| decode(bytes, pgno, &file.codec, buf).is_ok())
            || file.disk.as_ref().is_some_and(|disk| disk.read(frame.entry(pgno), &file.codec, buf));
        if here {
            self.files.cache.insert_copy(frame.into(), buf);
        }
        here
    }

    /// The spans that bring those of `pages` that are not on this machine.
    fn spans(&self, state: &State, pages: &[Pgno]) -> Vec<Span> {
        let page = RefCell::new(vec![0; state.page_size.bytes()]);
        spans(&state.map, pages, |pgno, frame, file| {
            self.files.cache.contains(frame.into())
                || file.kept.get().is_some()
                || self.learn_here(state, pgno, frame, file, &mut page.borrow_mut())
        })
    }

    /// Reads a page that is on this machine, and takes in what it tells of others.
    fn learn_here(
        &self,
        state: &State,
        pgno: Pgno,
        frame: Frame,
        file: &ReplicaFile,
        page: &mut [u8],
    ) -> bool {
        let is_here = self.read_here(pgno, frame, file, page);
        if is_here && btree::looks_interior(page) {
            self.trees.learn(pgno, page, state.map.commit());
        }
        is_here
    }

    fn begin(&self, span: Span, is_awaited: bool) -> Option<Departure> {
        self.flights.begin(span, is_awaited, |frame| self.files.cache.contains(frame.into()))
    }

    /// Sends a request that nobody waits for.
    fn early(self: &Arc<Self>, state: &State, span: Span) -> Option<JoinHandle<()>> {
        self.begin(span, false).and_then(|departure| self.launch(state, departure).ok())
    }

    /// Asks for a block that nobody waits for yet.
    fn bring_early(self: &Arc<Self>, blocks: &Arc<Blocks>, number: usize) {
        let (shared, blocks) = (Arc::clone(self), Arc::clone(blocks));
        if let Ok(runtime) = runtime::handle() {
            runtime.spawn(async move { blocks.bring(&shared.files.source, number).await });
        }
    }

    fn launch(self: &Arc<Self>, state: &State, departure: Departure) -> Result<JoinHandle<()>> {
        let (shared, state) = (self.clone(), state.clone());
        Ok(runtime::handle()?.spawn(async move { shared.fly(&state, departure).await }))
    }

    /// Makes the request, and hands out pages as they come.
    async fn fly(&self, state: &State, departure: Departure) {
        let _turn = match departure.flight.is_awaited {
            true => None,
            false => Some(self.early.acquire().await),
        };
        if self.flights.is_closed() {
            return;
        }
        let (mut start, end) = (departure.span.start(), departure.span.end());
        let range = ByteRange::Bounded { offset: start, len: end - start };
        let codec = &departure.span.file.codec;
        let (mut page, mut next) = (vec![0; state.page_size.bytes()], 0);
        let mut pages = Vec::new();
        // Takes the frames that are whole from the bytes at `start` of the file.
        let unpack = |bytes: &[u8]| {
            let (mut good, mut taken) = (Vec::new(), 0);
            pages.clear();
            while let Some((pgno, frame)) = departure.frame(next)
                && let Some(frame_bytes) = bytes.get(place(frame, start))
            {
                if decode(frame_bytes, pgno, codec, &mut page).is_ok() {
                    pages.extend_from_slice(&page);
                    good.push((pgno, frame));
                }
                (next, taken) = (next + 1, place(frame, start).end);
            }
            // First of all: what a process has read is there for the next one, however soon it ends.
            if let Some(disk) = &departure.span.file.disk {
                let entries = good.iter().map(|(pgno, frame)| frame.entry(*pgno)).collect();
                runtime::busy(true, || disk.keep(entries, start, bytes));
            }
            for ((pgno, frame), page) in good.into_iter().zip(pages.chunks_exact(page.len())) {
                self.keep(state, pgno, frame, page, &departure.flight);
            }
            departure.flight.tell();
            start += taken as u64;
            taken
        };
        let outcome = self.files.source.read_in_parts(&departure.span.file.info, range, unpack).await;
        departure.land(outcome);
    }

    /// Puts a page into the cache and gives it to who waits.
    fn keep(&self, state: &State, pgno: Pgno, frame: Frame, page: &[u8], flight: &Flight) {
        if btree::looks_interior(page) {
            self.trees.learn(pgno, page, state.map.commit());
        }
        flight.bring(frame.into(), self.files.cache.insert_copy(frame.into(), page));
    }
}

/// Where a frame is in bytes that begin at `start` of its file.
fn place(frame: Frame, start: u64) -> Range<usize> {
    (frame.offset - start) as usize..(frame.end() - start) as usize
}

/// Decodes the frame that `bytes` are.
fn decode(bytes: &[u8], pgno: Pgno, codec: &FrameCodec, buf: &mut [u8]) -> Result<()> {
    let found = codec.decode(bytes, buf)?;
    if found == pgno {
        Ok(())
    } else {
        Err(Error::corrupt(format!("page {found} is where its index puts page {pgno}")))
    }
}

fn copy(page: &[u8], buf: &mut [u8]) -> Result<()> {
    buf.copy_from_slice(page);
    Ok(())
}

#[cfg(test)]
mod tests;
