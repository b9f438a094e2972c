//! Everybody else is kept out of a database while it is replaced.

use std::any::Any;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::files::{ReplaceLock, state_folder};

/// Keeps other programs from a database file. It is asked for the file, refuses with `Busy` if a program has
/// it open, and answers with what keeps others out until it is dropped.
#[derive(Clone)]
pub struct Exclusion(Arc<Excludes>);

type Excludes = dyn Fn(&Path) -> Result<Box<dyn Any>> + Send + Sync;

impl Exclusion {
    /// By what `excludes` answers.
    pub fn by(excludes: impl Fn(&Path) -> Result<Box<dyn Any>> + Send + Sync + 'static) -> Self {
        Self(Arc::new(excludes))
    }
}

impl fmt::Debug for Exclusion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Exclusion")
    }
}

/// Nobody else has the database open, and nobody opens it before this is dropped.
pub(super) struct KeptOut {
    _file: Option<Box<dyn Any>>,
    /// Released last: who waits for it opens the new file.
    _primaries: Option<ReplaceLock>,
}

/// Keeps everybody out of the database file, whether it `is_there` or was removed while it was open.
///
/// # Errors
/// `Busy` if a program has it open; what `exclusion` says.
pub(super) fn keep_out(database: &Path, is_there: bool, exclusion: &Exclusion) -> Result<KeptOut> {
    let primaries = match is_there || state_folder(database).is_dir() {
        true => Some(ReplaceLock::take(database)?.ok_or_else(|| open_as_primary(database))?),
        false => None,
    };
    let file = is_there.then(|| exclude(database, exclusion)).transpose()?;
    Ok(KeptOut { _file: file, _primaries: primaries })
}

fn exclude(database: &Path, exclusion: &Exclusion) -> Result<Box<dyn Any>> {
    (exclusion.0)(database).map_err(|e| cannot_replace(database, e))
}

/// Refuses what [`keep_out`] would refuse now; leaves nothing behind.
///
/// # Errors
/// Those of [`keep_out`].
pub(super) fn refuse_if_open(database: &Path, is_there: bool, exclusion: &Exclusion) -> Result<()> {
    if !ReplaceLock::is_free(database)? {
        return Err(open_as_primary(database));
    }
    if is_there { exclude(database, exclusion).map(drop) } else { Ok(()) }
}

fn open_as_primary(database: &Path) -> Error {
    let kind = ErrorKind::Busy;
    cannot_replace(database, Error::new(kind, format!("{} is open as a primary", database.display())))
}

fn cannot_replace(database: &Path, e: Error) -> Error {
    let message = format!("cannot replace {}: {e}; close its connections first", database.display());
    match e.kind() {
        ErrorKind::Busy => Error::new(ErrorKind::Busy, message),
        _ => e,
    }
}
