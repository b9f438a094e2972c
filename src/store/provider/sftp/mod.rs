//! Folders of SSH servers, by SFTP version 3, which OpenSSH and nearly all others speak.
//! Source: <https://datatracker.ietf.org/doc/html/draft-ietf-secsh-filexfer-02>.
//!
//! A file is written under a temporary name, gets its time, and is then renamed: it appears whole or not at all. The
//! protocol's own rename fails if the name is taken; `posix-rename@openssh.com`, which clients prefer, does not. A file's
//! modification time, in seconds, is its timestamp, as in Litestream.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::FutureExt as _;
use russh_sftp::client::error::Error as SftpError;

use crate::error::{Error, Result};
use crate::store::fence::Fence;
use crate::store::folders::{self, Swept};
use crate::store::http::sessions::{SessionRef, Sessions};
use crate::store::{
    Bucket, ByteRange, Content, Fencing, Next, ObjectInfo, Page, PutOptions, Site as _, Upload,
};

mod hosts;
mod login;
mod read;
mod session;
mod site;
#[cfg(test)]
pub(in crate::store) mod tests;
mod write;

pub(in crate::store) use site::PROVIDER;

use session::Session;
use site::SftpSite;

/// What is asked for or sent at once: servers accept at most this in a message.
const PIECE: usize = 32 << 10;
/// The number of these that are under way at the same time.
const PIECES: usize = 32;

/// A server's files. Clones share the connection and what was learned of the server.
#[derive(Clone)]
struct SftpBucket {
    shared: Arc<Shared>,
    /// Each request goes by a connection of its own.
    by_new_connections: bool,
}

struct Shared {
    site: SftpSite,
    sessions: Sessions<Session>,
    fence: Fence,
    swept: Swept,
}

impl SftpBucket {
    fn new(site: SftpSite) -> Self {
        let (sessions, fence, swept) = (Sessions::default(), Fence::default(), Swept::default());
        Self { shared: Arc::new(Shared { site, sessions, fence, swept }), by_new_connections: false }
    }

    fn site(&self) -> &SftpSite {
        &self.shared.site
    }

    async fn session(&self) -> Result<SessionRef<Session>> {
        let begin = |_| Session::begin(self.site());
        match self.by_new_connections {
            true => Sessions::default().current(begin).await,
            false => self.shared.sessions.current(begin).await,
        }
    }

    /// The error for a user who wanted to `what`.
    fn explain(&self, session: &Session, e: SftpError, what: &str) -> Error {
        session.explain(e, what, self.site())
    }
}

impl std::fmt::Debug for SftpBucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SftpBucket").field(self.site()).finish()
    }
}

#[async_trait]
impl Bucket for SftpBucket {
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
        let mut upload = self.begin(key, options);
        let written = async {
            upload.part(body).await?;
            upload.complete().await
        };
        match written.await {
            Ok(()) => Ok(()),
            Err(e) => {
                upload.give_up();
                Err(e)
            }
        }
    }

    async fn upload(&self, key: &str, options: &PutOptions) -> Result<Box<dyn Upload>> {
        self.remove_abandoned(key).await;
        Ok(Box::new(self.begin(key, options)))
    }

    async fn delete(&self, keys: &[String]) -> Result<()> {
        self.delete_files(keys).await
    }

    fn fencing(&self) -> Fencing {
        self.shared.fence.strength()
    }

    async fn prove_fencing(&self, key: &str, body: Bytes, options: &PutOptions) -> Result<()> {
        let options = PutOptions { if_absent: true, ..options.clone() };
        let write = self.put(key, body, &options);
        self.shared.fence.prove(&self.site().url(), "SSH_FXP_RENAME", write).await
    }

    fn by_new_connections(&self) -> Option<Arc<dyn Bucket>> {
        Some(Arc::new(Self { by_new_connections: true, ..self.clone() }))
    }
}
