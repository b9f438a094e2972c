//! What a WebDAV server's refusals mean.

use super::site::WebdavSite;
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
    /// The server's own words.
    pub(super) message: String,
    /// The object's size, if a range was refused.
    pub(super) size: Option<u64>,
    /// Where the server says that it is instead.
    pub(super) location: Option<String>,
}

impl Refusal {
    /// Adds what the body of the answer says, if that is plain text.
    pub(super) fn read(&mut self, body: &[u8]) {
        let text = String::from_utf8_lossy(body);
        if !text.trim_start().starts_with(['<', '{']) {
            self.message = text.trim().to_owned();
        }
    }

    /// Whether the server may do it later. A lock (423) is one that another request holds.
    pub(super) fn is_temporary(&self) -> bool {
        matches!(self.status, 408 | 423 | 425 | 429 | 500 | 502..=504)
    }

    /// The error for a user who wanted to `what` (such as "read ltx/0/x").
    pub(super) fn into_error(self, what: &str, site: &WebdavSite) -> Error {
        let (words, url, server) = (self.words(), site.url(), &site.server);
        let (kind, text) = match self.status {
            _ if self.is_temporary() => {
                (ErrorKind::Unavailable, format!("{server} cannot {what} of {url} for now{words}"))
            }
            300..=399 => (ErrorKind::Config, self.moved(site)),
            401 if site.user.is_none() => (
                ErrorKind::Denied,
                format!(
                    "{server} asks who wants to {what} of {url}; set webdav-username and webdav-password"
                ),
            ),
            401 => (
                ErrorKind::Denied,
                format!(
                    "{server} does not take the name and the password for {url}{words}; check webdav-username and \
                     webdav-password, and that the server offers Basic or Digest"
                ),
            ),
            403 => (
                ErrorKind::Denied,
                format!(
                    "access to {url} is denied: not allowed to {what}{words}; check the rights of the user, and that \
                     the share is not read-only"
                ),
            ),
            404 | 410 => (ErrorKind::NotFound, format!("{server} cannot {what} of {url}: not found{words}")),
            405 | 501 => (
                ErrorKind::Unsupported,
                format!(
                    "{server} does not allow to {what} of {url}{words}; it must know WebDAV at this path (PROPFIND, PUT, \
                     MOVE, MKCOL, DELETE), and the share must not be read-only"
                ),
            ),
            409 => (
                ErrorKind::NotFound,
                format!(
                    "{server} cannot {what} of {url}: a folder above it is not there and cannot be made{words}; \
                     correct the replica URL, or make the folder"
                ),
            ),
            413 => (
                ErrorKind::Unsupported,
                format!(
                    "{server} cannot {what} of {url}: it is too large{words}; raise the server's limit for the size of \
                     a request"
                ),
            ),
            507 => (ErrorKind::NoSpace, format!("{server} has no space to {what} of {url}{words}")),
            500.. => (ErrorKind::Unavailable, format!("{server} cannot {what} of {url}{words}")),
            _ => (
                ErrorKind::Config,
                format!("{server} refuses to {what} of {url}{words}; check the settings of the replica"),
            ),
        };
        Error::new(kind, text)
    }

    fn moved(&self, site: &WebdavSite) -> String {
        let (status, url) = (self.status, site.url());
        match self.location.as_deref().map(without_secrets) {
            Some(there) => format!(
                "{url} is at another place (HTTP status {status}): the server names {there}; correct the replica URL"
            ),
            None => format!("{url} is at another place (HTTP status {status}); correct the replica URL"),
        }
    }

    /// What the server said, in parentheses.
    fn words(&self) -> String {
        failure::words(self.status, "", &self.message, [])
    }
}

/// The address up to its query, which may be anything.
fn without_secrets(address: &str) -> &str {
    address.split(['?', '#']).next().unwrap_or(address)
}
