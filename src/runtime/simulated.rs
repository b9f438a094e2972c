//! For tests: a runtime on one thread, on which time is virtual and chance is drawn from a seed, so that a run replays.
//!
//! The thread that calls [`simulate`] is the program's. Whenever it waits, the tasks run on it, and time passes as fast
//! as they have nothing to do. Work for a pool is done in the middle of the tasks. Work that itself waits for tasks has a
//! thread of its own, which runs only while the task that waits for it is polled: of all threads one runs at a time.

use std::cell::RefCell;
use std::fs;
use std::future::Future;
use std::panic;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::time::Instant;

use crate::clock::{Clock, Timestamp};

/// What the clocks show when a simulation begins, in milliseconds since the Unix epoch.
const BEGIN_MS: i64 = 1_800_000_000_000;
/// How soon a thread of the program that waits sees what the tasks did.
const GLANCE: Duration = Duration::from_millis(1);

thread_local! {
    static CURRENT: RefCell<Option<Arc<Simulation>>> = const { RefCell::new(None) };
    /// The work that this thread does, if it is not the program's.
    static JOB: RefCell<Option<Arc<Job>>> = const { RefCell::new(None) };
}

/// One run.
pub(crate) struct Simulation {
    runtime: Runtime,
    begun: Instant,
    random: Mutex<u64>,
    /// Work and requests take a while, drawn at random.
    is_hasty: AtomicBool,
    /// How often the machine was started.
    boot: AtomicU64,
    /// Files that were synced, and what they held then, in order, since [`Simulation::take_synced`].
    synced: Mutex<Vec<(PathBuf, Vec<u8>)>>,
    /// How often the process was killed: work of an earlier one is not done.
    life: AtomicU64,
    jobs: Mutex<Vec<Weak<Job>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The simulation that this thread is part of.
pub(crate) fn current() -> Option<Arc<Simulation>> {
    CURRENT.with_borrow(Clone::clone)
}

/// Does `work`, with all that waits for time in virtual time. Nothing takes any but what asks for it.
pub(crate) fn in_virtual_time<T>(work: impl FnOnce() -> T) -> T {
    let simulation = Simulation::new(0);
    simulation.is_hasty.store(true, Ordering::Relaxed);
    simulation.run(work)
}

/// Does `work` with chance drawn from `seed`: work of pools and requests take a while at random, so that they overlap in
/// another way with each seed.
pub(crate) fn simulate<T>(seed: u64, work: impl FnOnce() -> T) -> T {
    Simulation::new(seed).run(work)
}

/// Ends the simulation on this thread, also after a panic.
struct End(Arc<Simulation>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.kill();
        CURRENT.set(None);
    }
}

impl Simulation {
    fn new(seed: u64) -> Arc<Self> {
        let runtime = Builder::new_current_thread().enable_all().start_paused(true).build();
        let runtime = runtime.expect("a runtime");
        let begun = runtime.block_on(async { Instant::now() });
        Arc::new(Self {
            runtime,
            begun,
            random: Mutex::new(seed),
            is_hasty: AtomicBool::new(false),
            boot: AtomicU64::new(1),
            synced: Mutex::default(),
            life: AtomicU64::new(0),
            jobs: Mutex::default(),
        })
    }

    fn run<T>(self: Arc<Self>, work: impl FnOnce() -> T) -> T {
        assert!(current().is_none(), "one simulation at a time");
        CURRENT.set(Some(Arc::clone(&self)));
        let end = End(self);
        let entered = end.0.runtime.enter();
        let done = work();
        drop(entered);
        done
    }

    /// What the file at `path` holds now is on the disk.
    pub(super) fn note_synced(&self, path: &Path) {
        let held = fs::read(path).unwrap_or_default();
        lock(&self.synced).push((path.to_owned(), held));
    }

    /// The files that were synced since this was asked last, and what they held then.
    pub(crate) fn take_synced(&self) -> Vec<(PathBuf, Vec<u8>)> {
        std::mem::take(&mut *lock(&self.synced))
    }

    /// The runtime.
    pub(super) fn handle(&self) -> Handle {
        self.runtime.handle().clone()
    }

    /// The next random number. Source: Vigna's SplitMix64, public domain.
    pub(crate) fn random(&self) -> u64 {
        let mut state = lock(&self.random);
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A random number below `end`.
    pub(crate) fn below(&self, end: u64) -> u64 {
        self.random() % end
    }

    /// How long the simulation lasts by now.
    pub(crate) fn elapsed(&self) -> Duration {
        let _entered = self.runtime.enter();
        self.begun.elapsed()
    }

    /// The time of day.
    pub(crate) fn time_of_day(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(BEGIN_MS as u64) + self.elapsed()
    }

    /// What tells one boot of the machine from another.
    pub(crate) fn boot(&self) -> String {
        format!("boot {}", self.boot.load(Ordering::Relaxed))
    }

    /// The machine goes down and is started again.
    pub(crate) fn fail_power(&self) {
        self.kill();
        self.boot.fetch_add(1, Ordering::Relaxed);
    }

    /// The process is killed: what its threads were doing ends where they wait.
    pub(crate) fn kill(&self) {
        self.life.fetch_add(1, Ordering::Relaxed);
        let jobs = std::mem::take(&mut *lock(&self.jobs));
        jobs.iter().filter_map(Weak::upgrade).for_each(|job| job.end());
    }

    /// Lets `time` pass for the thread that asks.
    pub(crate) fn pass(&self, time: Duration) {
        self.wait(tokio::time::sleep(time));
    }

    /// Waits a moment of at most `timeout` for whatever tasks do.
    pub(super) fn glance(&self, timeout: Duration) {
        self.pass(timeout.min(GLANCE));
    }

    /// Waits for `work` on a thread that may wait.
    pub(super) fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        match JOB.with_borrow(Clone::clone) {
            Some(job) => job.wait(work),
            None => self.runtime.block_on(work),
        }
    }

    /// A while of what takes some.
    pub(crate) async fn take_a_while(&self) {
        if self.is_hasty.load(Ordering::Relaxed) {
            return;
        }
        match self.below(8) {
            0..4 => {}
            4 | 5 => tokio::task::yield_now().await,
            most => tokio::time::sleep(Duration::from_millis(self.below(4 * (most - 5)))).await,
        }
    }

    /// Begins work that ends by itself.
    pub(super) fn begin(self: Arc<Self>, work: Box<dyn FnOnce() + Send>) {
        let life = self.life.load(Ordering::Relaxed);
        let simulation = Arc::downgrade(&self);
        self.handle().spawn(async move {
            if let Some(simulation) = simulation.upgrade() {
                simulation.take_a_while().await;
                if simulation.life.load(Ordering::Relaxed) == life {
                    work();
                }
            }
        });
    }

    /// Begins work that waits for tasks.
    pub(super) fn begin_long(self: Arc<Self>, work: Box<dyn FnOnce() + Send>) {
        let job = Arc::new(Job::default());
        lock(&self.jobs).push(Arc::downgrade(&job));
        let (theirs, simulation) = (Arc::clone(&job), Arc::downgrade(&self));
        let begun = super::start::thread("simulated", move || {
            theirs.until(Turn::Job);
            if let Some(simulation) = simulation.upgrade().filter(|_| !theirs.is_ended()) {
                CURRENT.set(Some(Arc::clone(&simulation)));
                JOB.set(Some(Arc::clone(&theirs)));
                let entered = simulation.runtime.enter();
                work();
                drop(entered);
                JOB.set(None);
                CURRENT.set(None);
            }
            theirs.give(Turn::Done);
        });
        begun.expect("a thread");
        self.handle().spawn(std::future::poll_fn(move |cx| job.poll(cx)));
    }
}

/// Whose turn it is to run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Turn {
    #[default]
    Tasks,
    Job,
    Done,
}

/// What unwinds a thread whose process was killed.
struct Ended;

/// A thread that runs while the task that waits for it is polled.
#[derive(Default)]
struct Job {
    turn: Mutex<Turn>,
    turned: Condvar,
    waker: Mutex<Option<Waker>>,
    is_ended: AtomicBool,
}

impl Job {
    fn give(&self, turn: Turn) {
        *lock(&self.turn) = turn;
        self.turned.notify_all();
    }

    fn until(&self, turn: Turn) {
        let turned = self.turned.wait_while(lock(&self.turn), |now| *now != turn);
        drop(turned);
    }

    fn is_ended(&self) -> bool {
        self.is_ended.load(Ordering::Relaxed)
    }

    /// Lets the thread run until it waits.
    fn run(&self) -> Turn {
        if *lock(&self.turn) == Turn::Done {
            return Turn::Done;
        }
        self.give(Turn::Job);
        let turned = self.turned.wait_while(lock(&self.turn), |now| *now == Turn::Job);
        *turned.unwrap_or_else(PoisonError::into_inner)
    }

    fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        *lock(&self.waker) = Some(cx.waker().clone());
        if self.run() == Turn::Done { Poll::Ready(()) } else { Poll::Pending }
    }

    fn end(&self) {
        self.is_ended.store(true, Ordering::Relaxed);
        while self.run() != Turn::Done {}
        if let Some(waker) = lock(&self.waker).take() {
            waker.wake();
        }
    }

    /// Waits for `work`, on the thread of the job.
    fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            let waker = lock(&self.waker).clone().unwrap_or_else(|| Waker::noop().clone());
            if let Poll::Ready(done) = work.as_mut().poll(&mut Context::from_waker(&waker)) {
                return done;
            }
            self.give(Turn::Tasks);
            self.until(Turn::Job);
            if self.is_ended() && !thread::panicking() {
                panic::resume_unwind(Box::new(Ended));
            }
        }
    }
}

/// The clocks of a simulation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct VirtualClock;

impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        let passed = current().map_or(Duration::ZERO, |simulation| simulation.elapsed());
        Timestamp::from_millis(BEGIN_MS + passed.as_millis() as i64)
    }

    fn steady(&self) -> Timestamp {
        self.now()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime;

    /// Two tasks and a thread that wait for each other, and what order they come to.
    fn order(seed: u64) -> Vec<u64> {
        simulate(seed, || {
            let order: Arc<Mutex<Vec<u64>>> = Arc::default();
            for task in 0..4_u64 {
                let noted = Arc::clone(&order);
                runtime::handle().unwrap().spawn(async move {
                    for step in 0..4 {
                        let note = Arc::clone(&noted);
                        let work = move || {
                            lock(&note).push(10 * task + step);
                            Ok(())
                        };
                        runtime::blocking(work).await.unwrap();
                        let note = Arc::clone(&noted);
                        let long = runtime::long_blocking(move || {
                            runtime::nap(Duration::from_millis(2));
                            runtime::block_on(async {
                                tokio::task::yield_now().await;
                                Ok(())
                            })?;
                            lock(&note).push(10 * task + step + 5);
                            Ok(())
                        });
                        long.await.unwrap();
                    }
                });
            }
            current().unwrap().pass(Duration::from_secs(3600));
            assert!(current().unwrap().elapsed() >= Duration::from_secs(3600));
            let order = lock(&order).clone();
            assert_eq!(order.len(), 32);
            order
        })
    }

    #[test]
    fn a_seed_decides_the_order_and_an_hour_passes_at_once() {
        let began = std::time::Instant::now();
        assert_eq!(order(1), order(1));
        assert_ne!(order(1), order(2));
        assert!(began.elapsed() < Duration::from_secs(60));
    }

    #[test]
    fn work_of_a_process_that_was_killed_ends_where_it_waits() {
        simulate(3, || {
            let reached: Arc<Mutex<Vec<&str>>> = Arc::default();
            let note = Arc::clone(&reached);
            let long = runtime::long_blocking(move || {
                lock(&note).push("begun");
                runtime::nap(Duration::from_secs(1));
                lock(&note).push("ended");
                Ok(())
            });
            current().unwrap().pass(Duration::from_millis(10));
            current().unwrap().kill();
            current().unwrap().pass(Duration::from_secs(10));
            assert_eq!(*lock(&reached), ["begun"]);
            drop(long);
        });
    }
}
