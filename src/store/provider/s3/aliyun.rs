//! Signatures of Alibaba Cloud's Object Storage Service, version 4.
//! Source: <https://www.alibabacloud.com/help/en/oss/developer-reference/recommend-to-use-signature-version-4>.

use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_lc_rs::{digest, hmac};
use jiff::tz::TimeZone;
use percent_encoding::utf8_percent_encode;

use super::address::{PATH, QUERY};
use super::session::Request;
use crate::error::{Error, Result};

const ALGORITHM: &str = "OSS4-HMAC-SHA256";
/// A payload's digest is not signed: the service has no such signatures. A file's own checksums show what was lost.
const PAYLOAD: &str = "UNSIGNED-PAYLOAD";

/// The headers to add to a request for `bucket`.
///
/// # Errors
/// `Config` if the time cannot be written.
pub(super) fn sign(
    request: &Request,
    bucket: &str,
    region: &str,
    time: SystemTime,
    credentials: &Credentials,
) -> Result<Vec<(&'static str, String)>> {
    let time = jiff::Timestamp::try_from(time)
        .map_err(|e| Error::config(format!("this machine's clock shows no time that can be sent: {e}")))?;
    let time = time.to_zoned(TimeZone::UTC).strftime("%Y%m%dT%H%M%SZ").to_string();
    let mut added = vec![("x-oss-content-sha256", PAYLOAD.to_owned()), ("x-oss-date", time.clone())];
    added.extend(credentials.session_token().map(|token| ("x-oss-security-token", token.to_owned())));
    let text = canonical(request, bucket, &added);
    let authorization = authorization(&text, region, &time, credentials);
    added.push(("authorization", authorization));
    Ok(added)
}

/// The value of the header Authorization for a request of which `text` is signed at `time`.
fn authorization(text: &str, region: &str, time: &str, credentials: &Credentials) -> String {
    let day = &time[..8];
    let scope = format!("{day}/{region}/oss/aliyun_v4_request");
    let digest = hex(digest::digest(&digest::SHA256, text.as_bytes()).as_ref());
    let text = format!("{ALGORITHM}\n{time}\n{scope}\n{digest}");
    let mut key = format!("aliyun_v4{}", credentials.secret_access_key()).into_bytes();
    for step in [day, region, "oss", "aliyun_v4_request"] {
        key = mac(&key, step);
    }
    let (id, signature) = (credentials.access_key_id(), hex(&mac(&key, &text)));
    format!("{ALGORITHM} Credential={id}/{scope},Signature={signature}")
}

/// What is signed of a request: all of it but what a proxy may change on the way.
fn canonical(request: &Request, bucket: &str, added: &[(&'static str, String)]) -> String {
    let key = request.key.as_deref().unwrap_or_default();
    let path = format!("/{}/{}", utf8_percent_encode(bucket, QUERY), utf8_percent_encode(key, PATH));
    let mut query: Vec<String> = request.query.iter().map(|(name, value)| field(name, value)).collect();
    query.sort_unstable();
    let is_signed = |name: &str| name.starts_with("x-oss-") || matches!(name, "content-type" | "content-md5");
    let mut headers: Vec<String> = request
        .headers
        .iter()
        .chain(added)
        .filter(|(name, _)| is_signed(name))
        .map(|(name, value)| format!("{name}:{}\n", value.trim()))
        .collect();
    headers.sort_unstable();
    let (query, headers) = (query.join("&"), headers.concat());
    format!("{}\n{path}\n{query}\n{headers}\n\n{PAYLOAD}", request.method)
}

fn field(name: &str, value: &str) -> String {
    let name = utf8_percent_encode(name, QUERY);
    if value.is_empty() { name.to_string() } else { format!("{name}={}", utf8_percent_encode(value, QUERY)) }
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use reqwest::Method;

    use super::*;

    fn request() -> Request {
        let mut request = Request::object(Method::PUT, "1234+-/123/1.txt".to_owned())
            .header("x-oss-head1", "value")
            .header("content-type", "text/plain")
            // What is not signed.
            .header("range", "bytes=0-1");
        for (name, value) in [
            ("param1", "value1"),
            ("+param1", "value3"),
            ("|param1", "value4"),
            ("+param2", ""),
            ("|param2", ""),
            ("param2", ""),
        ] {
            request = request.query(name, value);
        }
        request
    }

    /// Examples that Alibaba's own libraries are tested with. Their time is in no header.
    #[test]
    fn a_signature_is_that_of_alibabas_own_libraries() {
        let credentials = Credentials::new("ak", "sk", None, None, "test");
        let payload = ("x-oss-content-sha256", PAYLOAD.to_owned());
        let token = ("x-oss-security-token", "token".to_owned());
        for (added, time, signature) in [
            (
                vec![payload.clone()],
                "20231216T162057Z",
                "9efc975fb94480f28a9ab2fcf5b23b4170d83a069838df4e77501d79868bd829",
            ),
            (
                vec![payload, token],
                "20231217T034736Z",
                "0436fec1623c737d5827c11d200afd3df51d067b80196080438f57c94d99b9b0",
            ),
        ] {
            let text = canonical(&request(), "bucket", &added);
            assert_eq!(
                authorization(&text, "cn-hangzhou", time, &credentials),
                format!(
                    "OSS4-HMAC-SHA256 Credential=ak/{}/cn-hangzhou/oss/aliyun_v4_request,Signature={signature}",
                    &time[..8]
                )
            );
        }
    }

    #[test]
    fn time_and_token_are_signed() {
        let credentials = Credentials::new("ak", "sk", Some("token".to_owned()), None, "test");
        let time = UNIX_EPOCH + Duration::from_secs(1_702_743_657);
        let added = sign(&request(), "bucket", "cn-hangzhou", time, &credentials).unwrap();
        let (names, values): (Vec<_>, Vec<_>) = added.iter().cloned().unzip();
        assert_eq!(names, ["x-oss-content-sha256", "x-oss-date", "x-oss-security-token", "authorization"]);
        assert_eq!(values[1..3], ["20231216T162057Z", "token"]);
        let text = canonical(&request(), "bucket", &added[..3]);
        assert!(
            text.contains("\nx-oss-date:20231216T162057Z\nx-oss-head1:value\nx-oss-security-token:token\n")
        );
        assert_eq!(values[3], authorization(&text, "cn-hangzhou", "20231216T162057Z", &credentials));
    }
}
