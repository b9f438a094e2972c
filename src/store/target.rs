//! Replica URLs: where a replica is, and all that is needed to reach it.

use std::fmt;
use std::path::PathBuf;

use crate::error::{Error, Result};

/// Looks up a setting by its canonical name (`endpoint`, `force-path-style`, ...) outside the URL:
/// parameters of the SQLite URI first, then the environment.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Where a replica is. Two equal targets are the same replica reached in the same way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// A folder of the local file system.
    File {
        /// The replica's folder.
        path: PathBuf,
    },
    /// A bucket of an S3-compatible store.
    S3(S3Target),
}

/// Where an S3 replica is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct S3Target {
    /// The bucket.
    pub bucket: String,
    /// The path in the bucket, without slashes at either end; may be empty.
    pub path: String,
    /// The region, if it was given.
    pub region: Option<String>,
    /// Scheme, host and port of a custom endpoint.
    pub endpoint: Option<String>,
    /// `https://endpoint/bucket/key` instead of `https://bucket.endpoint/key`.
    pub path_style: bool,
    /// Accept any TLS certificate.
    pub skip_verify: bool,
    /// Credentials that were given; else the official chain finds them.
    pub access_key_id: Option<String>,
    /// The secret that belongs to `access_key_id`.
    pub secret_access_key: Option<Secret>,
    /// The token of temporary credentials.
    pub session_token: Option<Secret>,
}

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Secret(String);

impl Secret {
    /// Guards `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for signing.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

impl Target {
    /// The settings that a replica URL or the SQLite URI may carry: the canonical name, then its
    /// other spellings.
    pub const SETTINGS: &'static [&'static [&'static str]] = &[
        &["endpoint"],
        &["region"],
        &["force-path-style", "forcePathStyle"],
        &["skip-verify", "skipVerify"],
    ];

    /// Reads a replica URL. A setting in the URL's query wins over `lookup`.
    ///
    /// # Errors
    /// `Config`: unknown scheme, unknown setting, a value that does not fit.
    pub fn parse(url: &str, lookup: Lookup<'_>) -> Result<Self> {
        let _ = (url, lookup);
        Err(Error::config("replica URLs are not read yet"))
    }
}
