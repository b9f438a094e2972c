//! Routes an open to a role and implements its file methods.
//!
//! | file | what it is |
//! | --- | --- |
//! | `primary` | the main database of a primary: everything passes, commits are noted |
//! | `wal` | its WAL: what it is about to lose is captured first |
//! | `wal_mode` | puts a database into WAL mode |
//! | `reset_guard` | keeps SQLite's WAL-reset bug from losing commits |
//! | `read_view` | a consistent view of a database that is being written |
//! | `replica` | the main database of a replica |
//! | `hidden` | hides the files of a local database from a replica of the same name |

mod hidden;
mod primary;
mod read_view;
mod replica;
mod reset_guard;
mod wal;
mod wal_mode;

use std::path::{Path, PathBuf};

use crate::config::{self, Config};
use crate::error::Error;
use crate::primary::Primary;
use crate::sqlite::{
    self, Access, BaseVfs, Code, FileKind, OpenRequest, Opened, Parameters, PlainFile, RefusedFile, Vfs,
};

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
            FileKind::MainDb => open_database(&request).or_else(|e| refuse(&request, &e)),
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

fn open_database(request: &OpenRequest<'_>) -> Result<Opened, Error> {
    sqlite::check_threads()?;
    config::start_logging(&config::ProcessEnv);
    let read_only = request.flags().is_readonly();
    match config::resolve(request.path(), &UriParams(request.parameters()), read_only, &config::ProcessEnv)? {
        Config::Primary(config) => primary::open(request, config),
        Config::Replica(config) => replica::open(request, config),
    }
}

fn refuse(request: &OpenRequest<'_>, error: &Error) -> Result<Opened, Code> {
    let (code, message) = (Code::from(error), error.to_string());
    if request.parameters().keys().next().is_none() {
        // `ATTACH 'plain.db'` and `VACUUM INTO` on one of our connections come here without having
        // asked for us. They get what they asked for; a connection's own database is refused.
        let (base, out_flags) = request.open_base()?;
        return Ok(Opened::File { file: Box::new(PlainFile::new(base, code, message)), out_flags });
    }
    let path = request.path().unwrap_or(Path::new(""));
    Ok(Opened::File { file: Box::new(RefusedFile::new(path, code, message)), out_flags: request.flags() })
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
