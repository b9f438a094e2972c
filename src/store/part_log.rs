//! Log of the parts of an upload that the store has, on local disk: an upload that broke off is taken up by it.
//!
//! The first line names the upload, each line after it a part; of two lines for one part the later counts. Nothing is
//! synced, and no line is believed by itself: a part is taken over if the store lists it as the log has it, and if the bytes that are to be
//! sent have its length and digest.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::files;
use crate::runtime;

/// Hashing more than this on a thread of the runtime would keep others waiting.
const HASH_HERE: usize = 512 << 10;

/// Log of one upload at a time.
#[derive(Debug)]
pub struct PartLog {
    path: PathBuf,
    /// What is uploaded: a log that was copied with its folder is of no use to another.
    subject: String,
    /// The time when it was opened, which is when an upload begins that is begun with it.
    now: Timestamp,
    begun: Mutex<Option<Begun>>,
}

/// Upload that was begun and, as far as its log says, neither completed nor given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begun {
    pub(in crate::store) name: Name,
    /// The parts that the store has, by their numbers from 1 on.
    pub(in crate::store) parts: BTreeMap<usize, Part>,
    /// When an attempt last sent a part, in milliseconds since the Unix epoch.
    last: i64,
}

/// First line of a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::store) struct Name {
    /// The key of the object that is to be.
    pub(in crate::store) key: String,
    /// The store's name for the upload.
    pub(in crate::store) id: String,
    pub(in crate::store) part_size: usize,
    /// Digest of what the store was told of the object beside its content and its time.
    pub(in crate::store) settings: String,
    /// What is uploaded.
    subject: String,
    /// When it was begun, in milliseconds since the Unix epoch.
    begun: i64,
}

/// Part that the store has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::store) struct Part {
    pub(in crate::store) content: PartDigest,
    /// The store's name for its content.
    pub(in crate::store) etag: String,
}

/// What tells the content of a part from any other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::store) struct PartDigest {
    pub(in crate::store) size: usize,
    sha256: String,
}

impl PartDigest {
    /// That of `part`.
    pub(in crate::store) async fn of(part: &Bytes) -> Result<Self> {
        if part.len() <= HASH_HERE {
            return Ok(Self::of_bytes(part));
        }
        let part = part.clone();
        runtime::blocking(move || Ok(Self::of_bytes(&part))).await
    }

    fn of_bytes(part: &[u8]) -> Self {
        Self { size: part.len(), sha256: sha256(part) }
    }
}

/// The SHA-256 of `bytes`, in base64.
pub(in crate::store) fn sha256(bytes: &[u8]) -> String {
    BASE64.encode(digest(&SHA256, bytes))
}

/// Line of a log after the first.
#[derive(Serialize, Deserialize)]
struct Line {
    part: usize,
    /// When its log was opened, in milliseconds since the Unix epoch.
    at: i64,
    #[serde(flatten)]
    is: Part,
}

impl Begun {
    /// The bytes of the parts that the store has.
    pub fn bytes(&self) -> u64 {
        self.parts.values().map(|part| part.content.size as u64).sum()
    }

    /// When the last attempt began that sent a part.
    pub fn last(&self) -> Timestamp {
        Timestamp::from_millis(self.last)
    }

    /// The key of the object that is to be, and the store's name for the upload.
    pub fn name(&self) -> (&str, &str) {
        (&self.name.key, &self.name.id)
    }

    /// What the lines of a log say; `None` if the first one is not whole.
    fn read(text: &[u8]) -> Option<Self> {
        let mut lines = text.split(|byte| *byte == b'\n');
        let name: Name = serde_json::from_slice(lines.next()?).ok()?;
        let mut begun = Self { last: name.begun, name, parts: BTreeMap::new() };
        // A line that a kill cut off, or a full disk, takes its part with it.
        for line in lines.filter_map(|line| serde_json::from_slice::<Line>(line).ok()) {
            begun.last = begun.last.max(line.at);
            begun.parts.insert(line.part, line.is);
        }
        Some(begun)
    }
}

impl PartLog {
    /// The log at `path` of uploads of `subject`, as it was left, opened `now`. One that cannot be read, or is about something
    /// else, says that nothing was begun.
    pub fn open(path: PathBuf, subject: String, now: Timestamp) -> Self {
        let begun = Self::left(&path).filter(|begun| begun.name.subject == subject);
        Self { path, subject, now, begun: Mutex::new(begun) }
    }

    /// What the log at `path` was left with, whatever it is about.
    pub fn left(path: &Path) -> Option<Begun> {
        fs::read(path).ok().and_then(|text| Begun::read(&text))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Begun>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The upload that was begun.
    pub fn begun(&self) -> Option<Begun> {
        self.lock().clone()
    }

    /// An upload of `key` begins, in place of what the log has.
    ///
    /// # Errors
    /// `Io`, `NoSpace`, `Denied`, naming the file: then the log has nothing.
    pub(in crate::store) fn begin(
        &self,
        key: &str,
        id: &str,
        part_size: usize,
        settings: String,
    ) -> Result<()> {
        let begun = self.now.as_millis();
        let (key, id, subject) = (key.to_owned(), id.to_owned(), self.subject.clone());
        let name = Name { key, id, part_size, settings, subject, begun };
        self.forget();
        self.append(&name)?;
        *self.lock() = Some(Begun { last: begun, name, parts: BTreeMap::new() });
        Ok(())
    }

    /// The store has this part.
    ///
    /// # Errors
    /// As [`PartLog::begin`]: then the part is not taken over.
    pub(in crate::store) fn add(&self, number: usize, part: Part) -> Result<()> {
        let at = self.now.as_millis();
        self.append(&Line { part: number, at, is: part.clone() })?;
        if let Some(begun) = &mut *self.lock() {
            begun.last = begun.last.max(at);
            begun.parts.insert(number, part);
        }
        Ok(())
    }

    /// Nothing is begun any more.
    pub fn forget(&self) {
        *self.lock() = None;
        if let Err(e) = fs::remove_file(&self.path)
            && e.kind() != io::ErrorKind::NotFound
        {
            tracing::debug!("cannot remove {}: {e}", self.path.display());
        }
    }

    fn append(&self, line: &impl Serialize) -> Result<()> {
        let mut text = serde_json::to_vec(line).expect("BUG: a line is plain data");
        text.push(b'\n');
        files::open(&self.path, OpenOptions::new().append(true))
            .and_then(|mut file| file.write_all(&text))
            .map_err(|e| Error::io(format_args!("cannot write {}", self.path.display()), e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(content: &[u8]) -> Part {
        Part { content: PartDigest::of_bytes(content), etag: format!("\"{}\"", content.len()) }
    }

    fn opened(path: &Path) -> PartLog {
        PartLog::open(path.to_owned(), "db".to_owned(), Timestamp::from_millis(7))
    }

    #[test]
    fn it_is_as_old_as_what_was_sent_last_and_nothing_to_another_database() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("upload.parts");
        opened(&path).begin("a/b", "one", 5, String::new()).unwrap();
        let later = PartLog::open(path.clone(), "db".to_owned(), Timestamp::from_millis(70));
        assert_eq!(later.begun().unwrap().last(), Timestamp::from_millis(7));
        later.add(1, part(b"12345")).unwrap();
        assert_eq!(later.begun(), opened(&path).begun());
        assert_eq!(later.begun().unwrap().last(), Timestamp::from_millis(70));
        let of_a_copy = PartLog::open(path.clone(), "copy".to_owned(), Timestamp::from_millis(7));
        assert_eq!(of_a_copy.begun(), None);
        assert_eq!(PartLog::left(&path), later.begun());
    }

    #[test]
    fn it_says_after_a_kill_what_it_was_told_before() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("upload.parts");
        let log = opened(&path);
        assert_eq!(log.begun(), None);
        log.begin("a/b", "one", 5, String::new()).unwrap();
        log.add(1, part(b"12345")).unwrap();
        log.add(3, part(b"12345")).unwrap();
        log.add(3, part(b"678")).unwrap();
        let begun = opened(&path).begun().unwrap();
        assert_eq!(Some(&begun), log.begun().as_ref());
        assert_eq!((begun.name(), begun.bytes(), begun.parts.len()), (("a/b", "one"), 8, 2));
        // Half a line takes itself away, and the one that follows it.
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - 3]).unwrap();
        let cut = opened(&path);
        assert_eq!(cut.begun().unwrap().bytes(), 10);
        cut.add(4, part(b"9")).unwrap();
        cut.add(5, part(b"0")).unwrap();
        let numbers: Vec<usize> = opened(&path).begun().unwrap().parts.into_keys().collect();
        assert_eq!(numbers, [1, 3, 5]);
        // Another upload takes its place.
        cut.begin("a/c", "two", 5, String::new()).unwrap();
        assert_eq!(opened(&path).begun().unwrap().name(), ("a/c", "two"));
        cut.forget();
        assert!(!path.exists() && cut.begun().is_none());
        fs::write(&path, "no log").unwrap();
        assert_eq!(opened(&path).begun(), None);
    }
}
