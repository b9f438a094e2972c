//! What tells whether somebody wrote a file.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

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

    /// Whether the file holds nothing.
    pub(super) const fn is_of_empty_file(&self) -> bool {
        self.size == 0
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

/// The identity of a file: what tells it from another one that was put in its place, whatever either holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    inode: u64,
    /// When the file was made, in seconds and nanoseconds, where the file system says it: the number of a
    /// removed file's inode is soon given to another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    born: Option<(u64, u32)>,
}

impl Identity {
    /// The identity of the file at `path`, or `None` if there is none.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let meta = fs::metadata(path).ok()?;
        let born = meta.created().ok().and_then(|born| born.duration_since(UNIX_EPOCH).ok());
        Some(Self { inode: meta.ino(), born: born.map(|born| (born.as_secs(), born.subsec_nanos())) })
    }

    /// Whether both are the same file, as far as both file systems say it.
    pub(super) fn is(&self, other: &Self) -> bool {
        let is_of_one_birth = match (self.born, other.born) {
            (Some(one), Some(other)) => one == other,
            _ => true,
        };
        self.inode == other.inode && is_of_one_birth
    }
}

/// Waits, 10 ms at most, until a write to the file must change its stamp.
pub(super) fn outwait(path: &Path) {
    let Ok(modified) = fs::metadata(path).and_then(|meta| meta.modified()) else { return };
    if let Ok(age) = SystemTime::now().duration_since(modified) {
        std::thread::sleep(GRANULE.saturating_sub(age));
    }
}
