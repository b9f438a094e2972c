//! What a store's refusals mean.

use serde::Deserialize;

use super::location::{Encryption, S3Location};
use crate::error::{Error, ErrorKind};
use crate::store::http::{failure, xml};

/// Why a request failed.
pub(super) type Failure = failure::Failure<Refusal>;

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// An answer that is not a success.
#[derive(Clone, Debug, Default)]
pub(super) struct Refusal {
    /// The HTTP status.
    pub(super) status: u16,
    /// S3's name of the failure, or empty. Answers to HEAD have none.
    pub(super) code: String,
    /// The store's own words.
    pub(super) message: String,
    /// The region where the bucket is, if the answer says so.
    pub(super) region: Option<String>,
    /// The object's size, if a range was refused.
    pub(super) size: Option<u64>,
}

#[derive(Deserialize)]
struct ErrorDocument {
    #[serde(rename = "Code", default)]
    code: String,
    #[serde(rename = "Message", default)]
    message: String,
    #[serde(rename = "Region")]
    region: Option<String>,
}

impl Refusal {
    /// Adds what the body of the answer says.
    pub(super) fn read(&mut self, body: &[u8]) {
        if let Ok(document) = xml::document::<ErrorDocument>(body, "Error") {
            self.code = document.code;
            self.message = document.message;
            self.region = self.region.take().or(document.region);
        }
    }

    /// Whether the store has too much to do, and did nothing.
    pub(super) fn is_put_off(&self) -> bool {
        matches!(self.status, 429 | 503)
    }

    /// Whether the store does not know the feature that was asked for.
    pub(super) fn is_not_implemented(&self) -> bool {
        self.status == 501 || self.code == "NotImplemented"
    }

    /// Whether the time of the signature may be the reason. Answers to HEAD do not say.
    pub(super) fn is_of_time(&self) -> bool {
        matches!(self.code.as_str(), "RequestTimeTooSkewed" | "RequestExpired" | "AccessDenied" | "")
            && matches!(self.status, 400 | 401 | 403)
    }

    /// Whether credentials, region or endpoint may have been right and be wrong now.
    pub(super) fn may_be_outdated(&self) -> bool {
        matches!(self.status, 300..=403) || self.is_expired() || self.is_wrong_region()
    }

    /// Whether it may be the kind of request that is refused, and not the bucket, the credentials or the moment.
    pub(super) fn may_be_of_the_kind(&self) -> bool {
        let is_other = self.is_temporary() || self.is_expired() || self.is_wrong_region();
        self.is_not_implemented()
            || ((400..500).contains(&self.status) && !is_other && self.code != "NoSuchBucket")
    }

    /// Whether a condition of the request did not hold. Some stores say so with status 409 and a code of their own.
    pub(super) fn is_precondition_failed(&self) -> bool {
        self.status == 412
            || matches!(
                self.code.as_str(),
                "PreconditionFailed" | "FileAlreadyExists" | "ObjectAlreadyExists" | "KeyAlreadyExists"
            )
    }

    /// Whether something else was under way at the same name or bucket. Says nothing about who wrote what.
    pub(super) fn is_conflict(&self) -> bool {
        self.code == "ConditionalRequestConflict" || (self.status == 409 && !self.is_precondition_failed())
    }

    /// Whether the credentials were right and are too old now.
    pub(super) fn is_expired(&self) -> bool {
        matches!(self.code.as_str(), "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired")
    }

    /// Whether the store says that the request belongs to another region.
    pub(super) fn is_wrong_region(&self) -> bool {
        matches!(self.status, 301 | 307 | 308)
            || matches!(
                self.code.as_str(),
                "PermanentRedirect"
                    | "TemporaryRedirect"
                    | "AuthorizationHeaderMalformed"
                    | "IllegalLocationConstraintException"
            )
            // HEAD has no body to name the reason.
            || (self.status == 400 && self.code.is_empty() && self.region.is_some())
    }

    fn is_temporary(&self) -> bool {
        self.is_conflict()
            || matches!(self.status, 408 | 429 | 500 | 502 | 503 | 504)
            || matches!(
                self.code.as_str(),
                "RequestTimeout"
                    | "RequestCanceled"
                    | "SlowDown"
                    | "InternalError"
                    | "ServiceUnavailable"
                    | "OperationAborted"
            )
    }

    /// The error for a user who wanted to `what` (such as "read level 0 file x") at `place`.
    pub(super) fn into_error(self, what: &str, place: &Place<'_>) -> Error {
        let words = self.words(place.target);
        let Place { target, endpoint, region } = place;
        let bucket = &target.bucket;
        let at = format!("{endpoint} (region {region})");
        let (kind, text) = match self.code.as_str() {
            _ if self.is_wrong_region() => (ErrorKind::Config, self.other_region(place)),
            "NoSuchBucket" => (
                ErrorKind::NoBucket,
                format!("bucket '{bucket}' does not exist at {at}; create it, or correct the replica URL"),
            ),
            "InvalidAccessKeyId" | "InvalidToken" | "InvalidClientTokenId" => (
                ErrorKind::Denied,
                format!(
                    "{at} does not know the credentials for bucket '{bucket}'{words}; check access-key-id \
                         and session-token"
                ),
            ),
            "SignatureDoesNotMatch" => (
                ErrorKind::Denied,
                format!(
                    "{at} rejects the signature for bucket '{bucket}'; check secret-access-key and region"
                ),
            ),
            "RequestTimeTooSkewed" => (
                ErrorKind::Denied,
                format!(
                    "{at} rejects requests for bucket '{bucket}' because this machine's clock is wrong; set the clock"
                ),
            ),
            _ if self.is_expired() => (
                ErrorKind::Denied,
                format!("the credentials for bucket '{bucket}' at {at} have expired; renew them"),
            ),
            _ if self.is_temporary() => {
                (ErrorKind::Unavailable, format!("{at} cannot {what} of {target} for now{words}"))
            }
            _ => self.by_status(what, place, &words),
        };
        Error::new(kind, text)
    }

    fn by_status(&self, what: &str, place: &Place<'_>, words: &str) -> (ErrorKind, String) {
        let Place { target, endpoint, region } = place;
        let at = format!("{endpoint} (region {region})");
        match self.status {
            401 | 403 => (
                ErrorKind::Denied,
                format!(
                    "access to bucket '{}' at {at} is denied: not allowed to {what} of {target}{words}; check the \
                     credentials and the bucket's policy",
                    target.bucket
                ),
            ),
            404 | 410 => (ErrorKind::NotFound, format!("{at} cannot {what} of {target}: not found{words}")),
            413 => (
                ErrorKind::Unsupported,
                format!("{at} cannot {what} of {target}: it is too large{words}; lower part-size"),
            ),
            501 => (ErrorKind::Unsupported, format!("{at} does not support to {what} of {target}{words}")),
            507 => (ErrorKind::NoSpace, format!("{at} has no space to {what} of {target}{words}")),
            500.. => (ErrorKind::Unavailable, format!("{at} cannot {what} of {target}{words}")),
            _ => (
                ErrorKind::Config,
                format!("{at} refuses to {what} of {target}{words}; check the settings of the replica"),
            ),
        }
    }

    fn other_region(&self, place: &Place<'_>) -> String {
        let Place { target, endpoint, region } = place;
        let remedy = match &self.region {
            Some(right) if right != region => format!("set region={right}"),
            _ => "set the right region or endpoint".to_owned(),
        };
        format!("bucket '{}' is not at {endpoint} (region {region}); {remedy}", target.bucket)
    }

    /// What the store said, in parentheses.
    fn words(&self, target: &S3Location) -> String {
        failure::words(self.status, &self.code, &self.message, secrets(target))
    }
}

/// The texts that no message may hold.
fn secrets(target: &S3Location) -> impl Iterator<Item = &str> {
    let key = match &target.encryption {
        Encryption::Customer { key, .. } => Some(key),
        _ => None,
    };
    [target.secret_access_key.as_ref(), target.session_token.as_ref(), key]
        .into_iter()
        .flatten()
        .map(crate::store::Secret::reveal)
        .filter(|secret| !secret.is_empty())
}

/// Where a request went.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub(super) target: &'a S3Location,
    pub(super) endpoint: &'a str,
    pub(super) region: &'a str,
}
