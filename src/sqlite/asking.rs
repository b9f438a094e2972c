//! PRAGMAs of our own that run inside a method of a file, which must not be called again meanwhile.

use std::cell::Cell;

thread_local! {
    static ASKING: Cell<bool> = const { Cell::new(false) };
}

/// Marks this thread until it is dropped.
pub(super) struct Asking {
    before: bool,
}

impl Asking {
    pub(super) fn begin() -> Self {
        Self { before: ASKING.replace(true) }
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        ASKING.set(self.before);
    }
}

/// Whether a PRAGMA of which a file is told is our own, inside another method of that file.
pub(super) fn is_asking() -> bool {
    ASKING.get()
}
