//! Writing: under a temporary name, which then becomes the file's own.

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::join;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use russh_sftp::client::error::Error as SftpError;
use russh_sftp::protocol::{FileAttributes, OpenFlags, StatusCode};

use super::read::OpenFile;
use super::session::{Session, code_of};
use super::{PIECE, PIECES, SftpBucket};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::runtime;
use crate::store::folders::{self, folder_of, temporary_key};
use crate::store::http::sessions::SessionRef;
use crate::store::{PutOptions, Site as _, Taken, Upload, errors};

/// The pieces in which an upload is best given.
const PART: usize = 1 << 20;

/// A file that is being written.
pub(super) struct SftpUpload {
    bucket: SftpBucket,
    key: String,
    options: PutOptions,
    /// The name that it has until it is complete, once there is such a file.
    temporary: Option<String>,
    /// Open by the connection that is used now.
    file: Option<OpenFile>,
    written: u64,
    ended: bool,
}

impl SftpBucket {
    pub(super) fn begin(&self, key: &str, options: &PutOptions) -> SftpUpload {
        SftpUpload {
            bucket: self.clone(),
            key: key.to_owned(),
            options: options.clone(),
            temporary: None,
            file: None,
            written: 0,
            ended: false,
        }
    }

    /// Opens `key` for writing. A folder that is not there is made.
    async fn open_to_write(
        &self,
        session: &SessionRef<Session>,
        key: &str,
        flags: OpenFlags,
    ) -> Result<OpenFile, SftpError> {
        let open = || session.sftp.open(self.site().path_of(key), flags, FileAttributes::empty());
        let opened = match open().await {
            Err(e) if code_of(&e) == Some(StatusCode::NoSuchFile) => {
                self.make_folder(session, folder_of(key)).await?;
                open().await
            }
            other => other,
        };
        opened.map(|opened| OpenFile { session: session.clone(), handle: opened.handle })
    }

    /// Makes `folder` and those above it that are missing.
    async fn make_folder(&self, session: &Session, folder: &str) -> Result<(), SftpError> {
        let (mut at, mut missing) = (folder, Vec::new());
        loop {
            match session.sftp.mkdir(self.site().path_of(at), FileAttributes::empty()).await {
                Ok(_) => break,
                Err(e) if code_of(&e) == Some(StatusCode::NoSuchFile) && at.contains('/') => {
                    missing.push(at);
                    at = folder_of(at);
                }
                Err(e) => {
                    // It is there, or another client made it just now.
                    let found = session.sftp.stat(self.site().path_of(at)).await;
                    if !found.is_ok_and(|found| found.attrs.is_dir()) {
                        return Err(e);
                    }
                    break;
                }
            }
        }
        for folder in missing.into_iter().rev() {
            let path = self.site().path_of(folder);
            if let Err(e) = session.sftp.mkdir(path.clone(), FileAttributes::empty()).await
                && !session.sftp.stat(path).await.is_ok_and(|found| found.attrs.is_dir())
            {
                return Err(e);
            }
        }
        Ok(())
    }

    /// Gives the file `temporary` the name `key`, which must be free if `options` say so.
    async fn name(&self, session: &Session, temporary: &str, key: &str, options: &PutOptions) -> Result<()> {
        let (from, to) = (self.site().path_of(temporary), self.site().path_of(key));
        let exists = || errors::already_exists(&self.site().url(), key);
        let explain = |e| self.explain(session, e, &format!("write {key}"));
        if options.if_absent
            && self.shared.fence.looks_first()
            && session.sftp.stat(to.as_str()).await.is_ok()
        {
            return Err(exists());
        }
        if !options.if_absent {
            return self.rename_over(session, &from, &to).await.map_err(explain);
        }
        let Err(e) = session.sftp.rename(from.as_str(), to.as_str()).await else { return Ok(()) };
        // Servers have no word of their own for a name that is taken.
        if code_of(&e).is_some() && session.sftp.stat(to).await.is_ok() {
            self.shared.fence.note_kept();
            return Err(exists());
        }
        Err(explain(e))
    }

    async fn rename_over(&self, session: &Session, from: &str, to: &str) -> Result<(), SftpError> {
        if session.renames_over {
            return session.rename_over(from, to).await;
        }
        match session.sftp.remove(to).await {
            Err(e) if code_of(&e) != Some(StatusCode::NoSuchFile) => return Err(e),
            _ => {}
        }
        session.sftp.rename(from, to).await.map(drop)
    }

    async fn delete_file(&self, session: &Session, key: &str) -> Result<()> {
        match session.sftp.remove(self.site().path_of(key)).await {
            Err(e) if code_of(&e) != Some(StatusCode::NoSuchFile) => {
                Err(self.explain(session, e, &format!("delete {key}")))
            }
            _ => Ok(()),
        }
    }

    pub(super) async fn delete_files(&self, keys: &[String]) -> Result<()> {
        if let Some(key) = keys.first() {
            self.remove_abandoned(key).await;
        }
        let session = self.session().await?;
        let deletions = stream::iter(keys.to_vec()).map(|key| {
            let (bucket, session) = (self.clone(), session.clone());
            async move { bucket.delete_file(&session, &key).await }
        });
        deletions.buffer_unordered(PIECES).try_collect().await
    }

    /// Removes what crashes left in the folder of `key`, once for each folder.
    pub(super) async fn remove_abandoned(&self, key: &str) {
        let folder = folder_of(key);
        if !self.shared.swept.first_time(folder) {
            return;
        }
        let (Ok(session), Ok(entries)) = (self.session().await, self.entries_of(folder).await) else {
            return;
        };
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let now = Timestamp::from_millis(now.as_millis() as i64);
        for name in folders::abandoned(entries, now) {
            let _ = self.delete_file(&session, &folders::join(folder, &name)).await;
        }
    }
}

impl SftpUpload {
    fn alive(&self) -> Result<()> {
        match self.ended {
            false => Ok(()),
            true => Err(Error::new(ErrorKind::Interrupted, "the upload has ended already")),
        }
    }

    /// The temporary file, open: made now if there is none, opened again if the connection is another one.
    async fn open(&mut self) -> Result<&OpenFile> {
        let session = self.bucket.session().await?;
        if self.file.as_ref().is_some_and(|file| !file.session.is_same(&session)) {
            self.file = None;
        }
        if self.file.is_none() {
            let (name, flags) = match &self.temporary {
                Some(name) => (name.clone(), OpenFlags::WRITE | OpenFlags::CREATE),
                None => {
                    (temporary_key(&self.key)?, OpenFlags::WRITE | OpenFlags::CREATE | OpenFlags::EXCLUDE)
                }
            };
            let opened = self.bucket.open_to_write(&session, &name, flags).await;
            let opened =
                opened.map_err(|e| self.bucket.explain(&session, e, &format!("write {}", self.key)))?;
            self.temporary = Some(name);
            self.file = Some(opened);
        }
        Ok(self.file.as_ref().expect("BUG: it was just opened"))
    }

    /// Nothing more comes: the temporary file is removed in the background.
    pub(super) fn give_up(&mut self) {
        self.file = None;
        self.ended = true;
        let (Some(name), Ok(runtime)) = (self.temporary.take(), runtime::handle()) else { return };
        let bucket = self.bucket.clone();
        runtime.spawn(async move {
            if let Ok(session) = bucket.session().await {
                let _ = bucket.delete_file(&session, &name).await;
            }
        });
    }

    /// Makes what was written stay, sets its time and closes the file.
    async fn finish(&mut self) -> Result<()> {
        let seconds = u32::try_from(self.options.timestamp.as_millis().div_euclid(1000)).unwrap_or(0);
        let key = self.key.clone();
        let bucket = self.bucket.clone();
        let file = self.open().await?;
        let session = file.session.clone();
        let times = FileAttributes { atime: Some(seconds), mtime: Some(seconds), ..FileAttributes::empty() };
        let synced = async {
            if session.syncs { session.sftp.fsync(file.handle.as_str()).await.map(drop) } else { Ok(()) }
        };
        let (synced, timed) = join(synced, session.sftp.fsetstat(file.handle.as_str(), times)).await;
        let explain = |what: &str, e| bucket.explain(&session, e, &format!("{what} {key}"));
        synced.map_err(|e| explain("write", e))?;
        timed.map_err(|e| explain("set the time of", e))?;
        if let Some(file) = self.file.take() {
            file.close().await.map_err(|e| explain("write", e))?;
        }
        Ok(())
    }
}

#[async_trait]
impl Upload for SftpUpload {
    fn part_size(&self) -> usize {
        PART
    }

    async fn part(&mut self, part: Bytes) -> Result<Taken> {
        self.alive()?;
        let (key, begin, bucket) = (self.key.clone(), self.written, self.bucket.clone());
        let at_once = if bucket.site().concurrent_writes { PIECES } else { 1 };
        let len = part.len();
        let file = self.open().await?;
        let pieces = stream::iter((0..len).step_by(PIECE)).map(|at| {
            let piece = part.slice(at..len.min(at + PIECE)).to_vec();
            file.session.sftp.write(file.handle.as_str(), begin + at as u64, piece)
        });
        let written: Result<Vec<_>, SftpError> = pieces.buffer_unordered(at_once).try_collect().await;
        written.map_err(|e| bucket.explain(&file.session, e, &format!("write {key}")))?;
        self.written += len as u64;
        Ok(Taken::Sent)
    }

    async fn complete(&mut self) -> Result<()> {
        self.alive()?;
        if self.temporary.is_none() || self.file.is_some() {
            self.finish().await?;
        }
        let session = self.bucket.session().await?;
        let temporary = self.temporary.clone().unwrap_or_default();
        self.bucket.name(&session, &temporary, &self.key, &self.options).await?;
        self.temporary = None;
        self.ended = true;
        Ok(())
    }

    async fn abort(&mut self) -> Result<()> {
        self.give_up();
        Ok(())
    }
}

impl Drop for SftpUpload {
    fn drop(&mut self) {
        self.give_up();
    }
}
