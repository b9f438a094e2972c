//! Reading: what is in a folder, and ranges of files.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::future::join;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use russh_sftp::client::error::Error as SftpError;
use russh_sftp::protocol::{FileAttributes, OpenFlags, StatusCode};

use super::session::{Session, code_of};
use super::{PIECE, PIECES, SftpBucket};
use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::runtime;
use crate::store::folders::{Entry, Kind};
use crate::store::http::sessions::SessionRef;
use crate::store::{ByteRange, Content, ObjectInfo, Site as _, errors};

/// A file that is open on the server, and is closed when this is dropped.
pub(super) struct OpenFile {
    pub(super) session: SessionRef<Session>,
    pub(super) handle: String,
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        let (session, handle) = (self.session.clone(), std::mem::take(&mut self.handle));
        if handle.is_empty() {
            return;
        }
        if let Ok(runtime) = runtime::handle() {
            runtime.spawn(async move {
                let _ = session.sftp.close(handle).await;
            });
        }
    }
}

impl OpenFile {
    /// Closes the file, which is when some servers notice that they could not keep it.
    pub(super) async fn close(mut self) -> Result<(), SftpError> {
        let handle = std::mem::take(&mut self.handle);
        self.session.sftp.close(handle).await.map(drop)
    }

    /// `len` bytes from `at`. A server may give fewer at a time than it is asked for.
    async fn read(&self, at: u64, len: usize) -> Result<Bytes, SftpError> {
        let mut all = BytesMut::new();
        while all.len() < len {
            let (from, missing) = (at + all.len() as u64, (len - all.len()) as u32);
            let data = self.session.sftp.read(self.handle.as_str(), from, missing).await?.data;
            if data.is_empty() {
                return Err(SftpError::UnexpectedPacket);
            }
            all.extend_from_slice(&data);
        }
        Ok(all.freeze())
    }
}

impl SftpBucket {
    /// What is in the folder at `path`, without slashes at either end; nothing if it is not there.
    pub(super) async fn entries_of(&self, path: &str) -> Result<Vec<Entry>> {
        let session = self.session().await?;
        let explain = |e: SftpError| self.explain(&session, e, &format!("list '{path}'"));
        let folder = match session.sftp.opendir(self.site().path_of(path)).await {
            Ok(folder) => folder.handle,
            Err(e) if code_of(&e) == Some(StatusCode::NoSuchFile) => return Ok(Vec::new()),
            Err(e) => return Err(explain(e)),
        };
        let folder = OpenFile { session: session.clone(), handle: folder };
        let mut entries = Vec::new();
        loop {
            match session.sftp.readdir(folder.handle.as_str()).await {
                Ok(names) => {
                    for file in names.files {
                        entries.extend(self.entry(&session, path, file.filename, file.attrs).await?);
                    }
                }
                Err(e) if code_of(&e) == Some(StatusCode::Eof) => return Ok(entries),
                Err(e) => return Err(explain(e)),
            }
        }
    }

    async fn entry(
        &self,
        session: &Session,
        folder: &str,
        name: String,
        mut attributes: FileAttributes,
    ) -> Result<Option<Entry>> {
        if name == "." || name == ".." {
            return Ok(None);
        }
        if attributes.is_symlink() {
            let path = self.site().path_of(&crate::store::folders::join(folder, &name));
            match session.sftp.stat(path).await {
                Ok(followed) => attributes = followed.attrs,
                // It leads nowhere.
                Err(e) if code_of(&e).is_some() => return Ok(None),
                Err(e) => return Err(self.explain(session, e, &format!("list '{folder}'"))),
            }
        }
        let kind = match attributes.is_dir() {
            true => Kind::Folder,
            false => Kind::File { size: attributes.size.unwrap_or(0), modified: modified(&attributes) },
        };
        Ok(Some(Entry { name, kind }))
    }

    /// Size and time of a file.
    pub(super) async fn describe_file(&self, key: &str) -> Result<ObjectInfo> {
        let session = self.session().await?;
        let found = session.sftp.stat(self.site().path_of(key)).await;
        let attributes = found.map_err(|e| self.read_error(&session, e, key))?.attrs;
        let (size, time) = (attributes.size.unwrap_or(0), modified(&attributes));
        Ok(ObjectInfo { key: key.to_owned(), size, timestamp: time, stored: time })
    }

    /// The bytes of `range` of a file. Where they are known to be, they are asked for together with the size.
    pub(super) async fn get_file(&self, key: &str, range: ByteRange, size: Option<u64>) -> Result<Content> {
        let session = self.session().await?;
        let wrong = |e: SftpError| self.read_error(&session, e, key);
        let open = session.sftp.open(self.site().path_of(key), OpenFlags::READ, FileAttributes::empty());
        let handle = open.await.map_err(wrong)?.handle;
        let file = Arc::new(OpenFile { session: session.clone(), handle });
        let early = size.and_then(|size| range.within(size)).map(|within| self.pieces(&file, key, within));
        let (mut early, found) = (early, session.sftp.fstat(file.handle.as_str()));
        // Asked first, and so answered first: where the connection breaks off soon, the pieces that came before count.
        let (found, first) = match &mut early {
            Some(pieces) => join(found, pieces.next()).await,
            None => (found.await, None),
        };
        let (url, file_size) = (self.site().url(), found.map_err(wrong)?.attrs.size.unwrap_or(0));
        if let Some(listed) = size {
            errors::check_size(&url, key, listed, file_size)?;
        }
        let within = range.within(file_size).ok_or_else(|| errors::too_short(&url, key, range, file_size))?;
        let body = match early {
            Some(rest) => stream::iter(first).chain(rest).boxed(),
            None => self.pieces(&file, key, within),
        };
        Ok(Content { offset: within.0, file_size, timestamp: None, body })
    }

    /// The bytes of an open file from the first offset to the second, several pieces of which are asked for at a time.
    fn pieces(
        &self,
        file: &Arc<OpenFile>,
        key: &str,
        (start, end): (u64, u64),
    ) -> BoxStream<'static, Result<Bytes>> {
        let (file, bucket, key) = (Arc::clone(file), self.clone(), key.to_owned());
        let pieces = stream::iter((start..end).step_by(PIECE)).map(move |at| {
            let (file, bucket, key) = (Arc::clone(&file), bucket.clone(), key.clone());
            async move {
                let len = (end - at).min(PIECE as u64);
                file.read(at, len as usize).await.map_err(|e| match code_of(&e) {
                    Some(StatusCode::Eof) => {
                        let range = ByteRange::Bounded { offset: at, len };
                        errors::too_short(&bucket.site().url(), &key, range, at)
                    }
                    _ => bucket.explain(&file.session, e, &format!("read {key}")),
                })
            }
        });
        pieces.buffered(PIECES).boxed()
    }

    pub(super) fn read_error(&self, session: &Session, e: SftpError, key: &str) -> Error {
        match code_of(&e) {
            Some(StatusCode::NoSuchFile) => errors::not_found(&self.site().url(), key),
            _ => self.explain(session, e, &format!("read {key}")),
        }
    }
}

/// When a file was last written, in whole seconds.
fn modified(attributes: &FileAttributes) -> Timestamp {
    Timestamp::from_millis(i64::from(attributes.mtime.unwrap_or(0)) * 1000)
}
