//! What the service's refusals mean.

use http::HeaderMap;
use serde::Deserialize;

use super::location::AzureSite;
use crate::error::{Error, ErrorKind};
use crate::store::Site as _;
use crate::store::http::{answer, failure};

/// Why a request failed.
pub(super) type Failure = failure::Failure<Refusal>;

/// An answer that is no success.
#[derive(Clone, Debug, Default)]
pub(super) struct Refusal {
    /// The HTTP status.
    pub(super) status: u16,
    /// The service's name of the failure, such as `BlobNotFound`, or empty.
    pub(super) code: String,
    /// The service's own words.
    message: String,
    /// The blob's size, if a range was refused.
    pub(super) size: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename = "Error", rename_all = "PascalCase")]
struct ErrorDocument {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    authentication_error_detail: String,
}

impl Refusal {
    /// What status and headers say.
    pub(super) fn of(status: u16, headers: &HeaderMap) -> Self {
        let code = headers.get("x-ms-error-code").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let (code, size) = (code.to_owned(), answer::size_of_refused_range(headers));
        Self { status, code, size, message: String::new() }
    }

    /// Adds what the body of the answer says.
    pub(super) fn read(&mut self, body: &[u8]) {
        let text = String::from_utf8_lossy(body);
        let Ok(document) = quick_xml::de::from_str::<ErrorDocument>(text.trim_start_matches('\u{feff}'))
        else {
            return;
        };
        if self.code.is_empty() {
            self.code = document.code;
        }
        // The request's number and the time follow.
        let first = document.message.lines().next().unwrap_or_default();
        self.message = match document.authentication_error_detail.as_str() {
            "" => first.to_owned(),
            detail => format!("{first} {detail}"),
        };
    }

    /// Whether the condition that the blob is not there yet did not hold.
    pub(super) fn is_already_there(&self) -> bool {
        matches!(self.code.as_str(), "BlobAlreadyExists" | "ConditionNotMet" | "UnauthorizedBlobOverwrite")
            || (self.status == 412 && self.code.is_empty())
    }

    /// Whether it is the blob that does not exist, and not the container.
    pub(super) fn is_of_the_blob(&self) -> bool {
        self.status == 404 && matches!(self.code.as_str(), "BlobNotFound" | "")
    }

    /// Whether the parts of an upload are gone.
    pub(super) fn is_of_the_parts(&self) -> bool {
        matches!(self.code.as_str(), "InvalidBlockList" | "InvalidBlobOrBlock")
    }

    fn is_temporary(&self) -> bool {
        let refused_for_good = matches!(
            self.code.as_str(),
            "BlobImmutableDueToPolicy" | "BlobArchived" | "SnapshotsPresent" | "InvalidBlobType"
        );
        matches!(self.status, 408 | 429 | 500 | 502 | 503 | 504) || (self.status == 409 && !refused_for_good)
    }

    fn says(&self, words: &str) -> bool {
        self.message.to_ascii_lowercase().contains(words)
    }

    /// The error for a user who wanted to `what` (such as "read ltx/0/x") at `endpoint`.
    pub(super) fn into_error(self, what: &str, site: &AzureSite, endpoint: &str) -> Error {
        let (words, container, url) = (self.words(site), &site.container, site.url());
        if self.is_temporary() {
            let text = format!("{endpoint} cannot {what} of {url} for now{words}");
            return Error::new(ErrorKind::Unavailable, text);
        }
        if matches!(self.status, 401 | 403) {
            return Error::new(ErrorKind::Denied, self.denied(what, site, endpoint));
        }
        let refused = |why: &str| format!("{endpoint} refuses to {what} of {url}{words}; {why}");
        let (kind, text) = match (self.code.as_str(), self.status) {
            ("ContainerNotFound", _) => (
                ErrorKind::NoBucket,
                format!(
                    "container '{container}' does not exist at {endpoint}; create it, or correct the replica URL"
                ),
            ),
            ("BlobImmutableDueToPolicy", _) => (
                ErrorKind::Denied,
                refused("a policy of the container forbids it: set retention=off, or change the policy"),
            ),
            ("BlobArchived", _) => {
                (ErrorKind::Unsupported, refused("the blob is in the archive tier; rehydrate it"))
            }
            ("LeaseIdMissing", _) => {
                (ErrorKind::Denied, refused("another client holds a lease on it: break it"))
            }
            (_, 404 | 410) => {
                (ErrorKind::NotFound, format!("{endpoint} cannot {what} of {url}: not found{words}"))
            }
            (_, 413) => (ErrorKind::Unsupported, refused("it is too large: lower part-size")),
            (_, 501) => {
                (ErrorKind::Unsupported, format!("{endpoint} does not support to {what} of {url}{words}"))
            }
            (_, 507) => (ErrorKind::NoSpace, format!("{endpoint} has no space to {what} of {url}{words}")),
            (_, 500..) => (ErrorKind::Unavailable, format!("{endpoint} cannot {what} of {url}{words}")),
            _ => (ErrorKind::Config, refused("check the settings of the replica")),
        };
        Error::new(kind, text)
    }

    /// Why credentials are not taken, and what to do.
    fn denied(&self, what: &str, site: &AzureSite, endpoint: &str) -> String {
        let (words, container) = (self.words(site), &site.container);
        if self.says("date header") || self.says("not within allowed time") {
            return format!(
                "{endpoint} rejects requests for container '{container}' because this machine's clock is wrong; set the \
                 clock"
            );
        }
        if self.says("specified time frame") {
            return format!(
                "the SAS token for container '{container}' at {endpoint} has expired or is not valid yet; renew sas-token"
            );
        }
        if self.says("signature") || self.says("authorization header") {
            return format!(
                "{endpoint} rejects the signature for container '{container}' ({}); check account-name and account-key or \
                 sas-token",
                self.code
            );
        }
        let remedy = match self.code.as_str() {
            "AccountIsDisabled" => "the storage account is disabled: look at its subscription".to_owned(),
            "AuthorizationFailure" => {
                "check the account's firewall, the permissions of the SAS token, or the role Storage Blob Data \
                 Contributor"
                    .to_owned()
            }
            "KeyBasedAuthenticationNotPermitted" => {
                "the account takes no keys: remove account-key, so that Azure's own credentials are used".to_owned()
            }
            _ if site.given.is_some() => "check the permissions of the SAS token or the account's key".to_owned(),
            _ => format!(
                "give the identity the role Storage Blob Data Contributor on container '{container}'"
            ),
        };
        format!(
            "access to container '{container}' at {endpoint} is denied: not allowed to {what} of {}{words}; {remedy}",
            site.url()
        )
    }

    /// What the service said, in parentheses.
    fn words(&self, site: &AzureSite) -> String {
        let secret = site.secret();
        failure::words(self.status, &self.code, &self.message, secret)
    }
}
