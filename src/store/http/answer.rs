//! Answers of stores that speak HTTP: which bytes of an object they have, and what time it is there.

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use http::header::{AGE, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, DATE};
use http::{HeaderMap, HeaderValue};
use reqwest::{Response, StatusCode};

use super::Http;
use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::store::clock::StoreClock;
use crate::store::{ByteRange, Content, errors};

/// No file is larger, and many servers know no larger number.
const MAX_OFFSET: u64 = i64::MAX as u64;

/// The value of a Range header, if one is needed.
pub(in crate::store) fn range_header(range: ByteRange) -> Option<String> {
    match range {
        ByteRange::All => None,
        ByteRange::Bounded { offset, len } => {
            let last = offset.saturating_add(len).saturating_sub(1);
            Some(format!("bytes={}-{}", offset.min(MAX_OFFSET), last.min(MAX_OFFSET)))
        }
        ByteRange::Prefix { len } => Some(format!("bytes=0-{}", len.saturating_sub(1).min(MAX_OFFSET))),
        ByteRange::Suffix { len } => Some(format!("bytes=-{}", len.min(MAX_OFFSET))),
    }
}

/// The content of an object without bytes.
pub(in crate::store) fn empty() -> Content {
    Content { offset: 0, file_size: 0, timestamp: None, body: stream::empty::<Result<Bytes>>().boxed() }
}

/// The bytes that an answer has of an object: from `first` up to `end`, of `size` in all if it says so.
struct Part {
    first: u64,
    end: u64,
    size: Option<u64>,
}

/// An object that was asked for.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct Asked<'a> {
    /// The replica's URL.
    pub(in crate::store) url: &'a str,
    /// The object's key.
    pub(in crate::store) key: &'a str,
    /// Its size, if a listing gave it.
    pub(in crate::store) size: Option<u64>,
}

/// Whether an answer that has bytes of the object `key` says how large that is.
///
/// # Errors
/// `WrongAnswer` if it does not say which bytes it has.
pub(in crate::store) fn says_size(http: &Http, response: &Response, key: &str) -> Result<bool> {
    part(http, response, key).map(|part| part.size.is_some())
}

/// The bytes of `range` in an answer that has them, or has the whole object.
///
/// # Errors
/// `WrongAnswer` if it has other bytes, or is of an object of another size.
pub(in crate::store) fn content(
    http: &Http,
    response: Response,
    asked: Asked<'_>,
    range: ByteRange,
) -> Result<Content> {
    let Asked { url, key, size } = asked;
    let part = part(http, &response, key)?;
    let file_size = part
        .size
        .or(size)
        .ok_or_else(|| Error::wrong_answer(format!("{} does not give the size of {key}", http.endpoint())))?;
    if let Some(listed) = size {
        errors::check_size(url, key, listed, file_size).map_err(|e| e.context(http.endpoint()))?;
    }
    let (start, end) =
        range.within(file_size).ok_or_else(|| errors::too_short(url, key, range, file_size))?;
    if start < part.first || end > part.end.min(file_size) {
        return Err(Error::wrong_answer(format!(
            "{} sent bytes {} to {} of {key} where {start} to {end} were asked for",
            http.endpoint(),
            part.first,
            part.end.min(file_size)
        )));
    }
    let body = http.read_stream(response, start - part.first, end - start);
    Ok(Content { offset: start, file_size, timestamp: None, body })
}

fn part(http: &Http, response: &Response, key: &str) -> Result<Part> {
    let headers = response.headers();
    let endpoint = http.endpoint();
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
            if let Some(length) = length.filter(|length| *length != part.end - part.first) {
                return Err(Error::wrong_answer(format!(
                    "{endpoint} announced bytes {} to {} of {key} and sent {length} bytes",
                    part.first, part.end
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

/// `bytes {first}-{last}/{size}`, where an asterisk may stand for the size.
fn content_range(text: &str) -> Option<Part> {
    let (range, size) = text.trim().strip_prefix("bytes")?.trim_start().split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    let size: Option<u64> = if size == "*" { None } else { Some(size.parse().ok()?) };
    let fits = first <= last && size.is_none_or(|size| last < size);
    fits.then(|| Part { first, end: last.saturating_add(1), size })
}

/// The size at the end of a Content-Range that refuses a range: `bytes */{size}`.
pub(in crate::store) fn size_of_refused_range(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_RANGE)?.to_str().ok()?.rsplit('/').next()?.parse().ok()
}

/// A header's value as a number.
pub(in crate::store) fn number(value: Option<&HeaderValue>) -> Option<u64> {
    value?.to_str().ok()?.parse().ok()
}

/// A header's value as a date of HTTP.
pub(in crate::store) fn date(value: Option<&HeaderValue>) -> Option<Timestamp> {
    date_of(value?.to_str().ok()?)
}

/// A date of HTTP.
pub(in crate::store) fn date_of(text: &str) -> Option<Timestamp> {
    let date = jiff::fmt::rfc2822::parse(text).ok()?;
    Some(Timestamp::from_millis(date.timestamp().as_millisecond()))
}

/// Notes the time that an answer gives. One out of a cache gives another time.
pub(in crate::store) fn hear_time(clock: &StoreClock, headers: &HeaderMap) {
    if let (Some(date), None) = (date(headers.get(DATE)), headers.get(AGE)) {
        // A time of seconds, rounded down: it is this time at most. A commit that counts as made a moment too late
        // shows in no earlier state.
        clock.told(Timestamp::from_millis(date.as_millis() + 999));
    }
}

/// The answer, unless it is a web page: no store answers with one, and nobody stores LTX files as such.
///
/// # Errors
/// `WrongAnswer` if it is.
pub(in crate::store) fn no_web_page(http: &Http, response: Response) -> Result<Response> {
    let kind = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    if !kind.trim_start().to_ascii_lowercase().starts_with("text/html") {
        return Ok(response);
    }
    Err(Error::wrong_answer(format!(
        "{} answered with a web page (HTTP status {}, {kind}): a proxy or a login page is in between, or the endpoint \
         is not that of the store",
        http.endpoint(),
        response.status().as_u16()
    )))
}
