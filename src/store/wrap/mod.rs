//! Wrappers: buckets around a bucket. Each forwards every method, which the compiler holds it to.

mod backoff;
mod counted;
mod download;
mod faults;
mod hedge;
mod meter;
mod retry;

pub use backoff::RetryPolicy;
pub use counted::Counted;
pub use faults::{Fault, Faults, Op};
pub use meter::Meter;
pub use retry::Retry;
