//! Large files: resumable uploads, one part at a time.
//! Source: <https://cloud.google.com/storage/docs/performing-resumable-uploads>.
//!
//! The service must be told with the last part that it is the last, so one part is always held back: an upload that
//! turns out to have a single part is a single request. After an error the service is asked how many bytes it has.

use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderMap;
use http::header::{LOCATION, RANGE};
use reqwest::{Method, Response};
use url::Url;

use super::GcsBucket;
use super::failure::Failure;
use super::session::Session;
use crate::error::{Error, ErrorKind, Result};
use crate::runtime;
use crate::store::http::call::Call;
use crate::store::{PutOptions, Taken, Upload};

/// The description of an object is shorter.
const MAX_ANSWER: usize = 64 << 10;

pub(super) struct GcsUpload {
    bucket: GcsBucket,
    key: String,
    options: PutOptions,
    /// The last part that was given.
    held: Option<Bytes>,
    /// Path and query by which the service knows this upload, while there is one to finish or to give up.
    session: Option<String>,
    /// How many bytes were sent before the held part.
    sent: u64,
    /// The service may have some of the held part: its answer was lost.
    uncertain: bool,
    /// The object is there, which is an error when the upload is completed: what is still given goes nowhere.
    exists: bool,
    ended: bool,
}

/// A part that is sent, and where it is in the object.
struct Part {
    bytes: Bytes,
    begin: u64,
    end: u64,
    /// It ends the object.
    last: bool,
}

impl Part {
    /// The size of the object, as far as it is known.
    fn total(&self) -> String {
        if self.last { self.end.to_string() } else { "*".to_owned() }
    }
}

/// What the service says of an upload.
enum Progress {
    /// It has this number of bytes, and waits for more.
    Has(u64),
    /// The object is there.
    Done,
}

impl GcsUpload {
    pub(super) fn new(bucket: GcsBucket, key: &str, options: PutOptions) -> Self {
        Self {
            bucket,
            key: key.to_owned(),
            options,
            held: None,
            session: None,
            sent: 0,
            uncertain: false,
            exists: false,
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

    fn what(&self) -> String {
        format!("write {}", self.key)
    }

    /// Path and query of the upload, which begins now if need be.
    async fn begin(&mut self, session: &Session) -> Result<String> {
        if let Some(path) = &self.session {
            return Ok(path.clone());
        }
        let (bucket, options) = (self.bucket.clone(), self.options.clone());
        let description = bucket.description(&self.key, &options, None);
        let sent = bucket.send_if_absent(session, &self.key, &options, |condition| {
            Call::new(Method::POST, format!("{}{condition}", bucket.site().upload_path("resumable")))
                .header("content-type", "application/json; charset=UTF-8")
                .header("x-upload-content-type", "application/octet-stream")
                .body(description.clone().into())
        });
        let response = sent.await.map_err(|failure| bucket.explain(session, failure, &self.what()))?;
        let path = upload_path(response.headers()).ok_or_else(|| {
            Error::wrong_answer(format!(
                "{} begins an upload and does not say where",
                session.http.endpoint()
            ))
        })?;
        self.session = Some(path.clone());
        Ok(path)
    }

    /// Sends the held part, which ends the object if `last`.
    async fn send_held(&mut self, last: bool) -> Result<()> {
        let session = self.bucket.session().await?;
        let path = self.begin(&session).await?;
        let bytes = self.held.clone().unwrap_or_default();
        let part = Part { begin: self.sent, end: self.sent + bytes.len() as u64, bytes, last };
        let doubtful = std::mem::replace(&mut self.uncertain, true);
        if let Err(failure) = self.send_part(&session, &path, &part, doubtful).await {
            self.failed(&session, failure, &part, doubtful).await?;
        }
        (self.sent, self.held, self.uncertain) = (part.end, None, false);
        Ok(())
    }

    /// Sends what the service does not have of `part`, until it has all.
    async fn send_part(
        &self,
        session: &Session,
        path: &str,
        part: &Part,
        doubtful: bool,
    ) -> Result<(), Failure> {
        let mut progress = match doubtful {
            true => self.ask(session, path, part).await?,
            false => Progress::Has(part.begin),
        };
        let mut before = None;
        loop {
            let has = match progress {
                Progress::Done if part.last => return Ok(()),
                Progress::Done => return Err(self.ended_early(session).into()),
                Progress::Has(has) if has == part.end && !part.last => return Ok(()),
                Progress::Has(has) => has,
            };
            if !(part.begin..=part.end).contains(&has)
                || before.replace(has).is_some_and(|before| before >= has)
            {
                return Err(self.lost_bytes(session, has).into());
            }
            let rest = part.bytes.slice((has - part.begin) as usize..);
            let range = match rest.is_empty() {
                true => format!("bytes */{}", part.total()),
                false => format!("bytes {has}-{}/{}", part.end - 1, part.total()),
            };
            progress = self.put(session, path, range, rest).await?;
        }
    }

    /// Asks how many bytes the service has.
    async fn ask(&self, session: &Session, path: &str, part: &Part) -> Result<Progress, Failure> {
        self.put(session, path, format!("bytes */{}", part.total()), Bytes::new()).await
    }

    async fn put(
        &self,
        session: &Session,
        path: &str,
        range: String,
        body: Bytes,
    ) -> Result<Progress, Failure> {
        let call = Call::new(Method::PUT, path).header("content-range", range).body(body).expects(308);
        let response = session.send(&call, self.bucket.way).await?;
        match response.status().as_u16() {
            308 => Ok(Progress::Has(received(response.headers()))),
            _ => self.finished(session, response).await,
        }
    }

    async fn finished(&self, session: &Session, response: Response) -> Result<Progress, Failure> {
        session.http.read_all(response, MAX_ANSWER).await?;
        Ok(Progress::Done)
    }

    /// What a failure to send `part` comes to: nothing, if the part is there all the same.
    async fn failed(&self, session: &Session, failure: Failure, part: &Part, doubtful: bool) -> Result<()> {
        match failure {
            Failure::Refused(refusal) if refusal.is_precondition_failed() => {
                self.bucket.shared.fence.note_kept();
                Err(self.bucket.already_exists(&self.key))
            }
            Failure::Refused(refusal)
                if matches!(refusal.status, 404 | 410) && !refusal.is_of_the_bucket() =>
            {
                self.forgotten(session, part, doubtful).await
            }
            failure => Err(self.bucket.explain(session, failure, &self.what())),
        }
    }

    /// The service does not know the upload any more: it may be that it ended well, and that the answer was lost.
    async fn forgotten(&self, session: &Session, part: &Part, doubtful: bool) -> Result<()> {
        if part.last && doubtful {
            match self.bucket.describe_object(&self.key).await {
                Ok(_) if self.options.if_absent => return Err(self.bucket.already_exists(&self.key)),
                Ok(found) if found.size == part.end => return Ok(()),
                Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        let (place, key) = (session.http.endpoint(), &self.key);
        let text = format!("{place} has forgotten the upload of {key}; it has to be written again");
        Err(Error::new(ErrorKind::Unavailable, text))
    }

    fn lost_bytes(&self, session: &Session, has: u64) -> Error {
        Error::wrong_answer(format!(
            "{} says that it has {has} bytes of {}, of which it had {} before",
            session.http.endpoint(),
            self.key,
            self.sent
        ))
    }

    fn ended_early(&self, session: &Session) -> Error {
        Error::wrong_answer(format!("{} ended the upload of {} by itself", session.http.endpoint(), self.key))
    }
}

#[async_trait]
impl Upload for GcsUpload {
    fn part_size(&self) -> usize {
        self.bucket.site().part_size
    }

    async fn part(&mut self, part: Bytes) -> Result<Taken> {
        self.alive()?;
        if self.held.is_some() {
            match self.send_held(false).await {
                Err(e) if e.kind() == ErrorKind::AlreadyExists => (self.exists, self.held) = (true, None),
                sent => sent?,
            }
        }
        if !self.exists {
            self.held = Some(part);
        }
        Ok(Taken::Sent)
    }

    async fn complete(&mut self) -> Result<()> {
        self.alive()?;
        if self.exists {
            return Err(self.bucket.already_exists(&self.key));
        }
        if self.session.is_none() && self.sent == 0 {
            let all = self.held.clone().unwrap_or_default();
            self.bucket.put_object(&self.key, all, &self.options).await?;
        } else {
            self.send_held(true).await?;
        }
        self.session = None;
        self.ended = true;
        Ok(())
    }

    async fn abort(&mut self) -> Result<()> {
        self.held = None;
        self.ended = true;
        let Some(path) = self.session.clone() else { return Ok(()) };
        abort(&self.bucket, &self.key, &path).await?;
        self.session = None;
        Ok(())
    }
}

impl Drop for GcsUpload {
    /// The service keeps the parts of an upload for a week: it is given up in the background.
    fn drop(&mut self) {
        let (Some(path), Ok(runtime)) = (self.session.take(), runtime::handle()) else { return };
        let (bucket, key) = (self.bucket.clone(), std::mem::take(&mut self.key));
        runtime.spawn(async move {
            if let Err(e) = abort(&bucket, &key, &path).await {
                tracing::warn!(error = %e, "cannot remove the parts of an upload that was given up");
            }
        });
    }
}

async fn abort(bucket: &GcsBucket, key: &str, path: &str) -> Result<()> {
    let session = bucket.session().await?;
    match session.send(&Call::new(Method::DELETE, path), bucket.way).await {
        // 499 is the answer to it.
        Err(Failure::Refused(refusal)) if matches!(refusal.status, 404 | 410 | 499) => Ok(()),
        Err(failure) => Err(bucket.explain(&session, failure, &format!("give up writing {key}"))),
        Ok(_) => Ok(()),
    }
}

/// Path and query of the upload that an answer begins. It is on the server that was asked, whatever that calls itself.
fn upload_path(headers: &HeaderMap) -> Option<String> {
    let url = Url::parse(headers.get(LOCATION)?.to_str().ok()?).ok()?;
    Some(format!("{}?{}", url.path(), url.query()?))
}

/// How many bytes the service has: `Range: bytes=0-{last}`, or none.
fn received(headers: &HeaderMap) -> u64 {
    let last =
        headers.get(RANGE).and_then(|value| value.to_str().ok()?.rsplit('-').next()?.parse::<u64>().ok());
    last.map_or(0, |last| last + 1)
}
