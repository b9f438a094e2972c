//! The host's signals. Threads of ours take none, so that no handler of the host's runs on them, and what
//! we write on a thread of the host's raises none.
//!
//! `sqlite`, the room that may call the system for it, says by [`install`] how signals are blocked. Before
//! that, which is before the library is loaded, nothing is blocked.

use std::any::Any;
use std::sync::OnceLock;

/// Blocks signals in the calling thread until the answer is dropped, in the same thread.
pub type Block = fn() -> Box<dyn Any>;

/// How signals are blocked.
#[derive(Debug)]
pub struct Blocks {
    /// All that can be.
    pub all: Block,
    /// `SIGPIPE`; one that is raised in the meantime is taken back.
    pub broken_pipes: Block,
}

static BLOCKS: OnceLock<Blocks> = OnceLock::new();

/// Signals are blocked until this is dropped.
#[must_use]
pub struct Blocked {
    _until: Option<Box<dyn Any>>,
}

/// Says how signals are blocked. The first call counts.
pub fn install(blocks: Blocks) {
    let _ = BLOCKS.set(blocks);
}

/// Blocks all signals in the calling thread. A thread that is started meanwhile blocks them for good.
pub fn block_all() -> Blocked {
    Blocked { _until: BLOCKS.get().map(|blocks| (blocks.all)()) }
}

/// Nothing that the calling thread writes raises `SIGPIPE`.
pub fn block_broken_pipes() -> Blocked {
    Blocked { _until: BLOCKS.get().map(|blocks| (blocks.broken_pipes)()) }
}
