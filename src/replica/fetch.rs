//! Pages from the store: neighbours in one request, and one request for all who want the same page.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::cache::FrameKey;
use super::files::Files;
use super::map::{Frame, PageMap, ReplicaFile};
use super::read_ahead::{Direction, ReadAhead, Window};
use crate::error::{Error, ErrorKind, Result};
use crate::ltx::{IndexEntry, decode_frame};
use crate::page::{PageSize, Pgno};
use crate::runtime;
use crate::store::ByteRange;

/// A hole that is larger than this is not read through.
const HOLE: u64 = 64 * 1024;

/// A range of a file, and the pages of the map whose frames it has.
#[derive(Debug)]
struct Span {
    file: Arc<ReplicaFile>,
    start: u64,
    end: u64,
    frames: Vec<(Pgno, Frame)>,
}

impl Span {
    /// Whether it may grow to have `frame` too: without a large hole, and to no more than `bytes`.
    fn reaches(&self, frame: Frame, bytes: u64) -> bool {
        let hole = frame.offset.saturating_sub(self.end).max(self.start.saturating_sub(frame.end()));
        hole <= HOLE && self.end.max(frame.end()) - self.start.min(frame.offset) <= bytes
    }

    fn add(&mut self, pgno: Pgno, frame: Frame) {
        self.start = self.start.min(frame.offset);
        self.end = self.end.max(frame.end());
        self.frames.push((pgno, frame));
    }
}

/// A request that others may wait for.
#[derive(Debug, Default)]
struct Flight {
    outcome: Mutex<Option<Result<Fetched>>>,
    landed: Condvar,
}

/// Bytes of a file and where they begin in it.
#[derive(Clone, Debug)]
struct Fetched {
    start: u64,
    bytes: Bytes,
}

impl Fetched {
    /// Decodes the page whose frame is at `frame`.
    fn decode(&self, pgno: Pgno, frame: Frame, page_size: PageSize, buf: &mut [u8]) -> Result<()> {
        let start = (frame.offset - self.start) as usize;
        let bytes = &self.bytes[start..start + frame.size as usize];
        let found = decode_frame(bytes, page_size, buf)?;
        if found == pgno {
            Ok(())
        } else {
            Err(Error::corrupt(format!("page {found} is where its index puts page {pgno}")))
        }
    }
}

/// Brings pages through the cache of [`Files`].
#[derive(Debug)]
pub(super) struct Fetcher {
    files: Arc<Files>,
    flights: Mutex<HashMap<FrameKey, Arc<Flight>>>,
}

/// What to do about a page.
enum Way {
    Cached(Arc<[u8]>),
    Wait(Arc<Flight>),
    Fly(Arc<Flight>),
}

impl Fetcher {
    /// Brings pages of `files`.
    pub(super) fn new(files: Arc<Files>) -> Self {
        Self { files, flights: Mutex::new(HashMap::new()) }
    }

    /// Reads page `pgno`, whose place `map` knows, into `buf`. A page that nobody wrote is zeros.
    ///
    /// # Errors
    /// Those of the store; `NotFound` if the file is no longer there; `Corrupt`, after another try.
    pub(super) fn page(
        &self,
        map: &PageMap,
        page_size: PageSize,
        pgno: Pgno,
        ahead: &mut ReadAhead,
        buf: &mut [u8],
    ) -> Result<()> {
        let Some((frame, file)) = map.get(pgno) else {
            buf.fill(0);
            return Ok(());
        };
        if let Some(page) = self.files.cache.get(frame.into()) {
            buf.copy_from_slice(&page);
            return Ok(());
        }
        if file.disk.as_ref().is_some_and(|disk| disk.read(entry(pgno, frame), page_size, buf)) {
            self.files.cache.insert(frame.into(), Arc::from(&*buf));
            return Ok(());
        }
        let span = self.span(map, page_size, pgno, frame, file, ahead);
        let fetched = match self.way(&span, frame) {
            Way::Cached(page) => {
                buf.copy_from_slice(&page);
                return Ok(());
            }
            Way::Wait(flight) => flight.wait()?,
            Way::Fly(flight) => self.fly(&span, page_size, flight)?,
        };
        match fetched.decode(pgno, frame, page_size, buf) {
            Ok(()) => Ok(()),
            Err(_) => self.again(file, page_size, pgno, frame, buf),
        }
    }

    /// What to read for `pgno`: its frame and those beside it of pages that are not here yet.
    fn span(
        &self,
        map: &PageMap,
        page_size: PageSize,
        pgno: Pgno,
        frame: Frame,
        file: &Arc<ReplicaFile>,
        ahead: &mut ReadAhead,
    ) -> Span {
        let window = ahead.window(pgno, self.files.source.pace());
        let most = (self.files.cache.capacity() / 4 / page_size.bytes()).max(1);
        let mut span =
            Span { file: file.clone(), start: frame.offset, end: frame.end(), frames: vec![(pgno, frame)] };
        let back =
            self.grow(&mut span, map, window.direction.back(), pgno, window.skipped.min(most), &window);
        let forth = self.grow(&mut span, map, window.direction, pgno, most, &window);
        ahead.looked_at(&window, back.min(forth).get()..back.max(forth).get().saturating_add(1));
        span
    }

    /// Adds pages from `from` on to a span of up to `most` pages, and returns the last that was looked
    /// at.
    fn grow(
        &self,
        span: &mut Span,
        map: &PageMap,
        direction: Direction,
        from: Pgno,
        most: usize,
        window: &Window,
    ) -> Pgno {
        let mut last = from;
        for _ in span.frames.len()..=most {
            let Some(next) = direction.step(last).filter(|&next| map.commit().contains(next)) else { break };
            if let Some(neighbour) = map.frame(next).filter(|f| f.file == span.file.number) {
                if !span.reaches(neighbour, window.bytes) {
                    break;
                }
                if !self.files.cache.contains(neighbour.into()) {
                    span.add(next, neighbour);
                }
            }
            last = next;
        }
        last
    }

    /// Whether the page arrived meanwhile, is on its way, or has to be fetched by us.
    fn way(&self, span: &Span, frame: Frame) -> Way {
        let mut flights = self.lock();
        if let Some(flight) = flights.get(&frame.into()) {
            return Way::Wait(flight.clone());
        }
        if let Some(page) = self.files.cache.get(frame.into()) {
            return Way::Cached(page);
        }
        let flight = Arc::new(Flight::default());
        for (_, frame) in &span.frames {
            flights.entry((*frame).into()).or_insert_with(|| flight.clone());
        }
        Way::Fly(flight)
    }

    /// Fetches a span, keeps its pages, and tells those who wait.
    fn fly(&self, span: &Span, page_size: PageSize, flight: Arc<Flight>) -> Result<Fetched> {
        let landing = Landing { fetcher: self, span, flight };
        let outcome = self.read(&span.file, span.start, span.end);
        if let Ok(fetched) = &outcome {
            self.keep(span, page_size, fetched);
        }
        *landing.flight.lock() = Some(outcome.clone());
        outcome
    }

    fn read(&self, file: &Arc<ReplicaFile>, start: u64, end: u64) -> Result<Fetched> {
        let (files, file) = (self.files.clone(), file.clone());
        runtime::block_on(async move {
            let range = ByteRange::Bounded { offset: start, len: end - start };
            files.source.read(&file.info, range).await.map(|bytes| Fetched { start, bytes })
        })
    }

    /// Puts the pages of a span into the cache; one that does not decode is left to who wants it.
    fn keep(&self, span: &Span, page_size: PageSize, fetched: &Fetched) {
        let mut page = vec![0; page_size.bytes()];
        let mut good = Vec::with_capacity(span.frames.len());
        for &(pgno, frame) in &span.frames {
            if fetched.decode(pgno, frame, page_size, &mut page).is_ok() {
                self.files.cache.insert(frame.into(), Arc::from(page.as_slice()));
                good.push(entry(pgno, frame));
            }
        }
        if let Some(disk) = &span.file.disk {
            disk.keep(good, fetched.start, &fetched.bytes);
        }
    }

    /// Fetches one page once more, because what came was not it.
    fn again(
        &self,
        file: &Arc<ReplicaFile>,
        page_size: PageSize,
        pgno: Pgno,
        frame: Frame,
        buf: &mut [u8],
    ) -> Result<()> {
        let fetched = self.read(file, frame.offset, frame.end())?;
        fetched.decode(pgno, frame, page_size, buf).map_err(|e| {
            e.context(format!("page {pgno} in {} of replica {}", file.info.id, self.files.source.url()))
        })?;
        self.files.cache.insert(frame.into(), Arc::from(&*buf));
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<FrameKey, Arc<Flight>>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn entry(pgno: Pgno, frame: Frame) -> IndexEntry {
    IndexEntry { pgno, offset: frame.offset, size: frame.size.into() }
}

impl Flight {
    fn lock(&self) -> MutexGuard<'_, Option<Result<Fetched>>> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self) -> Result<Fetched> {
        let mut outcome = self.lock();
        loop {
            if let Some(outcome) = &*outcome {
                return outcome.clone();
            }
            outcome = self.landed.wait(outcome).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Ends a flight however its owner leaves, so that nobody waits for ever.
struct Landing<'a> {
    fetcher: &'a Fetcher,
    span: &'a Span,
    flight: Arc<Flight>,
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        let mut flights = self.fetcher.lock();
        for (_, frame) in &self.span.frames {
            if flights.get(&(*frame).into()).is_some_and(|f| Arc::ptr_eq(f, &self.flight)) {
                flights.remove(&(*frame).into());
            }
        }
        drop(flights);
        self.flight.lock().get_or_insert_with(|| {
            Err(Error::new(ErrorKind::Interrupted, "the request for this page ended early"))
        });
        self.flight.landed.notify_all();
    }
}
