//! Opens of our own: what the thread that makes one must not do.

use std::cell::Cell;

thread_local! {
    /// Whether this thread is opening a connection of our own.
    static INTERNAL: Cell<bool> = const { Cell::new(false) };
}

/// Runs `open`, which opens a connection of our own: our auto-extension does nothing on it.
pub(super) fn internally<T>(open: impl FnOnce() -> T) -> T {
    let _opening = Opening::begin();
    open()
}

/// Whether this thread is inside [`internally`].
pub(super) fn is_internal() -> bool {
    INTERNAL.get()
}

/// Marks this thread until it is dropped.
struct Opening {
    before: bool,
}

impl Opening {
    fn begin() -> Self {
        Self { before: INTERNAL.replace(true) }
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        INTERNAL.set(self.before);
    }
}
