//! Pages from the store: neighbours in one request, and one request for all who want the same page.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::cache::FrameKey;
use super::files::Files;
use super::map::{Frame, PageMap, ReplicaFile};
use super::pace::Pace;
use crate::error::{Error, ErrorKind, Result};
use crate::ltx::decode_frame;
use crate::page::{PageSize, Pgno};
use crate::runtime;
use crate::store::ByteRange;

/// What a single page brings along: costs hardly more than the round trip.
const SMALLEST: u64 = 32 * 1024;
/// What is read at once of a table that is scanned.
const LARGE: u64 = 1024 * 1024;
/// And from a store that is slow to begin an answer and fast from then on.
const LARGEST: u64 = 16 * 1024 * 1024;
/// A hole that is larger than this is not read through.
const HOLE: u64 = 64 * 1024;
/// A scan may leave out this many pages and still counts as one.
const SKIP: u32 = 16;

/// How a connection has been reading, and so how much it is given at once.
#[derive(Debug)]
pub struct ReadAhead {
    /// The pages that were looked at for the last request, from the first to after the last.
    last: Range<u32>,
    bytes: u64,
}

impl Default for ReadAhead {
    fn default() -> Self {
        Self { last: 0..0, bytes: SMALLEST }
    }
}

/// Which neighbours of a page come along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Up,
    Down,
}

impl Direction {
    fn step(self, pgno: Pgno) -> Option<Pgno> {
        match self {
            Self::Up => pgno.get().checked_add(1).and_then(Pgno::new),
            Self::Down => Pgno::new(pgno.get() - 1),
        }
    }
}

impl ReadAhead {
    /// Where to read on from a page that is not in the cache, and how many bytes: twice as many as
    /// before if the page follows those that were read then, or precedes them.
    fn next(&mut self, pgno: Pgno, pace: &Pace) -> (Direction, u64) {
        let Range { start, end } = self.last;
        let up = (end..=end.saturating_add(SKIP)).contains(&pgno.get());
        let down = (start.saturating_sub(SKIP)..start).contains(&pgno.get());
        let limit = pace.worthwhile().unwrap_or(0).clamp(LARGE, LARGEST);
        self.bytes = if up || down { (self.bytes * 2).min(limit) } else { SMALLEST };
        (if down { Direction::Down } else { Direction::Up }, self.bytes)
    }
}

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
        let (direction, bytes) = ahead.next(pgno, self.files.source.pace());
        let most = (self.files.cache.capacity() / 4 / page_size.bytes()).max(1);
        let mut span =
            Span { file: file.clone(), start: frame.offset, end: frame.end(), frames: vec![(pgno, frame)] };
        let mut last = pgno;
        for _ in 1..most {
            let Some(next) = direction.step(last).filter(|&next| map.commit().contains(next)) else { break };
            if let Some(neighbour) = map.frame(next).filter(|f| f.file == frame.file) {
                if !span.reaches(neighbour, bytes) {
                    break;
                }
                if !self.files.cache.contains(neighbour.into()) {
                    span.add(next, neighbour);
                }
            }
            last = next;
        }
        ahead.last = pgno.min(last).get()..pgno.max(last).get().saturating_add(1);
        span
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
        for &(pgno, frame) in &span.frames {
            if fetched.decode(pgno, frame, page_size, &mut page).is_ok() {
                self.files.cache.insert(frame.into(), Arc::from(page.as_slice()));
            }
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
