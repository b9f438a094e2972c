//! Alibaba Cloud's Object Storage Service: `oss://bucket/path`. Its requests are those of S3 in words of its own, so that
//! the bucket is S3's.
//!
//! An object is written only if it is not there yet by `x-oss-forbid-overwrite: true`, which the service decides
//! atomically, but ignores in a bucket that keeps versions.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::store::http::endpoint;
use crate::store::paths::{authority_and_path, clean_path, decode};
use crate::store::provider::s3::{Dialect, Encryption, S3Location};
use crate::store::setting::{self, Secret, Settings};
use crate::store::{Layout, Provider, Site, Source};

#[cfg(test)]
pub(in crate::store) mod tests;

const EXAMPLE: &str = "oss://bucket/path";
/// The region of those that give none, as in Litestream.
const DEFAULT_REGION: &str = "cn-hangzhou";
const DOMAIN: &str = ".aliyuncs.com";
/// The end of a region's name in an endpoint that only machines of the region reach.
const INTERNAL: &str = "-internal";

/// Alibaba Cloud's Object Storage Service.
pub(in crate::store) static PROVIDER: Provider = Provider {
    name: "oss",
    schemes: &["oss"],
    example: EXAMPLE,
    settings: &[
        setting::ENDPOINT,
        setting::REGION,
        setting::SKIP_VERIFY,
        setting::ACCESS_KEY_ID,
        setting::SECRET_ACCESS_KEY,
        setting::SESSION_TOKEN,
        setting::PART_SIZE,
        setting::CONCURRENCY,
    ],
    environment: &[
        ("region", &["OSS_REGION"]),
        ("access-key-id", &["OSS_ACCESS_KEY_ID"]),
        ("secret-access-key", &["OSS_ACCESS_KEY_SECRET"]),
        ("session-token", &["OSS_SESSION_TOKEN"]),
    ],
    layout: Layout::Numbered,
    takes_common_endpoint: true,
    is_remote: true,
    locate,
};

fn locate(source: &Source<'_>, settings: &Settings<'_>) -> Result<Arc<dyn Site>> {
    let (host, path) = match source {
        Source::Url { rest, .. } => {
            let (authority, path) = authority_and_path(rest, EXAMPLE)?;
            if authority.contains('@') {
                return Err(Error::config(
                    "credentials do not belong before the bucket; use the settings access-key-id and \
                     secret-access-key, or OSS_ACCESS_KEY_ID and OSS_ACCESS_KEY_SECRET in the environment",
                ));
            }
            (decode(authority)?, decode(path)?)
        }
        Source::Fields => {
            (settings.field("bucket").unwrap_or_default(), settings.field("path").unwrap_or_default())
        }
    };
    let (bucket, of_host) = bucket_and_endpoint(&host);
    if bucket.is_empty() || bucket.contains([':', '/', '.']) {
        return Err(Error::config(format!(
            "the replica URL names no bucket of Alibaba Cloud; write {EXAMPLE}, and an endpoint of your own as the \
             setting endpoint=https://host"
        )));
    }
    let given = settings.get("endpoint").map(|e| endpoint::normalize(&e)).transpose()?;
    let endpoint = given.or(of_host);
    let region = settings.get("region").or_else(|| region_of(endpoint.as_deref()?).map(str::to_owned));
    let region = region.unwrap_or_else(|| DEFAULT_REGION.to_owned());
    let endpoint = endpoint.unwrap_or_else(|| format!("https://oss-{region}{DOMAIN}"));
    settings.number("concurrency")?;
    let (access_key_id, secret_access_key, session_token) = credentials(settings)?;
    Ok(Arc::new(S3Location {
        bucket: bucket.to_owned(),
        path: clean_path(&path),
        region: Some(region),
        // A server of one's own has no name for each bucket.
        path_style: !endpoint.contains(DOMAIN) && endpoint.starts_with("http://"),
        endpoint: Some(endpoint),
        skip_verify: settings.flag("skip-verify")?.unwrap_or(false),
        access_key_id,
        secret_access_key,
        session_token,
        storage_class: None,
        encryption: Encryption::Bucket,
        part_size: settings.part_size()?,
        content_md5: true,
        dialect: Dialect::Aliyun,
    }))
}

/// `bucket`, or `bucket.oss-region.aliyuncs.com` with the endpoint that it names.
fn bucket_and_endpoint(host: &str) -> (&str, Option<String>) {
    match host.split_once(".oss-") {
        Some((bucket, rest)) if rest.ends_with(DOMAIN) => (bucket, Some(format!("https://oss-{rest}"))),
        _ => (host, None),
    }
}

/// The region that an endpoint of Alibaba's own names.
fn region_of(endpoint: &str) -> Option<&str> {
    let (_, host) = endpoint.split_once("://oss-")?;
    let region = host.strip_suffix(DOMAIN)?;
    Some(region.strip_suffix(INTERNAL).unwrap_or(region))
}

/// Credentials belong together: all are from the same place. There is nowhere else to look for some.
fn credentials(settings: &Settings<'_>) -> Result<(Option<String>, Option<Secret>, Option<Secret>)> {
    let [id, secret, token] = settings.together(["access-key-id", "secret-access-key", "session-token"]);
    match (id, secret) {
        (Some(id), Some(secret)) => Ok((Some(id), Some(Secret::new(secret)), token.map(Secret::new))),
        (None, None) if token.is_none() => Ok((None, None, None)),
        _ => Err(Error::config(
            "of access-key-id, secret-access-key and session-token the first two belong together; give both or none",
        )),
    }
}
