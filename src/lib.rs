//! `litestream_vfs`: a SQLite loadable extension for databases that live safely in object storage.
//!
//! # Rooms
//!
//! | room | what it is |
//! | --- | --- |
//! | [`page`], [`error`], [`clock`], [`fork`], [`files`], [`runtime`], [`signals`], [`secret`], [`logging`], [`failures`], [`metrics`], [`events`] | leaves that every room may use |
//! | [`ltx`] | the LTX codec: bytes in, bytes out |
//! | [`wal`] | WAL and WAL-index formats: bytes in, committed transactions out |
//! | [`store`] | object stores; knows LTX names, never SQLite |
//! | [`primary`] | the write flow: capture, publish, snapshot, resume |
//! | [`replica`] | the read flow: plan, snapshot, follower, page cache |
//! | [`restore`] | a replica becomes a database file |
//! | [`verify`] | whether a replica can be restored |
//! | [`follow`] | a database file follows a replica, for any reader |
//! | [`mcp`] | the protocol by which an assistant calls tools |
//! | [`monitor`] | what an operator sees: metrics, a page, alarms |
//! | [`config`] | URI and environment become one typed configuration |
//! | [`sqlite`] | the only room with `unsafe`: trampolines and the host's API |
//! | [`vfs`] | routes an open to a role and implements its file methods |
//! | [`functions`] | SQL functions: parse arguments, call a room, format the answer |
//! | [`extension`] | the exported entry points |
//!
//! # Flows
//!
//! Write: SQLite -> `sqlite` trampoline -> `vfs::primary` tells `primary` of a commit; `primary` -> a read view of
//! `vfs::view` -> `ltx` encoder -> `store`.
//!
//! Read: `store` -> `ltx` page index -> `replica` snapshot and cache -> `vfs::replica` -> SQLite.
//!
//! Step by step, with threads, locks, local files and a glossary: `ARCHITECTURE.md` beside `README.md`.

pub mod clock;
pub mod config;
pub mod error;
pub mod events;
pub mod extension;
pub mod failures;
pub mod files;
pub mod follow;
pub mod fork;
pub mod functions;
pub mod logging;
pub mod ltx;
pub mod mcp;
pub mod metrics;
pub mod monitor;
pub mod page;
pub mod primary;
pub mod replica;
pub mod restore;
pub mod runtime;
pub mod secret;
pub mod signals;
pub mod sqlite;
pub mod store;
pub mod verify;
pub mod vfs;
pub mod wal;
