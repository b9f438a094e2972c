//! Where an S3 replica is: the URLs, settings and environment of S3-compatible stores.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use md5::{Digest as _, Md5};

use super::S3Bucket;
use super::dialect::Dialect;
use super::host::{Host, Quirks};
use crate::error::{Error, Result};
use crate::store::http::endpoint;
use crate::store::paths::{clean_path, decode, home};
use crate::store::setting::{self, Secret, Settings, StoreKind, StoreSetting};
use crate::store::spelling::escaped;
use crate::store::{Bucket, Layout, Opening, Provider, Site, Source};

/// S3 and the stores that speak its protocol.
pub(in crate::store) static PROVIDER: Provider = Provider {
    name: "s3",
    schemes: &["s3"],
    example: "s3://bucket/path",
    settings: &[
        setting::ENDPOINT,
        setting::REGION,
        FORCE_PATH_STYLE,
        setting::SKIP_VERIFY,
        setting::ACCESS_KEY_ID,
        setting::SECRET_ACCESS_KEY,
        setting::SESSION_TOKEN,
        STORAGE_CLASS,
        SSE_KMS_KEY_ID,
        SSE_CUSTOMER_KEY,
        SSE_CUSTOMER_KEY_PATH,
        SSE_CUSTOMER_ALGORITHM,
        SSE_CUSTOMER_KEY_MD5,
        setting::PART_SIZE,
        REQUIRE_CONTENT_MD5,
        SIGN_PAYLOAD,
        setting::CONCURRENCY,
    ],
    environment: &[
        ("endpoint", &["LITESTREAM_S3_ENDPOINT", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]),
        ("access-key-id", &["LITESTREAM_ACCESS_KEY_ID"]),
        ("secret-access-key", &["LITESTREAM_SECRET_ACCESS_KEY"]),
    ],
    layout: Layout::Numbered,
    takes_common_endpoint: true,
    is_remote: true,
    locate,
};

const FORCE_PATH_STYLE: StoreSetting = StoreSetting::new(
    "force-path-style",
    StoreKind::Flag,
    "`https://endpoint/bucket/key` instead of `https://bucket.endpoint/key`.",
);
const STORAGE_CLASS: StoreSetting = StoreSetting::new(
    "storage-class",
    StoreKind::Text,
    "Storage class of new objects, such as `STANDARD_IA`.",
);
const SSE_KMS_KEY_ID: StoreSetting =
    StoreSetting::new("sse-kms-key-id", StoreKind::Text, "Objects are encrypted with this key of AWS KMS.");
const SSE_CUSTOMER_KEY: StoreSetting = StoreSetting::new(
    "sse-customer-key",
    StoreKind::Secret,
    "Objects are encrypted with this key (SSE-C): 32 bytes in base64.",
);
const SSE_CUSTOMER_KEY_PATH: StoreSetting = StoreSetting::new(
    "sse-customer-key-path",
    StoreKind::Text,
    "The file that holds such a key, in base64 or as 32 bytes. Wins over `sse_customer_key`.",
);
const SSE_CUSTOMER_ALGORITHM: StoreSetting =
    StoreSetting::new("sse-customer-algorithm", StoreKind::Text, "`AES256`, the only one.");
const SSE_CUSTOMER_KEY_MD5: StoreSetting = StoreSetting::new(
    "sse-customer-key-md5",
    StoreKind::Text,
    "MD5 of `sse_customer_key` in base64. Without it: computed.",
);
const REQUIRE_CONTENT_MD5: StoreSetting = StoreSetting::new(
    "require-content-md5",
    StoreKind::Flag,
    "Send `Content-MD5` with deletions of several objects.",
);
const SIGN_PAYLOAD: StoreSetting = StoreSetting::new(
    "sign-payload",
    StoreKind::Flag,
    "Taken because Litestream's URLs have it; payloads are always signed.",
);

/// Where an S3 replica is, and how it is read and written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::store::provider) struct S3Location {
    /// The bucket, or the ARN of an access point.
    pub(in crate::store::provider) bucket: String,
    /// The path in the bucket, without slashes at either end; may be empty.
    pub(in crate::store::provider) path: String,
    /// The region, if it was given.
    pub(in crate::store::provider) region: Option<String>,
    /// Scheme, host, port and path of a custom endpoint, without a slash at its end.
    pub(in crate::store::provider) endpoint: Option<String>,
    /// `https://endpoint/bucket/key` instead of `https://bucket.endpoint/key`.
    pub(in crate::store::provider) path_style: bool,
    /// Accept any TLS certificate.
    pub(in crate::store::provider) skip_verify: bool,
    /// Credentials that were given; else the official chain finds them.
    /// Invariant: given if and only if `secret_access_key` is.
    pub(in crate::store::provider) access_key_id: Option<String>,
    /// The secret that belongs to `access_key_id`.
    pub(in crate::store::provider) secret_access_key: Option<Secret>,
    /// The token of temporary credentials.
    pub(in crate::store::provider) session_token: Option<Secret>,
    /// The storage class of new objects, such as `STANDARD_IA`.
    pub(in crate::store::provider) storage_class: Option<String>,
    /// How the store encrypts what it stores.
    pub(in crate::store::provider) encryption: Encryption,
    /// Bytes of a part of a multipart upload, 5 MiB to 1 GiB.
    pub(in crate::store::provider) part_size: usize,
    /// Send `Content-MD5` with deletions of several objects.
    pub(in crate::store::provider) content_md5: bool,
    /// In whose words the store is spoken to.
    pub(in crate::store::provider) dialect: Dialect,
}

/// How an S3 store encrypts objects at rest.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::store::provider) enum Encryption {
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

impl fmt::Display for S3Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.dialect.scheme(), escaped(&self.bucket))?;
        if self.path.is_empty() { Ok(()) } else { write!(f, "/{}", escaped(&self.path)) }
    }
}

impl Site for S3Location {
    fn url(&self) -> String {
        self.to_string()
    }

    fn root(&self) -> &str {
        &self.path
    }

    fn identity(&self) -> Vec<(&'static str, String)> {
        let mut settings: Vec<_> = self.endpoint.iter().map(|e| ("endpoint", e.clone())).collect();
        match &self.encryption {
            Encryption::Bucket => {}
            Encryption::Kms { key_id } => settings.push(("sse_kms_key_id", key_id.clone())),
            // The key's digest, which each request carries, tells keys apart.
            Encryption::Customer { key_md5, .. } => settings.push(("sse_customer_key_md5", key_md5.clone())),
        }
        settings
    }

    fn open(&self, _: &Opening<'_>) -> Arc<dyn Bucket> {
        Arc::new(S3Bucket::new(self.clone()))
    }
}

fn locate(source: &Source<'_>, settings: &Settings<'_>) -> Result<Arc<dyn Site>> {
    let (host, path) = match source {
        Source::Url { rest, .. } => place(rest)?,
        Source::Fields => fields(settings)?,
    };
    if host.bucket.is_empty() {
        return Err(Error::config(
            "the replica URL names no bucket; write s3://bucket/path, and a server of your own as the \
             setting endpoint=http://host:port",
        ));
    }
    let given = if host.names_provider { settings.in_query("endpoint") } else { settings.get("endpoint") };
    let given = given.map(|e| endpoint::normalize(&e)).transpose()?;
    let wanted = given.is_some() || host.path_style;
    let endpoint = given.or(host.endpoint);
    let quirks = endpoint.as_deref().map(Quirks::of).unwrap_or_default();
    if endpoint.is_some() && host.bucket.starts_with("arn:") {
        return Err(Error::config(
            "an access point is reached without an endpoint; remove the setting endpoint",
        ));
    }
    // Litestream's URLs have these; their values must be right even though nothing depends on them.
    settings.flag("sign-payload")?;
    settings.number("concurrency")?;
    let (access_key_id, secret_access_key, session_token) = credentials(settings)?;
    Ok(Arc::new(S3Location {
        bucket: host.bucket,
        path,
        region: settings.get("region").or(host.region),
        path_style: settings.flag("force-path-style")?.unwrap_or(wanted || quirks.path_style),
        skip_verify: settings.flag("skip-verify")?.unwrap_or(false),
        access_key_id,
        secret_access_key,
        session_token,
        storage_class: settings.get("storage-class"),
        encryption: encryption(settings, endpoint.as_deref())?,
        part_size: settings.part_size()?,
        content_md5: settings.flag("require-content-md5")?.unwrap_or(quirks.content_md5),
        dialect: Dialect::Amazon,
        endpoint,
    }))
}

/// Bucket and path of a configuration file's `bucket` and `path`.
fn fields(settings: &Settings<'_>) -> Result<(Host, String)> {
    let bucket = settings.field("bucket").ok_or_else(|| {
        Error::config(
            "a replica of type s3 needs its bucket; give the setting bucket, or url: s3://bucket/path",
        )
    })?;
    Ok((Host::parse(&bucket), clean_path(&settings.field("path").unwrap_or_default())))
}

/// Host and path of what follows `s3:`.
fn place(rest: &str) -> Result<(Host, String)> {
    // Tcl makes one slash of two in the name of a database, and of what a URI has in it.
    let place = rest
        .strip_prefix("//")
        .or_else(|| rest.strip_prefix('/'))
        .ok_or_else(|| Error::config("an S3 replica URL begins with s3://; write s3://bucket/path"))?;
    if place.len() >= 4 && place.is_char_boundary(4) && place[..4].eq_ignore_ascii_case("arn:") {
        return access_point(place);
    }
    let (authority, path) = place.split_once('/').unwrap_or((place, ""));
    if authority.contains('@') {
        return Err(Error::config(
            "credentials do not belong before the bucket; use the settings access-key-id and \
             secret-access-key, or the environment",
        ));
    }
    Ok((Host::parse(&decode(authority)?), clean_path(&decode(path)?)))
}

/// `arn:aws:s3:{region}:{account}:accesspoint/{name}[/{path}]`
fn access_point(place: &str) -> Result<(Host, String)> {
    const MARKER: &str = ":accesspoint/";
    let bad = || {
        Error::config(format!(
            "'{place}' is not the ARN of an access point; write \
             s3://arn:aws:s3:region:account:accesspoint/name/path"
        ))
    };
    let (prefix, rest) = place.split_once(MARKER).ok_or_else(bad)?;
    let (name, path) = rest.split_once('/').unwrap_or((rest, ""));
    let fields: Vec<&str> = prefix.split(':').collect();
    let [_, _, "s3", region, account] = fields[..] else { return Err(bad()) };
    if region.is_empty() || account.is_empty() || name.is_empty() {
        return Err(bad());
    }
    let host = Host {
        bucket: format!("arn:{}{MARKER}{name}", &prefix[4..]),
        region: Some(region.to_owned()),
        names_provider: true,
        ..Host::default()
    };
    Ok((host, clean_path(&decode(path)?)))
}

/// Credentials belong together: all are from the same place, or none.
fn credentials(settings: &Settings<'_>) -> Result<(Option<String>, Option<Secret>, Option<Secret>)> {
    let [id, secret, token] = settings.together(["access-key-id", "secret-access-key", "session-token"]);
    match (&id, &secret) {
        (Some(_), None) => Err(half("access-key-id", "secret-access-key")),
        (None, Some(_)) => Err(half("secret-access-key", "access-key-id")),
        (None, None) if token.is_some() => Err(half("session-token", "access-key-id")),
        _ => Ok((id, secret.map(Secret::new), token.map(Secret::new))),
    }
}

fn half(given: &str, missing: &str) -> Error {
    Error::config(format!("the setting '{given}' is given without '{missing}'; give both or neither"))
}

fn encryption(settings: &Settings<'_>, endpoint: Option<&str>) -> Result<Encryption> {
    if let Some(algorithm) = settings.get("sse-customer-algorithm")
        && algorithm != "AES256"
    {
        return Err(Error::config(format!(
            "the setting 'sse-customer-algorithm' is '{algorithm}'; write AES256"
        )));
    }
    let (kms, path) = (settings.get("sse-kms-key-id"), settings.get("sse-customer-key-path"));
    let customer = match path {
        Some(path) => Some(key_in(&path)?),
        None => settings.get("sse-customer-key"),
    };
    match (kms, customer) {
        (None, None) => Ok(Encryption::Bucket),
        (Some(key_id), None) => Ok(Encryption::Kms { key_id }),
        (None, Some(key)) => customer_key(settings, key, endpoint),
        (Some(_), Some(_)) => Err(Error::config(
            "the settings sse-kms-key-id and sse-customer-key exclude each other; give one",
        )),
    }
}

/// The key in the file at `path`, in base64.
fn key_in(path: &str) -> Result<String> {
    let path = home(path);
    let content = std::fs::read(&path).map_err(|e| {
        Error::config(format!(
            "the file that sse-customer-key-path names cannot be read: {}: {e}",
            path.display()
        ))
    })?;
    if content.len() == KEY_BYTES {
        return Ok(BASE64.encode(content));
    }
    let text = String::from_utf8(content).ok().map(|text| text.trim().to_owned());
    text.ok_or_else(|| not_a_key(&path))
}

fn not_a_key(path: &Path) -> Error {
    Error::config(format!(
        "the file that sse-customer-key-path names is no key: {}; write 32 bytes in base64 into it",
        path.display()
    ))
}

/// An AES-256 key.
const KEY_BYTES: usize = 32;

fn customer_key(settings: &Settings<'_>, key: String, endpoint: Option<&str>) -> Result<Encryption> {
    let bytes = BASE64.decode(&key).ok().filter(|bytes| bytes.len() == KEY_BYTES).ok_or_else(|| {
        match settings.get("sse-customer-key-path") {
            Some(path) => not_a_key(&home(&path)),
            None => Error::config("the setting 'sse-customer-key' is not a key; write 32 bytes in base64"),
        }
    })?;
    if endpoint.and_then(|e| e.strip_prefix("http://")).is_some_and(|e| !endpoint::is_local(e)) {
        return Err(Error::config("the setting 'sse-customer-key' needs an https endpoint"));
    }
    let key_md5 = settings.get("sse-customer-key-md5").unwrap_or_else(|| BASE64.encode(Md5::digest(&bytes)));
    Ok(Encryption::Customer { key: Secret::new(key), key_md5 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::store::Location;

    fn none(_: &str) -> Option<String> {
        None
    }

    fn s3_at(url: &str, around: &dyn Fn(&str) -> Option<String>) -> S3Location {
        let location = Location::parse(url, &around).unwrap_or_else(|e| panic!("{url}: {e}"));
        location.site().as_any().downcast_ref::<S3Location>().unwrap().clone()
    }

    fn s3_target(url: &str) -> S3Location {
        s3_at(url, &none)
    }

    fn refused(url: &str) -> String {
        let e = Location::parse(url, &none).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Config, "{url}: {e}");
        e.to_string()
    }

    #[test]
    fn one_slash_is_as_good_as_two() {
        assert_eq!(
            s3_target("s3:/bucket/path?endpoint=http:/127.0.0.1:9"),
            s3_target("s3://bucket/path?endpoint=http://127.0.0.1:9")
        );
        assert!(refused("").contains("s3://bucket/path"));
    }

    #[test]
    fn a_bucket_and_a_path_are_enough() {
        let s3 = s3_target("s3://bucket//a/./b/../c%20d/");
        assert_eq!((s3.bucket.as_str(), s3.path.as_str()), ("bucket", "a/c d"));
        assert_eq!((s3.endpoint, s3.region, s3.path_style), (None, None, false));
        assert_eq!((s3.part_size, s3.content_md5, s3.encryption), (8 << 20, true, Encryption::Bucket));
        assert_eq!(s3_target("s3://bucket").path, "");
        assert_eq!(Location::parse("S3://bucket/p", &none).unwrap().to_string(), "s3://bucket/p");
    }

    #[test]
    fn both_spellings_of_a_setting_mean_the_same() {
        let kebab =
            s3_target("s3://b/p?endpoint=h.example&force-path-style=no&skip-verify=1&storage-class=GLACIER");
        let camel = s3_target(
            "s3://b/p?endpoint=h.example&forcePathStyle=false&skipVerify=true&storageClass=GLACIER",
        );
        assert_eq!(kebab, camel);
        assert_eq!((kebab.path_style, kebab.skip_verify), (false, true));
        assert_eq!(kebab.endpoint.as_deref(), Some("https://h.example"));
    }

    #[test]
    fn a_custom_endpoint_makes_path_style_the_default() {
        assert!(s3_target("s3://b/p?endpoint=http://127.0.0.1:9000").path_style);
        assert!(s3_target("s3://b.localhost:9000/p").path_style);
        assert!(!s3_target("s3://b.fra1.digitaloceanspaces.com/p").path_style);
        assert!(!s3_target("s3://b/p?endpoint=https://t3.storage.dev").content_md5);
    }

    #[test]
    fn the_query_wins_over_what_is_around_it() {
        let around = |name: &str| match name {
            "region" => Some("around".to_owned()),
            "endpoint" => Some("http://around:1".to_owned()),
            _ => None,
        };
        let s3 = s3_at("s3://b/p?region=query", &around);
        assert_eq!(s3.region.as_deref(), Some("query"));
        assert_eq!(s3.endpoint.as_deref(), Some("http://around:1"));
        let s3 = s3_at("s3://b.localhost:9000/p", &around);
        assert_eq!(s3.endpoint.as_deref(), Some("http://localhost:9000"));
    }

    #[test]
    fn credentials_come_as_a_set() {
        let around = |name: &str| {
            ["access-key-id", "secret-access-key", "session-token"]
                .contains(&name)
                .then(|| format!("around {name}"))
        };
        let url = "s3://b/p?access-key-id=id&secretAccessKey=hunter2";
        let s3 = s3_at(url, &around);
        assert_eq!(s3.access_key_id.as_deref(), Some("id"));
        assert_eq!(s3.secret_access_key, Some(Secret::new("hunter2")));
        assert_eq!(s3.session_token, None);
        assert!(!format!("{s3:?} {s3}").contains("hunter2"));
        assert!(refused("s3://b/p?access-key-id=id").contains("secret-access-key"));
        assert!(refused("s3://b/p?session-token=t").contains("access-key-id"));
        assert!(!refused("s3://id:hunter2@b/p").contains("hunter2"));
    }

    #[test]
    fn access_points_are_buckets() {
        let s3 = s3_target("s3://arn:aws:s3:eu-west-1:123456789012:accesspoint/db/some/path");
        assert_eq!(s3.bucket, "arn:aws:s3:eu-west-1:123456789012:accesspoint/db");
        assert_eq!((s3.path.as_str(), s3.region.as_deref()), ("some/path", Some("eu-west-1")));
        refused("s3://arn:aws:s3:::accesspoint/db");
        refused("s3://arn:aws:s3:eu-west-1:1:bucket/db");
        refused("s3://arn:aws:s3:eu-west-1:1:accesspoint/db?endpoint=http://x");
    }

    #[test]
    fn encryption_settings_are_checked() {
        let key = BASE64.encode([7; 32]);
        let s3 = s3_target(&format!("s3://b/p?sse-customer-key={}", key.replace('+', "%2B")));
        let Encryption::Customer { key_md5, .. } = s3.encryption else { panic!() };
        assert_eq!(key_md5, BASE64.encode(Md5::digest([7; 32])));
        let kms = s3_target("s3://b/p?sseKmsKeyId=alias/k").encryption;
        assert_eq!(kms, Encryption::Kms { key_id: "alias/k".into() });
        refused(&format!("s3://b/p?sse-customer-key={key}&sse-kms-key-id=k"));
        refused(&format!("s3://b/p?sse-customer-key={key}&sse-customer-algorithm=DES"));
        refused(&format!("s3://b/p?sse-customer-key={key}&endpoint=http://example.com"));
        s3_target(&format!("s3://b/p?sse-customer-key={key}&endpoint=http://127.0.0.1:9000"));
        refused("s3://b/p?sse-customer-key=c2hvcnQ=");
    }

    #[test]
    fn values_that_do_not_fit_are_refused() {
        refused("s3:///path");
        refused("s3://localhost:9000/bucket");
        refused("s3://b/p?skip-verify=perhaps");
        refused("s3://b/p?part-size=1024");
        refused("s3://b/p?part-size=8MB");
        refused("s3://b/p?region=a&region=b");
        refused("s3://b/p#fragment");
    }
}
