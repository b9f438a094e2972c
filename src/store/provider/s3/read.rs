//! Reading objects: HeadObject and GetObject with ranges.

use http::HeaderMap;
use http::header::{CONTENT_LENGTH, LAST_MODIFIED};
use reqwest::{Method, Response};

use super::failure::Failure;
use super::session::Request;
use super::{Dialect, S3Bucket, SessionRef};
use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::store::http::answer::{self, Asked};
use crate::store::{Bucket as _, ByteRange, Content, ObjectInfo, errors};

impl S3Bucket {
    /// Size and times of an object.
    pub(super) async fn head_object(&self, key: &str) -> Result<ObjectInfo> {
        let session = self.session().await?;
        let request = Request::object(Method::HEAD, key.to_owned()).headers(self.key_headers());
        let response = match session.send(&request, self.way).await {
            Ok(response) => response,
            Err(failure) => return Err(self.read_error(&session, failure, key)),
        };
        let headers = response.headers();
        let (size, stored) =
            (answer::number(headers.get(CONTENT_LENGTH)), answer::date(headers.get(LAST_MODIFIED)));
        let timestamp = committed(headers, self.target().dialect).or(stored);
        let key = key.to_owned();
        if let (Some(size), Some(timestamp)) = (size, timestamp) {
            return Ok(ObjectInfo { key, size, timestamp, stored: stored.unwrap_or(timestamp) });
        }
        // A gateway keeps it to itself.
        let listed = self.listed_object(&session, &key).await?;
        let (listed_size, listed_time) = listed.ok_or_else(|| unclear(&session, &key))?;
        let timestamp = timestamp.unwrap_or(listed_time);
        Ok(ObjectInfo { key, size: size.unwrap_or(listed_size), timestamp, stored: listed_time })
    }

    /// The bytes of `range` of an object, whose size is `listed` if a listing had it.
    pub(super) async fn get_object(
        &self,
        key: &str,
        range: ByteRange,
        listed: Option<u64>,
    ) -> Result<Content> {
        let session = self.session().await?;
        let mut request = Request::object(Method::GET, key.to_owned()).headers(self.key_headers());
        if let Some(range) = answer::range_header(range) {
            request = request.header("range", range).headers(self.target().dialect.strict_range());
        }
        match session.send(&request, self.way).await {
            Ok(response) => self.content(&session, response, key, range, listed).await,
            Err(Failure::Refused(refusal)) => match (range, refusal.status) {
                (ByteRange::Prefix { len } | ByteRange::Suffix { len }, 416 | 500) => {
                    let refused = session.explain(refusal.into(), &format!("read {key}"));
                    self.short_object(key, len, listed, refused).await
                }
                (ByteRange::Bounded { .. }, 416) => {
                    Err(errors::too_short(&self.describe(), key, range, refusal.size.unwrap_or(0)))
                }
                _ => Err(self.read_error(&session, refusal.into(), key)),
            },
            Err(failure) => Err(self.read_error(&session, failure, key)),
        }
    }

    /// The first or last `len` bytes of a file of which the store refused them. Some stores fail where a range is
    /// longer than the file (s3s-fs 0.14 with 500 or 416, all of them with 416 if the file is empty): the whole
    /// file is what was asked for then, else `refused` stands.
    async fn short_object(
        &self,
        key: &str,
        len: u64,
        listed: Option<u64>,
        refused: Error,
    ) -> Result<Content> {
        let size = match listed {
            Some(size) => size,
            None => self.head_object(key).await?.size,
        };
        match size {
            0 => Ok(answer::empty()),
            size if size < len => {
                let exact = ByteRange::Bounded { offset: 0, len: size };
                Box::pin(self.get_object(key, exact, listed)).await
            }
            _ => Err(refused),
        }
    }

    /// The bytes of `range` in an answer that has them, or the whole file. Gateways keep the size to themselves: it is
    /// in the listing then.
    async fn content(
        &self,
        session: &SessionRef,
        response: Response,
        key: &str,
        range: ByteRange,
        listed: Option<u64>,
    ) -> Result<Content> {
        let size = match listed {
            None if !answer::says_size(&session.http, &response, key)? => {
                self.listed_object(session, key).await?.map(|(size, _)| size)
            }
            listed => listed,
        };
        // Listings do not have the time of the last commit.
        let timestamp = answer::date(response.headers().get(LAST_MODIFIED));
        let asked = Asked { url: &self.describe(), key, size };
        answer::content(&session.http, response, asked, range).map(|content| Content { timestamp, ..content })
    }

    /// Size and time of one object, from a listing.
    async fn listed_object(&self, session: &SessionRef, key: &str) -> Result<Option<(u64, Timestamp)>> {
        let page = self.page(session, key, None).await?;
        page.find(key)
    }

    fn read_error(&self, session: &SessionRef, failure: Failure, key: &str) -> Error {
        match failure {
            Failure::Refused(refusal)
                if refusal.status == 404 && matches!(refusal.code.as_str(), "" | "NoSuchKey") =>
            {
                errors::not_found(&self.describe(), key)
            }
            other => session.explain(other, &format!("read {key}")),
        }
    }
}

fn unclear(session: &SessionRef, key: &str) -> Error {
    Error::wrong_answer(format!("{} does not tell the size of {key}", session.http.endpoint()))
}

/// When the file was committed, if the object says so.
fn committed(headers: &HeaderMap, dialect: Dialect) -> Option<Timestamp> {
    headers.get(dialect.timestamp())?.to_str().ok()?.parse().ok()
}
