//! What tells whether somebody wrote a file.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_OMIT, utimensat};
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::primary::random_u64;

/// The coarsest clock that a local file system takes its times from: a kernel with 100 ticks a second.
const GRANULE: Duration = Duration::from_millis(10);

/// Younger than this, a file may be written again without a change of its times: two ticks.
const YOUNG: Duration = GRANULE.saturating_mul(2);

/// What tells whether somebody wrote a file: any write changes its times, but for one in the same tick
/// of the file system's clock; see [`seal`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Stamp {
    /// The size of the file in bytes.
    pub(super) const fn size(&self) -> u64 {
        self.size
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

    /// The stamp as five numbers, for files.
    pub(super) const fn to_words(self) -> [u64; 5] {
        let Self { device, inode, size, modified: (seconds, nanos) } = self;
        [device, inode, size, seconds.cast_unsigned(), nanos.cast_unsigned()]
    }

    /// The stamp that [`Stamp::to_words`] gave.
    pub(super) const fn from_words([device, inode, size, seconds, nanos]: [u64; 5]) -> Self {
        Self { device, inode, size, modified: (seconds.cast_signed(), nanos.cast_signed()) }
    }
}

/// A stamp of the file at `path` that any later write changes. Nobody may write the file meanwhile. A file that was
/// written so recently that the clock of its file system may not tell the next write gets a time of change that no
/// clock gives: this second, with random nanoseconds. `None` if there is no file, or the time cannot be set or is not
/// kept, as where a file system keeps seconds only.
pub(super) fn seal(path: &Path) -> Option<Stamp> {
    let stamp = Stamp::of(path)?;
    let now = clock::time_of_day().duration_since(UNIX_EPOCH).ok()?;
    let (seconds, nanos) = stamp.modified;
    let modified = Duration::new(u64::try_from(seconds).ok()?, u32::try_from(nanos).ok()?);
    // A time of change that is still to come says nothing: the clock may have been set back.
    if now.checked_sub(modified).is_some_and(|age| age >= YOUNG) {
        return Some(stamp);
    }
    let modified = (i64::try_from(now.as_secs()).ok()?, (random_u64() % 1_000_000_000) as i64);
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: modified.0, tv_nsec: modified.1 },
    };
    utimensat(CWD, path, &times, AtFlags::empty()).ok()?;
    let sealed = Stamp::of(path)?;
    (sealed == Stamp { modified, ..stamp }).then_some(sealed)
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

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, nanoseconds) = self.born.unwrap_or_default();
        write!(f, "inode {} of {seconds}.{nanoseconds:09}", self.inode)
    }
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

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt as _;
    use std::time::SystemTime;

    use super::*;

    fn set_modified(path: &Path, age: Duration) {
        File::options().write(true).open(path).unwrap().set_modified(SystemTime::now() - age).unwrap();
    }

    /// The rule: a stamp that a close leaves differs after any write, also one in the same tick of the clock.
    /// Without the seal the two writes of most rounds have equal times.
    #[test]
    fn a_sealed_stamp_tells_a_write_in_the_same_tick() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.db");
        for round in 0..200_u8 {
            std::fs::write(&path, [round; 512]).unwrap();
            let sealed = seal(&path).unwrap();
            assert_eq!(Stamp::of(&path), Some(sealed), "a stamp stays as long as nobody writes");
            File::options().write(true).open(&path).unwrap().write_all_at(&[round + 1], 0).unwrap();
            assert_ne!(Stamp::of(&path), Some(sealed));
        }
    }

    #[test]
    fn an_old_time_of_change_stays_and_one_to_come_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.db");
        std::fs::write(&path, "x").unwrap();
        set_modified(&path, Duration::from_secs(1));
        let stamp = Stamp::of(&path);
        assert_eq!(seal(&path), stamp);
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_modified(SystemTime::now() + Duration::from_secs(60))
            .unwrap();
        assert!(seal(&path).is_some_and(|sealed| Some(sealed) != stamp && Stamp::of(&path) == Some(sealed)));
        assert_eq!(seal(&folder.path().join("nothing")), None);
    }

    #[test]
    fn a_stamp_is_the_same_after_it_was_kept() {
        let stamp = Stamp { device: 1, inode: u64::MAX, size: 3, modified: (-4, 999_999_999) };
        assert_eq!(Stamp::from_words(stamp.to_words()), stamp);
    }
}
