//! The write flow: capture, publish, copy, resume, compact.
//!
//! | file | what it is |
//! | --- | --- |
//! | `hooks` | what a committing thread does |
//! | `commits` | that SQLite committed, as the shim saw it; the wake-up of the publisher |
//! | `dirty` | which pages were changed since a position, as the WAL index and records of it say |
//! | `capture` | those pages leave the database, for a file to be sent or for one that waits |
//! | `spool` | local LTX files that wait for the replica |
//! | `outgoing` | the file that is on its way |
//! | `state`, `stamp` | what is remembered across processes, and what bears it out |
//! | `forward` | a database that is an earlier state of its replica is brought forward |
//! | `mark` | what a restore leaves for the next open |
//! | `anchor` | the full copy that later files build on |
//! | `parts` | a file is encoded while it is uploaded |
//! | `sums`, `past` | checksums of the pages that the replica has, and digests of earlier states |
//! | `survey` | the pages of the database as it was opened, compared with the replica |
//! | `turn` | one process after the other opens a database for the first time |
//! | `watch` | whether the database was written without our knowing |
//! | `time` | the time of day, where clocks are wrong or are set |
//! | `holes` | what the replica lacks of what was published |
//! | `place` | which folder a replica is in, so that an unmounted disk is noticed |
//! | `publisher` | the background task that takes all this to the replica |
//! | `history` | levels, snapshots and retention: what becomes of published files |
//! | `standby`, `line` | a process that does not publish, and how it reaches the one that does |
//! | `report` | how replication stands, as the one tells the others |
//! | `resume` | how the database stands to its replica when replication begins |

mod anchor;
mod capture;
mod commits;
mod database;
mod dirty;
mod forward;
mod history;
mod holes;
mod hooks;
mod host;
mod line;
mod mark;
mod options;
mod outgoing;
mod parts;
mod past;
mod place;
mod proof;
mod publisher;
mod report;
mod resume;
mod role;
mod shared;
mod spool;
mod stamp;
mod standby;
mod state;
mod sums;
mod survey;
#[cfg(test)]
mod tests;
mod time;
mod turn;
mod watch;

pub use database::{Primary, Status};
pub use dirty::{Cursor, HeldLock, PageSet, Position};
pub use history::{HistoryOptions, NamedSettings, Settings as HistorySettings};
pub use host::{Host, PinnedView, WalIndex};
pub use mark::{Restored, mark};
pub use options::{Options, Rewound};
pub use shared::Phase;
pub use state::folder as state_folder;

/// A random number, for node ids and jitter.
fn random_u64() -> u64 {
    getrandom::u64().unwrap_or_else(|_| {
        // No entropy is no reason to stop: the clock and the process tell two writers apart as well.
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        (now.as_nanos() as u64) ^ (u64::from(std::process::id()) << 32)
    })
}
