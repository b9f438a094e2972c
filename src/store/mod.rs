//! Object stores: where the LTX files of one replica are. Never knows SQLite.
//!
//! A [`Location`] is what a replica URL says, by one of [`PROVIDERS`]. Connected, it is a [`Replica`]: a [`Bucket`], which
//! is what a provider can do with strings for keys, a root in it and a [`Layout`], which knows LTX names. Wrappers
//! ([`Retry`], [`Meter`], [`Counted`], [`Faults`]) are buckets around a bucket.

mod auth;
mod bucket;
mod clock;
mod errors;
mod fence;
mod folders;
mod http;
mod identity;
mod layout;
mod location;
mod part_log;
mod paths;
mod provider;
mod replica;
mod requests;
mod setting;
mod site;
mod spelling;
#[cfg(test)]
mod tests;
mod wrap;

pub use bucket::{
    Bucket, ByteRange, Content, Fencing, Inode, Next, ObjectInfo, Page, Place, PutOptions, Taken, Upload,
};
pub use clock::StoreTime;
pub use http::notify::{Notification, host_of, notify};
pub use http::{LongTurn, Work};
pub use identity::ReplicaIdentity;
pub use layout::{Layout, may_have_pack};
pub use location::{Location, without_secrets};
pub use part_log::PartLog;
pub use provider::PROVIDERS;
pub use provider::memory::MemoryStore;
pub use replica::{FileInfo, Listing, RawInfo, Replica};
pub use requests::{Counted as CountedRequests, Operation, Requests, of_process as requests_of_process};
pub use setting::{Secret, Settings, StoreKind, StoreSetting};
pub use site::{Lookup, Opening, Provider, SameSite, Site, Source};
pub use spelling::{in_local_state, stored_url};
pub use wrap::{Counted, Fault, Faults, Meter, Op, Retry, RetryPolicy};
