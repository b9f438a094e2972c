//! Opens that were refused, for those who ask later.
//!
//! Most hosts show only "unable to open database file" when an open fails. The reason is logged, and
//! kept here for `litestream_status`.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::clock::{Clock, SystemClock, Timestamp};
use crate::error::Error;

/// How many refusals are kept; the oldest goes first.
pub const KEPT: usize = 16;

/// An open that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The database file, if it has a name.
    pub path: Option<PathBuf>,
    /// Why, and what to do about it.
    pub message: String,
    /// When.
    pub at: Timestamp,
}

static REFUSALS: Mutex<VecDeque<Refusal>> = Mutex::new(VecDeque::new());

/// Logs and keeps that an open of `path` was refused because of `error`.
pub fn record(path: Option<&Path>, error: &Error) {
    let name = path.map_or("a database without a name".into(), Path::to_string_lossy);
    tracing::error!("cannot open {name}: {error}");
    let refusal =
        Refusal { path: path.map(Path::to_owned), message: error.to_string(), at: SystemClock.now() };
    let mut refusals = REFUSALS.lock().unwrap_or_else(PoisonError::into_inner);
    if refusals.len() == KEPT {
        refusals.pop_front();
    }
    refusals.push_back(refusal);
}

/// The latest refusals of this process, the oldest first.
pub fn recent() -> Vec<Refusal> {
    REFUSALS.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_refusals_are_kept() {
        for n in 0..KEPT + 3 {
            record(Some(Path::new("app.db")), &Error::config(format!("reason {n}")));
        }
        let recent = recent();
        assert_eq!(recent.len(), KEPT);
        assert_eq!(recent[0].message, "reason 3");
        assert_eq!(recent[KEPT - 1].message, format!("reason {}", KEPT + 2));
        assert_eq!(recent[0].path.as_deref(), Some(Path::new("app.db")));
    }
}
