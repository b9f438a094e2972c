//! The read flow: plan, snapshot, follower, page cache.
//!
//! [`open`] gives the [`Core`] that all connections of the process share. Each connection has a
//! [`View`], which holds on to one [`Snapshot`] during a transaction.
//!
//! | file | what it does |
//! | --- | --- |
//! | `plan` | which files make the database at a point |
//! | `source` | listings, headers and ranges, counted |
//! | `pace`, `bandwidth` | how the store answers, as measured; how much it may send |
//! | `load` | header and page index of one file |
//! | `map` | where each page is |
//! | `files` | maps from plans, and from other plans after compaction |
//! | `schema` | the schema cookie that a connection is shown |
//! | `pages`, `relocation`, `keep` | a page of a state; where it goes when files are merged; what is kept of them |
//! | `pack` | pages of a large file that a primary put beside it |
//! | `hydration`, `hydrate` | the whole database in a local file; the task that downloads it |
//! | `verdict` | whether a file passed its checksum |
//! | `snapshot` | one state of the database |
//! | `cache`, `disk`, `fetch` | pages in memory; on disk; from the store |
//! | `span`, `flight` | which ranges bring them; requests under way |
//! | `read_ahead` | how much is read at once |
//! | `btree`, `record`, `trees`, `index_prefetch` | what pages tell of those that come next |
//! | `core` | what all connections share |
//! | `status` | how it is doing |
//! | `follow`, `followed` | what is new; what is remembered from one poll to the next |
//! | `ask_next`, `by_name` | the same without a listing; when that will do |
//! | `tail` | what is new, for a copy outside of this room |
//! | `poll`, `poller` | when to look; what readers and polls tell each other |
//! | `options`, `open`, `shared` | how it is read; how it is opened; one per replica and process |
//! | `history` | the points that can be restored |
//! | `beside` | two files that end with the same transaction |
//! | `past`, `pasts` | other states than the latest; which of them are read |
//! | `trouble` | why a page could not be read |
//! | `view` | one connection |
//! | `wait` | waiting until a transaction is shown |

mod ask_next;
mod bandwidth;
mod beside;
mod blocks;
mod btree;
mod by_name;
mod cache;
mod core;
mod direction;
mod disk;
mod fetch;
mod file_end;
mod files;
mod flight;
mod follow;
mod followed;
mod history;
mod hydrate;
mod hydration;
mod index_prefetch;
mod keep;
mod load;
mod map;
mod open;
mod options;
mod pace;
mod pack;
mod pages;
mod past;
mod pasts;
mod plan;
mod poll;
mod poller;
mod read_ahead;
mod record;
mod relocation;
mod schema;
mod shared;
mod snapshot;
mod source;
mod span;
mod status;
mod tail;
#[cfg(test)]
pub(crate) mod tests;
mod trees;
mod trouble;
mod verdict;
mod view;
mod wait;

pub use bandwidth::Bandwidth;
pub use core::Core;
pub use disk::DiskOptions;
pub use history::{HistoryPoint, Wanted, describe, points, sealed};
pub use hydration::HydrationStatus;
pub use options::{HydrationOptions, Options};
pub use pack::{Pack, PackedIndex};
pub use plan::{Plan, RestorePoint};
pub use read_ahead::ReadAhead;
pub use schema::{COOKIE, OF_SCHEMA, cookie, schema_pages};
pub use shared::{all, open};
pub use snapshot::Snapshot;
pub use status::ReplicaStatus;
pub use view::{Seen, View};

pub(crate) use beside::{Beside, PageSums};
pub(crate) use file_end::read_tail;
pub(crate) use pack::{PackBuilder, Packed};
pub(crate) use plan::{empty, only_old};
pub(crate) use source::{Body, Source, Survey, check_name, wrong_length};
pub(crate) use tail::{Known, News, Tail};
