//! The asynchronous runtime: started at first use, once per process id.
//!
//! Threads do not survive `fork`. A child that inherits a started runtime finds its threads gone, so
//! the runtime is keyed by process id: a child leaves the parent's where it is and starts its own.

use std::future::Future;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};

use crate::error::{Error, ErrorKind, Result};
use crate::signals;

/// Asynchronous work is waiting, not computing: two threads serve any number of databases.
const WORKERS: usize = 2;
/// Blocking work (files, encoding) beyond this waits its turn.
const MAX_BLOCKING: usize = 8;
/// A blocking thread without work ends after this, so that an idle process is quiet.
const BLOCKING_KEEP_ALIVE: Duration = Duration::from_secs(10);

/// How soon the end of a wait is noticed.
const GLANCE: Duration = Duration::from_millis(50);

static CURRENT: Mutex<Option<(u32, Runtime)>> = Mutex::new(None);

/// A handle on this process's runtime, started now if it is not running.
///
/// # Errors
/// `Io` if the system refuses to start threads.
pub fn handle() -> Result<Handle> {
    let pid = std::process::id();
    let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((owner, runtime)) = &*current
        && *owner == pid
    {
        return Ok(runtime.handle().clone());
    }
    let _blocked = signals::block_all();
    let runtime = Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(MAX_BLOCKING)
        .thread_keep_alive(BLOCKING_KEEP_ALIVE)
        .thread_name("litestream")
        .enable_all()
        .build()
        .map_err(|e| Error::io("cannot start the background threads", e))?;
    let handle = runtime.handle().clone();
    if let Some((_, inherited)) = current.replace((pid, runtime)) {
        // Its threads live in the parent: dropping it here would wait for them for ever.
        std::mem::forget(inherited);
    }
    Ok(handle)
}

/// Starts a thread of our own for `work`. Like those of the runtime, which start others only from threads of
/// their own, it takes no signal of the host's.
///
/// # Errors
/// Those of the system, if there is no thread to be had.
pub fn thread<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    let _blocked = signals::block_all();
    thread::Builder::new().name(format!("litestream-{name}")).spawn(work)
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
    match runtime.block_on(task) {
        Ok(result) => result,
        Err(e) => Err(Error::new(ErrorKind::Interrupted, format!("background work ended early: {e}"))),
    }
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
        match runtime.block_on(glance) {
            Ok(Ok(result)) => return result,
            Ok(Err(e)) => {
                return Err(Error::new(ErrorKind::Io, format!("background work ended early: {e}")));
            }
            Err(_) if interrupted() => {
                task.abort();
                return Err(Error::new(ErrorKind::Interrupted, "interrupted"));
            }
            Err(_) => {}
        }
    }
}
