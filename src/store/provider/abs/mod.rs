//! Azure Blob Storage, by its REST interface. Source: <https://learn.microsoft.com/rest/api/storageservices>.
//!
//! A blob is written only if it is not there yet by `If-None-Match: *`, which the service decides atomically. The time of
//! a file is the metadata `litestreamtimestamp` (names of metadata have no hyphens), which a listing has too.

use std::sync::Arc;
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

mod blob;
mod credentials;
mod delete;
mod failure;
mod location;
mod read;
mod session;
mod signature;
#[cfg(test)]
pub(in crate::store) mod tests;
mod upload;
mod write;

pub(in crate::store) use location::PROVIDER;

use failure::Failure;
use location::AzureSite;
use session::Session;

/// A container of Azure Blob Storage. Clones share connections, credentials and what the store has shown of itself.
#[derive(Clone)]
pub(in crate::store) struct AzureBucket {
    shared: Arc<Shared>,
    way: Way,
}

struct Shared {
    site: AzureSite,
    env: Box<auth::EnvFn>,
    /// A request is given up when no byte flows for so long.
    idle_timeout: Duration,
    sessions: Sessions<Session>,
    /// The store's own clock, by its answers.
    clock: Arc<StoreClock>,
    fence: Fence,
}

impl AzureBucket {
    fn new(site: AzureSite) -> Self {
        Self::with(site, Box::new(auth::env), IDLE_TIMEOUT)
    }

    fn with(site: AzureSite, env: Box<auth::EnvFn>, idle_timeout: Duration) -> Self {
        let (sessions, clock, fence) = (Sessions::default(), Arc::default(), Fence::default());
        let shared = Shared { site, env, idle_timeout, sessions, clock, fence };
        Self { shared: Arc::new(shared), way: Way::Usual }
    }

    fn site(&self) -> &AzureSite {
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
            Failure::Error(e) => {
                self.site().hint(e).context(format_args!("cannot {what} of {}", self.site().url()))
            }
            Failure::Refused(refusal) => refusal.into_error(what, self.site(), session.http.endpoint()),
        }
    }
}

impl std::fmt::Debug for AzureBucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("AzureBucket").field(self.site()).finish()
    }
}

#[async_trait]
impl Bucket for AzureBucket {
    fn describe(&self) -> String {
        self.site().url()
    }

    async fn list(&self, prefix: &str, start: Option<Next>) -> Result<Page<ObjectInfo>> {
        self.list_blobs(prefix, start).await
    }

    async fn head(&self, key: &str) -> Result<ObjectInfo> {
        self.describe_blob(key).await
    }

    async fn get(&self, key: &str, range: ByteRange, size: Option<u64>) -> Result<Content> {
        self.get_blob(key, range, size).await
    }

    async fn put(&self, key: &str, body: Bytes, options: &PutOptions) -> Result<()> {
        self.put_blob(key, body, options).await
    }

    async fn upload(&self, key: &str, options: &PutOptions) -> Result<Box<dyn Upload>> {
        Ok(Box::new(upload::AzureUpload::new(self.clone(), key, options.clone())?))
    }

    async fn delete(&self, keys: &[String]) -> Result<()> {
        self.delete_blobs(keys).await
    }

    fn fencing(&self) -> Fencing {
        self.shared.fence.strength()
    }

    async fn prove_fencing(&self, key: &str, body: Bytes, options: &PutOptions) -> Result<()> {
        let options = PutOptions { if_absent: true, ..options.clone() };
        let write = self.put_blob(key, body, &options);
        self.shared.fence.prove(&self.site().url(), "If-None-Match", write).await
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
        self.list_blobs(&format!("{prefix}~"), None).await.map(drop)
    }

    async fn turn(&self, work: Work) -> Option<LongTurn> {
        Some(self.session().await.ok()?.http.long_turn(work).await)
    }

    fn by_new_connections(&self) -> Option<Arc<dyn Bucket>> {
        Some(Arc::new(Self { way: Way::New, ..self.clone() }))
    }
}
