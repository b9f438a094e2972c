//! Routes an open to a role and implements its file methods.

use crate::sqlite::{self, BaseFile, Code, File, FileKind, OpenRequest, Opened, RefusedFile, Vfs};

/// The VFS `litestream`.
pub fn new() -> impl Vfs {
    Litestream
}

struct Litestream;

impl Vfs for Litestream {
    fn open(&self, request: OpenRequest<'_>) -> Result<Opened, Code> {
        match request.kind() {
            FileKind::MainDb if request.parameters().get("replica").is_none() => {
                let message = "no replica URL: add replica=<url> to the database's URI";
                let file = Box::new(RefusedFile::new(Code::CANTOPEN, message));
                Ok(Opened::File { file, out_flags: request.flags() })
            }
            FileKind::MainDb | FileKind::Wal => {
                let (base, out_flags) = request.open_base()?;
                Ok(Opened::File { file: Box::new(PassThrough { base }), out_flags })
            }
            _ => Ok(Opened::PassThrough),
        }
    }
}

/// A file that only forwards.
struct PassThrough {
    base: BaseFile,
}

impl File for PassThrough {
    fn base(&mut self) -> Option<&mut sqlite::BaseFile> {
        Some(&mut self.base)
    }
}
