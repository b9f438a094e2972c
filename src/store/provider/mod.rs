//! Providers, one folder each: how a place in a store is found, and the bucket that it is.

pub(super) mod file;
pub(super) mod memory;
pub(super) mod s3;
