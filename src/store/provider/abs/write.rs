//! Writing a small blob in one request.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use md5::{Digest as _, Md5};
use reqwest::{Method, Response};

use super::AzureBucket;
use super::blob::TIMESTAMP;
use super::failure::Failure;
use super::session::Session;
use crate::error::{ErrorKind, Result};
use crate::runtime;
use crate::store::PutOptions;
use crate::store::http::call::Call;

/// Hashing more than this on a thread of the runtime would keep others waiting.
const HASH_HERE: usize = 512 << 10;

impl AzureBucket {
    pub(super) async fn put_blob(&self, key: &str, body: Bytes, options: &PutOptions) -> Result<()> {
        let session = self.session().await?;
        let call = Call::new(Method::PUT, self.site().blob_path(key))
            .header("x-ms-blob-type", "BlockBlob")
            .header("content-type", "application/octet-stream")
            // The service refuses what came otherwise than it was sent.
            .header("content-md5", md5(&body).await?)
            .headers(described(options))
            .body(body);
        let sent = self.send_if_absent(&session, key, options, call).await;
        sent.map(drop).map_err(|failure| self.explain(&session, failure, &format!("write {key}")))
    }

    /// Sends `call`, such that `key` appears only if that is what `options` ask for. A store that was seen to ignore
    /// the condition is asked first whether the blob is there.
    pub(super) async fn send_if_absent(
        &self,
        session: &Session,
        key: &str,
        options: &PutOptions,
        call: Call,
    ) -> Result<Response, Failure> {
        if !options.if_absent {
            return session.send(&call, self.way).await;
        }
        if self.shared.fence.looks_first() {
            match self.describe_blob(key).await {
                Ok(_) => return Err(self.already_exists(key).into()),
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(e) => return Err(e.into()),
            }
        }
        match session.send(&call.header("if-none-match", "*"), self.way).await {
            Err(Failure::Refused(refusal)) if refusal.is_already_there() => {
                self.shared.fence.note_kept();
                Err(self.already_exists(key).into())
            }
            other => other,
        }
    }
}

/// What the service is told of a blob beside its content, as Litestream tells it.
pub(super) fn described(options: &PutOptions) -> [(&'static str, String); 2] {
    const NAME: &str = "x-ms-meta-litestreamtimestamp";
    debug_assert!(NAME.ends_with(TIMESTAMP));
    [(NAME, options.timestamp.to_string()), ("x-ms-access-tier", "Hot".to_owned())]
}

/// The digest of `content`, in base64.
pub(super) async fn md5(content: &Bytes) -> Result<String> {
    let digest = |content: &[u8]| BASE64.encode(Md5::digest(content));
    if content.len() <= HASH_HERE {
        return Ok(digest(content));
    }
    let content = content.clone();
    runtime::blocking(move || Ok(digest(&content))).await
}
