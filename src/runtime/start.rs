//! Threads of our own, which a system may refuse.

use std::io;
use std::os::unix::net::UnixStream;
use std::thread::{self, JoinHandle};

use crate::error::{Error, ErrorKind};
use crate::signals;

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

/// Pairs of sockets for as many descriptors as tokio opens for itself: its two queues of the system's, and what its signals
/// come by.
const PAIRS: usize = 4;

/// Whether tokio's descriptors can be had: it panics without those for signals.
///
/// # Errors
/// Those of the system.
pub(super) fn probe_descriptors() -> io::Result<()> {
    (0..PAIRS).map(|_| UnixStream::pair()).collect::<io::Result<Vec<_>>>().map(drop)
}

/// The error of a call that needs the runtime, which the system refuses to start.
pub(super) fn not_started(refused: io::Error) -> Error {
    match refused.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE) => Error::io("the system refuses to open another file", refused),
        _ => no_thread(refused),
    }
}

/// The error of a call that needs a thread which the system refuses.
pub fn no_thread(refused: io::Error) -> Error {
    let message = format!(
        "the system refuses to start a thread ({refused}): raise the limit of processes and threads (the pids limit \
         of the container, or ulimit -u)"
    );
    Error::new(ErrorKind::Io, message).with_source(refused)
}
