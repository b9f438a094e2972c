//! What a copy is, beside it: of which replica, and which transaction, with what tells that nobody else wrote the file.
//!
//! `follow/state.json` in the folder of local state is replaced in one step before each transaction, with the state before
//! it and the one after it: a crash leaves the file as one or the other. Anything else was written by another program.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::copy::beside;
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::files::{self, Rights};
use crate::ltx::{FileId, FileName, Header, Level, Lineage, Txid};
use crate::page::PageCount;
use crate::replica::Known;
use crate::store::{FileInfo, ReplicaIdentity};

/// What tells a file from what it was or will be: its size, and a checksum of its first page, whose change counter is another
/// one after each transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stamp {
    /// The size in bytes.
    pub(super) bytes: u64,
    /// A checksum of the first page.
    pub(super) first_page: u64,
}

impl Stamp {
    /// That of a file of `bytes` bytes whose first page is `page`.
    pub(super) fn of(bytes: u64, page: &[u8]) -> Self {
        Self { bytes, first_page: crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64GoIso, page) }
    }
}

/// A state of the copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Position {
    txid: u64,
    /// When that was committed, in milliseconds since the Unix epoch.
    time: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lineage: Option<Lineage>,
    /// Who wrote the last file; zero if that is not known.
    pub(super) writer: u64,
    page_size: u32,
    pages: u32,
    stamp: Stamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    anchor: Option<Anchor>,
}

/// The file that brought a state, as it was listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Anchor {
    level: u8,
    min: u64,
    max: u64,
    size: u64,
    time: i64,
}

impl Anchor {
    fn of(file: &FileInfo) -> Self {
        let name = file.id.name;
        Self {
            level: file.id.level.get(),
            min: name.min().get(),
            max: name.max().get(),
            size: file.size,
            time: file.timestamp.as_millis(),
        }
    }

    fn file(&self) -> Option<FileInfo> {
        let name = FileName::new(Txid::new(self.min)?, Txid::new(self.max)?)?;
        let id = FileId::new(Level::new(self.level)?, name);
        Some(FileInfo { id, size: self.size, timestamp: Timestamp::from_millis(self.time) })
    }
}

impl Position {
    /// The state after `file`, whose header is `header`, in the history `lineage`.
    pub(super) fn after(file: &FileInfo, header: &Header, lineage: Option<Lineage>, stamp: Stamp) -> Self {
        Self {
            txid: header.max.get(),
            time: header.timestamp.as_millis(),
            lineage,
            writer: header.node_id,
            page_size: header.page_size.get(),
            pages: header.commit.get(),
            stamp,
            anchor: Some(Anchor::of(file)),
        }
    }

    /// The state `txid` of `lineage`, committed at `time`, with `size` pages; the file that brought it is not there any more.
    pub(super) fn alone(
        txid: Txid,
        time: Timestamp,
        lineage: Option<Lineage>,
        (pages, page_size): (PageCount, u32),
        stamp: Stamp,
    ) -> Self {
        let (txid, time, pages) = (txid.get(), time.as_millis(), pages.get());
        Self { txid, time, lineage, writer: 0, page_size, pages, stamp, anchor: None }
    }

    /// The last transaction.
    pub(super) fn txid(&self) -> Txid {
        Txid::new(self.txid).unwrap_or(Txid::ONE)
    }

    /// When that was committed.
    pub(super) fn time(&self) -> Timestamp {
        Timestamp::from_millis(self.time)
    }

    /// The size in pages, and that of a page in bytes.
    pub(super) fn size(&self) -> (PageCount, u32) {
        (PageCount::new(self.pages), self.page_size)
    }

    /// What continues it must fit this.
    pub(super) fn known(&self) -> Known {
        let anchor = self.anchor.as_ref().and_then(Anchor::file);
        Known { txid: self.txid(), lineage: self.lineage, anchor }
    }
}

/// What is remembered of a copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    /// The replica that it is a copy of.
    pub(super) replica: ReplicaIdentity,
    at: Position,
    /// The state after the transaction that may have been under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    next: Option<Position>,
}

impl State {
    /// A copy of `replica` in the state `at`.
    pub(super) fn new(replica: ReplicaIdentity, at: Position) -> Self {
        Self { replica, at, next: None }
    }

    /// The state that the copy has.
    pub(super) fn at(&self) -> &Position {
        &self.at
    }

    /// The file that brought the state is merged into `file`, which leads to the same transaction.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn anchor_to(&mut self, file: &FileInfo, folder: &Path) -> Result<()> {
        self.at.anchor = Some(Anchor::of(file));
        self.save(folder)
    }

    /// What `folder` says; `None` if it says nothing.
    ///
    /// # Errors
    /// `Corrupt` if it cannot be read as a state; those of the file system.
    pub(super) fn read(folder: &Path) -> Result<Option<Self>> {
        let path = path(folder);
        let bytes = match fs::read(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(|e| Error::io(format_args!("cannot read {}", path.display()), e))?,
        };
        let read = serde_json::from_slice(&bytes);
        read.map(Some).map_err(|e| Error::corrupt(format!("{} is damaged: {e}", path.display())))
    }

    /// The copy is about to become `next`: a crash leaves it as one or the other.
    ///
    /// # Errors
    /// Those of the file system; then nothing may be written.
    pub(super) fn announce(&mut self, next: Position, folder: &Path) -> Result<()> {
        self.next = Some(next);
        self.save(folder)
    }

    /// Finds by its `stamp` which state the copy has. `database` is its path.
    ///
    /// # Errors
    /// `Conflict` if it is none of ours.
    pub(super) fn locate(&mut self, stamp: Stamp, database: &Path) -> Result<()> {
        if let Some(next) = self.next.take_if(|next| next.stamp == stamp) {
            self.at = next;
        }
        if self.at.stamp == stamp {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Conflict,
            format!(
                "another program wrote {}, which may only be read while it follows; move it away and call \
                 litestream_follow again, which copies the replica anew",
                database.display()
            ),
        ))
    }

    /// Writes it to the disk.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn save(&self, folder: &Path) -> Result<()> {
        let path = path(folder);
        let bytes = serde_json::to_vec(self).expect("BUG: the state is plain data");
        replace(&path, &bytes, folder)
            .and_then(|()| File::open(folder)?.sync_all())
            .map_err(|e| Error::io(format_args!("cannot write {}", path.display()), e))
    }
}

/// Replaces the file at `path` in one step, by one that is written in `folder` and gets onto the disk.
fn replace(path: &Path, bytes: &[u8], folder: &Path) -> io::Result<()> {
    let temporary = folder.join("new");
    let mut file = files::open(&temporary, fs::OpenOptions::new().write(true).truncate(true))?;
    let replaced =
        file.write_all(bytes).and_then(|()| file.sync_all()).and_then(|()| fs::rename(&temporary, path));
    // On a full disk it takes what others need.
    replaced.inspect_err(|_| drop(fs::remove_file(&temporary)))
}

/// Tells `txid` beside the copy `database` as Litestream's `restore -f` does, for programs that read that file.
///
/// # Errors
/// Those of the file system.
pub(super) fn tell(txid: Txid, database: &Path, folder: &Path) -> io::Result<()> {
    let temporary = folder.join("txid");
    let mut file = files::open(&temporary, fs::OpenOptions::new().write(true).truncate(true))?;
    Rights::of(database)?.give(&file);
    writeln!(file, "{txid}")?;
    fs::rename(&temporary, beside(database, "-txid"))
}

fn path(folder: &Path) -> PathBuf {
    folder.join("state.json")
}
