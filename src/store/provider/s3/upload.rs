//! Large files: multipart uploads, one part at a time.
//!
//! Memory holds the part that is being sent, and at the beginning the one before it: an upload that
//! turns out to have a single part is a single PutObject.

use std::fmt::Write as _;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::ETAG;
use reqwest::Method;
use serde::Deserialize;

use super::failure::{Failure, Refusal};
use super::session::Request;
use super::{S3Bucket, SessionRef};
use crate::error::{Error, ErrorKind, Result};
use crate::runtime;
use crate::store::http::xml;
use crate::store::{Bucket as _, PutOptions, Upload, errors};

/// The most parts that an upload may have.
const MAX_PARTS: usize = 10_000;
/// An answer is smaller.
const MAX_ANSWER: usize = 64 << 10;

#[derive(Deserialize)]
struct Initiated {
    #[serde(rename = "UploadId")]
    upload_id: String,
}

pub(super) struct S3Upload {
    bucket: S3Bucket,
    key: String,
    options: PutOptions,
    /// The first part, until it is known whether there is a second one.
    held: Option<Bytes>,
    /// The store's name for this upload, while there is one to complete or abort.
    upload_id: Option<String>,
    /// The ETags of the parts that were sent. Invariant: empty while `upload_id` is none.
    etags: Vec<String>,
    size: u64,
    /// Completing failed without an answer, so it may have been done.
    uncertain: bool,
    ended: bool,
}

impl S3Upload {
    pub(super) fn new(bucket: S3Bucket, key: String, options: PutOptions) -> Self {
        Self {
            bucket,
            key,
            options,
            held: None,
            upload_id: None,
            etags: Vec::new(),
            size: 0,
            uncertain: false,
            ended: false,
        }
    }

    fn alive(&self) -> Result<()> {
        if self.ended {
            Err(Error::new(ErrorKind::Interrupted, "the upload has ended already"))
        } else {
            Ok(())
        }
    }

    /// The store's name for this upload, which is begun now if need be.
    async fn initiate(&mut self, session: &SessionRef) -> Result<String> {
        if let Some(upload_id) = &self.upload_id {
            return Ok(upload_id.clone());
        }
        let request = Request::object(Method::POST, self.key.clone())
            .query("uploads", "")
            .headers(self.bucket.object_headers(&self.options));
        let what = format!("begin to write {}", &self.key);
        let response = session
            .send(&request, self.bucket.way)
            .await
            .map_err(|failure| session.explain(failure, &what))?;
        let answer = session.http.read_all(response, MAX_ANSWER).await;
        let initiated =
            answer.and_then(|body| xml::document::<Initiated>(&body, "InitiateMultipartUploadResult"));
        let upload_id = initiated.map_err(|e| session.explain(Failure::Error(e), &what))?.upload_id;
        self.upload_id = Some(upload_id.clone());
        Ok(upload_id)
    }

    async fn send_part(&mut self, session: &SessionRef, upload_id: &str, part: Bytes) -> Result<()> {
        let number = self.etags.len() + 1;
        if number > MAX_PARTS {
            return Err(Error::config(format!(
                "{} needs more than {MAX_PARTS} parts; raise the setting part-size",
                self.key
            )));
        }
        let len = part.len() as u64;
        let request = Request::object(Method::PUT, self.key.clone())
            .query("partNumber", number.to_string())
            .query("uploadId", upload_id)
            .headers(self.bucket.key_headers())
            .body(part);
        let what = format!("write part {number} of {}", &self.key);
        let response = session
            .send(&request, self.bucket.way)
            .await
            .map_err(|failure| session.explain(failure, &what))?;
        let etag = response.headers().get(ETAG).and_then(|value| value.to_str().ok());
        let etag = etag.ok_or_else(|| {
            Error::new(ErrorKind::Unsupported, format!("{} gives parts no ETag", session.http.endpoint()))
        })?;
        self.etags.push(etag.to_owned());
        self.size += len;
        Ok(())
    }

    async fn complete_multipart(&mut self, session: &SessionRef, upload_id: &str) -> Result<()> {
        let request = Request::object(Method::POST, self.key.clone())
            .query("uploadId", upload_id)
            .header("content-type", "application/xml")
            .headers(self.bucket.key_headers())
            .body(self.document());
        let sent = self.bucket.send_if_absent(session, &self.key, request, &self.options).await;
        let outcome = match sent {
            Ok(response) => accepted(response, session).await,
            Err(failure) => Err(failure),
        };
        match outcome {
            Ok(()) => Ok(()),
            Err(Failure::Refused(refusal)) if refusal.is_precondition_failed() => {
                self.bucket.shared.fence.note_kept();
                Err(errors::already_exists(&self.bucket.describe(), &self.key))
            }
            Err(Failure::Refused(refusal)) if refusal.code == "NoSuchUpload" => self.forgotten().await,
            Err(Failure::Refused(refusal)) if refusal.is_conflict() && self.options.if_absent => {
                self.conflicted(session.explain(refusal.into(), &format!("finish {}", self.key))).await
            }
            Err(failure) => Err(self.bucket.explain(session, failure, &format!("finish {}", &self.key))),
        }
    }

    /// The store does not know the upload any more. If an attempt's answer was lost, that attempt did it.
    async fn forgotten(&self) -> Result<()> {
        let found = match self.bucket.head(&self.key).await {
            Ok(found) => found,
            Err(e) if e.kind() == ErrorKind::NotFound => return Err(self.to_be_written_again()),
            Err(e) => return Err(e),
        };
        if self.options.if_absent {
            return Err(errors::already_exists(&self.bucket.describe(), &self.key));
        }
        if self.uncertain && found.size == self.size {
            return Ok(());
        }
        Err(self.to_be_written_again())
    }

    fn to_be_written_again(&self) -> Error {
        let (key, url) = (&self.key, self.bucket.describe());
        let message =
            format!("the store has given up the upload of {key} to {url}; it has to be written again");
        Error::new(ErrorKind::Unavailable, message)
    }

    /// Another request for the same name was under way, whoever's it is. What that is about shows by what is there:
    /// nothing, and `refused` stands, which passes.
    async fn conflicted(&self, refused: Error) -> Result<()> {
        match self.bucket.head(&self.key).await {
            Ok(_) => Err(errors::already_exists(&self.bucket.describe(), &self.key)),
            Err(e) if e.kind() == ErrorKind::NotFound => Err(refused),
            Err(e) => Err(e),
        }
    }

    fn document(&self) -> Bytes {
        let mut xml =
            String::from("<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">");
        for (i, etag) in self.etags.iter().enumerate() {
            let (number, etag) = (i + 1, xml::escape(etag));
            let written = write!(xml, "<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>");
            written.expect("BUG: writing to a string does not fail");
        }
        xml.push_str("</CompleteMultipartUpload>");
        xml.into()
    }
}

#[async_trait]
impl Upload for S3Upload {
    fn part_size(&self) -> usize {
        self.bucket.target().part_size
    }

    async fn part(&mut self, part: Bytes) -> Result<()> {
        self.alive()?;
        if self.held.is_none() && self.upload_id.is_none() {
            self.held = Some(part);
            return Ok(());
        }
        let session = self.bucket.session().await?;
        let upload_id = self.initiate(&session).await?;
        if let Some(held) = self.held.clone() {
            self.send_part(&session, &upload_id, held).await?;
            self.held = None;
        }
        self.send_part(&session, &upload_id, part).await
    }

    async fn complete(&mut self) -> Result<()> {
        self.alive()?;
        let session = self.bucket.session().await?;
        let outcome = match self.upload_id.clone() {
            None => {
                let body = self.held.clone().unwrap_or_default();
                self.bucket.put_object(&self.key, body, &self.options).await
            }
            Some(upload_id) => {
                if let Some(held) = self.held.clone() {
                    self.send_part(&session, &upload_id, held).await?;
                    self.held = None;
                }
                self.complete_multipart(&session, &upload_id).await
            }
        };
        match &outcome {
            Ok(()) => {
                self.upload_id = None;
                self.ended = true;
            }
            Err(e) => self.uncertain |= e.is_transient() || e.kind() == ErrorKind::WrongAnswer,
        }
        outcome
    }

    async fn abort(&mut self) -> Result<()> {
        self.held = None;
        self.ended = true;
        let Some(upload_id) = self.upload_id.clone() else { return Ok(()) };
        abort(&self.bucket, &self.key, &upload_id).await?;
        self.upload_id = None;
        Ok(())
    }
}

impl Drop for S3Upload {
    /// Parts that nobody will complete cost money: they are given up in the background.
    fn drop(&mut self) {
        let (Some(upload_id), Ok(runtime)) = (self.upload_id.take(), runtime::handle()) else { return };
        let (bucket, key) = (self.bucket.clone(), self.key.clone());
        runtime.spawn(async move {
            if let Err(e) = abort(&bucket, &key, &upload_id).await {
                tracing::warn!(error = %e, "cannot remove the parts of an upload that was given up");
            }
        });
    }
}

/// Gives up an upload.
///
/// # Errors
/// Those of the store.
pub(super) async fn abort(bucket: &S3Bucket, key: &str, upload_id: &str) -> Result<()> {
    let session = bucket.session().await?;
    let request = Request::object(Method::DELETE, key.to_owned()).query("uploadId", upload_id);
    match session.send(&request, bucket.way).await {
        Err(Failure::Refused(refusal)) if refusal.status == 404 => Ok(()),
        Err(failure) => Err(session.explain(failure, &format!("give up writing {key}"))),
        Ok(_) => Ok(()),
    }
}

/// An answer to a completion may begin as a success and end as a refusal.
async fn accepted(response: reqwest::Response, session: &SessionRef) -> Result<(), Failure> {
    let body = session.http.read_all(response, MAX_ANSWER).await?;
    let mut refusal = Refusal { status: 200, ..Refusal::default() };
    refusal.read(&body);
    if refusal.code.is_empty() { Ok(()) } else { Err(Failure::Refused(refusal)) }
}
