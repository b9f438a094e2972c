//! Endpoints: the scheme, host, port and path of a server.
//!
//! Source: Litestream 0.5's `EnsureEndpointScheme`.

use std::net::IpAddr;

use url::Url;

use crate::error::{Error, Result};

/// An endpoint with a scheme and without a slash at its end.
///
/// # Errors
/// `Config` if it is not an HTTP or HTTPS URL, or has more than scheme, host, port and path.
pub(in crate::store) fn normalize(endpoint: &str) -> Result<String> {
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
pub(in crate::store) fn is_local(endpoint: &str) -> bool {
    let Ok(url) = Url::parse(&format!("http://{endpoint}")) else { return false };
    let Some(host) = url.host_str() else { return false };
    match host.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) => ip.is_loopback() || ip.is_private(),
        Ok(IpAddr::V6(ip)) => ip.is_loopback(),
        Err(_) => host == "localhost" || host.ends_with(".localhost") || host.ends_with(".local"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
