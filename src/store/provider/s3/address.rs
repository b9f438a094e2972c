//! Where a bucket is: the URLs of requests.

use std::net::IpAddr;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use url::Url;

use super::dialect::Dialect;
use super::location::S3Location;

/// What is not encoded, as AWS signs it.
/// Source: <https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html>.
pub(super) const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
pub(super) const PATH: &AsciiSet = &QUERY.remove(b'/');

/// The part of every URL that is the same for all objects of a bucket, without a slash at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    base: String,
    /// A name without a value has no equals sign.
    bare: bool,
}

impl Address {
    /// Where the bucket of `target` is. `endpoint` is the custom endpoint, if any; `region` is used
    /// when there is none.
    pub(super) fn new(target: &S3Location, endpoint: Option<&str>, region: &str) -> Self {
        let bucket = target.bucket.as_str();
        let base = match endpoint {
            _ if bucket.starts_with("arn:") => access_point(bucket, region),
            Some(endpoint) => custom(endpoint, bucket, target.path_style || target.endpoint.is_none()),
            None if target.path_style || !is_host_label(bucket) => {
                format!("https://{}/{}", amazon("s3", region), utf8_percent_encode(bucket, QUERY))
            }
            None => format!("https://{bucket}.{}", amazon("s3", region)),
        };
        Self { base, bare: target.dialect == Dialect::Aliyun }
    }

    /// The URL of `key`, or of the bucket.
    pub(super) fn url(&self, key: Option<&str>, query: &[(&'static str, String)]) -> String {
        let mut url = self.base.clone();
        url.push('/');
        url.extend(utf8_percent_encode(key.unwrap_or_default(), PATH));
        for (i, (name, value)) in query.iter().enumerate() {
            url.push(if i == 0 { '?' } else { '&' });
            url.extend(utf8_percent_encode(name, QUERY));
            if value.is_empty() && self.bare {
                continue;
            }
            url.push('=');
            url.extend(utf8_percent_encode(value, QUERY));
        }
        url
    }
}

/// AWS's host of `service` in `region`.
pub(super) fn amazon(service: &str, region: &str) -> String {
    let suffix = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
    format!("{service}.{region}.{suffix}")
}

/// The host of `arn:{partition}:s3:{region}:{account}:accesspoint/{name}`.
fn access_point(arn: &str, region: &str) -> String {
    let mut fields = arn.splitn(6, ':').skip(4);
    let account = fields.next().unwrap_or_default();
    let name = fields.next().and_then(|f| f.strip_prefix("accesspoint/")).unwrap_or_default();
    format!("https://{name}-{account}.{}", amazon("s3-accesspoint", region))
}

fn custom(endpoint: &str, bucket: &str, path_style: bool) -> String {
    let endpoint = endpoint.trim_end_matches('/');
    let host =
        Url::parse(endpoint).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default();
    let numeric = host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
    match endpoint.split_once("://") {
        // A number has no names below it.
        Some((scheme, rest)) if !path_style && !numeric => format!("{scheme}://{bucket}.{rest}"),
        _ => format!("{endpoint}/{}", utf8_percent_encode(bucket, QUERY)),
    }
}

/// Whether `bucket` can be one label of a host name: a dot would not match AWS's certificate.
fn is_host_label(bucket: &str) -> bool {
    bucket.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        && !bucket.starts_with('-')
        && !bucket.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Location;

    fn url(target: &str, region: &str) -> String {
        let location = Location::parse(target, &|_: &str| None).unwrap();
        let s3 = location.site().as_any().downcast_ref::<S3Location>().unwrap();
        Address::new(s3, s3.endpoint.as_deref(), region).url(Some("a b/0000/+.ltx"), &[])
    }

    #[test]
    fn aws_is_reached_by_virtual_host_where_its_certificate_fits() {
        let key = "a%20b/0000/%2B.ltx";
        assert_eq!(url("s3://b/p", "eu-west-1"), format!("https://b.s3.eu-west-1.amazonaws.com/{key}"));
        assert_eq!(url("s3://b.c/p", "eu-west-1"), format!("https://s3.eu-west-1.amazonaws.com/b.c/{key}"));
        assert_eq!(url("s3://b/p", "cn-north-1"), format!("https://b.s3.cn-north-1.amazonaws.com.cn/{key}"));
        assert_eq!(
            url("s3://b/p?force-path-style=true", "us-east-1"),
            format!("https://s3.us-east-1.amazonaws.com/b/{key}")
        );
        assert_eq!(
            url("s3://arn:aws:s3:eu-west-1:123:accesspoint/db", "eu-west-1"),
            format!("https://db-123.s3-accesspoint.eu-west-1.amazonaws.com/{key}")
        );
    }

    #[test]
    fn custom_endpoints_keep_port_and_path() {
        let key = "a%20b/0000/%2B.ltx";
        assert_eq!(url("s3://b/p?endpoint=http://h:9000", ""), format!("http://h:9000/b/{key}"));
        assert_eq!(
            url("s3://b/p?endpoint=http://h:9000&force-path-style=false", ""),
            format!("http://b.h:9000/{key}")
        );
        assert_eq!(
            url("s3://b/p?endpoint=http://127.0.0.1:9000&force-path-style=false", ""),
            format!("http://127.0.0.1:9000/b/{key}")
        );
        assert_eq!(
            url("s3://b/p?endpoint=x.supabase.co/storage/v1/s3", ""),
            format!("https://x.supabase.co/storage/v1/s3/b/{key}")
        );
        assert_eq!(
            url("s3://b.fra1.digitaloceanspaces.com/p", ""),
            format!("https://b.fra1.digitaloceanspaces.com/{key}")
        );
    }

    #[test]
    fn queries_are_encoded_as_they_are_signed() {
        let mut address = Address { base: "http://h/b".into(), bare: false };
        let query = [("prefix", "a/b c+".to_owned()), ("uploads", String::new())];
        assert_eq!(address.url(None, &query), "http://h/b/?prefix=a%2Fb%20c%2B&uploads=");
        address.bare = true;
        assert_eq!(address.url(None, &query), "http://h/b/?prefix=a%2Fb%20c%2B&uploads");
    }
}
