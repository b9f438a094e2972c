//! Requests under way, and the pages that they have brought so far.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::cache::FrameKey;
use super::map::Frame;
use super::span::Span;
use crate::error::{Error, ErrorKind, Result};
use crate::page::Pgno;

/// How soon who waits notices that the wait shall end.
const GLANCE: Duration = Duration::from_millis(50);

/// A request that others may wait for.
#[derive(Debug)]
pub(super) struct Flight {
    /// Somebody wants one of its pages now: its failure is theirs.
    pub(super) is_awaited: bool,
    state: Mutex<State>,
    changed: Condvar,
    ended: Notify,
}

#[derive(Debug, Default)]
struct State {
    pages: HashMap<FrameKey, Arc<[u8]>>,
    outcome: Option<Result<()>>,
}

/// What came of waiting for a page.
#[derive(Debug)]
pub(super) enum Arrival {
    Page(Arc<[u8]>),
    /// The request was answered, and what is there is not the page.
    Damaged,
    Failed(Error),
}

impl Flight {
    /// Takes in a page that has come.
    pub(super) fn bring(&self, key: FrameKey, page: Arc<[u8]>) {
        self.lock().pages.insert(key, page);
    }

    /// Tells those who wait to look.
    pub(super) fn tell(&self) {
        self.changed.notify_all();
    }

    /// Waits for a page, for as long as `is_over` does not say that nobody wants it any more.
    pub(super) fn wait(&self, key: FrameKey, is_over: impl Fn() -> bool) -> Arrival {
        let mut state = self.lock();
        loop {
            if let Some(page) = state.pages.get(&key) {
                return Arrival::Page(page.clone());
            }
            match &state.outcome {
                Some(Ok(())) => return Arrival::Damaged,
                Some(Err(e)) => return Arrival::Failed(e.clone()),
                None => {}
            }
            let (next, glance) =
                self.changed.wait_timeout(state, GLANCE).unwrap_or_else(PoisonError::into_inner);
            state = next;
            if glance.timed_out() && is_over() {
                return Arrival::Failed(Error::new(ErrorKind::Interrupted, "the query was interrupted"));
            }
        }
    }

    /// Waits until it has ended, whatever came of it.
    pub(super) async fn end(&self) {
        let mut ended = pin!(self.ended.notified());
        ended.as_mut().enable();
        if self.lock().outcome.is_none() {
            ended.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The requests under way, by the frames that they will bring.
#[derive(Debug, Default)]
pub(super) struct Flights {
    by_frame: Mutex<HashMap<FrameKey, Arc<Flight>>>,
    landed: Condvar,
    /// Nobody will want anything any more.
    closed: AtomicBool,
}

impl Flights {
    /// The request that will bring a frame.
    pub(super) fn find(&self, key: FrameKey) -> Option<Arc<Flight>> {
        self.lock().get(&key).cloned()
    }

    /// Begins a flight for those frames of `span` that no other one brings and `is_here` does not have.
    /// `None` if there are none.
    pub(super) fn begin(
        self: &Arc<Self>,
        mut span: Span,
        is_awaited: bool,
        is_here: impl Fn(Frame) -> bool,
    ) -> Option<Departure> {
        let mut flights = self.lock();
        span.frames.retain(|(_, frame)| !flights.contains_key(&(*frame).into()) && !is_here(*frame));
        if span.frames.is_empty() {
            return None;
        }
        let flight = Arc::new(Flight {
            is_awaited,
            state: Mutex::default(),
            changed: Condvar::new(),
            ended: Notify::new(),
        });
        for (_, frame) in &span.frames {
            flights.insert((*frame).into(), flight.clone());
        }
        drop(flights);
        Some(Departure { flights: self.clone(), span, flight })
    }

    /// Ends what nobody waits for.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    /// Waits until all have ended, or for so long.
    pub(super) fn wait_for_all(&self, timeout: Duration) {
        let is_busy = |flights: &mut HashMap<_, _>| !flights.is_empty();
        drop(self.landed.wait_timeout_while(self.lock(), timeout, is_busy));
    }

    /// Whether it was closed.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<FrameKey, Arc<Flight>>> {
        self.by_frame.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A flight that is to be made. However it ends, nobody waits for ever.
#[derive(Debug)]
pub(super) struct Departure {
    flights: Arc<Flights>,
    pub(super) span: Span,
    pub(super) flight: Arc<Flight>,
}

impl Departure {
    /// The page and frame at `n` in the order of the file.
    pub(super) fn frame(&self, n: usize) -> Option<(Pgno, Frame)> {
        self.span.frames.get(n).copied()
    }

    /// Says how the request ended.
    pub(super) fn land(self, outcome: Result<()>) {
        self.flight.lock().outcome = Some(outcome);
    }
}

impl Drop for Departure {
    fn drop(&mut self) {
        let mut flights = self.flights.lock();
        for (_, frame) in &self.span.frames {
            flights.remove(&(*frame).into());
        }
        drop(flights);
        self.flights.landed.notify_all();
        self.flight.lock().outcome.get_or_insert_with(|| {
            Err(Error::new(ErrorKind::Interrupted, "the request for this page ended early"))
        });
        self.flight.tell();
        self.flight.ended.notify_waiters();
    }
}
