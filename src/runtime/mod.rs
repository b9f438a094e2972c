//! The asynchronous runtime: started at first use, once per process.
//!
//! Threads do not survive `fork`. A child that inherits a started runtime finds its threads gone, so
//! it leaves the parent's where it is and starts its own.
//!
//! A system that refuses to start threads, or to open files, makes an error of each call that needs one, and no panic: tokio
//! is asked for its own after as many were to be had.

mod pool;
mod run;
#[cfg(test)]
pub(crate) mod simulated;
mod start;

use std::any::Any;
use std::fs::File;
use std::future::Future;
use std::io;
use std::panic;
use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinError;

use crate::error::{Error, ErrorKind, Result};
use crate::fork::PerProcess;
use crate::signals;
pub use run::run;
pub use start::{no_thread, thread};

/// Asynchronous work is waiting, not computing: two threads serve any number of databases.
const WORKERS: usize = 2;
/// Threads of tokio's beside these: they stand in for a worker that is [`busy`].
const MAX_BLOCKING: usize = 8;
/// One without work ends after this, so that an idle process is quiet.
const BLOCKING_KEEP_ALIVE: Duration = Duration::from_secs(10);
/// The system counts a thread for a moment after its end. Longer than this it is not waited for.
const PROBE_PATIENCE: Duration = Duration::from_secs(1);

/// How soon the end of a wait is noticed.
const GLANCE: Duration = Duration::from_millis(50);

static CURRENT: PerProcess<Mutex<Option<Runtime>>> = PerProcess::new();

/// A handle on this process's runtime, started now if it is not running.
///
/// # Errors
/// `Io` if the system refuses to start threads, or to open files.
pub fn handle() -> Result<Handle> {
    #[cfg(test)]
    if let Some(simulation) = simulated::current() {
        return Ok(simulation.handle());
    }
    let mut current = CURRENT.get().lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(runtime) = &*current {
        return Ok(runtime.handle().clone());
    }
    let _blocked = signals::block_all();
    let threads = pool::SHORT.get().keep_one().and_then(|()| pool::LONG.get().keep_one());
    threads
        .and_then(|()| probe(WORKERS))
        .and_then(|()| start::probe_descriptors())
        .map_err(start::not_started)?;
    // Somebody else may take the threads or descriptors in between.
    let runtime = panic::catch_unwind(build)
        .unwrap_or_else(|_| Err(io::ErrorKind::WouldBlock.into()))
        .map_err(start::not_started)?;
    Ok(current.insert(runtime).handle().clone())
}

fn build() -> io::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(MAX_BLOCKING)
        .thread_keep_alive(BLOCKING_KEEP_ALIVE)
        .thread_name("litestream")
        .enable_all()
        .build()
}

/// Whether `count` threads can be had at the same time: tokio panics without its first.
fn probe(count: usize) -> io::Result<()> {
    let (mut gates, mut threads) = (Vec::new(), Vec::new());
    let probed = (0..count).try_for_each(|_| {
        let (gate, opens) = mpsc::channel::<()>();
        threads.push(thread("work", move || {
            let _ = opens.recv();
            std::fs::read_link("/proc/thread-self").ok()
        })?);
        gates.push(gate);
        Ok(())
    });
    drop(gates);
    for thread in threads {
        if let Ok(Some(task)) = thread.join() {
            wait_until_gone(&Path::new("/proc").join(task));
        }
    }
    probed
}

/// Waits until the system has forgotten the thread that is `task` in `/proc`.
fn wait_until_gone(task: &Path) {
    let deadline = Instant::now() + PROBE_PATIENCE;
    while task.exists() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_micros(100));
    }
}

/// Begins `work`, which ends by itself, off the asynchronous threads. A panic of it is one of the task that waits.
///
/// # Errors
/// Those of `work`; `Io` if there is no thread to be had.
pub fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> impl Future<Output = Result<T>> + Send + 'static {
    pool::SHORT.get().run(work)
}

/// The same for `work` that itself waits for tasks of the runtime.
///
/// # Errors
/// As [`blocking`].
pub fn long_blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> impl Future<Output = Result<T>> + Send + 'static {
    pool::LONG.get().run(work)
}

/// Waits for `work` of the `runtime` on a thread that is none of its own.
pub fn wait_on<T>(runtime: &Handle, work: impl Future<Output = T>) -> T {
    #[cfg(test)]
    if let Some(simulation) = simulated::current() {
        return simulation.wait(work);
    }
    runtime.block_on(work)
}

/// Waits at most `timeout` until `news` is told of what `held`, a guard of `mutex`, guards; or, at times, not so long.
pub fn wait_for_news<'a, T>(
    news: &Condvar,
    mutex: &'a Mutex<T>,
    held: MutexGuard<'a, T>,
    timeout: Duration,
) -> MutexGuard<'a, T> {
    #[cfg(test)]
    if let Some(simulation) = simulated::current() {
        drop(held);
        simulation.glance(timeout);
        return mutex.lock().unwrap_or_else(PoisonError::into_inner);
    }
    let _ = mutex;
    news.wait_timeout(held, timeout).unwrap_or_else(PoisonError::into_inner).0
}

/// Has what `file`, which is at `path`, holds on the disk.
///
/// # Errors
/// Those of the system.
pub fn sync_data(file: &File, path: &Path) -> io::Result<()> {
    #[cfg(test)]
    if let Some(simulation) = simulated::current() {
        simulation.note_synced(path);
    }
    let _ = path;
    file.sync_data()
}

/// A random number of the system.
///
/// # Errors
/// The system gives none.
pub fn random_u64() -> std::result::Result<u64, getrandom::Error> {
    #[cfg(test)]
    if let Some(simulation) = simulated::current() {
        return Ok(simulation.random());
    }
    getrandom::u64()
}

/// Lets the calling thread, which is none of the runtime's, sleep.
pub fn nap(time: Duration) {
    #[cfg(test)]
    if let Some(simulation) = simulated::current() {
        return simulation.pass(time);
    }
    std::thread::sleep(time);
}

/// The error of one who waits for background work that did not end by itself.
fn ended_early(e: JoinError) -> Error {
    match e.try_into_panic() {
        Ok(panic) => bug(&*panic),
        Err(e) => Error::new(ErrorKind::Interrupted, format!("background work ended early: {e}")),
    }
}

/// The error of work of ours that panicked.
pub fn bug(panic: &(dyn Any + Send)) -> Error {
    let what = panic.downcast_ref::<&str>().copied();
    let what = what.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
    Error::new(ErrorKind::Io, format!("a bug in litestream_vfs, please report it: {what}"))
}

/// Does `work` on this thread. If it `is_long`, keeping the thread busy for more than a moment, the
/// runtime's tasks on the same thread go on elsewhere.
pub fn busy<T>(is_long: bool, work: impl FnOnce() -> T) -> T {
    if is_long { tokio::task::block_in_place(work) } else { work() }
}

/// Runs `work` on the runtime and waits for it on the calling thread.
///
/// # Errors
/// Those of `work`, and `Io` if the runtime cannot be started.
pub fn block_on<T, F>(work: F) -> Result<T>
where
    T: Send + 'static,
    F: Future<Output = Result<T>> + Send + 'static,
{
    let runtime = handle()?;
    let task = runtime.spawn(work);
    wait_on(&runtime, task).unwrap_or_else(|e| Err(ended_early(e)))
}

/// Runs `work` on the runtime and waits for it on the calling thread. As soon as `interrupted` says so, it is dropped.
///
/// # Errors
/// Those of `work`; `Interrupted`; `Io` if the runtime cannot be started or `work` panics.
pub fn wait_for<T, F>(interrupted: impl Fn() -> bool, work: F) -> Result<T>
where
    T: Send + 'static,
    F: Future<Output = Result<T>> + Send + 'static,
{
    let runtime = handle()?;
    let mut task = runtime.spawn(work);
    loop {
        let glance = async { tokio::time::timeout(GLANCE, &mut task).await };
        match wait_on(&runtime, glance) {
            Ok(Ok(result)) => return result,
            Ok(Err(e)) => return Err(ended_early(e)),
            Err(_) if interrupted() => {
                task.abort();
                return Err(Error::new(ErrorKind::Interrupted, "interrupted"));
            }
            Err(_) => {}
        }
    }
}
