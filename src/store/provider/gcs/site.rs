//! Where a bucket is: `gs://bucket/path`.

use std::sync::Arc;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::GcsBucket;
use crate::error::{Error, Result};
use crate::store::http::endpoint;
use crate::store::paths::{authority_and_path, clean_path, decode};
use crate::store::setting::{self, Settings};
use crate::store::spelling::escaped;
use crate::store::{Bucket, Layout, Opening, Provider, Site, Source};

/// Parts of a resumable upload are multiples of this.
const PART_UNIT: usize = 256 << 10;
/// What is not encoded in the name of a bucket or an object.
const NAME: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const EXAMPLE: &str = "gs://bucket/path";

/// Google Cloud Storage.
pub(in crate::store) static PROVIDER: Provider = Provider {
    name: "gs",
    schemes: &["gs"],
    example: EXAMPLE,
    settings: &[setting::ENDPOINT, setting::SKIP_VERIFY, setting::PART_SIZE],
    environment: &[("endpoint", &["STORAGE_EMULATOR_HOST"])],
    layout: Layout::Ltx,
    takes_common_endpoint: false,
    is_remote: true,
    locate,
};

/// A place in a bucket of Google Cloud Storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GcsSite {
    pub(super) bucket: String,
    pub(super) path: String,
    /// A custom endpoint, without a slash at its end.
    pub(super) endpoint: Option<String>,
    /// The endpoint is that of an emulator, which takes requests without credentials.
    pub(super) is_emulator: bool,
    pub(super) skip_verify: bool,
    /// Bytes of a part, a multiple of 256 KiB.
    pub(super) part_size: usize,
}

fn locate(source: &Source<'_>, settings: &Settings<'_>) -> Result<Arc<dyn Site>> {
    let (bucket, path) = match source {
        Source::Url { rest, .. } => {
            let (authority, path) = authority_and_path(rest, EXAMPLE)?;
            if authority.contains('@') {
                return Err(Error::config(
                    "credentials do not belong before the bucket; name a service account's file in \
                     GOOGLE_APPLICATION_CREDENTIALS",
                ));
            }
            (decode(authority)?, decode(path)?)
        }
        Source::Fields => {
            (settings.field("bucket").unwrap_or_default(), settings.field("path").unwrap_or_default())
        }
    };
    if bucket.is_empty() || bucket.contains([':', '/']) {
        return Err(Error::config(format!(
            "the replica URL names no bucket of Google Cloud Storage; write {EXAMPLE}, and a server of your own as the \
             setting endpoint=http://host:port"
        )));
    }
    let (endpoint, is_emulator) = endpoint_of(settings)?;
    Ok(Arc::new(GcsSite {
        bucket,
        path: clean_path(&path),
        endpoint,
        is_emulator,
        skip_verify: settings.flag("skip-verify")?.unwrap_or(false),
        part_size: settings.part_size()? / PART_UNIT * PART_UNIT,
    }))
}

/// The endpoint, and whether it is an emulator's: the one in the environment is, and any without TLS.
fn endpoint_of(settings: &Settings<'_>) -> Result<(Option<String>, bool)> {
    let Some(given) = settings.get("endpoint") else { return Ok((None, false)) };
    let in_environment = settings.in_environment("endpoint").as_ref() == Some(&given);
    let given = if in_environment && !given.contains("://") { format!("http://{given}") } else { given };
    let endpoint = endpoint::normalize(&given)?;
    let is_emulator = in_environment || endpoint.starts_with("http://");
    Ok((Some(endpoint), is_emulator))
}

impl GcsSite {
    /// The path of the bucket in the JSON interface.
    pub(super) fn bucket_path(&self) -> String {
        format!("/storage/v1/b/{}", encode(&self.bucket))
    }

    /// The path of an object in the JSON interface.
    pub(super) fn object_path(&self, key: &str) -> String {
        format!("{}/o/{}", self.bucket_path(), encode(key))
    }

    /// Where objects are uploaded to, in one of the ways that `kind` names.
    pub(super) fn upload_path(&self, kind: &str) -> String {
        format!("/upload/storage/v1/b/{}/o?uploadType={kind}", encode(&self.bucket))
    }
}

/// The text as a part of a path, or as a value in a query.
pub(super) fn encode(text: &str) -> String {
    utf8_percent_encode(text, NAME).to_string()
}

impl Site for GcsSite {
    fn url(&self) -> String {
        let slash = if self.path.is_empty() { "" } else { "/" };
        format!("gs://{}{slash}{}", escaped(&self.bucket), escaped(&self.path))
    }

    fn root(&self) -> &str {
        &self.path
    }

    fn identity(&self) -> Vec<(&'static str, String)> {
        self.endpoint.iter().map(|endpoint| ("endpoint", endpoint.clone())).collect()
    }

    fn open(&self, _: &Opening<'_>) -> Arc<dyn Bucket> {
        Arc::new(GcsBucket::new(self.clone()))
    }
}
