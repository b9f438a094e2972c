//! Endpoints, and what the host of an S3 URL tells of bucket, region and endpoint.
//!
//! Source: Litestream 0.5's `ParseHost` and `EnsureEndpointScheme`.

use std::net::IpAddr;

use url::Url;

use crate::error::{Error, Result};

/// What the host of an S3 URL says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Host {
    pub(super) bucket: String,
    pub(super) region: Option<String>,
    pub(super) endpoint: Option<String>,
    pub(super) path_style: bool,
    /// The host names a provider, so nothing around the URL does.
    pub(super) names_provider: bool,
}

impl Host {
    /// Reads the host of an S3 URL: a bucket, or a bucket and its provider.
    pub(super) fn parse(host: &str) -> Self {
        if host.contains(':') && !host.contains(".com") {
            return Self::local(host);
        }
        match Self::provider(host) {
            Some(provider) => Self { names_provider: true, ..provider },
            None => Self { bucket: host.to_owned(), ..Self::default() },
        }
    }

    /// `bucket.host:port`, a server of one's own.
    fn local(host: &str) -> Self {
        let (bucket, server) = host.split_once('.').unwrap_or(("", host));
        Self {
            bucket: bucket.to_owned(),
            region: Some("us-east-1".to_owned()),
            endpoint: Some(format!("http://{server}")),
            path_style: true,
            names_provider: true,
        }
    }

    fn provider(host: &str) -> Option<Self> {
        if let Some(rest) = host.strip_suffix(".amazonaws.com") {
            return Self::amazon(rest);
        }
        if let Some(bucket) = host.strip_suffix(".s3.filebase.com") {
            let endpoint = Some("https://s3.filebase.com".to_owned());
            return Some(Self { bucket: bucket.to_owned(), endpoint, path_style: true, ..Self::default() });
        }
        for (suffix, label, path_style) in [
            (".digitaloceanspaces.com", None, false),
            (".backblazeb2.com", Some("s3"), true),
            (".scw.cloud", Some("s3"), false),
        ] {
            if let Some((bucket, region)) = regional(host, suffix, label) {
                let prefix = label.map(|l| format!("{l}.")).unwrap_or_default();
                return Some(Self {
                    bucket: bucket.to_owned(),
                    region: Some(region.to_owned()),
                    endpoint: Some(format!("https://{prefix}{region}{suffix}")),
                    path_style,
                    ..Self::default()
                });
            }
        }
        None
    }

    /// `bucket.s3` or `bucket.s3.region`, before `.amazonaws.com`.
    fn amazon(rest: &str) -> Option<Self> {
        let (bucket, region) = match rest.strip_suffix(".s3") {
            Some(bucket) => (bucket, None),
            None => {
                let (rest, region) = rest.rsplit_once('.')?;
                (rest.strip_suffix(".s3")?, Some(region.to_owned()))
            }
        };
        Some(Self { bucket: bucket.to_owned(), region, ..Self::default() })
    }
}

/// Splits `bucket.[label.]region{suffix}`.
fn regional<'a>(host: &'a str, suffix: &str, label: Option<&str>) -> Option<(&'a str, &'a str)> {
    let (rest, region) = host.strip_suffix(suffix)?.rsplit_once('.')?;
    match label {
        Some(label) => Some((rest.strip_suffix(label)?.strip_suffix('.')?, region)),
        None => Some((rest, region)),
    }
}

/// An endpoint with a scheme and without a slash at its end.
///
/// # Errors
/// `Config` if it is not an HTTP or HTTPS URL, or has more than scheme, host, port and path.
pub(super) fn normalize(endpoint: &str) -> Result<String> {
    // As in the replica URL, one slash is as good as two.
    let (scheme, rest) = endpoint.trim().split_once(":/").unwrap_or(("", endpoint.trim()));
    let given = match scheme {
        "" => rest.to_owned(),
        scheme => format!("{scheme}://{}", rest.trim_start_matches('/')),
    };
    let given = given.as_str();
    let lower = given.to_ascii_lowercase();
    let with_scheme = if lower.starts_with("http://") || lower.starts_with("https://") {
        given.to_owned()
    } else if given.contains("://") {
        return Err(bad("its scheme is neither http nor https"));
    } else if is_local(given) {
        format!("http://{given}")
    } else {
        format!("https://{given}")
    };
    let url = Url::parse(&with_scheme).map_err(|e| bad(&e.to_string()))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(bad("credentials do not belong in it; use access-key-id and secret-access-key"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(bad("it has a query"));
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

fn bad(why: &str) -> Error {
    Error::config(format!("the setting 'endpoint' is not an endpoint: {why}; write https://host:port"))
}

/// Whether `host[:port][/path]` is this machine or a private network, where TLS is unusual.
pub(super) fn is_local(endpoint: &str) -> bool {
    let Ok(url) = Url::parse(&format!("http://{endpoint}")) else { return false };
    let Some(host) = url.host_str() else { return false };
    match host.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) => ip.is_loopback() || ip.is_private(),
        Ok(IpAddr::V6(ip)) => ip.is_loopback(),
        Err(_) => host == "localhost" || host.ends_with(".localhost") || host.ends_with(".local"),
    }
}

/// Whether the store behind `endpoint` knows only the path style.
pub(super) fn wants_path_style(endpoint: &str) -> bool {
    let Ok(url) = Url::parse(endpoint) else { return false };
    let host = url.host_str().unwrap_or_default();
    host == "s3.filebase.com" || host.ends_with(".backblazeb2.com") || host.ends_with(".supabase.co")
}

/// Whether `endpoint` is Tigris, which has no use for `Content-MD5`.
pub(in crate::store) fn is_tigris(endpoint: &str) -> bool {
    let Ok(url) = Url::parse(endpoint) else { return false };
    matches!(url.host_str(), Some("fly.storage.tigris.dev" | "t3.storage.dev"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> (String, Option<String>, Option<String>, bool) {
        let h = Host::parse(text);
        (h.bucket, h.region, h.endpoint, h.path_style)
    }

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn a_host_names_bucket_region_and_endpoint_as_in_litestream() {
        assert_eq!(host("my.bucket"), ("my.bucket".into(), None, None, false));
        assert_eq!(host("b.s3.amazonaws.com"), ("b".into(), None, None, false));
        assert_eq!(host("a.b.s3.eu-west-1.amazonaws.com"), ("a.b".into(), some("eu-west-1"), None, false));
        assert_eq!(
            host("b.nyc3.digitaloceanspaces.com"),
            ("b".into(), some("nyc3"), some("https://nyc3.digitaloceanspaces.com"), false)
        );
        assert_eq!(
            host("b.s3.us-west-000.backblazeb2.com"),
            ("b".into(), some("us-west-000"), some("https://s3.us-west-000.backblazeb2.com"), true)
        );
        assert_eq!(host("b.s3.filebase.com"), ("b".into(), None, some("https://s3.filebase.com"), true));
        assert_eq!(
            host("b.s3.fr-par.scw.cloud"),
            ("b".into(), some("fr-par"), some("https://s3.fr-par.scw.cloud"), false)
        );
        assert_eq!(
            host("b.localhost:9000"),
            ("b".into(), some("us-east-1"), some("http://localhost:9000"), true)
        );
        assert_eq!(host("localhost:9000").0, "");
    }

    #[test]
    fn an_endpoint_without_a_scheme_is_http_only_when_it_is_local() {
        for local in
            ["localhost:9000", "127.0.0.1:9000", "10.1.2.3", "[::1]:9000", "minio.local", "172.20.0.1"]
        {
            assert_eq!(normalize(local).unwrap(), format!("http://{local}"));
        }
        for remote in ["s3.example.com", "8.8.8.8:9000", "172.200.0.1"] {
            assert_eq!(normalize(remote).unwrap(), format!("https://{remote}"));
        }
    }

    #[test]
    fn an_endpoint_keeps_its_path_and_loses_its_last_slash() {
        assert_eq!(
            normalize("https://a.supabase.co/storage/v1/s3/").unwrap(),
            "https://a.supabase.co/storage/v1/s3"
        );
        assert_eq!(normalize("HTTP://Host:9000/").unwrap(), "http://host:9000");
    }

    #[test]
    fn what_is_not_an_endpoint_is_refused_without_repeating_secrets() {
        for bad in ["ftp://host", "http://", "https://k:hunter2@host", "http://host?x=hunter2"] {
            let e = normalize(bad).unwrap_err();
            assert_eq!(e.kind(), crate::error::ErrorKind::Config, "{bad}");
            assert!(!e.to_string().contains("hunter2"), "{e}");
        }
    }
}
