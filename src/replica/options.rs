//! How a replica is read, as whoever opens it says.

use std::path::PathBuf;
use std::time::Duration;

use super::disk::DiskOptions;
use super::pack;

/// How a replica is read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Options {
    /// How often to look for new transactions.
    pub poll_interval: Duration,
    /// How often to look for them after nobody has read for a while.
    pub poll_idle_interval: Duration,
    /// How long an open waits for a replica that is still empty.
    pub open_timeout: Duration,
    /// The size of the page cache in bytes.
    pub cache_bytes: usize,
    /// How the whole database is downloaded to a local file, if it is.
    pub hydration: Option<HydrationOptions>,
    /// What is read is also kept here, if anywhere.
    pub disk: Option<DiskOptions>,
    /// Whether packs are read where there are some.
    pub pack: bool,
    /// The page index of a snapshot of at least this many bytes is read in blocks, as they are needed, where its pack has it
    /// so. A hydration wants all of it.
    pub in_blocks_from: u64,
}

/// How the whole database is downloaded to a local file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HydrationOptions {
    /// The file.
    pub path: PathBuf,
    /// The file may hold what is sealed in the replica: its pages are not sealed there.
    pub plain: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            poll_interval: Duration::from_secs(1),
            poll_idle_interval: Duration::from_secs(30),
            open_timeout: Duration::from_secs(10),
            cache_bytes: 32 * 1024 * 1024,
            hydration: None,
            disk: None,
            pack: true,
            in_blocks_from: pack::BLOCKS_FROM,
        }
    }
}
