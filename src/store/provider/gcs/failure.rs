//! What the service's refusals mean.

use serde::Deserialize;

use super::site::GcsSite;
use crate::error::{Error, ErrorKind};
use crate::store::Site as _;
use crate::store::http::failure;

/// Why a request failed.
pub(super) type Failure = failure::Failure<Refusal>;

/// An answer that is no success.
#[derive(Clone, Debug, Default)]
pub(super) struct Refusal {
    /// The HTTP status.
    pub(super) status: u16,
    /// The service's name of the failure, such as `notFound`, or empty.
    pub(super) reason: String,
    /// The service's own words.
    pub(super) message: String,
    /// The object's size, if a range was refused.
    pub(super) size: Option<u64>,
}

#[derive(Deserialize)]
struct ErrorDocument {
    error: ErrorBody,
}

#[derive(Deserialize)]
struct ErrorBody {
    #[serde(default)]
    message: String,
    #[serde(default)]
    errors: Vec<ErrorItem>,
}

#[derive(Deserialize)]
struct ErrorItem {
    #[serde(default)]
    reason: String,
}

impl Refusal {
    /// Adds what the body of the answer says.
    pub(super) fn read(&mut self, body: &[u8]) {
        match serde_json::from_slice::<ErrorDocument>(body) {
            Ok(ErrorDocument { error }) => {
                self.message = error.message;
                self.reason = error.errors.into_iter().next().map(|item| item.reason).unwrap_or_default();
            }
            // Downloads and uploads are refused in plain words.
            Err(_) => {
                let text = String::from_utf8_lossy(body);
                if !text.trim_start().starts_with(['<', '{']) {
                    self.message = text.trim().to_owned();
                }
            }
        }
    }

    /// Whether a condition of the request did not hold.
    pub(super) fn is_precondition_failed(&self) -> bool {
        self.status == 412
    }

    /// Whether it is the bucket that does not exist, and not an object.
    pub(super) fn is_of_the_bucket(&self) -> bool {
        self.status == 404 && self.message.to_ascii_lowercase().contains("bucket does not exist")
    }

    /// Whether the service asks to come back later.
    fn is_temporary(&self) -> bool {
        let reason = self.reason.to_ascii_lowercase();
        matches!(self.status, 408 | 429 | 500 | 502 | 503 | 504)
            || ["ratelimitexceeded", "userratelimitexceeded", "backenderror"].contains(&reason.as_str())
    }

    /// Whether the batch as such may be refused, and not what is in it.
    pub(super) fn may_be_of_the_kind(&self) -> bool {
        self.status == 501
            || ((400..500).contains(&self.status) && !self.is_temporary() && self.status != 401)
    }

    /// The error for a user who wanted to `what` (such as "read ltx/0/x") at `endpoint`.
    pub(super) fn into_error(self, what: &str, site: &GcsSite, endpoint: &str) -> Error {
        let (words, bucket, url) = (self.words(), &site.bucket, site.url());
        if self.is_temporary() {
            return Error::new(
                ErrorKind::Unavailable,
                format!("{endpoint} cannot {what} of {url} for now{words}"),
            );
        }
        if matches!(self.status, 401 | 403) {
            return Error::new(ErrorKind::Denied, self.denied(what, site, endpoint));
        }
        let (kind, text) = match self.status {
            404 if self.is_of_the_bucket() || what.starts_with("list") || what.starts_with("write") => (
                ErrorKind::NoBucket,
                format!(
                    "bucket '{bucket}' does not exist at {endpoint}; create it, or correct the replica URL"
                ),
            ),
            404 | 410 => {
                (ErrorKind::NotFound, format!("{endpoint} cannot {what} of {url}: not found{words}"))
            }
            409 => (ErrorKind::Unavailable, format!("{endpoint} cannot {what} of {url} for now{words}")),
            413 => (
                ErrorKind::Unsupported,
                format!("{endpoint} cannot {what} of {url}: it is too large{words}; lower part-size"),
            ),
            501 => (ErrorKind::Unsupported, format!("{endpoint} does not support to {what} of {url}{words}")),
            507 => (ErrorKind::NoSpace, format!("{endpoint} has no space to {what} of {url}{words}")),
            500.. => (ErrorKind::Unavailable, format!("{endpoint} cannot {what} of {url}{words}")),
            _ => (
                ErrorKind::Config,
                format!("{endpoint} refuses to {what} of {url}{words}; check the settings of the replica"),
            ),
        };
        Error::new(kind, text)
    }

    /// Why credentials are not taken, and what to do.
    fn denied(&self, what: &str, site: &GcsSite, endpoint: &str) -> String {
        let (words, bucket, url) = (self.words(), &site.bucket, site.url());
        let message = self.message.to_ascii_lowercase();
        if self.status == 401 && message.contains("reasonable timeframe") {
            return format!(
                "{endpoint} rejects the token for bucket '{bucket}' because this machine's clock is wrong; set the clock"
            );
        }
        if self.status == 401 {
            return format!(
                "{endpoint} does not take the credentials for bucket '{bucket}'{words}; check the file that \
                 GOOGLE_APPLICATION_CREDENTIALS names, and whether its key was deleted or the account disabled"
            );
        }
        if message.contains("billing") || self.reason == "accountDisabled" {
            return format!(
                "{endpoint} refuses to {what} of {url}{words}; check billing and state of the project"
            );
        }
        format!(
            "access to bucket '{bucket}' at {endpoint} is denied: not allowed to {what} of {url}{words}; give the account \
             the role Storage Object User on the bucket"
        )
    }

    /// What the service said, in parentheses.
    fn words(&self) -> String {
        failure::words(self.status, &self.reason, &self.message, [])
    }
}
