//! Reading: listings, descriptions of objects, and ranges of their content.

use reqwest::Method;

use super::GcsBucket;
use super::failure::Failure;
use super::object::{FIELDS, Listing, Object};
use super::session::Session;
use super::site::encode;
use crate::error::{Error, Result};
use crate::store::http::answer::{self, Asked};
use crate::store::http::call::Call;
use crate::store::{ByteRange, Content, Next, ObjectInfo, Page, Site as _, errors};

/// A page has at most 1000 entries of about 500 bytes.
const MAX_PAGE: usize = 16 << 20;
/// The description of one object is shorter.
const MAX_OBJECT: usize = 64 << 10;

impl GcsBucket {
    /// A page of the objects whose names begin with `prefix`. Pages are in the order of names.
    pub(super) async fn list_objects(&self, prefix: &str, start: Option<Next>) -> Result<Page<ObjectInfo>> {
        let session = self.session().await?;
        let what = format!("list '{prefix}'");
        let call = Call::new(Method::GET, self.list_path(prefix, start.as_ref()));
        let response =
            session.send(&call, self.way).await.map_err(|failure| self.explain(&session, failure, &what))?;
        let body = session.http.read_all(response, MAX_PAGE).await;
        let page = body.and_then(|body| Listing::read(&body).map_err(|e| e.context(session.http.endpoint())));
        let page = page.map_err(|e| self.explain(&session, Failure::Error(e), &what))?;
        let after = match &start {
            Some(Next::After(key)) => Some(key.as_str()),
            _ => None,
        };
        let mut entries = Vec::new();
        for object in page.items {
            // The offset is the first name that is listed, and the one after which the page begins.
            if !object.name.ends_with('/') && after.is_none_or(|after| object.name.as_str() > after) {
                entries.push(object.info()?);
            }
        }
        let next = page.next.filter(|token| !token.is_empty()).map(Next::Token);
        if next.is_some() && next == start {
            return Err(Error::wrong_answer("the store's listing goes in circles"));
        }
        Ok(Page { entries, next })
    }

    fn list_path(&self, prefix: &str, start: Option<&Next>) -> String {
        let mut path = format!(
            "{}/o?prefix={}&projection=noAcl&fields=kind,nextPageToken,items({FIELDS})",
            self.site().bucket_path(),
            encode(prefix)
        );
        match start {
            Some(Next::After(key)) => path += &format!("&startOffset={}", encode(key)),
            Some(Next::Token(token)) => path += &format!("&pageToken={}", encode(token)),
            None => {}
        }
        path
    }

    /// Size and times of an object.
    pub(super) async fn describe_object(&self, key: &str) -> Result<ObjectInfo> {
        let session = self.session().await?;
        let call = Call::new(Method::GET, format!("{}?fields={FIELDS}", self.site().object_path(key)));
        let response =
            session.send(&call, self.way).await.map_err(|failure| self.read_error(&session, failure, key))?;
        let body = session.http.read_all(response, MAX_OBJECT).await;
        let object =
            body.and_then(|body| Object::read(&body).map_err(|e| e.context(session.http.endpoint())));
        object.map_err(|e| self.explain(&session, Failure::Error(e), &format!("read {key}")))
    }

    /// The bytes of `range` of an object.
    pub(super) async fn get_object(&self, key: &str, range: ByteRange, size: Option<u64>) -> Result<Content> {
        let session = self.session().await?;
        let mut call = Call::new(Method::GET, format!("{}?alt=media", self.site().object_path(key))).reads();
        if let Some(range) = answer::range_header(range) {
            call = call.header("range", range);
        }
        let url = self.site().url();
        let response = match session.send(&call, self.way).await {
            Ok(response) => response,
            Err(Failure::Refused(refusal)) if refusal.status == 416 => {
                return match range {
                    // A range of an empty object cannot be satisfied.
                    ByteRange::Prefix { .. } | ByteRange::Suffix { .. }
                        if self.describe_object(key).await?.size == 0 =>
                    {
                        Ok(answer::empty())
                    }
                    _ => Err(errors::too_short(&url, key, range, refusal.size.unwrap_or(0))),
                };
            }
            Err(failure) => return Err(self.read_error(&session, failure, key)),
        };
        if response.status() == 206 && response.content_length() == Some(0) {
            // An emulator's answer for an empty object, which names no bytes.
            return match self.describe_object(key).await?.size {
                0 => Ok(answer::empty()),
                size => Err(errors::too_short(&url, key, range, size)),
            };
        }
        answer::content(&session.http, response, Asked { url: &url, key, size }, range)
    }

    fn read_error(&self, session: &Session, failure: Failure, key: &str) -> Error {
        match failure {
            Failure::Refused(refusal) if refusal.status == 404 && !refusal.is_of_the_bucket() => {
                errors::not_found(&self.site().url(), key)
            }
            other => self.explain(session, other, &format!("read {key}")),
        }
    }
}
