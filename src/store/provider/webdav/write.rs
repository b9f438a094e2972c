//! Writing: a file is put under a temporary name and then given its own, which the server refuses if it is taken.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use reqwest::Method;

use super::WebdavBucket;
use super::failure::Failure;
use super::session::Session;
use super::site::WebdavSite;
use crate::error::{Error, ErrorKind, Result};
use crate::store::folders::{self, folder_of, temporary_key};
use crate::store::http::call::Call;
use crate::store::{PutOptions, Site as _, errors};

/// The number of files that are deleted at a time.
const DELETIONS: usize = 8;

/// What a file gets.
#[derive(Clone, Debug)]
pub(super) enum Body {
    Memory(Bytes),
    /// A local file with this number of bytes.
    Staged(Arc<File>, u64),
}

impl WebdavBucket {
    pub(super) async fn put_file(&self, key: &str, body: Body, options: &PutOptions) -> Result<()> {
        let session = self.session().await?;
        let what = format!("write {key}");
        if options.if_absent && self.shared.fence.looks_first() {
            match self.describe_file(key).await {
                Ok(_) => return Err(errors::already_exists(&self.site().url(), key)),
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        let temporary = temporary_key(key)?;
        let stored = self.store(&session, &temporary, body).await;
        let named = match stored {
            Ok(()) => self.name(&session, &temporary, key, options).await,
            Err(failure) => Err(failure),
        };
        named.map_err(|failure| {
            // An answer that got lost may have been good news: then there is nothing to remove.
            self.remove_later(temporary);
            match failure {
                Failure::Error(e) if e.kind() == ErrorKind::AlreadyExists => e,
                other => self.explain(other, &what),
            }
        })
    }

    /// Puts `body` at `temporary`. A folder that is not there is made.
    async fn store(&self, session: &Session, temporary: &str, body: Body) -> Result<(), Failure> {
        let call = || {
            let call = Call::new(Method::PUT, WebdavSite::path_of(temporary))
                .header("content-type", "application/octet-stream");
            match &body {
                Body::Memory(bytes) => call.body(bytes.clone()),
                Body::Staged(file, len) => call.file(Arc::clone(file), *len),
            }
        };
        match session.send(&call(), self.way).await {
            Err(Failure::Refused(refusal)) if matches!(refusal.status, 403 | 404 | 409) => {
                // 403 is what some servers say of a folder that is not there.
                match self.make_folder(session, folder_of(temporary)).await {
                    Ok(()) => session.send(&call(), self.way).await.map(drop),
                    // Others who make the same folder at this moment are in the way.
                    Err(Failure::Refused(other)) if other.is_temporary() => Err(Failure::Refused(other)),
                    Err(_) => Err(Failure::Refused(refusal)),
                }
            }
            other => other.map(drop),
        }
    }

    /// Makes `folder` and those above it that are missing.
    async fn make_folder(&self, session: &Session, folder: &str) -> Result<(), Failure> {
        let (mut at, mut missing) = (folder, Vec::new());
        while !self.make_one_folder(session, at).await? {
            missing.push(at);
            at = folder_of(at);
        }
        for folder in missing.into_iter().rev() {
            if !self.make_one_folder(session, folder).await? {
                return Err(Error::wrong_answer(format!("the server made no folder for '{folder}'")).into());
            }
        }
        Ok(())
    }

    /// Makes `folder`, unless it is there. `false` if the one that it would be in is not there.
    async fn make_one_folder(&self, session: &Session, folder: &str) -> Result<bool, Failure> {
        let method = Method::from_bytes(b"MKCOL").expect("BUG: a method of letters");
        let call = Call::new(method, format!("{}/", WebdavSite::path_of(folder)));
        match session.send(&call, self.way).await {
            Ok(_) => Ok(true),
            // It is there, or another process made it just now.
            Err(Failure::Refused(refusal)) if refusal.status == 405 => Ok(true),
            Err(Failure::Refused(refusal)) if matches!(refusal.status, 404 | 409) && folder.contains('/') => {
                Ok(false)
            }
            Err(failure) => Err(failure),
        }
    }

    /// Gives the file `temporary` the name `key`, which must be free if `options` say so.
    async fn name(
        &self,
        session: &Session,
        temporary: &str,
        key: &str,
        options: &PutOptions,
    ) -> Result<(), Failure> {
        let path = WebdavSite::path_of(key);
        let server = if self.shared.names_by_path.load(Ordering::Relaxed) { "" } else { &self.site().server };
        let moved = self.rename(session, temporary, format!("{server}{path}"), options).await;
        let moved = match moved {
            // A server behind another may not know by which address we reach it.
            Err(Failure::Refused(refusal)) if matches!(refusal.status, 400 | 502) && !server.is_empty() => {
                let again = self.rename(session, temporary, path, options).await;
                if again.is_ok() {
                    self.shared.names_by_path.store(true, Ordering::Relaxed);
                }
                again
            }
            other => other,
        };
        match moved {
            Err(Failure::Refused(refusal)) if refusal.status == 412 && options.if_absent => {
                self.shared.fence.note_kept();
                Err(errors::already_exists(&self.site().url(), key).into())
            }
            other => other,
        }
    }

    async fn rename(
        &self,
        session: &Session,
        temporary: &str,
        destination: String,
        options: &PutOptions,
    ) -> Result<(), Failure> {
        let method = Method::from_bytes(b"MOVE").expect("BUG: a method of letters");
        let overwrite = if options.if_absent { "F" } else { "T" }.to_owned();
        let call = Call::new(method, WebdavSite::path_of(temporary))
            .headers([("destination", destination), ("overwrite", overwrite)]);
        session.send(&call, self.way).await.map(drop)
    }

    /// Removes the file at `key` in the background.
    fn remove_later(&self, key: String) {
        let (bucket, Ok(runtime)) = (self.clone(), crate::runtime::handle()) else { return };
        runtime.spawn(async move {
            if let Err(e) = bucket.delete_file(&key).await {
                tracing::debug!(error = %e, key, "cannot remove what a write left");
            }
        });
    }

    async fn delete_file(&self, key: &str) -> Result<()> {
        let session = self.session().await?;
        let call = Call::new(Method::DELETE, WebdavSite::path_of(key)).expects(404);
        let deleted = session.send(&call, self.way).await;
        deleted.map(drop).map_err(|failure| self.explain(failure, &format!("delete {key}")))
    }

    pub(super) async fn delete_files(&self, keys: &[String]) -> Result<()> {
        if let Some(key) = keys.first() {
            self.remove_abandoned(key).await;
        }
        let deletions = stream::iter(keys.to_vec()).map(|key| {
            let bucket = self.clone();
            async move { bucket.delete_file(&key).await }
        });
        deletions.buffer_unordered(DELETIONS).try_collect().await
    }

    /// Removes what crashes left in the folder of `key`, once for each folder.
    pub(super) async fn remove_abandoned(&self, key: &str) {
        let folder = folder_of(key);
        let Some(now) = self.shared.clock.read(true).map(|time| time.now) else { return };
        if !self.shared.swept.first_time(folder) {
            return;
        }
        let Ok(entries) = self.entries_of(folder).await else { return };
        for name in folders::abandoned(entries, now) {
            let _ = self.delete_file(&folders::join(folder, &name)).await;
        }
    }
}
