//! The read flow: plan, snapshot, follower, page cache.

mod plan;

pub use plan::{Plan, RestorePoint};
