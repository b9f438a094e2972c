//! Which signals a thread takes.

use std::any::Any;
use std::mem::MaybeUninit;

use crate::signals::{self, Blocks};

/// Lets the library block signals.
pub(super) fn install() {
    signals::install(Blocks {
        all: || Box::new(Mask::block(&all())),
        broken_pipes: || -> Box<dyn Any> { Box::new(BrokenPipes::block()) },
    });
}

/// The mask that a thread had; it has it again when this is dropped.
struct Mask {
    before: libc::sigset_t,
}

impl Mask {
    /// Adds `signals` to those that the calling thread blocks.
    fn block(signals: &libc::sigset_t) -> Self {
        let mut before = none();
        // SAFETY: both sets are initialised; the call fails for no other reason than a wrong number.
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, signals, &raw mut before) };
        Self { before }
    }
}

impl Drop for Mask {
    fn drop(&mut self) {
        // SAFETY: the set is one that the system gave.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, std::ptr::null_mut()) };
    }
}

/// `SIGPIPE` is blocked, and what is raised meanwhile is taken back before it is let through again. One that
/// was pending before stays so.
struct BrokenPipes {
    was_pending: bool,
    _mask: Mask,
}

impl BrokenPipes {
    fn block() -> Self {
        Self { was_pending: is_pending(), _mask: Mask::block(&broken_pipe()) }
    }
}

impl Drop for BrokenPipes {
    fn drop(&mut self) {
        if !self.was_pending && is_pending() {
            take(&broken_pipe());
        }
    }
}

/// Takes a pending signal of the set, if there is one still.
#[cfg(target_os = "linux")]
fn take(signals: &libc::sigset_t) {
    let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the set is initialised, nothing is to be told of the signal, and the time is no time.
    unsafe { libc::sigtimedwait(signals, std::ptr::null_mut(), &raw const now) };
}

#[cfg(not(target_os = "linux"))]
fn take(signals: &libc::sigset_t) {
    let mut taken = 0;
    // SAFETY: the set is initialised. The signal is pending for this thread, so this does not wait.
    unsafe { libc::sigwait(signals, &raw mut taken) };
}

fn is_pending() -> bool {
    let mut pending = none();
    // SAFETY: the set is ours.
    unsafe { libc::sigpending(&raw mut pending) };
    // SAFETY: the set is initialised, and the number is a signal's.
    unsafe { libc::sigismember(&raw const pending, libc::SIGPIPE) == 1 }
}

fn none() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: the call initialises the set.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        set.assume_init()
    }
}

fn all() -> libc::sigset_t {
    let mut set = none();
    // SAFETY: the set is initialised. Those that cannot be blocked are left out by the system.
    unsafe { libc::sigfillset(&raw mut set) };
    set
}

fn broken_pipe() -> libc::sigset_t {
    let mut set = none();
    // SAFETY: the set is initialised, and the number is a signal's.
    unsafe { libc::sigaddset(&raw mut set, libc::SIGPIPE) };
    set
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::runtime;

    /// The signals that a thread blocks, as the system says.
    fn blocked() -> u64 {
        let status = fs::read_to_string("/proc/thread-self/status").unwrap();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap();
        u64::from_str_radix(mask.trim(), 16).unwrap()
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn our_threads_block_all_and_the_others_what_they_did() {
        install();
        let before = blocked();
        // SIGKILL and SIGSTOP cannot be blocked; 32 and 33 are the C library's own.
        let all = !(1_u64 << 8 | 1 << 18 | 1 << 31 | 1 << 32);
        let ours = runtime::thread("of-a-test", blocked).unwrap().join().unwrap();
        assert_eq!(format!("{ours:x}"), format!("{all:x}"));
        assert_eq!(blocked(), before);
    }

    #[test]
    fn a_broken_pipe_is_an_error_and_no_signal() {
        install();
        // The test's own process ignores the signal: then none is pending either.
        // SAFETY: the default action of a signal that this thread blocks.
        let before = unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let blocked = signals::block_broken_pipes();
        let outcome = std::io::Write::write(&mut &writer, b"x").unwrap_err();
        assert!(is_pending());
        drop(blocked);
        assert!(!is_pending());
        assert_eq!(outcome.kind(), std::io::ErrorKind::BrokenPipe);
        // SAFETY: what was before.
        unsafe { libc::signal(libc::SIGPIPE, before) };
    }
}
