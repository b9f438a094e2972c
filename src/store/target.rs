//! Replica URLs: where a replica is, and all that is needed to reach it.

use std::fmt;
use std::path::PathBuf;

use crate::error::Result;

pub(super) mod endpoint;
mod identity;
mod url;

pub use identity::ReplicaIdentity;

/// Looks up a setting by its canonical name (the first of its row in [`Target::SETTINGS`]) outside the
/// URL: parameters of the SQLite URI first, under any of the row's spellings, then the environment
/// variables that [`Target::ENVIRONMENT`] has for it. `None` or an empty text if it is not given.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Where a replica is. Two equal targets are the same replica reached in the same way.
///
/// It is displayed as a URL without settings, so it carries no secret.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[allow(clippy::large_enum_variant, reason = "there is one for each replica")]
pub enum Target {
    /// A folder of the local file system.
    File {
        /// The replica's folder, absolute.
        path: PathBuf,
    },
    /// A bucket of an S3-compatible store.
    S3(S3Target),
}

/// Where an S3 replica is, and how it is read and written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct S3Target {
    /// The bucket, or the ARN of an access point.
    pub bucket: String,
    /// The path in the bucket, without slashes at either end; may be empty.
    pub path: String,
    /// The region, if it was given.
    pub region: Option<String>,
    /// Scheme, host, port and path of a custom endpoint, without a slash at its end.
    pub endpoint: Option<String>,
    /// `https://endpoint/bucket/key` instead of `https://bucket.endpoint/key`.
    pub path_style: bool,
    /// Accept any TLS certificate.
    pub skip_verify: bool,
    /// Credentials that were given; else the official chain finds them.
    /// Invariant: given if and only if `secret_access_key` is.
    pub access_key_id: Option<String>,
    /// The secret that belongs to `access_key_id`.
    pub secret_access_key: Option<Secret>,
    /// The token of temporary credentials.
    pub session_token: Option<Secret>,
    /// The storage class of new objects, such as `STANDARD_IA`.
    pub storage_class: Option<String>,
    /// How the store encrypts what it stores.
    pub encryption: Encryption,
    /// Bytes of a part of a multipart upload, 5 MiB to 1 GiB.
    pub part_size: usize,
    /// Send `Content-MD5` with deletions of several objects.
    pub content_md5: bool,
}

/// How an S3 store encrypts objects at rest.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Encryption {
    /// As the bucket is set up.
    Bucket,
    /// With a key that AWS KMS keeps.
    Kms {
        /// The key's id, ARN or alias.
        key_id: String,
    },
    /// With a key that we send in every request (SSE-C).
    Customer {
        /// The AES-256 key, in base64.
        key: Secret,
        /// The MD5 of the key, in base64.
        key_md5: String,
    },
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
    /// other spellings. All are Litestream's but those of credentials.
    ///
    /// `sign-payload` and `concurrency` are taken because Litestream's URLs have them and change
    /// nothing: payloads are always signed, and parts of an upload go one after another.
    pub const SETTINGS: &'static [&'static [&'static str]] = &[
        &["endpoint"],
        &["region"],
        &["force-path-style", "forcePathStyle"],
        &["skip-verify", "skipVerify"],
        &["access-key-id", "accessKeyId"],
        &["secret-access-key", "secretAccessKey"],
        &["session-token", "sessionToken"],
        &["storage-class", "storageClass"],
        &["sse-kms-key-id", "sseKmsKeyId"],
        &["sse-customer-algorithm", "sseCustomerAlgorithm"],
        &["sse-customer-key", "sseCustomerKey"],
        &["sse-customer-key-md5", "sseCustomerKeyMD5"],
        &["part-size", "partSize"],
        &["require-content-md5", "requireContentMD5"],
        &["sign-payload", "signPayload"],
        &["concurrency"],
    ];

    /// The environment variables that answer for a setting which no URI gives, first match wins. AWS's
    /// own variables for credentials, region and profile are not here: the official chain reads them.
    pub const ENVIRONMENT: &'static [(&'static str, &'static [&'static str])] = &[
        ("endpoint", &["LITESTREAM_S3_ENDPOINT", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]),
        ("access-key-id", &["LITESTREAM_ACCESS_KEY_ID"]),
        ("secret-access-key", &["LITESTREAM_SECRET_ACCESS_KEY"]),
    ];

    /// Reads a replica URL: `s3://bucket/path` or `file:///path`. A setting in the URL's query wins
    /// over `lookup`.
    ///
    /// Hosts that name a provider are understood as Litestream does
    /// (`s3://bucket.nyc3.digitaloceanspaces.com/path`, `s3://bucket.localhost:9000/path`), and so is
    /// the ARN of an access point in the bucket's place. With a custom endpoint the path style is the
    /// default. An endpoint without a scheme is `http` on a local address, else `https`.
    ///
    /// # Errors
    /// `Config`: unknown scheme, unknown setting, a value that does not fit.
    pub fn parse(url: &str, lookup: Lookup<'_>) -> Result<Self> {
        url::parse(url, lookup)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path } => write!(f, "file://{}", path.display()),
            Self::S3(s3) => fmt::Display::fmt(s3, f),
        }
    }
}

impl fmt::Display for S3Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}", self.bucket)?;
        if self.path.is_empty() { Ok(()) } else { write!(f, "/{}", self.path) }
    }
}
