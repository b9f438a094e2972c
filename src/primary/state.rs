//! What a primary remembers on local disk: `.<file name>-litestream/vfs.json` beside the database.
//!
//! It is written by rename, without a sync: after a power failure it may be older than the database.
//! Then the WAL's salts and checksums, or the database file's time, do not fit what it says, and the
//! next open copies the database anew instead of trusting it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::ltx::Txid;
use crate::wal::{Checksum, FrameNo, Position, Salts};

/// Up to where the commits of the database are captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Captured {
    /// Up to a frame of the WAL.
    At(Position),
    /// All of them: the WAL is empty or gone, and its next generation starts with what is new.
    NextGeneration,
}

/// The folder of local state that belongs to the database `path`.
pub fn folder(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push("-litestream");
    path.with_file_name(name)
}

/// What is remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    /// Tells our files in the replica from another writer's. Random, never 0.
    pub(super) node_id: u64,
    /// The replica that `txid` is a transaction of.
    pub(super) url: String,
    /// The last transaction known to be in the replica.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) txid: Option<u64>,
    /// Everything up to here is in the replica or in the spool. None: nothing is known to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    position: Option<StoredPosition>,
    /// Where the WAL's generation ended that the position's generation followed. The WAL file may
    /// still hold it, if the process died between remembering and restarting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    previous: Option<StoredPosition>,
    /// What the database file looked like when it was closed without a WAL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    closed: Option<Stamp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct StoredPosition {
    salts: (u32, u32),
    frame: u32,
    checksum: (u32, u32),
}

impl From<Position> for StoredPosition {
    fn from(p: Position) -> Self {
        Self { salts: (p.salts.0, p.salts.1), frame: p.frame.0, checksum: (p.checksum.0, p.checksum.1) }
    }
}

impl From<StoredPosition> for Position {
    fn from(p: StoredPosition) -> Self {
        Self {
            salts: Salts(p.salts.0, p.salts.1),
            frame: FrameNo(p.frame),
            checksum: Checksum(p.checksum.0, p.checksum.1),
        }
    }
}

/// What tells whether somebody wrote a file: any write changes its times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let meta = fs::metadata(path).ok()?;
        Some(Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
        })
    }
}

impl State {
    /// Reads the state in `folder`, or begins a new one with a random node id.
    ///
    /// # Errors
    /// `Io`. A state that cannot be understood is treated as none: all is copied anew.
    pub(super) fn load(folder: &Path) -> Result<Self> {
        let path = file(folder);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Self::new()),
            Err(e) => return Err(Error::io(format_args!("cannot read {}", path.display()), e)),
        };
        match serde_json::from_slice::<Self>(&bytes) {
            Ok(state) if state.node_id != 0 => Ok(state),
            _ => Ok(Self::new()),
        }
    }

    fn new() -> Self {
        Self { node_id: crate::primary::random_u64().max(1), ..Self::default() }
    }

    /// The state of the same writer at the beginning of another replica.
    pub(super) fn for_replica(&self, url: &str) -> Self {
        Self { node_id: self.node_id, url: url.to_owned(), ..Self::default() }
    }

    /// Remembers that everything up to `captured` is in the replica or in the spool.
    pub(super) fn set_captured(&mut self, captured: Option<Captured>, database: &Path) {
        let old = self.position.take();
        self.closed = None;
        match captured {
            Some(Captured::At(position)) => {
                self.position = Some(position.into());
                if let Some(old) = old
                    && old.salts != (position.salts.0, position.salts.1)
                {
                    self.previous = Some(old);
                }
            }
            Some(Captured::NextGeneration) => {
                self.closed = Stamp::of(database);
                self.previous = old.or(self.previous);
            }
            None => self.previous = None,
        }
    }

    /// Up to where the database's commits are captured, as far as the files on disk bear it out.
    pub(super) fn captured(&self, database: &Path, wal: &Path) -> Option<Captured> {
        let in_wal = [self.position, self.previous]
            .into_iter()
            .flatten()
            .map(Position::from)
            .find(|position| wal_has(wal, *position));
        if let Some(position) = in_wal {
            return Some(Captured::At(position));
        }
        let no_wal = fs::metadata(wal).map_or(true, |meta| meta.len() == 0);
        let unchanged = self.closed.is_some() && self.closed == Stamp::of(database);
        (no_wal && unchanged).then_some(Captured::NextGeneration)
    }

    /// The last transaction known to be in the replica at `url`.
    pub(super) fn txid(&self, url: &str) -> Option<Txid> {
        if self.url == url { self.txid.and_then(Txid::new) } else { None }
    }

    /// Writes the state to `folder`.
    ///
    /// # Errors
    /// `Io`, `NoSpace`, `Denied`, naming the file.
    pub(super) fn save(&self, folder: &Path) -> Result<()> {
        let bytes = serde_json::to_vec(self).expect("BUG: the state is plain data");
        let path = file(folder);
        let temporary = path.with_extension("json.tmp");
        fs::write(&temporary, bytes)
            .and_then(|()| fs::rename(&temporary, &path))
            .map_err(|e| Error::io(format_args!("cannot write {}", path.display()), e))
    }
}

fn file(folder: &Path) -> PathBuf {
    folder.join("vfs.json")
}

/// Whether the WAL file holds the frame that `position` speaks of.
fn wal_has(wal: &Path, position: Position) -> bool {
    fs::File::open(wal).is_ok_and(|file| crate::wal::holds(&file, position).unwrap_or(false))
}
