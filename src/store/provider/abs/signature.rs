//! Signatures with an account's key.
//! Source: <https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key>.

use std::time::SystemTime;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::fmt::rfc2822::DateTimePrinter;
use percent_encoding::percent_decode_str;

use crate::error::{Error, Result};
use crate::store::Secret;
use crate::store::http::call::Call;

/// The headers that are signed by their place, in this order.
const HEADERS: [&str; 11] = [
    "content-encoding",
    "content-language",
    "content-length",
    "content-md5",
    "content-type",
    "date",
    "if-modified-since",
    "if-match",
    "if-none-match",
    "if-unmodified-since",
    "range",
];

/// An account and its key.
pub(super) struct SharedKey {
    account: String,
    key: hmac::Key,
}

impl std::fmt::Debug for SharedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SharedKey").field(&self.account).finish()
    }
}

impl SharedKey {
    /// The key `secret`, in base64.
    ///
    /// # Errors
    /// `Config` if it is not in base64. Nothing of it is repeated.
    pub(super) fn new(account: &str, secret: &Secret) -> Result<Self> {
        let bytes = BASE64.decode(secret.reveal()).ok().filter(|bytes| !bytes.is_empty());
        let bytes = bytes.ok_or_else(|| {
            Error::config("the setting 'account-key' is not the key of a storage account, which is in base64")
        })?;
        Ok(Self { account: account.to_owned(), key: hmac::Key::new(hmac::HMAC_SHA256, &bytes) })
    }

    /// The value of the header Authorization for `call` with the headers `more`, which goes to a server whose own path
    /// is `base_path`.
    pub(super) fn authorize(&self, call: &Call, base_path: &str, more: &[(&'static str, String)]) -> String {
        let signature = hmac::sign(&self.key, self.text(call, base_path, more).as_bytes());
        format!("SharedKey {}:{}", self.account, BASE64.encode(signature))
    }

    /// What is signed.
    fn text(&self, call: &Call, base_path: &str, more: &[(&'static str, String)]) -> String {
        let headers: Vec<(&str, &str)> =
            call.headers.iter().chain(more).map(|(name, value)| (*name, value.trim())).collect();
        let length = if call.body.is_empty() { String::new() } else { call.body.len().to_string() };
        let mut text = call.method.to_string();
        for wanted in HEADERS {
            let found = headers.iter().find(|(name, _)| *name == wanted).map_or("", |(_, value)| *value);
            text.push('\n');
            text.push_str(if wanted == "content-length" { &length } else { found });
        }
        let mut own: Vec<_> = headers.iter().filter(|(name, _)| name.starts_with("x-ms-")).collect();
        own.sort();
        for (name, value) in own {
            text.push_str(&format!("\n{name}:{value}"));
        }
        let (path, query) = call.path.split_once('?').unwrap_or((&call.path, ""));
        text.push_str(&format!("\n/{}{base_path}{path}", self.account));
        let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let fields = query.split('&').filter(|field| !field.is_empty());
        let mut fields: Vec<(String, String)> = fields
            .map(|field| field.split_once('=').unwrap_or((field, "")))
            .map(|(name, value)| (decoded(name).to_ascii_lowercase(), decoded(value)))
            .collect();
        fields.sort();
        for (name, value) in fields {
            text.push_str(&format!("\n{name}:{value}"));
        }
        text
    }
}

/// `time` as HTTP writes it.
pub(super) fn http_date(time: SystemTime) -> Result<String> {
    let text = jiff::Timestamp::try_from(time)
        .and_then(|time| DateTimePrinter::new().timestamp_to_rfc9110_string(&time));
    text.map_err(|e| Error::config(format!("this machine's clock shows no time that can be sent: {e}")))
}

#[cfg(test)]
mod tests {
    use reqwest::Method;

    use super::*;

    /// The example of the documentation, with its headers and what it says is signed.
    #[test]
    fn what_is_signed_is_what_the_documentation_says() {
        let key = SharedKey::new("myaccount", &Secret::new("a2V5")).unwrap();
        let call = Call::new(Method::GET, "/mycontainer?restype=container&comp=metadata&timeout=20");
        let more = [
            ("x-ms-version", "2015-02-21".to_owned()),
            ("x-ms-date", "Fri, 26 Jun 2015 23:39:12 GMT".to_owned()),
        ];
        assert_eq!(
            key.text(&call, "", &more),
            "GET\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:Fri, 26 Jun 2015 23:39:12 GMT\nx-ms-version:2015-02-21\n\
             /myaccount/mycontainer\ncomp:metadata\nrestype:container\ntimeout:20"
        );
    }

    #[test]
    fn a_key_is_in_base64_and_never_shown() {
        let e = SharedKey::new("a", &Secret::new("hunter2!")).unwrap_err();
        assert!(e.to_string().contains("account-key") && !e.to_string().contains("hunter2"), "{e}");
        assert!(!format!("{:?}", SharedKey::new("a", &Secret::new("a2V5")).unwrap()).contains("a2V5"));
    }
}
