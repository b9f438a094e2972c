//! Listing: ListObjectsV2, page by page.

use reqwest::Method;
use serde::Deserialize;

use super::session::Request;
use super::{S3Bucket, SessionRef};
use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::store::http::xml;
use crate::store::{self, Next, ObjectInfo};

/// A page has at most 1000 entries of about 500 bytes.
const MAX_PAGE: usize = 16 << 20;

#[derive(Deserialize)]
pub(super) struct Page {
    #[serde(rename = "IsTruncated", default)]
    is_truncated: bool,
    #[serde(rename = "NextContinuationToken")]
    next: Option<String>,
    #[serde(rename = "Contents", default)]
    contents: Vec<Object>,
}

#[derive(Deserialize)]
struct Object {
    #[serde(rename = "Key")]
    key: String,
    #[serde(rename = "Size")]
    size: u64,
    #[serde(rename = "LastModified")]
    last_modified: String,
}

impl Object {
    fn stored(&self) -> Result<Timestamp> {
        let unclear = |_| Error::wrong_answer(format!("the store lists '{}' without a time", self.key));
        self.last_modified.parse().map_err(unclear)
    }

    fn info(&self) -> Result<ObjectInfo> {
        let stored = self.stored()?;
        Ok(ObjectInfo { key: self.key.clone(), size: self.size, timestamp: stored, stored })
    }
}

impl Page {
    /// Whether the keys rise, as those of most stores do.
    fn is_in_order(&self) -> bool {
        self.contents.is_sorted_by(|a, b| a.key < b.key)
    }

    /// Size and time of the object at `key`.
    pub(super) fn find(&self, key: &str) -> Result<Option<(u64, Timestamp)>> {
        let found = self.contents.iter().find(|object| object.key == key);
        found.map(|object| Ok((object.size, object.stored()?))).transpose()
    }
}

impl S3Bucket {
    /// A page of the objects whose keys begin with `prefix`, from `start` on. Some tools mark folders with objects whose
    /// keys end with a slash: those are left out.
    pub(super) async fn page_of(&self, prefix: &str, start: Option<Next>) -> Result<store::Page<ObjectInfo>> {
        let session = self.session().await?;
        let page = self.page(&session, prefix, start.as_ref()).await?;
        let objects = page.contents.iter().filter(|object| !object.key.ends_with('/'));
        let entries = objects.map(Object::info).collect::<Result<Vec<_>>>()?;
        Ok(store::Page { entries, next: next(page, start.as_ref()).transpose()? })
    }

    /// A page of the objects whose keys begin with `prefix`.
    pub(super) async fn page(
        &self,
        session: &SessionRef,
        prefix: &str,
        start: Option<&Next>,
    ) -> Result<Page> {
        let what = format!("list '{prefix}'");
        let mut request = Request::bucket(Method::GET).query("list-type", "2").query("prefix", prefix);
        request = match start {
            Some(Next::After(key)) => request.query("start-after", key),
            Some(Next::Token(token)) => request.query("continuation-token", token),
            None => request,
        };
        // Signed in the order of the names.
        request.query.sort_unstable();
        let response =
            session.send(&request, self.way).await.map_err(|failure| session.explain(failure, &what))?;
        let body = session.http.read_all(response, MAX_PAGE).await;
        let page = body.and_then(|body| xml::document(&body, "ListBucketResult"));
        let place = session.http.endpoint();
        page.map_err(|e| e.context(format_args!("cannot {what} of {} at {place}", self.target())))
    }
}

/// Where the page after `page` begins, if there is one.
fn next(page: Page, start: Option<&Next>) -> Option<Result<Next>> {
    if !page.is_truncated {
        return None;
    }
    let in_order = page.is_in_order();
    let next = match (page.next.filter(|token| !token.is_empty()), page.contents.into_iter().next_back()) {
        (Some(token), _) => Next::Token(token),
        (None, Some(last)) if in_order => Next::After(last.key),
        (None, Some(_)) => {
            let why = "the store's listing is not in the order of the keys and goes on without saying where";
            return Some(Err(Error::wrong_answer(why)));
        }
        (None, None) => {
            return Some(Err(Error::wrong_answer("the store's listing goes on without saying where")));
        }
    };
    let repeats = match (&next, start) {
        (Next::Token(next), Some(Next::Token(this))) => next == this,
        (Next::After(next), Some(Next::After(this))) => next <= this,
        _ => false,
    };
    Some(if repeats { Err(Error::wrong_answer("the store's listing goes in circles")) } else { Ok(next) })
}
