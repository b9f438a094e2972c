//! The write flow: what is committed becomes a set of dirty pages, and each replica has a shipper that turns its dirty
//! pages into LTX files.
//!
//! | room | what it is | may use, beside the leaves |
//! | --- | --- | --- |
//! | `file_fingerprint`, `page_set`, `frame_cache`, `time`, `streaming_upload`, `seals` | leaves | |
//! | `hooks` | what a committing thread meets first | |
//! | `dirty` | which pages were changed since a position, as the WAL index and records of it say | `hooks` |
//! | `wal_sync` | syncs the WAL where commits wait | `hooks` |
//! | `context` | what is the same for all replicas of a database | `hooks`, `dirty`, `wal_sync` |
//! | `maintenance` | levels, snapshots and retention: what becomes of published files | |
//! | `options` | how a database and its replicas are replicated | `maintenance` |
//! | `shipper` | takes the commits to one replica | all above |
//! | `ownership` | which process publishes, and how the others reach it | all above |
//! | `mark` | what a restore leaves for the next open | all above |
//! | `database` | the primaries of this process | all above |

mod context;
mod database;
mod dirty;
mod file_fingerprint;
mod frame_cache;
mod hooks;
mod maintenance;
mod mark;
mod options;
mod ownership;
mod page_set;
mod seals;
mod shipper;
#[cfg(test)]
mod simulation;
mod streaming_upload;
#[cfg(test)]
mod tests;
mod time;
mod wal_sync;

pub use crate::files::state_folder;
pub use database::{
    Asked, CheckpointFigures, CheckpointMode, CommitWaits, DatabaseFigures, Primary, Status, Ticket,
    refuse_twins,
};
pub use dirty::{Cursor, HeldLock, Position};
pub use hooks::{Host, Measures, PinnedView, WalIndex};
pub use maintenance::{
    Calendar, Fate, HistoryOptions, KeptLevel, NamedSettings, Planned, Settings as HistorySettings,
    SnapshotAt, retention_plan,
};
pub use mark::{Restored, last_published, mark};
pub use options::{CommitMode, Named, Options, ReplicaConfig, ReplicaOptions, Rewound, SyncReplicas};
pub use ownership::remembered;
pub use page_set::PageSet;
pub use shipper::{Phase, ReplicaFigures};

/// A random number, for node ids and jitter.
fn random_u64() -> u64 {
    crate::runtime::random_u64().unwrap_or_else(|_| {
        // No entropy is no reason to stop: the clock and the process tell two writers apart as well.
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        (now.as_nanos() as u64) ^ (u64::from(std::process::id()) << 32)
    })
}
