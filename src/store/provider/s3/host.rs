//! What the host of an S3 URL says of bucket, region and endpoint, and what the stores behind endpoints need.
//!
//! Source: Litestream 0.5's `ParseHost` and its detection of providers.

use url::Url;

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

/// What the store behind an endpoint needs that others do not. The default is that of AWS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Quirks {
    /// The store knows only the path style.
    pub(super) path_style: bool,
    /// Deletions of several objects carry `Content-MD5`.
    pub(super) content_md5: bool,
    /// Reads ask for what was last written anywhere, not for what a region has cached (Tigris).
    pub(super) ask_consistent: bool,
}

impl Default for Quirks {
    fn default() -> Self {
        Self { path_style: false, content_md5: true, ask_consistent: false }
    }
}

impl Quirks {
    /// Those of the store at `endpoint`, a URL.
    pub(super) fn of(endpoint: &str) -> Self {
        let host = Url::parse(endpoint).ok().and_then(|url| url.host_str().map(str::to_owned));
        let host = host.unwrap_or_default().to_ascii_lowercase();
        let below = |domain: &str| {
            host.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        let is_tigris = ["fly.storage.tigris.dev", "t3.storage.dev"].into_iter().any(below);
        Self {
            path_style: ["s3.filebase.com", "backblazeb2.com", "supabase.co"].into_iter().any(below),
            content_md5: !is_tigris,
            ask_consistent: is_tigris,
        }
    }
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
}
