//! Reading: listings, descriptions of blobs, and ranges of their content.

use reqwest::Method;

use super::AzureBucket;
use super::blob::{self, Listing};
use super::failure::Failure;
use super::location::encode;
use super::session::Session;
use crate::error::{Error, Result};
use crate::store::http::answer::{self, Asked};
use crate::store::http::call::Call;
use crate::store::{ByteRange, Content, Next, ObjectInfo, Page, Site as _, errors};

/// A page has at most 5000 entries of about a kilobyte.
const MAX_PAGE: usize = 32 << 20;

impl AzureBucket {
    /// A page of the blobs whose names begin with `prefix`. Pages are in the order of names. The service cannot begin
    /// after a name: what comes before it is left out here.
    pub(super) async fn list_blobs(&self, prefix: &str, start: Option<Next>) -> Result<Page<ObjectInfo>> {
        let session = self.session().await?;
        let what = format!("list '{prefix}'");
        let (after, token) = match start {
            None => (None, None),
            Some(Next::After(key)) => (Some(key), None),
            Some(Next::Token(token)) => (None, Some(token)),
        };
        let call = Call::new(Method::GET, self.list_path(prefix, token.as_deref()));
        let response =
            session.send(&call, self.way).await.map_err(|failure| self.explain(&session, failure, &what))?;
        let body = session.http.read_all(response, MAX_PAGE).await;
        let page = body.and_then(|body| Listing::read(&body).map_err(|e| e.context(session.http.endpoint())));
        let page = page.map_err(|e| self.explain(&session, Failure::Error(e), &what))?;
        let mut entries = Vec::new();
        for blob in page.blobs.blobs {
            if !blob.is_folder() && after.as_ref().is_none_or(|after| blob.name > *after) {
                entries.push(blob.info()?);
            }
        }
        let next = Some(page.next_marker).filter(|token| !token.is_empty());
        if next.is_some() && next == token {
            return Err(Error::wrong_answer("the store's listing goes in circles"));
        }
        Ok(Page { entries, next: next.map(Next::Token) })
    }

    fn list_path(&self, prefix: &str, token: Option<&str>) -> String {
        let mut path = format!(
            "{}?restype=container&comp=list&include=metadata&prefix={}",
            self.site().container_path(),
            encode(prefix)
        );
        if let Some(token) = token {
            path += &format!("&marker={}", encode(token));
        }
        path
    }

    /// Size and times of a blob.
    pub(super) async fn describe_blob(&self, key: &str) -> Result<ObjectInfo> {
        let session = self.session().await?;
        let call = Call::new(Method::HEAD, self.site().blob_path(key));
        let response = session.send(&call, self.way).await;
        let response = response.map_err(|failure| self.read_error(&session, failure, key))?;
        let described = blob::described(key, response.headers());
        described.map_err(|e| {
            let e = e.context(session.http.endpoint());
            self.explain(&session, Failure::Error(e), &format!("read {key}"))
        })
    }

    /// The bytes of `range` of a blob.
    pub(super) async fn get_blob(&self, key: &str, range: ByteRange, size: Option<u64>) -> Result<Content> {
        let session = self.session().await?;
        let url = self.site().url();
        // The service has no ranges that are counted from the end.
        let size = match (range, size) {
            (ByteRange::Suffix { .. }, None) => Some(self.describe_blob(key).await?.size),
            _ => size,
        };
        let wanted = match (range, size) {
            (ByteRange::Suffix { .. }, Some(0)) => return Ok(answer::empty()),
            (ByteRange::Suffix { len }, Some(size)) => {
                let len = len.min(size);
                ByteRange::Bounded { offset: size - len, len }
            }
            _ => range,
        };
        let mut call = Call::new(Method::GET, self.site().blob_path(key)).reads();
        if let Some(range) = answer::range_header(wanted) {
            call = call.header("range", range);
        }
        match session.send(&call, self.way).await {
            Ok(response) => {
                let described = blob::described(key, response.headers());
                let timestamp = described.ok().map(|object| object.timestamp);
                answer::content(&session.http, response, Asked { url: &url, key, size }, wanted)
                    .map(|content| Content { timestamp, ..content })
            }
            Err(Failure::Refused(refusal)) if refusal.status == 416 => match range {
                // No range of an empty blob can be satisfied.
                ByteRange::Prefix { .. } if self.describe_blob(key).await?.size == 0 => Ok(answer::empty()),
                _ => Err(errors::too_short(&url, key, range, refusal.size.unwrap_or(0))),
            },
            Err(failure) => Err(self.read_error(&session, failure, key)),
        }
    }

    fn read_error(&self, session: &Session, failure: Failure, key: &str) -> Error {
        match failure {
            Failure::Refused(refusal) if refusal.is_of_the_blob() => {
                errors::not_found(&self.site().url(), key)
            }
            other => self.explain(session, other, &format!("read {key}")),
        }
    }
}
