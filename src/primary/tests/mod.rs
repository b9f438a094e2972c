//! The write flow, against files that are written as SQLite writes them and a replica in memory.
//!
//! | file | its story |
//! | --- | --- |
//! | `restart` | the WAL loses what it holds: no commit is lost with it |
//! | `spool` | waiting files outlive their process |
//! | `state` | local state is believed only as far as it is borne out |
//! | `replies` | a request is done, and its answer is lost |
//! | `conflict` | somebody else is on the replica |
//! | `outage` | the replica cannot be reached for a while |
//! | `several` | a database has two replicas |
//! | `pace` | how often files go out |
//! | `closing` | a close waits, but not for ever |
//! | `lingering` | a database that is closed for a moment is remembered |
//! | `foreign` | a process without the shim writes the database |
//! | `handover` | a Litestream sidecar published the database meanwhile |
//! | `panics` | a background task has a bug |
//! | `processes` | several processes write, and take turns in publishing |
//! | `clocks` | the clock of the machine is wrong, and is set |
//! | `acks` | what `litestream_sync` promises |
//! | `commits` | commits that wait until they are in the replicas |
//! | `history` | levels and snapshots of a primary that publishes |
//! | `random` | all of it in any order |

mod acks;
mod bench;
mod clocks;
mod closing;
mod commits;
mod conflict;
mod encryption;
mod foreign;
mod handover;
mod history;
mod holes;
mod lingering;
mod outage;
mod pace;
mod panics;
mod processes;
mod random;
mod replies;
mod restart;
mod several;
mod spool;
mod sqlite;
mod state;
mod unfinished;
