//! Whether a database is open as a primary, in any process, container or thread: the lock
//! [`DatabaseLock::Open`]. Each process that has it open shares the lock, from before the first connection
//! reads until the last one is closed; whoever replaces the file holds it alone.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::database_lock::{DatabaseLock, NAME};
use super::make::create_folders;
use super::place::state_folder;
use super::record_lock::{Kind, RecordLock};
use super::rights::Rights;
use crate::error::{Error, ErrorKind, Result};

/// How long an open waits while the file is being replaced, which takes a few file system calls.
const PATIENCE: Duration = Duration::from_secs(5);
/// The time from one try to the next.
const TRY_AGAIN: Duration = Duration::from_millis(5);

/// One connection has a database open as a primary.
#[derive(Debug)]
pub struct OpenLock {
    _lock: RecordLock,
}

impl OpenLock {
    /// Takes it for a connection to the database file `database`, and waits while that is being replaced.
    /// The first connection of the process makes the folder of local state, or puts its owner and
    /// permissions right.
    ///
    /// # Errors
    /// `Busy` if the file is still being replaced; `Io`, `Denied`, `ReadOnly`, `NoSpace` on the folder.
    pub fn take(database: &Path) -> Result<Self> {
        let folder = state_folder(database);
        if !DatabaseLock::Open.is_ours(&folder)
            && let Ok(rights) = Rights::of(database)
        {
            rights.put_right(&folder);
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            let taken = create_folders(&folder).and_then(|()| DatabaseLock::Open.take(&folder, Kind::Shared));
            let is_over = Instant::now() >= deadline;
            match taken {
                Ok(Some(lock)) => return Ok(Self { _lock: lock }),
                Ok(None) if is_over => {
                    let message = format!("{} is being replaced by a restore; try again", database.display());
                    return Err(Error::new(ErrorKind::Busy, message));
                }
                // A restore made the folder, and removed it between two of our steps.
                Err(e) if is_over || e.kind() != io::ErrorKind::NotFound => {
                    return Err(cannot_use(&folder, database, e));
                }
                Ok(None) | Err(_) => std::thread::sleep(TRY_AGAIN),
            }
        }
    }

    /// Whether another process has the database open too. To be asked while this process has it open: `None` if it has
    /// not, or if that cannot be told.
    pub fn is_shared_with_others(database: &Path) -> Option<bool> {
        DatabaseLock::Open.is_shared_with_others(&state_folder(database))
    }
}

fn cannot_use(folder: &Path, database: &Path, e: io::Error) -> Error {
    let remedy = match e.kind() {
        io::ErrorKind::PermissionDenied => format!(
            " (it must belong to the owner of the database: chown -R --reference={} {})",
            database.display(),
            folder.display()
        ),
        _ => String::new(),
    };
    Error::io(format_args!("cannot use {}{remedy}", folder.display()), e)
}

/// Nobody has a database open as a primary, and nobody gets it before this is dropped.
#[derive(Debug)]
pub struct ReplaceLock {
    lock: Option<RecordLock>,
    /// The folder, if it was made for this.
    made: Option<PathBuf>,
}

impl ReplaceLock {
    /// Takes it for the database file `database`; `None` if that is open.
    ///
    /// # Errors
    /// Those of the folder of local state.
    pub fn take(database: &Path) -> Result<Option<Self>> {
        let folder = state_folder(database);
        let made = (!folder.is_dir()).then(|| folder.clone());
        let taken = create_folders(&folder).and_then(|()| DatabaseLock::Open.take(&folder, Kind::Exclusive));
        match taken {
            Ok(lock) => Ok(lock.map(|lock| Self { lock: Some(lock), made })),
            Err(e) => {
                let what =
                    format!("it cannot be told whether {} is open: {}", database.display(), folder.display());
                Err(Error::io(what, e))
            }
        }
    }

    /// Whether the lock can be had now, as far as that shows without making anything.
    ///
    /// # Errors
    /// As [`ReplaceLock::take`].
    pub fn is_free(database: &Path) -> Result<bool> {
        Ok(!state_folder(database).join(NAME).exists() || Self::take(database)?.is_some())
    }
}

impl Drop for ReplaceLock {
    fn drop(&mut self) {
        if let Some(folder) = &self.made {
            // While the lock is held: whoever waits for it sees that the file is gone, and makes another.
            // A folder that is in use by now stays.
            let _ = fs::remove_file(folder.join(NAME));
            let _ = fs::remove_dir(folder);
        }
        self.lock = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_database_is_not_replaced_and_one_that_is_replaced_is_not_opened() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("app.db");
        fs::write(&database, "").unwrap();
        let replacing = ReplaceLock::take(&database).unwrap();
        assert!(replacing.is_some() && ReplaceLock::take(&database).unwrap().is_none());
        let opening = std::thread::spawn({
            let database = database.clone();
            move || OpenLock::take(&database).unwrap()
        });
        std::thread::sleep(TRY_AGAIN * 3);
        assert!(!opening.is_finished());
        drop(replacing);
        let open = opening.join().unwrap();
        assert!(ReplaceLock::take(&database).unwrap().is_none() && !ReplaceLock::is_free(&database).unwrap());
        drop(open);
        assert!(ReplaceLock::take(&database).unwrap().is_some());
    }

    #[test]
    fn nothing_is_left_of_a_folder_that_was_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("app.db");
        fs::write(&database, "").unwrap();
        drop(ReplaceLock::take(&database).unwrap());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
