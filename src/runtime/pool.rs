//! Threads for work that waits for files, locks or other work.
//!
//! Where the system refuses another thread (the pids limit of a container, `ulimit -u`), tokio's own pool either panics
//! or leaves the work in a queue that nobody serves. Here it is done by the threads that are there: one of each pool
//! starts with the runtime and stays. Work that waits for other work of a pool has a pool to itself, or a
//! few threads would wait for each other for ever.

use std::collections::VecDeque;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::error::{Error, ErrorKind, Result};
use crate::fork::PerProcess;

/// The most threads for work that ends by itself; more of it waits its turn.
const MOST_SHORT: usize = 8;
/// The most threads for work that waits for others: more than the uploads that two servers get at the same time.
const MOST_LONG: usize = 24;
/// A thread without work ends after this, so that an idle process is quiet.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Work that ends by itself.
pub(super) static SHORT: PerProcess<Pool<MOST_SHORT>> = PerProcess::new();
/// Work that waits for tasks of the runtime, which may use [`SHORT`].
pub(super) static LONG: PerProcess<Pool<MOST_LONG>> = PerProcess::new();

type Job = Box<dyn FnOnce() + Send>;

/// At most `MOST` threads, and the work that waits for them.
#[derive(Default)]
pub(super) struct Pool<const MOST: usize> {
    state: Mutex<State>,
    news: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Job>,
    threads: usize,
    idle: usize,
    /// One thread stays when there is no work.
    keeps_one: bool,
}

impl<const MOST: usize> Pool<MOST> {
    /// Begins `work` on a thread of the pool, also if nobody waits for it. A panic of it is one of the task that
    /// waits.
    ///
    /// # Errors
    /// Those of `work`; `Io` if there is no thread to be had.
    pub(super) fn run<T: Send + 'static>(
        &'static self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> impl Future<Output = Result<T>> + Send + 'static {
        let (done, result) = oneshot::channel();
        let runtime = Handle::try_current().ok();
        let job = move || {
            let _entered = runtime.as_ref().map(Handle::enter);
            // Nobody takes it if the task was given up.
            let _ = done.send(panic::catch_unwind(AssertUnwindSafe(work)));
        };
        let submitted = self.submit(Box::new(job), |work| super::start::thread("pool", work).map(drop));
        async move {
            submitted?;
            match result.await {
                Ok(Ok(result)) => result,
                Ok(Err(panic)) => panic::resume_unwind(panic),
                Err(_) => Err(Error::new(ErrorKind::Interrupted, "background work was given up")),
            }
        }
    }

    /// Starts a thread that stays, unless there is one.
    ///
    /// # Errors
    /// Those of the system.
    pub(super) fn keep_one(&'static self) -> io::Result<()> {
        let mut state = self.state();
        if state.threads == 0 {
            super::start::thread("pool", || self.serve())?;
            state.threads += 1;
        }
        state.keeps_one = true;
        Ok(())
    }

    /// `start` starts a thread.
    fn submit(
        &'static self,
        job: Job,
        start: impl FnOnce(Box<dyn FnOnce() + Send>) -> io::Result<()>,
    ) -> Result<()> {
        #[cfg(test)]
        if let Some(simulation) = super::simulated::current() {
            let waits_for_tasks = MOST == MOST_LONG;
            if waits_for_tasks {
                simulation.begin_long(job)
            } else {
                simulation.begin(job)
            }
            return Ok(());
        }
        let mut state = self.state();
        if state.idle <= state.queue.len() && state.threads < MOST {
            match start(Box::new(|| self.serve())) {
                Ok(()) => state.threads += 1,
                // Those that are there do it in their turn.
                Err(_) if state.threads > 0 => {}
                Err(e) => return Err(super::start::no_thread(e)),
            }
        }
        state.queue.push_back(job);
        drop(state);
        self.news.notify_one();
        Ok(())
    }

    /// What each thread does: one job after the other, until there was none for a while.
    fn serve(&self) {
        let mut state = self.state();
        loop {
            while let Some(job) = state.queue.pop_front() {
                drop(state);
                job();
                state = self.state();
            }
            let until = Instant::now() + KEEP_ALIVE;
            state.idle += 1;
            while state.queue.is_empty() {
                let left = until.saturating_duration_since(Instant::now());
                state = if state.keeps_one && state.threads == 1 {
                    self.news.wait(state).unwrap_or_else(PoisonError::into_inner)
                } else if left.is_zero() {
                    state.idle -= 1;
                    state.threads -= 1;
                    return;
                } else {
                    self.news.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                };
            }
            state.idle -= 1;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    fn refuse(_: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        Err(io::ErrorKind::WouldBlock.into())
    }

    #[test]
    fn without_a_thread_it_is_an_error_and_with_one_it_is_done() {
        let pool: &'static Pool<MOST_SHORT> = Box::leak(Box::default());
        let (done, result) = channel();
        let first = done.clone();
        let refused = pool.submit(Box::new(move || first.send(1).unwrap()), refuse).unwrap_err();
        assert!(refused.to_string().contains("ulimit -u"), "{refused}");
        pool.keep_one().unwrap();
        for n in 2..20 {
            let done = done.clone();
            pool.submit(Box::new(move || done.send(n).unwrap()), refuse).unwrap();
        }
        drop(done);
        assert_eq!(result.iter().collect::<Vec<_>>(), (2..20).collect::<Vec<_>>());
    }

    #[test]
    fn a_panic_of_the_work_is_one_of_the_task() {
        static POOL: PerProcess<Pool<MOST_SHORT>> = PerProcess::new();
        let work = async { POOL.get().run(|| -> Result<()> { panic!("expected in this test") }).await };
        assert!(crate::runtime::block_on(work).unwrap_err().to_string().contains("report"));
        let after = async { POOL.get().run(|| Ok(7)).await };
        assert_eq!(crate::runtime::block_on(after).unwrap(), 7);
    }
}
