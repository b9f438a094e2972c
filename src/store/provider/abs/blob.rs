//! Blobs as the service describes them: in the XML of listings, and in headers.

use std::collections::BTreeMap;

use http::HeaderMap;
use http::header::{CONTENT_LENGTH, LAST_MODIFIED};
use serde::Deserialize;

use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::store::ObjectInfo;
use crate::store::http::{answer, xml};

/// The metadata that holds a file's timestamp, RFC 3339.
pub(super) const TIMESTAMP: &str = "litestreamtimestamp";

/// A page of a listing.
#[derive(Deserialize)]
#[serde(rename = "EnumerationResults", rename_all = "PascalCase")]
pub(super) struct Listing {
    pub(super) blobs: Blobs,
    #[serde(default)]
    pub(super) next_marker: String,
}

#[derive(Deserialize)]
pub(super) struct Blobs {
    #[serde(rename = "Blob", default)]
    pub(super) blobs: Vec<Blob>,
}

/// A blob without its content.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Blob {
    pub(super) name: String,
    properties: Properties,
    /// Empty where there is none.
    #[serde(default)]
    metadata: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct Properties {
    #[serde(rename = "Last-Modified")]
    modified: String,
    #[serde(rename = "Content-Length")]
    size: u64,
    /// `directory` for a folder of an account that has folders.
    #[serde(rename = "ResourceType", default)]
    kind: String,
}

impl Blob {
    /// Whether it stands for a folder.
    pub(super) fn is_folder(&self) -> bool {
        self.name.ends_with('/') || self.properties.kind == "directory"
    }

    pub(super) fn info(self) -> Result<ObjectInfo> {
        let stored = answer::date_of(&self.properties.modified)
            .ok_or_else(|| Error::wrong_answer(format!("the store gives '{}' without a time", self.name)))?;
        let metadata = self.metadata.unwrap_or_default();
        // Names of metadata are alike in every case.
        let committed = metadata.iter().find(|(name, _)| name.eq_ignore_ascii_case(TIMESTAMP));
        let committed = committed.and_then(|(_, text)| text.trim().parse().ok());
        Ok(ObjectInfo {
            key: self.name,
            size: self.properties.size,
            timestamp: committed.unwrap_or(stored),
            stored,
        })
    }
}

impl Listing {
    /// Reads a page.
    ///
    /// # Errors
    /// `WrongAnswer` if it is none.
    pub(super) fn read(body: &[u8]) -> Result<Self> {
        xml::document(body, "EnumerationResults")
    }
}

/// What headers say of the blob `key`.
///
/// # Errors
/// `WrongAnswer` if they do not give its size and time.
pub(super) fn described(key: &str, headers: &HeaderMap) -> Result<ObjectInfo> {
    let unclear = |what: &str| Error::wrong_answer(format!("the store gives '{key}' without a {what}"));
    let size = answer::number(headers.get(CONTENT_LENGTH)).ok_or_else(|| unclear("size"))?;
    let stored = answer::date(headers.get(LAST_MODIFIED)).ok_or_else(|| unclear("time"))?;
    let committed = headers.get(format!("x-ms-meta-{TIMESTAMP}"));
    let committed: Option<Timestamp> = committed.and_then(|value| value.to_str().ok()?.parse().ok());
    Ok(ObjectInfo { key: key.to_owned(), size, timestamp: committed.unwrap_or(stored), stored })
}
