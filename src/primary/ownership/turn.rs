//! One process after the other opens a database for the first time, so that none reads it before it is decided
//! what becomes of it: [`DatabaseLock::Begin`].

use std::path::Path;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::files::{self, DatabaseLock, Kind, RecordLock};
use crate::runtime;

/// The time from one try to the next.
const TRY_AGAIN: Duration = Duration::from_millis(2);

/// The turn of this process. It ends when this is dropped, or with the process.
#[derive(Debug)]
pub(in crate::primary) struct Turn {
    _lock: RecordLock,
}

impl Turn {
    /// Waits for it: as long as another process decides, which is not long unless it brings the database forward.
    ///
    /// # Errors
    /// `Io`, `Denied`, `NoSpace` on the folder of local state.
    pub(in crate::primary) fn wait(database: &Path) -> Result<Self> {
        let folder = files::state_folder(database);
        let named = |e| Error::io(format_args!("cannot use {}", folder.display()), e);
        files::create_folders(&folder).map_err(named)?;
        loop {
            if let Some(lock) = DatabaseLock::Begin.take(&folder, Kind::Exclusive).map_err(named)? {
                return Ok(Self { _lock: lock });
            }
            runtime::nap(TRY_AGAIN);
        }
    }
}
