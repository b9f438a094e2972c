//! Waiting that ends when the application interrupts its connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use super::start::{no_thread, thread};
use crate::error::{Error, ErrorKind, Result};

/// How soon an interrupt is noticed.
const GLANCE: Duration = Duration::from_millis(50);
/// How long work that was told to stop is waited for.
const GRACE: Duration = Duration::from_secs(1);

/// Runs `work`, which blocks, on a thread of its own and waits until it ends. What it is given becomes
/// true as soon as `interrupted` says so; then it should end soon and leave nothing behind. If it does
/// not, because a server is silent, it is left to end by itself.
///
/// # Errors
/// Those of `work`; `Interrupted`; `Io` if there is no thread to be had.
pub fn run<T, F>(interrupted: impl Fn() -> bool, work: F) -> Result<T>
where
    T: Send + 'static,
    F: FnOnce(Arc<AtomicBool>) -> Result<T> + Send + 'static,
{
    let (done, result) = sync_channel(1);
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    thread("work", move || {
        // Nobody takes it any more if it was left to end by itself.
        let _ = done.send(work(stopped));
    })
    .map_err(no_thread)?;
    let mut leave_at = None;
    loop {
        match result.recv_timeout(GLANCE) {
            Ok(result) => return result,
            Err(RecvTimeoutError::Timeout) if leave_at.is_some_and(|at| Instant::now() >= at) => {
                return Err(interruption());
            }
            Err(RecvTimeoutError::Timeout) => {
                if leave_at.is_none() && interrupted() {
                    stop.store(true, Ordering::Relaxed);
                    leave_at = Some(Instant::now() + GRACE);
                }
            }
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Error::new(ErrorKind::Io, "a bug in litestream_vfs, please report it"));
            }
        }
    }
}

fn interruption() -> Error {
    Error::new(ErrorKind::Interrupted, "interrupted")
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::thread;

    use super::*;
    use crate::runtime::wait_for;

    /// Says at the third time that it is interrupted.
    fn third() -> impl Fn() -> bool {
        let asked = Cell::new(0);
        move || {
            asked.set(asked.get() + 1);
            asked.get() >= 3
        }
    }

    #[test]
    fn work_that_ends_gives_its_result() {
        assert_eq!(wait_for(|| false, async { Ok(7) }).unwrap(), 7);
        assert_eq!(run(|| false, |_| Ok(7)).unwrap(), 7);
        let denied = || Error::new(ErrorKind::Denied, "no");
        assert_eq!(
            wait_for::<(), _>(|| false, async move { Err(denied()) }).unwrap_err().kind(),
            ErrorKind::Denied
        );
        assert_eq!(run::<(), _>(|| false, move |_| Err(denied())).unwrap_err().kind(), ErrorKind::Denied);
    }

    #[test]
    fn an_interrupt_ends_work_that_would_not_end() {
        let never = wait_for::<(), _>(third(), std::future::pending());
        assert_eq!(never.unwrap_err().kind(), ErrorKind::Interrupted);
        let stopped = run::<(), _>(third(), |stop| {
            while !stop.load(Ordering::Relaxed) {
                thread::yield_now();
            }
            Err(Error::new(ErrorKind::Interrupted, "stopped"))
        });
        assert_eq!(stopped.unwrap_err().to_string(), "stopped");
    }

    #[test]
    fn work_that_does_not_stop_is_left() {
        let (end, ended) = sync_channel::<()>(0);
        let left = run::<(), _>(
            || true,
            move |_| {
                let _ = ended.recv();
                Ok(())
            },
        );
        assert_eq!(left.unwrap_err().kind(), ErrorKind::Interrupted);
        drop(end);
    }

    #[test]
    fn a_panic_of_the_work_is_an_error() {
        assert_eq!(
            run::<(), _>(|| false, |_| panic!("expected in this test")).unwrap_err().kind(),
            ErrorKind::Io
        );
        let panicking = wait_for::<(), _>(|| false, async { panic!("expected in this test") });
        assert_eq!(panicking.unwrap_err().kind(), ErrorKind::Io);
    }
}
