//! Object stores: where the LTX files of one replica are. Knows LTX names, never SQLite.
//!
//! [`connect`] turns a [`Target`] into a [`Store`]. Wrappers ([`Retry`], [`Faults`]) are stores too.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

mod clock;
mod download;
mod faults;
mod file;
mod hedge;
mod memory;
mod retry;
mod s3;
mod target;
#[cfg(test)]
mod tests;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::ltx::{FileId, Level, Txid};

pub use clock::StoreTime;
pub use faults::{Fault, Faults, Op};
pub use file::FileStore;
pub use memory::MemoryStore;
pub use retry::{Retry, RetryPolicy};
pub use s3::S3Store;
pub use target::{Encryption, Lookup, ReplicaIdentity, S3Target, Secret, Target};

/// The store at `target`. No request is made, no thread started and no environment read before the
/// store is first used. Failures that pass are tried again as [`RetryPolicy::default`] says.
///
/// # Errors
/// None now; a target that cannot work is found at first use.
pub fn connect(target: &Target) -> Result<Arc<dyn Store>> {
    connect_with(target, RetryPolicy::default())
}

/// As [`connect`], with another idea of how often to try again.
///
/// # Errors
/// As [`connect`].
pub fn connect_with(target: &Target, policy: RetryPolicy) -> Result<Arc<dyn Store>> {
    connect_by(|root| FileStore::new(root), target, policy)
}

/// As [`connect_with`], to replicate the database file `database`. What a folder then gets has the owner
/// and the permissions of that file.
///
/// # Errors
/// As [`connect`].
pub fn connect_for(database: &Path, target: &Target, policy: RetryPolicy) -> Result<Arc<dyn Store>> {
    connect_by(|root| FileStore::new(root).of_database(database), target, policy)
}

fn connect_by(
    folder: impl FnOnce(&Path) -> FileStore,
    target: &Target,
    policy: RetryPolicy,
) -> Result<Arc<dyn Store>> {
    Ok(match target {
        Target::File { path } => Arc::new(folder(path)),
        Target::S3(s3) => Arc::new(Retry::new(Arc::new(S3Store::new(s3.clone())), policy)),
    })
}

/// One replica in an object store.
///
/// Every method may be called from several tasks at once, and is polled on [`crate::runtime`].
#[async_trait]
pub trait Store: Send + Sync + fmt::Debug {
    /// The replica's URL, for messages. Carries no secret.
    fn url(&self) -> String;

    /// The files of `level` whose first transaction is `from` or later, in order of name.
    ///
    /// Objects whose names are not those of LTX files are left out. A replica that does not exist is
    /// an empty one, a bucket that does not exist is an error.
    async fn list(&self, level: Level, from: Txid) -> Result<Vec<FileInfo>>;

    /// A part of what [`Store::list`] lists, in any order: what comes first, or what comes after the part that said
    /// `next`. A store whose listing is one answer has one part.
    async fn list_page(&self, level: Level, from: Txid, next: Option<Next>) -> Result<Page<FileInfo>> {
        let _ = next;
        Ok(Page { entries: self.list(level, from).await?, next: None })
    }

    /// How much came so far: bytes, and a megabyte for each answer and each failure but those that are silence.
    /// `None` where nothing counts it.
    fn heard(&self) -> Option<u64> {
        None
    }

    /// Why the last attempt to read failed, if none has succeeded since.
    fn last_failure(&self) -> Option<Error> {
        None
    }

    /// The same store over connections that were never used, if it has connections.
    fn by_new_connections(&self) -> Option<Arc<dyn Store>> {
        None
    }

    /// The files of as many levels, from level 0 upwards, as one answer holds. A store that cannot list
    /// several levels at once tells none.
    async fn list_at_once(&self) -> Result<Listing> {
        Ok(Listing { files: Vec::new(), rest: Some((Level::L0, Txid::ONE)) })
    }

    /// As [`Store::list`], but the time of each file is when it was stored, by the store's own clock.
    async fn list_stored(&self, level: Level, from: Txid) -> Result<Vec<FileInfo>> {
        self.list(level, from).await
    }

    /// What time it is by the store's own clock, as far as it told it.
    fn clock(&self) -> Option<StoreTime> {
        None
    }

    /// Has the store tell its time, for [`Store::clock`]. One without a clock tells none.
    async fn ask_time(&self) -> Result<()> {
        Ok(())
    }

    /// What is known of one file, without its content.
    ///
    /// # Errors
    /// `NotFound`.
    async fn head(&self, id: FileId) -> Result<FileInfo>;

    /// The bytes of `range` of one file.
    ///
    /// # Errors
    /// `NotFound`; `WrongAnswer` if the file ends before a bounded range does, or something else came.
    async fn get(&self, id: FileId, range: ByteRange) -> Result<Content>;

    /// As [`Store::get`], of a file whose size a listing told: an answer from a file of another size is
    /// `WrongAnswer`. Serves stores that do not tell the size with the content.
    async fn get_listed(&self, file: &FileInfo, range: ByteRange) -> Result<Content> {
        let content = self.get(file.id, range).await?;
        errors::check_size(&self.url(), file.id, file.size, content.file_size)?;
        Ok(content)
    }

    /// Writes a small file in a single request. The file appears whole or not at all.
    ///
    /// # Errors
    /// `AlreadyExists` if `options.if_absent` and the file is there. A store that cannot make the
    /// condition atomic looks first, and says so by [`Store::fencing`].
    async fn put(&self, id: FileId, body: Bytes, options: PutOptions) -> Result<()>;

    /// Begins to write a file of any size in parts. Nothing is visible before
    /// [`Upload::complete`].
    async fn upload(&self, id: FileId, options: PutOptions) -> Result<Box<dyn Upload>>;

    /// Deletes files; those that are not there are no error.
    async fn delete(&self, ids: &[FileId]) -> Result<()>;

    /// Where the replica is on this machine, if it is in a folder.
    async fn place(&self) -> Option<Place> {
        None
    }

    /// From now on nothing is written unless the folder of the replica is that of `place`; with `None` it may be any,
    /// and is made if there is none.
    fn stay_at(&self, _place: Option<Place>) {}

    /// How well `if_absent` is kept, as far as is known by now.
    fn fencing(&self) -> Fencing;

    /// Finds out whether `if_absent` is kept, if that is [`Fencing::Unproven`]: by writing a file once more that
    /// was just written, as it is. Nothing changes, whatever the answer.
    async fn prove_fencing(&self, _id: FileId, _body: Bytes, _options: PutOptions) -> Result<()> {
        Ok(())
    }

    /// Where the files of `level` are below the replica's root, as this store lays them out.
    fn folder_of(&self, level: Level) -> String;

    /// Whatever is in `folder` below the replica's root and in the folders below it, in order of path:
    /// LTX files or not. A folder that does not exist is an empty one.
    async fn list_raw(&self, folder: &str) -> Result<Vec<RawInfo>>;

    /// A part of what [`Store::list_raw`] lists, as [`Store::list_page`].
    async fn list_raw_page(&self, folder: &str, next: Option<Next>) -> Result<Page<RawInfo>> {
        let _ = next;
        Ok(Page { entries: self.list_raw(folder).await?, next: None })
    }

    /// The bytes of `range` of whatever is at `path` below the replica's root.
    ///
    /// # Errors
    /// As [`Store::get`].
    async fn get_raw(&self, path: &str, range: ByteRange) -> Result<Content>;
}

/// A folder, told from any other that may have its name: device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inode {
    device: u64,
    inode: u64,
}

/// Where a replica in a folder is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The folder itself; `None` if it is not there.
    pub folder: Option<Inode>,
    /// The folder that it is in, if that is there.
    pub parent: Option<Inode>,
}

/// A file that is being written in parts.
#[async_trait]
pub trait Upload: Send {
    /// The number of bytes that every part but the last must have.
    fn part_size(&self) -> usize;

    /// Adds the next part. After an error the same part may be given again.
    async fn part(&mut self, part: Bytes) -> Result<()>;

    /// Makes the file visible.
    ///
    /// # Errors
    /// `AlreadyExists` if `if_absent` was asked for and the file is there.
    async fn complete(&mut self) -> Result<()>;

    /// Gives up and removes what was stored.
    async fn abort(&mut self) -> Result<()>;
}

/// What a listing tells of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileInfo {
    /// Which file.
    pub id: FileId,
    /// Its size in bytes.
    pub size: u64,
    /// When its content was committed, if the store told it (`litestream-timestamp`), else when it
    /// was stored. A listing usually knows only the latter.
    pub timestamp: Timestamp,
}

/// A part of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// What it lists.
    pub entries: Vec<T>,
    /// Where the next part begins; `None` if this is the last one.
    pub next: Option<Next>,
}

/// Where a part of a listing begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// After this key.
    After(String),
    /// Where the store knows by this token.
    Token(String),
}

/// `files` in the order of levels and names, each once.
fn in_order(mut files: Vec<FileInfo>) -> Vec<FileInfo> {
    files.sort_unstable_by_key(|file| file.id);
    files.dedup_by_key(|file| file.id);
    files
}

/// Objects in the order of their paths, each once.
fn raw_in_order(mut objects: Vec<RawInfo>) -> Vec<RawInfo> {
    objects.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    objects.dedup_by(|a, b| a.path == b.path);
    objects
}

/// The beginning of what is in a replica, level by level from 0 on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The files, by level and name.
    pub files: Vec<FileInfo>,
    /// Where the files begin that are missing: from a transaction of a level on, and all of the levels
    /// above it. `None` if these are all.
    pub rest: Option<(Level, Txid)>,
}

/// What a listing tells of an object whose name means nothing to the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawInfo {
    /// Its path below the replica's root, with slashes and none in front.
    pub path: String,
    /// Its size in bytes.
    pub size: u64,
    /// When it was stored.
    pub timestamp: Timestamp,
}

/// A range of bytes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteRange {
    /// All of it.
    All,
    /// `len` bytes from `offset`; `len` is not zero.
    Bounded {
        /// First byte.
        offset: u64,
        /// Number of bytes.
        len: u64,
    },
    /// The last `len` bytes, or all if the file is smaller; `len` is not zero.
    Suffix {
        /// Number of bytes.
        len: u64,
    },
}

/// The content of a file, or a range of it, as it arrives.
pub struct Content {
    /// Where in the file the first byte is.
    pub offset: u64,
    /// The size of the whole file in bytes.
    pub file_size: u64,
    /// The bytes. A stream that ends early yields an error.
    pub body: BoxStream<'static, Result<Bytes>>,
}

impl Content {
    /// All the bytes, in memory.
    ///
    /// # Errors
    /// Those of the stream.
    pub async fn bytes(mut self) -> Result<Bytes> {
        let Some(first) = self.body.next().await.transpose()? else { return Ok(Bytes::new()) };
        let Some(second) = self.body.next().await.transpose()? else { return Ok(first) };
        let mut all = BytesMut::from(first);
        all.extend_from_slice(&second);
        while let Some(chunk) = self.body.next().await {
            all.extend_from_slice(&chunk?);
        }
        Ok(all.freeze())
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Content")
            .field("offset", &self.offset)
            .field("file_size", &self.file_size)
            .finish_non_exhaustive()
    }
}

impl ByteRange {
    /// The offsets of first byte and end of this range in a file of `size` bytes; `None` if the file
    /// ends before a bounded range does.
    pub fn within(self, size: u64) -> Option<(u64, u64)> {
        match self {
            Self::All => Some((0, size)),
            Self::Bounded { offset, len } => {
                offset.checked_add(len).filter(|end| *end <= size).map(|end| (offset, end))
            }
            Self::Suffix { len } => Some((size.saturating_sub(len), size)),
        }
    }
}

/// How a file is written.
#[derive(Clone, Debug)]
pub struct PutOptions {
    /// When the last commit in the file was made: becomes the file's timestamp.
    pub timestamp: Timestamp,
    /// Refuse to replace a file that is there.
    pub if_absent: bool,
}

/// How well a store keeps `if_absent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fencing {
    /// The store decides atomically.
    Atomic,
    /// The store takes the condition, and had nothing to refuse yet: it may ignore it.
    Unproven,
    /// We look before we write: two writers at the same moment may not see each other.
    LookFirst,
}

/// The errors that every store words alike.
mod errors {
    use std::fmt::Display;

    use super::{ByteRange, FileId};
    use crate::error::{Error, ErrorKind, Result};

    pub(super) fn not_found(url: &str, id: impl Display) -> Error {
        Error::new(ErrorKind::NotFound, format!("replica {url} has no {id}"))
    }

    pub(super) fn already_exists(url: &str, id: FileId) -> Error {
        Error::new(ErrorKind::AlreadyExists, format!("replica {url} has {id} already"))
    }

    pub(super) fn too_short(url: &str, id: impl Display, range: ByteRange, size: u64) -> Error {
        Error::wrong_answer(format!(
            "{id} of replica {url} has {size} bytes and ends before {range:?}; it was cut off or replaced, or \
             something between the store and this machine answers in its place"
        ))
    }

    /// Checks the size of a file, as the answer to a request for it tells, against the listing's.
    pub(super) fn check_size(url: &str, id: impl Display, listed: u64, found: u64) -> Result<()> {
        if listed == found {
            return Ok(());
        }
        Err(Error::wrong_answer(format!(
            "{id} of replica {url} has {listed} bytes by the listing, and an answer of {found} bytes came: it was \
             replaced, or something between the store and this machine answers in its place"
        )))
    }
}
