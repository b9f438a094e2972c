//! When there will be something to do with a replica, as the last process knew it:
//! `.<file name>-litestream/history.json`.
//!
//! It saves a process that lives for a second the look at the whole replica. It is gone while anything
//! is published that it does not know of; without it, the replica is looked at.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::files;

const NAME: &str = "history.json";

/// When there will be something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Never, unless something is published.
    Never,
    /// Then.
    At(Timestamp),
}

#[derive(Serialize, Deserialize)]
struct Stored {
    #[serde(with = "crate::store::stored_url")]
    url: String,
    /// In milliseconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    next: Option<i64>,
}

/// What the last process knew of the replica at `url`, if it did.
pub(super) fn read(folder: &Path, url: &str) -> Option<Next> {
    let stored: Stored = serde_json::from_slice(&fs::read(folder.join(NAME)).ok()?).ok()?;
    (stored.url == url).then_some(match stored.next {
        Some(ms) => Next::At(Timestamp::from_millis(ms)),
        None => Next::Never,
    })
}

/// Writes what is known, or removes what was. Without it the next process looks: worse, not wrong.
pub(super) fn write(folder: &Path, url: &str, next: Option<Next>) {
    let Some(next) = next else { return remove(folder) };
    let next = match next {
        Next::Never => None,
        Next::At(time) => Some(time.as_millis()),
    };
    let bytes = serde_json::to_vec(&Stored { url: url.to_owned(), next }).expect("BUG: it is plain data");
    let temporary = folder.join(NAME).with_extension("json.tmp");
    let written = files::write(&temporary, &bytes).and_then(|()| fs::rename(&temporary, folder.join(NAME)));
    if let Err(e) = written {
        tracing::debug!("cannot write {}: {e}", folder.join(NAME).display());
        remove(folder);
    }
}

/// What the last process knew is so no more.
pub(super) fn remove(folder: &Path) {
    let _ = fs::remove_file(folder.join(NAME));
}
