//! What a fork must not come in the middle of, and what a forked child must not take over.
//!
//! A forked child has only the thread that forked. What other threads had locked at that moment, such as
//! SQLite's own mutexes or standard error, stays locked in it for ever. So threads of ours enter a section
//! while they use such things, and a fork waits until they have left it. What may be locked for longer is
//! [`PerProcess`]: a child begins with its own. `sqlite` has the host's forks call [`begins`],
//! [`ends_in_parent`] and [`ends_in_child`].

use std::cell::Cell;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A fork does not wait longer than this: the host's thread may hold what a section waits for.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long each side sleeps between two looks.
const NAP: Duration = Duration::from_micros(100);

/// What keeps forks and sections apart.
#[derive(Debug)]
struct Gate {
    /// Forks that are under way.
    forks: AtomicUsize,
    /// Threads that are in a section.
    inside: AtomicUsize,
}

static GATE: Gate = Gate::new();

thread_local! {
    /// How many sections this thread is in.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// A section, which ends when it is dropped.
#[derive(Debug)]
#[must_use]
pub struct Section {
    gate: &'static Gate,
    /// It ends in the thread in which it began.
    _thread: PhantomData<*const ()>,
}

impl Drop for Section {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get() - 1);
        if DEPTH.get() == 0 {
            self.gate.inside.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// This thread is in a section.
fn is_inside() -> usize {
    usize::from(DEPTH.get() > 0)
}

impl Gate {
    const fn new() -> Self {
        Self { forks: AtomicUsize::new(0), inside: AtomicUsize::new(0) }
    }

    fn section(&'static self) -> Section {
        if DEPTH.replace(DEPTH.get() + 1) == 0 {
            loop {
                self.inside.fetch_add(1, Ordering::SeqCst);
                if self.forks.load(Ordering::SeqCst) == 0 {
                    break;
                }
                self.inside.fetch_sub(1, Ordering::SeqCst);
                std::thread::sleep(NAP);
            }
        }
        Section { gate: self, _thread: PhantomData }
    }

    fn begins(&self, patience: Duration) {
        self.forks.fetch_add(1, Ordering::SeqCst);
        let deadline = Instant::now() + patience;
        while self.inside.load(Ordering::SeqCst) > is_inside() && Instant::now() < deadline {
            std::thread::sleep(NAP);
        }
    }

    fn ends_in_parent(&self) {
        self.forks.fetch_sub(1, Ordering::SeqCst);
    }

    fn ends_in_child(&self) {
        self.forks.store(0, Ordering::SeqCst);
        self.inside.store(is_inside(), Ordering::SeqCst);
    }
}

/// Begins a section, after a fork that is under way.
pub fn section() -> Section {
    GATE.section()
}

/// The calling thread is about to fork: waits for the sections of the others, and keeps new ones off.
pub fn begins() {
    GATE.begins(PATIENCE);
}

/// The fork is done, in the parent.
pub fn ends_in_parent() {
    GATE.ends_in_parent();
}

/// The fork is done, in the child, where no other thread is.
pub fn ends_in_child() {
    FORKS.fetch_add(1, Ordering::Relaxed);
    GATE.ends_in_child();
}

/// How many forks lie between the process that loaded the library and this one.
static FORKS: AtomicU32 = AtomicU32::new(0);

/// Whether this process is a forked child of one that loaded the library.
pub fn is_child() -> bool {
    FORKS.load(Ordering::Relaxed) > 0
}

/// Descriptors that a forked child closes at once; -1 where there is none.
static CLOSED_IN_CHILD: [AtomicI32; 512] = [const { AtomicI32::new(-1) }; 512];

/// A descriptor that forked children close at once, as long as this is kept: of a socket that somebody else would take for
/// one that is still in use, such as a listener. To be dropped before the descriptor is closed.
#[derive(Debug)]
pub struct ClosedInChild(Option<&'static AtomicI32>);

impl ClosedInChild {
    /// That of `descriptor`. Where there is no place for it, a child keeps it open.
    pub fn of(descriptor: &impl AsRawFd) -> Self {
        let fd = descriptor.as_raw_fd();
        let take =
            |place: &&AtomicI32| place.compare_exchange(-1, fd, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        Self(CLOSED_IN_CHILD.iter().find(take))
    }
}

impl Drop for ClosedInChild {
    fn drop(&mut self) {
        if let Some(place) = self.0 {
            place.store(-1, Ordering::SeqCst);
        }
    }
}

/// In a forked child: the descriptors that it is to close, each once.
pub fn closed_in_child() -> impl Iterator<Item = RawFd> {
    CLOSED_IN_CHILD.iter().map(|place| place.swap(-1, Ordering::SeqCst)).filter(|fd| *fd >= 0)
}

/// The process in which something was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Maker {
    forks: u32,
    pid: u32,
}

impl Maker {
    /// This process.
    pub fn here() -> Self {
        Self { forks: FORKS.load(Ordering::Relaxed), pid: std::process::id() }
    }

    /// Whether it is this process, and not one that this one was forked from. Makes no system call.
    pub fn is_here(self) -> bool {
        self.forks == FORKS.load(Ordering::Relaxed)
    }

    /// The process id.
    pub fn pid(self) -> u32 {
        self.pid
    }
}

/// A value that each process has for itself. A forked child gets a new one at its first use, whatever its
/// parent's threads did with theirs at the moment of the fork; the parent's is left as it was, never dropped.
#[derive(Debug)]
pub struct PerProcess<T>(OnceLock<Box<Own<T>>>);

/// The value of one process, and those of its descendants.
#[derive(Debug)]
struct Own<T> {
    forks: u32,
    value: T,
    next: PerProcess<T>,
}

impl<T: Default> Default for PerProcess<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Default> PerProcess<T> {
    /// No value yet.
    pub const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// The value of this process, made now if there is none.
    pub fn get(&self) -> &T {
        let forks = FORKS.load(Ordering::Relaxed);
        let mut place = self;
        loop {
            let own = place.0.get().map_or_else(|| place.make(forks), Box::as_ref);
            if own.forks == forks {
                return &own.value;
            }
            place = &own.next;
        }
    }

    fn make(&self, forks: u32) -> &Own<T> {
        let _section = section();
        self.0.get_or_init(|| Box::new(Own { forks, value: T::default(), next: Self::new() }))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_value_of_a_process_is_made_once_and_kept() {
        static VALUE: PerProcess<AtomicU32> = PerProcess::new();
        VALUE.get().store(7, Ordering::Relaxed);
        assert_eq!(VALUE.get().load(Ordering::Relaxed), 7);
        assert!(Maker::here().is_here() && Maker::here().pid() == std::process::id());
    }

    #[test]
    fn a_fork_waits_for_sections_and_sections_for_a_fork() {
        static GATE: Gate = Gate::new();
        let (entered, has_entered) = mpsc::channel();
        let left = std::sync::Arc::new(AtomicUsize::new(0));
        let thread = std::thread::spawn({
            let left = std::sync::Arc::clone(&left);
            move || {
                let outer = GATE.section();
                let inner = GATE.section();
                drop(inner);
                entered.send(()).unwrap();
                let deadline = Instant::now() + Duration::from_secs(60);
                while GATE.forks.load(Ordering::SeqCst) == 0 {
                    assert!(Instant::now() < deadline, "no fork begins");
                    std::thread::sleep(NAP);
                }
                left.store(1, Ordering::SeqCst);
                drop(outer);
                // Until the fork ends.
                drop(GATE.section());
                left.store(2, Ordering::SeqCst);
            }
        });
        has_entered.recv().unwrap();
        GATE.begins(Duration::from_secs(60));
        assert_eq!(left.load(Ordering::SeqCst), 1);
        GATE.ends_in_parent();
        thread.join().unwrap();
        assert_eq!((left.load(Ordering::SeqCst), GATE.forks.load(Ordering::SeqCst)), (2, 0));
    }
}
