//! Writing a small object in one request: its description and its content, in one body of two parts.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{BufMut as _, Bytes, BytesMut};
use crc_fast::CrcAlgorithm;
use reqwest::{Method, Response};
use serde_json::json;

use super::GcsBucket;
use super::failure::Failure;
use super::object::TIMESTAMP;
use super::session::Session;
use crate::error::{Error, ErrorKind, Result};
use crate::store::PutOptions;
use crate::store::http::call::Call;

/// The condition that the object is not there yet.
pub(super) const IF_ABSENT: &str = "&ifGenerationMatch=0";

/// An object that is sent in one request.
struct Put<'a> {
    body: &'a [u8],
    description: &'a str,
    boundary: &'a str,
}

impl GcsBucket {
    pub(super) async fn put_object(&self, key: &str, body: Bytes, options: &PutOptions) -> Result<()> {
        let session = self.session().await?;
        let description = self.description(key, options, Some(&body));
        let put = Put { body: &body, description: &description, boundary: &boundary()? };
        let sent =
            self.send_if_absent(&session, key, options, |condition| self.upload_of_both(&put, condition));
        sent.await.map(drop).map_err(|failure| self.explain(&session, failure, &format!("write {key}")))
    }

    /// What the service is told of an object.
    pub(super) fn description(&self, key: &str, options: &PutOptions, content: Option<&[u8]>) -> String {
        let mut description = json!({
            "name": key,
            "contentType": "application/octet-stream",
            "metadata": { TIMESTAMP: options.timestamp.to_string() },
        });
        if let Some(content) = content {
            // The service refuses what came otherwise than it was sent.
            let sum = crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, content) as u32;
            description["crc32c"] = BASE64.encode(sum.to_be_bytes()).into();
        }
        description.to_string()
    }

    fn upload_of_both(&self, put: &Put<'_>, condition: &str) -> Call {
        let Put { body, description, boundary } = put;
        let mut parts = BytesMut::with_capacity(body.len() + description.len() + 300);
        for (kind, content) in
            [("application/json; charset=UTF-8", description.as_bytes()), ("application/octet-stream", body)]
        {
            parts.put(format!("--{boundary}\r\nContent-Type: {kind}\r\n\r\n").as_bytes());
            parts.put(content);
            parts.put(&b"\r\n"[..]);
        }
        parts.put(format!("--{boundary}--\r\n").as_bytes());
        let path = format!("{}{condition}&fields=generation", self.site().upload_path("multipart"));
        Call::new(Method::POST, path)
            .header("content-type", format!("multipart/related; boundary={boundary}"))
            .body(parts.freeze())
    }

    /// Sends what `call` makes of a condition, such that `key` appears only if that is what `options` ask for. A store
    /// that was seen to ignore the condition is asked first whether the object is there.
    pub(super) async fn send_if_absent(
        &self,
        session: &Session,
        key: &str,
        options: &PutOptions,
        call: impl Fn(&str) -> Call,
    ) -> Result<Response, Failure> {
        if !options.if_absent {
            return session.send(&call(""), self.way).await;
        }
        if self.shared.fence.looks_first() {
            match self.describe_object(key).await {
                Ok(_) => return Err(self.already_exists(key).into()),
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(e) => return Err(e.into()),
            }
        }
        match session.send(&call(IF_ABSENT), self.way).await {
            Err(Failure::Refused(refusal)) if refusal.is_precondition_failed() => {
                self.shared.fence.note_kept();
                Err(self.already_exists(key).into())
            }
            other => other,
        }
    }
}

/// A line that no content has.
///
/// # Errors
/// `Io` if the system has no random numbers.
pub(super) fn boundary() -> Result<String> {
    let random =
        || getrandom::u64().map_err(|e| Error::new(ErrorKind::Io, format!("no random numbers: {e}")));
    Ok(format!("litestream-{:016x}{:016x}", random()?, random()?))
}
