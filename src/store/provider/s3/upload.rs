//! Large files: multipart uploads, one part at a time.
//!
//! Memory holds the part that is being sent, and at the beginning the one before it: an upload that
//! turns out to have a single part is a single PutObject.
//!
//! An upload with a log is taken up where an earlier attempt stopped. Its first part is held until the end: it has the header, which
//! is another one in each attempt, and page 1, which commits change. What is completed is what this attempt was given: a part is taken over
//! if it has the length and the digest of what was sent as this part, and the store still lists that, when the upload
//! is taken up and once more before it is completed, since what an earlier attempt sent may arrive late.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::ETAG;
use reqwest::Method;
use serde::Deserialize;

use super::failure::{Failure, Refusal};
use super::session::Request;
use super::{S3Bucket, SessionRef};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::runtime;
use crate::store::http::xml;
use crate::store::part_log::{Begun, Name, Part, PartDigest, sha256};
use crate::store::{Bucket as _, PartLog, PutOptions, Taken, Upload, errors};

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
    /// The first part, until it is known whether there is a second one; with a log, until the end.
    held: Option<Bytes>,
    /// The store's name for this upload, while there is one to complete or abort.
    upload_id: Option<String>,
    /// The ETags of the parts that the store has as they were given. Invariant: empty while `upload_id` is none.
    etags: BTreeMap<usize, String>,
    /// The number of parts that were given.
    given: usize,
    size: u64,
    log: Option<Arc<PartLog>>,
    /// The parts that the store has from an earlier attempt.
    kept: BTreeMap<usize, Part>,
    /// An upload that cannot be taken up, by its key and its id: it is given up as soon as another one has begun.
    replaced: Option<(String, String)>,
    /// Completing failed without an answer, so it may have been done.
    uncertain: bool,
    /// Completing was refused for now, before anything was done.
    put_off: bool,
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
            etags: BTreeMap::new(),
            given: 0,
            size: 0,
            log: None,
            kept: BTreeMap::new(),
            replaced: None,
            uncertain: false,
            put_off: false,
            ended: false,
        }
    }

    /// The upload that `log` names, if it is one of this object and the store still knows it.
    ///
    /// # Errors
    /// Those of the store that pass.
    pub(super) async fn resumed(
        bucket: S3Bucket,
        key: String,
        options: PutOptions,
        log: Arc<PartLog>,
    ) -> Result<Self> {
        let mut upload = Self::new(bucket, key, options);
        if let Some(begun) = log.begun() {
            upload.kept = upload.still_there(&begun).await?;
            let Name { key, id, .. } = begun.name;
            match upload.kept.is_empty() {
                true => upload.replaced = Some((key, id)),
                false => upload.upload_id = Some(id),
            }
        }
        upload.log = Some(log);
        Ok(upload)
    }

    /// A digest of how the store is to keep the object: its class, and by which key it is encrypted there.
    fn settings(&self) -> String {
        let options = PutOptions { timestamp: Timestamp::from_millis(0), ..self.options.clone() };
        sha256(format!("{:?}", self.bucket.object_headers(&options)).as_bytes())
    }

    /// The parts of an upload of this object that the store has as they were sent.
    async fn still_there(&self, begun: &Begun) -> Result<BTreeMap<usize, Part>> {
        let Name { key, id, part_size, settings, .. } = &begun.name;
        let mut parts = begun.parts.clone();
        let is_same = (key, *part_size, settings) == (&self.key, self.part_size(), &self.settings())
            && !parts.is_empty();
        let listed = if is_same { self.bucket.parts(key, id).await? } else { None };
        let Some(listed) = listed else { return Ok(BTreeMap::new()) };
        parts.retain(|number, part| {
            listed.has(*number, &part.etag) && listed.size(*number) == Some(part.content.size)
        });
        Ok(parts)
    }

    /// Sends the first part, if it is held.
    async fn give_held(&mut self, session: &SessionRef) -> Result<()> {
        if let Some(held) = self.held.clone() {
            self.give(session, 1, held).await?;
            self.held = None;
        }
        Ok(())
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
        if let Some(log) = &self.log
            && let Err(e) = log.begin(&self.key, &upload_id, self.part_size(), self.settings())
        {
            tracing::warn!("what a copy sends is sent again if it breaks off: {e}");
            self.log = None;
        }
        self.give_up_replaced(false).await;
        Ok(upload_id)
    }

    /// Gives up the upload that this one takes the place of. What fails is tried again when this one `ends`.
    async fn give_up_replaced(&mut self, ends: bool) {
        let Some((key, id)) = self.replaced.take() else { return };
        match abort(&self.bucket, &key, &id).await {
            Err(e) if ends => {
                tracing::warn!(error = %e, "the parts of an upload that was given up stay: {key}, whose upload id is {id}");
            }
            Err(e) => {
                tracing::debug!("{e}");
                self.replaced = Some((key, id));
            }
            Ok(()) => {}
        }
    }

    /// Sends part `number`, unless the store has it from an earlier attempt.
    async fn give(&mut self, session: &SessionRef, number: usize, part: Bytes) -> Result<Taken> {
        let upload_id = self.initiate(session).await?;
        let Some(log) = self.log.clone() else {
            let (size, etag) = (part.len(), self.send_part(session, &upload_id, number, part).await?);
            self.has(number, size, etag);
            return Ok(Taken::Sent);
        };
        let content = PartDigest::of(&part).await?;
        if let Some(kept) = self.kept.get(&number).filter(|kept| kept.content == content) {
            let etag = kept.etag.clone();
            self.has(number, content.size, etag);
            return Ok(Taken::Kept);
        }
        let etag = self.send_part(session, &upload_id, number, part).await?;
        self.has(number, content.size, etag.clone());
        if let Err(e) = log.add(number, Part { content, etag }) {
            tracing::debug!("{e}");
        }
        Ok(Taken::Sent)
    }

    /// The store has part `number` as it was given.
    fn has(&mut self, number: usize, size: usize, etag: String) {
        self.etags.insert(number, etag);
        self.size += size as u64;
    }

    /// Sends part `number`, and returns its ETag.
    async fn send_part(
        &self,
        session: &SessionRef,
        upload_id: &str,
        number: usize,
        part: Bytes,
    ) -> Result<String> {
        if number > MAX_PARTS {
            return Err(Error::config(format!(
                "{} needs more than {MAX_PARTS} parts; raise the setting part-size",
                self.key
            )));
        }
        let request = Request::object(Method::PUT, self.key.clone())
            .query("partNumber", number.to_string())
            .query("uploadId", upload_id)
            .headers(self.bucket.key_headers())
            .body(part);
        let what = format!("write part {number} of {}", &self.key);
        let response = session.send(&request, self.bucket.way).await.map_err(|failure| {
            self.forget_if_unknown(&failure);
            session.explain(failure, &what)
        })?;
        let etag = response.headers().get(ETAG).and_then(|value| value.to_str().ok());
        etag.map(str::to_owned).ok_or_else(|| {
            Error::new(ErrorKind::Unsupported, format!("{} gives parts no ETag", session.http.endpoint()))
        })
    }

    /// The next attempt begins anew where the store does not know the upload any more.
    fn forget_if_unknown(&self, failure: &Failure) {
        if let Some(log) = self.log.as_ref().filter(|_| is_unknown(failure)) {
            log.forget();
        }
    }

    /// Makes sure, of an upload that was taken up, that the store has its parts as this attempt gave them.
    async fn check_parts(&self, upload_id: &str) -> Result<()> {
        if self.kept.is_empty() {
            return Ok(());
        }
        // One that is not known any more may have been completed, which completing it shows.
        let Some(listed) = self.bucket.parts(&self.key, upload_id).await? else { return Ok(()) };
        match self.etags.iter().find(|(number, etag)| !listed.has(**number, etag)) {
            None => Ok(()),
            Some((number, _)) => Err(Error::wrong_answer(format!(
                "{} has another part {number} of {} than was sent; it is written again",
                self.bucket.describe(),
                self.key
            ))),
        }
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
            Ok(()) => {
                self.give_up_others().await;
                Ok(())
            }
            Err(Failure::Refused(refusal)) if refusal.is_precondition_failed() => {
                self.bucket.shared.fence.note_kept();
                Err(errors::already_exists(&self.bucket.describe(), &self.key))
            }
            Err(failure) if is_unknown(&failure) => self.forgotten().await,
            Err(Failure::Refused(refusal)) if refusal.is_conflict() && self.options.if_absent => {
                self.conflicted(session.explain(refusal.into(), &format!("finish {}", self.key))).await
            }
            Err(failure) => {
                self.put_off = matches!(&failure, Failure::Refused(refusal) if refusal.is_put_off());
                Err(self.bucket.explain(session, failure, &format!("finish {}", &self.key)))
            }
        }
    }

    /// Gives up what others began of this object, or this one did without that its log has it: none of it can be completed any more.
    async fn give_up_others(&self) {
        if self.log.is_some()
            && let Err(e) = self.bucket.abort_unfinished(&self.key).await
        {
            tracing::info!("parts of uploads that broke off may be left in the store, and cost money: {e}");
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
        for (number, etag) in &self.etags {
            let etag = xml::escape(etag);
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

    async fn part(&mut self, part: Bytes) -> Result<Taken> {
        self.alive()?;
        if self.given == 0 {
            (self.held, self.given) = (Some(part), 1);
            return Ok(Taken::Later);
        }
        let session = self.bucket.session().await?;
        if self.log.is_none() {
            self.give_held(&session).await?;
        }
        let taken = self.give(&session, self.given + 1, part).await?;
        self.given += 1;
        Ok(taken)
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
                self.give_held(&session).await?;
                self.check_parts(&upload_id).await?;
                self.complete_multipart(&session, &upload_id).await
            }
        };
        match &outcome {
            Ok(()) => {
                self.upload_id = None;
                self.ended = true;
                self.give_up_replaced(true).await;
                self.log.iter().for_each(|log| log.forget());
            }
            Err(e) => {
                self.uncertain |= e.is_transient() || e.kind() == ErrorKind::WrongAnswer;
                // It may still be completed by this request: the next attempt begins anew.
                if !std::mem::take(&mut self.put_off) {
                    self.log.iter().for_each(|log| log.forget());
                }
            }
        }
        outcome
    }

    async fn abort(&mut self) -> Result<()> {
        self.held = None;
        self.ended = true;
        if let Some(upload_id) = self.upload_id.clone() {
            abort(&self.bucket, &self.key, &upload_id).await?;
            self.upload_id = None;
        }
        self.give_up_replaced(true).await;
        self.log.iter().for_each(|log| log.forget());
        Ok(())
    }
}

impl Drop for S3Upload {
    /// Parts that nobody will complete cost money: they are given up in the background, unless a log keeps them for the next attempt.
    fn drop(&mut self) {
        if self.log.is_some() {
            return;
        }
        let (Some(upload_id), Ok(runtime)) = (self.upload_id.take(), runtime::handle()) else { return };
        let (bucket, key) = (self.bucket.clone(), self.key.clone());
        runtime.spawn(async move {
            if let Err(e) = abort(&bucket, &key, &upload_id).await {
                tracing::warn!(error = %e, "cannot remove the parts of an upload that was given up");
            }
        });
    }
}

/// Whether the store does not know the upload any more.
fn is_unknown(failure: &Failure) -> bool {
    matches!(failure, Failure::Refused(refusal) if refusal.code == "NoSuchUpload")
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
