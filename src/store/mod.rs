//! Object stores: where the LTX files of one replica are. Knows LTX names, never SQLite.

use std::fmt;

mod target;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;

use crate::clock::Timestamp;
use crate::error::Result;
use crate::ltx::{FileId, Level, Txid};

pub use target::{Lookup, S3Target, Secret, Target};

/// One replica in an object store.
///
/// Every method may be called from several tasks at once.
#[async_trait]
pub trait Store: Send + Sync + fmt::Debug {
    /// The replica's URL, for messages. Carries no secret.
    fn url(&self) -> String;

    /// The files of `level` whose first transaction is `from` or later, in order of name.
    ///
    /// Objects whose names are not those of LTX files are left out. A replica that does not exist is
    /// an empty one, a bucket that does not exist is an error.
    async fn list(&self, level: Level, from: Txid) -> Result<Vec<FileInfo>>;

    /// What is known of one file, without its content.
    ///
    /// # Errors
    /// `NotFound`.
    async fn head(&self, id: FileId) -> Result<FileInfo>;

    /// The bytes of `range` of one file.
    ///
    /// # Errors
    /// `NotFound`; `Corrupt` if the file is shorter than a bounded range says.
    async fn get(&self, id: FileId, range: ByteRange) -> Result<Content>;

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

    /// How well `if_absent` is kept, as far as is known by now.
    fn fencing(&self) -> Fencing;
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
    /// We look before we write: two writers at the same moment may not see each other.
    LookFirst,
}
