//! Object stores of NATS JetStream.
//!
//! An object is messages of content and one that describes it, which are kept in one stream. The one that describes it is
//! stored on condition that its subject has none yet, or none but the one that says that the object was deleted: of two
//! writers the second is refused. There are no ranges, but each message of content can be asked for by its number: which
//! numbers they have, and what size, is asked once for each object of several.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use lru::LruCache;

use crate::error::Result;
use crate::store::fence::Fence;
use crate::store::http::sessions::{SessionRef, Sessions};
use crate::store::{
    Bucket, ByteRange, Content, Fencing, Next, ObjectInfo, Page, PutOptions, Site as _, Upload,
};

mod creds;
mod object;
mod read;
mod session;
mod site;
#[cfg(test)]
pub(in crate::store) mod tests;
mod write;

pub(in crate::store) use site::PROVIDER;

use read::Chunk;
use session::{Failure, Session};
use site::NatsSite;

/// The content of a message, as other clients make them.
const CHUNK: usize = 128 << 10;
/// The number of objects whose messages of content are remembered.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(256).expect("BUG: it is not zero");

/// An object store. Clones share the connection and what was learned of the server.
#[derive(Clone)]
struct NatsBucket {
    shared: Arc<Shared>,
    /// Each request goes by a connection of its own.
    by_new_connections: bool,
}

struct Shared {
    site: NatsSite,
    sessions: Sessions<Session>,
    fence: Fence,
    chunks: Mutex<LruCache<String, Arc<[Chunk]>>>,
}

impl NatsBucket {
    fn new(site: NatsSite) -> Self {
        let (sessions, fence) = (Sessions::default(), Fence::default());
        let shared = Shared { site, sessions, fence, chunks: Mutex::new(LruCache::new(REMEMBERED)) };
        Self { shared: Arc::new(shared), by_new_connections: false }
    }

    fn site(&self) -> &NatsSite {
        &self.shared.site
    }

    async fn session(&self) -> Result<SessionRef<Session>> {
        let begin = |_| Session::begin(self.site());
        match self.by_new_connections {
            true => Sessions::default().current(begin).await,
            false => self.shared.sessions.current(begin).await,
        }
    }
}

impl std::fmt::Debug for NatsBucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("NatsBucket").field(self.site()).finish()
    }
}

#[async_trait]
impl Bucket for NatsBucket {
    fn describe(&self) -> String {
        self.site().url()
    }

    async fn list(&self, prefix: &str, start: Option<Next>) -> Result<Page<ObjectInfo>> {
        Ok(Page::of_all(self.objects_of(prefix).await?, start))
    }

    async fn head(&self, key: &str) -> Result<ObjectInfo> {
        self.describe_object(key).await
    }

    async fn get(&self, key: &str, range: ByteRange, size: Option<u64>) -> Result<Content> {
        self.get_object(key, range, size).await
    }

    async fn put(&self, key: &str, body: Bytes, options: &PutOptions) -> Result<()> {
        let mut upload = self.begin(key, options)?;
        upload.part(body).await?;
        upload.complete().await
    }

    async fn upload(&self, key: &str, options: &PutOptions) -> Result<Box<dyn Upload>> {
        Ok(Box::new(self.begin(key, options)?))
    }

    async fn delete(&self, keys: &[String]) -> Result<()> {
        self.delete_objects(keys).await
    }

    fn fencing(&self) -> Fencing {
        self.shared.fence.strength()
    }

    async fn prove_fencing(&self, key: &str, body: Bytes, options: &PutOptions) -> Result<()> {
        let options = PutOptions { if_absent: true, ..options.clone() };
        let write = self.put(key, body, &options);
        self.shared.fence.prove(&self.site().url(), "Nats-Expected-Last-Subject-Sequence", write).await
    }

    fn lists_any_prefix(&self) -> bool {
        true
    }

    fn by_new_connections(&self) -> Option<Arc<dyn Bucket>> {
        Some(Arc::new(Self { by_new_connections: true, ..self.clone() }))
    }
}
