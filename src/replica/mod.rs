//! The read flow: plan, snapshot, follower, page cache.
