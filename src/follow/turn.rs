//! Calls for one copy, one after the other: each finds what the one before it left.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::is_set;
use crate::error::{Error, ErrorKind, Result};
use crate::fork::PerProcess;

/// How soon a thread that waits notices that it was interrupted.
const LOOK: Duration = Duration::from_millis(20);

/// The copies that a call is at, and what is rung when one is done.
#[derive(Default)]
struct Turns {
    paths: Mutex<BTreeSet<PathBuf>>,
    bell: Condvar,
}

static TURNS: PerProcess<Turns> = PerProcess::new();

/// The turn of a call, until it is dropped.
pub(super) struct Turn(PathBuf);

impl Turn {
    /// Waits for those who came before, of the copy at `path`. `stopped` is asked now and then whether to give up.
    ///
    /// # Errors
    /// `Interrupted`.
    pub(super) fn take(path: &Path, stopped: &AtomicBool) -> Result<Self> {
        let turns = TURNS.get();
        let mut paths = turns.paths.lock().unwrap_or_else(PoisonError::into_inner);
        while !paths.insert(path.to_owned()) {
            if is_set(stopped) {
                return Err(Error::new(ErrorKind::Interrupted, "interrupted"));
            }
            (paths, _) = turns.bell.wait_timeout(paths, LOOK).unwrap_or_else(PoisonError::into_inner);
        }
        Ok(Self(path.to_owned()))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let turns = TURNS.get();
        turns.paths.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.0);
        turns.bell.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;
    use std::sync::{Arc, mpsc};
    use std::thread;

    use super::*;

    #[test]
    fn calls_for_one_copy_wait_for_each_other_and_can_be_interrupted() {
        let stopped = Arc::new(AtomicBool::new(false));
        let first = Turn::take(Path::new("/turn/one.db"), &stopped).unwrap();
        drop(Turn::take(Path::new("/turn/other.db"), &stopped).unwrap());
        let (send, taken) = mpsc::channel();
        let waits = thread::spawn({
            let stopped = Arc::clone(&stopped);
            move || send.send(Turn::take(Path::new("/turn/one.db"), &stopped).map(drop))
        });
        assert!(taken.recv_timeout(10 * LOOK).is_err(), "it waits");
        drop(first);
        taken.recv().unwrap().unwrap();
        waits.join().unwrap().unwrap();
        let _again = Turn::take(Path::new("/turn/one.db"), &stopped).unwrap();
        stopped.store(true, Ordering::Relaxed);
        let refused = Turn::take(Path::new("/turn/one.db"), &stopped).err().unwrap();
        assert_eq!(refused.kind(), ErrorKind::Interrupted);
    }
}
