//! The normal end of the process: the end of `main`, or `exit`.

use std::sync::Once;

use super::log;

/// Has `work` done when the process ends normally. Only the first one that is given is done.
pub(super) fn at_exit(work: fn()) {
    static WORK: std::sync::OnceLock<fn()> = std::sync::OnceLock::new();
    static ONCE: Once = Once::new();
    extern "C" fn run() {
        if let Some(work) = WORK.get() {
            log::guard_value("exit", (), work);
        }
    }
    let _ = WORK.set(work);
    ONCE.call_once(|| {
        // SAFETY: the handler stays where it is, because the library is never unloaded, and does not panic.
        if unsafe { libc::atexit(run) } != 0 {
            tracing::warn!(
                "what is unsent when the process ends is sent after the next open only: atexit failed"
            );
        }
    });
}
