//! Routes an open to a role and implements its file methods.
//!
//! | file | what it is |
//! | --- | --- |
//! | `primary` | the main database of a primary: everything passes, commits are noted |
//! | `wal` | its WAL: what it is about to lose is captured first |
//! | `wal_mode` | puts a database into WAL mode |
//! | `reset_guard` | keeps SQLite's WAL-reset bug from losing commits |
//! | `read_view` | a consistent view of a database that is being written |
//! | `overwrite` | a database takes the content of another one |
//! | `replica` | the main database of a replica |
//! | `pragma` | PRAGMAs of ours that a database does not know |
//! | `waiting` | a main database until it is known who opens it |
//! | `closing` | when the close of a connection began |
//! | `hidden` | hides the files of a local database from a replica of the same name |

mod closing;
mod hidden;
mod overwrite;
mod pragma;
mod primary;
mod read_view;
mod replica;
mod reset_guard;
mod waiting;
mod wal;
mod wal_mode;

use std::path::{Path, PathBuf};

use crate::config;
use crate::primary::Primary;
use crate::sqlite::{Access, BaseVfs, Code, FileKind, OpenRequest, Opened, Parameters, Vfs};

/// The VFS `litestream`.
#[derive(Debug, Default)]
pub struct Litestream;

/// The VFS that the extension registers.
pub fn new() -> impl Vfs {
    Litestream
}

impl Vfs for Litestream {
    fn open(&self, request: OpenRequest<'_>) -> Result<Opened, Code> {
        match request.kind() {
            FileKind::MainDb => Ok(waiting::open(&request)),
            FileKind::Wal => wal::open(&request),
            _ => Ok(Opened::PassThrough),
        }
    }

    fn delete(&self, base: &BaseVfs, path: &Path, sync_dir: bool) -> Result<(), Code> {
        if let Some(primary) = database_of_wal(path).and_then(|path| Primary::find(&path)) {
            primary.before_wal_is_emptied();
        }
        base.delete(path, sync_dir)
    }

    fn access(&self, base: &BaseVfs, path: &Path, what: Access) -> Result<bool, Code> {
        if hidden::is_hidden(path) { Ok(false) } else { base.access(path, what) }
    }
}

/// The parameters of a URI, as `config` reads them.
struct UriParams<'a>(Parameters<'a>);

impl config::Params for UriParams<'_> {
    fn pairs(&self) -> Vec<(String, String)> {
        self.0.keys().map(|key| (key.clone(), self.0.get(&key).unwrap_or_default())).collect()
    }
}

/// The database to which `path` belongs, if it is the name of a WAL.
fn database_of_wal(path: &Path) -> Option<PathBuf> {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    let name = path.as_os_str().as_bytes().strip_suffix(b"-wal")?;
    Some(PathBuf::from(OsStr::from_bytes(name)))
}
