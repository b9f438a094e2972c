//! Requests to services that know who we are: token endpoints, and the metadata services of machines in a cloud.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use reqwest::Method;
use url::Url;

use crate::error::{Error, ErrorKind, Result};
use crate::store::http::{Http, IDLE_TIMEOUT, Way};

/// Larger answers are not credentials.
const MAX_ANSWER: usize = 1 << 20;

/// A request to such a service.
#[derive(Debug)]
pub(in crate::store) struct Ask {
    pub(in crate::store) method: Method,
    pub(in crate::store) url: String,
    pub(in crate::store) headers: Vec<(&'static str, String)>,
    pub(in crate::store) body: Bytes,
    /// The longest time to wait for the whole answer.
    pub(in crate::store) limit: Duration,
}

impl Ask {
    /// A GET of `url`.
    pub(in crate::store) fn get(url: impl Into<String>) -> Self {
        Self {
            method: Method::GET,
            url: url.into(),
            headers: Vec::new(),
            body: Bytes::new(),
            limit: IDLE_TIMEOUT,
        }
    }

    /// A POST of a form to `url`.
    pub(in crate::store) fn form(url: impl Into<String>, body: String) -> Self {
        let kind = ("content-type", "application/x-www-form-urlencoded".to_owned());
        Self { method: Method::POST, headers: vec![kind], body: body.into(), ..Self::get(url) }
    }

    pub(in crate::store) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(in crate::store) fn within(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }
}

/// What such a service answered.
#[derive(Debug)]
pub(in crate::store) struct Reply {
    pub(in crate::store) status: u16,
    pub(in crate::store) body: Bytes,
    /// Scheme, host and port of the service, for messages.
    pub(in crate::store) place: String,
}

/// Asks, once.
///
/// # Errors
/// `Unavailable` or `Timeout` if there is no answer, naming the service; `Config` if the URL is none.
pub(in crate::store) async fn ask(ask: Ask) -> Result<Reply> {
    let url = Url::parse(&ask.url).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    // The path may hold what nobody else should see.
    let url =
        url.ok_or_else(|| Error::config("the address of the service that gives tokens is not a URL"))?;
    let place = url.origin().ascii_serialization();
    let limit = ask.limit;
    let late = || {
        let seconds = limit.as_secs_f32().max(0.1);
        Error::new(ErrorKind::Timeout, format!("{place} did not answer within {seconds} s"))
    };
    let answer = tokio::time::timeout(limit, exchange(ask, url, &place)).await;
    answer.unwrap_or_else(|_| Err(late()))
}

async fn exchange(ask: Ask, url: Url, place: &str) -> Result<Reply> {
    let mut request = reqwest::Request::new(ask.method, url);
    for (name, value) in &ask.headers {
        let mut value = HeaderValue::from_str(value).map_err(|_| {
            Error::config(format!("a value for the header {name} has a character that no header may have"))
        })?;
        value.set_sensitive(true);
        request.headers_mut().insert(HeaderName::from_static(name), value);
    }
    let http = Http::new(place, place, false, IDLE_TIMEOUT)?;
    let response = http.send(request, ask.body, Way::Usual).await?;
    let status = response.status().as_u16();
    let body = http.read_all(response, MAX_ANSWER).await?;
    Ok(Reply { status, body, place: place.to_owned() })
}
