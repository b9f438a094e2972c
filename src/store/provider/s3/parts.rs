//! The parts of an upload that the store has: ListParts, page by page.

use std::collections::BTreeMap;

use reqwest::Method;
use serde::Deserialize;

use super::failure::Failure;
use super::session::Request;
use super::{S3Bucket, SessionRef};
use crate::error::{Error, Result};
use crate::store::http::xml;

/// A page has at most 1000 entries of about 500 bytes.
const MAX_PAGE: usize = 16 << 20;

#[derive(Deserialize)]
struct Page {
    #[serde(rename = "IsTruncated", default)]
    is_truncated: bool,
    #[serde(rename = "Part", default)]
    parts: Vec<Listed>,
}

#[derive(Deserialize)]
struct Listed {
    #[serde(rename = "PartNumber")]
    number: usize,
    /// Empty where the store does not say: then nobody knows what it has.
    #[serde(rename = "ETag", default)]
    etag: String,
    #[serde(rename = "Size")]
    size: usize,
}

/// The parts of an upload, by number.
pub(super) struct Parts(BTreeMap<usize, Listed>);

impl Parts {
    /// Whether the store has part `number` with this name for its content, which some quote and some do not.
    pub(super) fn has(&self, number: usize, etag: &str) -> bool {
        self.0.get(&number).is_some_and(|listed| listed.etag.trim_matches('"') == etag.trim_matches('"'))
    }

    /// The size of part `number`.
    pub(super) fn size(&self, number: usize) -> Option<usize> {
        self.0.get(&number).map(|listed| listed.size)
    }
}

impl S3Bucket {
    /// The parts that the store has of the upload `id` of `key`; `None` if it does not know the upload any more, or does not say.
    pub(super) async fn parts(&self, key: &str, id: &str) -> Result<Option<Parts>> {
        let session = self.session().await?;
        let mut all = BTreeMap::new();
        loop {
            let after = all.last_key_value().map(|(number, _)| *number);
            let Some(page) = self.parts_after(&session, key, id, after).await? else { return Ok(None) };
            all.extend(page.parts.into_iter().map(|listed| (listed.number, listed)));
            if !page.is_truncated {
                return Ok(Some(Parts(all)));
            }
            if all.last_key_value().map(|(number, _)| *number) == after {
                return Err(Error::wrong_answer("the store's listing of parts goes in circles"));
            }
        }
    }

    async fn parts_after(
        &self,
        session: &SessionRef,
        key: &str,
        id: &str,
        after: Option<usize>,
    ) -> Result<Option<Page>> {
        let what = format!("list the parts of {key}");
        let mut request = Request::object(Method::GET, key.to_owned());
        if let Some(after) = after {
            request = request.query("part-number-marker", after.to_string());
        }
        let request = request.query("uploadId", id).headers(self.key_headers());
        let response = match session.send(&request, self.way).await {
            Err(Failure::Refused(refusal)) => {
                let error = session.explain(refusal.into(), &what);
                if error.is_transient() {
                    return Err(error);
                }
                tracing::info!("what arrived of an earlier upload is sent again: {error}");
                return Ok(None);
            }
            sent => sent.map_err(|failure| session.explain(failure, &what))?,
        };
        let body = session.http.read_all(response, MAX_PAGE).await;
        let page = body.and_then(|body| xml::document(&body, "ListPartsResult"));
        page.map(Some).map_err(|e| e.context(format_args!("cannot {what} of {}", self.target())))
    }
}
