//! Providers, one folder each: how a place in a store is found, and the bucket that it is.

pub(super) mod abs;
pub(super) mod file;
pub(super) mod gcs;
pub(super) mod memory;
pub(super) mod nats;
pub(super) mod oss;
pub(super) mod s3;
pub(super) mod sftp;
pub(super) mod webdav;

use super::site::Provider;

/// Every provider. One more is its folder and its line here.
pub static PROVIDERS: &[&Provider] = &[
    &s3::PROVIDER,
    &file::PROVIDER,
    &gcs::PROVIDER,
    &abs::PROVIDER,
    &oss::PROVIDER,
    &webdav::PROVIDER,
    &sftp::PROVIDER,
    &nats::PROVIDER,
];
