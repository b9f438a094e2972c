//! Threads of our own, which a system may refuse.

use std::io;
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

/// The error of a call that needs a thread which the system refuses.
pub fn no_thread(refused: io::Error) -> Error {
    let message = format!(
        "the system refuses to start a thread ({refused}): raise the limit of processes and threads (the pids limit \
         of the container, or ulimit -u)"
    );
    Error::new(ErrorKind::Io, message).with_source(refused)
}
