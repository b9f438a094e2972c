//! The only room with `unsafe`: trampolines, the host's API, the base VFS, functions.
//!
//! Safe code implements two traits and never sees a raw pointer:
//!
//! - [`Vfs`] decides what an open becomes: nothing of ours ([`Opened::PassThrough`]) or a [`File`].
//! - [`File`] has one method for each of SQLite's file methods. All of them forward to the file of
//!   the base VFS unless overridden, so that a shim names only what it watches.
//!
//! The trampolines between SQLite and the traits catch panics, log them, and answer with the error
//! code that belongs to the callback.
//!
//! | file | what it is |
//! | --- | --- |
//! | `code`, `flags`, `control` | SQLite's numbers as types |
//! | `vfs`, `file`, `request` | the traits and what they are given |
//! | `base`, `base_file`, `name`, `shm` | the host's VFS, its files, file names and shared memory |
//! | `shared_cache` | whether connections are to share a cache of SQLite's |
//! | `closing_lock` | why no connection loses its lock by the close of another |
//! | `database_file` | the way from a WAL to its database's file |
//! | `vfs_methods`, `file_methods`, `fcntl`, `installed`, `find` | the trampolines and the memory that SQLite holds |
//! | `host`, `threading`, `load`, `log` | which SQLite called us, and what we register with it |
//! | `function`, `table` | scalar and table-valued SQL functions |
//! | `wal_hook`, `asking` | what is called after a commit |
//! | `auto_extension` | what is called after an open |
//! | `exit` | the normal end of the process |
//! | `forked` | what a forked child inherits |
//! | `signals` | which signals a thread takes |
//! | `memory`, `guarded` | where the memory of the library comes from, and that of secrets |
//! | `integrity`, `sole_use` | a database file that nobody may have open: SQLite's check, keeping it closed |
//! | `refused`, `opening_error`, `roles`, `connection`, `internal`, `standing` | what is done with a connection, and what it may do |

mod asking;
mod auto_extension;
mod base;
mod base_file;
mod ciphers;
mod closing_lock;
mod code;
mod connection;
mod control;
mod database_file;
mod exit;
mod fcntl;
mod file;
mod file_methods;
mod find;
mod flags;
mod forked;
mod function;
mod guarded;
mod host;
mod installed;
mod integrity;
mod internal;
mod load;
mod log;
// Fuzz targets limit the heap by an allocator of their own.
#[cfg(not(fuzzing))]
mod memory;
mod name;
mod opening_error;
mod refused;
mod request;
mod roles;
mod shared_cache;
mod shm;
mod signals;
mod sole_use;
mod standing;
mod table;
mod threading;
mod vfs;
mod vfs_methods;
mod wal_hook;

pub use base::BaseVfs;
pub use base_file::BaseFile;
pub use code::Code;
pub use connection::{InternalConnection, is_interrupted};
pub use control::{FileConnection, FileControl, FileControlOp, Opener, PragmaAnswer};
pub use database_file::DatabaseFile;
pub use file::{Fetched, File, IoVersion, ReadOutcome};
pub use flags::{
    Access, DeviceCharacteristics, FileKind, LockLevel, OpenFlags, ShmLock, ShmLockFlags, SyncFlags,
};
pub use function::{Call, Safety, create_function};
pub use host::{HostApi, HostConnection, HostErrorSlot, is_writing};
pub use integrity::{Integrity, check_integrity};
pub use load::{Wiring, load, set_default_vfs};
pub use log::log;
pub use refused::RefusedFile;
pub use request::{HeldRequest, OpenRequest, Opened, Parameters};
pub use roles::{OpenedName, opened_names, roles};
pub use shm::ShmRegion;
pub use sole_use::{SoleUse, sole_use};
pub use standing::{is_query_only, may_reach_out};
pub use table::{Columns, Row, Rows, Table, create_table_function};
pub use threading::check_threads;
pub use vfs::Vfs;
pub use wal_hook::WalCommit;
