//! The read flow: plan, snapshot, follower, page cache.
//!
//! [`open`] gives the [`Core`] that all connections of the process share. Each connection has a
//! [`View`], which holds on to one [`Snapshot`] during a transaction.
//!
//! | file | what it does |
//! | --- | --- |
//! | `plan` | which files make the database at a point |
//! | `source` | listings, headers and ranges, counted |
//! | `pace` | how the store answers, as measured |
//! | `load` | header and page index of one file |
//! | `map` | where each page is |
//! | `files` | maps from plans, and from other plans after compaction |
//! | `snapshot` | one state of the database |
//! | `cache`, `fetch` | pages in memory; pages from the store |
//! | `read_ahead` | how much is read at once |
//! | `follow` | what is new |
//! | `core`, `shared` | all of these together; one per replica and process |
//! | `history` | the points that can be restored |
//! | `past` | other states than the latest |
//! | `view` | one connection |

mod cache;
mod core;
mod fetch;
mod files;
mod follow;
mod history;
mod load;
mod map;
mod pace;
mod past;
mod plan;
mod read_ahead;
mod shared;
mod snapshot;
mod source;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod view;

pub use core::{Core, Options, ReplicaStatus};
pub use history::{HistoryPoint, Wanted, describe, points};
pub use plan::{Plan, RestorePoint};
pub use read_ahead::ReadAhead;
pub use shared::open;
pub use snapshot::Snapshot;
pub use view::{Seen, View};

pub(crate) use load::read_index;
pub(crate) use plan::empty;
pub(crate) use source::{Body, Source, check_name, wrong_length};
