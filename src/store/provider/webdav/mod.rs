//! Shares of WebDAV servers (RFC 4918).
//!
//! A file is put under a temporary name in its folder, with its length, and then moved to its own: it appears whole or
//! not at all, and with `Overwrite: F` only if nothing has that name. The condition `If-None-Match: *` of a PUT is one
//! that several servers ignore. A server keeps no time of ours: a file's time is when it was stored, in seconds.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::FutureExt as _;

use crate::error::{Error, Result};
use crate::store::clock::{StoreClock, StoreTime};
use crate::store::fence::Fence;
use crate::store::folders::{self, Swept};
use crate::store::http::sessions::{SessionRef, Sessions};
use crate::store::http::{IDLE_TIMEOUT, LongTurn, Way, Work};
use crate::store::{
    Bucket, ByteRange, Content, Fencing, Next, ObjectInfo, Page, PutOptions, Site as _, Upload,
};

mod digest;
mod failure;
mod propfind;
mod session;
mod site;
#[cfg(test)]
mod tests;
mod upload;
mod write;

pub(in crate::store) use site::PROVIDER;

use failure::Failure;
use session::Session;
use site::{Staging, WebdavSite};
use write::Body;

/// A server's files. Clones share connections and what was learned of the server.
#[derive(Clone)]
struct WebdavBucket {
    shared: Arc<Shared>,
    way: Way,
}

struct Shared {
    site: WebdavSite,
    staging: Staging,
    /// A request is given up when no byte flows for so long.
    idle_timeout: Duration,
    sessions: Sessions<Session>,
    /// The server's own clock, by its answers.
    clock: Arc<StoreClock>,
    fence: Fence,
    /// A move names where to without scheme and host, which the server takes for another one's.
    names_by_path: AtomicBool,
    swept: Swept,
}

impl WebdavBucket {
    fn new(site: WebdavSite, staging: Staging) -> Self {
        Self::with_idle_timeout(site, staging, IDLE_TIMEOUT)
    }

    fn with_idle_timeout(site: WebdavSite, staging: Staging, idle_timeout: Duration) -> Self {
        let shared = Shared {
            site,
            staging,
            idle_timeout,
            sessions: Sessions::default(),
            clock: Arc::default(),
            fence: Fence::default(),
            names_by_path: AtomicBool::new(false),
            swept: Swept::default(),
        };
        Self { shared: Arc::new(shared), way: Way::Usual }
    }

    fn site(&self) -> &WebdavSite {
        &self.shared.site
    }

    async fn session(&self) -> Result<SessionRef<Session>> {
        let Shared { site, idle_timeout, clock, .. } = &*self.shared;
        self.shared
            .sessions
            .current(|_| async { Session::begin(site, Arc::clone(clock), *idle_timeout) })
            .await
    }

    /// The error for a user who wanted to `what`.
    fn explain(&self, failure: Failure, what: &str) -> Error {
        match failure {
            Failure::Error(e) => e.context(format_args!("cannot {what} of {}", self.site().url())),
            Failure::Refused(refusal) => refusal.into_error(what, self.site()),
        }
    }
}

impl std::fmt::Debug for WebdavBucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("WebdavBucket").field(self.site()).finish()
    }
}

#[async_trait]
impl Bucket for WebdavBucket {
    fn describe(&self) -> String {
        self.site().url()
    }

    async fn list(&self, prefix: &str, start: Option<Next>) -> Result<Page<ObjectInfo>> {
        let entries_of = |folder: String| async move { self.entries_of(&folder).await }.boxed();
        Ok(Page::of_all(folders::files_below(prefix, entries_of).await?, start))
    }

    async fn head(&self, key: &str) -> Result<ObjectInfo> {
        self.describe_file(key).await
    }

    async fn get(&self, key: &str, range: ByteRange, size: Option<u64>) -> Result<Content> {
        self.get_file(key, range, size).await
    }

    async fn put(&self, key: &str, body: Bytes, options: &PutOptions) -> Result<()> {
        self.put_file(key, Body::Memory(body), options).await
    }

    async fn upload(&self, key: &str, options: &PutOptions) -> Result<Box<dyn Upload>> {
        self.remove_abandoned(key).await;
        Ok(Box::new(upload::WebdavUpload::new(self.clone(), key, options.clone())))
    }

    async fn delete(&self, keys: &[String]) -> Result<()> {
        self.delete_files(keys).await
    }

    fn fencing(&self) -> Fencing {
        self.shared.fence.strength()
    }

    async fn prove_fencing(&self, key: &str, body: Bytes, options: &PutOptions) -> Result<()> {
        let options = PutOptions { if_absent: true, ..options.clone() };
        let write = self.put_file(key, Body::Memory(body), &options);
        self.shared.fence.prove(&self.site().url(), "Overwrite: F", write).await
    }

    fn clock(&self) -> Option<StoreTime> {
        self.shared.clock.read(true)
    }

    async fn ask_time(&self, prefix: &str) -> Result<()> {
        let session = self.session().await?;
        self.ask(&session, prefix.trim_end_matches('/')).await
    }

    async fn turn(&self, work: Work) -> Option<LongTurn> {
        Some(self.session().await.ok()?.http.long_turn(work).await)
    }

    fn by_new_connections(&self) -> Option<Arc<dyn Bucket>> {
        Some(Arc::new(Self { way: Way::New, ..self.clone() }))
    }
}
