//! Routes an open to a role and implements its file methods.
//!
//! | file | what it is |
//! | --- | --- |
//! | `primary` | the main database of a primary: everything passes, commits are noted |
//! | `wal` | its WAL: what it is about to lose is captured first |
//! | `wal_mode` | puts a database into WAL mode |
//! | `reset_guard` | keeps SQLite's WAL-reset bug from losing commits |
//! | `view`, `content`, `frames` | a consistent view of a database that is being written, and what it reads |
//! | `index`, `recovery` | the WAL index, and how it is made when no connection has |
//! | `first_page` | what the header of a database file says |
//! | `hooks` | what a primary is told of each connection |
//! | `exclusive_view`, `frame_log` | the commits of a connection that keeps the database for itself |
//! | `own_locks` | what the library itself has locked, for which statements wait |
//! | `missing` | a database that is missing is restored before it is opened |
//! | `host` | what the write flow needs of SQLite |
//! | `overwrite` | a database takes the content of another one |
//! | `replica` | the main database of a replica |
//! | `pragma` | PRAGMAs of ours that a database does not know |
//! | `waiting` | a main database until it is known who opens it |
//! | `commit_wait` | commits that wait until they are in the replicas |
//! | `closing` | when the close of a connection began |
//! | `hidden` | hides the files of a local database from a replica of the same name |

mod closing;
mod commit_wait;
mod content;
mod exclusive_view;
mod first_page;
mod frame_log;
mod frames;
mod hidden;
mod hooks;
mod host;
mod index;
mod missing;
mod overwrite;
mod own_locks;
mod pragma;
mod primary;
mod recovery;
mod replica;
mod reset_guard;
mod view;
mod waiting;
mod wal;
mod wal_mode;

use std::path::Path;

use crate::config;
use crate::sqlite::{Access, BaseVfs, Code, FileKind, OpenRequest, Opened, Parameters, Vfs, WalCommit};

/// A VFS of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Litestream {
    /// `litestream`: for connections that name it.
    Named,
    /// `litestream-default`: for those that name none. Only databases that a configuration names are ours.
    Default,
}

/// The VFS that the extension registers.
pub fn new() -> impl Vfs {
    Litestream::Named
}

/// The VFS that may become the host's default.
pub fn new_default() -> impl Vfs {
    Litestream::Default
}

/// What the library does after a commit of a connection that has its WAL hook.
///
/// # Errors
/// `PROTOCOL` if the commit waits for replicas and is not confirmed.
pub fn after_commit(commit: &WalCommit) -> Result<(), Code> {
    commit_wait::after_commit(commit)
}

impl Vfs for Litestream {
    fn open(&self, request: OpenRequest<'_>) -> Result<Opened, Code> {
        match (request.kind(), self) {
            (FileKind::MainDb, Self::Named) => Ok(waiting::open(&request)),
            (FileKind::MainDb, Self::Default) => Ok(waiting::open_configured(&request)),
            (FileKind::Wal, _) => wal::open(&request),
            _ => Ok(Opened::PassThrough),
        }
    }

    fn delete(&self, base: &BaseVfs, path: &Path, sync_dir: bool) -> Result<(), Code> {
        wal::deletes(path);
        base.delete(path, sync_dir)
    }

    fn access(&self, base: &BaseVfs, path: &Path, what: Access) -> Result<bool, Code> {
        let by_default = *self == Self::Default;
        if hidden::is_hidden(path, by_default) { Ok(false) } else { base.access(path, what) }
    }
}

/// The parameters of a URI, as `config` reads them.
struct UriParams<'a>(Parameters<'a>);

impl config::Params for UriParams<'_> {
    fn pairs(&self) -> Vec<(String, String)> {
        self.0.pairs().collect()
    }
}
