//! Pages and page indexes on the local disk: what was read once needs no request after a restart.
//!
//! ```text
//!   cache_dir/litestream-cache-1/
//!     {replica}/                      checksum of the replica's URL and endpoint
//!       {level}-{min}-{max}-{file}/   an LTX file; {file} is the checksum of what the listing says of it
//!         index                       header and page index   [`index`]
//!         0, 1, 2 …                   its frames              [`segment`]
//! ```
//! Nothing here is needed: what is missing, cut off or damaged is fetched again. Everything is verified
//! when it is read, against checksums that also say which replica, file and page it belongs to; what is of a sealed file
//! stays sealed, and is opened whenever it is read. So any
//! number of processes may share the folder without locks: LTX files never change, two processes that
//! write the same frame write the same bytes, and what one removes is only missing for another.

mod index;
mod segment;
mod sweep;
#[cfg(test)]
mod tests;

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use crc_fast::{CrcAlgorithm, Digest};

use self::sweep::Room;
use crate::error::{Error, Result};
use crate::store::FileInfo;

/// The folder of this layout; another layout gets another name.
const LAYOUT: &str = "litestream-cache-1";
/// An entry that is used is marked as used no more often than this.
const TOUCH: Duration = Duration::from_secs(60);

/// Where the disk cache is and how large it may become.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DiskOptions {
    /// The folder. Other replicas and processes may use it too.
    pub folder: PathBuf,
    /// What all of it may take, in bytes.
    pub bytes: u64,
}

/// The disk cache of one replica.
#[derive(Debug)]
pub(super) struct Disk {
    /// The part of the folder that is ours.
    root: PathBuf,
    replica: PathBuf,
    place: u64,
    room: Room,
    /// The last attempt to write failed, and that was said.
    failing: AtomicBool,
}

impl Disk {
    /// The cache for the replica at `place`: its URL and all else that tells it from others.
    ///
    /// # Errors
    /// `Denied`, `NoSpace` and so on if the folder cannot be used.
    pub(super) fn open(options: &DiskOptions, place: &str) -> Result<Arc<Self>> {
        let root = options.folder.join(LAYOUT);
        let place = checksum(&[place.as_bytes()]);
        let replica = root.join(format!("{place:016x}"));
        create_folder(&replica).map_err(|e| {
            Error::io(
                format!(
                    "cannot use cache_dir={} (give a folder that can be written)",
                    options.folder.display()
                ),
                e,
            )
        })?;
        let room = Room::new(root.clone(), options.bytes);
        Ok(Arc::new(Self { root, replica, place, room, failing: AtomicBool::new(false) }))
    }

    /// The part of the cache that belongs to the LTX file `info`.
    pub(super) fn file(self: &Arc<Self>, info: &FileInfo) -> DiskFile {
        let FileInfo { id, size, timestamp } = info;
        let (level, min, max) = (id.level.get(), id.name.min(), id.name.max());
        let known = format!("{level} {min} {max} {size} {}", timestamp.as_millis());
        let identity = checksum(&[&self.place.to_be_bytes(), known.as_bytes()]);
        let folder = self.replica.join(format!("{level}-{min}-{max}-{identity:016x}"));
        DiskFile { disk: self.clone(), folder, identity }
    }

    /// Notes how an attempt to write went. A cache that cannot be written is only slower.
    fn note(&self, outcome: io::Result<()>) {
        let failed = outcome.as_ref().is_err();
        if !self.failing.swap(failed, Ordering::Relaxed)
            && let Err(e) = outcome
        {
            tracing::warn!(folder = %self.root.display(), error = %e, "cannot write to the disk cache");
        }
    }
}

/// The part of the cache that belongs to one LTX file.
#[derive(Clone, Debug)]
pub(super) struct DiskFile {
    disk: Arc<Disk>,
    folder: PathBuf,
    /// Says in every checksum what it belongs to.
    identity: u64,
}

impl DiskFile {
    /// Opens an entry to read it, and marks it as used.
    fn open(&self, path: &Path) -> io::Result<File> {
        let file = File::open(path)?;
        let now = SystemTime::now();
        let used = file.metadata()?.modified()?;
        if now.duration_since(used).is_ok_and(|ago| ago >= TOUCH) {
            file.set_modified(now)?;
        }
        Ok(file)
    }

    /// Opens an entry to write it.
    fn create(&self, path: &Path) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        match options.open(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                create_folder(&self.folder)?;
                options.open(path)
            }
            opened => opened,
        }
    }
}

/// Creates a folder that nobody else can look into: it holds what is in the database.
fn create_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn checksum(parts: &[&[u8]]) -> u64 {
    let mut digest = Digest::new(CrcAlgorithm::Crc64Nvme);
    parts.iter().for_each(|part| digest.update(part));
    digest.finalize()
}
