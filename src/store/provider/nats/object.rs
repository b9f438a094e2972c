//! Objects as JetStream's object stores describe them: a message of metadata for each, and messages of content.
//! Source: <https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-20.md>.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::store::ObjectInfo;

/// The header that holds a file's timestamp, RFC 3339.
const TIMESTAMP: &str = "Litestream-Timestamp";

/// The message that describes an object.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Object {
    pub(super) name: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "or_nothing")]
    headers: BTreeMap<String, Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    options: Option<Options>,
    bucket: String,
    /// Names the messages of its content.
    pub(super) nuid: String,
    pub(super) size: u64,
    #[serde(default)]
    mtime: String,
    pub(super) chunks: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) deleted: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Options {
    #[serde(skip_serializing_if = "Option::is_none")]
    max_chunk_size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    link: Option<serde_json::Value>,
}

/// Some clients write `null` for headers that are not there.
fn or_nothing<'de, D: serde::Deserializer<'de>>(from: D) -> Result<BTreeMap<String, Vec<String>>, D::Error> {
    Option::deserialize(from).map(Option::unwrap_or_default)
}

/// The content of an object that was written.
pub(super) struct Written {
    pub(super) nuid: String,
    pub(super) size: u64,
    pub(super) chunks: u64,
    pub(super) sha256: Vec<u8>,
}

impl Object {
    pub(super) fn new(bucket: &str, key: &str, written: Written, timestamp: Timestamp, chunk: usize) -> Self {
        let Written { nuid, size, chunks, sha256 } = written;
        Self {
            name: key.to_owned(),
            headers: BTreeMap::from([(TIMESTAMP.to_owned(), vec![timestamp.to_string()])]),
            options: Some(Options { max_chunk_size: Some(chunk as u64), link: None }),
            bucket: bucket.to_owned(),
            nuid,
            size,
            // Clients take the time of the message.
            mtime: "0001-01-01T00:00:00Z".to_owned(),
            chunks,
            digest: Some(format!("SHA-256={}", URL_SAFE.encode(sha256))),
            deleted: false,
        }
    }

    /// Reads the description of an object.
    ///
    /// # Errors
    /// `WrongAnswer` if it is none.
    pub(super) fn read(body: &[u8]) -> Result<Self> {
        serde_json::from_slice(body).map_err(|e| {
            Error::wrong_answer(format!("a message of the object store describes no object: {e}"))
        })
    }

    /// Whether it is there, and is no link to another one.
    pub(super) fn is_file(&self) -> bool {
        !self.deleted && self.options.as_ref().is_none_or(|options| options.link.is_none())
    }

    /// What it is for who lists it; `stored` is the time of its message.
    pub(super) fn info(self, stored: Timestamp) -> ObjectInfo {
        let committed = self.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(TIMESTAMP));
        let committed = committed.and_then(|(_, values)| values.first()?.parse().ok());
        ObjectInfo { key: self.name, size: self.size, timestamp: committed.unwrap_or(stored), stored }
    }
}

/// The names of an object store's parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Names {
    pub(super) bucket: String,
}

impl Names {
    pub(super) fn stream(&self) -> String {
        format!("OBJ_{}", self.bucket)
    }

    /// The subject of the message that describes `key`.
    pub(super) fn meta(&self, key: &str) -> String {
        format!("$O.{}.M.{}", self.bucket, URL_SAFE.encode(key))
    }

    /// The subjects of all those.
    pub(super) fn metas(&self) -> String {
        format!("$O.{}.M.>", self.bucket)
    }

    /// The subject of an object's content.
    pub(super) fn content(&self, nuid: &str) -> String {
        format!("$O.{}.C.{nuid}", self.bucket)
    }
}

/// A message as the stream's leader gives it.
#[derive(Deserialize)]
pub(super) struct Stored {
    pub(super) seq: u64,
    #[serde(default)]
    data: String,
    time: String,
}

impl Stored {
    pub(super) fn content(&self) -> Result<Vec<u8>> {
        STANDARD
            .decode(&self.data)
            .map_err(|e| Error::wrong_answer(format!("a message of the object store is not base64: {e}")))
    }

    pub(super) fn time(&self) -> Timestamp {
        self.time.parse().unwrap_or(Timestamp::from_millis(0))
    }
}
