//! The WAL of a primary.
//!
//! What it holds disappears in three ways: a write at offset 0 restarts it, a truncation empties it,
//! and the last close deletes it (that one is in `vfs`). Before each, what is committed is captured.

use std::sync::Arc;

use crate::primary::Primary;
use crate::sqlite::{BaseFile, Code, File, OpenRequest, Opened};

struct WalFile {
    base: BaseFile,
    primary: Arc<Primary>,
}

/// Opens a WAL: a watched one if its database is a primary.
pub(super) fn open(request: &OpenRequest<'_>) -> Result<Opened, Code> {
    let Some(primary) = request.database_path().and_then(Primary::find) else {
        return Ok(Opened::PassThrough);
    };
    let (base, out_flags) = request.open_base()?;
    Ok(Opened::File { file: Box::new(WalFile { base, primary }), out_flags })
}

impl File for WalFile {
    fn base(&mut self) -> Option<&mut BaseFile> {
        Some(&mut self.base)
    }

    fn write(&mut self, data: &[u8], offset: u64) -> Result<(), Code> {
        if offset == 0 {
            self.primary.before_wal_restart(data);
        }
        self.base.write(data, offset)?;
        self.primary.wal_written();
        Ok(())
    }

    fn truncate(&mut self, size: u64) -> Result<(), Code> {
        if size == 0 {
            self.primary.before_wal_is_emptied();
        }
        self.base.truncate(size)
    }
}
