//! Routes an open to a role and implements its file methods.

use std::path::Path;

use crate::sqlite::{BaseFile, Code, File, FileKind, OpenRequest, Opened, PlainFile, RefusedFile, Vfs};

/// The VFS `litestream`.
pub fn new() -> impl Vfs {
    Litestream
}

struct Litestream;

impl Vfs for Litestream {
    fn open(&self, request: OpenRequest<'_>) -> Result<Opened, Code> {
        let has_url = request.parameters().get("replica").is_some();
        match request.kind() {
            FileKind::MainDb if !has_url => without_url(request),
            FileKind::MainDb | FileKind::Wal if has_url => {
                let (base, out_flags) = request.open_base()?;
                Ok(Opened::File { file: Box::new(PassThrough { base }), out_flags })
            }
            _ => Ok(Opened::PassThrough),
        }
    }
}

/// A database for which no replica URL is known.
fn without_url(request: OpenRequest<'_>) -> Result<Opened, Code> {
    const MESSAGE: &str = "no replica URL: add replica=<url> to the database's URI";
    if request.parameters().get("vfs").is_some() {
        let path = request.path().unwrap_or(Path::new(""));
        let file = Box::new(RefusedFile::new(path, Code::CANTOPEN, MESSAGE));
        return Ok(Opened::File { file, out_flags: request.flags() });
    }
    let (base, out_flags) = request.open_base()?;
    Ok(Opened::File { file: Box::new(PlainFile::new(base, Code::CANTOPEN, MESSAGE)), out_flags })
}

/// A file that only forwards.
struct PassThrough {
    base: BaseFile,
}

impl File for PassThrough {
    fn base(&mut self) -> Option<&mut BaseFile> {
        Some(&mut self.base)
    }
}
