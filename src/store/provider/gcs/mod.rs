//! Google Cloud Storage, by its JSON interface. Source: <https://cloud.google.com/storage/docs/json_api/v1>.
//!
//! An object is there only if it is not there yet by `ifGenerationMatch=0`, which the service decides atomically. The
//! time of a file is the metadata `litestream-timestamp`, which a listing has too.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::{Error, ErrorKind, Result};
use crate::store::auth;
use crate::store::clock::StoreClock;
use crate::store::fence::Fence;
use crate::store::http::sessions::{SessionRef, Sessions};
use crate::store::http::{IDLE_TIMEOUT, LongTurn, Way, Work};
use crate::store::{
    Bucket, ByteRange, Content, Fencing, Next, ObjectInfo, Page, PutOptions, Site as _, StoreTime, Upload,
    errors,
};

mod credentials;
mod delete;
mod failure;
mod object;
mod read;
mod session;
mod site;
#[cfg(test)]
pub(in crate::store) mod tests;
mod upload;
mod write;

pub(in crate::store) use site::PROVIDER;

use failure::Failure;
use session::Session;
use site::GcsSite;

/// A bucket of Google Cloud Storage. Clones share connections, credentials and what the store has shown of itself.
#[derive(Clone)]
pub(in crate::store) struct GcsBucket {
    shared: Arc<Shared>,
    way: Way,
}

struct Shared {
    site: GcsSite,
    env: Box<auth::EnvFn>,
    /// A request is given up when no byte flows for so long.
    idle_timeout: Duration,
    sessions: Sessions<Session>,
    /// The store's own clock, by its answers.
    clock: Arc<StoreClock>,
    fence: Fence,
    /// The store refuses batches of deletions.
    delete_singly: AtomicBool,
}

impl GcsBucket {
    fn new(site: GcsSite) -> Self {
        Self::with(site, Box::new(auth::env), IDLE_TIMEOUT)
    }

    fn with(site: GcsSite, env: Box<auth::EnvFn>, idle_timeout: Duration) -> Self {
        let shared = Shared {
            site,
            env,
            idle_timeout,
            sessions: Sessions::default(),
            clock: Arc::default(),
            fence: Fence::default(),
            delete_singly: AtomicBool::new(false),
        };
        Self { shared: Arc::new(shared), way: Way::Usual }
    }

    fn site(&self) -> &GcsSite {
        &self.shared.site
    }

    async fn session(&self) -> Result<SessionRef<Session>> {
        let Shared { site, env, idle_timeout, clock, .. } = &*self.shared;
        let begin = |_| async { Session::begin(site, Arc::clone(clock), *idle_timeout, &**env) };
        self.shared.sessions.current(begin).await
    }

    fn already_exists(&self, key: &str) -> Error {
        errors::already_exists(&self.site().url(), key)
    }

    /// The error for a user who wanted to `what`. One that says enough stays as it is.
    fn explain(&self, session: &Session, failure: Failure, what: &str) -> Error {
        match failure {
            Failure::Error(e) if e.kind() == ErrorKind::AlreadyExists => e,
            Failure::Error(e) => e.context(format_args!("cannot {what} of {}", self.site().url())),
            Failure::Refused(refusal) => refusal.into_error(what, self.site(), session.http.endpoint()),
        }
    }
}

impl std::fmt::Debug for GcsBucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("GcsBucket").field(self.site()).finish()
    }
}

#[async_trait]
impl Bucket for GcsBucket {
    fn describe(&self) -> String {
        self.site().url()
    }

    async fn list(&self, prefix: &str, start: Option<Next>) -> Result<Page<ObjectInfo>> {
        self.list_objects(prefix, start).await
    }

    async fn head(&self, key: &str) -> Result<ObjectInfo> {
        self.describe_object(key).await
    }

    async fn get(&self, key: &str, range: ByteRange, size: Option<u64>) -> Result<Content> {
        self.get_object(key, range, size).await
    }

    async fn put(&self, key: &str, body: Bytes, options: &PutOptions) -> Result<()> {
        self.put_object(key, body, options).await
    }

    async fn upload(&self, key: &str, options: &PutOptions) -> Result<Box<dyn Upload>> {
        Ok(Box::new(upload::GcsUpload::new(self.clone(), key, options.clone())))
    }

    async fn delete(&self, keys: &[String]) -> Result<()> {
        self.delete_objects(keys).await
    }

    fn fencing(&self) -> Fencing {
        self.shared.fence.strength()
    }

    async fn prove_fencing(&self, key: &str, body: Bytes, options: &PutOptions) -> Result<()> {
        let options = PutOptions { if_absent: true, ..options.clone() };
        let write = self.put_object(key, body, &options);
        self.shared.fence.prove(&self.site().url(), "ifGenerationMatch", write).await
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
        self.list_objects(prefix, Some(Next::After(format!("{prefix}\u{10ffff}")))).await.map(drop)
    }

    async fn turn(&self, work: Work) -> Option<LongTurn> {
        Some(self.session().await.ok()?.http.long_turn(work).await)
    }

    fn by_new_connections(&self) -> Option<Arc<dyn Bucket>> {
        Some(Arc::new(Self { way: Way::New, ..self.clone() }))
    }
}
