//! Reading objects: HeadObject and GetObject with ranges.

use std::fmt::Display;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, LAST_MODIFIED};
use reqwest::{Method, Response, StatusCode};

use super::failure::Failure;
use super::session::{Request, Session};
use super::{S3Store, TIMESTAMP};
use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::store::{ByteRange, Content, Store as _, errors};

/// No file is larger, and many servers know no larger number.
const MAX_OFFSET: u64 = i64::MAX as u64;

/// What an object is called in messages.
type Name<'a> = &'a (dyn Display + Sync);

impl S3Store {
    /// Size and time of an object, which is called `id` in messages.
    pub(super) async fn head_object(&self, key: String, id: Name<'_>) -> Result<(u64, Timestamp)> {
        let session = self.session().await?;
        let request = Request::object(Method::HEAD, key).headers(self.key_headers());
        let response = match session.send(&request).await {
            Ok(response) => response,
            Err(failure) => return Err(self.read_error(&session, failure, id)),
        };
        let headers = response.headers();
        let size = number(headers.get(CONTENT_LENGTH));
        let timestamp = timestamp(headers);
        match (size, timestamp) {
            (Some(size), Some(timestamp)) => Ok((size, timestamp)),
            _ => Err(Error::corrupt(format!(
                "{} tells neither size nor time of {id}",
                session.http.endpoint()
            ))),
        }
    }

    /// The bytes of `range` of an object, which is called `id` in messages.
    pub(super) async fn get_object(&self, key: String, id: Name<'_>, range: ByteRange) -> Result<Content> {
        let session = self.session().await?;
        let mut request = Request::object(Method::GET, key.clone()).headers(self.key_headers());
        if let Some(range) = range_header(range) {
            request = request.header("range", range);
        }
        match session.send(&request).await {
            Ok(response) => self.content(&session, response, id, range),
            Err(Failure::Refused(refusal)) => match (range, refusal.status) {
                (ByteRange::Suffix { len }, 416 | 500) => {
                    let refused = session.explain(refusal.into(), &format!("read {id}"));
                    self.short_suffix(key, id, len, refused).await
                }
                (ByteRange::Bounded { .. }, 416) => {
                    let size = refusal.content_range.as_deref();
                    let size = size.and_then(|text| text.rsplit('/').next()?.parse().ok()).unwrap_or(0);
                    Err(errors::too_short(&self.url(), id, range, size))
                }
                _ => Err(self.read_error(&session, refusal.into(), id)),
            },
            Err(failure) => Err(self.read_error(&session, failure, id)),
        }
    }

    /// The last `len` bytes of a file of which the store refused them. Some stores fail where a suffix is
    /// longer than the file (s3s-fs 0.14 with 500, all of them with 416 if the file is empty): the whole
    /// file is what was asked for then, else `refused` stands.
    async fn short_suffix(&self, key: String, id: Name<'_>, len: u64, refused: Error) -> Result<Content> {
        match self.head_object(key.clone(), id).await?.0 {
            0 => Ok(empty()),
            size if size < len => {
                let exact = ByteRange::Bounded { offset: 0, len: size };
                Box::pin(self.get_object(key, id, exact)).await
            }
            _ => Err(refused),
        }
    }

    /// The bytes of `range` in an answer that has them, or the whole file.
    fn content(
        &self,
        session: &Session,
        response: Response,
        id: Name<'_>,
        range: ByteRange,
    ) -> Result<Content> {
        let headers = response.headers();
        let unclear =
            || Error::corrupt(format!("{} does not tell the size of {id}", session.http.endpoint()));
        let (first, last_plus_one, file_size) = if response.status() == StatusCode::PARTIAL_CONTENT {
            let text = headers.get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
            text.and_then(content_range).ok_or_else(unclear)?
        } else {
            let size = number(headers.get(CONTENT_LENGTH)).ok_or_else(unclear)?;
            (0, size, size)
        };
        let (start, end) =
            range.within(file_size).ok_or_else(|| errors::too_short(&self.url(), id, range, file_size))?;
        if start < first || end > last_plus_one {
            return Err(Error::corrupt(format!(
                "{} sent bytes {first} to {last_plus_one} of {id} where {start} to {end} were asked for",
                session.http.endpoint()
            )));
        }
        let body = session.http.read_stream(response, start - first, end - start);
        Ok(Content { offset: start, file_size, body })
    }

    fn read_error(&self, session: &Session, failure: Failure, id: Name<'_>) -> Error {
        match failure {
            Failure::Refused(refusal)
                if refusal.status == 404 && matches!(refusal.code.as_str(), "" | "NoSuchKey") =>
            {
                errors::not_found(&self.url(), id)
            }
            other => session.explain(other, &format!("read {id}")),
        }
    }
}

fn empty() -> Content {
    Content { offset: 0, file_size: 0, body: stream::empty::<Result<Bytes>>().boxed() }
}

fn range_header(range: ByteRange) -> Option<String> {
    match range {
        ByteRange::All => None,
        ByteRange::Bounded { offset, len } => {
            let last = offset.saturating_add(len).saturating_sub(1);
            Some(format!("bytes={}-{}", offset.min(MAX_OFFSET), last.min(MAX_OFFSET)))
        }
        ByteRange::Suffix { len } => Some(format!("bytes=-{len}")),
    }
}

/// `bytes {first}-{last}/{size}` as first, last + 1, size.
fn content_range(text: &str) -> Option<(u64, u64, u64)> {
    let (range, size) = text.trim().strip_prefix("bytes")?.trim_start().split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last, size): (u64, u64, u64) = (first.parse().ok()?, last.parse().ok()?, size.parse().ok()?);
    (first <= last && last < size).then_some((first, last + 1, size))
}

fn number(value: Option<&http::HeaderValue>) -> Option<u64> {
    value?.to_str().ok()?.parse().ok()
}

/// When the file was committed, if the object says so, else when it was stored.
fn timestamp(headers: &HeaderMap) -> Option<Timestamp> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    text(TIMESTAMP).and_then(|text| text.parse().ok()).or_else(|| {
        let stored = jiff::fmt::rfc2822::parse(text(LAST_MODIFIED.as_str())?).ok()?;
        Some(Timestamp::from_millis(stored.timestamp().as_millisecond()))
    })
}
