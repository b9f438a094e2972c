//! Writing: the messages of content, one after the other, and then the one that describes them.

use async_nats::HeaderMap;
use async_trait::async_trait;
use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use super::object::{Object, Written};
use super::session::{Session, WRONG_SEQUENCE};
use super::{CHUNK, Failure, NatsBucket};
use crate::error::{Error, ErrorKind, Result};
use crate::runtime;
use crate::store::{PutOptions, Site as _, Taken, Upload, errors};

/// The pieces in which an upload is best given.
const PART: usize = 1 << 20;
/// The number of objects that are deleted at a time.
const DELETIONS: usize = 16;

/// An object that is being written.
pub(super) struct NatsUpload {
    bucket: NatsBucket,
    key: String,
    options: PutOptions,
    nuid: String,
    size: u64,
    chunks: u64,
    digest: Context,
    /// Its description was sent, and was not refused: it may be there.
    may_be_there: bool,
    ended: bool,
}

impl NatsBucket {
    pub(super) fn begin(&self, key: &str, options: &PutOptions) -> Result<NatsUpload> {
        let random = getrandom::u64().and_then(|a| getrandom::u64().map(|b| (a, b)));
        let (a, b) = random.map_err(|e| Error::new(ErrorKind::Io, format!("no random numbers: {e}")))?;
        Ok(NatsUpload {
            bucket: self.clone(),
            key: key.to_owned(),
            options: options.clone(),
            nuid: format!("{a:016x}{b:016x}"),
            size: 0,
            chunks: 0,
            digest: Context::new(&SHA256),
            may_be_there: false,
            ended: false,
        })
    }

    /// Removes an object: its description, so that nothing is left that would be listed for ever, and its content.
    async fn delete_object(&self, session: &Session, key: &str) -> Result<(), Failure> {
        let Some((object, _)) = session.meta(key).await? else { return Ok(()) };
        session.purge(&self.site().names.meta(key)).await?;
        session.purge(&self.site().names.content(&object.nuid)).await
    }

    pub(super) async fn delete_objects(&self, keys: &[String]) -> Result<()> {
        let session = self.session().await?;
        let deletions = stream::iter(keys.to_vec()).map(|key| {
            let (bucket, session) = (self.clone(), session.clone());
            async move {
                let deleted = bucket.delete_object(&session, &key).await;
                deleted.map_err(|failure| session.explain(failure, &format!("delete {key}")))
            }
        });
        deletions.buffer_unordered(DELETIONS).try_collect().await
    }

    /// Stores the description of an object. `last` is the number of the message that its subject must have, if it matters.
    async fn describe_as(
        &self,
        session: &Session,
        object: &Object,
        last: Option<u64>,
    ) -> Result<(), Failure> {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Rollup", "sub");
        if let Some(last) = last {
            headers.insert("Nats-Expected-Last-Subject-Sequence", last.to_string());
        }
        let body = serde_json::to_vec(object).expect("BUG: names and numbers are JSON");
        session.publish(self.site().names.meta(&object.name), headers, body.into()).await
    }

    /// The same if there is no such object.
    async fn describe_if_absent(&self, session: &Session, object: &Object) -> Result<(), Failure> {
        let (mut last, exists) = (0, || errors::already_exists(&self.site().url(), &object.name));
        loop {
            match self.describe_as(session, object, Some(last)).await {
                Err(Failure::Refused(WRONG_SEQUENCE, _)) => self.shared.fence.note_kept(),
                other => return other,
            }
            match session.meta(&object.name).await? {
                // It landed, and the answer did not.
                Some((there, _)) if there.nuid == object.nuid => return Ok(()),
                // Litestream leaves this in the place of what it deleted.
                Some((there, stored)) if there.deleted && stored.seq != last => last = stored.seq,
                Some(_) => return Err(exists().into()),
                None => last = 0,
            }
        }
    }
}

impl NatsUpload {
    fn alive(&self) -> Result<()> {
        match self.ended {
            false => Ok(()),
            true => Err(Error::new(ErrorKind::Interrupted, "the upload has ended already")),
        }
    }

    /// Stores a message of content. Where an answer got lost, the server knows the message again by its number.
    async fn chunk(&mut self, content: Bytes) -> Result<()> {
        let session = self.bucket.session().await?;
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", format!("{}-{}", self.nuid, self.chunks));
        let subject = self.bucket.site().names.content(&self.nuid);
        let stored = session.publish(subject, headers, content.clone()).await;
        stored.map_err(|failure| session.explain(failure, &format!("write {}", self.key)))?;
        self.size += content.len() as u64;
        self.chunks += 1;
        self.digest.update(&content);
        Ok(())
    }

    /// Stores the description, and removes the content of what it replaces.
    async fn describe(&self, session: &Session) -> Result<(), Failure> {
        let sha256 = self.digest.clone().finish().as_ref().to_vec();
        let written = Written { nuid: self.nuid.clone(), size: self.size, chunks: self.chunks, sha256 };
        let names = &self.bucket.site().names;
        let object = Object::new(&names.bucket, &self.key, written, self.options.timestamp, CHUNK);
        if self.options.if_absent {
            return self.bucket.describe_if_absent(session, &object).await;
        }
        let before = session.meta(&self.key).await?;
        self.bucket.describe_as(session, &object, None).await?;
        match before {
            Some((before, _)) if before.nuid != object.nuid => {
                session.purge(&names.content(&before.nuid)).await
            }
            _ => Ok(()),
        }
    }

    /// Nothing more comes: what was stored is removed in the background.
    fn give_up(&mut self) {
        let had = self.chunks > 0 && !self.may_be_there && !std::mem::replace(&mut self.ended, true);
        let (true, Ok(runtime)) = (had, runtime::handle()) else { return };
        let (bucket, subject) = (self.bucket.clone(), self.bucket.site().names.content(&self.nuid));
        runtime.spawn(async move {
            if let Ok(session) = bucket.session().await {
                let _ = session.purge(&subject).await;
            }
        });
    }
}

#[async_trait]
impl Upload for NatsUpload {
    fn part_size(&self) -> usize {
        PART
    }

    async fn part(&mut self, part: Bytes) -> Result<Taken> {
        self.alive()?;
        // What a part had before it failed is there already: it is given again from its begin.
        let done = (self.size as usize) % PART;
        for at in (done..part.len()).step_by(CHUNK) {
            self.chunk(part.slice(at..part.len().min(at + CHUNK))).await?;
        }
        Ok(Taken::Sent)
    }

    async fn complete(&mut self) -> Result<()> {
        self.alive()?;
        let session = self.bucket.session().await?;
        self.may_be_there = true;
        match self.describe(&session).await {
            Ok(()) => {
                self.ended = true;
                Ok(())
            }
            Err(Failure::Error(e)) if e.kind() == ErrorKind::AlreadyExists => {
                self.may_be_there = false;
                Err(e)
            }
            Err(failure) => {
                self.may_be_there = matches!(failure, Failure::Error(_));
                Err(session.explain(failure, &format!("write {}", self.key)))
            }
        }
    }

    async fn abort(&mut self) -> Result<()> {
        self.give_up();
        Ok(())
    }
}

impl Drop for NatsUpload {
    fn drop(&mut self) {
        self.give_up();
    }
}
