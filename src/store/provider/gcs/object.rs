//! Objects as the service describes them in JSON.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::store::ObjectInfo;

/// The metadata that holds a file's timestamp, RFC 3339.
pub(super) const TIMESTAMP: &str = "litestream-timestamp";
/// The fields of an object that mean something to us.
pub(super) const FIELDS: &str = "name,size,timeCreated,metadata";

/// An object without its content.
#[derive(Deserialize)]
pub(super) struct Object {
    pub(super) name: String,
    /// A number, in a text: JavaScript has no such numbers.
    size: String,
    #[serde(rename = "timeCreated")]
    created: String,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
}

/// A page of a listing. An empty one has no items.
#[derive(Deserialize)]
pub(super) struct Listing {
    #[serde(default)]
    pub(super) items: Vec<Object>,
    #[serde(rename = "nextPageToken")]
    pub(super) next: Option<String>,
    /// What every listing says that it is: a proxy's JSON must not pass for an empty one.
    kind: Option<String>,
}

impl Object {
    /// Reads the description of one object.
    ///
    /// # Errors
    /// `WrongAnswer` if it is none.
    pub(super) fn read(body: &[u8]) -> Result<ObjectInfo> {
        let object: Self = serde_json::from_slice(body)
            .map_err(|e| Error::wrong_answer(format!("the store's answer describes no object: {e}")))?;
        object.info()
    }

    pub(super) fn info(self) -> Result<ObjectInfo> {
        let unclear =
            |what: &str| Error::wrong_answer(format!("the store gives '{}' without a {what}", self.name));
        let size = self.size.parse().map_err(|_| unclear("size"))?;
        let stored: Timestamp = self.created.parse().map_err(|_| unclear("time"))?;
        let committed = self.metadata.get(TIMESTAMP).and_then(|text| text.parse().ok());
        Ok(ObjectInfo { key: self.name, size, timestamp: committed.unwrap_or(stored), stored })
    }
}

impl Listing {
    /// Reads a page.
    ///
    /// # Errors
    /// `WrongAnswer` if it is none.
    pub(super) fn read(body: &[u8]) -> Result<Self> {
        let unreadable =
            |why: String| Error::wrong_answer(format!("the store's answer is no listing: {why}"));
        let page: Self = serde_json::from_slice(body).map_err(|e| unreadable(e.to_string()))?;
        if page.kind.as_deref() == Some("storage#objects") {
            return Ok(page);
        }
        Err(unreadable(format!("its kind is '{}'", page.kind.unwrap_or_default())))
    }
}
