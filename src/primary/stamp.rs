//! What tells whether somebody wrote a file.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

/// The coarsest clock that a local file system takes its times from: a kernel with 100 ticks a second.
const GRANULE: Duration = Duration::from_millis(10);

/// What tells whether somebody wrote a file: any write changes its times, but for one in the same tick
/// of the file system's clock; see [`outwait`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Stamp {
    /// A name that differs between stamps.
    pub(super) fn name(&self) -> String {
        let Self { device, inode, size, modified: (seconds, nanos) } = self;
        format!("{device:x}-{inode:x}-{size:x}-{seconds:x}.{nanos:x}")
    }

    /// The stamp of a file, or `None` if it is not there.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let meta = fs::metadata(path).ok()?;
        Some(Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
        })
    }
}

/// What tells a file from another one that was put in its place.
pub(super) fn inode(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().map(|meta| meta.ino())
}

/// Waits, 10 ms at most, until a write to the file must change its stamp.
pub(super) fn outwait(path: &Path) {
    let Ok(modified) = fs::metadata(path).and_then(|meta| meta.modified()) else { return };
    if let Ok(age) = SystemTime::now().duration_since(modified) {
        std::thread::sleep(GRANULE.saturating_sub(age));
    }
}
