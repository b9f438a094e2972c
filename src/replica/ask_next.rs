//! Asking for the next file by its name; [`super::by_name`] says when.

#[cfg(test)]
mod tests;

use bytes::Bytes;

use super::by_name::next;
use super::core::Core;
use super::files::Files;
use super::followed::Follow;
use super::load::{WHOLE, whole};
use super::snapshot::Snapshot;
use super::source::Named;
use crate::error::{ErrorKind, Result};
use crate::runtime;
use crate::store::FileInfo;

/// Files that one poll takes by their names. Where there are more, a listing finds all of them at once.
const MOST: usize = 2;

/// What came of asking for the next file.
enum Next {
    /// It is not there.
    Nothing,
    /// It continues what is known.
    Came(FileInfo, Snapshot),
    /// A listing must tell.
    Unclear,
}

impl Core {
    /// Takes in what is new without a listing. Returns whether that was all; else a listing must tell.
    ///
    /// # Errors
    /// Those of the store that pass.
    pub(super) async fn advance_by_name(&self, follow: &mut Follow) -> Result<bool> {
        for _ in 0..MOST {
            if !follow.by_name.may_ask() || !self.shows_no_doubt() {
                return Ok(false);
            }
            match self.ask_next(follow).await? {
                Next::Nothing => {
                    follow.by_name.note_missing();
                    return Ok(true);
                }
                Next::Came(file, next) => {
                    follow.note_next(&file);
                    runtime::busy(true, || self.publish(next));
                }
                Next::Unclear => return Ok(false),
            }
        }
        Ok(false)
    }

    async fn ask_next(&self, follow: &mut Follow) -> Result<Next> {
        let snapshot = self.snapshot();
        match self.files.source.get_by_name(next(snapshot.txid), WHOLE).await {
            Ok(Named::Missing) => Ok(Next::Nothing),
            Ok(Named::Unclear) => Ok(Next::Unclear),
            Ok(Named::Whole(file, bytes)) => match self.files.extend_by(&snapshot, &file, bytes) {
                Ok(Some(next)) => {
                    self.files.source.remember(&file);
                    Ok(Next::Came(file, next))
                }
                // The listing sees what it is.
                Ok(None) | Err(_) => Ok(Next::Unclear),
            },
            Err(e) if e.is_transient() => Err(e),
            Err(e) => {
                // Without the right to list a bucket, some stores deny what is not there.
                if e.kind() == ErrorKind::Denied {
                    follow.by_name.note_denied();
                }
                Ok(Next::Unclear)
            }
        }
    }
}

impl Files {
    /// The state after `file`, which came as `bytes` and continues `before`; `None` if that is not certain.
    fn extend_by(&self, before: &Snapshot, file: &FileInfo, bytes: Bytes) -> Result<Option<Snapshot>> {
        let loaded = whole(self.on_disk(file).as_ref(), file, bytes, self.source.keyring())?;
        let header = loaded.header;
        let is_known = header.lineage.is_some() && header.lineage == before.lineage;
        if !is_known || header.node_id == 0 || header.node_id != before.writer {
            return Ok(None);
        }
        self.extend_with(before, file, loaded).map(Some)
    }
}
