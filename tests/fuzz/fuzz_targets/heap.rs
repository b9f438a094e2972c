//! A heap of 16 MB, so that lengths that the input lies about cannot be believed unnoticed.

use std::alloc::System;
use std::panic;

use cap::Cap;

#[global_allocator]
static HEAP: Cap<System> = Cap::new(System, 16 << 20);

/// Lifts the limit when a target panics: its message and backtrace take more, and an allocation that fails
/// while they are printed hangs the process, which the fuzzer then reports as a timeout.
pub fn limit_until_panic() {
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        HEAP.set_limit(usize::MAX).expect("more than is in use");
        report(info);
    }));
}
