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
use super::{S3Store, SessionRef, xml};
use crate::error::Result;
use crate::ltx::FileId;

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

impl S3Store {
    pub(super) async fn delete_objects(&self, ids: &[FileId]) -> Result<()> {
        if ids.is_empty() {
            return Ok(());
        }
        let session = self.session().await?;
        for ids in ids.chunks(MAX_KEYS) {
            if ids.len() == 1 || self.shared.delete_singly.load(Ordering::Relaxed) {
                self.delete_singly(&session, ids).await?;
            } else {
                self.delete_together(&session, ids).await?;
            }
        }
        Ok(())
    }

    async fn delete_singly(&self, session: &SessionRef, ids: &[FileId]) -> Result<()> {
        for id in ids {
            match session.send(&Request::object(Method::DELETE, self.key(*id))).await {
                Ok(_) => {}
                Err(Failure::Refused(refusal)) if refusal.status == 404 && refusal.code != "NoSuchBucket" => {
                }
                Err(failure) => return Err(session.explain(failure, &format!("delete {id}"))),
            }
        }
        Ok(())
    }

    async fn delete_singly_from_now_on(&self, session: &SessionRef, ids: &[FileId]) -> Result<()> {
        self.delete_singly(session, ids).await?;
        self.shared.delete_singly.store(true, Ordering::Relaxed);
        Ok(())
    }

    async fn delete_together(&self, session: &SessionRef, ids: &[FileId]) -> Result<()> {
        let body = self.document(ids);
        let mut request =
            Request::bucket(Method::POST).query("delete", "").header("content-type", "application/xml");
        if self.target().content_md5 {
            request = request.header("content-md5", BASE64.encode(Md5::digest(&body)));
        }
        let what = format!("delete {} files", ids.len());
        let response = match session.send(&request.body(body)).await {
            Ok(response) => response,
            // Stores that cannot do this say so in many ways. Whether it is that shows when one file is deleted.
            Err(Failure::Refused(refusal)) if refusal.may_be_of_the_kind() => {
                return self.delete_singly_from_now_on(session, ids).await;
            }
            Err(failure) => return Err(session.explain(failure, &what)),
        };
        let answer = session.http.read_all(response, MAX_ANSWER).await?;
        let Ok(result) = xml::document::<DeleteResult>(&answer, "DeleteResult") else {
            return self.delete_singly_from_now_on(session, ids).await;
        };
        failures(result).map_or(Ok(()), |(refusal, key, others)| {
            let what = format!("delete '{key}' and {others} more");
            Err(session.explain(Failure::Refused(refusal), &what))
        })
    }

    fn document(&self, ids: &[FileId]) -> Bytes {
        let mut xml = String::from("<Delete xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">");
        for id in ids {
            let written = write!(xml, "<Object><Key>{}</Key></Object>", xml::escape(&self.key(*id)));
            written.expect("BUG: writing to a string does not fail");
        }
        xml.push_str("<Quiet>true</Quiet></Delete>");
        xml.into()
    }
}

/// The first refusal, its key, and how many more there are.
fn failures(result: DeleteResult) -> Option<(Refusal, String, usize)> {
    let mut errors = result.errors.into_iter().filter(|e| e.code != "NoSuchKey");
    let first = errors.next()?;
    let status = if first.code == "AccessDenied" { 403 } else { 200 };
    let refusal = Refusal { status, code: first.code, message: first.message, ..Refusal::default() };
    Some((refusal, first.key, errors.count()))
}
