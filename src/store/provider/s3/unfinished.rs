//! Uploads that were begun and neither completed nor aborted: ListMultipartUploads, page by page.

use reqwest::Method;
use serde::Deserialize;

use super::failure::Failure;
use super::session::Request;
use super::{S3Bucket, SessionRef, upload};
use crate::error::{Error, Result};
use crate::store::http::xml;

/// A page has at most 1000 entries of about 1000 bytes.
const MAX_PAGE: usize = 16 << 20;

#[derive(Deserialize)]
struct Page {
    #[serde(rename = "IsTruncated", default)]
    is_truncated: bool,
    #[serde(rename = "NextKeyMarker", default)]
    next_key: String,
    #[serde(rename = "NextUploadIdMarker", default)]
    next_id: String,
    #[serde(rename = "Upload", default)]
    uploads: Vec<Unfinished>,
}

#[derive(Deserialize)]
struct Unfinished {
    #[serde(rename = "Key")]
    key: String,
    #[serde(rename = "UploadId")]
    id: String,
}

impl S3Bucket {
    /// Gives up all uploads of objects whose keys begin with `prefix`, and returns their number: none where the store does
    /// not know that request.
    pub(super) async fn abort_unfinished(&self, prefix: &str) -> Result<usize> {
        let session = self.session().await?;
        let (mut count, mut after) = (0, None);
        while let Some(page) = self.unfinished(&session, prefix, after.as_ref()).await? {
            for Unfinished { key, id } in page.uploads.iter().filter(|upload| upload.key.starts_with(prefix))
            {
                upload::abort(self, key, id).await?;
                count += 1;
            }
            let next = (page.next_key, page.next_id);
            if !page.is_truncated {
                break;
            }
            if after.as_ref() == Some(&next) {
                return Err(Error::wrong_answer("the store's listing of uploads goes in circles"));
            }
            after = Some(next);
        }
        Ok(count)
    }

    /// A page of the uploads that are not finished, after the one with this key and id; `None` if the store cannot list them.
    async fn unfinished(
        &self,
        session: &SessionRef,
        prefix: &str,
        after: Option<&(String, String)>,
    ) -> Result<Option<Page>> {
        let what = format!("list the unfinished uploads to '{prefix}'");
        let mut request = Request::bucket(Method::GET).query("uploads", "").query("prefix", prefix);
        if let Some((key, id)) = after {
            request = request.query("key-marker", key).query("upload-id-marker", id);
        }
        // Signed in the order of the names.
        request.query.sort_unstable();
        let response = match session.send(&request, self.way).await {
            Err(Failure::Refused(refusal)) if refusal.is_not_implemented() => return Ok(None),
            sent => sent.map_err(|failure| session.explain(failure, &what))?,
        };
        let body = session.http.read_all(response, MAX_PAGE).await;
        let page = body.and_then(|body| xml::document(&body, "ListMultipartUploadsResult"));
        page.map(Some).map_err(|e| e.context(format_args!("cannot {what} of {}", self.target())))
    }
}
