//! Large files. Their size must be known before the first byte is sent: some servers lose what comes in pieces of unknown
//! number. So more than one part is first written to a local file that has no name.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::WebdavBucket;
use super::write::Body;
use crate::error::{Error, ErrorKind, Result};
use crate::files;
use crate::runtime::blocking;
use crate::store::{PutOptions, Taken, Upload};

/// The pieces in which an upload is best given.
const PART: usize = 1 << 20;

pub(super) struct WebdavUpload {
    bucket: WebdavBucket,
    key: String,
    options: PutOptions,
    content: Content,
}

/// What was given so far.
enum Content {
    /// At most one part.
    Held(Option<Bytes>),
    Staged(Arc<File>, u64),
    Ended,
}

impl WebdavUpload {
    pub(super) fn new(bucket: WebdavBucket, key: &str, options: PutOptions) -> Self {
        Self { bucket, key: key.to_owned(), options, content: Content::Held(None) }
    }

    /// A new local file without a name, which is gone with its descriptor.
    async fn stage(&self) -> Result<Arc<File>> {
        let folder = self.bucket.shared.staging.clone();
        let random = getrandom::u64();
        let random = random.map_err(|e| Error::new(ErrorKind::Io, format!("no random numbers: {e}")))?;
        blocking(move || {
            let path = folder.join(format!("upload-{random:016x}.tmp"));
            let made = || -> io::Result<File> {
                files::create_private_folders(&folder)?;
                let file = files::open(&path, OpenOptions::new().read(true).write(true))?;
                std::fs::remove_file(&path)?;
                Ok(file)
            };
            made().map(Arc::new).map_err(|e| Error::io(format_args!("cannot write '{}'", path.display()), e))
        })
        .await
    }

    async fn append(&mut self, part: Bytes) -> Result<()> {
        let Content::Staged(file, at) = &mut self.content else { return Err(ended()) };
        let (to, from, len) = (Arc::clone(file), *at, part.len() as u64);
        blocking(move || {
            to.write_all_at(&part, from).map_err(|e| Error::io("cannot keep a large file for its upload", e))
        })
        .await?;
        *at += len;
        Ok(())
    }
}

fn ended() -> Error {
    Error::new(ErrorKind::Interrupted, "the upload has ended already")
}

#[async_trait]
impl Upload for WebdavUpload {
    fn part_size(&self) -> usize {
        PART
    }

    async fn part(&mut self, part: Bytes) -> Result<Taken> {
        match &self.content {
            Content::Held(None) => {
                self.content = Content::Held(Some(part));
            }
            Content::Held(Some(first)) => {
                let first = first.clone();
                let file = self.stage().await?;
                self.content = Content::Staged(file, 0);
                self.append(first).await?;
                self.append(part).await?;
            }
            Content::Staged(..) => self.append(part).await?,
            Content::Ended => return Err(ended()),
        }
        Ok(Taken::Later)
    }

    async fn complete(&mut self) -> Result<()> {
        let body = match &self.content {
            Content::Held(held) => Body::Memory(held.clone().unwrap_or_default()),
            Content::Staged(file, len) => Body::Staged(Arc::clone(file), *len),
            Content::Ended => return Err(ended()),
        };
        self.bucket.put_file(&self.key, body, &self.options).await?;
        self.content = Content::Ended;
        Ok(())
    }

    /// Nothing is on the server before it is complete.
    async fn abort(&mut self) -> Result<()> {
        self.content = Content::Ended;
        Ok(())
    }
}
