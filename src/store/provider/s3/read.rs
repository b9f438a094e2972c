//! Reading objects: HeadObject and GetObject with ranges.

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, LAST_MODIFIED};
use reqwest::{Method, Response, StatusCode};

use super::failure::Failure;
use super::session::Request;
use super::{Dialect, S3Bucket, SessionRef};
use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::store::{Bucket as _, ByteRange, Content, ObjectInfo, errors};

/// No file is larger, and many servers know no larger number.
const MAX_OFFSET: u64 = i64::MAX as u64;

/// The bytes that an answer has of a file: from `first` up to `end`, of `size` in all if that is said.
struct Part {
    first: u64,
    end: u64,
    size: Option<u64>,
}

impl S3Bucket {
    /// Size and times of an object.
    pub(super) async fn head_object(&self, key: &str) -> Result<ObjectInfo> {
        let session = self.session().await?;
        let request = Request::object(Method::HEAD, key.to_owned()).headers(self.key_headers());
        let response = match session.send(&request).await {
            Ok(response) => response,
            Err(failure) => return Err(self.read_error(&session, failure, key)),
        };
        let headers = response.headers();
        let (size, stored) = (number(headers.get(CONTENT_LENGTH)), stored(headers));
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
        if let Some(range) = range_header(range) {
            request = request.header("range", range).headers(self.target().dialect.strict_range());
        }
        match session.send(&request).await {
            Ok(response) => self.content(&session, response, key, range, listed).await,
            Err(Failure::Refused(refusal)) => match (range, refusal.status) {
                (ByteRange::Suffix { len }, 416 | 500) => {
                    let refused = session.explain(refusal.into(), &format!("read {key}"));
                    self.short_suffix(key, len, listed, refused).await
                }
                (ByteRange::Bounded { .. }, 416) => {
                    let size = refusal.content_range.as_deref();
                    let size = size.and_then(|text| text.rsplit('/').next()?.parse().ok()).unwrap_or(0);
                    Err(errors::too_short(&self.describe(), key, range, size))
                }
                _ => Err(self.read_error(&session, refusal.into(), key)),
            },
            Err(failure) => Err(self.read_error(&session, failure, key)),
        }
    }

    /// The last `len` bytes of a file of which the store refused them. Some stores fail where a suffix is
    /// longer than the file (s3s-fs 0.14 with 500, all of them with 416 if the file is empty): the whole
    /// file is what was asked for then, else `refused` stands.
    async fn short_suffix(
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
            0 => Ok(empty()),
            size if size < len => {
                let exact = ByteRange::Bounded { offset: 0, len: size };
                Box::pin(self.get_object(key, exact, listed)).await
            }
            _ => Err(refused),
        }
    }

    /// The bytes of `range` in an answer that has them, or the whole file.
    async fn content(
        &self,
        session: &SessionRef,
        response: Response,
        key: &str,
        range: ByteRange,
        listed: Option<u64>,
    ) -> Result<Content> {
        let part = self.part(session, &response, key)?;
        let file_size = match part.size.or(listed) {
            Some(size) => size,
            None => {
                let found = self.listed_object(session, key).await?;
                found.ok_or_else(|| unclear(session, key))?.0
            }
        };
        if let Some(listed) = listed {
            errors::check_size(&self.describe(), key, listed, file_size)
                .map_err(|e| e.context(session.http.endpoint()))?;
        }
        let (start, end) = range
            .within(file_size)
            .ok_or_else(|| errors::too_short(&self.describe(), key, range, file_size))?;
        if start < part.first || end > part.end.min(file_size) {
            return Err(Error::wrong_answer(format!(
                "{} sent bytes {} to {} of {key} where {start} to {end} were asked for",
                session.http.endpoint(),
                part.first,
                part.end
            )));
        }
        let body = session.http.read_stream(response, start - part.first, end - start);
        Ok(Content { offset: start, file_size, body })
    }

    /// Which bytes an answer says that it has.
    fn part(&self, session: &SessionRef, response: &Response, key: &str) -> Result<Part> {
        let headers = response.headers();
        let endpoint = session.http.endpoint();
        let length = number(headers.get(CONTENT_LENGTH));
        match response.status() {
            StatusCode::OK => Ok(Part { first: 0, end: length.unwrap_or(u64::MAX), size: length }),
            StatusCode::PARTIAL_CONTENT => {
                let text = headers.get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
                let part = text.and_then(content_range).ok_or_else(|| {
                    let said = text.unwrap_or("none");
                    Error::wrong_answer(format!(
                        "{endpoint} sent a part of {key} and did not say which (Content-Range: {said})"
                    ))
                })?;
                if length.is_some_and(|length| length != part.end - part.first) {
                    return Err(Error::wrong_answer(format!(
                        "{endpoint} announced bytes {} to {} of {key} and sent {} bytes",
                        part.first,
                        part.end,
                        length.unwrap_or_default()
                    )));
                }
                Ok(part)
            }
            status => Err(Error::wrong_answer(format!(
                "{endpoint} answered HTTP status {} to a request for {key}",
                status.as_u16()
            ))),
        }
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

/// `bytes {first}-{last}/{size}`, where an asterisk may stand for the size.
fn content_range(text: &str) -> Option<Part> {
    let (range, size) = text.trim().strip_prefix("bytes")?.trim_start().split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    let size: Option<u64> = if size == "*" { None } else { Some(size.parse().ok()?) };
    let fits = first <= last && size.is_none_or(|size| last < size);
    fits.then(|| Part { first, end: last.saturating_add(1), size })
}

fn number(value: Option<&http::HeaderValue>) -> Option<u64> {
    value?.to_str().ok()?.parse().ok()
}

/// When the file was committed, if the object says so.
fn committed(headers: &HeaderMap, dialect: Dialect) -> Option<Timestamp> {
    headers.get(dialect.timestamp())?.to_str().ok()?.parse().ok()
}

/// When the object was stored.
fn stored(headers: &HeaderMap) -> Option<Timestamp> {
    let stored = jiff::fmt::rfc2822::parse(headers.get(LAST_MODIFIED)?.to_str().ok()?).ok()?;
    Some(Timestamp::from_millis(stored.timestamp().as_millisecond()))
}
