//! Small requests to addresses that are no stores: webhooks and heartbeats. They go by the same clients, so that proxies and
//! certificates are those of the stores.

use std::time::Duration;

use bytes::Bytes;
use reqwest::Method;

use super::{Way, client, root_cause};
use crate::error::{Error, ErrorKind, Result};

/// What an address is told.
#[derive(Clone, Debug)]
pub struct Notification {
    /// The address. It may be a secret as a whole, and is in no error.
    pub url: String,
    /// JSON that is posted; `None` for a plain `GET`.
    pub body: Option<Bytes>,
    /// Headers beside those that every request has.
    pub headers: Vec<(&'static str, String)>,
}

/// Tells an address, once.
///
/// # Errors
/// `Unavailable` and `Timeout` if another attempt may succeed; `Denied` if the answer was a refusal; `Config`.
pub async fn notify(notification: &Notification, timeout: Duration) -> Result<()> {
    let client = client(&notification.url, false, Way::New)?;
    let method = if notification.body.is_some() { Method::POST } else { Method::GET };
    let mut request = client.request(method, &notification.url).timeout(timeout);
    if let Some(body) = &notification.body {
        request = request.header("content-type", "application/json").body(body.clone());
    }
    for (name, value) in &notification.headers {
        request = request.header(*name, value);
    }
    let answer = request.send().await.map_err(|e| {
        let kind = if e.is_timeout() { ErrorKind::Timeout } else { ErrorKind::Unavailable };
        Error::new(kind, root_cause(&e))
    })?;
    let status = answer.status();
    match status.as_u16() {
        200..300 => Ok(()),
        408 | 425 | 429 | 500.. => {
            Err(Error::new(ErrorKind::Unavailable, format!("the answer was {status}")))
        }
        _ => Err(Error::new(ErrorKind::Denied, format!("the answer was {status}"))),
    }
}

/// The host of an address, for messages: the rest may be a secret.
pub fn host_of(url: &str) -> String {
    let host = url::Url::parse(url).ok().and_then(|url| url.host_str().map(str::to_owned));
    host.unwrap_or_else(|| "an address that is no URL".to_owned())
}
