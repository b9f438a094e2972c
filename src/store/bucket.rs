//! What a provider of storage can do, with strings for keys. Knows neither LTX names nor where a replica begins.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use serde::{Deserialize, Serialize};

use super::clock::StoreTime;
use super::http::{LongTurn, Work};
use super::part_log::PartLog;
use crate::clock::Timestamp;
use crate::error::{Error, Result};

/// Objects by key: a bucket, a container, a share or a folder.
///
/// A key is a path with slashes and none in front, below whatever the provider calls the bucket. Every method may be
/// called from several tasks at once, is polled on [`crate::runtime`], and makes one attempt: trying again is the
/// wrapper's part.
///
/// Methods with a default describe what only some stores have; a wrapper must forward them all, which
/// `#[deny(clippy::missing_trait_methods)]` holds it to.
#[async_trait]
pub trait Bucket: Send + Sync + fmt::Debug {
    /// URL of the replica that this bucket was opened for, for messages. Carries no secret.
    fn describe(&self) -> String;

    /// One page of the objects whose keys begin with `prefix`, in any order: the first page, or the one that begins
    /// at `start`. Objects that mark folders (keys with a slash at the end) are left out.
    ///
    /// A store that lists folders need not understand a prefix that ends within a name ([`Bucket::lists_any_prefix`]);
    /// a folder that does not exist is an empty one. A bucket that does not exist is an error.
    async fn list(&self, prefix: &str, start: Option<Next>) -> Result<Page<ObjectInfo>>;

    /// Size and times of one object.
    ///
    /// # Errors
    /// `NotFound`.
    async fn head(&self, key: &str) -> Result<ObjectInfo>;

    /// The bytes of `range` of one object. `size` is its size if a listing gave it: an answer from an object of another
    /// size is `WrongAnswer`, and a store that does not give the size with the content needs no second request.
    ///
    /// # Errors
    /// `NotFound`; `WrongAnswer` if the object ends before a bounded range does, or something else came.
    async fn get(&self, key: &str, range: ByteRange, size: Option<u64>) -> Result<Content>;

    /// Writes a small object in a single step, with its timestamp. It appears whole or not at all.
    ///
    /// # Errors
    /// `AlreadyExists` if `options.if_absent` and the object is there. A store that cannot make the condition atomic
    /// looks first, and says so by [`Bucket::fencing`].
    async fn put(&self, key: &str, body: Bytes, options: &PutOptions) -> Result<()>;

    /// Begins to write an object of any size in parts. Nothing is visible before [`Upload::complete`].
    async fn upload(&self, key: &str, options: &PutOptions) -> Result<Box<dyn Upload>>;

    /// As [`Bucket::upload`], where `log` says which parts of an upload of this object the store has from an earlier attempt
    /// that broke off: those are not sent again. What is dropped without [`Upload::complete`] and [`Upload::abort`] stays in the store, and in
    /// the log. An upload of another object that the log names is given up. A store that cannot do this begins anew.
    async fn resume_upload(
        &self,
        key: &str,
        options: &PutOptions,
        _log: Arc<PartLog>,
    ) -> Result<Box<dyn Upload>> {
        self.upload(key, options).await
    }

    /// Deletes objects, any number of them; those that are not there are no error.
    async fn delete(&self, keys: &[String]) -> Result<()>;

    /// Gives up all uploads of objects below `prefix`, a folder's with its slash, that were begun and neither completed nor
    /// aborted, whoever began them; returns their number. A store that keeps none, or cannot say which there are, does nothing.
    async fn abort_uploads(&self, _prefix: &str) -> Result<usize> {
        Ok(0)
    }

    /// How well `if_absent` is kept, as far as it has shown by now.
    fn fencing(&self) -> Fencing;

    /// Finds out whether `if_absent` is kept, if that is [`Fencing::Unproven`]: by writing an object once more that
    /// was just written, as it is. Nothing changes, whatever the answer.
    async fn prove_fencing(&self, _key: &str, _body: Bytes, _options: &PutOptions) -> Result<()> {
        Ok(())
    }

    /// Whether a prefix may end anywhere and pages come in the order of keys, so that one listing has all levels.
    fn lists_any_prefix(&self) -> bool {
        false
    }

    /// Whether asking for a key that may not be there costs less than a listing, and says without doubt that it is not.
    fn misses_cheaply(&self) -> bool {
        false
    }

    /// The store's own clock, as far as its answers have shown it.
    fn clock(&self) -> Option<StoreTime> {
        None
    }

    /// Makes the store give its time, for [`Bucket::clock`], by a cheap request below `prefix`, a folder's with its
    /// slash. A store without a clock does nothing.
    async fn ask_time(&self, _prefix: &str) -> Result<()> {
        Ok(())
    }

    /// The same bucket over connections that were never used, if it has connections.
    fn by_new_connections(&self) -> Option<Arc<dyn Bucket>> {
        None
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

    /// Waits for one of the few turns that bucket and server have for such `work`, of the whole process. A bucket that needs no
    /// connection for each request has none; nor has one whose session does not begin: a request says why.
    async fn turn(&self, _work: Work) -> Option<LongTurn> {
        None
    }

    /// Where the bucket is on this machine, if it is a folder.
    async fn place(&self) -> Option<Place> {
        None
    }

    /// From now on nothing is written unless the folder of the bucket is that of `place`; with `None` it may be any,
    /// and is made if there is none.
    fn stay_at(&self, _place: Option<Place>) {}
}

/// Metadata of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Its key.
    pub key: String,
    /// Its size in bytes.
    pub size: u64,
    /// When its content was committed, if the store has that (`litestream-timestamp`), else when it was stored. A
    /// listing of many stores has only the latter.
    pub timestamp: Timestamp,
    /// When it was stored, by the store's own clock.
    pub stored: Timestamp,
}

/// A file that is being written in parts.
#[async_trait]
pub trait Upload: Send {
    /// The number of bytes that every part but the last must have.
    fn part_size(&self) -> usize;

    /// Adds the next part. After an error the same part may be given again.
    async fn part(&mut self, part: Bytes) -> Result<Taken>;

    /// Makes the file visible.
    ///
    /// # Errors
    /// `AlreadyExists` if `if_absent` was asked for and the file is there.
    async fn complete(&mut self) -> Result<()>;

    /// Gives up and removes what was stored.
    async fn abort(&mut self) -> Result<()>;
}

/// What became of a part of an upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It was sent, or goes with the next one.
    Sent,
    /// It is sent when the upload is completed.
    Later,
    /// The store has it from an earlier attempt, and it was not sent.
    Kept,
}

/// A part of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// What it lists.
    pub entries: Vec<T>,
    /// Where the next part begins; `None` if this is the last one.
    pub next: Option<Next>,
}

impl Page<ObjectInfo> {
    /// What a store has that lists all at once: `entries` from `start` on.
    pub(in crate::store) fn of_all(mut entries: Vec<ObjectInfo>, start: Option<Next>) -> Self {
        if let Some(Next::After(after) | Next::Token(after)) = start {
            entries.retain(|file| file.key > after);
        }
        Self { entries, next: None }
    }
}

/// Where a part of a listing begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// After this key.
    After(String),
    /// Where the store knows by this token.
    Token(String),
}

/// A folder, told from any other that may have its name: device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inode {
    pub(in crate::store) device: u64,
    pub(in crate::store) inode: u64,
}

/// Where a replica in a folder is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The folder itself; `None` if it is not there.
    pub folder: Option<Inode>,
    /// The folder that it is in, if that is there.
    pub parent: Option<Inode>,
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
    /// The first `len` bytes, or all if the file is smaller; `len` is not zero.
    Prefix {
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
    /// The time that a listing gives for the file, to the second, if the answer says so.
    pub timestamp: Option<Timestamp>,
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
            Self::Prefix { len } => Some((0, len.min(size))),
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
