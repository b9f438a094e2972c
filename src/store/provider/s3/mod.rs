//! A bucket of an S3-compatible store.
//!
//! What is safe with every such store: one PutObject with Content-Length and a signed SHA-256 of its
//! payload, no trailers, no checksum headers, nothing signed that a proxy may change.
//! Source: <https://docs.aws.amazon.com/AmazonS3/latest/API/Welcome.html>.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use reqwest::Method;

use crate::error::{Error, ErrorKind, Result};
use crate::store::clock::{StoreClock, StoreTime};
use crate::store::fence::Fence;
use crate::store::http::sessions::{self, Begin, Sessions};
use crate::store::http::{self, LongTurn, Way, Work};
use crate::store::{
    Bucket, ByteRange, Content, Fencing, Next, ObjectInfo, Page, PartLog, PutOptions, Upload, errors,
};

mod address;
mod aliyun;
mod aws;
mod credentials;
mod delete;
mod dialect;
mod failure;
mod host;
mod list;
mod location;
mod parts;
mod read;
#[cfg(test)]
mod requests;
#[cfg(test)]
mod resumed;
mod session;
#[cfg(test)]
mod tests;
mod unfinished;
mod upload;

pub(in crate::store::provider) use dialect::Dialect;
use failure::Failure;
pub(in crate::store) use location::PROVIDER;
pub(in crate::store::provider) use location::{Encryption, S3Location};
use session::{Request, Session};

/// A bucket of an S3-compatible store. Clones share connections and what was learned of the store.
///
/// Nothing happens before the first request: no thread, no connection, no look at the environment.
#[derive(Clone)]
pub(in crate::store::provider) struct S3Bucket {
    shared: Arc<Shared>,
    way: Way,
}

struct Shared {
    target: Arc<S3Location>,
    /// A request is given up when no byte flows for so long.
    idle_timeout: Duration,
    sessions: Sessions<Session>,
    /// The store's own clock, as its answers tell it.
    clock: Arc<StoreClock>,
    fence: Fence,
    /// The store refuses to delete several objects at once.
    delete_singly: AtomicBool,
}

/// A session that has begun.
type SessionRef = sessions::SessionRef<Session>;

impl S3Bucket {
    /// The bucket of `target`.
    pub(in crate::store::provider) fn new(target: S3Location) -> Self {
        Self::with_idle_timeout(target, http::IDLE_TIMEOUT)
    }

    fn with_idle_timeout(target: S3Location, idle_timeout: Duration) -> Self {
        Self {
            shared: Arc::new(Shared {
                target: Arc::new(target),
                idle_timeout,
                sessions: Sessions::default(),
                clock: Arc::default(),
                fence: Fence::default(),
                delete_singly: AtomicBool::new(false),
            }),
            way: Way::Usual,
        }
    }

    fn target(&self) -> &S3Location {
        &self.shared.target
    }

    /// This process's session.
    async fn session(&self) -> Result<SessionRef> {
        let Shared { target, idle_timeout, sessions, clock, .. } = &*self.shared;
        let begin =
            |why| Session::start(Arc::clone(target), Arc::clone(clock), *idle_timeout, why == Begin::Again);
        sessions.current(begin).await
    }

    /// The headers that make an object what `options` and the target say.
    fn object_headers(&self, options: &PutOptions) -> Vec<(&'static str, String)> {
        let target = self.target();
        let mut headers = vec![
            ("content-type", "application/octet-stream".to_owned()),
            (target.dialect.timestamp(), options.timestamp.to_string()),
        ];
        if let Some(class) = &target.storage_class {
            headers.push(("x-amz-storage-class", class.clone()));
        }
        if let Encryption::Kms { key_id } = &target.encryption {
            headers.push(("x-amz-server-side-encryption", "aws:kms".to_owned()));
            headers.push(("x-amz-server-side-encryption-aws-kms-key-id", key_id.clone()));
        }
        headers.extend(self.key_headers());
        headers
    }

    /// The headers that every request for an object's content needs if we keep its key.
    fn key_headers(&self) -> Vec<(&'static str, String)> {
        let Encryption::Customer { key, key_md5 } = &self.target().encryption else { return Vec::new() };
        vec![
            ("x-amz-server-side-encryption-customer-algorithm", "AES256".to_owned()),
            ("x-amz-server-side-encryption-customer-key", key.reveal().to_owned()),
            ("x-amz-server-side-encryption-customer-key-md5", key_md5.clone()),
        ]
    }

    /// Sends a request that makes `key` appear, under the condition that `options` ask for. A store
    /// that does not know the condition is asked first whether the file is there.
    async fn send_if_absent(
        &self,
        session: &SessionRef,
        key: &str,
        request: Request,
        options: &PutOptions,
    ) -> Result<reqwest::Response, Failure> {
        if !options.if_absent {
            return session.send(&request, self.way).await;
        }
        if !self.shared.fence.looks_first() {
            let (name, value) = self.target().dialect.if_absent();
            let conditional = request.clone().header(name, value);
            match session.send(&conditional, self.way).await {
                Err(Failure::Refused(refusal)) if refusal.is_precondition_failed() => {
                    self.shared.fence.note_kept();
                    return Err(errors::already_exists(&self.describe(), key).into());
                }
                Err(Failure::Refused(refusal)) if refusal.is_not_implemented() => {
                    self.shared.fence.note_unknown(&self.describe(), name);
                }
                other => return other,
            }
        }
        match self.head(key).await {
            Ok(_) => Err(errors::already_exists(&self.describe(), key).into()),
            Err(e) if e.kind() == ErrorKind::NotFound => session.send(&request, self.way).await,
            Err(e) => Err(e.into()),
        }
    }

    async fn put_object(&self, key: &str, body: Bytes, options: &PutOptions) -> Result<()> {
        let session = self.session().await?;
        let request =
            Request::object(Method::PUT, key.to_owned()).headers(self.object_headers(options)).body(body);
        let sent = self.send_if_absent(&session, key, request, options).await;
        sent.map(drop).map_err(|failure| self.explain(&session, failure, &format!("write {key}")))
    }

    /// As [`Session::explain`], but an error that says enough stays as it is.
    fn explain(&self, session: &SessionRef, failure: Failure, what: &str) -> Error {
        match failure {
            Failure::Error(e) if e.kind() == ErrorKind::AlreadyExists => e,
            other => session.explain(other, what),
        }
    }
}

impl fmt::Debug for S3Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("S3Bucket").field(&self.target()).finish()
    }
}

#[async_trait]
impl Bucket for S3Bucket {
    fn describe(&self) -> String {
        self.target().to_string()
    }

    async fn list(&self, prefix: &str, start: Option<Next>) -> Result<Page<ObjectInfo>> {
        self.page_of(prefix, start).await
    }

    fn lists_any_prefix(&self) -> bool {
        true
    }

    fn misses_cheaply(&self) -> bool {
        true
    }

    fn clock(&self) -> Option<StoreTime> {
        self.shared.clock.read(true)
    }

    /// Each answer has the time. This request is one that whoever replicates may make, with a short answer.
    async fn ask_time(&self, prefix: &str) -> Result<()> {
        self.page_of(prefix, Some(Next::After(format!("{prefix}~")))).await.map(drop)
    }

    async fn turn(&self, work: Work) -> Option<LongTurn> {
        Some(self.session().await.ok()?.http.long_turn(work).await)
    }

    fn by_new_connections(&self) -> Option<Arc<dyn Bucket>> {
        Some(Arc::new(Self { way: Way::New, ..self.clone() }))
    }

    async fn head(&self, key: &str) -> Result<ObjectInfo> {
        self.head_object(key).await
    }

    async fn get(&self, key: &str, range: ByteRange, size: Option<u64>) -> Result<Content> {
        self.get_object(key, range, size).await
    }

    async fn put(&self, key: &str, body: Bytes, options: &PutOptions) -> Result<()> {
        self.put_object(key, body, options).await
    }

    async fn upload(&self, key: &str, options: &PutOptions) -> Result<Box<dyn Upload>> {
        Ok(Box::new(upload::S3Upload::new(self.clone(), key.to_owned(), options.clone())))
    }

    async fn resume_upload(
        &self,
        key: &str,
        options: &PutOptions,
        log: Arc<PartLog>,
    ) -> Result<Box<dyn Upload>> {
        let resumed = upload::S3Upload::resumed(self.clone(), key.to_owned(), options.clone(), log);
        Ok(Box::new(resumed.await?))
    }

    async fn delete(&self, keys: &[String]) -> Result<()> {
        self.delete_objects(keys).await
    }

    async fn abort_uploads(&self, prefix: &str) -> Result<usize> {
        self.abort_unfinished(prefix).await
    }

    fn fencing(&self) -> Fencing {
        self.shared.fence.strength()
    }

    async fn prove_fencing(&self, key: &str, body: Bytes, options: &PutOptions) -> Result<()> {
        let options = PutOptions { if_absent: true, ..options.clone() };
        let write = self.put_object(key, body, &options);
        self.shared.fence.prove(&self.describe(), self.target().dialect.if_absent().0, write).await
    }
}
