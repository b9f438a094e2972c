//! Large files: blocks, which become a blob when they are listed.
//! Source: <https://learn.microsoft.com/rest/api/storageservices/put-block-list>.
//!
//! Blocks that are not listed are no blob, and the service removes them after a week. It keeps those of all writers of a
//! blob together, so their names begin with random bytes.

use std::fmt::Write as _;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use reqwest::Method;

use super::AzureBucket;
use super::failure::Failure;
use super::location::encode;
use super::session::Session;
use super::write::{described, md5};
use crate::error::{Error, ErrorKind, Result};
use crate::store::http::call::Call;
use crate::store::{PutOptions, Taken, Upload};

/// The bytes of a block's name. All names of one blob's blocks have the same length, and those of Litestream have this.
const NAME_LEN: usize = 64;

pub(super) struct AzureUpload {
    bucket: AzureBucket,
    key: String,
    options: PutOptions,
    random: [u8; 16],
    /// How many blocks the service has.
    blocks: u32,
    ended: bool,
}

impl AzureUpload {
    /// # Errors
    /// `Io` if the system has no random numbers.
    pub(super) fn new(bucket: AzureBucket, key: &str, options: PutOptions) -> Result<Self> {
        let mut random = [0; 16];
        getrandom::fill(&mut random)
            .map_err(|e| Error::new(ErrorKind::Io, format!("no random numbers: {e}")))?;
        Ok(Self { bucket, key: key.to_owned(), options, random, blocks: 0, ended: false })
    }

    fn alive(&self) -> Result<()> {
        if self.ended {
            Err(Error::new(ErrorKind::Interrupted, "the upload has ended already"))
        } else {
            Ok(())
        }
    }

    fn what(&self) -> String {
        format!("write {}", self.key)
    }

    /// The name of the block with this number, in base64.
    fn block(&self, number: u32) -> String {
        let mut name = [0; NAME_LEN];
        name[..16].copy_from_slice(&self.random);
        name[16..20].copy_from_slice(&number.to_be_bytes());
        BASE64.encode(name)
    }

    /// The document that makes the blob of the blocks.
    fn list(&self) -> String {
        let mut list = "<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList>".to_owned();
        for number in 0..self.blocks {
            write!(list, "<Latest>{}</Latest>", self.block(number))
                .expect("BUG: writing to a string does not fail");
        }
        list + "</BlockList>"
    }

    async fn failed(&self, session: &Session, failure: Failure) -> Error {
        match failure {
            // Whoever made the blob meanwhile has had the service drop the blocks of all others.
            Failure::Refused(refusal) if refusal.is_of_the_parts() => {
                match self.bucket.describe_blob(&self.key).await {
                    Ok(_) if self.options.if_absent => self.bucket.already_exists(&self.key),
                    Err(e) if e.kind() != ErrorKind::NotFound => e,
                    _ => self.lost(session),
                }
            }
            failure => self.bucket.explain(session, failure, &self.what()),
        }
    }

    fn lost(&self, session: &Session) -> Error {
        let (place, key) = (session.http.endpoint(), &self.key);
        Error::new(
            ErrorKind::Unavailable,
            format!("{place} has lost the parts of {key}; it has to be written again"),
        )
    }
}

#[async_trait]
impl Upload for AzureUpload {
    fn part_size(&self) -> usize {
        self.bucket.site().part_size
    }

    async fn part(&mut self, part: Bytes) -> Result<Taken> {
        self.alive()?;
        let session = self.bucket.session().await?;
        let path = self.bucket.site().blob_path(&self.key);
        let call =
            Call::new(Method::PUT, format!("{path}?comp=block&blockid={}", encode(&self.block(self.blocks))))
                .header("content-md5", md5(&part).await?)
                .body(part);
        match session.send(&call, self.bucket.way).await {
            Ok(_) => self.blocks += 1,
            Err(failure) => return Err(self.bucket.explain(&session, failure, &self.what())),
        }
        Ok(Taken::Sent)
    }

    async fn complete(&mut self) -> Result<()> {
        self.alive()?;
        let session = self.bucket.session().await?;
        let path = self.bucket.site().blob_path(&self.key);
        let call = Call::new(Method::PUT, format!("{path}?comp=blocklist"))
            .header("x-ms-blob-content-type", "application/octet-stream")
            .header("content-type", "application/xml")
            .headers(described(&self.options))
            .body(self.list().into());
        if let Err(failure) = self.bucket.send_if_absent(&session, &self.key, &self.options, call).await {
            return Err(self.failed(&session, failure).await);
        }
        self.ended = true;
        Ok(())
    }

    /// Nothing is to be removed: to remove the blocks would be to write the blob.
    async fn abort(&mut self) -> Result<()> {
        self.ended = true;
        Ok(())
    }
}
