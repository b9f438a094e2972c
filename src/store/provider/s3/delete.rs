//! Deleting: DeleteObjects, or DeleteObject where a store has no more.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use md5::{Digest as _, Md5};
use reqwest::Method;
use serde::Deserialize;

use super::failure::{Failure, Refusal};
use super::session::Request;
use super::{S3Bucket, SessionRef};
use crate::error::Result;
use crate::store::http::xml;

/// The most keys that one request may have.
const MAX_KEYS: usize = 1000;
/// An answer has at most one entry for each key.
const MAX_ANSWER: usize = 4 << 20;

#[derive(Deserialize)]
struct DeleteResult {
    #[serde(rename = "Error", default)]
    errors: Vec<DeleteError>,
}

#[derive(Deserialize)]
struct DeleteError {
    #[serde(rename = "Key", default)]
    key: String,
    #[serde(rename = "Code", default)]
    code: String,
    #[serde(rename = "Message", default)]
    message: String,
}

impl S3Bucket {
    pub(super) async fn delete_objects(&self, keys: &[String]) -> Result<()> {
        if keys.is_empty() {
            return Ok(());
        }
        let session = self.session().await?;
        for keys in keys.chunks(MAX_KEYS) {
            if keys.len() == 1 || self.shared.delete_singly.load(Ordering::Relaxed) {
                self.delete_singly(&session, keys).await?;
            } else {
                self.delete_together(&session, keys).await?;
            }
        }
        Ok(())
    }

    async fn delete_singly(&self, session: &SessionRef, keys: &[String]) -> Result<()> {
        for key in keys {
            match session.send(&Request::object(Method::DELETE, key.clone()), self.way).await {
                Ok(_) => {}
                Err(Failure::Refused(refusal)) if refusal.status == 404 && refusal.code != "NoSuchBucket" => {
                }
                Err(failure) => return Err(session.explain(failure, &format!("delete {key}"))),
            }
        }
        Ok(())
    }

    async fn delete_singly_from_now_on(&self, session: &SessionRef, keys: &[String]) -> Result<()> {
        self.delete_singly(session, keys).await?;
        self.shared.delete_singly.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// The request that deletes all of `keys`.
    pub(super) fn deletion(&self, keys: &[String]) -> Request {
        let body = document(keys);
        let request =
            Request::bucket(Method::POST).query("delete", "").header("content-type", "application/xml");
        let md5 = self.target().content_md5.then(|| ("content-md5", BASE64.encode(Md5::digest(&body))));
        request.headers(md5).body(body)
    }

    async fn delete_together(&self, session: &SessionRef, keys: &[String]) -> Result<()> {
        let what = format!("delete {} files", keys.len());
        let response = match session.send(&self.deletion(keys), self.way).await {
            Ok(response) => response,
            // Stores that cannot do this say so in many ways. Whether it is that shows when one file is deleted.
            Err(Failure::Refused(refusal)) if refusal.may_be_of_the_kind() => {
                return self.delete_singly_from_now_on(session, keys).await;
            }
            Err(failure) => return Err(session.explain(failure, &what)),
        };
        let answer = session.http.read_all(response, MAX_ANSWER).await?;
        if answer.is_empty() && self.target().dialect.deletes_without_a_word() {
            return Ok(());
        }
        let Ok(result) = xml::document::<DeleteResult>(&answer, "DeleteResult") else {
            return self.delete_singly_from_now_on(session, keys).await;
        };
        failures(result).map_or(Ok(()), |(refusal, key, others)| {
            let what = format!("delete '{key}' and {others} more");
            Err(session.explain(Failure::Refused(refusal), &what))
        })
    }
}

fn document(keys: &[String]) -> Bytes {
    let mut xml = String::from("<Delete xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">");
    for key in keys {
        let written = write!(xml, "<Object><Key>{}</Key></Object>", xml::escape(key));
        written.expect("BUG: writing to a string does not fail");
    }
    xml.push_str("<Quiet>true</Quiet></Delete>");
    xml.into()
}

/// The first refusal, its key, and how many more there are.
fn failures(result: DeleteResult) -> Option<(Refusal, String, usize)> {
    let mut errors = result.errors.into_iter().filter(|e| e.code != "NoSuchKey");
    let first = errors.next()?;
    let status = if first.code == "AccessDenied" { 403 } else { 200 };
    let refusal = Refusal { status, code: first.code, message: first.message, ..Refusal::default() };
    Some((refusal, first.key, errors.count()))
}
